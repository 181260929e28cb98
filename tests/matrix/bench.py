"""A simulated provider, a session before it, and one call at which a fault strikes; all in one loop in which time jumps."""

import asyncio
import itertools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.samples import Sample

from reaper.config.settings import JournalTable, Settings
from reaper.core.model import Action, EndpointReport, Outcome, Report
from reaper.observers.evidence import EvidenceFiles
from reaper.observers.instruments import reach
from reaper.observers.json_report import report_document
from reaper.observers.metrics import Metrics
from reaper.providers.daytona import client as daytona
from reaper.providers.docker import connection as docker
from reaper.providers.parsing import clock_skew
from reaper.retry.retrier import RetryPolicy
from reaper.session import Session
from reaper.simulator.control import Traffic
from reaper.simulator.daytona.rules import Behaviour
from reaper.simulator.faults import Handler
from reaper.simulator.server import Simulator
from reaper.sweep.plan import Plan
from reaper.sweep.ports import Observer
from reaper.sweep.reach import PARTLY
from reaper.sweep.result import SweepResult, sweep_result
from reaper.sweep.runner import exit_code
from reaper.sweep.sweep import Options, Stop
from tests.daytona.loop import LoopClock
from tests.matrix import faults
from tests.matrix.strikes import Strike
from tests.matrix.worlds import ARCHIVE, DELETE, ENDPOINT, EVENTS, INSPECTION, LEASED, LISTING, LOG, STOP, World, addressed
from tests.owners.machine import FakeMachine

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
RETRY = RetryPolicy(
    attempts=3, initial_delay=timedelta(seconds=1), jitter=timedelta(0), request_timeout=timedelta(seconds=10)
)
PASSING = 2  # so many requests meet a fault that passes: fewer than there are attempts
_CALLS = {
    STOP: faults.STOP,
    ARCHIVE: faults.ARCHIVE,
    DELETE: faults.DELETION,
    EVENTS: faults.EVENTS,
    LOG: faults.LOG,
}
LONGEST = timedelta(minutes=30)  # for both sweeps: after more than that what must live would be old enough to go


class SkewedClock(LoopClock):
    """The server's: it may be set while it runs."""

    skew = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.skew


class _Traffic(Traffic):
    """The outermost part of a server, where the faults strike."""

    def __init__(self, bench: "Bench") -> None:
        super().__init__(bench.server_clock)
        self._bench = bench

    def middleware(self) -> Middleware:
        count = super().middleware()

        @web.middleware
        async def meet(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await count(request, partial(self._bench.meet, handler=handler))

        return meet


class _Watch(Observer):
    """Follows the phases of a sweep, by which the same request is one call or another."""

    def __init__(self, bench: "Bench") -> None:
        self._bench = bench

    def listed(self, *_: object) -> None:
        self._bench.phase = "decide"

    def decided(self, *_: object) -> None:
        self._bench.phase = "act"
        if self._bench.before_acting is not None:
            self._bench.before_acting()

    def bug(self, _: str, error: BaseException) -> None:
        self._bench.bugs.append(error)


class Bench:
    """See above. An async context manager.

    Args:
        world: of one provider.
        call: at which the fault strikes.
        strike: what happens then; nothing when None.
        times: how often; for as long as the fault lasts when None.
        skew: of the server's clock, in seconds, from before anything there was created.
        machine: has the processes that own something; this host's when None.
        tables: of the configuration.

    Attributes:
        state: the state directory.
        before_acting: is called when a sweep has decided.
    """

    def __init__(
        self,
        world: World,
        call: str,
        strike: Strike | None,
        times: int | None,
        *,
        skew: float = 0,
        machine: FakeMachine | None = None,
        **tables: Any,
    ) -> None:
        self.world, self.call, self.strike, self.left = world, call, strike, times
        self.clock, self.server_clock = LoopClock(NOW), SkewedClock(NOW)
        quick = Behaviour(pickup=(0, 1), destroy=(1, 4), stop=(1, 2), get_cache=0, list_lag=0)
        self.sim = Simulator(seed=7, clock=self.server_clock, behaviour=quick)
        self.sim.daytona.traffic = _Traffic(self)
        self.sim.docker.traffic = _Traffic(self)
        self.set_skew(skew)
        world.fill(self.sim)
        self.phase = "list"
        self.struck = 0
        self.bugs: list[BaseException] = []
        self.accepted: set[str] = set()
        self.recorded: set[str] = set()
        self.before_acting: Callable[[], object] | None = None
        self.sent: list[str] = []
        self._counted: dict[tuple[str, str], float] = {}
        self._sites: list[Callable[[], web.BaseSite]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="reaper-matrix-")
        self._patch = pytest.MonkeyPatch()
        self._machine, self._tables = machine, tables
        self.state = Path(self._folder.name)

    async def __aenter__(self) -> Self:
        now = self.clock.now  # of this host, too
        for module in (daytona, docker):
            self._patch.setattr(module, "clock_skew", lambda headers, *_: clock_skew(headers, now(), now()))
        await self.sim.__aenter__()
        self.settings = Settings.model_validate({"scope": {"labels": ["team=rl"]}, **self._tables})
        plan = Plan(
            endpoints=(self.world.spec(self.sim),),
            rules=self.settings.rules(),
            options=Options(max_deletions=100),
            retry=RETRY,
            state=self.state,
            journal=JournalTable(enabled=False),  # its thread lives by another clock; the programs of test_process keep one
            evidence=self.settings.evidence,
        )
        self.metrics = Metrics(CollectorRegistry(), clock=lambda: self.clock.now().timestamp())
        self.metrics.configure({ENDPOINT: self.world.name}, reach((ENDPOINT,), plan.rules.policies))
        self.session = Session(plan, observers=[_Watch(self), self.metrics], sockets=(), clock=self.clock.now)
        self.session.open()
        self._patch.setattr(EvidenceFiles, "_in_thread", _at_once)  # its thread lives by another clock, too
        for endpoint in self.session.endpoints:
            if self._machine is not None and endpoint.owners is not None:
                endpoint.owners._machine, endpoint.owners._clock = self._machine, self.clock.now
        self.session.leases = lambda: (LEASED,)  # type: ignore[assignment]  # without a file of leases
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.sim.__aexit__(None, None, None)
        self._patch.undo()
        self._folder.cleanup()

    # -- the server ----------------------------------------------------------------------------------------------------

    async def meet(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request, or let the fault strike at it."""
        call = self._call(request)
        self.sent.append(f"{call or '-'}: {request.method} {request.path_qs}")
        if self.strike is None or call != self.call or self.left == 0:
            return await self._answered(request, handler)
        if self.left is not None:
            self.left -= 1
        self.struck += 1
        return await self.strike(self, request, lambda request: self._answered(request, handler))

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        if self.world.kind(request) in self.world.acts and answer.status < 300:
            self.accepted.add(addressed(request))
        return answer

    def _call(self, request: web.Request) -> str | None:
        """Which call of the sweep a request belongs to."""
        kind, call = self.world.kind(request), None
        if kind == LISTING and self.phase == "list":
            is_first_page = self.world.name == faults.DAYTONA and "cursor" not in request.query
            call = None if is_first_page else faults.LIST  # in mid-listing
        elif kind == LISTING and self.phase == "act":
            is_over = self.world.name == faults.DOCKER and not self.world.go & self.world.names()
            call = faults.CONFIRM if is_over else faults.GROUP
        elif kind == INSPECTION:
            call = faults.INSPECT if self.phase == "decide" else self._inspected(request)
        elif kind in _CALLS:
            call = _CALLS[kind]
        return call

    def _inspected(self, request: web.Request) -> str:
        """What an inspection is for while the sweep acts: its evidence is the first look at each."""
        id_, has_evidence = addressed(request), "/networks/" not in request.path
        if self.settings.evidence.wanted and has_evidence and id_ not in self.recorded:
            self.recorded.add(id_)
            return faults.EVIDENCE
        return faults.CONFIRM if id_ in self.accepted else faults.RECHECK

    async def stop_listening(self) -> None:
        """Accept no connection any more, and end those that there are."""
        for runner in self.sim._runners:
            for site in tuple(runner.sites):
                self._sites.append(_again(site, runner))
                await site.stop()
        if self.left is not None:  # it passes: one attempt is refused
            self.left = 0
            self._coming = asyncio.create_task(self._come_back())
        for runner in self.sim._runners:
            assert runner.server is not None
            for connection in tuple(runner.server.connections):
                if connection.transport is not None:
                    connection.transport.abort()

    async def _come_back(self) -> None:
        await asyncio.sleep(1.5)
        await self.listen_again()

    async def listen_again(self) -> None:
        sites, self._sites = self._sites, []
        for make in sites:
            await make().start()

    def set_skew(self, seconds: float) -> None:
        """Set the server's clock."""
        if self.world.name == faults.DOCKER:
            self.sim.engine.skew = timedelta(seconds=seconds)
        else:
            self.server_clock.skew = timedelta(seconds=seconds)

    async def end(self) -> None:
        """The fault is over."""
        self.strike = None
        self.sim.faults.clear()
        self.sim.faults.release()
        self.world.mend()
        self.set_skew(0)
        await self.listen_again()

    # -- the sweeps ----------------------------------------------------------------------------------------------------

    async def sweep(self) -> "Swept":
        """Sweep once, and hold what is said about it to what happened."""
        self.phase, before, counted = "list", self.world.names(), self._counted
        self.recorded.clear()
        stop = Stop()
        report = await stop.within(self.session.plan.timeout, lambda: self.session.sweep(stop=stop))
        self.metrics.ended(report, None, self.clock.now())
        self._counted = self._counters()
        swept = Swept(report, before, self.world.names(), self)
        swept.check(counted, self._counted)
        return swept

    def _counters(self) -> dict[tuple[str, str], float]:
        """The counters of deletions and of other actions by outcome, and of sweeps and of evidence by result."""
        instruments, found = self.metrics._i, dict[tuple[str, str], float]()
        counters = (instruments.deletions, instruments.actions, instruments.sweeps, instruments.evidence)
        for sample in itertools.chain.from_iterable(map(_samples, counters)):
            for label in ("outcome", "result"):
                if sample.name.endswith("_total") and label in sample.labels:
                    key = (sample.name, sample.labels[label])
                    found[key] = found.get(key, 0.0) + sample.value
        return found

    @property
    def violations(self) -> float:
        """How many there were."""
        return sum(sample.value for sample in _samples(self.metrics._i.violations) if sample.name.endswith("_total"))

    @property
    def up(self) -> float:
        """The gauge of the endpoint."""
        (sample,) = _samples(self.metrics._i.up)
        return sample.value


def _samples(metric: Counter | Gauge) -> list[Sample]:
    """Of this one alone: a registry takes a tenth of a cell's time to collect all."""
    return [sample for family in metric.collect() for sample in family.samples]


async def _at_once(_: EvidenceFiles, function: Callable[..., str | None], *arguments: object) -> str | None:
    return function(*arguments)


def _again(site: web.BaseSite, runner: web.AppRunner) -> Callable[[], web.BaseSite]:
    """What listens where ``site`` did."""
    if isinstance(site, web.UnixSite):
        return partial(web.UnixSite, runner, site._path)
    assert isinstance(site, web.SockSite)
    port = site._sock.getsockname()[1]
    return partial(web.TCPSite, runner, "127.0.0.1", port, reuse_address=True)


@dataclass
class Swept:
    """A sweep and what was there before and after it."""

    report: Report
    before: set[str]
    after: set[str]
    bench: Bench

    def __post_init__(self) -> None:
        self.code = exit_code(self.report)
        (self.endpoint,) = self.report.endpoints
        self.outcomes = {result.decision.resource.name: result.outcome for result in self.report.results}

    @property
    def story(self) -> str:
        """What a failed assertion shows."""
        endpoint: EndpointReport = self.endpoint
        results = [f"{r.decision.resource.name}: {r.outcome} {r.detail}" for r in endpoint.results]
        kept = [f"{d.resource.name}: {d.reason} {d.sentence}" for d in endpoint.decisions if not d.reap]
        lines = [f"exit {self.code}, {endpoint.failure}", *results, *kept, *endpoint.warnings, *self.bench.sent[-60:]]
        return "\n".join(lines)

    def check(self, before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> None:
        """Nothing that must live died, and report, exit code and metrics say what happened."""
        world, left = self.bench.world, self.bench.world.go & self.after
        assert not self.bench.bugs, (self.bench.bugs, self.story)
        assert world.live <= self.after, (world.live - self.after, self.story)
        removed = {name for name, outcome in self.outcomes.items() if outcome.removed}
        assert not removed & self.after, ("reported as removed, and still there", removed & self.after, self.story)
        if DELETE not in world.acts:  # there a denied deletion falls back to a stop
            halted = {name for name, outcome in self.outcomes.items() if outcome in (Outcome.STOPPED, Outcome.ARCHIVED)}
            assert not halted & self.after, ("reported as stopped or archived, and is not", halted & self.after, self.story)
        for name in self.before - self.after:
            said = self.outcomes.get(name)
            done = (Outcome.DELETED, Outcome.GONE, Outcome.FAILED, Outcome.STOPPED, Outcome.ARCHIVED)
            assert said in done, (name, said, self.story)
        failed = [
            result
            for result in self.report.results
            if result.outcome in (Outcome.FAILED, Outcome.ABANDONED)
            or (result.outcome is Outcome.STOPPED and result.decision.deletes)
        ]
        assert self.code == (5 if self.endpoint.failure else 3 if failed else 0), self.story
        if self.code == 0:  # each that is left is one that the report names as skipped or kept, or that it never saw
            going = {name for name in left if name in self.outcomes}
            assert all(self.outcomes[name] is Outcome.SKIPPED for name in going), self.story
        self._check_metrics(before, after)
        document = json.loads(report_document(self.report, "once", self.code))
        assert document["counts"] == {outcome.value: self.report.count(outcome) for outcome in Outcome}
        assert document["exit_code"] == self.code

    def _check_metrics(self, before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> None:
        counted = {key: int(value - before.get(key, 0.0)) for key, value in after.items() if value != before.get(key, 0.0)}
        result = sweep_result(self.endpoint, self.report.interrupted)
        expected = {("reaper_sweeps_total", result.value): 1}
        for found in self.report.results:
            name = "reaper_deletions_total" if found.decision.action is Action.DELETE else "reaper_actions_total"
            expected[name, found.outcome.value] = expected.get((name, found.outcome.value), 0) + 1
            if found.evidence is not None:
                is_saved = ("reaper_evidence_total", "saved" if found.evidence else "failed")
                expected[is_saved] = expected.get(is_saved, 0) + 1
        assert counted == expected, self.story
        assert not self.bench.violations, self.story
        label = self.endpoint.failure.label if self.endpoint.failure else None
        if label != "interrupted":  # else nothing is known
            assert self.bench.up == (label in (None, PARTLY)), self.story
        assert (result is SweepResult.SUCCESS) == (self.code == 0), self.story
