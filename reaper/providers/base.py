"""What a provider offers to the sweep. A new provider is one file that implements these protocols.

A ``Reader`` has no method that changes anything: it is all that a dry run, a listing or a check is given.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol, TypeVar, runtime_checkable

from reaper.core.accounts import Pruned
from reaper.core.durations import human
from reaper.core.model import Kind, Resource, State
from reaper.core.safety_net import SafetyNet
from reaper.errors import NoSuchEndpointError, ProviderError, ReaperError, RefusedError, UnavailableError

T = TypeVar("T")

LARGEST_SKEW = timedelta(hours=1)  # more is no drift: a clock was never set, or the header is not the endpoint's own


class Call(Protocol):
    """Makes one request with the caller's retries, limits and time-outs: so a page of many is retried by itself."""

    async def __call__(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        """The result of ``function``, which is called once for each attempt; ``what`` is for messages."""
        ...


async def call_once(what: str, function: Callable[[], Awaitable[T]]) -> T:  # noqa: ARG001
    """A ``Call`` that does nothing besides."""
    return await function()


@dataclass(frozen=True, slots=True)
class Also:
    """What a listing is asked for besides the containers or sandboxes, their projects' networks, and certain labels.

    Args:
        ids: of volumes and images: what was seen to be made under a lease need not carry a label.
        projects: whether the volumes and images of every Compose project are wanted.
        kinds: of these kinds all are wanted.
        sizes: of these kinds the sizes are wanted where measuring takes an engine long.
    """

    ids: frozenset[str] = frozenset()
    projects: bool = False
    kinds: frozenset[Kind] = frozenset()
    sizes: frozenset[Kind] = frozenset()


NOTHING_ELSE = Also()


@dataclass(frozen=True, slots=True)
class Inventory:
    """One complete listing.

    Args:
        resources: everything that the endpoint holds of the kinds that the provider has.
        clock_skew: the endpoint's clock minus this host's.
        clock_error: by how much that may be wrong, either way.
        unreadable: how many rows are not among ``resources`` for want of an id.
        unlisted: kinds that only leases take and that could not be listed, each with the error; nothing of them is in
            ``resources``.
        engine: what identifies the one that has answered, whatever the way to it, for as long as it runs; None where nothing
            does.
    """

    resources: tuple[Resource, ...]
    clock_skew: timedelta = timedelta(0)
    unreadable: int = 0
    clock_error: timedelta = timedelta(0)
    unlisted: Mapping[Kind, str] = field(default_factory=dict)
    engine: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether what is absent from it is gone: a row without an id may be that of anything."""
        return not self.unreadable and all(resource.id for resource in self.resources)

    @property
    def skew_bounds(self) -> tuple[timedelta, timedelta]:
        """The least and the greatest difference of the clocks. They are taken for the same where they may be."""
        bounds = self.clock_skew - self.clock_error, self.clock_skew + self.clock_error
        return (timedelta(0), timedelta(0)) if bounds[0] <= timedelta(0) <= bounds[1] else bounds

    @property
    def clock_problem(self) -> str | None:
        """Why ages are unknown there, if the clocks differ too much for a correction: one of them is wrong."""
        if abs(self.clock_skew) <= LARGEST_SKEW:
            return None
        way = "ahead of" if self.clock_skew > timedelta(0) else "behind"
        return (
            f"by the Date header of its answers its clock is {human(abs(self.clock_skew))} {way} this host's, so no age can"
            " be told there and nothing is deleted; set both clocks (NTP), or mend the proxy that answers in between"
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """What a sweep decided about.

    Args:
        ids: of all of it.
        newest: when the newest of it was created, where that is known; none that is dated after the listing.
        at: when its listing began, on the endpoint's clock.
    """

    ids: frozenset[str] = frozenset()
    newest: datetime | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be asked of the endpoint at the same time.

    Args:
        together: where given, all calls share this one limit, which adapts to how the endpoint answers.
    """

    reads: int = 16
    removals: int = 8
    stops: int = 128
    together: int | None = None

    def within(self, connections: int) -> "Limits":
        """No more than so many at once, all together; at least one of each."""
        if self.together is not None:
            return replace(self, together=max(min(self.together, connections), 1))
        reads = max(min(self.reads, connections // 4), 1)
        removals = max(min(self.removals, connections // 4), 1)
        return replace(self, reads=reads, removals=removals, stops=max(min(self.stops, connections - reads - removals), 1))


FEWEST = 3  # connections with which an endpoint can be swept: one to look, one to stop and one to remove


@dataclass(frozen=True, slots=True)
class Traits:
    """The limits and pauses of an endpoint.

    Args:
        stops_first: what runs must be stopped before it is deleted.
        kinds: the kinds that policies judge there.
        confirm_within: a deletion is only accepted at first. It is done when a look by id finds nothing, which is awaited
            for so long; None where a deletion that has returned is done, and one listing confirms them all.
        takes_linked: deleting one deletes those that are linked to it, which refuses nothing and only an inspection shows.
        safety_net: the intervals that owned sandboxes without one are to get.
    """

    stops_first: bool = True
    confirm_within: timedelta | None = None
    kinds: frozenset[Kind] = frozenset({Kind.CONTAINER})
    takes_linked: bool = False
    safety_net: SafetyNet | None = None


def may_depend_unseen(resource: Resource, error: ProviderError) -> bool:
    """Whether one that could not be inspected has to be taken for a dependent of all that runs.

    What has ended lives in nothing, and one resource that cannot be inspected must not keep all others for ever. What lives,
    or is about to be started, may live in whatever runs, as may what is in a state that is not known.
    """
    return resource.state in (State.RUNNING, State.UNKNOWN) or (
        resource.never_started and not isinstance(error, RefusedError)
    )


def possibly_used_by(resource: Resource, of: Iterable[Resource]) -> frozenset[str]:
    """The ids of those that one may use which could not be inspected, though it may depend on others.

    Of one without an id not even its networks are certain, and an engine may delete a network that is in use (Podman).
    """
    return frozenset(one.id for one in of if one.state is State.RUNNING or (not resource.id and one.kind is Kind.NETWORK))


class Reader(Protocol):
    """Looks at one endpoint. One client lives as long as the reader. Every method raises ``ProviderError``."""

    @property
    def endpoint(self) -> str:
        """The endpoint's name from the configuration."""
        ...

    @property
    def provider(self) -> str:
        """The provider's name: "docker"."""
        ...

    @property
    def identity(self) -> str:
        """What identifies this endpoint whatever its name: its address."""
        ...

    @property
    def endpoint_id(self) -> str | None:
        """Its identity, the same from every client; None until it has been asked."""
        ...

    @property
    def limits(self) -> Limits:
        """How much may be asked at the same time."""
        ...

    @property
    def traits(self) -> Traits:
        """Its limits and pauses."""
        ...

    async def list(self, call: Call, label_keys: frozenset[str] = frozenset(), also: Also = NOTHING_ELSE) -> Inventory:
        """Everything that the endpoint holds. A partial answer is an error. Each request is made through ``call``.

        Of volumes and images, where the endpoint has such things, only those that carry a label with one of ``label_keys``,
        by which leases know them, and what ``also`` says.
        """
        ...

    async def identify(self, call: Call) -> None:
        """Find out ``endpoint_id`` without a listing. The request is made through ``call``."""
        ...

    async def inspect(self, resource: Resource) -> Resource:
        """The resource as it is now, by id, with everything that the rules need. ``NotFoundError`` when it is gone.

        The answer has ``inspected`` set, and ``remembered`` as ``resource`` had it.
        """
        ...

    async def members(self, resource: Resource, call: Call) -> Sequence[Resource]:
        """The containers or sandboxes of the group of ``resource`` as they are listed now; just itself when it has none.

        Each request is made through ``call``.
        """
        ...

    async def dependents(self, resources: Sequence[Resource], listed: Listed, call: Call) -> Sequence[Resource]:
        """What would break by the deletion of these, of all that there is now: what uses them.

        Also what runs of their groups, where the listing has that: it is often the last one before the deletion, and shows
        who has joined since ``members`` answered, and which of these themselves have changed.

        Whether a listing or only an inspection shows it: what has come since the last listing is inspected, and what was
        known before is not asked again. No answer is older than the question.

        Args:
            resources: what is to be deleted.
            listed: what was decided about, so that the links of what would stay are known by then.
            call: makes each request.
        """
        ...

    async def close(self) -> None:
        """Close the client."""
        ...


async def answers(reader: Reader) -> bool | None:
    """Whether the endpoint answers a small question, be it with a refusal; None where its identity takes no question."""
    answered: bool | None = None

    async def ask(what: str, function: Callable[[], Awaitable[T]]) -> T:  # noqa: ARG001
        nonlocal answered
        answered = True
        return await function()

    try:
        await reader.identify(ask)
    except (UnavailableError, NoSuchEndpointError):
        return False
    except ProviderError:
        pass
    except ReaperError:
        return None  # such as certificates that cannot be read: nothing was sent
    return answered


@runtime_checkable
class Provider(Reader, Protocol):
    """A reader that can also act. Every step is idempotent, so that two reapers do not harm each other."""

    async def stop(self, resource: Resource, grace: timedelta) -> None:
        """Ask it to stop and wait until it has; after ``grace`` it is killed. Returns when it had stopped already.

        Without ``stops_first`` this returns when it is accepted.
        """
        ...

    async def delete(self, resource: Resource, *, force: bool = False) -> Pruned | None:
        """Delete it by id. Without ``force`` the endpoint refuses what is running: ``ConflictError``.

        Of a build cache, which has no other way, prune what ``resource.prune`` says. Returns what people should know of it.
        """
        ...
