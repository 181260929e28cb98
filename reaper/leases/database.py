"""The SQLite file of leases: its schema, its rows, and the checked connection to it.

A file that is there and cannot be read is an error. It is never repaired and never made anew by itself: see ``store``.
"""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from tempfile import mkstemp
from typing import Any

from reaper import host
from reaper.core.durations import parse_time
from reaper.core.lease import Claim, texts
from reaper.errors import LeasesUnknownError
from reaper.leases.record import Holder, LeaseRecord, LeaseState, Liveness

APPLICATION = 0x52454C53  # "RELS"
VERSION = 3
BUSY_SECONDS = 0.25  # it may be asked on an event loop
SMALLEST = 512  # bytes of a database that is not empty
_UNWRITABLE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
CLOCK_STEP = 2.0  # seconds by which a clock seems to be set when it was only read

MADE_TABLE = """CREATE TABLE IF NOT EXISTS made (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    lease TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    id TEXT NOT NULL,
    at TEXT NOT NULL
)"""
PUT_MADE = "INSERT INTO made (lease, endpoint, id, at) VALUES (:lease, :endpoint, :id, :at)"
_LATER = """ALTER TABLE lease ADD COLUMN max_age REAL;
ALTER TABLE lease ADD COLUMN uptime REAL;
ALTER TABLE lease ADD COLUMN ended_by TEXT;
CREATE INDEX lease_state ON lease (state);
CREATE INDEX lease_with_claims ON lease (ended_at, since) WHERE claims != '[]';
CREATE TABLE claimed (key TEXT NOT NULL PRIMARY KEY)"""  # in files that earlier versions made: see ``_complete``
_LAST = "ALTER TABLE lease ADD COLUMN clock TEXT"  # likewise
PUT_CLAIMED = "INSERT OR IGNORE INTO claimed (key) VALUES (:key)"
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
{MADE_TABLE};
CREATE INDEX lease_ended ON lease (ended_at);
{_LATER};
{_LAST};
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""  # noqa: S608 - two numbers
_COLUMNS = (
    *("id", "sort", "host", "pid", "started", "command", "user", "uid", "token", "machine", "boot", "claims", "resources"),
    *("endpoints", "since", "state", "seen_at", "ended_at", "cause", "max_age", "uptime", "ended_by", "clock"),
)
TAKE = "INSERT OR REPLACE INTO lease ({}) SELECT {}".format(
    ", ".join(_COLUMNS), ", ".join(f":{column}" for column in _COLUMNS)
)
PUT = f"{TAKE} WHERE NOT EXISTS (SELECT 1 FROM lease WHERE id = :id AND ended_at IS NOT NULL)"  # noqa: S608 - likewise
"""What has ended stays as it ended: its holder, or the service that watches it, may not know that yet."""


def spell(at: datetime) -> str:
    """Return a time as it stands in the file: in UTC, so that texts compare as the times do."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def as_row(record: LeaseRecord) -> dict[str, object]:
    """Return a lease as the values of ``PUT``."""
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
        "since": spell(record.since),
        "state": record.state.value,
        "seen_at": spell(record.seen_at),
        "ended_at": record.ended_at and spell(record.ended_at),
        "cause": record.cause or None,
        "max_age": None if record.max_age is None else record.max_age.total_seconds(),
        "uptime": record.uptime,
        "ended_by": record.ended_by or None,
        "clock": None if record.ended_at is None else f"{host.boot_id()} {host.booted_at().timestamp():.3f}",
    }


def _set_back(clock: str | None) -> timedelta:
    """Return by how much the clock of this machine was set back since it was read for the file; 0 where that is unknown."""
    boot, _, booted = (clock or "").partition(" ")
    if not boot or boot != host.boot_id():
        return timedelta(0)
    seconds = float(booted) - host.booted_at().timestamp()
    return timedelta(seconds=seconds) if seconds > CLOCK_STEP else timedelta(0)


def as_keys(record: LeaseRecord) -> list[dict[str, str]]:
    """Return the labels that its claims know their own by, as the values of ``PUT_CLAIMED``."""
    return [{"key": claim.label_key} for claim in record.claims if claim.label_key is not None]


@lru_cache(maxsize=1024)  # thousands of leases have none, or the same ones
def _claims(text: str) -> tuple[Claim, ...]:
    return tuple(map(Claim.of, json.loads(text)))


@lru_cache(maxsize=1024)
def _texts(text: str) -> frozenset[str]:
    return frozenset(texts(json.loads(text)))


_TYPES: tuple[tuple[tuple[type, ...], tuple[str, ...]], ...] = (
    ((str,), ("id", "host", "command", "user", "machine", "boot")),
    ((str, type(None)), ("started", "cause")),
    ((int, type(None)), ("pid", "uid", "token")),
)


def from_row(row: sqlite3.Row | Mapping[str, Any]) -> LeaseRecord:
    """Return the lease of a row. Raises what ``explained`` translates when the row holds something else."""
    for kinds, columns in _TYPES:
        for column in columns:
            if not isinstance(row[column], kinds):
                raise TypeError(f"its column {column} holds a {type(row[column]).__name__}")
    new = ("max_age", "uptime", "ended_by", "clock")
    later = {column: row[column] if column in row.keys() else None for column in new}  # noqa: SIM118
    # By a clock that was set back, what is made now would seem to be from before the end of its lease.
    back = _set_back(later["clock"]) if row["ended_at"] else timedelta(0)
    return LeaseRecord(
        id=row["id"],
        sort=Liveness(row["sort"]),
        holder=Holder(row["host"], row["pid"], row["started"], row["command"], row["user"], row["uid"]),
        since=parse_time(row["since"]),
        seen_at=parse_time(row["seen_at"]) - back,
        claims=_claims(row["claims"]),
        token=row["token"],
        machine=row["machine"],
        boot=row["boot"],
        resources=_texts(row["resources"]),
        endpoints=_texts(row["endpoints"]),
        state=LeaseState(row["state"]),
        ended_at=parse_time(row["ended_at"]) - back if row["ended_at"] else None,
        cause=row["cause"] or "",
        max_age=None if later["max_age"] is None else timedelta(seconds=later["max_age"]),
        uptime=later["uptime"],
        ended_by=later["ended_by"] or "",
    )


def create(file: Path) -> None:
    """Make an empty file of leases where there is none. It is there as a whole or not at all.

    Raises LeasesUnknownError.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    except OSError as error:
        what = f"the leases in {file} cannot be written: {error.strerror or error}"
        raise LeasesUnknownError(f"{what}; name a folder that can be written with STATE_DIRECTORY") from error
    with explained(file):
        os.close(descriptor)
        partial = Path(name)
        try:
            with closing(sqlite3.connect(partial, isolation_level=None)) as connection:
                connection.executescript(_SCHEMA)
            with suppress(FileExistsError):  # another process was faster
                file.hardlink_to(partial)
        finally:
            partial.unlink()


def connect(file: Path, size: int) -> sqlite3.Connection:
    """Return a connection to the file, which was checked. Raises sqlite3.Error."""
    if size < SMALLEST:  # SQLite would take it for an empty one, and there never is an empty one
        raise sqlite3.DatabaseError("it is cut off")
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        _check(connection)
        _complete(connection)
    except BaseException:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
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


def _complete(connection: sqlite3.Connection) -> None:
    """Add what a file of an earlier version lacks, whose programs read it all the same."""
    has_keys = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'claimed'"
    is_whole = "SELECT 1 FROM pragma_table_info('lease') WHERE name = 'clock'"
    if connection.execute(is_whole).fetchone():
        return
    try:
        connection.execute("BEGIN IMMEDIATE")  # another process may be faster
        if not connection.execute(has_keys).fetchone():
            for statement in _LATER.split(";"):
                connection.execute(statement)
            claims = (json.loads(text) for (text,) in connection.execute("SELECT DISTINCT claims FROM lease"))
            keys = {claim.label_key for each in claims for claim in map(Claim.of, each)} - {None}
            connection.executemany(PUT_CLAIMED, [{"key": key} for key in keys])
        if not connection.execute(is_whole).fetchone():
            connection.execute(_LAST)
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if error.sqlite_errorcode & 0xFF not in _UNWRITABLE or not connection.execute(has_keys).fetchone():
            raise  # else it can be read without: a full disk must keep no sweep from deleting


def write(connection: sqlite3.Connection, *changes: tuple[str, Sequence[Mapping[str, object]]]) -> None:
    """Execute statements, each with its rows, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    for statement, values in changes:
        connection.executemany(statement, values)
    connection.execute("COMMIT")


@contextmanager
def explained(file: Path) -> Iterator[None]:
    """Raise LeasesUnknownError in place of what reading or writing the file raised."""
    try:
        yield
    except (OSError, sqlite3.Error, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        what = (
            "written"
            if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)
            else "read"
        )
        raise LeasesUnknownError(f"the leases in {file} cannot be {what}: {reason}") from error
