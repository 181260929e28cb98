"""The file of leases: who holds which, and what became of it. Everything in here blocks, for milliseconds.

It is a database of its own, and no journal: a journal that is lost costs records, a lease that is lost costs a living trial.
So it is never set aside, repaired or made anew by itself. A file that is there and cannot be read is an error, and who meets
that error deletes nothing that a lease could cover.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import TypeVar

from reaper import host
from reaper.core.durations import parse_time
from reaper.core.lease import Ending, Lease
from reaper.core.lease_index import Leases
from reaper.errors import LeasesUnknownError
from reaper.files import check_own, check_regular
from reaper.leases.containers import MadeContainers, forget
from reaper.leases.database import (
    CLOCK_STEP,
    MADE_TABLE,
    PUT,
    PUT_CLAIMED,
    PUT_MADE,
    TAKE,
    as_keys,
    as_row,
    connect,
    create,
    explained,
    from_row,
    spell,
    write,
)
from reaper.leases.history import LazyIndex
from reaper.leases.record import LeaseRecord, LeaseState
from reaper.paths import is_there

T = TypeVar("T")

_OPEN = "state IN ('live', 'reconnecting')"
REMEMBER = timedelta(days=7)  # how long an ended lease goes on taking what carries its label
PAGE = 200  # records that are read at once


class LeaseFile:
    """The leases of all who share a state directory. Any number of processes may read and write them.

    What has changed since the last look is read, and nothing else, however many leases have ended.

    Args:
        file: where they are; ``create`` makes it. While there is no such file no lease was ever taken here.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._connection: sqlite3.Connection | None = None
        self._inode = 0, 0
        self._edition = ""
        self._booted = host.booted_at()
        self._forget_all()

    def _forget_all(self) -> None:
        self._version, self._seq = -1, -1
        self._current: dict[str, LeaseRecord] = {}
        self._dead: frozenset[str] = frozenset()
        self._made: dict[str, frozenset[tuple[str, str]]] = {}
        self._made_seq = 0
        self._elsewhere: frozenset[str] = frozenset()
        self._forgot: str | None = None
        self._index = LazyIndex(self)
        self._leases = Leases(self._index)

    def leases(self, dead: Mapping[str, Ending] | None = None, unwatched: Collection[str] = ()) -> Leases:
        """What the rules need to know of them; it changes as the file does. Raises LeasesUnknownError.

        Args:
            dead: how those have ended whose holders are dead, although the file does not say so yet.
            unwatched: those whose holders nothing watches; once another service does, the file says so.
        """
        self._refresh()
        for id_ in self._dead - (dead or {}).keys():
            if id_ in self._current:
                self._index.put(self._lease(self._current[id_]))
        for id_, ending in (dead or {}).items():
            lease = self._index.get(id_)
            if lease is not None and lease.ending is None:
                self._index.put(replace(lease, ending=ending))
        for id_ in unwatched:
            lease = self._index.get(id_)
            if lease is not None and lease.ending is None and not lease.unwatched:
                self._index.put(replace(lease, unwatched=True))
        self._dead = frozenset(dead or ())
        return self._leases

    def open(self) -> Sequence[LeaseRecord]:
        """Those that have not ended. Raises LeasesUnknownError."""
        self._refresh()
        return tuple(self._current.values())

    def states(self) -> Mapping[LeaseState, int]:
        """How many there are in each state. Raises LeasesUnknownError."""
        rows = self._rows("SELECT state, count(*) AS number FROM lease GROUP BY state")
        with explained(self.file):
            return Counter({LeaseState(row["state"]): int(row["number"]) for row in rows})

    def find(self, id_: str) -> LeaseRecord | None:
        """The one with this id. Raises LeasesUnknownError."""
        self._refresh()
        return self._current.get(id_) or next(iter(self._records("id = :id", id=id_)), None)

    def records(self) -> Sequence[LeaseRecord]:
        """All of them, in the order in which they were taken. Raises LeasesUnknownError."""
        found: list[LeaseRecord] = []
        after = 0
        while (page := self.page(after))[1]:
            after = page[0]
            found += page[1]
        return tuple(sorted(found, key=lambda record: (record.since, record.id)))

    def page(self, after: int, number: int = PAGE) -> tuple[int, Sequence[LeaseRecord]]:
        """Some of those that have changed since a page ended, and where this one ends. Raises LeasesUnknownError."""

        def read(connection: sqlite3.Connection) -> tuple[int, Sequence[LeaseRecord]]:
            wanted = {"after": after, "number": number}
            rows = connection.execute("SELECT * FROM lease WHERE seq > :after ORDER BY seq LIMIT :number", wanted).fetchall()
            return (rows[-1]["seq"] if rows else after), tuple(map(from_row, rows))

        with explained(self.file):
            if self._connection is None and not is_there(str(self.file)):
                return after, ()
            return self._with(read)

    @property
    def position(self) -> int:
        """Up to where it was last read: what changes later is on later pages."""
        return max(self._seq, 0)

    @property
    def edition(self) -> str:
        """What distinguishes this file from another one in its place, whose pages are others."""
        return self._edition

    def put(self, *records: LeaseRecord, anew: bool = False) -> None:
        """Write leases, new ones or changed ones. They are on the disk afterwards. Raises LeasesUnknownError.

        Args:
            records: the leases. One that has ended already is not changed.
            anew: whether they replace ended ones with their ids.
        """
        rows, keys = [*map(as_row, records)], [*chain.from_iterable(map(as_keys, records))]
        with explained(self.file):
            self._with(lambda connection: write(connection, (TAKE if anew else PUT, rows), (PUT_CLAIMED, keys)))
        self._version = -1  # its own changes do not count as such

    def put_made(self, lease: str, made: Collection[tuple[str, str]], at: datetime) -> None:
        """Write what was seen to be made under a lease, which may be another file's. Raises LeasesUnknownError.

        Args:
            lease: its id.
            made: by endpoint id and id, see ``Lease``.
            at: the time.
        """
        rows = [{"lease": lease, "endpoint": place, "id": id_, "at": spell(at)} for place, id_ in sorted(made)]
        with explained(self.file):
            self._with(lambda connection: write(connection, (MADE_TABLE, [{}]), (PUT_MADE, rows)))
        self._version = -1

    def made_elsewhere(self) -> Mapping[str, frozenset[tuple[str, str]]]:
        """What was seen to be made under leases that are no leases of this file, as it was last read."""
        return {id_: self._made[id_] for id_ in self._elsewhere}

    def restore(self) -> None:
        """Make the file anew where it is gone, with what was open in it: the state directory may have been emptied.

        Without that the next process to make one would know of no living run. Raises LeasesUnknownError.
        """
        with explained(self.file):
            if self._edition and not is_there(str(self.file)):
                known = tuple(self._current.values())
                create(self.file)
                self.put(*known)

    def forget(self, before: datetime) -> None:
        """Drop those that ended before a time. Raises LeasesUnknownError."""
        bound = [{"before": spell(before)}]
        with explained(self.file):
            statements = (
                "DELETE FROM lease WHERE ended_at < :before",
                MADE_TABLE,
                "DELETE FROM made WHERE at < :before AND lease NOT IN (SELECT id FROM lease)",
                "UPDATE edition SET forgot = :before",
            )
            self._with(lambda connection: write(connection, *((statement, bound) for statement in statements)))
            kept = self._with(lambda connection: connection.execute("SELECT id FROM lease").fetchall())
        forget(self.file.parent, before, (row["id"] for row in kept))
        self._version = -1

    def _refresh(self) -> None:
        def read(connection: sqlite3.Connection) -> None:
            version = int(connection.execute("PRAGMA data_version").fetchone()[0])
            if version == self._version:
                return
            if self._seq < 0:  # of those that have ended none is read before it is asked for
                (self._seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM lease").fetchone()
                for row in connection.execute(f"SELECT * FROM lease WHERE {_OPEN}"):  # noqa: S608 - two states
                    self._note(from_row(row))
            for row in connection.execute("SELECT * FROM lease WHERE seq > :seq ORDER BY seq", {"seq": self._seq}):
                self._note(from_row(row))
                self._seq = row["seq"]
            (forgot,) = connection.execute("SELECT forgot FROM edition").fetchone()
            if forgot is not None and forgot != self._forgot:
                self._forgot = forgot
                self._trim(parse_time(forgot))
            self._read_made(connection)
            self._index.keys = frozenset(row["key"] for row in connection.execute("SELECT key FROM claimed"))
            self._index.changed()
            self._version = version

        if abs((booted := host.booted_at()) - self._booted) > timedelta(seconds=CLOCK_STEP):
            self._forget_all()  # the clock was set: what has ended did so at another time by the clock of now
        self._booted = booted
        with explained(self.file):
            if self._connection is None and not is_there(str(self.file)):
                return
            self._with(read)

    def _read_made(self, connection: sqlite3.Connection) -> None:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'made'").fetchone():
            return  # an earlier version made the file
        new: dict[str, set[tuple[str, str]]] = {}
        for row in connection.execute("SELECT * FROM made WHERE seq > :seq ORDER BY seq", {"seq": self._made_seq}):
            new.setdefault(row["lease"], set()).add((row["endpoint"], row["id"]))
            self._made_seq = row["seq"]
        for id_, made in new.items():
            self._made[id_] = self._made.get(id_, frozenset()) | made
            if (lease := self._index.read(id_)) is not None:
                self._index.put(replace(lease, made=self._made[id_]))
        query = "SELECT DISTINCT lease FROM made WHERE lease NOT IN (SELECT id FROM lease)"
        elsewhere = frozenset(row["lease"] for row in connection.execute(query))
        if new or elsewhere != self._elsewhere:
            self._elsewhere, self._index.made_by = elsewhere, {}
            for id_ in self._made.keys() - elsewhere:
                for _, resource in self._made[id_]:
                    self._index.made_by.setdefault(resource, set()).add(id_)

    def _lease(self, record: LeaseRecord) -> Lease:
        return replace(record.lease(), made=self._made.get(record.id, frozenset()))

    def _note(self, record: LeaseRecord) -> None:
        self._index.put(self._lease(record))
        if record.state.ended:
            self._current.pop(record.id, None)
        else:
            self._current[record.id] = record

    def _trim(self, before: datetime) -> None:
        """Forget what has been dropped from the file, by whomever."""
        for lease in self._index.known:
            if lease.ending is not None and lease.ending.at < before and lease.id not in self._current:
                self._index.drop(lease.id)
        self._made, self._made_seq, self._elsewhere, self._index.made_by = {}, 0, frozenset(), {}  # they are read again

    # -- the ended ones, see ``history.History`` ------------------------------------------------------------------------

    def ended(self, id_: str) -> Lease | None:
        """The ended lease with this id. Raises LeasesUnknownError."""
        return next(map(self._lease, self._records(f"id = :id AND NOT {_OPEN}", id=id_)), None)

    def with_claims(self, first: datetime, last: datetime) -> Iterable[Lease]:
        """Those that ended with claims, and lived at some moment between two times. Raises LeasesUnknownError."""
        return map(self._lease, self.records_with_claims(first, last))

    def records_with_claims(self, first: datetime, last: datetime) -> Sequence[LeaseRecord]:
        """The same ones, as they are kept. Raises LeasesUnknownError."""
        where = "claims != '[]' AND ended_at >= :first AND since <= :last"
        return self._records(where, first=spell(first), last=spell(last))

    def all_ended(self) -> Iterable[Lease]:
        """All that have ended. Raises LeasesUnknownError."""
        return map(self._lease, self._records(f"NOT {_OPEN}"))

    def count(self) -> int:
        """How many there are, ended or not. Raises LeasesUnknownError."""
        return sum(self.states().values())

    def containers(self, id_: str) -> MadeContainers:
        """See ``history.History``."""
        return MadeContainers(self.file.parent, id_)

    def _records(self, where: str, **values: str) -> Sequence[LeaseRecord]:
        rows = self._rows(f"SELECT * FROM lease WHERE {where}", **values)  # noqa: S608 - a condition of this module
        with explained(self.file):
            return tuple(map(from_row, rows))

    def _rows(self, query: str, **values: str) -> Sequence[sqlite3.Row]:
        edition = self._edition
        with explained(self.file):
            if self._connection is None and not is_there(str(self.file)):
                return ()
            rows = self._with(lambda connection: connection.execute(query, values).fetchall())
        if edition and edition != self._edition:
            raise LeasesUnknownError(f"the leases in {self.file} cannot be read: another file is in its place just now")
        return rows

    def close(self) -> None:
        """Let go of the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _with(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._open()
        try:
            return work(connection)
        except BaseException:
            self.close()
            raise

    def _open(self) -> sqlite3.Connection:
        """The connection: to the file that is there now, checked when it was opened."""
        check_regular(self.file)
        found = self.file.stat()
        check_own(self.file, found)
        if self._connection is not None and (found.st_dev, found.st_ino) == self._inode:
            return self._connection
        self.close()
        connection = connect(self.file, found.st_size)
        self._connection = connection
        self._forget_all()  # it may be another file, even with the same number
        self._edition = str(connection.execute("SELECT id FROM edition").fetchone()[0])
        self._inode = found.st_dev, found.st_ino
        return connection
