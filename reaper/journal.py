"""What was deleted, when and why: a database in the state directory, written by a thread of its own.

The journal serves the deletions and never the other way round. What is about to be deleted is on record first, so that a
killed process leaves the truth; but a disk that is full, slow or broken costs records, which are counted, and nothing else.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from reaper import __version__, journalgaps
from reaper.alive import Alive, lock_file, new_token
from reaper.journalgaps import Gap
from reaper.model import Decision, EndpointReport, Result
from reaper.records import Begun
from reaper.settings import JournalTable
from reaper.terms import Quiet

if TYPE_CHECKING:
    from reaper.journaldb import Database

NAME = "journal.db"
PATIENCE = timedelta(seconds=5)
TRIM_EVERY = timedelta(hours=1)
_TRIM_TO = 0.9  # of the size that is allowed: cutting to the very size would begin again with the next record
_LAST_TRIM = 1.0  # seconds that a process may still drop records when it ends: some live for one sweep only
_SET_ASIDE = 3  # damaged files; a disk that damages more of them would be filled with them
_WAITING = 256  # jobs; more of them means that the disk hangs

_Work = Callable[["Database"], None]


def journal_of(
    table: JournalTable,
    folder: Path,
    *,
    clock: Callable[[], datetime],
    failed: Callable[[str], None],
    recovered: Callable[[str], None] = lambda _: None,
    thorough: bool = False,
) -> "Journal | None":
    """The journal that the configuration asks for in a state directory; None where it asks for none. See ``Journal``."""
    if not table.enabled:
        return None
    return Journal(
        folder / NAME,
        keep_for=table.keep_for,
        max_megabytes=table.max_megabytes,
        clock=clock,
        failed=failed,
        recovered=recovered,
        thorough=thorough,
    )


@dataclass
class _Job:
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


@dataclass
class _Sweep:
    """What is known about a sweep before its report."""

    due: frozenset[str] | None = None
    listed_at: datetime | None = None
    decided_at: datetime | None = None
    settled: dict[str, datetime] = field(default_factory=dict)


class Journal(Quiet):
    """The record of what sweeps do: an observer of them, and their ledger. Any number of processes may share a file.

    Args:
        file: where it is; its folder is made when it is missing.
        keep_for: what is older is dropped.
        max_megabytes: what makes the file larger is dropped, the oldest first.
        clock: returns the aware time in UTC; called on the event loop only.
        failed: is told when records begin to be lost, and why. Called in the journal's thread or on the loop.
        recovered: likewise, when they are written again, and how many were lost.
        thorough: read the whole of a large file at the start to see whether it is damaged: not for those in a hurry.
        patience: how long the deletions wait for the record of what is about to go.

    Attributes:
        degraded: why records are lost now; None while all is well.
    """

    def __init__(
        self,
        file: Path,
        *,
        keep_for: timedelta,
        max_megabytes: int,
        clock: Callable[[], datetime],
        failed: Callable[[str], None],
        recovered: Callable[[str], None] = lambda _: None,
        thorough: bool = False,
        patience: timedelta = PATIENCE,
    ) -> None:
        self.degraded: str | None = None
        self._clock = clock
        self._failed = failed
        self._patience = patience.total_seconds()
        self._token = new_token()
        self._host, self._pid = os.uname().nodename, os.getpid()
        self._sweeps: dict[str, _Sweep] = {}
        self._closing = False
        self._writer = _Writer(
            self,
            file=file,
            token=self._token,
            recovered=recovered,
            keep_for=keep_for,
            size=max_megabytes * 1_000_000,
            thorough=thorough,
        )
        self._overdue: _Job | None = None
        self._unwritten: list[_Job] = []  # that would leave a gap

    def open(self) -> None:
        """Begin to open the file, so that it is open when the first record comes. Returns at once."""
        self._put(_Job(lambda _: None, self._clock()))

    def about(self, endpoint: str, due: frozenset[str] | None) -> None:
        """Tell before a sweep on whose behalf it is: these policies; None means all of them."""
        self._sweep(endpoint).due = due

    # -- the ledger ----------------------------------------------------------------------------------------------------

    async def begin(self, endpoint: str, provider: str, decisions: Sequence[Decision]) -> None:
        """See ``terms.Ledger``. What is recorded survives the death of the process; waits no longer than ``patience``."""
        begun, at = self._begun(endpoint, provider), self._clock()
        decided_at = self._sweep(endpoint).decided_at or at
        job = _Job(lambda db: db.begin(begun, decisions, decided_at), at, writes=True)
        if not self._put(job) or (self._overdue is not None and not self._overdue.done.is_set()):
            return  # it has been waited for once
        if not await _wait(job, self._patience):
            self._overdue = job
            self.degrade(f"the disk did not answer within {self._patience:g} s")

    # -- an observer of sweeps -----------------------------------------------------------------------------------------

    def listed(self, endpoint: str, held: int) -> None:  # noqa: ARG002
        """See ``terms.Observer``."""
        due = self._sweep(endpoint).due
        self._sweeps[endpoint] = _Sweep(due, self._clock())

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:
        """See ``terms.Observer``. What a dead process left pending is settled by this listing."""
        self._sweep(endpoint).decided_at = at = self._clock()
        writer, own = self._writer, self._token

        def settle(db: "Database") -> None:
            db.settle(endpoint, lambda: [decision.resource.id for decision in decisions], at, own, writer.lives)

        self._put(_Job(settle, at))

    def settled(self, endpoint: str, result: Result) -> None:
        """See ``terms.Observer``."""
        self._sweep(endpoint).settled[result.decision.resource.id] = self._clock()

    def finished(self, report: EndpointReport) -> None:
        """See ``terms.Observer``. Writes what ``begin`` could not write, too."""
        begun, at = self._begun(report.endpoint, report.provider), self._clock()
        sweep = self._sweeps.pop(report.endpoint, _Sweep())
        decided_at = sweep.decided_at or at

        def finish(db: "Database") -> None:
            db.finish(begun, report, at, decided_at, sweep.settled)

        self._put(_Job(finish, at, writes=True, lost=(1, 0 if report.cap else len(report.results))))

    async def close(self, within: timedelta = PATIENCE) -> None:
        """Write everything that is left, and let go of the file. Takes no longer than ``within``, cancelled or not."""
        if self._closing:
            return
        job = _Job(lambda _: None, self._clock(), last=True)
        started = self._writer.is_alive()
        self._closing = True
        if not started:
            return
        self._writer.jobs.put(job)
        with anyio.CancelScope(shield=True):
            if not await _wait(job, within.total_seconds()):
                self.degrade(f"the disk did not answer within {within.total_seconds():g} s; the last records are lost")
                for unwritten in self._unwritten:
                    if not unwritten.done.is_set():
                        self._writer.lose(unwritten)
                await anyio.to_thread.run_sync(self._writer.leave_gap, job.at, abandon_on_cancel=True)

    # -- between loop and thread ---------------------------------------------------------------------------------------

    def degrade(self, why: str) -> None:
        """Records are being lost. Said once for each reason in a row."""
        if self.degraded != why:
            self.degraded = why
            self._failed(why)

    def tell(self, what: str) -> None:
        """Something happened that people should know, and records are not lost any more."""
        self._failed(what)

    def _sweep(self, endpoint: str) -> _Sweep:
        return self._sweeps.setdefault(endpoint, _Sweep())

    def _begun(self, endpoint: str, provider: str) -> Begun:
        sweep = self._sweep(endpoint)
        return Begun(
            endpoint=endpoint,
            provider=provider,
            host=self._host,
            pid=self._pid,
            token=self._token,
            version=__version__,
            due=sweep.due,
            at=sweep.listed_at or self._clock(),
        )

    def _put(self, job: _Job) -> bool:
        """Hand a job to the thread; False when it cannot be done."""
        if self._closing:
            return False
        try:
            if not self._writer.is_alive():
                self._writer.start()
        except RuntimeError as error:  # no more threads, or it has ended
            self.degrade(f"it has no thread to write in: {error}")
            return False
        if self._writer.jobs.qsize() >= _WAITING:
            self._writer.lose(job)
            self.degrade("the disk does not keep up")
            return False
        if any(job.lost):
            self._unwritten = [before for before in self._unwritten if not before.done.is_set()] + [job]
        self._writer.jobs.put(job)
        return True


async def _wait(job: _Job, seconds: float) -> bool:
    """Whether it is done within real ``seconds``; the loop's own clock may be a virtual one."""
    return await anyio.to_thread.run_sync(job.done.wait, seconds, abandon_on_cancel=True)


class _Writer(threading.Thread):
    """The journal's thread. A daemon: a disk that hangs must not keep the process from ending."""

    def __init__(
        self,
        journal: Journal,
        *,
        file: Path,
        token: int,
        recovered: Callable[[str], None],
        keep_for: timedelta,
        size: int,
        thorough: bool,
    ) -> None:
        super().__init__(name="journal", daemon=True)
        self.jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
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
                job.done.set()  # nobody waits for the tidying
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

    def lose(self, job: _Job) -> None:
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
                journalgaps.leave(self._file, self._token, gap)
        except Exception as error:  # noqa: BLE001 - as above
            if self._journal.degraded is None:
                self._journal.degrade(_told(error))

    def _do(self, job: _Job) -> None:
        try:
            self._write(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, the deletions go on
            self._let_go()
            self.lose(job)
            self._journal.degrade(_told(error))

    def _write(self, job: _Job) -> None:
        from reaper import journaldb  # noqa: PLC0415

        replaced = False
        while True:
            found = journaldb.inode(self._file)
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
                if not journaldb.is_damage(error) or self._set_aside >= _SET_ASIDE:
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
        for file, gap in journalgaps.left(self._file):
            file.unlink(missing_ok=True)
            if gap is not None:
                found.append(gap)
        return found

    def _open(self, at: datetime) -> "Database":
        from reaper.journaldb import Database  # noqa: PLC0415

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
        from reaper import journaldb  # noqa: PLC0415

        self._let_go()
        self._set_aside += 1
        assert self._alive is not None
        with self._alive.alone():
            aside = journaldb.set_aside(self._file, damaged, at)
        if aside is not None:
            self._journal.tell(f"{self._file} was damaged ({error}): it is kept as {aside.name}, and a new one begins")

    def _let_go(self) -> None:
        if self._database is not None:
            try:
                self._database.close()
            except Exception as error:  # noqa: BLE001 - what could not be written has been told, or will be
                self._journal.degrade(_told(error))
            self._database = None

    def _tidy(self, job: _Job) -> None:
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
            self._journal.degrade(_told(error))


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the journal'}: {error.strerror or error}"
    return str(error) or type(error).__name__
