"""What was deleted, when and why: a database in the state directory, written by a thread of its own.

The journal serves the deletions and never the other way round. What is about to be deleted is on record first, so that a
killed process leaves the truth; but a disk that is full, slow or broken costs records, which are counted, and nothing else.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from reaper import __version__
from reaper.core.model import Decision, EndpointReport, Result
from reaper.liveness import new_token
from reaper.observers.journal_rows import Begun, acts
from reaper.observers.journal_writer import WAITING, Job, Writer
from reaper.sweep.ports import Observer

if TYPE_CHECKING:
    from reaper.observers.journal_db import Database

NAME = "journal.db"
PATIENCE = timedelta(seconds=5)


@dataclass
class _Sweep:
    """What is known about a sweep before its report."""

    due: frozenset[str] | None = None
    listed_at: datetime | None = None
    decided_at: datetime | None = None
    settled: dict[str, datetime] = field(default_factory=dict)


class Journal(Observer):
    """The record of what sweeps do: an observer of them, and their ledger. Any number of processes may share a file.

    Args:
        file: where it is; its folder is made when it is missing.
        keep_for: what is older is dropped.
        max_megabytes: what makes the file larger is dropped, the oldest first.
        clock: returns the aware time in UTC; called on the event loop only.
        failed: is called when records begin to be lost, with why. Called in the journal's thread or on the loop.
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
        self._writer = Writer(
            self,
            file=file,
            token=self._token,
            recovered=recovered,
            keep_for=keep_for,
            size=max_megabytes * 1_000_000,
            thorough=thorough,
        )
        self._overdue: Job | None = None
        self._unwritten: list[Job] = []  # that would leave a gap

    def open(self) -> None:
        """Begin to open the file, so that it is open when the first record comes. Returns at once."""
        self._put(Job(lambda _: None, self._clock()))

    def about(self, endpoint: str, due: frozenset[str] | None) -> None:
        """Tell before a sweep on whose behalf it is: these policies; None means all of them."""
        self._sweep(endpoint).due = due

    # -- the ledger ----------------------------------------------------------------------------------------------------

    async def begin(self, endpoint: str, provider: str, decisions: Sequence[Decision]) -> None:
        """See ``ports.Ledger``. What is recorded survives the death of the process; waits no longer than ``patience``."""
        begun, at = self._begun(endpoint, provider), self._clock()
        decided_at = self._sweep(endpoint).decided_at or at
        job = Job(lambda db: db.begin(begun, decisions, decided_at), at, writes=True)
        if not self._put(job) or (self._overdue is not None and not self._overdue.done.is_set()):
            return  # it has been waited for once
        if not await _wait(job, self._patience):
            self._overdue = job
            self.degrade(f"the disk did not answer within {self._patience:g} s")

    # -- an observer of sweeps -----------------------------------------------------------------------------------------

    def listed(self, endpoint: str, held: int) -> None:  # noqa: ARG002
        """See ``ports.Observer``."""
        due = self._sweep(endpoint).due
        self._sweeps[endpoint] = _Sweep(due, self._clock())

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:
        """See ``ports.Observer``. What a dead process left pending is settled by this listing."""
        self._sweep(endpoint).decided_at = at = self._clock()
        writer, own = self._writer, self._token

        def settle(db: "Database") -> None:
            db.settle(endpoint, lambda: [decision.resource.id for decision in decisions], at, own, writer.lives)

        self._put(Job(settle, at))

    def settled(self, endpoint: str, result: Result) -> None:
        """See ``ports.Observer``."""
        self._sweep(endpoint).settled[result.decision.resource.id] = self._clock()

    def finished(self, report: EndpointReport) -> None:
        """See ``ports.Observer``. Writes what ``begin`` could not write, too."""
        begun, at = self._begun(report.endpoint, report.provider), self._clock()
        sweep = self._sweeps.pop(report.endpoint, _Sweep())
        decided_at = sweep.decided_at or at

        def finish(db: "Database") -> None:
            db.finish(begun, report, at, decided_at, sweep.settled)

        self._put(Job(finish, at, writes=True, lost=(1, len(acts(report)))))

    async def close(self, within: timedelta = PATIENCE) -> None:
        """Write everything that is left, and let go of the file. Takes no longer than ``within``, cancelled or not."""
        if self._closing:
            return
        job = Job(lambda _: None, self._clock(), last=True)
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
                with suppress(RuntimeError):
                    await anyio.to_thread.run_sync(self._writer.leave_gap, job.at, abandon_on_cancel=True)

    # -- between loop and thread ---------------------------------------------------------------------------------------

    def degrade(self, why: str) -> None:
        """Records are being lost. Said once for each reason in a row."""
        if self.degraded != why:
            self.degraded = why
            self._failed(why)

    def warn(self, what: str) -> None:
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

    def _put(self, job: Job) -> bool:
        """Hand a job to the thread; False when it cannot be done."""
        if self._closing:
            return False
        try:
            if not self._writer.is_alive():
                self._writer.start()
        except RuntimeError as error:  # no more threads, or it has ended
            self.degrade(f"it has no thread to write in: {error}")
            return False
        if self._writer.jobs.qsize() >= WAITING:
            self._writer.lose(job)
            self.degrade("the disk does not keep up")
            return False
        if any(job.lost):
            self._unwritten = [before for before in self._unwritten if not before.done.is_set()] + [job]
        self._writer.jobs.put(job)
        return True


async def _wait(job: Job, seconds: float) -> bool:
    """Whether it is done within real ``seconds``; the loop's own clock may be a virtual one."""
    try:
        return await anyio.to_thread.run_sync(job.done.wait, seconds, abandon_on_cancel=True)
    except RuntimeError:  # no thread can be started
        return job.done.wait(seconds)
