"""What a lease covers while its holder lives, and what is garbage once the holder is dead. Pure: no I/O, no clock.

Age thresholds guess whether a run is alive; a lease knows. Where leases come from and how their holders are watched stands
in ``leases``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from reaper.durations import human, shifted
from reaper.identity import PROJECT_LABEL
from reaper.model import Kind, Resource
from reaper.scope import LEASE_LABEL, Selector

IMAGE_LABEL = "reaper.lease.image"
"""The same for images, and not what their containers inherit: a neighbour's from the same image would carry it, too."""
SESSION_LABELS = frozenset(f"org.testcontainers.{name}" for name in ("session-id", "sessionId", "resource-reaper-session"))
"""Each session of Testcontainers makes up a value of its own: nothing can be older than it and carry that."""
TOLERANCE = timedelta(minutes=1)  # by which the clocks of an endpoint and of this host may differ without a correction


@dataclass(frozen=True, slots=True)
class Claim:
    """What a lease says to be its own, besides what carries its label. The fields that are set are ANDed.

    Args:
        selector: labels ANDed, names ORed, images ORed.
        projects: names of Compose projects or sessions; a member of any of them.
    """

    selector: Selector = field(default_factory=Selector)
    projects: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Sequence[str]]) -> "Claim":
        """The claim that ``fields`` made. Raises KeyError."""
        labels, names, images, projects = (tuple(fields[name]) for name in ("labels", "names", "images", "projects"))
        return cls(Selector(labels, names, images), projects)

    def fields(self) -> dict[str, list[str]]:
        """It as plain lists, for a file or an answer."""
        of = self.selector
        return {"labels": [*of.labels], "names": [*of.names], "images": [*of.images], "projects": [*self.projects]}

    def __str__(self) -> str:
        """It for people: "label run=x and name chess-* or go-*"."""
        labels = [f"label {pattern}" for pattern in self.selector.labels]
        others = ("name", self.selector.names), ("image", self.selector.images), ("project", self.projects)
        return " and ".join([*labels, *(f"{word} {' or '.join(globs)}" for word, globs in others if globs)])

    @property
    def label_key(self) -> str | None:
        """A label that all that it claims carries; None when names or images alone say what that is."""
        if self.projects:
            return PROJECT_LABEL
        return self.selector.labels[0].partition("=")[0] if self.selector.labels else None

    @property
    def of_one_session(self) -> bool:
        """Whether it asks for what one session has made up for itself, and nobody before it can have written."""
        for pattern in self.selector.labels:
            key, _, value = pattern.partition("=")
            # Zeros stand for no session.
            if key in SESSION_LABELS and value.strip("0-") and not set("*?[") & set(value):
                return True
        return False

    def covers(self, resource: Resource, *, taking: bool) -> bool:
        """Whether the resource is claimed. An empty claim claims nothing.

        Args:
            resource: any.
            taking: whether that takes it; else that protects it, for which the labels of its image do as well.
        """
        selected = self.selector.all_of(resource, None if taking else resource.labels or {})
        if self.projects:
            unclear = taking and resource.inherited is None  # it may be no member, but of an image that was made of one
            return resource.group in self.projects and selected and not unclear
        return self.selector != Selector() and selected


@dataclass(frozen=True, slots=True)
class Ending:
    """How a lease ended.

    Args:
        at: when its holder was found dead, or gave it back (aware UTC).
        cause: for people: "killed", "released".
    """

    at: datetime
    cause: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim of a running benchmark on its resources: while it lives they are kept, when it ends they are garbage.

    Args:
        id: what the label ``reaper.lease`` on a resource names.
        owner: who holds it, for people ("pid 4711 on gpu-1").
        resources: ids that it covers besides those that carry its label.
        claims: what else it covers; any of them.
        since: when it was taken out (aware UTC). What is older was not made under it, whatever it carries: such a thing is
            kept while the lease lives, and not taken afterwards, unless its id is among ``resources``; a volume or an image
            not even then. An image that a build made reproducibly tells no true time of creation: it stays.
        ending: None while it lives.
    """

    id: str
    owner: str
    resources: frozenset[str] = frozenset()
    claims: tuple[Claim, ...] = ()
    since: datetime | None = None
    ending: Ending | None = None

    def covers(self, resource: Resource) -> bool:
        """Whether it keeps the resource while it lives, or takes it once it has ended."""
        labelled = self.id in named_leases(resource) and not (self.ending is not None and self._may_be_inherited(resource))
        if self.ending is not None and resource.kind.only_with_lease:
            return (labelled or self._takes_by_claim(resource)) and self._made_under_it(resource)
        if resource.id in self.resources:
            return True
        taking = self.ending is not None
        if not labelled and not any(claim.covers(resource, taking=taking) for claim in self.claims):
            return False
        return self.ending is None or self._made_under_it(resource)

    def _may_be_inherited(self, resource: Resource) -> bool:
        """Whether nobody need have put the label there: a container has its image's, what is committed its container's."""
        if resource.kind is Kind.IMAGE:
            return (resource.labels or {}).get(IMAGE_LABEL) != self.id
        return LEASE_LABEL not in resource.own_labels

    def _takes_by_claim(self, resource: Resource) -> bool:
        """Whether a claim takes a volume or an image: more is asked of it than for what a run starts and nothing outlives.

        A name or an image says nothing of who made it. And where the endpoint cannot tell when it was made, a volume of
        the project from long before would look like this run's as soon as the run has written to it.
        """
        telling = (claim for claim in self.claims if claim.label_key is not None)
        sure = (claim for claim in telling if claim.of_one_session or not resource.maybe_older)
        return any(claim.covers(resource, taking=True) for claim in sure)

    def _made_under_it(self, resource: Resource) -> bool:
        if self.since is None or resource.created_at is None:
            return False
        return resource.created_at >= shifted(self.since, -TOLERANCE)

    def on_clock(self, skew: timedelta) -> "Lease":
        """Its times as a clock tells them that is ahead of this host's by ``skew``."""
        since = self.since and shifted(self.since, skew)
        return replace(self, since=since, ending=self.ending and replace(self.ending, at=shifted(self.ending.at, skew)))

    def fate(self, now: datetime) -> str:
        """How it stands, for people."""
        if self.ending is None:
            return f"lease {self.id} of {self.owner} is alive"
        return f"lease {self.id} of {self.owner} ended {human(now - self.ending.at)} ago ({self.ending.cause})"


def label_keys(leases: Sequence[Lease]) -> frozenset[str]:
    """Labels one of which is on every volume and image that one of the leases covers. Empty when there are no leases."""
    keys = {claim.label_key for lease in leases for claim in lease.claims}
    return frozenset({LEASE_LABEL, IMAGE_LABEL, *(key for key in keys if key)}) if leases else frozenset()


def named_leases(resource: Resource) -> tuple[str, ...]:
    """The ids of the leases that it says to belong to: at most one, but of an image."""
    labels = resource.labels or {}
    keys = (LEASE_LABEL, IMAGE_LABEL) if resource.kind is Kind.IMAGE else (LEASE_LABEL,)
    return tuple(labels[key] for key in keys if key in labels)


class Leases:
    """Answers which lease covers a resource. A living one goes before those that have ended.

    Args:
        leases: all that are known; of those that have ended there may be thousands, so this is worth keeping.
    """

    def __init__(self, leases: Iterable[Lease] = ()) -> None:
        leases = sorted(leases, key=lambda lease: lease.ending is not None)
        self._by_id = {lease.id: lease for lease in reversed(leases)}
        self._by_resource = {id_: lease for lease in reversed(leases) for id_ in lease.resources}
        self._claiming = [lease for lease in leases if lease.claims]

    @property
    def empty(self) -> bool:
        """Whether there are none."""
        return not self._by_id

    def knows(self, id_: str) -> bool:
        """Whether there is, or was lately, such a lease."""
        return id_ in self._by_id

    def claiming(self, resource: Resource) -> Lease | None:
        """The lease that would decide about it, were it known when it was made; people want to know that it is not."""
        return self.covering(replace(resource, maybe_older=False) if resource.maybe_older else resource)

    def covering(self, resource: Resource) -> Lease | None:
        """The lease that decides about the resource, if one does."""
        named = (self._by_id.get(id_) for id_ in named_leases(resource))
        asked = (self._by_resource.get(resource.id), *named, *self._claiming)
        found = [lease for lease in asked if lease is not None and lease.covers(resource)]
        return min(found, key=lambda lease: lease.ending is not None, default=None)
