"""The thread that writes the journal: everything that blocks happens in it."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from reaper.liveness import Alive, lock_file
from reaper.observers.journal_rows import Gap, gaps_left, leave_gap

if TYPE_CHECKING:
    from reaper.observers.journal import Journal
    from reaper.observers.journal_db import Database


TRIM_EVERY = timedelta(hours=1)
_TRIM_TO = 0.9  # of the size that is allowed: cutting to the very size would begin again with the next record
_LAST_TRIM = 1.0  # seconds that a process may still drop records when it ends: some live for one sweep only
_SET_ASIDE = 3  # damaged files; a disk that damages more of them would be filled with them
WAITING = 256  # jobs; more of them means that the disk hangs


_Work = Callable[["Database"], None]


@dataclass
class Job:
    """Something for the journal's thread to do.

    Args:
        at: when it was asked for: the clock belongs to those who ask.
        writes: whether it always writes something, so that its success proves that records can be written.
        lost: sweeps and acts of which there is no record when it fails.
        last: whether the thread ends with it.
    """

    work: _Work
    at: datetime
    writes: bool = False
    lost: tuple[int, int] = (0, 0)
    last: bool = False
    done: threading.Event = field(default_factory=threading.Event)


class Writer(threading.Thread):
    """The journal's thread. A daemon: a disk that hangs must not keep the process from ending."""

    def __init__(
        self,
        journal: "Journal",
        *,
        file: Path,
        token: int,
        recovered: Callable[[str], None],
        keep_for: timedelta,
        size: int,
        thorough: bool,
    ) -> None:
        super().__init__(name="journal", daemon=True)
        self.jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._file, self._journal, self._recovered = file, journal, recovered
        self._token, self._keep_for, self._size, self._thorough = token, keep_for, size, thorough
        self._database: Database | None = None
        self._alive: Alive | None = None
        self._set_aside = 0
        self._trimmed_at: datetime | None = None
        self._gap_since: datetime | None = None
        self._lost = [0, 0]

    def run(self) -> None:
        """Do one job after the other."""
        while True:
            job = self.jobs.get()
            self._do(job)
            if not job.last:
                job.done.set()  # nothing waits for the tidying
            self._tidy(job)
            if job.last:
                self.leave_gap(job.at)
                self._let_go()
                if self._alive is not None:
                    self._alive.close()
                job.done.set()
                return

    def lives(self, token: int) -> bool:
        """Whether the process with this token is alive."""
        return self._alive is not None and self._alive.lives(token)

    def lose(self, job: Job) -> None:
        """There will be no record of this one."""
        self._gap_since = self._gap_since or job.at
        self._lost[0] += job.lost[0]
        self._lost[1] += job.lost[1]

    def leave_gap(self, at: datetime) -> None:
        """Write beside the journal what is missing in it, since there is no later record to write it with."""
        try:
            gap = self._gap(at)
            self._gap_since, self._lost = None, [0, 0]
            if gap is not None:
                leave_gap(self._file, self._token, gap)
        except Exception as error:  # noqa: BLE001 - as above
            if self._journal.degraded is None:
                self._journal.degrade(_message(error))

    def _do(self, job: Job) -> None:
        try:
            self._write(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, the deletions go on
            self._let_go()
            self.lose(job)
            self._journal.degrade(_message(error))

    def _write(self, job: Job) -> None:
        from reaper.observers import journal_db  # noqa: PLC0415

        replaced = False
        while True:
            found = journal_db.inode(self._file)
            try:
                database = self._open(job.at)
                gap = self._gap(job.at) if job.writes else None
                with database.transaction():
                    job.work(database)
                    for known in [gap, *self._take_gaps()] if job.writes else []:
                        if known is not None:
                            database.add_gap(known)
                break
            except Exception as error:
                if not journal_db.is_damage(error) or self._set_aside >= _SET_ASIDE:
                    raise
                self._replace(found, job.at, error)
                replaced = True
        if replaced and self._journal.degraded is None:
            self._recovered("a new file is written")
        if self._journal.degraded is not None and (job.writes or replaced):
            sweeps, acts = self._lost if job.writes else (0, 0)
            self._journal.degraded = None
            if job.writes:
                self._gap_since, self._lost = None, [0, 0]
            self._recovered(f"it is written again; {sweeps} sweeps with {acts} deletions are not on record")

    def _gap(self, at: datetime) -> Gap | None:
        if self._gap_since is None or not any(self._lost):
            return None
        return Gap.of(self._gap_since, at, (self._lost[0], self._lost[1]), self._journal.degraded or "unknown")

    def _take_gaps(self) -> "list[Gap]":
        """Those beside the journal, inside a transaction: no other process takes them, too."""
        found = []
        for file, gap in gaps_left(self._file):
            file.unlink(missing_ok=True)
            if gap is not None:
                found.append(gap)
        return found

    def _open(self, at: datetime) -> "Database":
        from reaper.observers.journal_db import Database  # noqa: PLC0415

        if self._database is not None and not self._database.is_current():
            self._let_go()
        if self._database is None:
            folder = self._file.parent
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._alive is not None and not self._alive.is_current():
                self._alive.close()
                self._alive = None
            if self._alive is None:
                self._alive = Alive(lock_file(self._file), self._token)
            with self._alive.alone():
                self._database = Database(self._file, thorough=self._thorough)
            self._trimmed_at = self._trimmed_at or at - TRIM_EVERY
        return self._database

    def _replace(self, damaged: tuple[int, int], at: datetime, error: Exception) -> None:
        """Set a damaged file aside, so that the next one to open the journal begins a new one."""
        from reaper.observers import journal_db  # noqa: PLC0415

        self._let_go()
        self._set_aside += 1
        assert self._alive is not None
        with self._alive.alone():
            aside = journal_db.set_aside(self._file, damaged, at)
        if aside is not None:
            self._journal.warn(f"{self._file} was damaged ({error}): it is kept as {aside.name}, and a new one begins")

    def _let_go(self) -> None:
        if self._database is not None:
            try:
                self._database.close()
            except Exception as error:  # noqa: BLE001 - what could not be written has been reported, or will be
                self._journal.degrade(_message(error))
            self._database = None

    def _tidy(self, job: Job) -> None:
        """Drop what is too old or too much, a little at a time, while nothing else waits; a moment longer at the end.

        What is too much shrinks a little with each job even so: a journal that is never idle has a bound, too.
        """
        database, until = self._database, time.monotonic() + _LAST_TRIM
        if database is None or self._trimmed_at is None:
            return
        try:
            too_large = database.size() > self._size
            if not too_large and job.at < self._trimmed_at + TRIM_EVERY:
                return
            goal = int(self._size * _TRIM_TO) if too_large else self._size
            more, due = True, too_large
            while more and (due or (time.monotonic() < until if job.last else self.jobs.empty())):
                with database.transaction():
                    more = database.trim(job.at - self._keep_for, goal)
                database.shrink()
                due = False
            if not more:
                self._trimmed_at = job.at
        except Exception as error:  # noqa: BLE001 - as above
            self._let_go()
            self._journal.degrade(_message(error))


def _message(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the journal'}: {error.strerror or error}"
    return str(error) or type(error).__name__
