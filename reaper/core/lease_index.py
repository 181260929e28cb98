"""Finds the leases that may cover a resource, at the same cost whatever the number of leases that have ended. Pure.

A claim is filed under one sign that all it covers carry: a label with its value, or the beginning of a name.
The claims of ended leases are besides filed by their time: of those with the same sign only the ones are asked in whose time
the resource was made.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain

from reaper.core.durations import shifted
from reaper.core.lease import HERE, IMAGE_LABEL, Claim, Lease, named_leases, named_projects
from reaper.core.model import Kind, Resource
from reaper.core.scope import LEASE_LABEL
from reaper.core.site import Site

_UNIT = 64  # seconds: how finely time is cut
_FEW = 16  # leases with the same sign, up to which their times are compared one by one
_SECOND = timedelta(seconds=1)  # an endpoint's time may be cut to it
_WILD = frozenset("*?[")

Sign = tuple[str, ...]


def _signs(claim: Claim) -> Iterator[Sign]:
    """Under what a claim is filed. Whatever it covers carries one of these."""
    labels, names = claim.selector.labels, claim.selector.names
    for pattern in labels:
        key, equals, value = pattern.partition("=")
        if equals and not _WILD & set(value):
            yield "label", key, value
            return
    globs = claim.projects or names
    if globs:
        kind = "project" if claim.projects else "name"
        yield from {(kind, _beginning(glob)) for glob in globs}
    elif labels:
        yield "label", labels[0].partition("=")[0]
    elif claim.selector.images:
        yield ("image",)


def _beginning(glob: str) -> str:
    return glob[: next((at for at, character in enumerate(glob) if character in _WILD), len(glob))]


def _signs_of(resource: Resource) -> Iterator[Sign]:
    """Under what a claim may be filed that covers the resource."""
    yield ("image",)
    for key, value in (resource.labels or {}).items():
        yield "label", key, value
        yield "label", key
    projects = named_projects(resource, members_only=False)
    for kind, text in (*(("project", project) for project in projects), ("name", resource.name)):
        yield from ((kind, text[:length]) for length in range(len(text) + 1))


class _Times:
    """Ended leases, by the time in which their claims take what was made."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._nodes: dict[tuple[int, int], dict[str, Lease]] | None = None

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, lease: Lease) -> None:
        self._leases[lease.id] = lease
        if self._nodes is not None:
            self._file(lease, self._nodes)
        elif len(self._leases) > _FEW:
            self._nodes = {}
            for each in self._leases.values():
                self._file(each, self._nodes)

    def remove(self, lease: Lease) -> None:
        self._leases.pop(lease.id, None)
        for node in _span(lease) if self._nodes is not None else ():
            filed = self._nodes.get(node) if self._nodes is not None else None
            if filed is not None:
                filed.pop(lease.id, None)

    @staticmethod
    def _file(lease: Lease, nodes: dict[tuple[int, int], dict[str, Lease]]) -> None:
        for node in _span(lease):
            nodes.setdefault(node, {})[lease.id] = lease

    def at(self, first: int, last: int) -> Iterator[Lease]:
        """Those whose time has a unit from the first to the last one; some more may be among them."""
        if self._nodes is None:
            yield from self._leases.values()
            return
        seen: set[str] = set()
        for unit in range(first, last + 1):
            for level in range(unit.bit_length() + 1):
                for lease in self._nodes.get((level, unit >> level), {}).values():
                    if lease.id not in seen:
                        seen.add(lease.id)
                        yield lease


def _span(lease: Lease) -> Iterator[tuple[int, int]]:
    """The time of an ended lease in few pieces: the piece (level, n) has the 2**level units from n * 2**level on."""
    if lease.since is None or lease.ending is None:
        return
    first, last, level = _unit(shifted(lease.since, -_SECOND)), _unit(lease.ending.last), 0
    while first <= last:
        if first % 2:
            yield level, first
            first += 1
        if not last % 2:
            yield level, last
            last -= 1
        first, last, level = first // 2, last // 2, level + 1


def _unit(moment: datetime) -> int:
    return max(int(moment.timestamp()), 0) // _UNIT


class LeaseIndex:
    """Leases, one for each id. It changes as they do; ``Leases`` is what the rules are given.

    Args:
        leases: the first ones.
    """

    def __init__(self, leases: Iterable[Lease] = ()) -> None:
        self._by_id: dict[str, Lease] = {}
        self._open: dict[str, Lease] = {}
        self._by_resource: dict[str, dict[str, Lease]] = {}
        self._by_made: dict[str, dict[str, Lease]] = {}
        self._open_claims: dict[Sign, dict[str, Lease]] = {}
        self._ended_claims: dict[Sign, _Times] = {}
        self._keys: Counter[str] = Counter()
        for lease in leases:
            self.put(lease)

    def put(self, lease: Lease) -> None:
        """Have this one in the place of the one with its id."""
        self.drop(lease.id)
        self._by_id[lease.id] = lease
        for id_ in lease.resources:
            self._by_resource.setdefault(id_, {})[lease.id] = lease
        for _, id_ in lease.made:
            self._by_made.setdefault(id_, {})[lease.id] = lease
        self._keys.update(key for claim in lease.claims if (key := claim.label_key) is not None)
        if lease.ending is None:
            self._open[lease.id] = lease
        for sign in _filed_under(lease):
            if lease.ending is None:
                self._open_claims.setdefault(sign, {})[lease.id] = lease
            else:
                self._ended_claims.setdefault(sign, _Times()).add(lease)

    def drop(self, id_: str) -> None:
        """Have none with this id."""
        lease = self._by_id.pop(id_, None)
        if lease is None:
            return
        self._open.pop(id_, None)
        for resource in lease.resources:
            del self._by_resource[resource][id_]
            if not self._by_resource[resource]:
                del self._by_resource[resource]
        for _, made in lease.made:
            self._by_made[made].pop(id_, None)
            if not self._by_made[made]:
                del self._by_made[made]
        self._keys.subtract(key for claim in lease.claims if (key := claim.label_key) is not None)
        for sign in _filed_under(lease):
            if lease.ending is None:
                del self._open_claims[sign][id_]
                if not self._open_claims[sign]:
                    del self._open_claims[sign]
            else:
                self._ended_claims[sign].remove(lease)
                if not self._ended_claims[sign]:
                    del self._ended_claims[sign]

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._by_id.values())

    @property
    def open(self) -> Iterable[Lease]:
        """Those that have not ended."""
        return self._open.values()

    @property
    def label_keys(self) -> Iterable[str]:
        """The labels that claims know their own by."""
        return (key for key, number in self._keys.items() if number > 0)

    @property
    def made(self) -> Iterable[str]:
        """The ids of what was seen to be made under one of them."""
        return self._by_made.keys()

    def makers(self, resource: Resource) -> Iterable[Lease]:
        """Those under which something with the resource's id was made, on whichever endpoint."""
        return self._by_made.get(resource.id, {}).values() if resource.kind.opt_in else ()

    def get(self, id_: str) -> Lease | None:
        """The one with this id."""
        return self._by_id.get(id_)

    def asked(self, resource: Resource, site: Site) -> Iterator[Lease]:
        """Those that may cover the resource: by its id, by its label, by a claim, or as its makers."""
        if (named := self._by_resource.get(resource.id)) is not None:
            yield from named.values()
        yield from (lease for id_ in named_leases(resource) if (lease := self._by_id.get(id_)) is not None)
        yield from self.makers(resource)
        if not self._open_claims and not self._ended_claims:
            return
        signs = tuple(_signs_of(resource))
        for sign in signs if self._open_claims else ():
            yield from self._open_claims.get(sign, {}).values()
        if not self._ended_claims or resource.created_at is None or not site.has_known_clock:
            return
        earliest, latest = site.made_between(resource.created_at)
        first, last = _unit(earliest), _unit(shifted(latest, _SECOND))
        for sign in signs:
            if (times := self._ended_claims.get(sign)) is not None:
                yield from times.at(first, last)


def _filed_under(lease: Lease) -> set[Sign]:
    return {sign for claim in lease.claims for sign in _signs(claim)}


class Leases:
    """Answers which lease covers a resource of one endpoint. A living one goes before those that have ended.

    Args:
        leases: all that are known.
        site: the endpoint that is asked about.
    """

    def __init__(self, leases: Iterable[Lease] = (), site: Site = HERE) -> None:
        self._parts: tuple[LeaseIndex, ...]
        if isinstance(leases, Leases):
            self._parts = leases.parts
        elif isinstance(leases, LeaseIndex):
            self._parts = (leases,)
        else:  # of two with one id, the living one
            self._parts = (LeaseIndex(sorted(leases, key=lambda lease: lease.ending is None)),)
        self._site = site

    @classmethod
    def of(cls, parts: Iterable["Leases"]) -> "Leases":
        """What several know, together."""
        joined = cls()
        joined._parts = tuple(chain.from_iterable(part.parts for part in parts))
        return joined

    @property
    def site(self) -> Site:
        """The endpoint that they are asked about."""
        return self._site

    @property
    def parts(self) -> tuple[LeaseIndex, ...]:
        """Where they are found."""
        return self._parts

    def on(self, site: Site) -> "Leases":
        """The same ones, asked about an endpoint."""
        return Leases(self, site)

    def __iter__(self) -> Iterator[Lease]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def empty(self) -> bool:
        """Whether there are none."""
        return not any(map(len, self._parts))

    @property
    def open(self) -> Iterable[Lease]:
        """Those that have not ended."""
        return chain.from_iterable(part.open for part in self._parts)

    @property
    def label_keys(self) -> frozenset[str]:
        """Labels one of which is on every volume and image that a lease covers. Empty when there are no leases."""
        if self.empty:
            return frozenset()
        return frozenset({LEASE_LABEL, IMAGE_LABEL, *chain.from_iterable(part.label_keys for part in self._parts)})

    @property
    def made(self) -> frozenset[str]:
        """The ids of the volumes and images that were seen to be made under one of them."""
        return frozenset(chain.from_iterable(part.made for part in self._parts))

    def maker(self, resource: Resource) -> Lease | None:
        """A lease under which this was seen to be made, whether it covers it or not; its times are the endpoint's."""
        makers = (lease for part in self._parts for lease in part.makers(resource) if lease.has_made(resource, self._site))
        found = max(makers, key=lambda lease: lease.since is not None and lease.since.timestamp(), default=None)
        return found and found.on_clock(self._site.skew)

    def concern(self, resource: Resource) -> bool:
        """Whether it is to be decided about.

        Of volumes, images and networks without a project only those are that have to do with a lease.
        """
        alone = resource.kind is Kind.NETWORK and resource.group is None
        if not (resource.kind.opt_in or alone) or named_leases(resource):
            return True
        return self.claiming(resource) is not None or self.maker(resource) is not None

    def get(self, id_: str) -> Lease | None:
        """The lease with this id; of two, the living one."""
        found = [lease for part in self._parts if (lease := part.get(id_)) is not None]
        return min(found, key=lambda lease: lease.ending is not None, default=None)

    def has(self, id_: str) -> bool:
        """Whether there is, or was lately, such a lease."""
        return self.get(id_) is not None

    def claiming(self, resource: Resource) -> Lease | None:
        """The lease that would decide about it, were it known when it was made; that it is not is reported."""
        return self.covering(replace(resource, created_at_inexact=False) if resource.created_at_inexact else resource)

    def covering(self, resource: Resource) -> Lease | None:
        """The lease that decides about the resource, if one does, with its times by the endpoint's clock."""
        ended: Lease | None = None
        for part in self._parts:
            for lease in part.asked(resource, self._site):
                if lease.ending is not None and ended is not None:
                    continue
                if lease.covers(resource, self._site):
                    if lease.ending is None:
                        return lease.on_clock(self._site.skew)
                    ended = lease
        return ended and ended.on_clock(self._site.skew)


def why_not_taken(resource: Resource, maker: Lease) -> str:
    """Why an ended lease does not take what was seen to be made under it."""
    made = "its containers were made of it" if resource.kind is Kind.IMAGE else "it was made for one of its containers"
    fact = f"lease {maker.id} has ended and {made}"
    if resource.kind is not Kind.IMAGE:
        return f"{fact}, but something has changed it since, or it carries another's labels"
    if resource.tagged_at is None:
        return f"{fact}, but the engine does not report when it was tagged (Metadata.LastTagTime)"
    return f"{fact}, but it was tagged at another time or carries another's labels"
