"""The leases that all who share a state directory see."""

import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reaper.core.durations import parse_time
from reaper.core.lease import Claim, Ending, Lease, texts
from reaper.core.lease_index import LeaseIndex, Leases
from reaper.errors import LeasesUnknownError
from reaper.leases.peers import Peer, is_trusted, listener
from reaper.liveness import lives, lock_file
from reaper.paths import is_there

if TYPE_CHECKING:
    from reaper.leases.store import LeaseFile

NAME = "leases.db"
KILLED = "killed"


class SharedLeases:
    """Reads them, however often: what has not changed is not read again.

    A process that holds a lease may die while no service watches. The kernel shows that, and then the lease has ended.

    Args:
        folder: the state directory. Until the first lease is taken nothing is made there, and nothing imported.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file: LeaseFile | None = None
        self._dead: dict[str, Ending] = {}

    def __call__(self) -> Leases:
        """The leases, living and ended. Blocks for milliseconds. Raises LeasesUnknownError."""
        if self._file is None:
            if not is_there(str(self._path)):
                return Leases()
            from reaper.leases.store import LeaseFile  # noqa: PLC0415 - a database, where most have none

            self._file = LeaseFile(self._path)
        lock = lock_file(self._path)
        dead: dict[str, Ending] = {}
        for record in self._file.open():
            if record.token is not None and record.is_orphan(lives(lock, record.token)):
                dead[record.id] = self._dead.get(record.id) or record.killed(datetime.now(UTC), KILLED)
        self._dead = dead
        return self._file.leases(dead)

    @property
    def made_elsewhere(self) -> Mapping[str, frozenset[tuple[str, str]]]:
        """What runs of this state directory were seen to make under leases that a service elsewhere keeps."""
        return {} if self._file is None else self._file.made_elsewhere()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


class KnownLeases:
    """Those of a state directory, and those of the services on this machine that keep theirs elsewhere.

    Args:
        folder: the state directory.
        sockets: where such services listen, if they do.

    Attributes:
        own: reads those of the state directory alone.
    """

    def __init__(self, folder: Path, sockets: Sequence[str]) -> None:
        self.own = SharedLeases(folder)
        self._path = folder / NAME
        self._sockets = sockets
        self._served: Sequence[ServedLeases] | None = None

    def __call__(self) -> Leases:
        """The leases, living and ended. Blocks for milliseconds. Raises LeasesUnknownError."""
        if self._served is None:
            self._served = self._services()
        shared, served = self.own(), [read() for read in self._served]
        for id_, made in self.own.made_elsewhere.items() if served else ():
            for index in chain.from_iterable(leases.parts for leases in served):
                if (lease := index.get(id_)) is not None and lease.made is not made:
                    index.put(replace(lease, made=made))
        return Leases.of([shared, *served])

    def _services(self) -> "Sequence[ServedLeases]":
        there = [path for path in self._sockets if is_there(path)]
        # A socket without a service behind it, where the leases can be read from the disk: that is where it kept them.
        return [ServedLeases(path) for path in there if listener(path) is not None or not is_there(str(self._path))]

    def close(self) -> None:
        """Let go of the file."""
        self.own.close()


FRESH = 1.0  # seconds for which an answer is good
WITHIN = 5.0  # seconds for an answer
LONGEST = 100_000_000  # bytes of one


class LocalConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=WITHIN)
        self._path = path

    def connect(self) -> None:
        """See ``http.client``."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class ServedLeases:
    """Reads them over the service's local socket.

    What a service of another user says protects, and makes nothing garbage: any user may listen on a socket. Only this
    user's own service and root's are believed when they say that a lease has ended.

    Args:
        path: the socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._edition, self._seq = "", 0
        self._index = LeaseIndex()
        self._at = float("-inf")

    def __call__(self) -> Leases:
        """The leases, living and ended. Blocks for milliseconds.

        Raises LeasesUnknownError when the service does not answer: its leases may be all that keeps a living run.
        """
        if time.monotonic() - self._at > FRESH:
            text, trusted = self._read()
            self._take(text, trusted=trusted)
            self._at = time.monotonic()
        return Leases(self._index)

    def _read(self) -> tuple[bytes, bool]:
        """What has changed since the last time, and whether the service is believed."""
        connection = LocalConnection(self._path)
        try:
            connection.request("GET", f"/leases?edition={self._edition}&after={self._seq}")
            trusted = is_trusted(Peer.of(connection.sock).uid)
            answer = connection.getresponse()
            text = answer.read(LONGEST)
        except (OSError, http.client.HTTPException) as error:
            raise LeasesUnknownError(
                f"the service behind {self._path} does not answer, so what its leases keep is unknown ({error});"
                " start it again, or remove the socket when it is gone for good"
            ) from error
        finally:
            connection.close()
        if answer.status != 200:
            raise LeasesUnknownError(f"the service on {self._path} cannot read its leases now: {_problem(text)}")
        return text, trusted

    def _take(self, text: bytes, *, trusted: bool) -> None:
        try:
            found = json.loads(text)
            leases = [*map(_lease, found["leases"])]
            edition, seq = str(found["edition"]), int(found["seq"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise LeasesUnknownError(
                f"what the service on {self._path} says of its leases cannot be read: {error}"
            ) from error
        if edition != self._edition:
            self._index = LeaseIndex()
        self._edition, self._seq = edition, seq
        for lease in leases:
            if lease.ending is None or trusted:
                self._index.put(lease)
            else:
                self._index.drop(lease.id)


def _problem(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "it does not say why"


def _lease(row: Mapping[str, Any]) -> Lease:
    holder = row["holder"]
    owner = f"pid {holder['pid']} on {holder['host']}" if holder["pid"] is not None else str(holder["host"])
    ending = None
    if (ended_at := row["ended_at"]) is not None:
        ending = Ending(parse_time(ended_at), str(row["cause"] or ""), parse_time(row["claims_until"]))
    return Lease(
        id=str(row["id"]),
        owner=owner,
        claims=tuple(map(Claim.of, row["claims"])),
        since=parse_time(row["since"]),
        ending=ending,
        endpoints=frozenset(texts(row["granted_for"])),
    )
