"""A lease that this process holds by being alive: a record in the state directory, and a lock that dies with it."""

import os
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reaper.core.durations import human
from reaper.core.lease import Claim
from reaper.errors import LeasesUnknownError
from reaper.leases.database import create
from reaper.leases.peers import this_user
from reaper.leases.record import MAX_AGE, MAX_AGE_CAUSE, Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.sources import NAME
from reaper.leases.store import REMEMBER, LeaseFile
from reaper.liveness import Alive, lock_file, new_token, started
from reaper.paths import is_there

WRITE_EVERY = 30.0  # seconds


def this_process(command: str) -> Holder:
    """This process as the holder of a lease.

    Args:
        command: what it runs, without arguments that could hold a secret.
    """
    pid = os.getpid()
    return Holder(os.uname().nodename, pid, started(pid), command[:1024], this_user()[:256])


class OwnLease:
    """A lease of this process. It is on the disk as soon as this is made.

    Args:
        state: the state directory; it is made.
        claims: what it covers besides what carries its label.
        command: for whom, without arguments.
        endpoints: the ids of the endpoints on which it claims something.
        max_age: how old it may become; None for as old as this process does.

    Raises LeasesUnknownError.
    """

    def __init__(
        self,
        state: Path,
        claims: Sequence[Claim],
        command: str,
        endpoints: Collection[str] = (),
        max_age: timedelta | None = None,
    ) -> None:
        path = state / NAME
        self._token = new_token()
        create(path)
        self._lock = lock_file(path)
        self._alive = self._hold()
        now = datetime.now(UTC)
        self.record = LeaseRecord(
            id=secrets.token_hex(8),
            sort=Liveness.PROCESS,
            holder=this_process(command),
            since=now,
            seen_at=now,
            claims=tuple(claims),
            token=self._token,
            endpoints=frozenset(endpoints),
            max_age=max_age,
            uptime=time.monotonic(),
        )
        self._path = path
        file = LeaseFile(path)
        try:
            file.put(self.record, anew=True)
            file.forget(now - REMEMBER)  # there may never be a service that does
        finally:
            file.close()
        self._written_at = time.monotonic()

    def _put(self) -> None:
        """Write it, unless it has ended: then that is the record."""
        file = LeaseFile(self._path)
        try:
            written = file.find(self.record.id)
            if written is None or not written.state.ended:
                file.put(self.record)
                written = file.find(self.record.id)
        finally:
            file.close()
        if written is not None and written.state.ended:
            self.record = written
        self._written_at = time.monotonic()

    def keep(self) -> None:
        """Keep lock and record although the state directory may have been cleared, and write a sign of life now and then.

        It shows until when this process lived if nothing is left that sees it die. When it has become too old it ends; when
        it has been ended, ``record`` says so.
        """
        if self.record.state.ended:
            return
        if is_gone := not is_there(str(self._path)):
            create(self._path)
        if not self._alive.is_current():
            self._alive.close()
            self._alive = self._hold()
        now = datetime.now(UTC)
        if self.record.is_too_old(time.monotonic(), now):
            cause = MAX_AGE_CAUSE.format(human(self.record.max_age or timedelta(0)))
            ended = {"state": LeaseState.EXPIRED, "ended_at": now, "cause": cause, "ended_by": MAX_AGE}
            self.record = replace(self.record, seen_at=now, **ended)  # type: ignore[arg-type]  # the fields of a record
            self._put()
        elif is_gone or time.monotonic() - self._written_at >= WRITE_EVERY:
            self.record = replace(self.record, seen_at=now)
            self._put()

    def _hold(self) -> Alive:
        try:
            return Alive(self._lock, self._token)
        except OSError as error:
            raise LeasesUnknownError(
                f"the leases in {self._lock.parent} cannot be held: {error.strerror or error}"
            ) from error
