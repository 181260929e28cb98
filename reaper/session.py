"""One session with a plan's endpoints: what every sweep of this program needs, wired, opened and closed here only."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio

from reaper.core.disk import Thresholds
from reaper.core.lease import Lease
from reaper.core.model import Report
from reaper.core.pressure import awake
from reaper.core.rules import Rules
from reaper.leases.served import FollowedLeases, ServedLeases
from reaper.leases.sources import KnownLeases, other_service, service_at
from reaper.observers.evidence import EvidenceFiles
from reaper.observers.journal import NAME, Journal
from reaper.paths import sockets_to_ask
from reaper.sweep import connect
from reaper.sweep.engines import Engines
from reaper.sweep.plan import Plan
from reaper.sweep.ports import Choose
from reaper.sweep.pressure import Pressure, Relief, Turns, concerned, meter_of
from reaper.sweep.sweep import Endpoint, Observer, Options, Stop, sweep

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

CLOSE_WITHIN = 5.0  # seconds for a client: one that hangs keeps neither the others nor the journal from being closed


def utc_now() -> datetime:
    """Return the aware time in UTC."""
    return datetime.now(UTC)


class Session:
    """The clients, the journal, the leases and the observers of a plan, for any number of sweeps.

    Works with ``async with``; ``open`` and ``close`` are for those that close in an order of their own::

        async with Session(plan, observers=[LogObserver(log)]) as session:
            report = await session.sweep()

    Args:
        plan: the endpoints, how they are swept, the state directory and how the journal is kept.
        act: whether the clients can delete, and a journal is kept. False gives clients that have no method to delete with.
            What the plan's options say when None; of each plan that is connected.
        records_dry_runs: whether a journal is kept, and sweeps that delete nothing are on record as well.
        observers: are notified of every sweep, besides the journal. More may be appended.
        sockets: where services may listen whose leases count as those in the state directory do; those of this host when
            None, and then the one at REAPER_URL as well.
        other: asks a service elsewhere, where ``sockets`` is given.
        log: gets a warning when the journal begins to lose records, and when they are written again.
        failed: is called in place of the first, with the reason; perhaps in the journal's thread.
        recovered: likewise, in place of the second.
        thorough: see ``Journal``.
        clock: returns the aware time in UTC.

    Attributes:
        endpoints: the plan's, while the session is open.
        journal: None where none is kept.
        clock: the one that was given.
        engines: what the endpoints lead to, as far as they have been listed.
        leases: reads the leases that protect something here. May raise LeasesUnknownError.
        observer: all observers as one.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        act: bool | None = None,
        records_dry_runs: bool = False,
        observers: Iterable[Observer] = (),
        sockets: Sequence[str] | None = None,
        other: ServedLeases | FollowedLeases | None = None,
        log: "FilteringBoundLogger | None" = None,
        failed: Callable[[str], None] | None = None,
        recovered: Callable[[str], None] | None = None,
        thorough: bool = False,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.plan = plan
        self.endpoints: Sequence[Endpoint] = ()
        self.observers = list(observers)
        self.observer: Observer = _Observers(self.observers)
        if sockets is None:
            sockets, other = sockets_to_ask(os.environ), service_at(other_service(os.environ), os.environ, state=plan.state)
        self.engines, self._turns = Engines(), Turns()
        self.leases = KnownLeases(plan.state, sockets, other)
        self.journal: Journal | None = None
        self._act, self._records_dry_runs = act, records_dry_runs
        self.clock = clock
        self._stack = AsyncExitStack()
        self._evidence = EvidenceFiles(plan.state, plan.evidence, clock)
        if (self._can_act(plan) or records_dry_runs) and plan.journal.enabled:
            self.journal = Journal(
                plan.state / NAME,
                keep_for=plan.journal.keep_for,
                max_megabytes=plan.journal.max_megabytes,
                clock=clock,
                failed=failed or partial(self._warn, log, "journal_failed"),
                recovered=recovered or partial(self._warn, log, "journal_recovered"),
                thorough=thorough,
            )

    async def __aenter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, body: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def open(self) -> None:
        """Make the clients, and begin to open the journal. Nothing is asked of an endpoint yet. Raises ConfigError."""
        if self.journal is not None:
            self._stack.push_async_callback(self.journal.close)
            self.journal.open()
        self._stack.callback(self.leases.close)
        self.endpoints = self.connect(self.plan)
        for endpoint in self.endpoints:
            self._stack.push_async_callback(_close, endpoint)

    async def close(self) -> None:
        """Close the clients first and the journal last, whatever has been cancelled."""
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()

    def _warn(self, log: "FilteringBoundLogger | None", event: str, problem: str) -> None:
        if log is not None:
            log.warning(event, file=str(self.plan.state / NAME), problem=problem)

    def connect(self, plan: Plan) -> list[Endpoint]:
        """Return clients of the plan's endpoints that end on their own, as those of the service do at a reload."""
        return connect.endpoints(plan.endpoints, plan.retry, plan.state, act=self._can_act(plan))

    def _can_act(self, plan: Plan) -> bool:
        return plan.options.act if self._act is None else self._act

    async def sweep(
        self,
        rules: Rules | None = None,
        options: Options | None = None,
        *,
        endpoints: Sequence[Endpoint] | None = None,
        leases: Callable[[], Iterable[Lease]] | None = None,
        stop: Stop | None = None,
    ) -> Report:
        """Sweep once. One that may delete is on record in the journal; others only where the session keeps record of them.

        Args:
            rules: what decides; the plan's when None.
            options: how; the plan's when None.
            endpoints: what to sweep; all of the session's when None.
            leases: which leases count; all that ``self.leases`` reads when None.
            stop: ends it early.
        """
        rules, options = rules or self.plan.rules, options or self.plan.options
        endpoints = self.endpoints if endpoints is None else endpoints
        journal = self.journal if options.act or self._records_dry_runs else None
        if journal is not None:
            for endpoint in endpoints:  # what goes without any policy goes on behalf of a lease
                journal.about(endpoint.reader.endpoint, options.due if rules.policies else frozenset())
        report = await sweep(
            endpoints,
            rules,
            options,
            clock=self.clock,
            observer=self.observer if journal is None else _Observers([*self.observers, journal]),
            leases=leases or self.leases,
            ledger=journal if options.act else None,
            evidence=self._evidence if options.act and self.plan.evidence.wanted else None,
            stop=stop,
            engines=self.engines,
        )
        if options.act:
            await self._evidence.tidy()  # what is old goes, too, when nothing more is saved
        return report

    async def relieve(
        self,
        endpoint: Endpoint,
        rules: Rules | None = None,
        options: Options | None = None,
        *,
        disk: Thresholds | None = None,
        stop: Stop | None = None,
    ) -> Relief | None:
        """Sweep under pressure until the endpoint's disk is not too full, or nothing more may go; None without pressure.

        Args:
            endpoint: it.
            rules: the plan's when None.
            options: the plan's when None; of ``due`` only policies that run under pressure count.
            disk: when it is too full; the plan's when None.
            stop: ends it early.
        """
        rules, options, stop = rules or self.plan.rules, options or self.plan.options, stop or Stop()
        due = concerned(rules, endpoint)
        due = due if options.due is None else due & options.due
        if (meter := meter_of(endpoint)) is None or not due:
            return None
        woken = awake(rules, {endpoint.reader.endpoint})

        async def once(choose: Choose) -> Report:
            pressed = replace(options, due=due, choose=choose, safety_net=False)
            return await self.sweep(woken, pressed, endpoints=[endpoint], stop=stop)

        thresholds = disk or self.plan.disk
        return await Pressure(meter, thresholds, once, stop, self._turns, fail_fast=options.fail_fast).relieve()


async def _close(endpoint: Endpoint) -> None:
    with anyio.move_on_after(CLOSE_WITHIN):
        await endpoint.reader.close()


class _Observers(Observer):
    """Notifies several observers; a list that grows meanwhile is followed."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        for name in (name for name in vars(Observer) if not name.startswith("_")):
            setattr(self, name, partial(self._notify, observers, name))

    @staticmethod
    def _notify(observers: Sequence[Observer], name: str, *arguments: object) -> None:
        for observer in observers:
            getattr(observer, name)(*arguments)
