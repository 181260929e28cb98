"""Watches those who hold leases: takes their leases down, hears of them, and says when one of them is dead.

Only what is known ends a lease: a process is dead when the kernel has let go of its lock, a connection when it has been
closed for its window, a heartbeat when it has been missed for its own. All windows are on the loop's clock: setting the wall
clock ends nothing, nor does a time in which this process itself stood still.
"""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import anyio

from reaper import host
from reaper.core.durations import human
from reaper.core.lease import Claim
from reaper.errors import LeasesUnknownError
from reaper.leases.database import create
from reaper.leases.held import Held, LeaseListener, Looks
from reaper.leases.record import HEARTBEAT_DUE, MAX_AGE, MAX_AGE_CAUSE, Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.sources import KILLED
from reaper.leases.store import REMEMBER, LeaseFile

HEARTBEAT_WINDOW = timedelta(minutes=5)  # for which one that missed it is waited for
CONNECTION_WINDOW = timedelta(seconds=10)
RESTART_WINDOW = timedelta(minutes=1)  # at least, for holders whose connection broke since this program ended
ROUND = 1.0  # seconds between two looks at the holders
WRITE_EVERY = timedelta(minutes=1)  # how exact the file is about when a holder was last seen
TRIM_EVERY = timedelta(hours=1)  # what ended too long ago goes from the file


class LeaseBook:
    """The leases whose holders this process watches.

    Args:
        file: where they are kept.
        clock: returns the aware time in UTC.
        listener: is notified of every change.
        token: this process's own (see ``liveness``): by it others see whether the leases are watched.
        lives: whether the process with a token is alive; None where that is unknown.
        endpoints: gives the ids of the endpoints that leases are granted for.
        connection: how long one is waited for whose connection is gone.
        max_age: how old any of them may become; None for as old as its own bound allows.
    """

    def __init__(
        self,
        file: LeaseFile,
        clock: Callable[[], datetime],
        listener: LeaseListener,
        *,
        token: int,
        lives: Callable[[int], bool | None],
        endpoints: Callable[[], Collection[str]] = tuple,
        connection: timedelta = CONNECTION_WINDOW,
        max_age: timedelta | None = None,
    ) -> None:
        self._file = file
        self._clock = clock
        self._listener = listener
        self._token, self._lives = token, lives
        self._endpoints = endpoints
        self._written_at = self._trimmed_at = float("-inf")  # on the loop's clock
        self._alive_at: dict[str, datetime] = {}  # processes that hold leases: when they were last seen
        self._looks = Looks(clock)
        self._windows = {Liveness.HEARTBEAT: HEARTBEAT_WINDOW, Liveness.CONNECTION: connection}
        self._held: dict[str, Held] = {}
        self._max_age = max_age

    # -- what holders say ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take over what an earlier process watched: every holder gets a whole window to be heard of again.

        Raises LeasesUnknownError.
        """
        create(self._file.file)
        self._file.forget(self._clock() - REMEMBER)
        for record in self._file.open():
            if record.sort is not Liveness.PROCESS:
                self._adopt(record)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def take(
        self,
        sort: Liveness,
        holder: Holder,
        claims: Sequence[Claim] = (),
        *,
        name: str | None = None,
        token: int | None = None,
        since: datetime | None = None,
        max_age: timedelta | None = None,
    ) -> LeaseRecord:
        """A new lease. It is on the disk when this returns. Raises LeasesUnknownError: then there is none.

        Args:
            sort: by what its holder is known to be alive.
            holder: who that is.
            claims: what it covers besides what carries its label.
            name: its id; made up when None.
            token: of a process, see ``LeaseRecord``.
            since: from when on it covers what its holder makes; from now on when None.
            max_age: how old it may become; as old as any when None.
        """
        now = self._clock()
        record = LeaseRecord(
            id=name or secrets.token_hex(8),
            sort=sort,
            holder=holder,
            since=since or now,
            seen_at=now,
            claims=tuple(claims),
            token=token if sort is Liveness.PROCESS else self._token,
            endpoints=frozenset(self._endpoints()),
            max_age=max_age,
            uptime=anyio.current_time(),  # asyncio's clock is that of the machine's uptime
        )
        self._file.put(record, anew=True)
        if sort is not Liveness.PROCESS:
            self._held[record.id] = Held(record, self._in(HEARTBEAT_DUE) if sort is Liveness.HEARTBEAT else None, now)
        self._listener.changed(record)
        return record

    def heard(self, id_: str) -> LeaseRecord | None:
        """The holder is there. None when there is no such lease here, or it has ended: then it covers nothing any more.

        Raises LeasesUnknownError.
        """
        if self.find(id_) is None:
            return None
        held = self._held[id_]
        held.due = self._in(HEARTBEAT_DUE) if held.record.sort is Liveness.HEARTBEAT else None
        now, record = self._looks.proven_at(), held.record
        held.heard_at = now
        if record.state is not LeaseState.LIVE or not record.seen_at <= now < record.seen_at + WRITE_EVERY:
            self._write(held, state=LeaseState.LIVE, seen_at=now)
        return held.record

    def lost(self, id_: str, silent_for: timedelta = timedelta(0)) -> None:
        """The holder's connection is gone; it may come back within the window. Raises LeasesUnknownError.

        Args:
            id_: the lease.
            silent_for: how long ago the holder's machine was last heard of, where the connection was not closed by it.
        """
        held = self._held.get(id_)
        if held is not None and (held.due is None or held.record.state is LeaseState.LIVE):
            held.due, held.heard_at = self._in(self._windows[held.record.sort]), self._looks.proven_at()
            held.heard_at -= silent_for
            self._write(held, state=LeaseState.RECONNECTING, seen_at=held.heard_at)

    def over(self, id_: str, over_for: timedelta) -> LeaseRecord | None:
        """That for which the lease was taken has ended, so long ago: its claims take nothing made later, however it ends.

        None when there is no such lease here. Raises LeasesUnknownError.
        """
        if (record := self.find(id_)) is not None:
            self._held[id_].over_at = max(self._clock() - over_for, record.since)
        return record

    def release(self, id_: str, cause: str = "released", over_for: timedelta = timedelta(0)) -> LeaseRecord | None:
        """The holder gives its lease back: what it still covers is garbage. None when there is no such lease here.

        Args:
            id_: the lease.
            cause: why, for people.
            over_for: how long ago that ended for which it was taken.

        Raises LeasesUnknownError.
        """
        if (record := self.find(id_)) is None:
            return None
        now = self._clock()
        return self._end(self._held[id_], LeaseState.RELEASED, cause, max(now - over_for, min(record.since, now)))

    def end(self, id_: str, by: str, cause: str) -> LeaseRecord | None:
        """End a lease whose holder may live: an operator says so. None when no such lease is open.

        Raises LeasesUnknownError.

        Args:
            id_: the lease, of any holder.
            by: who says so, for people.
            cause: why, for people.
        """
        if (held := self._anyone(id_)) is None:
            return None
        return self._end(held, LeaseState.EXPIRED, cause, by=by)

    def _anyone(self, id_: str) -> Held | None:
        """An open lease of this file, also one whose holder another process watches, with the last sign of life."""
        if self.find(id_) is not None:
            held = self._held[id_]
            if held.due is None:
                held.heard_at = self._looks.proven_at()
            return held
        record = self._file.find(id_)
        if record is None or record.state.ended:
            return None
        return Held(record, None, max(self._alive_at.get(id_, record.seen_at), record.seen_at))

    def abandon(self, id_: str, cause: str) -> None:
        """End a lease at the last sign of life of its holder, who cannot come back. Raises LeasesUnknownError."""
        if (held := self._held.get(id_)) is not None:
            self._end(held, LeaseState.EXPIRED, cause)

    def open_records(self) -> Sequence[LeaseRecord]:
        """Those that have not ended. Raises LeasesUnknownError."""
        return self._file.open()

    def page(self, after: int, edition: str) -> tuple[int, str, Sequence[LeaseRecord]]:
        """Some of the leases that have changed since an earlier page: where this one ends, of which file it is, and they.

        Raises LeasesUnknownError.
        """
        self._file.open()  # the file that is there now
        seq, records = self._file.page(after if edition == self._file.edition else 0)
        return seq, self._file.edition, records

    def with_claims(self, first: datetime, last: datetime) -> Sequence[LeaseRecord]:
        """Those that ended with claims, and lived at some moment between two times. Raises LeasesUnknownError."""
        return self._file.records_with_claims(first, last)

    @property
    def label_keys(self) -> Collection[str]:
        """The labels that claims know their own by, of leases that have ended, too. Raises LeasesUnknownError."""
        return self._file.leases().label_keys

    def position(self) -> tuple[int, str]:
        """Where the last page would end now, and of which file it is. Raises LeasesUnknownError."""
        return self._file.position, self._file.edition

    def states(self) -> Mapping[LeaseState, int]:
        """How many leases there are in each state. Raises LeasesUnknownError."""
        return self._file.states()

    def known(self, id_: str) -> LeaseRecord | None:
        """The lease with this id, ended or not, in whatever service watches it. Raises LeasesUnknownError."""
        return self._file.find(id_)

    @property
    def watched(self) -> Sequence[LeaseRecord]:
        """The open leases that are watched here."""
        return tuple(held.record for held in self._held.values())

    def find(self, id_: str) -> LeaseRecord | None:
        """An open lease that is watched here, or from now on: its watcher may have died a moment ago.

        Raises LeasesUnknownError.
        """
        if id_ not in self._held:
            record = self._file.find(id_)
            if record is not None and not record.state.ended and record.sort is not Liveness.PROCESS:
                self._adopt(record)
        return self._held[id_].record if id_ in self._held else None

    def watches(self, id_: str) -> bool:
        """Whether it is an open lease that is watched here."""
        return id_ in self._held

    # -- watching ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at the holders again and again."""
        self._looks.looked(anyio.current_time())
        while True:
            await anyio.sleep(ROUND)
            now = anyio.current_time()
            if self._looks.have_stalled():
                self._begin_anew()
            try:
                self._look(now)
            except LeasesUnknownError as error:
                self._listener.failed(error)
            self._looks.looked(now)

    def _begin_anew(self) -> None:
        """No heartbeat could arrive for a while: all that are waited for get their whole window once more."""
        for held in self._held.values():
            if held.due is not None:
                live = held.record.state is LeaseState.LIVE
                held.due = self._in(HEARTBEAT_DUE if live else self._windows[held.record.sort])

    def _look(self, now: float) -> None:
        self._file.restore()
        for held in tuple(self._held.values()):
            if held.due is not None and held.due <= now:
                self._miss(held)
        if now - self._written_at >= WRITE_EVERY.total_seconds():
            self._written_at = now
            self._write_signs_of_life()
        if now - self._trimmed_at >= TRIM_EVERY.total_seconds():
            self._trimmed_at = now
            self._file.forget(self._clock() - REMEMBER)
        seen = self._clock()
        alive_at, self._alive_at = self._alive_at, {}
        opened = self._file.open()
        self._drop_ended({record.id for record in opened})
        for record in opened:  # others may have taken out leases of processes: the kernel shows their end, too
            if record.is_too_old(now, seen, self._max_age) and (old := self._anyone(record.id)) is not None:
                bound = min(bound for bound in (record.max_age, self._max_age) if bound is not None)
                self._end(old, LeaseState.EXPIRED, MAX_AGE_CAUSE.format(human(bound)), by=MAX_AGE)
            elif record.sort is not Liveness.PROCESS:
                self._adopt(record)
            elif record.is_orphan(lives := None if record.token is None else self._lives(record.token)):
                last = max(alive_at.get(record.id, record.seen_at), record.seen_at)
                self._end(Held(record, None, last), LeaseState.EXPIRED, KILLED)
            elif lives:
                self._alive_at[record.id] = seen

    def _drop_ended(self, opened: Collection[str]) -> None:
        """Watch no lease any longer that another process has ended."""
        for id_ in self._held.keys() - opened:
            record = self._file.find(id_)
            if record is None:  # it is another file, in the place of the one that had it
                self._file.put(self._held[id_].record)
            elif record.state.ended:
                del self._held[id_]
                self._listener.changed(record)

    def _write_signs_of_life(self) -> None:
        """Of those whose connection is open: if this process is killed, the file shows until when they surely lived."""
        now, fresh = self._looks.proven_at(), []
        for held in self._held.values():
            if held.due is None:
                held.heard_at = now
                if self._file.find(held.record.id) != held.record:
                    continue  # another process has taken it over: what is written here would undo that
                held.record = replace(held.record, seen_at=now)
                fresh.append(held.record)
        if fresh:
            self._file.put(*fresh)

    def _adopt(self, record: LeaseRecord) -> None:
        """Watch this open lease's holder from now on, if no service does. It gets a whole window to be heard of again."""
        if record.id not in self._held and not self._has_watcher(record):
            window = max(self._windows[record.sort], RESTART_WINDOW)
            held = self._held[record.id] = Held(record, self._in(window), record.seen_at)
            of_this_process = {"token": self._token, "machine": host.machine_id(), "boot": host.boot_id()}
            uptime = anyio.current_time() - record.age(anyio.current_time()).total_seconds()
            self._write(held, state=LeaseState.RECONNECTING, uptime=uptime, **of_this_process)

    def _miss(self, held: Held) -> None:
        """Its holder has not been heard of in time."""
        if self._has_watcher(self._file.find(held.record.id) or held.record):  # two may have taken over from a dead one
            del self._held[held.record.id]
            return
        sort = held.record.sort
        window = self._windows[sort]
        if held.record.state is LeaseState.LIVE or held.record.holder.is_stopped:  # then it lives, and cannot say so
            held.due = self._in(window)
            self._write(held, state=LeaseState.RECONNECTING, seen_at=held.heard_at)
            return
        what = "no heartbeat" if sort is Liveness.HEARTBEAT else "its connection was gone"
        self._end(held, LeaseState.EXPIRED, f"{what} for {window.total_seconds():g} s")

    def _end(self, held: Held, state: LeaseState, cause: str, at: datetime | None = None, by: str = "") -> LeaseRecord:
        ended_at = at or self._clock()
        self._write(held, state=state, seen_at=held.lived_until, ended_at=ended_at, cause=cause, ended_by=by)
        self._held.pop(held.record.id, None)
        return held.record

    def _write(self, held: Held, **changes: object) -> None:
        """Change a lease, on the disk first: what is not there is not in force."""
        record = replace(held.record, **changes)  # type: ignore[arg-type]  # the fields of a record
        self._file.put(record)
        is_change = record.state is not held.record.state
        held.record = record
        if is_change:
            self._listener.changed(record)

    def _has_watcher(self, record: LeaseRecord) -> bool:
        """Whether another process watches its holder, or might."""
        if record.token is None or record.token == self._token:
            return False
        return not record.is_dead(self._lives(record.token))

    def _in(self, span: timedelta) -> float:
        return anyio.current_time() + span.total_seconds()
