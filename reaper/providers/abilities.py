"""What an endpoint may be able to do besides: a provider implements those of these protocols that are true of it."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from reaper.core.disk import DiskUsage
from reaper.core.model import Kind, Resource
from reaper.core.safety_net import Timer
from reaper.providers.base import Call, Listed


@runtime_checkable
class Watched(Protocol):
    """A reader whose endpoint has events of deaths."""

    def deaths(self, connected: Callable[[], None], since: datetime | None = None) -> AsyncIterator[Resource]:
        """What has died, as far as the endpoint reports it: hints, since some may be lost. Raises ``ProviderError``.

        ``connected`` is called as soon as it is listened to.
        """
        ...


@dataclass(frozen=True, slots=True)
class Uses:
    """What was used since an earlier look.

    Args:
        ids: ids, names and image references of what something has used since then.
        complete: whether nothing else was used: False where the endpoint no longer knows all of that time.
        mark: stands for this moment when it is asked the next time.
        deleted: when volumes and images were deleted since then, by id, on the endpoint's clock, as far as it still knows.
        untold: kinds of which anything may have been used as well.
        arrived: when images were pulled, loaded, tagged, imported or built since then, by id or reference.
    """

    ids: frozenset[str] = frozenset()
    complete: bool = False
    mark: str | None = None
    deleted: Mapping[str, datetime] = field(default_factory=dict)
    untold: frozenset[Kind] = frozenset()
    arrived: Mapping[str, datetime] = field(default_factory=dict)


@runtime_checkable
class WatchesUse(Protocol):
    """A reader whose endpoint tells what was used since an earlier look."""

    async def uses(self, since: str | None, call: Call) -> Uses:
        """What was used since the look that ``since`` stands for; not complete without one. Raises ``ProviderError``."""
        ...


@runtime_checkable
class FollowsUse(Protocol):
    """A reader whose endpoint forgets soon what was used, and tells it at once to a listener."""

    async def follow_uses(self) -> bool:
        """Listen from when ``uses`` is asked for the first time, so that it knows for longer, until the connection ends.

        Returns False where there is nothing to be gained by that. Raises ``ProviderError``.
        """
        ...


class DiskMeter(Protocol):
    """Measures the disk that an endpoint's data are on."""

    @property
    def every(self) -> float:
        """Seconds between two measurements that nothing asks for."""
        ...

    @property
    def pause(self) -> float:
        """Seconds at the least between two measurements while something is deleted."""
        ...

    async def usage(self) -> DiskUsage:
        """How full it is now; with ``problem`` where that cannot be known. Never raises ``ProviderError``."""
        ...

    async def sizes(self, resources: Sequence[Resource]) -> Mapping[str, int]:
        """By id how large the file systems of these stopped containers are, as far as that is measured in time.

        Never raises ``ProviderError``: what is not measured goes later.
        """
        ...


@runtime_checkable
class OnDisk(Protocol):
    """A reader whose endpoint has a disk that may be measured."""

    @property
    def meter(self) -> DiskMeter | None:
        """What measures it; None where nothing does."""
        ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a resource before it is deleted, without its secrets.

    Args:
        inspection: how it was made and how it ended: exit code, out of memory, health.
        log: the last that it wrote; None where none is to be had.
        note: why its log is missing or not whole.
        problem: what could not be had and should have been, for a warning.
    """

    inspection: Mapping[str, object]
    log: str | None = None
    note: str = ""
    problem: str = ""


@runtime_checkable
class GivesEvidence(Protocol):
    """A reader that can tell how a container or sandbox ended, and perhaps what it wrote last."""

    async def evidence(self, resource: Resource, lines: int) -> Evidence:
        """What is known of it, with so many of the last lines of its log; none with 0. Raises ``ProviderError``."""
        ...


@runtime_checkable
class Linking(Protocol):
    """A reader that can list the links of many resources with few requests."""

    async def links(self, call: Call) -> Mapping[str, frozenset[str]]:
        """By id what each uses, as far as that is known. Never raises ``ProviderError``: the others are inspected."""
        ...


@runtime_checkable
class Renewing(Protocol):
    """A reader that answers many with one listing, and can make the next one while the last one still serves."""

    async def renew(self, listed: Listed, call: Call) -> None:
        """Do so for as long as they are asked for, until cancelled. ``listed`` is what ``dependents`` is asked about."""
        ...


@runtime_checkable
class HidesFailures(Protocol):
    """A reader by whose looks by id a deletion may seem to be done that was accepted and has failed, or goes on."""

    async def remainder(self, resource: Resource, call: Call) -> str | None:
        """What is left of it, for people; None where it is gone or nothing else is known. Never raises ``ProviderError``."""
        ...


@runtime_checkable
class Elsewhere(Protocol):
    """A reader whose platform may hold something of the same owner where this program cannot list it."""

    async def elsewhere(self) -> str | None:
        """What is known to be there, for people; None where nothing is. Raises ``ProviderError`` where that is unknown.

        It has a bound of its own, and says nothing about the endpoint.
        """
        ...


@runtime_checkable
class Archiving(Protocol):
    """A provider whose endpoint keeps what has stopped where it costs next to nothing, and can start it from there."""

    async def archive(self, resource: Resource) -> None:
        """Archive what has stopped. Returns when that is accepted; the endpoint refuses what runs: ``ProviderError``."""
        ...


@runtime_checkable
class SetsTimers(Protocol):
    """A provider whose endpoint ends what it holds by timers of its own."""

    async def set_timer(self, resource: Resource, timer: Timer) -> None:
        """Set one. Returns when that is accepted, whatever it was before."""
        ...
