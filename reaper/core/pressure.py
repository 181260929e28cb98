"""What goes first when a disk is too full, and how much of it at a time. Pure.

Pressure widens nothing but the schedule: what may go at all is decided before, by the rules that always hold.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from reaper.core import sizes
from reaper.core.disk import BYTES
from reaper.core.identity import GroupKey, Groups
from reaper.core.layers import images_under
from reaper.core.model import Decision, Kind, Reason, Resource, State
from reaper.core.ordering import users_first
from reaper.core.rules import Rules

FIRST, MOST = 8, 256
"""How many go at once before it is known how much each gives back, and at the most."""
ON_DISK = frozenset({Kind.CONTAINER, Kind.VOLUME, Kind.IMAGE, Kind.BUILD_CACHE})
"""The kinds whose deletion gives something back."""
NAMED = 10


class Rank(IntEnum):
    """What goes before what: first what frees most in the shortest time, last what nothing brings back."""

    EXITED = 0
    UNTAGGED = 1
    BUILD_CACHE = 2
    BUILT = 3
    PULLED = 4
    RUNNING = 5
    VOLUME = 6


def awake(rules: Rules, endpoints: Collection[str]) -> Rules:
    """The rules with the policies in force that wait for pressure, on these endpoints and on no other."""

    def woken(policy_endpoints: frozenset[str]) -> frozenset[str]:
        return frozenset(endpoints) & policy_endpoints if policy_endpoints else frozenset(endpoints)

    policies = tuple(
        replace(policy, asleep=False, endpoints=woken(policy.endpoints))
        if policy.asleep and woken(policy.endpoints)
        else policy
        for policy in rules.policies
    )
    return replace(rules, policies=policies)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What goes as one: a resource, or a group with all that goes with it.

    Args:
        ids: of all of it.
        rank: its place in the order, and ``within`` its place among those of its rank.
        size: in bytes, as far as it is known; an image shares some of that with others.
        own: how much of it surely comes back.
        uses: ids of what may not go before it.
    """

    ids: frozenset[str]
    rank: Rank
    within: tuple[float, int, str]
    size: int = 0
    own: int = 0
    uses: frozenset[str] = frozenset()


def to_measure(decisions: Iterable[Decision]) -> list[Resource]:
    """The stopped containers that may go, whose sizes only a measurement shows."""
    going = (decision.resource for decision in decisions if decision.reap)
    return [one for one in going if one.kind is Kind.CONTAINER and one.state is not State.RUNNING]


def in_order(decisions: Sequence[Decision], measured: Mapping[str, int]) -> list[Candidate]:
    """What is to be reaped and gives something back, in the order in which it goes.

    Args:
        decisions: all about one endpoint.
        measured: by id, how large the file systems of containers are.
    """
    below = _built_on(decisions)
    found = [
        _candidate([decision.resource for decision in unit], below, measured)
        for unit in _units(decisions)
        if any(decision.resource.kind in ON_DISK for decision in unit)
    ]
    found = _behind_users(found)
    ordered: list[Candidate] = []
    for rank in Rank:
        of_rank = [one for one in found if one.rank is rank]
        for layer in users_first(of_rank, lambda one: one.ids, lambda one: one.uses):
            ordered += sorted(layer, key=lambda one: one.within)
    return ordered


def _units(decisions: Sequence[Decision]) -> list[list[Decision]]:
    """What is to be reaped, in units: a project goes with its networks, and its volumes and images where they follow."""
    groups = Groups(decision.resource for decision in decisions)
    keys: dict[str, GroupKey | str] = {}
    going = [decision for decision in decisions if decision.reap]
    for decision in going:
        resource = decision.resource
        follows = not resource.kind.opt_in or decision.reason in (Reason.GROUP_REAPED, Reason.LEASE_ENDED)
        keys[resource.id] = (groups.key(resource) if follows else None) or resource.id
    images = {d.resource.id: d for d in going if d.resource.kind is Kind.IMAGE}
    changed = True
    while changed:  # what an image was built on goes with it where it follows it
        changed = False
        for id_, decision in images.items():
            for below in decision.resource.uses & images.keys():
                follows = images[below].reason is Reason.GROUP_REAPED and not images[below].resource.tags
                if follows and keys[below] != keys[id_] and keys[below] == below:
                    keys[below], changed = keys[id_], True
    units: dict[GroupKey | str, list[Decision]] = {}
    for decision in going:
        units.setdefault(keys[decision.resource.id], []).append(decision)
    return list(units.values())


def _built_on(decisions: Sequence[Decision]) -> Mapping[str, frozenset[str]]:
    """By the id of each image that is to go the ids of those that were built on it by their layers, and go as well."""
    under = images_under(decision.resource for decision in decisions if decision.reap)
    return {id_: frozenset(image.id for image in images) for id_, images in under.items()}


def _candidate(unit: Sequence[Resource], below: Mapping[str, frozenset[str]], measured: Mapping[str, int]) -> Candidate:
    size = sum(measured.get(one.id, one.size or 0) for one in unit)
    own = sum(measured.get(one.id, 0) for one in unit)
    last = max(one.last_used_at.timestamp() if one.last_used_at else math.inf for one in unit)
    containers = [one for one in unit if one.kind.runs]
    rank = max(_rank(one) for one in containers or unit if one.kind in ON_DISK)
    used = frozenset(id_ for one in unit for id_ in one.uses | below.get(one.id, frozenset()))
    ids = frozenset(one.id for one in unit)
    within = (last if rank in (Rank.BUILT, Rank.PULLED, Rank.VOLUME) else 0.0, -size, min(one.name for one in unit))
    return Candidate(ids, rank, within, size, own, used - ids)


def _rank(resource: Resource) -> Rank:
    match resource.kind:
        case Kind.IMAGE:
            return Rank.UNTAGGED if not resource.tags else Rank.PULLED if resource.pulled else Rank.BUILT
        case Kind.BUILD_CACHE:
            return Rank.BUILD_CACHE
        case Kind.VOLUME:
            return Rank.VOLUME
        case _:
            return Rank.RUNNING if resource.state is State.RUNNING else Rank.EXITED


def _behind_users(candidates: Sequence[Candidate]) -> list[Candidate]:
    """These with the rank of what uses them, where that goes later: an image goes after those that were built on it."""
    owners = {id_: number for number, one in enumerate(candidates) for id_ in one.ids}
    ranks = [one.rank for one in candidates]
    pending = set(range(len(candidates)))
    while pending:
        number = pending.pop()
        for id_ in candidates[number].uses:
            if (used := owners.get(id_)) is not None and ranks[used] < ranks[number]:
                ranks[used] = ranks[number]
                pending.add(used)
    return [replace(one, rank=rank) for one, rank in zip(candidates, ranks, strict=True)]


@dataclass(frozen=True, slots=True)
class Yield:
    """What the deletions of one rank have given back so far.

    Args:
        items: how many have gone.
        size: how large they were by ``Candidate.size``.
        freed: what came back, by bytes and inodes.
    """

    items: int = 0
    size: int = 0
    freed: Mapping[str, int] = field(default_factory=dict)

    def and_(self, batch: Sequence[Candidate], freed: Mapping[str, int]) -> "Yield":
        """With another batch that has gone."""
        sums = {sort: self.freed.get(sort, 0) + number for sort, number in freed.items()}
        return Yield(self.items + len(batch), self.size + sum(one.size for one in batch), sums)

    def most(self, missing: Mapping[str, int]) -> int:
        """How many may go at once: as many as what is missing takes by what each has given so far."""
        if not self.items:
            return FIRST
        wanted = [
            math.ceil(number * self.items / freed) if (freed := self.freed.get(sort, 0)) > 0 else 2 * max(self.items, FIRST)
            for sort, number in missing.items()
        ]
        return min(max(wanted, default=1), MOST)

    @property
    def share(self) -> float:
        """The part of a size that comes back: of images less than all, since they share layers."""
        freed = self.freed.get(BYTES, 0)
        return min(freed / self.size, 1.0) if self.size and freed > 0 else 1.0


def batch(candidates: Sequence[Candidate], missing: Mapping[str, int], before: Mapping[Rank, Yield]) -> list[Candidate]:
    """What goes next: the first of one rank, no more than what is missing takes.

    Args:
        candidates: in order.
        missing: how much is to be freed, by bytes and inodes; not empty.
        before: what those that have gone have given back, by rank.
    """
    if not candidates:
        return []
    rank = candidates[0].rank
    given = before.get(rank, Yield())
    taken: list[Candidate] = []
    expected = 0.0
    for one in candidates[: given.most(missing)]:
        if one.rank is not rank or (missing.keys() == {BYTES} and expected >= missing[BYTES]):
            break
        taken.append(one)
        expected += one.size * given.share
    return taken


def in_the_way(decisions: Iterable[Decision], failed: Mapping[str, str], measured: Mapping[str, int]) -> list[str]:
    """The largest of what stays, each with why: what would have to go and may not.

    Args:
        decisions: about all that is there.
        failed: by id, why what should have gone did not.
        measured: by id, how large the file systems of containers are.
    """
    kept = [(measured.get(d.resource.id, d.resource.size or 0), d) for d in decisions if d.resource.kind in ON_DISK]
    kept.sort(key=lambda pair: -pair[0])
    return [
        f"{d.resource.kind} {d.resource.name} ({sizes.human(size)}): {failed.get(d.resource.id) or d.phrase}"
        for size, d in kept[:NAMED]
        if size
    ]
