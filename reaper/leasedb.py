"""The file of leases: who holds which, and what became of it. Everything in here blocks, for milliseconds.

It is a database of its own, and no journal: a journal that is lost costs records, a lease that is lost costs a living trial.
So it is never set aside, repaired or made anew by itself. A file that is there and cannot be read is an error, and who meets
that error deletes nothing that a lease could cover.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from tempfile import mkstemp
from typing import TypeVar

from reaper.alive import started
from reaper.claims import Claim, Ending, Lease
from reaper.errors import LeasesUnknownError
from reaper.files import check_regular
from reaper.places import is_there

T = TypeVar("T")

APPLICATION = 0x52454C53  # "RELS"
VERSION = 2
BUSY_SECONDS = 0.25  # it may be asked on an event loop
SMALLEST = 512  # bytes of a database that is not empty

_SCHEMA = f"""
CREATE TABLE lease (
    id TEXT PRIMARY KEY,
    sort TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER,
    started TEXT,
    command TEXT NOT NULL,
    user TEXT NOT NULL,
    uid INTEGER,
    token INTEGER,
    claims TEXT NOT NULL,
    resources TEXT NOT NULL,
    since TEXT NOT NULL,
    state TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    ended_at TEXT,
    cause TEXT
);
CREATE INDEX lease_ended ON lease (ended_at);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
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
        "claims",
        "resources",
        "since",
        "state",
        "seen_at",
    ),
    *("ended_at", "cause"),
)
_PUT = "INSERT OR REPLACE INTO lease ({}) VALUES ({})".format(  # noqa: S608 - from the names above
    ", ".join(_COLUMNS), ", ".join(f":{column}" for column in _COLUMNS)
)


class LeaseState(StrEnum):
    """How a lease stands. A holder that is ``RECONNECTING`` has not been heard of for a while, and its lease still keeps."""

    LIVE = "live"
    RECONNECTING = "reconnecting"
    EXPIRED = "expired"
    RELEASED = "released"

    @property
    def ended(self) -> bool:
        """Whether what it covers is garbage."""
        return self in (LeaseState.EXPIRED, LeaseState.RELEASED)


class Sort(StrEnum):
    """By what a holder is known to be alive."""

    PROCESS = "process"
    CONNECTION = "connection"
    HEARTBEAT = "heartbeat"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease.

    Args:
        host: the name of the machine.
        pid: its process there; None where it is not known.
        started: when that process began, as the machine tells it: process ids are used again.
        command: what it runs, without arguments that could hold a secret.
        user: whose it is.
        uid: the number of that user, where the kernel has said it: of one who asked over the local socket. No lookup of
            names that fails for a moment may part a holder from its lease.
    """

    host: str
    pid: int | None = None
    started: str | None = None
    command: str = ""
    user: str = ""
    uid: int | None = None

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}" if self.pid is not None else self.host

    @property
    def runs(self) -> bool:
        """Whether it is surely alive: a process of this machine that can be seen from here."""
        here = self.pid is not None and self.started is not None and self.host == os.uname().nodename
        return here and started(self.pid or 0) == self.started


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """A lease as it is kept. All times are aware UTC.

    Args:
        claims: what it covers besides what carries its label.
        resources: ids that it covers.
        seen_at: when its holder was last known to be alive.
        token: of a process: the byte that it holds a lock on while it lives (see ``alive``); else that of the process
            which watches the holder.
        cause: why it ended, for people.
    """

    id: str
    sort: Sort
    holder: Holder
    since: datetime
    seen_at: datetime
    claims: tuple[Claim, ...] = ()
    resources: frozenset[str] = frozenset()
    token: int | None = None
    state: LeaseState = LeaseState.LIVE
    ended_at: datetime | None = None
    cause: str = ""

    def is_orphan(self, lives: bool | None) -> bool:  # noqa: FBT001 - the answer of ``alive``
        """Whether its holder is surely dead, and nobody has said so yet. Two proofs are asked of a process.

        Args:
            lives: whether the process that its token stands for is alive; None where nobody knows.
        """
        return self.sort is Sort.PROCESS and not self.state.ended and lives is False and not self.holder.runs

    def lease(self) -> Lease:
        """What the rules need to know of it."""
        ending = Ending(self.ended_at or self.seen_at, self.cause) if self.state.ended else None
        return Lease(self.id, str(self.holder), self.resources, self.claims, self.since, ending)


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
        "claims": json.dumps([claim.fields() for claim in record.claims]),
        "resources": json.dumps(sorted(record.resources)),
        "since": _spell(record.since),
        "state": record.state.value,
        "seen_at": _spell(record.seen_at),
        "ended_at": record.ended_at and _spell(record.ended_at),
        "cause": record.cause or None,
    }


def _record(row: sqlite3.Row) -> LeaseRecord:
    return LeaseRecord(
        id=row["id"],
        sort=Sort(row["sort"]),
        holder=Holder(row["host"], row["pid"], row["started"], row["command"], row["user"], row["uid"]),
        since=datetime.fromisoformat(row["since"]),
        seen_at=datetime.fromisoformat(row["seen_at"]),
        claims=tuple(map(Claim.of, json.loads(row["claims"]))),
        token=row["token"],
        resources=frozenset(json.loads(row["resources"])),
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

    Args:
        file: where they are; ``create`` makes it. While there is no such file nobody has ever taken a lease here.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._connection: sqlite3.Connection | None = None
        self._inode = 0, 0
        self._version = -1
        self._records: tuple[LeaseRecord, ...] = ()
        self._leases_of: Sequence[LeaseRecord] = self._records
        self._leases: tuple[Lease, ...] = ()

    def records(self) -> Sequence[LeaseRecord]:
        """All of them. What has not changed since the last time is not read again. Raises LeasesUnknownError."""

        def read(connection: sqlite3.Connection) -> Sequence[LeaseRecord]:
            version = int(connection.execute("PRAGMA data_version").fetchone()[0])
            if version != self._version:
                self._records = tuple(map(_record, connection.execute("SELECT * FROM lease ORDER BY since, id")))
                self._version = version
            return self._records

        with _explained(self.file):
            if self._connection is None and not is_there(str(self.file)):
                return ()
            return self._with(read)

    def leases(self) -> Sequence[Lease]:
        """What the rules need to know of them; the same object for as long as nothing changes. Raises LeasesUnknownError."""
        records = self.records()
        if self._leases_of is not records:
            self._leases_of, self._leases = records, tuple(record.lease() for record in records)
        return self._leases

    def put(self, record: LeaseRecord) -> None:
        """Write a lease, a new one or one that has changed. It is on the disk afterwards. Raises LeasesUnknownError."""
        self._write(_PUT, _row(record))

    def forget(self, before: datetime) -> None:
        """Drop those that ended before a time. Raises LeasesUnknownError."""
        self._write("DELETE FROM lease WHERE ended_at < :before", {"before": _spell(before)})

    def close(self) -> None:
        """Let go of the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(self, statement: str, values: dict[str, object]) -> None:
        with _explained(self.file):
            self._with(lambda connection: connection.execute(statement, values))
        self._version = -1  # its own changes do not count as such

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
        self._connection, self._version = connection, -1
        self._inode = found.st_dev, found.st_ino
        return connection


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
    except (OSError, sqlite3.Error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise LeasesUnknownError(f"the leases in {file} cannot be read: {reason}") from error
