"""What all units of one endpoint share while they are reaped, and what makes a unit stay."""

from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import anyio

from reaper.core.ages import hangs_in_deletion
from reaper.core.durations import shifted
from reaper.core.lease_index import Leases
from reaper.core.model import Action, Decision, Kind, Resource, Result, State
from reaper.core.owner_process import NO_PROOFS, Proofs
from reaper.core.rules import Rules
from reaper.errors import ProviderError
from reaper.providers.base import Limits, Listed, Provider
from reaper.retry.budget import AdaptiveLimiter, RemovalLimiter
from reaper.retry.retrier import Retrier
from reaper.sweep.confirm import Confirmer
from reaper.sweep.usage import UsedSince

if TYPE_CHECKING:
    from reaper.sweep.dependents import Dependents
    from reaper.sweep.evidence import EvidenceRecorder

T = TypeVar("T")

LATE = timedelta(minutes=2)  # what happened so shortly before a listing, it may not have shown yet


class AbandonedError(Exception):
    """The sweep is ending, and this unit had not begun to act."""


class ChangedError(Exception):
    """The unit is not what it was when it was decided about."""


class Slots:
    """The limits of one endpoint. Removing and stopping wait for different things, so each may have its own.

    Attributes:
        listings: for listings, which are few. Where all calls share one limit they need no slot, since its holder
            may wait for another's listing.
    """

    def __init__(self, limits: Limits) -> None:
        together = AdaptiveLimiter(limits.together) if limits.together is not None else None
        self.reads: AbstractAsyncContextManager[object] = together or anyio.CapacityLimiter(limits.reads)
        self.removals: AbstractAsyncContextManager[object] = together or RemovalLimiter(limits.removals)
        self.stops: AbstractAsyncContextManager[object] = together or anyio.CapacityLimiter(limits.stops)
        self.listings: AbstractAsyncContextManager[object] = nullcontext() if together else self.reads


@dataclass
class Context:
    """What all units of one endpoint share in one sweep.

    Args:
        rules: those by which what these decisions take is judged again.
        now: reads the clock, as the endpoint's clock shows it.
        leases: reads the leases again. May raise LeasesUnknownError.
        settled: is called with each result as soon as it is known.
        confirmer: takes the deletions that are only accepted; None where a deletion that has returned is done.
        going: ids of all that is to be deleted in this sweep, without what is known to stay by now.
        draining: set when no unit may begin to act any more.
        crowded: is told when so many units are under way that what was seen of one has become too old.
        listed: what the decisions were made about.
        dependents: of the round, where deleting one resource deletes what is linked to it.
        used_since: tells what was used since the listing, where a rule depends on that.
        proofs: looks again whether the owners of these are dead.
        results: by id what became of each resource, as far as it is known.
        evidence: records what is known of what is about to be deleted, where that is wanted.
        lying_on: by the id of each volume those that lie on it and are to go before.
    """

    provider: Provider
    retrier: Retrier
    slots: Slots
    rules: Callable[[Iterable[Decision]], Rules]
    now: Callable[[], datetime]
    leases: Callable[[], Leases]
    settled: Callable[[Result], None]
    confirmer: Confirmer | None = None
    going: set[str] = field(default_factory=set)
    draining: bool = False
    crowded: Callable[[], None] = lambda: None
    listed: Listed = field(default_factory=Listed)
    dependents: "Dependents | None" = None
    used_since: UsedSince | None = None
    proofs: Callable[[Iterable[Resource]], Proofs] = lambda _: NO_PROOFS
    results: dict[str, Result] = field(default_factory=dict)
    evidence: "EvidenceRecorder | None" = None
    lying_on: Mapping[str, Sequence[Resource]] = field(default_factory=dict)

    def check_below(self, resources: Iterable[Resource], own: Container[str]) -> None:
        """Raises ChangedError when a volume that lies on one of these was to go before, and stays.

        Args:
            resources: they are about to go.
            own: ids of what is in their unit, which takes care of that itself.
        """
        for resource in resources:
            for above in self.lying_on.get(resource.id, ()):
                if above.id not in own and not (above.id in self.results and self.results[above.id].outcome.removed):
                    raise ChangedError(f"{above.name}, which lies on it, stays")

    def without_hanging(self, members: Iterable[Resource]) -> list[Resource]:
        """The members of a group without those whose deletion hangs: see ``hangs_in_deletion``."""
        now = self.now()
        return [member for member in members if not hangs_in_deletion(member, now)]

    def is_ours(self, resource: Resource, action: Action, asked: Container[str], unanswered: Container[str]) -> bool:
        """Whether it is changing as this sweep has ordered it to, and not at the wish of another client.

        Args:
            resource: as a look by id shows it.
            action: what is to be done with it.
            asked: ids of what was asked to stop, or to be archived.
            unanswered: ids of what may have been deleted, since no answer came.
        """
        if resource.state is not State.CHANGING:
            return False
        stops = resource.id in asked and (action is not Action.DELETE or not self.provider.traits.stops_first)
        order = Action.STOP if action is Action.DELETE else action
        deleted = resource.id in unanswered or (stops and resource.lost_when_stopped is not False)
        return (stops and order in resource.changed_by) or (deleted and Action.DELETE in resource.changed_by)


def subject(resource: Resource, first: Resource) -> str:
    """How a sentence about the unit names one of its members."""
    return "it" if resource.group is None or resource.id == first.id else f"{resource.name} of its {resource.group_word}"


def carried(before: Resource, now: Resource) -> Resource:
    """A resource as it was inspected just now, with what was known of it before and no inspection shows."""
    if before.kind.runs:
        return replace(now, group=None, alone=True) if before.alone else now
    return replace(
        now,
        last_used_at=now.last_used_at or before.last_used_at,
        watched_since=before.watched_since,
        arrived_at=before.arrived_at,
        size=now.size if before.size is None else before.size,  # a containerd store measures less when it inspects
        inherited=before.inherited,
        prune=before.prune,
        uses=now.uses or before.uses,
    )


def what_changed(
    before: Resource, now: Resource, *, stopped_by_us: bool = False, listed_at: datetime | None = None
) -> str | None:
    """What is different about a resource since it was decided about, for people; None when nothing is that matters.

    Args:
        before: as it was decided about.
        now: as a look by id shows it.
        stopped_by_us: whether it was asked to stop meanwhile.
        listed_at: where ``before`` is from a listing: when that began, on the endpoint's clock.
    """
    # "removing": a container of ``docker run --rm``, which the engine removes as soon as our stop has ended it.
    stopped = stopped_by_us and (now.state in (State.STOPPED, State.FAILED) or now.raw_state == "removing")
    if before.raw_state != now.raw_state and not stopped:
        return f"was {before.raw_state} and is {now.raw_state} now"
    differences = {
        "was started again": before.started_at != now.started_at,
        "was written to": _is_written_to(listed_at, before, now) and not stopped_by_us,
        "was stopped again": _is_since(listed_at, now, before.stopped_at, now.stopped_at) and not stopped_by_us,
        "is another one of the same name now": before.identity != now.identity,
        "has other labels now": before.labels != now.labels,
        "has other tags now": before.tags != now.tags,
        "was tagged again": before.tagged_at is not None and before.tagged_at != now.tagged_at,
        f"is in another {now.group_word} now": before.group != now.group,
        "has another restart policy now": before.restart_policy != now.restart_policy,
        "is connected to something else now": now.kind is Kind.CONTAINER and not now.uses <= before.uses,
    }
    return next((what for what, differs in differences.items() if differs), None)


def _is_since(listed_at: datetime | None, now: Resource, before: datetime | None, after: datetime | None) -> bool:
    """Whether two times of the same kind differ for something that has happened since the first was seen.

    Sandboxes are listed from an index, whose copy of a time may differ from what a look by id shows for as long as they
    live. What is before the listing has not happened since, and the rules judge again by what the look shows.
    """
    if before == after or now.kind is not Kind.SANDBOX or listed_at is None or after is None:
        return before != after
    return after > shifted(listed_at, -LATE)


def _is_written_to(listed_at: datetime | None, before: Resource, now: Resource) -> bool:
    """Whether what has failed was changed in some way: its owner may be recovering it, which its state does not show."""
    return now.state is State.FAILED and _is_since(listed_at, now, before.updated_at, now.updated_at)


def difference(decided: Resource, seen: Resource, *, stopped_by_us: bool, listed_at: datetime | None = None) -> str | None:
    """How what was seen last differs from what was decided about, for the record. What was joined loses its users first."""
    if not decided.kind.joined:
        return what_changed(decided, seen, stopped_by_us=stopped_by_us, listed_at=listed_at)
    if seen.state is State.RUNNING:
        return "had something attached to it"
    return what_changed(replace(decided, raw_state=seen.raw_state), seen)


async def each(resources: Sequence[Resource], function: Callable[[Resource], Awaitable[None]]) -> None:
    """``function`` for all of them at once; when all have ended, raises the error of one, ChangedError above others."""
    if len(resources) == 1:
        await function(resources[0])
        return
    errors: list[Exception] = []

    async def guarded(resource: Resource) -> None:
        try:
            await function(resource)
        except (ChangedError, AbandonedError, ProviderError) as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for resource in resources:
            group.start_soon(guarded, resource, name=f"{resource.kind} {resource.name}")
    if errors:
        raise next((error for error in errors if isinstance(error, ChangedError)), errors[0])
