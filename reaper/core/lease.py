"""What a lease covers while its holder lives, and what is garbage once the holder is dead. Pure: no I/O, no clock.

Age thresholds guess whether a run is alive; a lease proves it. Where leases come from and how their holders are watched
stands in ``leases``.
"""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from reaper.core.durations import human, shifted
from reaper.core.identity import MADE_BY_COMPOSE, PROJECT_LABEL
from reaper.core.model import Kind, Resource
from reaper.core.scope import LEASE_LABEL, Selector, name_matches
from reaper.core.site import Site

IMAGE_LABEL = "reaper.lease.image"
"""The same for images, and not what their containers inherit: a neighbour's from the same image would carry it, too."""
SESSION_LABELS = frozenset(f"org.testcontainers.{name}" for name in ("session-id", "sessionId", "resource-reaper-session"))
"""Each session of Testcontainers makes up a value of its own: nothing can be older than it and carry that."""
IN_FLIGHT = timedelta(seconds=2)
"""How long after the death of a client an engine dates what it was asked for before.

Measured on Docker 20.10: 1 ms for a single create, 0.2 s for 50 at once, 1.7 s for 400 at once.
"""
ANONYMOUS = re.compile("[0-9a-f]{64}")
"""The name that an engine gives to a volume without one."""


def texts(value: object) -> tuple[str, ...]:
    """The texts of a list, as a file or an answer has it. Raises ValueError for anything else."""
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{value!r:.40} is no list of texts")
    return tuple(value)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a lease says to be its own, besides what carries its label. The fields that are set are ANDed.

    Args:
        selector: labels ANDed, names ORed, images ORed.
        projects: globs of the names of Compose projects or sessions; a member of any of them.
    """

    selector: Selector = field(default_factory=Selector)
    projects: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Sequence[str]]) -> "Claim":
        """The claim that ``fields`` made. Raises KeyError, and ValueError for what are no lists of texts."""
        labels, names, images, projects = (texts(fields[name]) for name in ("labels", "names", "images", "projects"))
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
        """Whether it asks for a value that one session has generated, and that cannot have been written before."""
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
            in_one = any(name_matches(self.projects, name) for name in named_projects(resource, members_only=taking))
            unclear = taking and resource.inherited is None  # it may be no member, but of an image that was made of one
            return in_one and selected and not unclear
        return self.selector != Selector() and selected


def named_projects(resource: Resource, *, members_only: bool) -> Sequence[str]:
    """The names of the groups that it belongs to; or also of the project that only its image's labels name."""
    names = (resource.group, None if members_only else (resource.labels or {}).get(PROJECT_LABEL))
    return [name for name in dict.fromkeys(names) if name is not None]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a lease ended.

    Args:
        at: when its holder was found dead, or gave it back (aware UTC).
        cause: for people: "killed", "released".
        until: the last moment for which its holder may have asked: a claim takes nothing that was made later. ``at`` when
            None.
    """

    at: datetime
    cause: str
    until: datetime | None = None

    @property
    def last(self) -> datetime:
        """The end of the time in which a claim takes what was made."""
        return self.at if self.until is None else self.until


HERE = Site()


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
            not even then. An image of a reproducible build has no true time of creation: it stays.
        ending: None while it lives.
        endpoints: the ids of the endpoints that it was granted for: a claim takes nothing elsewhere. None means whichever
            endpoint is asked about, for a lease that its own holder has made up for one endpoint.
        unproven: whether its holder is alive cannot be checked on this host.
        unwatched: whether the service that watched its holder is dead.
        made: by endpoint id and id: the anonymous volumes and the built images that were seen to be made under it for its
            containers. Neither carries its label.
        containers: by endpoint id and id: the containers that were seen to be made under it. Each is its own, whatever is
            known of its image: an engine may forget that while the container is there.
    """

    id: str
    owner: str
    resources: frozenset[str] = frozenset()
    claims: tuple[Claim, ...] = ()
    since: datetime | None = None
    ending: Ending | None = None
    endpoints: frozenset[str] | None = None
    unproven: bool = False
    unwatched: bool = False
    made: frozenset[tuple[str, str]] = frozenset()
    containers: Container[tuple[str, str]] = field(default=frozenset(), compare=False)

    def covers(self, resource: Resource, site: Site = HERE) -> bool:
        """Whether it keeps the resource while it lives, or takes it once it has ended."""
        if self.ending is None:
            named = resource.id in self.resources or self.id in named_leases(resource)
            claimed = named or any(claim.covers(resource, taking=False) for claim in self.claims)
            return claimed or self.has_made(resource, site)
        if resource.id in self.resources and not resource.kind.opt_in:
            return True
        if self.id in named_leases(resource) and not self._may_be_inherited(resource, site):
            return self._is_not_older(resource, site)
        return self._takes_by_claim(resource, site) or self._takes_as_made(resource, site)

    def has_made(self, resource: Resource, site: Site) -> bool:
        """Whether it was seen to be made under the lease."""
        return resource.kind.opt_in and site.id is not None and (site.id, resource.id) in self.made

    def _takes_as_made(self, resource: Resource, site: Site) -> bool:
        """Whether it was made under the lease for its containers, and nothing says that it has become another's since.

        An image that was tagged again later may be wanted by who did that; one that was committed from a container carries
        the labels that Compose gives to containers alone.
        """
        if not self.has_made(resource, site) or self._names_another(resource):
            return False
        labels = resource.labels or {}
        if resource.kind is Kind.IMAGE:
            built = PROJECT_LABEL in labels and not any(key in labels for key in MADE_BY_COMPOSE)
            return built and self._is_in_its_time(resource.tagged_at, site)
        anonymous = ANONYMOUS.fullmatch(resource.id) is not None and PROJECT_LABEL not in labels
        return anonymous and self._is_in_its_time(resource.created_at, site)

    def _names_another(self, resource: Resource) -> bool:
        """Whether it carries the label of another lease."""
        labels = resource.labels or {}
        return any(labels.get(key, self.id) != self.id for key in (LEASE_LABEL, IMAGE_LABEL))

    def _may_be_inherited(self, resource: Resource, site: Site) -> bool:
        """Whether the label may be inherited: a container has its image's, what is committed its container's."""
        if resource.kind is Kind.IMAGE:
            return (resource.labels or {}).get(IMAGE_LABEL) != self.id
        return LEASE_LABEL not in resource.own_labels and not self._has_made_container(resource, site)

    def _has_made_container(self, resource: Resource, site: Site) -> bool:
        """Whether it is a container that was seen to be made under the lease, on this very endpoint."""
        return resource.kind is Kind.CONTAINER and site.id is not None and (site.id, resource.id) in self.containers

    def _takes_by_claim(self, resource: Resource, site: Site) -> bool:
        """Whether a claim takes it: on one of the lease's endpoints, from its time, and with no other lease's label.

        More is asked of it for a volume or an image than for what a run starts and nothing outlives: a name or an image says
        nothing of who made it. And where the endpoint does not report when it was made, a volume of the project from long
        before would look like this run's as soon as the run has written to it.
        """
        if self.endpoints is not None and site.id not in self.endpoints:
            return False
        if self._names_another(resource) or not self._is_in_its_time(resource.created_at, site):
            return False
        if not resource.kind.opt_in:
            return any(claim.covers(resource, taking=True) for claim in self.claims)
        telling = (claim for claim in self.claims if claim.label_key is not None)
        sure = (claim for claim in telling if claim.of_one_session or not resource.created_at_inexact)
        return any(claim.covers(resource, taking=True) for claim in sure)

    def _is_not_older(self, resource: Resource, site: Site) -> bool:
        """Whether it may have been made after the lease was taken: the lease's id was unknown to others before."""
        if self.since is None or resource.created_at is None or not site.has_known_clock:
            return False
        _, latest = site.made_between(resource.created_at)
        return latest >= _as_exact_as(resource.created_at, self.since)

    def _is_in_its_time(self, moment: datetime | None, site: Site) -> bool:
        """Whether a time of the endpoint's was surely while the lease's holder lived."""
        if self.since is None or moment is None or self.ending is None or not site.has_known_clock:
            return False
        earliest, latest = site.made_between(moment)
        return earliest >= _as_exact_as(moment, self.since) and latest <= self.ending.last

    def on_clock(self, skew: timedelta) -> "Lease":
        """Its times by a clock that is ahead of this host's by ``skew``."""
        if not skew:
            return self
        ending = self.ending
        if ending is not None:
            ending = replace(ending, at=shifted(ending.at, skew), until=ending.until and shifted(ending.until, skew))
        return replace(self, since=self.since and shifted(self.since, skew), ending=ending)

    def brief(self, now: datetime) -> str:
        """How it stands, in a phrase."""
        if self.ending is not None:
            return f"lease {self.id} ended {human(now - self.ending.at)} ago ({self.ending.cause})"
        if self.unwatched:
            return f"lease {self.id} is watched by no service"
        return f"lease {self.id} may be live on another host" if self.unproven else f"lease {self.id} is live"

    def fate(self, now: datetime) -> str:
        """How it stands, for people."""
        if self.ending is not None:
            return f"lease {self.id} of {self.owner} ended {human(now - self.ending.at)} ago ({self.ending.cause})"
        if self.unproven:
            why = "its holder is on another host, or was here before a restart"
            return f"lease {self.id} of {self.owner} is not known to have ended: {why}, which only that host can check"
        if self.unwatched:
            why = f"the service that watched its holder is dead; start it again, or: reaper leases end {self.id}"
            return f"lease {self.id} of {self.owner} is not known to have ended: {why}"
        return f"lease {self.id} of {self.owner} is alive"


def _as_exact_as(created: datetime, moment: datetime) -> datetime:
    """A moment, in whole seconds where an endpoint gives no more: a listing of containers, volumes and images does not."""
    return moment if created.microsecond else moment.replace(microsecond=0)


def named_leases(resource: Resource) -> tuple[str, ...]:
    """The ids of the leases that it says to belong to: at most one, but of an image."""
    labels = resource.labels or {}
    keys = (LEASE_LABEL, IMAGE_LABEL) if resource.kind is Kind.IMAGE else (LEASE_LABEL,)
    return tuple(labels[key] for key in keys if key in labels)
