"""The leases that have ended, read when they are asked for: there may be tens of thousands, and few cover anything."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from reaper.core.durations import shifted
from reaper.core.lease import IN_FLIGHT, Lease, named_leases
from reaper.core.lease_index import LeaseIndex
from reaper.core.model import Resource
from reaper.core.site import Site

UNIT = 4  # seconds: how finely time is cut
MANY = 100  # pieces of time, after which all of them are read at once
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_MARGIN = timedelta(seconds=UNIT) + 2 * IN_FLIGHT  # a whole piece, and what comes after a holder's last sign of life


class History(Protocol):
    """Where they are kept. All methods may raise LeasesUnknownError."""

    def ended(self, id_: str) -> Lease | None:
        """The ended lease with this id."""

    def with_claims(self, first: datetime, last: datetime) -> Iterable[Lease]:
        """Those that ended with claims, and lived at some moment between two times."""

    def all_ended(self) -> Iterable[Lease]:
        """All of them."""

    def count(self) -> int:
        """How many there are, with those that have not ended."""

    def containers(self, id_: str) -> Container[tuple[str, str]]:
        """Those that were seen here to be made under the lease with this id: see ``Lease``."""


class LazyIndex(LeaseIndex):
    """An index of the open leases, which reads the ended ones when they are asked for, each once.

    Args:
        history: where it reads them.

    Attributes:
        keys: the labels that claims of any of them know their own by.
        made_by: by id of a volume or an image the leases under which it was seen to be made.
    """

    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history
        self._missing: set[str] = set()
        self._read: set[int] = set()
        self._count: int | None = None  # asked for with each resource
        self._all_claims = False
        self.keys: frozenset[str] = frozenset()
        self.made_by: dict[str, set[str]] = {}

    def put(self, lease: Lease) -> None:
        """See ``LeaseIndex``."""
        super().put(replace(lease, containers=self._history.containers(lease.id)))

    def changed(self) -> None:
        """What was not found may be there now."""
        self._missing.clear()
        self._count = None

    @property
    def known(self) -> Iterable[Lease]:
        """Those that have been read."""
        return tuple(super().__iter__())

    def get(self, id_: str) -> Lease | None:
        """See ``LeaseIndex``."""
        if (found := super().get(id_)) is not None or id_ in self._missing:
            return found
        found = self._history.ended(id_)
        if found is None:
            self._missing.add(id_)
        else:
            self.put(found)
        return super().get(id_)

    def read(self, id_: str) -> Lease | None:
        """The one with this id, if it has been read."""
        return super().get(id_)

    def asked(self, resource: Resource, site: Site) -> Iterator[Lease]:
        """See ``LeaseIndex``."""
        for id_ in named_leases(resource):
            self.get(id_)
        self._read_makers(resource)
        if not self._all_claims and resource.created_at is not None and site.has_known_clock:
            self._read_claims(*site.made_between(resource.created_at))
        yield from super().asked(resource, site)

    def makers(self, resource: Resource) -> Iterable[Lease]:
        """See ``LeaseIndex``."""
        self._read_makers(resource)
        return super().makers(resource)

    def _read_makers(self, resource: Resource) -> None:
        for id_ in self.made_by.get(resource.id, ()) if resource.kind.opt_in else ():
            self.get(id_)

    def _read_claims(self, earliest: datetime, latest: datetime) -> None:
        first, last = (int(moment.timestamp()) // UNIT for moment in (earliest, latest))
        units = set(range(first, last + 1)) if last - first < MANY else set()
        if units and units <= self._read:
            return
        if self._all_claims or not units or len(self._read) + len(units) > MANY:
            found = self._history.with_claims(EARLIEST, LATEST)
            self._all_claims = True
        else:
            found = self._history.with_claims(shifted(earliest, -_MARGIN), shifted(latest, _MARGIN))
            self._read |= units
        for lease in found:
            if super().get(lease.id) is None:
                self.put(lease)

    def __len__(self) -> int:
        if self._count is None:
            self._count = self._history.count()
        return self._count

    def __iter__(self) -> Iterator[Lease]:
        for lease in self._history.all_ended():
            if super().get(lease.id) is None:
                self.put(lease)
        return super().__iter__()

    @property
    def label_keys(self) -> Iterable[str]:
        """See ``LeaseIndex``."""
        return self.keys.union(super().label_keys)

    @property
    def made(self) -> Iterable[str]:
        """See ``LeaseIndex``."""
        return self.made_by.keys() | set(super().made)
