"""`reaper demo`: the whole program against the built-in simulator. Neither Docker nor an account nor a network is needed.

The servers are simulated and nothing else is: the sweep is the one of ``--once``, over HTTP, with its retries and limits.
What the user has configured is neither read nor contacted.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from reaper import exits
from reaper.config.policies import DEFAULT_POLICIES
from reaper.config.settings import JournalTable, Settings
from reaper.core.model import Decision, Report
from reaper.errors import ConfigError
from reaper.observers import log as logs
from reaper.observers.progress import progress
from reaper.providers.daytona.registration import REGISTRATION as DAYTONA
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.docker.registration import REGISTRATION as DOCKER
from reaper.providers.docker.settings import DockerTable
from reaper.providers.registration import EndpointSpec
from reaper.retry.retrier import RetryPolicy
from reaper.session import Session
from reaper.simulator.demo import sections
from reaper.simulator.demo.screen import Screen
from reaper.simulator.demo.world import ENGINE, FLAKY, ORGANISATION, World
from reaper.sweep.plan import Plan
from reaper.sweep.runner import exit_code, run_with_deadline
from reaper.sweep.sweep import Observer, Options, Stop

_LIMIT = timedelta(minutes=2)
_DRAIN = timedelta(seconds=1)  # nothing is lost here when a deletion is cut short
# The defaults, but for the patience: ten seconds for a process that ignores its signal are too long for a demo.
_SETTINGS = {
    "scope": {"labels": ["team=rl"]},
    "retry": {"initial_delay": "300ms", "jitter": "100ms", "max_delay": "2s", "request_timeout": "2s"},
    "policy": [policy | ({"stop_timeout": "2s"} if policy["kinds"] == ["container"] else {}) for policy in DEFAULT_POLICIES],
}


def run(seed: int, log_level: str | None) -> int:
    """Show the demo; its exit code is that of its sweep, and 0 when everything ended as it must.

    Args:
        seed: the same seed makes the same world.
        log_level: None for no log beside what is shown.
    """
    os.environ["no_proxy"] = "*"  # the servers are on this machine, and a proxy is none of them
    log = logs.configure("console", log_level or "error")
    return anyio.run(_Demo(seed, logs.LogObserver(log) if log_level else Observer()).run)


class _Demo:
    def __init__(self, seed: int, watcher: Observer) -> None:
        self._seed = seed
        self._watcher = watcher
        self._screen = Screen()
        self._settings = Settings.model_validate(_SETTINGS)

    async def run(self) -> int:
        began = time.monotonic()
        code = await run_with_deadline(self._work, _LIMIT, _DRAIN)
        if code == 0:
            sections.end(self._screen, self._seed, time.monotonic() - began)
        return code

    async def _work(self, stop: Stop) -> int:
        world = World.make(self._seed, datetime.now(UTC))
        try:
            state = tempfile.TemporaryDirectory(prefix="reaper-demo-")
        except OSError as error:
            problem = f"no folder can be made for its state: {error.strerror}"
            raise ConfigError(problem, "set TMPDIR to a directory that this user can write to") from None
        with state as folder, world.simulator:
            return await self._show(world, Path(folder), stop)

    async def _show(self, world: World, state: Path, stop: Stop) -> int:
        screen = self._screen
        screen.title("reaper demo", "real sweeps of simulated servers; nothing of yours is touched")
        screen.say("Killed benchmark runs leave containers and cloud sandboxes behind: disks fill")
        screen.say("up, quotas run out, money burns. reaper deletes them, and no living trial.")
        listed = await self._sweep(world, state, stop, [self._watcher], Options(act=False, inspect_everything=True))
        if code := exit_code(listed):
            sections.problems(screen, listed)
            return code
        sections.inventory(screen, listed)
        screen.heading("The sweep", "Requests fail, a rate limit is hit, and a container is started again.")
        before = world.there()
        world.go_wrong()
        attempts = sections.Attempts(screen, anyio.current_time)
        observers: list[Observer] = [self._watcher, attempts, _Returner(world, attempts)]
        limits = self._settings.effective_limits()
        options = Options(max_deletions=limits.max_deletions, max_fraction=limits.max_fraction)
        with progress(observers, act=True, endpoints=len(listed.endpoints), console=screen.console):
            report = await self._sweep(world, state, stop, observers, options)
        requests = {endpoint.endpoint: world.requests(endpoint.endpoint) for endpoint in report.endpoints}
        if code := exit_code(report):
            sections.outcomes(screen, sections.Facts(report, attempts, requests))
            sections.problems(screen, report)
            return code
        again = await self._sweep(world, state, stop, [self._watcher], Options(act=False))
        reapable = sum(decision.reap for endpoint in again.endpoints for decision in endpoint.decisions)
        there = world.there()
        proven = there == before.difference(*(endpoint.removed for endpoint in report.endpoints))
        if code := exit_code(again):
            sections.problems(screen, again)
            return code
        facts = sections.Facts(report, attempts, requests, reapable, len(there), proven=proven)
        for section in sections.AFTER:
            section(screen, facts)
        return exits.LEFT if reapable else 0 if proven else exits.BUG

    async def _sweep(self, world: World, state: Path, stop: Stop, observers: Sequence[Observer], options: Options) -> Report:
        settings, simulator = self._settings, world.simulator
        specs = [EndpointSpec(DOCKER, DockerTable(name=ENGINE, host=simulator.docker_host))]
        for name in (ORGANISATION, FLAKY):
            table = DaytonaTable(name=name, api_url=simulator.daytona_url)
            specs.append(EndpointSpec(DAYTONA, table, simulator.api_key(name)))
        plan = Plan(
            endpoints=tuple(specs),
            rules=settings.rules(),
            options=options,
            retry=RetryPolicy(**dict(settings.retry)),
            state=state,
            journal=JournalTable(enabled=False),
        )
        async with Session(plan, observers=observers, sockets=()) as session:
            return await session.sweep(stop=stop)


class _Returner(Observer):
    """A user who starts a stopped container when its deletion has been decided, and nothing is deleted yet."""

    def __init__(self, world: World, attempts: sections.Attempts) -> None:
        self._world = world
        self._attempts = attempts

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:  # noqa: ARG002
        """See ``sweep.Observer``."""
        if endpoint == ENGINE:
            self._attempts.show(endpoint, f"a user starts {self._world.restart()} again")
