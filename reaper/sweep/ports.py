"""The ports of a sweep: what it sweeps, how, its observers, and what ends it early."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeVar

import anyio

from reaper.core.model import TIME_UP, Decision, EndpointReport, Kind, Resource, Result
from reaper.core.quota import Quota
from reaper.providers.abilities import Evidence
from reaper.providers.base import Reader
from reaper.retry.retrier import FailedAttempt, Retrier
from reaper.sweep.host_clock import HostClock
from reaper.sweep.owner_proofs import OwnerProofs
from reaper.sweep.ownership import Memory
from reaper.sweep.rests import Rests
from reaper.sweep.usage import LastUse

T = TypeVar("T")

DRAIN = timedelta(seconds=10)


class Choose(Protocol):
    """Says what of what is to be reaped may go in this round."""

    async def __call__(self, decisions: Sequence[Decision]) -> Collection[str]:
        """The ids; ``decisions`` are all about the endpoint."""
        ...


class Observer:
    """Observer of events while they happen: logs, progress bars, metrics, the journal. This one does nothing about them."""

    def listed(self, endpoint: str, held: int) -> None:
        """An endpoint has been listed."""

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:
        """All decisions about an endpoint have been made, and nothing has been deleted yet."""

    def retrying(self, endpoint: str, event: FailedAttempt) -> None:
        """An attempt failed and will be followed by another."""

    def settled(self, endpoint: str, result: Result) -> None:
        """A result is known. ``DELETED`` is still to be confirmed; a failure may come again after another round."""

    def finished(self, report: EndpointReport) -> None:
        """An endpoint is done; its results are final."""

    def bug(self, endpoint: str, error: BaseException) -> None:
        """Something unexpected happened on an endpoint."""


class Ledger(Protocol):
    """Is notified before anything is deleted, so that what a killed process did can be accounted for."""

    async def begin(self, endpoint: str, provider: str, decisions: Sequence[Decision]) -> None:
        """These are about to be deleted. Returns when that is on record, or cannot be; never raises."""


class EvidenceStore(Protocol):
    """Keeps what was known of a container or sandbox before it was deleted, with so many of the last lines of its log."""

    lines: int

    async def save(self, resource: Resource, found: Evidence) -> str | None:
        """Keep it. Returns why that could not be done, if so; never raises, and may be cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint for life: its client and what its tasks share. ``clock`` is this host's, where it has no other one."""

    reader: Reader
    retrier: Retrier
    memory: Memory | None = None
    last_use: LastUse | None = None
    owners: OwnerProofs | None = None
    clock: HostClock | None = None
    rests: Rests = field(default_factory=Rests)


@dataclass(frozen=True, slots=True)
class Options:
    """How to sweep.

    Args:
        act: False looks and decides only; the endpoints need no provider that can delete.
        due: the policies on whose behalf to act; None means all.
        fail_fast: stop at the first failure.
        inspect_everything: look closely at all resources, not at candidates only.
        max_deletions: more than this on one endpoint: delete nothing there. None means no limit.
        max_fraction: likewise, of what the endpoint holds.
        max_lease_deletions: likewise, of what leases have left that ended; these are counted by themselves.
        list_unjudged: list the volumes and images of Compose projects, too, which no rule judges.
        quotas: how much may be there at once: over them more goes.
        kinds: list all of these kinds, too, although no policy names them.
        choose: says what may go in this round; None where all may.
        safety_net: whether the endpoint's own timers are set, where its settings say so.
        begins: whether anything is begun; else what is to go is abandoned, since an earlier sweep has failed fast.
        watches: whether what is seen is remembered although nothing is done: since when something is unused, say.
    """

    act: bool = True
    due: frozenset[str] | None = None
    fail_fast: bool = False
    inspect_everything: bool = False
    max_deletions: int | None = None
    max_fraction: float | None = None
    max_lease_deletions: int | None = None
    list_unjudged: bool = False
    kinds: frozenset[Kind] = frozenset()
    quotas: tuple[Quota, ...] = ()
    choose: Choose | None = None
    safety_net: bool = False
    begins: bool = True
    watches: bool = False

    @property
    def learns(self) -> bool:
        """Whether what is seen is remembered: what only looks, once, remembers nothing."""
        return self.act or self.watches


class Stop:
    """Ends a sweep early.

    Args:
        drain: how long units that have begun to act may go on.
    """

    def __init__(self) -> None:
        self.why: str | None = None
        self.drain = DRAIN
        self._event = anyio.Event()

    def request(self, why: str, drain: timedelta = DRAIN) -> None:
        """Begin nothing new from now on. Only the first request counts."""
        if self.why is None:
            self.why = why
            self.drain = drain
            self._event.set()

    async def keep_time(self, limit: timedelta) -> None:
        """Request it, with no time to drain, when ``limit`` has passed."""
        await anyio.sleep(limit.total_seconds())
        self.request(TIME_UP, timedelta(0))

    async def within(self, limit: timedelta, work: Callable[[], Awaitable[T]]) -> T:
        """What ``work`` returns; the stop is requested when its time is up. Raises what it raises, as it is."""
        results, failed = [], None
        async with anyio.create_task_group() as group:
            group.start_soon(self.keep_time, limit, name="timeout")
            try:
                results.append(await work())
            except Exception as error:  # noqa: BLE001 - raised below: the group would wrap it
                failed = error
            group.cancel_scope.cancel()
        if failed is not None:
            raise failed
        return results[0]

    async def wait(self) -> None:
        """Wait until a stop is requested."""
        await self._event.wait()
