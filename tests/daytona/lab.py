"""A simulated Daytona server, sweeps over its organisations, and what came of them."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from aiohttp import web
from aiohttp.typedefs import Middleware

from reaper.config.settings import Settings, one_off
from reaper.core.conditions import Policy
from reaper.core.lease import Lease
from reaper.core.model import Decision, Kind, Report, Result
from reaper.core.rules import Rules
from reaper.core.scope import Selector
from reaper.providers.daytona import client as daytona
from reaper.providers.daytona.registration import REGISTRATION
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.registration import EndpointSpec
from reaper.retry.retrier import RetryPolicy
from reaper.simulator.clock import Clock
from reaper.simulator.control import Call, Traffic
from reaper.simulator.daytona.model import Sandbox
from reaper.simulator.daytona.rules import Behaviour
from reaper.simulator.faults import Handler
from reaper.simulator.server import Simulator
from reaper.simulator.world import SandboxSpec
from reaper.sweep import connect
from reaper.sweep.sweep import Options, Stop, sweep
from tests.daytona.loop import LoopClock
from tests.sweep import lab

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ORG = "rl-org"
HARBOR = {"harbor.managed": "true"}

# As the real server, but GET and the list show what is true at once.
FRESH = Behaviour(get_cache=0, list_lag=0)
EXACT = RetryPolicy(jitter=timedelta(0))


def rules(**tables: Any) -> Rules:
    """The rules of a configuration with these tables; the defaults without any."""
    return Settings.model_validate(tables).rules()


def everything(base: Rules | None = None) -> Rules:
    """The rules of ``--all``."""
    policy = Policy("--all", frozenset({Kind.CONTAINER, Kind.SANDBOX}), every_resource=True)
    return one_off(base or rules(), [policy], Selector())


Hook = Callable[[Call], None]


class Watched(Traffic):
    """Tells of each request when it has been dealt with, before its answer leaves."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.hooks: list[Hook] = []

    def middleware(self) -> Middleware:
        count = super().middleware()

        @web.middleware
        async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await count(request, handler)
            finally:
                for hook in tuple(self.hooks):
                    hook(self.calls[-1])

        return watch


class Recorder(lab.Recorder):
    """Remembers an observer's events; ``on_decided`` is called before the first deletion."""

    def __init__(self) -> None:
        super().__init__()
        self.on_decided: Callable[[], object] = lambda: None

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:
        super().decided(endpoint, decisions)
        self.on_decided()


class Lab:
    """A simulated server in the running loop. An async context manager.

    Args:
        organisations: their names; the first one is meant where none is named.
        behaviour: of the server; as the real one's, harsh parts included, by default.
        retry: how calls are tried.
    """

    def __init__(
        self,
        *organisations: str,
        behaviour: Behaviour | None = None,
        retry: RetryPolicy = EXACT,
        **simulator: Any,
    ) -> None:
        names = organisations or (ORG,)
        self.clock = LoopClock(NOW)
        homes: Mapping[str, Iterable[SandboxSpec]] = dict.fromkeys(names, ())
        self.sim = Simulator(seed=7, clock=self.clock, behaviour=behaviour, sandboxes=homes, **simulator)
        self.traffic = Watched(self.clock)
        self.sim.daytona.traffic = self.traffic
        self.first = names[0]
        self.org = self.sim.organisation(self.first)
        self.retry = retry
        self.leases: list[Lease] = []
        self.observer = Recorder()
        self.stop = Stop()
        self.folder = tempfile.TemporaryDirectory(prefix="reaper-daytona-")
        self._patch = pytest.MonkeyPatch()

    async def __aenter__(self) -> Self:
        # Host and server live by one clock here, and it is not the real one.
        self._patch.setattr(daytona, "clock_skew", lambda *_: (timedelta(0), timedelta(0)))
        await self.sim.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sim.__aexit__(None, None, None)
        self._patch.undo()
        self.folder.cleanup()
        assert self.observer.bugs == []

    # What is there

    def add(
        self, name: str, *, age: timedelta = 2 * DAY, idle: timedelta | None = None, org: str | None = None, **fields: Any
    ) -> Sandbox:
        """A sandbox that Harbor made so long ago and left running, unless told otherwise."""
        now = self.clock.now()
        values: dict[str, Any] = {
            "created": now - age,
            "active": now - (age if idle is None else idle),
            "labels": HARBOR,
            "auto_delete": 0,
        }
        spec = SandboxSpec(name=name, **{**values, **fields})
        return self.sim.organisation(org or self.first).add(spec)

    def leftovers(self, count: int, org: str | None = None) -> set[str]:
        """So many forgotten sandboxes; their names."""
        return {self.add(f"leftover-{i:04}", org=org, age=2 * DAY + i * SECOND).name for i in range(count)}

    def left(self, org: str | None = None) -> set[str]:
        """The names of what a client would see."""
        organisation = self.sim.organisation(org or self.first)
        organisation.settle()
        return {row.name for row in organisation.rows.values() if not row.hidden}

    def on(self, method: str, part: str, act: Callable[[], object], *, times: int = 1) -> None:
        """Do something when such a request has been dealt with, before its answer leaves; once by default."""
        left = times

        def hook(call: Call) -> None:
            nonlocal left
            if left and call.method == method and part in call.path:
                left -= 1
                act()

        self.traffic.hooks.append(hook)

    def asked(self, method: str, part: str = "") -> list[Call]:
        """The requests of this method whose path has this in it."""
        return [call for call in self.traffic.calls if call.method == method and part in call.path]

    # Sweeping

    def table(self, org: str | None = None, **fields: Any) -> DaytonaTable:
        """The table of an organisation as it would stand in the file."""
        return DaytonaTable(name=org or self.first, **{"api_url": self.sim.daytona_url, **fields})

    async def sweep(
        self,
        judged_by: Rules | None = None,
        *,
        tables: Iterable[tuple[DaytonaTable, str]] | None = None,
        key: str | None = None,
        table: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Report:
        """Sweep the first organisation, or those of ``tables`` with their keys."""
        act = options.get("act", True)
        wanted = tables or [(self.table(**(table or {})), key or self.sim.api_key(self.first))]
        endpoints = connect.endpoints(
            [EndpointSpec(REGISTRATION, *one) for one in wanted], self.retry, Path(self.folder.name), act=act
        )
        try:
            return await sweep(
                endpoints,
                judged_by or rules(),
                Options(**options),
                clock=self.clock.now,
                observer=self.observer,
                leases=lambda: tuple(self.leases),
                stop=self.stop,
            )
        finally:
            for endpoint in endpoints:
                await endpoint.reader.close()


def outcomes(report: Report) -> dict[str, str]:
    """What became of each that was to go, by name."""
    return {result.decision.resource.name: result.outcome.value for result in report.results}


def reasons(report: Report) -> dict[str, str]:
    """Why each is to go or kept, by name."""
    return {d.resource.name: d.reason.value for endpoint in report.endpoints for d in endpoint.decisions}


def result(report: Report, name: str) -> Result:
    return next(r for r in report.results if r.decision.resource.name == name)


def warnings(report: Report) -> str:
    return "\n".join(warning for endpoint in report.endpoints for warning in endpoint.warnings)
