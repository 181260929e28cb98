"""Who holds the lease of a run, and cleans up after it whatever becomes of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import anyio

from reaper.claims import Claim
from reaper.conduct import Observers, conduct, progress
from reaper.errors import LeasesUnknownError
from reaper.guard import Guard
from reaper.leasedb import LeaseState
from reaper.leases import SharedLeases
from reaper.leftovers import Orders, Setup, Wanted, end, of_lease, reap
from reaper.logs import LogObserver
from reaper.model import Report
from reaper.ownlease import OwnLease
from reaper.sweep import Observer, Stop

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class Hold(Protocol):
    """A lease that is held for a run."""

    @property
    def id(self) -> str:
        """The lease's id."""
        ...

    def keep(self) -> None:
        """Is called now and then while the command runs."""

    def release(self, cause: str) -> None:
        """The command has ended: what it left is garbage. ``cause`` is for people."""

    def clean_up(self, log: "FilteringBoundLogger | None") -> Report:
        """Take what it has left. Raises LeasesUnknownError."""
        ...


def take(setup: Setup, claims: Sequence[Claim], command: str, scratch: Path, say: Callable[[str], None]) -> Hold:
    """Take a lease. Raises LeasesUnknownError.

    Args:
        setup: where what is left has to be looked for.
        claims: what the lease covers besides what carries its label.
        command: for whom, without arguments.
        scratch: a folder that goes with the run.
        say: tells people.
    """
    return GuardedHold(setup, OwnLease(setup.state, claims, command), scratch, say)


class GuardedHold:
    """A lease in the state directory, with a guard that outlives this process.

    Raises LeasesUnknownError when it cannot have one.
    """

    def __init__(self, setup: Setup, lease: OwnLease, scratch: Path, say: Callable[[str], None]) -> None:
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

    def release(self, cause: str) -> None:
        """See ``Hold``."""
        try:
            end(self._setup.state, self._lease.record, LeaseState.RELEASED, cause)
        except LeasesUnknownError as error:
            self._say(f"its lease cannot be given back: {error}")

    def clean_up(self, log: "FilteringBoundLogger | None") -> Report:
        """See ``Hold``. The guard goes on where this is interrupted."""
        leases = of_lease(self.id, SharedLeases(self._setup.state))
        report = clean_up(Wanted(self._setup, self.id, leases), log, self._say)
        if report.interrupted is None:
            self._guard.dismiss()
        return report


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
