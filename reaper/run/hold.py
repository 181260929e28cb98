"""Who holds the lease of a run, and cleans up after it whatever becomes of it."""

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from reaper.core.durations import human
from reaper.core.lease import Claim, Ending
from reaper.core.model import Report
from reaper.errors import PASSING, ConfigError, LeasesUnknownError
from reaper.leases.peers import is_trusted, listener
from reaper.leases.process import OwnLease
from reaper.leases.record import LeaseRecord, LeaseState
from reaper.leases.served import ServedLeases
from reaper.leases.sources import service_at
from reaper.library.lease import HeldLease, lease
from reaper.library.lease_client import LeaseRefusedError
from reaper.observers.log import LogObserver
from reaper.observers.progress import progress
from reaper.paths import TOKEN, URL
from reaper.run.cleanup import TRIES, clean_up, end
from reaper.run.guard import LOG, Guard
from reaper.run.orders import Orders
from reaper.session import Session
from reaper.sweep import connect
from reaper.sweep.plan import Plan
from reaper.sweep.runner import run_with_deadline
from reaper.sweep.sweep import Stop

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LOST_FOR = 75.0  # seconds: a service that was just started gives each holder a minute
LOOK_EVERY = 0.5
IDENTIFY_WITHIN = 5.0  # seconds for all endpoints to say which they are


def identified(plan: Plan) -> frozenset[str]:
    """The ids of the endpoints that answer: only there can a claim take anything later."""

    async def ask() -> frozenset[str]:
        async with Session(plan, act=False) as session:
            with anyio.move_on_after(IDENTIFY_WITHIN):
                await connect.identify(session.endpoints)
            return connect.ids(session.endpoints)

    return anyio.run(ask)


def _addresses(plan: Plan) -> frozenset[str]:
    """The addresses of all endpoints."""

    async def read() -> frozenset[str]:
        async with Session(plan, act=False) as session:
            return frozenset(endpoint.reader.identity for endpoint in session.endpoints)

    return anyio.run(read)


def await_lost(url: str, say: Callable[[str], None]) -> None:
    """Wait while leases of the service on this socket are about to end, since the connections of their holders are gone.

    The sweep then takes what they cover. Else the command, where it resumes one that was killed, would find that running,
    use it (as Compose's ``up`` does), and lose it moments later.
    """
    leases, until, said = service_at(url, os.environ), time.monotonic() + LOST_FOR, False
    assert isinstance(leases, ServedLeases)  # nothing follows it
    while time.monotonic() < until:
        try:
            rows = leases.rows(state="open")
        except LeasesUnknownError:
            return  # the sweep says so
        lost = [row for row in rows if row["state"] == LeaseState.RECONNECTING and row.get("heartbeat_seconds") is None]
        if not lost:
            return
        if not said:
            say(f"waiting for lease {lost[0]['id']}, whose holder is gone, to end")
            said = True
        time.sleep(LOOK_EVERY)


class GuardedHold:
    """A lease in the state directory, with a guard that outlives this process.

    Raises LeasesUnknownError when it cannot have one.
    """

    def __init__(
        self,
        plan: Plan,
        lease: OwnLease,
        scratch: Path | None,
        say: Callable[[str], None],
        elsewhere: HeldLease | None = None,
    ) -> None:
        self._plan, self._lease, self._say, self._elsewhere = plan, lease, say, elsewhere
        self._is_open = True
        try:
            self._guard = Guard(Orders(plan, lease.record, scratch))
        except OSError as error:
            end(plan.state, lease.record, LeaseState.RELEASED, "its guard could not be started")
            self._release_elsewhere("its guard could not be started")
            raise LeasesUnknownError(f"its guard cannot be started: {error}") from error

    @property
    def id(self) -> str:
        """The lease's id."""
        return self._lease.record.id

    def keep(self) -> None:
        """Is called now and then while the command runs."""
        try:
            self._lease.keep()
            if self._is_open and (record := self._lease.record).state.ended:
                self._is_open = False
                self._say(f"its lease was ended by {record.ended_by}: {record.cause}; what it has made is garbage now")
                self._release_elsewhere(record.cause)
            if self._guard.keep():
                self._say("its guard was killed, and another one was started")
        except (LeasesUnknownError, OSError) as error:
            self._say(str(error))

    def clean_up(self, cause: str, log: "FilteringBoundLogger | None") -> Report:
        """The command has ended: take what it has left, and give the lease back. Raises LeasesUnknownError.

        Until then the lease keeps all of it, so that no other process begins to take it as well. The guard goes on where
        this is interrupted.

        Args:
            cause: how it ended, for people.
            log: gets the events.
        """
        began = time.monotonic()
        ended = datetime.now(UTC)  # of what others make while this is cleaned up nothing is the run's
        self._guard.over(ended.timestamp())
        if self._elsewhere is not None:
            self._elsewhere.over()
        report = _clean_up(self._plan, self.id, Ending(ended, cause), log, self._say)
        if report.interrupted is None:
            try:
                end(self._plan.state, self._lease.record, LeaseState.RELEASED, cause, ended)
            except LeasesUnknownError as error:
                self._say(f"its lease cannot be given back: {error}")
            self._release_elsewhere(cause, over_for=time.monotonic() - began)
            if may_go_later(report):
                self._guard.hand_over()
                self._say(
                    f"not everything could be looked at or deleted; its guard goes on trying for {human(TRIES)} and logs to"
                    f" {self._plan.state / LOG}"
                )
            else:
                self._guard.dismiss()
        return report

    def _release_elsewhere(self, cause: str, over_for: float = 0.0) -> None:
        if self._elsewhere is not None:
            self._elsewhere.release(cause, over_for=over_for)


def held_elsewhere(plan: Plan, record: LeaseRecord, url: str, say: Callable[[str], None]) -> HeldLease:
    """The lease of a run, held at the service at REAPER_URL as well, for those on other hosts who ask it.

    What the run leaves is taken on this host, by the run or its guard, which know how it ended. When the host dies that
    service misses the heartbeats, and takes what is on the endpoints that it sweeps. While it is away the run goes on.

    Raises ConfigError when the service does not grant it.
    """
    age = None if record.max_age is None else record.max_age.total_seconds()
    said = lambda text: say(f"the service at {URL}: {text}")  # noqa: E731
    held = lease([claim.fields() for claim in record.claims], name=record.id, url=url, on_trouble=said, max_age=age)
    try:
        held.__enter__()
    except LeaseRefusedError as error:
        end(plan.state, record, LeaseState.RELEASED, "the service elsewhere did not grant it")
        hint = f"set {TOKEN} to the token of its [leases]"
        raise ConfigError(f"the service does not grant the lease: {error}", hint, URL) from None
    return held


def may_go_later(report: Report) -> bool:
    """Whether another try may find or delete something: an endpoint was away, or a deletion failed for now."""
    return any(
        endpoint.cap is None and (endpoint.failure is not None or any(r.error in PASSING for r in endpoint.results))
        for endpoint in report.endpoints
    )


def _clean_up(
    plan: Plan, id_: str, ending: Ending, log: "FilteringBoundLogger | None", say: Callable[[str], None]
) -> Report:
    """Take what a run has left, with a progress bar at a terminal. A signal ends it early."""
    found: list[Report] = []

    async def work(stop: Stop) -> int:
        observers = [LogObserver(log)] if log is not None else []
        session = Session(plan, observers=observers, failed=say, recovered=say)
        with progress(session.observers, act=True, endpoints=len(plan.endpoints)):
            found.append(await clean_up(session, id_, stop, ending=ending))
        return 0

    anyio.run(lambda: run_with_deadline(work, plan.timeout))
    return found[0]


_HINT = (
    "label what is created with $REAPER_LABEL in place of --own, or have the operator name you in trusted_users of [leases]"
)


class ServedHold:
    """A lease that the service keeps.

    Args:
        plan: where what is left has to be looked for.
        held: the lease.
        say: prints a message.
    """

    def __init__(self, plan: Plan, held: HeldLease, say: Callable[[str], None]) -> None:
        self._plan, self._held, self._say = plan, held, say
        self.id = held.id

    def keep(self) -> None:
        """As ``GuardedHold.keep``: a thread does it."""

    def clean_up(self, cause: str, log: "FilteringBoundLogger | None") -> Report:
        """As ``GuardedHold.clean_up``. The service goes on where this is interrupted."""
        ended, began = datetime.now(UTC), time.monotonic()
        self._held.over()
        try:
            report = _clean_up(self._plan, self.id, Ending(ended, cause), log, self._say)
            if may_go_later(report):
                self._say("not everything could be looked at or deleted; the service goes on trying")
            return report
        finally:
            self._held.release(cause, over_for=time.monotonic() - began)


Hold = GuardedHold | ServedHold
"""A lease that is held for a run."""


def served(
    plan: Plan, claims: Sequence[Claim], url: str, say: Callable[[str], None], max_age: timedelta | None = None
) -> ServedHold | None:
    """A lease of the service, unless it does not answer or does not sweep all that the run may use.

    Args:
        plan: where what is left has to be looked for.
        claims: what the lease covers besides what carries its label.
        url: of the service's local socket.
        say: prints a message.
        max_age: how old the lease may become.

    Raises ConfigError when the service does not grant it.
    """
    if not is_trusted(listener(url.removeprefix("unix://"))):
        say(f"the service on {url} is another user's, so this run has a guard of its own")
        return None
    said, age = lambda text: say(f"the service: {text}"), None if max_age is None else max_age.total_seconds()
    held = lease([claim.fields() for claim in claims], url=url, on_trouble=said, max_age=age)
    try:
        held.__enter__()
    except LeaseRefusedError as error:
        raise ConfigError(f"the service on {url} does not grant the lease: {error}", _HINT) from None
    if held.state == "live":
        missing = _addresses(plan) - {*held.endpoints}
        if not missing:
            return ServedHold(plan, held, say)
        say(f"the service on {url} does not sweep {', '.join(sorted(missing))}, so this run has a guard of its own")
    held.release("it was not used")
    return None
