"""A lease that this process holds by being alive: a record in the state directory, and a lock that dies with it."""

import os
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from reaper.core.lease import Claim
from reaper.errors import LeasesUnknownError
from reaper.leases.peers import this_user
from reaper.leases.sources import NAME
from reaper.leases.store import Holder, LeaseFile, LeaseRecord, Liveness, create
from reaper.liveness import Alive, lock_file, new_token, started

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

    Raises LeasesUnknownError.
    """

    def __init__(self, state: Path, claims: Sequence[Claim], command: str, endpoints: Collection[str] = ()) -> None:
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
        )
        self._path = path
        self._put()

    def _put(self) -> None:
        file = LeaseFile(self._path)
        try:
            file.put(self.record)
        finally:
            file.close()
        self._written_at = time.monotonic()

    def keep(self) -> None:
        """Keep the lock although the state directory may have been cleared, and write a sign of life now and then.

        It shows until when this process lived if nothing is left that sees it die.
        """
        if not self._alive.is_current():
            self._alive.close()
            self._alive = self._hold()
        if time.monotonic() - self._written_at >= WRITE_EVERY:
            self.record = replace(self.record, seen_at=datetime.now(UTC))
            self._put()

    def _hold(self) -> Alive:
        try:
            return Alive(self._lock, self._token)
        except OSError as error:
            raise LeasesUnknownError(
                f"the leases in {self._lock.parent} cannot be held: {error.strerror or error}"
            ) from error
