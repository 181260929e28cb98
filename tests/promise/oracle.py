"""What must never be deleted of a world, and what a reaper that does its job deletes: the rules of deletion, once more.

Written from the rules alone. Two answers for each thing: ``never`` says why it must stay; ``expected`` holds what has
nothing to stay for. Between the two lies what the rules leave open, which either answer may take.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import wraps
from itertools import chain
from typing import Any, TypeVar

from tests.promise import followers, limits
from tests.promise.truth import (
    CONFIG_FILES,
    INSTANCE,
    NUMBER,
    ONEOFF,
    PROJECT,
    SESSION,
    WORKING_DIR,
    Claim,
    Container,
    Image,
    Lease,
    Network,
    Pod,
    Policy,
    Sandbox,
    Thing,
    Volume,
    World,
    key,
)

Labels = Mapping[str, str]

# What the worlds are made of, each with its meaning: nothing here has to parse anything.
IS_TERMINAL_BENCH = frozenset({"tb__chess__client", "localhost:5000/tb__fix-git__client:1.2"})
IS_HARBOR = frozenset({"hb__swe-bench:latest"})
IS_ACME = frozenset({"acme/worker:7"})
IS_HARBOR_FILE = frozenset({"/opt/lib/harbor/environments/docker/docker-compose-build.yaml,/srv/t/compose.yaml"})
LABEL_PATTERNS: Mapping[str, Callable[[Labels], bool]] = {
    "bench": lambda labels: "bench" in labels,
    "team=rl": lambda labels: labels.get("team") == "rl",
    "run=my-*": lambda labels: labels.get("run", "").startswith("my-"),
    "reaper.keep": lambda labels: "reaper.keep" in labels,
}
NAME_PATTERNS: Mapping[str, Callable[[str], bool]] = {
    "trial-*": lambda name: name.startswith("trial-"),
    "*-db": lambda name: name.endswith("-db"),
}
IMAGE_PATTERNS: Mapping[str, Callable[[str], bool]] = {"acme/*": lambda image: image in IS_ACME}
PROJECT_PATTERNS: Mapping[str, Callable[[str], bool]] = {
    "chess": lambda project: project == "chess",
    "zz__*": lambda project: project.startswith("zz__"),
}
TTLS = {"0s": timedelta(0), "90m": timedelta(minutes=90), "100d": timedelta(days=100)}
EXPIRIES = {
    "2026-11-21T06:00:00Z": datetime(2026, 11, 21, 6, tzinfo=UTC),
    "2027-01-01T00:00:00Z": datetime(2027, 1, 1, tzinfo=UTC),
    "0001-01-01T00:00:00Z": datetime(1, 1, 1, tzinfo=UTC),
    "2020-02-02T00:00:00Z": datetime(2020, 2, 2, tzinfo=UTC),
}
UNREADABLE_OVERRIDES = frozenset(
    {("reaper.ttl", "soon"), ("reaper.ttl", "-1h"), ("reaper.ttl", "90"), ("reaper.expires", "2026-11-21")}
)
SYSTEM_LABELS = (
    "com.docker.swarm.",
    "io.kubernetes.",
    "io.x-k8s.",
    "com.docker.desktop.",
    "com.hashicorp.nomad.",
    "com.amazonaws.ecs.",
)
BUILDER = "buildx_buildkit_"

COMPOSE = "com.docker.compose."
OWNER = "reaper.owner"
MADE_UP = "hb__a1b2c3d"  # a name that Harbor makes up for one trial: another run has another one
LAUNCH = timedelta(seconds=2)  # by so much a process may seem to be younger than what it has made
GRACE = timedelta(minutes=10)
LONGEST_LEASE = timedelta(hours=24)
HOUR = timedelta(hours=1)
FIRST_DOCKER = datetime(2013, 1, 1, tzinfo=UTC)
FAR = timedelta(days=30)

RUNNING = frozenset({"running", "paused", "restarting", "started"})
STOPPED = frozenset({"exited", "created", "dead", "stopped", "archived", "error", "build_failed"})
DEEDS = ("timer", "stop", "archive", "delete")  # each takes more than the one before
HAD = (("stop", False, True), ("stop", True, True), ("archive", True, True))  # it is so already, and hinders no other one
GONE = frozenset({"dead", "removing"})  # it will never run again, and needs nothing
WORDS = {"dead": "failed", "error": "failed", "build_failed": "failed", "archived": "stopped", "exited": "stopped"}


class Reasons:
    """Why one thing must stay by itself, and why it may."""

    def __init__(self) -> None:
        self.never: list[str] = []
        self.open: list[str] = []


T = TypeVar("T")


def _once(find: Callable[["Oracle", Any], T]) -> Callable[["Oracle", Any], T]:
    """Find it out once for each thing: a world does not change."""

    @wraps(find)
    def known(self: "Oracle", thing: Any) -> T:
        place = find.__name__, key(thing)
        if place not in self._known:
            self._known[place] = find(self, thing)
        found: T = self._known[place]
        return found

    return known


class Oracle:
    """Judges one world.

    Args:
        world: it.
        deed: what may not be done is judged by the policies for this or for more; a timer needs none.

    Attributes:
        never: by the key of what must stay, why.
        expected: the keys of what is to go.
    """

    def __init__(self, world: World, deed: str = "delete") -> None:
        self.world = world
        self.config = world.config
        self.deed = deed
        awake = (policy for policy in world.config.policies if world.pressed or not policy.only_under_pressure)
        self.policies = [policy for policy in awake if DEEDS.index(policy.action) >= DEEDS.index(deed)]
        self.images = {image.id: image for image in world.images if not image.missing}
        self.things: dict[str, Thing] = {}
        for thing in things(world):
            self.things[key(thing)] = thing
        self._known: dict[tuple[str, str], Any] = {}  # what has been found out, by whom and of what
        self.units: dict[tuple[str, ...], list[Container]] = defaultdict(list)
        for container in world.containers:
            if (unit := self._unit(container)) is not None:
                self.units[unit].append(container)
        self.sessions: dict[str, dict[str, list[Sandbox]]] = defaultdict(lambda: defaultdict(list))
        for sandbox in world.sandboxes:
            if session := (labels := sandbox.labels or {}).get(SESSION):
                self.sessions[session][labels.get(INSTANCE, "")].append(sandbox)
        alone = {name: self._alone(thing) for name, thing in self.things.items()}
        self.oneoffs = {c.id for c in world.containers if self._is_taken_as_oneoff(c) and not alone[c.id].never}
        self.never = {name: reasons.never for name, reasons in alone.items() if reasons.never}
        self._spread(self.never)
        stays = {name: [*reasons.never, *reasons.open] for name, reasons in alone.items() if reasons.never or reasons.open}
        self._spread(stays, cautious=True)
        self.expected = frozenset(self.things.keys() - stays.keys())

    # -- whose labels ----------------------------------------------------------------------------------------------------

    @_once
    def _own(self, thing: Thing) -> Labels:
        """The labels that were given to it: those that its image carries with the same value may be inherited."""
        labels = thing.labels or {}
        if not isinstance(thing, Container):
            return labels
        image = self.images.get(thing.image_id)
        given = {} if image is None else {n: value for n, value in labels.items() if image.labels.get(n) != value}
        if self.config.image_labels:  # the operator says that they count; who made it and for whom they never say
            given |= {n: value for n, value in labels.items() if not n.startswith((COMPOSE, "reaper.lease", OWNER))}
        return given

    def _inherited(self, thing: Thing) -> frozenset[str]:
        return frozenset((thing.labels or {}).keys() - self._own(thing).keys())

    # -- groups ----------------------------------------------------------------------------------------------------------

    @_once
    def _unit(self, container: Container) -> tuple[str, ...] | None:
        own, labels = self._own(container), container.labels or {}
        if PROJECT not in labels or not {NUMBER, ONEOFF} & own.keys():
            return None
        return labels[PROJECT], labels.get(WORKING_DIR, "")

    def _of_project(self, project: str) -> list[Container]:
        return [c for unit, members in self.units.items() if unit[0] == project for c in members]

    def _directories(self, project: str) -> set[str]:
        return {unit[1] for unit in self.units if unit[0] == project}

    def _inside(self, pod: Pod) -> list[Container]:
        return [c for c in self.world.containers if c.pod == pod.id]

    def _mates(self, container: Container) -> list[Container]:
        unit = self._unit(container)
        return [container] if unit is None else self.units[unit]

    # -- ownership -------------------------------------------------------------------------------------------------------

    @_once
    def _preset(self, thing: Container | Sandbox | Network | Pod) -> bool:
        presets, labels = self.config.presets, self._own(thing)
        signs = {*(["terminal-bench"] if "terminal-bench" in labels else [])}
        signs |= {"harbor"} if labels.get("harbor.managed") == "true" else set()
        for mate in self._mates(thing) if isinstance(thing, Container) else ():
            signs |= {"terminal-bench"} if mate.image in IS_TERMINAL_BENCH else set()
            signs |= {"harbor"} if mate.image in IS_HARBOR else set()
            if self._unit(mate) is not None and self._own(mate).get(CONFIG_FILES) in IS_HARBOR_FILE:
                signs |= {"harbor"}
        return bool(signs & set(presets))

    @property
    def owned_in_groups(self) -> frozenset[str]:
        """The keys of what is owned and belongs to a project, whose other members may go first."""
        grouped = (thing for thing in self.things.values() if isinstance(thing, Container | Network))
        found = {key(thing) for thing in grouped if PROJECT in (thing.labels or {}) and self._owned(thing)}
        return frozenset(found | followers.owned_with_project(self))

    def _remembered(self, thing: Thing) -> bool:
        """Whether it may be owned for what is not there any more: its project may have a name that no other one has."""
        by_name = isinstance(thing, Network | Volume | Image) and (thing.labels or {}).get(PROJECT) == MADE_UP
        if by_name and "harbor" in self.config.presets and not self._of_project(MADE_UP):
            return True
        return not isinstance(thing, Sandbox | Pod) and key(thing) in self.world.remembered

    def _listed(self, thing: Container | Sandbox | Network | Pod) -> bool:
        labels, config = self._own(thing), self.config
        images = thing.image if isinstance(thing, Container) else ""
        return (
            any(LABEL_PATTERNS[pattern](labels) for pattern in config.labels)
            or any(NAME_PATTERNS[pattern](thing.name) for pattern in config.names)
            or any(IMAGE_PATTERNS[pattern](images) for pattern in config.images)
        )

    @_once
    def _owned(self, thing: Thing) -> bool:
        if self._taken(thing):
            return True
        if isinstance(thing, Volume | Image):
            return followers.is_owned(self, thing)
        if isinstance(thing, Network | Pod):
            project = (thing.labels or {}).get(PROJECT, "")
            members = self._inside(thing) if isinstance(thing, Pod) else self._of_project(project)
            by_members = bool(members) and all(self._owned(member) for member in members)
            return by_members or self._preset(thing) or self._listed(thing) or self.config.everything
        return self._preset(thing) or self._listed(thing) or self.config.everything

    # -- leases ----------------------------------------------------------------------------------------------------------

    def _claims(self, claim: Claim, thing: Thing, *, to_take: bool) -> bool:
        if not (claim.labels or claim.names or claim.images or claim.projects):
            return False
        labels = self._own(thing) if to_take else thing.labels or {}
        if isinstance(thing, Image):
            names, images = (thing.tags or ("",))[0], thing.tags
        else:
            names, images = thing.name, (thing.image,) if isinstance(thing, Container) else ()
        projects: Iterable[str] = [labels[name] for name in (PROJECT, SESSION) if name in labels]
        if to_take and isinstance(thing, Container):
            unit = self._unit(thing)
            projects = [] if unit is None else [unit[0]]
        return (
            all(LABEL_PATTERNS[pattern](labels) for pattern in claim.labels)
            and (not claim.names or any(NAME_PATTERNS[pattern](names) for pattern in claim.names))
            and (not claim.images or any(IMAGE_PATTERNS[p](image) for p in claim.images for image in images))
            and (not claim.projects or any(PROJECT_PATTERNS[p](project) for p in claim.projects for project in projects))
        )

    def _shares_its_name(self, thing: Thing) -> bool:
        """Whether several projects have the name of its own: a claim of that name may mean another one."""
        unit = self._unit(thing) if isinstance(thing, Container) else None
        return unit is not None and len(self._directories(unit[0])) > 1

    def _takes(self, lease: Lease, thing: Thing) -> bool:
        """Whether an ended lease proves it to be its own: by the label, by its id, or by a claim of its time and place."""
        assert lease.ended is not None
        made = thing.created
        if made is not None and isinstance(thing, Volume):
            made = made.replace(microsecond=0)  # an engine tells no more of it: so much may have been in flight
        within = made is not None and lease.since <= made <= (lease.heard or lease.ended)
        label = "reaper.lease.image" if isinstance(thing, Image) else "reaper.lease"
        if self._own(thing).get(label) == lease.id:
            return not isinstance(thing, Volume | Image) or (thing.created is not None and lease.since <= thing.created)
        if key(thing) in lease.resources and not isinstance(thing, Volume | Image):
            return True
        if lease.elsewhere:
            return False
        named = {(thing.labels or {}).get(key) for key in ("reaper.lease", "reaper.lease.image")}
        names_another = named - {None, lease.id}
        if names_another or not within or abs(self.world.skew) > HOUR:
            return False
        claims = lease.claims
        if isinstance(thing, Volume | Image):  # a name says nothing of who made it
            claims = tuple(claim for claim in claims if claim.labels or claim.projects)
        return any(self._claims(claim, thing, to_take=True) for claim in claims)

    @_once
    def _taken(self, thing: Thing) -> bool:
        return any(self._takes(lease, thing) for lease in self.world.leases if lease.ended is not None)

    def _lease(self, thing: Thing, reasons: Reasons) -> None:
        """What living and unknown leases keep."""
        named = (thing.labels or {}).get("reaper.lease")
        for lease in self.world.leases:
            if lease.ended is None:
                claimed = any(self._claims(claim, thing, to_take=False) for claim in lease.claims)
                if named == lease.id or (key(thing) in lease.resources and not lease.elsewhere):
                    reasons.never.append(f"lease {lease.id} lives")
                elif claimed or key(thing) in lease.resources:
                    sure = not lease.elsewhere and thing.created is not None and thing.created >= lease.since
                    (reasons.never if sure else reasons.open).append(f"lease {lease.id} claims it")
            elif self._own(thing).get("reaper.lease") == lease.id:
                within = thing.created is not None and lease.since <= thing.created <= lease.ended
                if not within or lease.elsewhere:
                    reasons.open.append("its lease's label, of another time or place")
            elif self._shares_its_name(thing) and any(claim.projects for claim in lease.claims):
                reasons.open.append(f"which project lease {lease.id} claims is not clear")
        known = {lease.id for lease in self.world.leases}
        if named is not None and named not in known and not self._taken(thing):
            young = self._base(thing) is None or self._age(thing) < LONGEST_LEASE or abs(self.world.skew) > HOUR
            if young and "reaper.lease" in self._own(thing):
                reasons.never.append("a lease that is not known here")
            elif young:
                reasons.open.append("a lease on its image")
        elif named is not None and not self._taken(thing):
            reasons.open.append("a known lease that does not take it")

    # -- label overrides ----------------------------------------------------------------------------------------------------

    def _override(self, thing: Thing, reasons: Reasons) -> datetime | None:
        """When it is to go by its own labels: the later of both."""
        own, ends = self._own(thing), []
        if "reaper.keep" in (thing.labels or {}):
            reasons.never.append("reaper.keep")
        if {"reaper.ttl", "reaper.expires"} & self._inherited(thing):
            reasons.open.append("a label override of its image")
        if any(override in own.items() for override in UNREADABLE_OVERRIDES):
            reasons.never.append("a label override that cannot be read")
            return None
        if "reaper.ttl" in own and thing.created is not None and not self._impossible(thing):
            ends.append(thing.created + TTLS[own["reaper.ttl"]])
        if "reaper.expires" in own:
            end = EXPIRIES[own["reaper.expires"]]
            if thing.created is not None and end < thing.created:
                reasons.never.append("a label override from before it was made")
            ends.append(end)
        return max(ends, default=None)

    # -- ages ------------------------------------------------------------------------------------------------------------

    def _base(self, thing: Thing) -> datetime | None:
        if isinstance(thing, Container) and thing.created and thing.started and thing.state != "restarting":
            return max(thing.created, thing.started)
        return thing.created

    def _age(self, thing: Thing) -> timedelta:
        base = self._base(thing)
        assert base is not None
        return self.world.now - base

    def _stop(self, thing: Container | Sandbox) -> datetime | None:
        if thing.state not in STOPPED:
            return None
        if isinstance(thing, Sandbox):
            return thing.last
        if thing.state == "created":
            return thing.created
        if thing.finished is None:
            return None
        if thing.started is not None and thing.started - thing.finished > timedelta(seconds=10):
            return None  # that was another run's
        return max(thing.finished, thing.started or thing.finished)

    def _impossible(self, thing: Thing) -> bool:
        times = [thing.created]
        if isinstance(thing, Container):
            times += [thing.started, thing.finished if thing.state not in RUNNING else None]
        if isinstance(thing, Sandbox):
            times += [thing.updated, thing.active]
        late = any(time is not None and time > self.world.now + FAR for time in times)
        early = any(time is not None and time < FIRST_DOCKER for time in times) and not isinstance(thing, Image)
        return late or early

    # -- policies --------------------------------------------------------------------------------------------------------

    def _matches(self, thing: Container | Sandbox, policy: Policy, labels: Labels) -> bool:
        kind = "container" if isinstance(thing, Container) else "sandbox"
        if kind not in policy.kinds or not all(LABEL_PATTERNS[pattern](labels) for pattern in policy.labels):
            return False
        if policy.names and not any(NAME_PATTERNS[pattern](thing.name) for pattern in policy.names):
            return False
        is_meant = not policy.oneoff or (isinstance(thing, Container) and self._own(thing).get(ONEOFF) == "True")
        exited_so = not policy.exit_codes or self._exited_so(thing, policy.exit_codes)
        if self._left_out(thing, policy) or not self._is_open(policy) or not exited_so or not is_meant:
            return False
        words = {thing.state, WORDS.get(thing.state, "running" if thing.state in RUNNING else thing.state)}
        if thing.state == "created":
            words = {"created", "stopped"}
        if (policy.action, thing.state == "archived", thing.state in STOPPED) not in HAD:
            if policy.states and not words & set(policy.states):
                return False
            if thing.state == "archived" and "archived" not in policy.states:
                return False
        return all(self._old_enough(thing, policy)) and (not policy.keepalive or self._kept_alive(thing, policy))

    def _is_taken_as_oneoff(self, container: Container) -> bool:
        """Whether a policy takes it by itself, and not with its project: a container of ``docker compose run``."""
        labels = container.labels or {}
        return any(policy.oneoff and self._matches(container, policy, labels) for policy in self.policies)

    def _kept_alive(self, thing: Container | Sandbox, policy: Policy) -> bool:
        """Whether its runner refreshes its activity, and the platform by its order stops what had none for so long."""
        if not isinstance(thing, Sandbox) or INSTANCE not in (thing.labels or {}) or policy.idle_for is None:
            return False
        known = thing.active is not None and thing.auto_stop is not None and "harbor" in self.config.presets
        return known and timedelta(0) < timedelta(minutes=thing.auto_stop or 0) <= policy.idle_for

    def _excluded(self, thing: Thing, policy: Policy) -> bool:
        """What protects may have come with the image: it counts all the same."""
        labels, image = thing.labels or {}, thing.image if isinstance(thing, Container) else ""
        return (
            any(LABEL_PATTERNS[pattern](labels) for pattern in policy.exclude_labels)
            or any(NAME_PATTERNS[pattern](thing.name) for pattern in policy.exclude_names)  # type: ignore[union-attr]
            or any(IMAGE_PATTERNS[pattern](image) for pattern in policy.exclude_images)
        )

    def _left_out(self, thing: Container | Sandbox, policy: Policy) -> bool:
        """Whether the policy is not for it, or leaves it to one that has it for itself."""
        if self._excluded(thing, policy):
            return True
        kind = "container" if isinstance(thing, Container) else "sandbox"
        return not policy.exclusive and any(
            kind in other.kinds
            and all(LABEL_PATTERNS[pattern](thing.labels or {}) for pattern in other.labels)
            and (not other.names or any(NAME_PATTERNS[pattern](thing.name) for pattern in other.names))
            and not self._excluded(thing, other)
            for other in self.config.policies
            if other.exclusive
        )

    def _is_open(self, policy: Policy) -> bool:
        """Whether this host's clock shows a time in its window."""
        if policy.window is None:
            return True
        shown, (begin, end) = f"{self.world.now - self.world.skew:%H:%M}", policy.window
        return begin <= shown < end if begin < end else not end <= shown < begin

    def _exited_so(self, thing: Container | Sandbox, codes: tuple[str | int, ...]) -> bool:
        if not isinstance(thing, Container) or thing.state not in ("exited", "dead") or thing.exit_code is None:
            return False
        return thing.exit_code in codes or ("zero" if thing.exit_code == 0 else "nonzero") in codes

    def _old_enough(self, thing: Container | Sandbox, policy: Policy) -> Iterator[bool]:
        if policy.older_than is not None:
            yield self._base(thing) is not None and self._age(thing) >= policy.older_than
        if policy.stopped_for is not None:
            stop = self._stop(thing)
            yield stop is not None and self.world.now - stop >= policy.stopped_for
        if policy.orphaned_for is not None:
            lost = self._orphaned(thing)
            yield lost is not None and self.world.now - lost >= policy.orphaned_for
        if policy.idle_for is not None and isinstance(thing, Sandbox):
            active = thing.last
            yield active is not None and self.world.now - active >= policy.idle_for

    def _by_age(self, policy: Policy) -> bool:
        spans = (policy.older_than, policy.stopped_for, policy.idle_for, policy.orphaned_for)
        return any(span is not None for span in spans)

    # -- owners ----------------------------------------------------------------------------------------------------------

    def _orphaned(self, thing: Container | Sandbox) -> datetime | None:
        """Since when all processes that it belongs to are proven to be dead; None while one is not, of its group either."""
        group: Iterable[Container | Sandbox] = [thing]
        if isinstance(thing, Container):
            group = self._mates(thing)
        elif session := (labels := thing.labels or {}).get(SESSION):
            group = self.sessions[session][labels.get(INSTANCE, "")]
        ends, base = self._ends(thing), self._base(thing)
        if base is None or not ends or any(None in self._ends(member) for member in group):
            return None
        return max(base, *(end for end in ends if end is not None))

    @_once
    def _ends(self, thing: Container | Sandbox) -> list[datetime | None]:
        """Of each process that it belongs to when that died; None of one whose death is not proven on this host."""
        own = self._own(thing)
        found = [self.world.dead.get(own[OWNER])] if OWNER in own else []
        if self.config.runners and (self._preset(thing) or (self._remembered(thing) and not found)):
            found.append(self._end_of_runners(thing))
        return found

    def _end_of_runners(self, thing: Container | Sandbox) -> datetime | None:
        """When the last one ended that may have made it or taken it over; where none ran, the globs may be misspelt."""
        if not self.world.runners or thing.created is None:
            return None
        is_of_one_run = (thing.labels or {}).get(PROJECT) == MADE_UP
        ends = [end for began, end in self.world.runners if began <= thing.created + LAUNCH or not is_of_one_run]
        return None if None in ends else max((end for end in ends if end is not None), default=thing.created)

    def _garbage(self, thing: Container | Sandbox, reasons: Reasons) -> None:
        """Whether anything makes it garbage; else it stays."""
        override = self._override(thing, reasons)
        skewed = abs(self.world.skew) > HOUR
        if skewed:
            reasons.open.append("a clock that cannot be trusted")
        if self._taken(thing):
            return
        if override is not None and override <= self.world.now:
            if skewed:
                reasons.never.append("a clock that cannot be trusted")
            return
        if self.config.everything_goes:
            return
        if override is not None:
            reasons.never.append("its own label override is not due")
        if self.deed == "timer":
            return
        own, labels = self._own(thing), thing.labels or {}
        policies = [p for p in self.policies if not (skewed and self._by_age(p))]
        if not any(self._matches(thing, policy, labels) for policy in policies):
            by_quota = limits.take(self, thing)
            (reasons.open if by_quota else reasons.never).append("no policy takes it")
        elif not any(self._matches(thing, policy, own) for policy in policies):
            reasons.open.append("a policy takes it by a label of its image")
        elif self.config.runners and not any(self._matches(thing, p, own) for p in policies if p.orphaned_for is None):
            reasons.open.append("whether its runner was ever seen is not known here")
        if isinstance(thing, Container) and any(p.exit_codes for p in policies) and thing.odd:
            reasons.open.append("an exit code that cannot be read")

    # -- each by itself --------------------------------------------------------------------------------------------------

    def _alone(self, thing: Thing) -> Reasons:
        reasons = Reasons()
        if abs(self.world.skew) > HOUR:
            reasons.open.append("a clock that cannot be trusted")
        found = {
            "no labels": thing.labels is None,
            "no creation time": thing.created is None,
            "a time that cannot be": self._impossible(thing),
            "an odd value": isinstance(thing, Container | Sandbox) and any(not p.startswith("list.") for p in thing.odd),
            "unowned": not self._owned(thing) and not self._remembered(thing),
            "protected": self._protected(thing),
            "a system container": any(name.startswith(SYSTEM_LABELS) for name in thing.labels or {}),
        }
        reasons.never += [why for why, true in found.items() if true]
        if self._may_be_used_unseen(thing):
            reasons.open.append("a row without an id may be its user's")
        if self._remembered(thing) and not self._owned(thing):
            reasons.open.append("it was owned when more of its project was there")
        if isinstance(thing, Container) and thing.odd:
            reasons.open.append("an odd value in the listing, where the inspection may be whole")
        self._lease(thing, reasons)
        match thing:
            case Container():
                self._container(thing, reasons)
            case Sandbox():
                self._sandbox(thing, reasons)
            case Network():
                self._network(thing, reasons)
            case Pod():
                self._pod(thing, reasons)
            case Volume() | Image():
                followers.judge(self, thing, reasons)
                if len(getattr(thing, "tags", ())) > 1:
                    reasons.never.append("several tags")
        return reasons

    def _may_be_used_unseen(self, thing: Thing) -> bool:
        """Whether it may be what a container uses whose row has no id, so that nothing tells what that uses."""
        if not isinstance(thing, Network | Pod) and not (isinstance(thing, Container) and thing.state in RUNNING):
            return False
        return any("list.Id" in other.odd and other is not thing for other in self.world.containers)

    def _protected(self, thing: Thing) -> bool:
        config, labels = self.config, thing.labels or {}
        images: tuple[str, ...] = thing.tags if isinstance(thing, Image) else ()
        if isinstance(thing, Container):
            images = (thing.image,)
        name = thing.name if not isinstance(thing, Image) else ""
        return (
            any(LABEL_PATTERNS[pattern](labels) for pattern in config.protect_labels)
            or any(NAME_PATTERNS[pattern](name) for pattern in config.protect_names)
            or any(IMAGE_PATTERNS[pattern](image) for pattern in config.protect_images for image in images)
        )

    def _container(self, c: Container, reasons: Reasons) -> None:
        parts = c.name.split("_")  # k8s, container, pod, namespace, uid, attempt: none of these is empty or has such a sign
        if c.name.startswith(BUILDER) or (parts[0] == "k8s" and len(parts) == 6 and all(parts)):
            reasons.never.append("a system container")
        if c.restart is None:
            reasons.never.append("no restart policy in the answer")
        if c.started is None and c.state in RUNNING:
            reasons.never.append("it runs, and since when is unknown")
        if c.state not in RUNNING | STOPPED:
            reasons.never.append(f"its state is {c.state}")
        self._garbage(c, reasons)
        if self._taken(c):
            return
        if c.restart in self.config.restart_policies and not self._preset(c):
            (reasons.open if self._remembered(c) else reasons.never).append(f"restart policy {c.restart}")
        young = c.created is not None and (self.world.now - c.created < GRACE or abs(self.world.skew) > HOUR)
        if c.state == "created" and young:
            reasons.never.append("it was never started")

    def _sandbox(self, s: Sandbox, reasons: Reasons) -> None:
        if s.state not in RUNNING | STOPPED:
            reasons.never.append(f"its state is {s.state}")
        settled = {"started", "stopped", "archived"}  # in an error, what it was to be is of no interest any more
        if s.wanted == "destroyed" or (s.wanted not in (None, s.state) and s.state in settled):
            reasons.never.append(f"it is to be {s.wanted}")
        if s.warm:
            reasons.never.append("a warm pool's")
        if self.config.target is not None and s.target != self.config.target:
            reasons.never.append("of another region")
        if self.deed == "timer" and INSTANCE in (s.labels or {}):
            reasons.never.append("its runner sets its timers")
        self._garbage(s, reasons)

    def _network(self, network: Network, reasons: Reasons) -> None:
        if network.scope == "swarm":
            reasons.never.append("a Swarm network")
        override = self._override(network, reasons)
        taken = self._taken(network)
        if override is not None and override > self.world.now and not taken:
            (reasons.open if self.config.everything_goes else reasons.never).append("its own label override is not due")
        project = (network.labels or {}).get(PROJECT)
        if abs(self.world.skew) > HOUR:
            reasons.open.append("a clock that cannot be trusted")
        if taken:
            return
        if followers.is_judged_alone(self, network, reasons):
            return
        if project is None:
            reasons.never += followers.by_itself(self, network)
        elif not self._of_project(project):
            reasons.open.append("it has lost its project")
            young = network.created is not None and self.world.now - network.created < GRACE
            if young and network.id not in self.world.begun:
                reasons.never.append("its project may be about to begin")
        elif len(self._directories(project)) > 1:
            reasons.open.append("two projects share it")
        elif not followers.go_along(self, network, project):
            reasons.never.append("its project's policies do not take it along")
        if any(policy.exclude_labels or policy.exclude_names for policy in self.config.policies):
            reasons.open.append("a policy may exclude it, whatever it says of its project's containers")

    def _pod(self, pod: Pod, reasons: Reasons) -> None:
        override = self._override(pod, reasons)
        taken = self._taken(pod)
        if override is not None and override > self.world.now and not taken:
            (reasons.open if self.config.everything_goes else reasons.never).append("its own label override is not due")
        if any(policy.exclude_labels or policy.exclude_names for policy in self.config.policies):
            reasons.open.append("a policy may exclude it, whatever it says of what is in it")
        inside = self._inside(pod)
        if len({self._unit(container) for container in inside}) > 1:
            reasons.open.append("what is in it does not belong together")
        if inside or taken:
            return
        reasons.open.append("it is empty")
        if pod.created is not None and self.world.now - pod.created < GRACE:
            reasons.never.append("containers may be about to follow")

    # -- one for another -------------------------------------------------------------------------------------------------

    def _spread(self, kept: dict[str, list[str]], *, cautious: bool = False) -> None:
        """What is kept keeps its group, and what it depends on, until nothing changes any more."""
        for project in {unit[0] for unit in self.units}:
            if len(directories := self._directories(project)) > 1 and "" in directories:
                for member in self._of_project(project):
                    kept.setdefault(key(member), []).append("its project cannot be told from another one")
        for instances in self.sessions.values():
            if len(instances) > 1 and "" in instances:
                for sandbox in chain(*instances.values()):
                    kept.setdefault(key(sandbox), []).append("its session cannot be told from another one")
        before = -1
        while before != len(kept):
            before = len(kept)
            for name, why in [*self._consequences(kept, cautious=cautious)]:
                if name in self.things and name not in kept:
                    kept[name] = [why]

    def _consequences(self, kept: Mapping[str, list[str]], *, cautious: bool) -> Iterator[tuple[str, str]]:
        for unit, members in self.units.items():
            if any(key(member) in kept for member in members):
                mates = self._of_project(unit[0]) if cautious else members  # two of a name may be one that was moved
                mates = [member for member in mates if member.id not in self.oneoffs]
                yield from ((key(member), "its project has one that is kept") for member in mates)
                yield from ((key(n), "its project is kept") for n in self._labelled(self.world.networks, unit[0]))
                yield from ((key(v), "its project is kept") for v in self._labelled(self.world.volumes, unit[0]))
                yield from ((key(i), "its project is kept") for i in followers.built_for(self, unit[0]))
        for network in self.world.networks:
            project = (network.labels or {}).get(PROJECT, "")
            if self._keeps_its_project(network) and (cautious or len(self._directories(project)) == 1):
                mates = [member for member in self._of_project(project) if member.id not in self.oneoffs]
                yield from ((key(member), "its network is protected") for member in mates)
        for pod in self.world.pods:
            together = [pod.id, *(key(container) for container in self._inside(pod))]
            if any(name in kept for name in together):
                yield from ((name, "its pod has one that is kept, or is kept itself") for name in together)
        for instances in self.sessions.values():
            for boxes in [[*chain(*instances.values())]] if cautious else instances.values():
                keepers = [sandbox for sandbox in boxes if key(sandbox) in kept]
                if any(cautious or not self._hangs(sandbox, kept[key(sandbox)]) for sandbox in keepers):
                    yield from ((key(sandbox), "its session has one that is kept") for sandbox in boxes)
        for name in list(kept):
            thing = self.things[name]
            hangs = isinstance(thing, Sandbox) and self._hangs(thing, kept[name])
            if cautious or not (hangs or getattr(thing, "state", "") in GONE):
                yield from ((used, f"{name} depends on it") for used in self.dependencies(self.things[name]))

    def _hangs(self, s: Sandbox, kept: Iterable[str]) -> bool:
        """Whether only that keeps it that it is being deleted, for so long that its host must be dead: it is of no use."""
        times = [at for at in (s.created, s.updated, s.active) if at is not None]
        leaves = s.wanted == "destroyed" or s.state in ("destroying", "destroyed")
        only = all(why.startswith(("its state is", "it is to be")) for why in kept)
        return leaves and only and bool(times) and self.world.now - max(times) > HOUR

    def _labelled(self, things: Iterable[Network | Volume], project: str) -> list[Network | Volume]:
        return [thing for thing in things if (thing.labels or {}).get(PROJECT) == project]

    @_once
    def _keeps_its_project(self, network: Network) -> bool:
        if network.labels is None or network.created is None or self._impossible(network) or not self._owned(network):
            return False
        reasons = Reasons()
        override = self._override(network, reasons)
        self._lease(network, reasons)
        waits = (
            override is not None
            and override > self.world.now
            and not self.config.everything_goes
            and not self._taken(network)
        )
        return bool(reasons.never) or waits or self._protected(network)

    def dependencies(self, thing: Thing) -> Iterator[str]:
        """The keys of what would break it, or take it along, by going."""
        if isinstance(thing, Sandbox):
            if thing.linked is not None:
                yield thing.linked
            return
        if not isinstance(thing, Container):
            return
        references = [
            mode.removeprefix("container:")
            for mode in (thing.network_mode, thing.pid_mode, thing.ipc_mode)
            if mode.startswith("container:")
        ]
        references += [folder for folder in thing.cgroup_parent.split("/") if folder]
        references += [link.split(":")[0].removeprefix("/") for link in thing.links]
        references += [given.split(":")[0] for given in thing.volumes_from]
        for reference in references:
            for other in self.world.containers:
                if reference == other.name or (len(reference) >= 12 and other.id.startswith(reference)):
                    yield other.id
        yield from (network.id for network in self.world.networks if network.name in thing.networks)
        yield from (f"volume {name}" for name in thing.volumes)
        yield thing.image_id


def things(world: World) -> list[Thing]:
    """All that there is."""
    return [*world.containers, *world.networks, *world.pods, *world.volumes, *world.images, *world.sandboxes]
