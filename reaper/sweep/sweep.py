"""One pass over the endpoints, all at once.

Errors become outcomes in a sweep, and only there. One resource that fails never stops the others, one endpoint that is down
never hinders another, and a sweep that is cut short still reports what it did.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import anyio
import anyio.abc

from reaper.core.lease import Lease
from reaper.core.model import EndpointFailure, Report
from reaper.core.rules import Rules
from reaper.descriptors import for_connections, limit
from reaper.errors import TooManyFilesError, UnavailableError
from reaper.providers.base import FEWEST, answers
from reaper.sweep.endpoint_sweep import EndpointSweep, SharedPass
from reaper.sweep.engines import Engines
from reaper.sweep.ports import DRAIN, Endpoint, EvidenceStore, Ledger, Observer, Options, Stop

MANY, FEW = 10, 4  # of so many endpoints, no more than one in four ...
PATIENCE = 2.0  # seconds: for so long even a few are waited for that do not answer
SLOW = 0.5  # seconds without an answer after which something is asked that costs an endpoint little, whatever its size

__all__ = ["DRAIN", "Endpoint", "Ledger", "Observer", "Options", "Stop", "sweep"]


async def sweep(
    endpoints: Sequence[Endpoint],
    rules: Rules,
    options: Options,
    *,
    clock: Callable[[], datetime],
    observer: Observer,
    leases: Callable[[], Iterable[Lease]] = lambda: (),
    ledger: Ledger | None = None,
    evidence: EvidenceStore | None = None,
    stop: Stop | None = None,
    engines: Engines | None = None,
) -> Report:
    """Sweep all endpoints at once.

    Args:
        endpoints: what to sweep; with ``options.act`` their readers must be providers.
        rules: what decides.
        options: how to sweep.
        clock: returns the aware time in UTC; it is read once at the start and once at each second look.
        observer: is notified of events.
        leases: reads the leases, living and ended, cheapest as ``Leases``. May raise LeasesUnknownError: then nothing is
            deleted.
        ledger: is notified of what is about to be deleted, and waited for.
        evidence: keeps what was known of each container and sandbox that is deleted, where that is wanted.
        stop: ends the sweep early; what was done until then is reported.
        engines: what the endpoints of this process lead to; these alone when None.
    """
    started_at, began = clock(), anyio.current_time()
    stop = stop or Stop()
    # The traceback of the watch, which is cancelled, refers to this function's frame until the collector runs: none of its
    # variables may hold an endpoint's pass, but this list, which is empty in the end.
    engines = Engines() if engines is None else engines
    passes = _passes(endpoints, SharedPass(rules, options, clock, leases, observer, ledger, engines, evidence))
    async with anyio.create_task_group() as watch:
        watch.start_soon(_watch, stop, passes, name="watch for a stop")
        async with anyio.create_task_group() as group:
            _begin(group, passes)
        watch.cancel_scope.cancel()
    reports = tuple(map(EndpointSweep.report, passes))
    _forget(passes)
    for report in reports:
        observer.finished(report)
    seconds = anyio.current_time() - began
    return Report(started_at=started_at, seconds=seconds, dry_run=not options.act, endpoints=reports, interrupted=stop.why)


def _passes(endpoints: Sequence[Endpoint], shared: SharedPass) -> list[EndpointSweep]:
    if endpoints and (free := for_connections()) is not None:
        now, at_most = (number // len(endpoints) for number in free)
        shared.connections = max(now, FEWEST)
        if at_most < FEWEST:
            enough = max(64, 2 * ((limit() or 0) + FEWEST * len(endpoints) - free[1]))
            shared.too_few = (
                f"this process may have only {limit()} files open, too few to finish what it would begin; "
                f"allow {enough} or more: {TooManyFilesError.hint}"
            )
    passes = [EndpointSweep(endpoint, shared) for endpoint in endpoints]

    def drain_all() -> None:
        for each in passes:
            each.drain()

    shared.failed_fast = drain_all
    return passes


def _begin(group: anyio.abc.TaskGroup, passes: Sequence[EndpointSweep]) -> None:
    wait = _Wait(passes, {each.name for each in passes})
    for each in passes:
        group.start_soon(wait.run, each, name=f"sweep {each.name}")


@dataclass
class _Wait:
    """Waits for all endpoints, but not for a few of many that do not answer at all: these may be dead.

    A large one that takes its time for its listing is none of these: it answers a small question meanwhile.

    Args:
        passes: all of them.
        left: the names of those that are not done.
    """

    passes: Sequence[EndpointSweep]
    left: set[str]
    over: anyio.Event = field(default_factory=anyio.Event)
    began: float = field(default_factory=anyio.current_time)

    async def run(self, each: EndpointSweep) -> None:
        """Make one pass."""
        async with anyio.create_task_group() as group:
            if len(self.passes) >= MANY:
                group.start_soon(self._ask, each, name=f"ask {each.name}")
            await each.run()
            group.cancel_scope.cancel()
        self.left.remove(each.name)
        if not self.left:
            self.over.set()
        elif self._only_silent():
            with anyio.move_on_after(max(self.began + PATIENCE - anyio.current_time(), 0)):
                await self.over.wait()
            if self._only_silent():
                self._give_up()

    async def _ask(self, each: EndpointSweep) -> None:
        """Note that it lives if it answers."""
        await anyio.sleep(SLOW)
        if not each.retrier.breaker.answered:
            with suppress(Exception):  # its sweep finds out what is wrong there
                each.retrier.breaker.answered = await answers(each.reader) or each.retrier.breaker.answered

    def _only_silent(self) -> bool:
        many = len(self.passes) >= MANY and len(self.left) * FEW <= len(self.passes)
        return many and not any(each.retrier.breaker.answered for each in self.passes if each.name in self.left)

    def _give_up(self) -> None:
        seconds, done = anyio.current_time() - self.began, len(self.passes) - len(self.left)
        for each in self.passes:
            if each.name in self.left and each.failure is None:
                why = each.retrier.breaker.last or f"no answer within {seconds:.1f} s"
                said = f"{why}; given up when the other {done} endpoints were done"
                each.failure = EndpointFailure(UnavailableError.label, said)
                each.scope.cancel()


def _forget(passes: list[EndpointSweep]) -> None:
    for each in passes:
        each.forget()
    passes.clear()


async def _watch(stop: Stop, passes: Sequence[EndpointSweep]) -> None:
    await stop.wait()
    for each in passes:
        each.drain()
        if not each.context:
            each.scope.cancel()
    await anyio.sleep(stop.drain.total_seconds())
    for each in passes:
        each.cut()
