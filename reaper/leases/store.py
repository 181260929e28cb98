"""The file of leases: who holds which, and what became of it. Everything in here blocks, for milliseconds.

It is a database of its own, and no journal: a journal that is lost costs records, a lease that is lost costs a living trial.
So it is never set aside, repaired or made anew by itself. A file that is there and cannot be read is an error, and who meets
that error deletes nothing that a lease could cover.
"""

import heapq
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from tempfile import mkstemp
from typing import TypeVar

from reaper.core.lease import Claim, Ending, Lease
from reaper.core.lease_index import LeaseIndex, Leases
from reaper.errors import LeasesUnknownError
from reaper.files import check_regular
from reaper.leases.record import HEARTBEAT_DUE, Holder, LeaseRecord, LeaseState, Liveness
from reaper.paths import is_there

T = TypeVar("T")

__all__ = ["HEARTBEAT_DUE", "REMEMBER", "Holder", "LeaseFile", "LeaseRecord", "LeaseState", "Liveness", "create"]

APPLICATION = 0x52454C53  # "RELS"
VERSION = 3
BUSY_SECONDS = 0.25  # it may be asked on an event loop
SMALLEST = 512  # bytes of a database that is not empty
REMEMBER = timedelta(days=7)  # how long an ended lease goes on taking what carries its label
PAGE = 200  # records that are read at once

_MADE_TABLE = """CREATE TABLE IF NOT EXISTS made (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    lease TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    id TEXT NOT NULL,
    at TEXT NOT NULL
)"""
_PUT_MADE = "INSERT INTO made (lease, endpoint, id, at) VALUES (:lease, :endpoint, :id, :at)"
_SCHEMA = f"""
CREATE TABLE lease (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    sort TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER,
    started TEXT,
    command TEXT NOT NULL,
    user TEXT NOT NULL,
    uid INTEGER,
    token INTEGER,
    machine TEXT NOT NULL,
    boot TEXT NOT NULL,
    claims TEXT NOT NULL,
    resources TEXT NOT NULL,
    endpoints TEXT NOT NULL,
    since TEXT NOT NULL,
    state TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    ended_at TEXT,
    cause TEXT
);
CREATE TABLE edition (id TEXT NOT NULL, forgot TEXT);
INSERT INTO edition VALUES (lower(hex(randomblob(8))), NULL);
{_MADE_TABLE};
CREATE INDEX lease_ended ON lease (ended_at);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""  # noqa: S608 - two numbers
_COLUMNS = (
    *(
        "id",
        "sort",
        "host",
        "pid",
        "started",
        "command",
        "user",
        "uid",
        "token",
        "machine",
        "boot",
        "claims",
        "resources",
        "endpoints",
        "since",
        "state",
        "seen_at",
    ),
    *("ended_at", "cause"),
)
_PUT = "INSERT OR REPLACE INTO lease ({}) VALUES ({})".format(  # noqa: S608 - from the names above
    ", ".join(_COLUMNS), ", ".join(f":{column}" for column in _COLUMNS)
)


def _spell(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _row(record: LeaseRecord) -> dict[str, object]:
    holder = record.holder
    return {
        "id": record.id,
        "sort": record.sort.value,
        "host": holder.host,
        "pid": holder.pid,
        "started": holder.started,
        "command": holder.command,
        "user": holder.user,
        "uid": holder.uid,
        "token": record.token,
        "machine": record.machine,
        "boot": record.boot,
        "claims": json.dumps([claim.fields() for claim in record.claims]),
        "resources": json.dumps(sorted(record.resources)),
        "endpoints": json.dumps(sorted(record.endpoints)),
        "since": _spell(record.since),
        "state": record.state.value,
        "seen_at": _spell(record.seen_at),
        "ended_at": record.ended_at and _spell(record.ended_at),
        "cause": record.cause or None,
    }


@lru_cache(maxsize=1024)  # thousands of leases have none, or the same ones
def _claims(text: str) -> tuple[Claim, ...]:
    return tuple(map(Claim.of, json.loads(text)))


@lru_cache(maxsize=1024)
def _texts(text: str) -> frozenset[str]:
    return frozenset(json.loads(text))


def _record(row: sqlite3.Row) -> LeaseRecord:
    return LeaseRecord(
        id=row["id"],
        sort=Liveness(row["sort"]),
        holder=Holder(row["host"], row["pid"], row["started"], row["command"], row["user"], row["uid"]),
        since=datetime.fromisoformat(row["since"]),
        seen_at=datetime.fromisoformat(row["seen_at"]),
        claims=_claims(row["claims"]),
        token=row["token"],
        machine=row["machine"],
        boot=row["boot"],
        resources=_texts(row["resources"]),
        endpoints=_texts(row["endpoints"]),
        state=LeaseState(row["state"]),
        ended_at=datetime.fromisoformat(row["ended_at"]) if row["ended_at"] else None,
        cause=row["cause"] or "",
    )


def create(file: Path) -> None:
    """Make an empty file of leases where there is none. It is there as a whole or not at all.

    Raises LeasesUnknownError.
    """
    with _explained(file):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
        os.close(descriptor)
        partial = Path(name)
        try:
            with closing(sqlite3.connect(partial, isolation_level=None)) as connection:
                connection.executescript(_SCHEMA)
            with suppress(FileExistsError):  # somebody was faster
                file.hardlink_to(partial)
        finally:
            partial.unlink()


class LeaseFile:
    """The leases of all who share a state directory. Any number of processes may read and write them.

    What has changed since the last look is read, and nothing else, however many leases have ended.

    Args:
        file: where they are; ``create`` makes it. While there is no such file nobody has ever taken a lease here.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._connection: sqlite3.Connection | None = None
        self._inode = 0, 0
        self._edition = ""
        self._forget_all()

    def _forget_all(self) -> None:
        self._version, self._seq = -1, 0
        self._current: dict[str, LeaseRecord] = {}
        self._states: dict[str, LeaseState] = {}
        self._ended: list[tuple[datetime, str]] = []  # a heap
        self._dead: frozenset[str] = frozenset()
        self._made: dict[str, frozenset[tuple[str, str]]] = {}
        self._made_seq = 0
        self._index = LeaseIndex()
        self._leases = Leases(self._index)

    def leases(self, dead: Mapping[str, Ending] | None = None) -> Leases:
        """What the rules need to know of them; it changes as the file does. Raises LeasesUnknownError.

        Args:
            dead: how those have ended whose holders are dead, although the file does not say so yet.
        """
        self._refresh()
        for id_ in self._dead - (dead or {}).keys():
            if id_ in self._current:
                self._index.put(self._lease(self._current[id_]))
        for id_, ending in (dead or {}).items():
            lease = self._index.get(id_)
            if lease is not None and lease.ending is None:
                self._index.put(replace(lease, ending=ending))
        self._dead = frozenset(dead or ())
        return self._leases

    def open(self) -> Sequence[LeaseRecord]:
        """Those that have not ended. Raises LeasesUnknownError."""
        self._refresh()
        return tuple(self._current.values())

    def states(self) -> Mapping[LeaseState, int]:
        """How many there are in each state. Raises LeasesUnknownError."""
        self._refresh()
        return Counter(self._states.values())

    def find(self, id_: str) -> LeaseRecord | None:
        """The one with this id. Raises LeasesUnknownError."""
        self._refresh()
        if id_ in self._current or id_ not in self._states:
            return self._current.get(id_)

        def read(connection: sqlite3.Connection) -> LeaseRecord | None:
            row = connection.execute("SELECT * FROM lease WHERE id = :id", {"id": id_}).fetchone()
            return None if row is None else _record(row)

        with _explained(self.file):
            return self._with(read)

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
            return (rows[-1]["seq"] if rows else after), tuple(map(_record, rows))

        with _explained(self.file):
            if self._connection is None and not is_there(str(self.file)):
                return after, ()
            return self._with(read)

    @property
    def edition(self) -> str:
        """What tells this file from another one in its place, whose pages are others."""
        return self._edition

    def put(self, *records: LeaseRecord) -> None:
        """Write leases, new ones or changed ones. They are on the disk afterwards. Raises LeasesUnknownError."""
        rows = [*map(_row, records)]
        with _explained(self.file):
            self._with(lambda connection: _write(connection, (_PUT, rows)))
        self._version = -1  # its own changes do not count as such

    def put_made(self, lease: str, made: Collection[tuple[str, str]], at: datetime) -> None:
        """Write what was seen to be made under a lease, which may be another file's. Raises LeasesUnknownError.

        Args:
            lease: its id.
            made: by endpoint id and id, see ``Lease``.
            at: the time.
        """
        rows = [{"lease": lease, "endpoint": place, "id": id_, "at": _spell(at)} for place, id_ in sorted(made)]
        with _explained(self.file):
            self._with(lambda connection: _write(connection, (_MADE_TABLE, [{}]), (_PUT_MADE, rows)))
        self._version = -1

    def made_elsewhere(self) -> Mapping[str, frozenset[tuple[str, str]]]:
        """What was seen to be made under leases that are no leases of this file, as it was last read."""
        return {id_: made for id_, made in self._made.items() if id_ not in self._states}

    def forget(self, before: datetime) -> None:
        """Drop those that ended before a time. Raises LeasesUnknownError."""
        bound = [{"before": _spell(before)}]
        with _explained(self.file):
            statements = (
                "DELETE FROM lease WHERE ended_at < :before",
                _MADE_TABLE,
                "DELETE FROM made WHERE at < :before AND lease NOT IN (SELECT id FROM lease)",
                "UPDATE edition SET forgot = :before",
            )
            self._with(lambda connection: _write(connection, *((statement, bound) for statement in statements)))
        self._version = -1

    def _refresh(self) -> None:
        def read(connection: sqlite3.Connection) -> None:
            version = int(connection.execute("PRAGMA data_version").fetchone()[0])
            if version == self._version:
                return
            for row in connection.execute("SELECT * FROM lease WHERE seq > :seq ORDER BY seq", {"seq": self._seq}):
                record = _record(row)
                self._note(record)
                self._seq = row["seq"]
            self._read_made(connection)
            self._version = version
            (forgot,) = connection.execute("SELECT forgot FROM edition").fetchone()
            if forgot is not None:
                self._trim(datetime.fromisoformat(forgot))

        with _explained(self.file):
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
            if (lease := self._index.get(id_)) is not None:
                self._index.put(replace(lease, made=self._made[id_]))

    def _lease(self, record: LeaseRecord) -> Lease:
        return replace(record.lease(), made=self._made.get(record.id, frozenset()))

    def _note(self, record: LeaseRecord) -> None:
        self._states[record.id] = record.state
        self._index.put(self._lease(record))
        if record.state.ended:
            self._current.pop(record.id, None)
            heapq.heappush(self._ended, (record.ended_at or record.seen_at, record.id))
        else:
            self._current[record.id] = record

    def _trim(self, before: datetime) -> None:
        """Forget what has been dropped from the file, by whomever."""
        while self._ended and self._ended[0][0] < before:
            at, id_ = heapq.heappop(self._ended)
            lease = self._index.get(id_)
            if lease is not None and lease.ending is not None and lease.ending.at == at:
                self._index.drop(id_)
                self._made.pop(id_, None)
                del self._states[id_]

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
        if self._connection is not None and (found.st_dev, found.st_ino) == self._inode:
            return self._connection
        self.close()
        if found.st_size < SMALLEST:  # SQLite would take it for an empty one, and there never is an empty one
            raise sqlite3.DatabaseError("it is cut off")
        connection = sqlite3.connect(
            f"{self.file.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        try:
            _check(connection)
        except BaseException:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        self._connection = connection
        self._forget_all()  # it may be another file, even with the same number
        self._edition = str(connection.execute("SELECT id FROM edition").fetchone()[0])
        self._inode = found.st_dev, found.st_ino
        return connection


def _write(connection: sqlite3.Connection, *changes: tuple[str, Sequence[Mapping[str, object]]]) -> None:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    for statement, values in changes:
        connection.executemany(statement, values)
    connection.execute("COMMIT")


def _check(connection: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError when it is no whole file of leases that this program can read."""
    application, version = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("application_id", "user_version")
    )
    if application != APPLICATION:
        raise sqlite3.DatabaseError("it is no file of leases")
    if version != VERSION:
        raise sqlite3.DatabaseError(f"it was written by another version of reaper (its schema is {version}, not {VERSION})")
    for (problem,) in connection.execute("PRAGMA quick_check(1)"):
        if problem != "ok":
            raise sqlite3.DatabaseError(str(problem))
    connection.execute("PRAGMA synchronous = FULL")


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        sqlite3.Error,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LeasesUnknownError(f"the leases in {file} cannot be read: {reason}") from error
