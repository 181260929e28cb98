"""Who holds the lease of a run, and cleans up after it whatever becomes of it."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import anyio

from reaper import connect
from reaper.claims import Ending
from reaper.conduct import Observers, close, conduct, progress
from reaper.durations import human
from reaper.errors import LeasesUnknownError
from reaper.guard import LOG, Guard
from reaper.leasedb import LeaseState
from reaper.leases import known_leases
from reaper.leftovers import TRIES, Wanted, end, of_lease, reap
from reaper.logs import LogObserver
from reaper.model import Report
from reaper.orders import Orders, Setup
from reaper.ownlease import OwnLease
from reaper.sweep import Observer, Stop

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_PASSING = frozenset(  # failures of a deletion after which another try may do it
    {
        "circuit_open",
        "in_progress",
        "later",
        "leases_unknown",
        "no_endpoint",
        "rate_limited",
        "server_error",
        "still_listed",
        "timeout",
        "unavailable",
        "unconfirmed",
    }
)
IDENTIFY_WITHIN = 5.0  # seconds for all endpoints to say which they are


class Hold(Protocol):
    """A lease that is held for a run."""

    @property
    def id(self) -> str:
        """The lease's id."""
        ...

    def keep(self) -> None:
        """Is called now and then while the command runs."""

    def clean_up(self, cause: str, log: "FilteringBoundLogger | None") -> Report:
        """The command has ended: take what it has left, and give the lease back. Raises LeasesUnknownError.

        Until then the lease keeps all of it, so that nobody else begins to take it as well.

        Args:
            cause: how it ended, for people.
            log: is told what happens.
        """
        ...


def identified(setup: Setup) -> frozenset[str]:
    """The ids of the endpoints that answer: only there can a claim take anything later."""
    plan = setup.plan
    endpoints = connect.endpoints(plan.engines, plan.organisations, plan.retry, setup.state, act=False)

    async def ask() -> frozenset[str]:
        try:
            with anyio.move_on_after(IDENTIFY_WITHIN):
                await connect.identify(endpoints)
        finally:
            await close(endpoints)
        return frozenset(id_ for endpoint in endpoints if (id_ := endpoint.reader.endpoint_id) is not None)

    return anyio.run(ask)


class GuardedHold:
    """A lease in the state directory, with a guard that outlives this process.

    Raises LeasesUnknownError when it cannot have one.
    """

    def __init__(self, setup: Setup, lease: OwnLease, scratch: Path | None, say: Callable[[str], None]) -> None:
        self._setup, self._lease, self._say = setup, lease, say
        try:
            self._guard = Guard(Orders(setup, lease.record, scratch))
        except OSError as error:
            end(setup.state, lease.record, LeaseState.RELEASED, "its guard could not be started")
            raise LeasesUnknownError(f"its guard cannot be started: {error}") from error

    @property
    def id(self) -> str:
        """See ``Hold``."""
        return self._lease.record.id

    def keep(self) -> None:
        """See ``Hold``."""
        try:
            self._lease.keep()
            if self._guard.keep():
                self._say("its guard was killed, and another one was started")
        except (LeasesUnknownError, OSError) as error:
            self._say(str(error))

    def clean_up(self, cause: str, log: "FilteringBoundLogger | None") -> Report:
        """See ``Hold``. The guard goes on where this is interrupted."""
        ended = datetime.now(UTC)  # of what others make while this is cleaned up nothing is the run's
        leases = of_lease(self.id, known_leases(self._setup.state, os.environ), Ending(ended, cause))
        report = clean_up(Wanted(self._setup, self.id, leases), log, self._say)
        if report.interrupted is None:
            try:
                end(self._setup.state, self._lease.record, LeaseState.RELEASED, cause, ended)
            except LeasesUnknownError as error:
                self._say(f"its lease cannot be given back: {error}")
            if may_go_later(report):
                self._guard.hand_over()
                self._say(
                    f"not everything could be looked at or deleted; its guard goes on trying for {human(TRIES)} and logs to"
                    f" {self._setup.state / LOG}"
                )
            else:
                self._guard.dismiss()
        return report


def may_go_later(report: Report) -> bool:
    """Whether another try may find or delete something: an endpoint was away, or a deletion failed for now."""
    return any(
        endpoint.cap is None and (endpoint.failure is not None or any(r.error in _PASSING for r in endpoint.results))
        for endpoint in report.endpoints
    )


def clean_up(wanted: Wanted, log: "FilteringBoundLogger | None", say: Callable[[str], None]) -> Report:
    """Take what a run has left, with a progress bar at a terminal. A signal ends it early."""
    found: list[Report] = []

    async def work(stop: Stop) -> int:
        observers: list[Observer] = [LogObserver(log)] if log is not None else []
        with progress(observers, act=True):
            found.append(await reap(wanted, Observers(observers), stop, say))
        return 0

    anyio.run(lambda: conduct(work, wanted.setup.plan.timeout))
    return found[0]
