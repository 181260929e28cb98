"""Who must stay, told once more from the documents and on purpose not with the program's own functions.

It reads the tables of ``strategies`` where the program parses patterns, images and label overrides.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from reaper.core.conditions import Policy
from reaper.core.lease import Claim, Lease
from reaper.core.model import Kind, Resource, State
from reaper.core.scope import Selector
from tests.core import strategies as known
from tests.core.strategies import World

Key = tuple[str, str]


def key(resource: Resource) -> Key:
    return resource.endpoint, resource.id


def _entries(resource: Resource, selector: Selector, *, taking: bool) -> Iterator[bool]:
    labels = _own(resource) if taking else resource.labels or {}
    yield from (known.LABEL_PATTERNS[pattern](labels) for pattern in selector.labels)
    yield from (known.NAME_PATTERNS[pattern](resource.name) for pattern in selector.names)
    yield from (known.IMAGE_PATTERNS[pattern](image) for pattern in selector.images for image in _images(resource))


def _narrowed(resource: Resource, selector: Selector, *, taking: bool = True) -> bool:
    names = not selector.names or any(known.NAME_PATTERNS[p](resource.name) for p in selector.names)
    images = not selector.images or any(known.IMAGE_PATTERNS[p](i) for p in selector.images for i in _images(resource))
    labels = _own(resource) if taking else resource.labels or {}
    return names and images and all(known.LABEL_PATTERNS[p](labels) for p in selector.labels)


def _own(resource: Resource) -> dict[str, str]:
    """The labels that did not come with its image: the others protect, and take nothing."""
    return {key: value for key, value in (resource.labels or {}).items() if key not in (resource.inherited or ())}


def _images(resource: Resource) -> tuple[str | None, ...]:
    return resource.tags if resource.kind is Kind.IMAGE else (resource.image,)


LEFT = frozenset({Kind.VOLUME, Kind.IMAGE})
BESIDE = LEFT | {Kind.NETWORK}
"""What never decides for its project."""


@dataclass(frozen=True)
class Oracle:
    """Judges one world."""

    world: World

    def _namesakes(self, one: Resource) -> list[Resource]:
        return [r for r in self.world.resources if (r.endpoint, r.group) == (one.endpoint, one.group)]

    def _runner(self, one: Resource) -> tuple[object, ...]:
        """What tells its group from another one of its name: where it is, and whether Harbor's files stand beside it."""
        labels = one.labels or {}
        harbor = one.kind is Kind.CONTAINER and labels.get(known.PROJECT_FILES) in known.HARBOR_FILES
        return labels.get("com.docker.compose.project.working_dir"), harbor

    def _runners(self, one: Resource) -> set[tuple[object, ...]]:
        return {self._runner(r) for r in self._namesakes(one) if r.kind not in BESIDE} if one.group is not None else set()

    def mates(self, one: Resource) -> list[Resource]:
        """Its whole group, itself included; itself alone where it has none, or where which one it is of cannot be told."""
        if one.group is None:
            return [one]
        runners = self._runners(one)
        if one.kind in BESIDE:
            return self._namesakes(one) if len(runners) < 2 else [one]
        mine = self._runner(one)
        return [r for r in self._namesakes(one) if (len(runners) == 1 if r.kind in BESIDE else self._runner(r) == mine)]

    def unclear(self, one: Resource) -> bool:
        """Whether it has the name of several groups and does not say of which it is."""
        return one.kind in BESIDE and len(self._runners(one)) > 1

    def _preset_owns(self, one: Resource) -> bool:
        labels, presets, mates = _own(one), self.world.rules.scope.presets, self.mates(one)
        images = {mate.image for mate in mates if mate.kind is Kind.CONTAINER}
        files = {
            (mate.labels or {}).get(known.PROJECT_FILES)
            for mate in mates
            if mate.group is not None and mate.kind not in LEFT
        }
        if "terminal-bench" in presets and ("terminal-bench" in labels or images & {*known.TERMINAL_BENCH_IMAGES}):
            return True
        signs = images & {*known.HARBOR_IMAGES} or files & {*known.HARBOR_FILES}
        return "harbor" in presets and (labels.get("harbor.managed") == "true" or bool(signs))

    def _remembered(self, one: Resource) -> bool:
        """Whether an earlier sweep knew it as a preset's, and that preset is still wanted."""
        presets = self.world.rules.scope.presets
        return one.remembered is not None and one.remembered.owner in {f"preset {name}" for name in presets}

    def _listed(self, one: Resource) -> bool:
        return any(_entries(one, self.world.rules.scope.selector, taking=True))

    def owned(self, one: Resource) -> bool:
        scope = self.world.rules.scope
        if one.kind in LEFT:
            return self._covered(one, alive=True) or self._covered(one, alive=False)
        if self._preset_owns(one) or self._listed(one) or scope.everything or self._remembered(one):
            return True
        if self._covered(one, alive=True) or self._covered(one, alive=False):
            return True
        containers = [mate for mate in self.mates(one) if mate.kind not in BESIDE]
        return one.kind is Kind.NETWORK and bool(containers) and all(self.owned(mate) for mate in containers)

    def _unreadable_override(self, one: Resource) -> bool:
        labels = one.labels or {}
        if any(override in labels.items() for override in known.UNREADABLE_OVERRIDES):
            return True
        if "reaper.expires" not in labels or one.created_at is None:
            return False
        return known.EXPIRIES[labels["reaper.expires"]] < one.created_at

    def override_end(self, one: Resource) -> datetime | None:
        """The later of the two label overrides."""
        labels, ends = one.labels or {}, []
        if "reaper.ttl" in labels and one.created_at and not self._unreadable_override(one):
            ends.append(one.created_at + known.TTLS[labels["reaper.ttl"]])
        if "reaper.expires" in labels and not self._unreadable_override(one):
            ends.append(known.EXPIRIES[labels["reaper.expires"]])
        return max(ends, default=None)

    def _age(self, one: Resource) -> timedelta:
        assert one.created_at is not None
        since = one.created_at
        if one.started_at is not None and one.raw_state != "restarting" and one.started_at > since:
            since = one.started_at
        return self.world.now - since

    def _claimed(self, one: Resource, claim: Claim, *, taking: bool) -> bool:
        if not (claim.projects or claim.selector.labels or claim.selector.names or claim.selector.images):
            return False
        if claim.projects and taking and len(self._runners(one)) > 1:
            return False
        in_one = one.group is not None and any(known.PROJECT_PATTERNS[glob](one.group) for glob in claim.projects)
        return (not claim.projects or in_one) and _narrowed(one, claim.selector, taking=taking)

    def _covers(self, lease: Lease, one: Resource) -> bool:
        if lease.ending is not None:
            return self._taken_by(lease, one)
        labelled = lease.id in self._names(one)
        return (
            one.id in lease.resources or labelled or any(self._claimed(one, claim, taking=False) for claim in lease.claims)
        )

    def _names(self, one: Resource) -> set[str]:
        """The leases that its labels name, its image's labels included."""
        keys = ("reaper.lease", "reaper.lease.image") if one.kind is Kind.IMAGE else ("reaper.lease",)
        return {value for key, value in (one.labels or {}).items() if key in keys}

    def _taken_by(self, lease: Lease, one: Resource) -> bool:
        """Rule 16: it carries the lease's own label, or a claim covers it that was made while the lease lived."""
        assert lease.ending is not None
        if one.kind not in LEFT and one.id in lease.resources:
            return True
        if one.created_at is None or lease.since is None or one.created_at < lease.since:
            return False
        key = "reaper.lease.image" if one.kind is Kind.IMAGE else "reaper.lease"
        if (one.labels or {}).get(key) == lease.id and key not in (one.inherited or ()):
            return True
        last_heard = lease.ending.at if lease.ending.until is None else lease.ending.until
        if one.created_at > last_heard or self._names(one) - {lease.id}:
            return False
        if one.kind in LEFT and one.created_at_inexact:
            return False
        telling = [claim for claim in lease.claims if one.kind not in LEFT or claim.selector.labels or claim.projects]
        return any(self._claimed(one, claim, taking=True) for claim in telling)

    def _covered(self, one: Resource, *, alive: bool) -> bool:
        return any(self._covers(lease, one) for lease in self.world.leases if (lease.ending is None) == alive)

    def abandoned(self, one: Resource) -> bool:
        """Whether a lease that has ended covers it, and no living one."""
        return self._covered(one, alive=False) and not self._covered(one, alive=True)

    def _leased(self, one: Resource) -> bool:
        label = (one.labels or {}).get("reaper.lease")
        if self._covered(one, alive=True):
            return True
        if self._covered(one, alive=False):
            return False
        return label is not None and self._age(one) < self.world.rules.max_lease

    def protections(self, one: Resource) -> list[str]:
        """What protects an owned resource of any kind."""
        found = {
            "protected": any(_entries(one, self.world.rules.protect.selector, taking=False)),
            "wished to keep": "reaper.keep" in (one.labels or {}),
            "invalid label": self._unreadable_override(one),
            "leased": self._leased(one),
            "network's label override": one.kind is Kind.NETWORK
            and not self.abandoned(one)
            and self._network_overrides_to_stay(one),
        }
        return [name for name, true in found.items() if true]

    def _network_overrides_to_stay(self, network: Resource) -> bool:
        end = self.override_end(network)
        overruled = any(p.every_resource and self.concerns(network, p) for p in self.world.rules.policies)
        return end is not None and end > self.world.now and not overruled

    def forbidden(self, one: Resource) -> list[str]:
        """Why this resource by itself may not be reaped whatever the policies say."""
        if one.excluded:
            return ["excluded by the endpoint's filter"]
        if one.labels is None or one.created_at is None or one.unreadable:
            return ["unreadable"]
        if not self.owned(one):
            return ["unowned"]
        found = self.protections(one)
        label = one.own_labels.get("reaper.lease")
        of_its_run = one.system_container == "the reaper of Testcontainers" and label is not None and self.abandoned(one)
        if one.system_container and not of_its_run:
            found.append("system_container")
        if len(one.tags) > 1:
            found.append("several tags")
        if one.kind is Kind.NETWORK and not self.abandoned(one) and self.unclear(one):
            found.append("of which project is not known")
        if one.kind in BESIDE:
            return found
        if one.state in {State.CHANGING, State.UNKNOWN}:
            found.append("state")
        if self.abandoned(one):
            return found
        foreign = not self._preset_owns(one) and (not self._remembered(one) or self._listed(one))
        if one.restart_policy in self.world.rules.protect.restart_policies and foreign:
            found.append("restart policy")
        grace = max(self.world.rules.created_grace, timedelta(minutes=10))
        if one.raw_state == "created" and self.world.now - one.created_at < grace:
            found.append("created grace")
        return found

    def matches(self, one: Resource, policy: Policy) -> bool:
        """Whether this policy makes it garbage."""
        if not self.concerns(one, policy) or one.kind not in policy.kinds:
            return False
        if policy.every_resource:
            return True
        if policy.states and not {one.raw_state, one.state.value} & policy.states:
            return False
        if one.raw_state == "archived" and "archived" not in policy.states:
            return False
        return all(self._old_enough(one, policy))

    def _old_enough(self, one: Resource, policy: Policy) -> Iterator[bool]:
        now = self.world.now
        if policy.older_than is not None:
            yield self._age(one) >= policy.older_than
        if policy.stopped_for is not None:
            since = one.created_at if one.raw_state == "created" else one.stopped_at
            yield one.state in {State.STOPPED, State.FAILED} and since is not None and now - since >= policy.stopped_for
        if policy.idle_for is not None:
            yield one.last_activity_at is not None and now - one.last_activity_at >= policy.idle_for

    def concerns(self, one: Resource, policy: Policy) -> bool:
        here = not policy.endpoints or one.endpoint in policy.endpoints
        return here and all(_narrowed(one, selector) for selector in policy.selectors)

    def garbage(self, one: Resource, due: Collection[str] | None = None) -> bool:
        """Whether a label override or a policy (a due one, if asked) would have it reaped."""
        if one.created_at is None:
            return False
        if self.abandoned(one) or one.kind in LEFT:
            return self.abandoned(one)
        matching = [policy for policy in self.world.rules.policies if self.matches(one, policy)]
        end = self.override_end(one)
        if end is not None and end <= self.world.now:
            if {"reaper.ttl", "reaper.expires"} & _own(one).keys():
                return True
            end = None  # its image's label override has ended, which takes nothing
        if end is not None and not any(policy.every_resource for policy in matching):
            return False
        return any(due is None or policy.name in due for policy in matching)

    def orphan_is_free(self, network: Resource, due: Collection[str] | None) -> bool:
        """Whether a network whose project has no containers may go."""
        policies = self.world.rules.policies
        under = [p for p in policies if Kind.CONTAINER in p.kinds and self.concerns(network, p)]
        if network.created_at is None or not any(due is None or p.name in due for p in under):
            return False
        if network.remembered is not None:
            return max(network.created_at, network.remembered.free_at) <= self.world.now
        return self.world.now - network.created_at >= max(self.world.rules.created_grace, timedelta(minutes=10))

    def stays(self, due: Collection[str] | None = None) -> set[Key]:
        """All that must stay: by itself, for its group's sake, or for the sake of what uses it."""
        kept = self._by_themselves(due) | (set() if due is None else self.stays())
        while True:
            before = len(kept)
            for one in self.world.resources:
                if due is None and self._namesake_stays(one, kept):
                    kept.add(key(one))
                if one.kind not in BESIDE and self._group_stays(one, kept):
                    kept |= {key(mate) for mate in self.mates(one)}
                    kept |= {key(r) for r in self._namesakes(one) if self.unclear(r)} if one.group is not None else set()
                if key(one) in kept:
                    kept |= {(one.endpoint, used) for used in one.uses}
            if len(kept) == before:
                return kept & {key(one) for one in self.world.resources}

    def _by_themselves(self, due: Collection[str] | None) -> set[Key]:
        kept = set()
        for one in self.world.resources:
            mates = [mate for mate in self.mates(one) if mate.kind not in BESIDE]
            if one.kind in LEFT:
                garbage = self.abandoned(one)
            elif one.kind is not Kind.NETWORK:
                garbage = self.garbage(one) and any(self.garbage(mate, due) for mate in mates)
            elif self.abandoned(one):
                garbage = True
            elif one.group is None:
                garbage = False
            elif mates:
                garbage = True  # it shares the fate of its containers
            else:
                orphans = [n for n in self.mates(one) if not self.forbidden(n) and self.orphan_is_free(n, None)]
                garbage = self.orphan_is_free(one, None) and any(self.orphan_is_free(n, due) for n in orphans)
            if self.forbidden(one) or not garbage:
                kept.add(key(one))
        return kept

    def _namesake_stays(self, one: Resource, kept: set[Key]) -> bool:
        """Whether an owned group of the same name, elsewhere, stays: it may be the same one, in a folder that moved."""
        if one.group is None or one.kind in BESIDE or self.abandoned(one):
            return False
        others = [r for r in self._namesakes(one) if r.kind not in BESIDE and self._runner(r) != self._runner(one)]
        return any(key(other) in kept and self.owned(other) for other in others)

    def _group_stays(self, one: Resource, kept: set[Key]) -> bool:
        """A container that stays, or an owned network that is protected, keeps the group."""
        unclear = [r for r in self._namesakes(one) if self.unclear(r)] if one.group is not None else []
        for mate in (*self.mates(one), *unclear):
            if mate.kind in LEFT:
                continue
            if mate.kind is not Kind.NETWORK and key(mate) in kept:
                return True
            readable = not (mate.labels is None or mate.created_at is None or mate.unreadable)
            if readable and self.owned(mate) and not mate.system_container and self.protections(mate):
                return True
        return False
