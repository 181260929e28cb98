"""The journal's file: its schema and what is done to it. Everything in here blocks; ``journal`` has a thread for it."""

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from reaper.core.model import Decision, EndpointReport, Outcome
from reaper.files import check_regular
from reaper.observers.journal_rows import PENDING, Begun, Gap, acts, decided, ended, place, spell, text

DIED = "died"  # the failure of a sweep whose process died in it

APPLICATION = 0x52454150  # "REAP": what identifies a journal among other programs' databases
BUSY_SECONDS = 3.0  # less than the journal's own patience
SMALLEST = 512  # bytes of a database that is not empty
QUICK_TO_CHECK = 4_000_000  # bytes; reading so many does not delay a start
_BATCH = 500
_STEP = 100
_WAL = 4_194_304

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE sweep (
            id INTEGER PRIMARY KEY,
            endpoint TEXT NOT NULL,
            provider TEXT NOT NULL,
            host TEXT NOT NULL,
            pid INTEGER NOT NULL,
            token INTEGER NOT NULL,
            version TEXT NOT NULL,
            due TEXT,
            at TEXT NOT NULL,
            ended_at TEXT,
            seconds REAL,
            held INTEGER,
            reapable INTEGER,
            counts TEXT,
            cap TEXT,
            failure TEXT,
            message TEXT
        )""",
        "CREATE INDEX sweep_at ON sweep (at)",
        "CREATE INDEX sweep_open ON sweep (endpoint) WHERE ended_at IS NULL",
        """CREATE TABLE act (
            id INTEGER PRIMARY KEY,
            sweep INTEGER NOT NULL REFERENCES sweep (id) ON DELETE CASCADE,
            endpoint TEXT NOT NULL,
            provider TEXT NOT NULL,
            kind TEXT NOT NULL,
            resource TEXT NOT NULL,
            name TEXT NOT NULL,
            labels TEXT,
            labels_cut INTEGER NOT NULL,
            image TEXT,
            "group" TEXT,
            state TEXT NOT NULL,
            raw_state TEXT NOT NULL,
            created_at TEXT,
            owner TEXT,
            policy TEXT,
            reason TEXT NOT NULL,
            sentence TEXT NOT NULL,
            since TEXT,
            decided_at TEXT NOT NULL,
            outcome TEXT NOT NULL,
            detail TEXT NOT NULL,
            error TEXT,
            attempts INTEGER NOT NULL,
            seconds REAL NOT NULL,
            ended_at TEXT
        )""",
        "CREATE INDEX act_sweep ON act (sweep)",
        "CREATE INDEX act_decided_at ON act (decided_at)",
        "CREATE TABLE gap (began_at TEXT NOT NULL, ended_at TEXT NOT NULL, sweeps INTEGER, acts INTEGER, why TEXT NOT NULL)",
    ),
    (  # what a deletion was worth, and what the last look before it showed; acted is NULL where that was not recorded
        "ALTER TABLE act ADD COLUMN freed INTEGER",
        "ALTER TABLE act ADD COLUMN cpu REAL",
        "ALTER TABLE act ADD COLUMN memory INTEGER",
        "ALTER TABLE act ADD COLUMN disk INTEGER",
        "ALTER TABLE act ADD COLUMN avoided REAL",
        "ALTER TABLE act ADD COLUMN waited REAL",
        "ALTER TABLE act ADD COLUMN acted INTEGER",
        "ALTER TABLE act ADD COLUMN looked_at TEXT",
        "ALTER TABLE act ADD COLUMN looked_state TEXT",
        "ALTER TABLE act ADD COLUMN looked_differs TEXT",
    ),
    ("ALTER TABLE act ADD COLUMN action TEXT",),  # what was to be done; NULL where that was not recorded
    ("ALTER TABLE act ADD COLUMN evidence INTEGER NOT NULL DEFAULT 0",),
)
"""What makes a file of each version one of the next; a change of the schema is one more entry, never a change of one."""

_COLUMNS = (  # of an act, but for its id
    "sweep endpoint provider kind resource name labels labels_cut image group state raw_state created_at owner policy reason"
    " sentence since decided_at outcome detail error attempts seconds ended_at"
    " freed cpu memory disk avoided waited acted looked_at looked_state looked_differs action evidence"
)
_INSERT_ACT = "INSERT INTO act ({}) VALUES ({})".format(  # noqa: S608 - from the names above
    ", ".join(f'"{column}"' for column in _COLUMNS.split()), ", ".join(f":{column}" for column in _COLUMNS.split())
)
_UPDATE_ACT = """UPDATE act SET outcome = :outcome, detail = :detail, error = :error, attempts = :attempts,
    seconds = :seconds, ended_at = :ended_at, freed = :freed, acted = :acted, looked_at = :looked_at,
    looked_state = :looked_state, looked_differs = :looked_differs, evidence = :evidence WHERE id = :id"""
_INSERT_SWEEP = """INSERT INTO sweep (endpoint, provider, host, pid, token, version, due, at)
    VALUES (:endpoint, :provider, :host, :pid, :token, :version, :due, :at)"""
_END_SWEEP = """UPDATE sweep SET ended_at = :ended_at, seconds = :seconds, held = :held, reapable = :reapable,
    counts = :counts, cap = :cap, failure = :failure, message = :message WHERE id = :id"""


class DamagedError(Exception):
    """The file is no journal, or not any more."""


class NewerError(Exception):
    """The file was written by a later version of this program."""


class Database:
    """A journal that is open for writing. Belongs to the thread that opened it.

    Args:
        file: made when it is missing; its folder must exist.
        thorough: read all of a large file as well to see whether it is whole.

    Raises DamagedError, NewerError, and what sqlite3 and the file system raise.
    """

    def __init__(self, file: Path, *, thorough: bool) -> None:
        self._file = file
        with suppress(FileExistsError):
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        check_regular(file)
        self.inode = inode(file)
        if 0 < file.stat().st_size < SMALLEST:  # SQLite would take it for an empty one, and write over it
            raise DamagedError("it is cut off")
        self._connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
        )
        try:
            self._prepare(thorough=thorough)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, *, thorough: bool) -> None:
        execute = self._connection.execute
        version = check_version(self._connection)
        if version == 0:
            execute("PRAGMA auto_vacuum = INCREMENTAL")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")
        execute("PRAGMA foreign_keys = ON")
        execute(f"PRAGMA journal_size_limit = {_WAL}")
        if version and (thorough or self.size() <= QUICK_TO_CHECK):
            for (problem,) in execute("PRAGMA quick_check(1)"):
                if problem != "ok":
                    raise DamagedError(problem)
        if version < len(MIGRATIONS):
            with self.transaction():
                for statements in MIGRATIONS[check_version(self._connection) :]:
                    for statement in statements:
                        execute(statement)
                execute(f"PRAGMA application_id = {APPLICATION}")
                execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def close(self) -> None:
        """Close it. The last one to do so moves what the write-ahead log holds into the file."""
        self._connection.close()

    def is_current(self) -> bool:
        """Whether the file is still the one that was opened: another process may have set it aside."""
        return inode(self._file) == self.inode

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block is written, or nothing of it."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # some errors have rolled it back already
                self._connection.execute("ROLLBACK")
            raise

    def size(self) -> int:
        """Bytes of the file, without what is free in it."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def shrink(self) -> None:
        """Give what is free in the file back to the disk. Outside a transaction."""
        # Not execute(): that takes the first step of a statement without columns, and here each step frees one page.
        self._connection.executescript("PRAGMA incremental_vacuum")

    # -- inside a transaction ------------------------------------------------------------------------------------------

    def begin(self, begun: Begun, decisions: Sequence[Decision], at: datetime) -> None:
        """These are about to be deleted."""
        sweep = self._new_sweep(begun)
        self._connection.executemany(_INSERT_ACT, (decided(sweep, decision, spell(at)) for decision in decisions))

    def finish(
        self, begun: Begun, report: EndpointReport, at: datetime, decided_at: datetime, settled: Mapping[str, datetime]
    ) -> None:
        """A sweep has ended: what was pending gets its outcome, and what is not in the file yet comes into it."""
        found = self._connection.execute(
            "SELECT id FROM sweep WHERE endpoint = ? AND token = ? AND ended_at IS NULL ORDER BY id DESC",
            (begun.endpoint, begun.token),
        ).fetchone()
        sweep = found[0] if found else self._new_sweep(begun)
        failure, cap = report.failure, report.cap
        row = {
            "id": sweep,
            "ended_at": spell(at),
            "seconds": report.seconds,
            "held": report.held,
            "reapable": sum(decision.reap for decision in report.decisions),
            "counts": json.dumps({outcome.value: n for outcome in Outcome if (n := report.count(outcome))}),
            "cap": None if cap is None else f"{cap.wanted} would have gone, {cap.limit}",
            "failure": None if failure is None else failure.label,
            "message": None if failure is None else text(failure.message),
        }
        self._connection.execute(_END_SWEEP, row)
        there = self._connection.execute("SELECT kind, resource, id FROM act WHERE sweep = ?", (sweep,))
        ids = {(kind, resource): id_ for kind, resource, id_ in there}
        old, new = [], []
        for result in acts(report, ids):
            end = ended(result, settled.get(result.decision.resource.id, at))
            id_ = ids.get(place(result))
            if id_ is None:
                new.append({**decided(sweep, result.decision, spell(decided_at)), **end})
            else:
                old.append({**end, "id": id_})
        self._connection.executemany(_UPDATE_ACT, old)
        self._connection.executemany(_INSERT_ACT, new)

    def settle(
        self, endpoint: str, there: Callable[[], Collection[str]], at: datetime, own: int, lives: Callable[[int], bool]
    ) -> None:
        """A later sweep has listed an endpoint: what died in mid-deletion there gets the outcome that the listing shows.

        Args:
            endpoint: its name.
            there: gives the ids of all that it holds.
            at: when it was listed.
            own: the token of this process: its own sweeps of the endpoint are over, too.
            lives: whether the process with a token is alive.
        """
        sweeps = self._connection.execute(
            "SELECT id, token, pid FROM sweep WHERE endpoint = ? AND ended_at IS NULL", (endpoint,)
        ).fetchall()
        for sweep, token, pid in sweeps:
            if token == own:
                what, how = f"the sweep that was deleting it (pid {pid}) broke off", "broke off without a report"
            elif not lives(token):
                what, how = f"the process that was deleting it (pid {pid}) died", f"its process (pid {pid}) died"
            else:
                continue
            pending = self._connection.execute(
                "SELECT id, resource FROM act WHERE sweep = ? AND outcome = ?", (sweep, PENDING)
            ).fetchall()
            held = frozenset(text(id_) for id_ in there()) if pending else frozenset()
            shown = at.strftime("%Y-%m-%d %H:%M:%S UTC")
            self._connection.executemany(
                "UPDATE act SET outcome = ?, detail = ?, ended_at = ? WHERE id = ?",
                (
                    (Outcome.ABANDONED.value, f"{what}; it was still there at {shown}", spell(at), id_)
                    if resource in held
                    else (Outcome.GONE.value, f"{what}; it was not there any more at {shown}", spell(at), id_)
                    for id_, resource in pending
                ),
            )
            self._connection.execute(
                "UPDATE sweep SET ended_at = ?, failure = ?, message = ? WHERE id = ?", (spell(at), DIED, how, sweep)
            )

    def add_gap(self, gap: Gap) -> None:
        """So many records could not be written."""
        row = (gap.began_at, gap.ended_at, gap.sweeps, gap.acts, gap.why)
        self._connection.execute("INSERT INTO gap VALUES (?, ?, ?, ?, ?)", row)

    def trim(self, before: datetime, size: int) -> bool:
        """Drop some of what is oldest: what is from ``before``, and what makes the file larger than ``size`` bytes.

        Returns:
            whether there may be more to drop.
        """
        limit, dropped = spell(before), 0
        self._connection.execute("DELETE FROM gap WHERE ended_at < ?", (limit,))
        while dropped < _BATCH:
            oldest = self._connection.execute(
                "SELECT id, at FROM sweep WHERE ended_at IS NOT NULL OR at < ? ORDER BY at, id LIMIT 1", (limit,)
            ).fetchone()
            if oldest is None or (oldest[1] >= limit and self.size() <= size):
                break
            some = "DELETE FROM act WHERE id IN (SELECT id FROM act WHERE sweep = ? LIMIT ?)"
            acts = self._connection.execute(some, (oldest[0], _STEP)).rowcount
            if acts < _STEP:
                self._connection.execute("DELETE FROM sweep WHERE id = ?", (oldest[0],))
            dropped += acts + 1
        return dropped >= _BATCH

    def _new_sweep(self, begun: Begun) -> int:
        return int(self._connection.execute(_INSERT_SWEEP, begun.row()).lastrowid or 0)


def check_version(connection: sqlite3.Connection) -> int:
    """The version of the file's schema; 0 when it is empty. Raises DamagedError, NewerError and sqlite3.DatabaseError."""
    version, application, tables = (
        int(connection.execute(query).fetchone()[0])
        for query in ("PRAGMA user_version", "PRAGMA application_id", "SELECT count(*) FROM sqlite_schema")
    )
    if (tables or version) and application != APPLICATION:
        raise DamagedError("it is no journal of this program")
    if version > len(MIGRATIONS):
        known = len(MIGRATIONS)
        raise NewerError(f"it was written by a later version of reaper (its schema is {version}, this one supports {known})")
    return version


def is_damage(error: Exception) -> bool:
    """Whether ``error`` says that the file is damaged. A full or failing disk is no damage."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, DamagedError) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def set_aside(file: Path, damaged: tuple[int, int], at: datetime) -> Path | None:
    """Rename a damaged file with what belongs to it; None when another process has done so already."""
    if inode(file) != damaged:
        return None
    aside = Path(f"{file}.damaged-{at:%Y%m%dT%H%M%S}Z")
    number = 1
    while aside.exists():
        number += 1
        aside = Path(f"{file}.damaged-{at:%Y%m%dT%H%M%S}Z-{number}")
    for suffix in ("-shm", "-wal", ""):
        with suppress(FileNotFoundError):
            Path(f"{file}{suffix}").rename(f"{aside}{suffix}")
    return aside


def inode(file: Path) -> tuple[int, int]:
    """What distinguishes the file from another one of its name."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino


def reading(file: Path) -> sqlite3.Connection:
    """Open a journal to read it, beside those who write. Nothing is made or changed. Raises what sqlite3 raises.

    A log beside the file belongs to it; without one no process has it open, and it can be read as it is: any other way of
    opening it would make such a log.
    """
    mode = "mode=ro" if Path(f"{file}-wal").exists() else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?{mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.text_factory = lambda text: text.decode(errors="replace")  # a damaged one spoils no other
    return connection


def reaped_projects(file: Path) -> dict[str, set[str]]:
    """By endpoint the names of the projects whose containers were deleted for another reason than a lease.

    Empty where there is no journal, or it cannot be read: it is read for messages only.
    """
    found: dict[str, set[str]] = {}
    query = 'SELECT DISTINCT endpoint, "group" FROM act WHERE outcome = ? AND "group" IS NOT NULL AND owner NOT LIKE ?'
    with suppress(OSError, sqlite3.Error):
        if not file.exists():
            return found
        with closing(reading(file)) as connection:
            for row in connection.execute(query, (Outcome.DELETED.value, "lease %")):
                found.setdefault(row["endpoint"], set()).add(row["group"])
    return found
