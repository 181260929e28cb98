"""The leases that a service knows, as it says over its local socket or at an address."""

import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from reaper.core.durations import parse_time
from reaper.core.lease import Claim, Ending, Lease, texts
from reaper.core.lease_index import Leases
from reaper.errors import LeasesUnknownError
from reaper.leases.containers import MadeContainers
from reaper.leases.history import LazyIndex
from reaper.leases.peers import Peer, is_trusted
from reaper.leases.record import THIS_PROCESS, Holder
from reaper.paths import TOKEN, URL

FRESH = 1.0  # seconds for which an answer is good, and so is the lack of one
WITHIN = 5.0  # seconds for an answer to begin, and for each part of it
STALE = WITHIN + 2 * FRESH  # seconds after which an answer is no good where the service is followed
WHOLE_WITHIN = 30.0  # seconds for all of it
LONGEST = 100_000_000  # bytes of one
SERVICE_HEADER = "Reaper-Service"
"""Names the process that answers: one that asks itself learns nothing."""
_OWN: Mapping[str, Any] = {"leases": (), "edition": "own", "seq": 0}
_PART = 1 << 16


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


def connection_to(url: str) -> http.client.HTTPConnection:
    """A connection to a service at an http or https URL; nothing is sent yet."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=WITHIN)


class ServedLeases:
    """Reads them over the service's local socket.

    What a service of another user says protects, and makes nothing garbage: any user may listen on a socket. Only this
    user's own service and root's are believed when they say that a lease has ended. Those that had ended before the first
    answer are asked for one by one.

    Args:
        path: the socket.
        state: the state directory, where what is made under its leases may be recorded.
    """

    def __init__(self, path: str, state: Path | None = None) -> None:
        self._path = path
        self._state = state
        self._edition, self._seq = "", 0
        self._index = LazyIndex(self)
        self._at = float("-inf")
        self._problem: LeasesUnknownError | None = None
        self._trusted = False

    def __call__(self) -> Leases:
        """The leases, living and ended. Blocks for milliseconds.

        Raises LeasesUnknownError when the service does not answer: its leases may be all that keeps a living run.
        """
        if time.monotonic() - self._at > FRESH:
            try:
                self.take(self.ask(self._edition, self._seq))
                self._problem = None
            except LeasesUnknownError as error:
                self._problem = error
            self._at = time.monotonic()
        if self._problem is not None:
            raise self._problem
        return self.known

    def ask(self, edition: str, seq: int) -> Mapping[str, Any]:
        """What has changed since an earlier answer, or all that is open. From any thread. Raises LeasesUnknownError."""
        found = self._ask(edition=edition, after=seq) if edition else self._ask(state="open")
        return {**found, "whole": not edition}

    def rows(self, **query: object) -> list[Mapping[str, Any]]:
        """The documents of those that a query asks for. Raises LeasesUnknownError."""
        found = self._ask(**query)
        self._leases_of(found)  # which shows that they can be read
        return list(found["leases"])

    @property
    def known(self) -> Leases:
        """What the last answer said."""
        return Leases(self._index)

    # -- how it is reached ----------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return self._path

    @property
    def _hint(self) -> str:
        return "start it again, or remove the socket when it is gone for good"

    def _connect(self) -> http.client.HTTPConnection:
        return LocalConnection(self._path)

    def _target(self) -> tuple[str, Mapping[str, str]]:
        """The path of a request, and its headers."""
        return "/leases", {}

    def _is_believed(self, connection: http.client.HTTPConnection) -> bool:
        """Whether who answers is believed when it says that a lease has ended."""
        assert connection.sock is not None
        return is_trusted(Peer.of(connection.sock).uid)

    def _ask(self, **query: object) -> Mapping[str, Any]:
        """The document of an answer. Raises LeasesUnknownError."""
        path, headers = self._target()
        end = time.monotonic() + WHOLE_WITHIN
        try:
            with closing(self._connect()) as connection:
                connection.request("GET", f"{path}?{urlencode(query)}", headers=dict(headers))
                trusted = self._is_believed(connection)
                answer = connection.getresponse()
                text = b"".join(_parts(answer, end))
        except (OSError, http.client.HTTPException) as error:
            raise LeasesUnknownError(
                f"the service behind {self._name} does not answer, so what its leases keep is unknown ({error});"
                f" {self._hint}"
            ) from error
        if answer.getheader(SERVICE_HEADER) == THIS_PROCESS.name:
            return {**_OWN, "trusted": False}
        if answer.status != 200:
            raise LeasesUnknownError(self._refusal(answer.status, _problem(text)))
        try:
            found: dict[str, Any] = {**json.loads(text), "trusted": trusted}
        except (ValueError, TypeError, RecursionError) as error:
            raise LeasesUnknownError(self._unreadable(error)) from error
        return found

    def _refusal(self, status: int, problem: str) -> str:
        del status
        return f"the service on {self._name} cannot read its leases now: {problem}"

    def _unreadable(self, error: Exception) -> str:
        return f"what the service on {self._name} says of its leases cannot be read: {error}"

    # -- what it says ---------------------------------------------------------------------------------------------------

    def take(self, found: Mapping[str, Any]) -> None:
        """Know what an answer says. Raises LeasesUnknownError for one that cannot be read."""
        leases = self._leases_of(found)
        try:
            edition, seq, keys = str(found["edition"]), int(found["seq"]), texts(found.get("label_keys", ()))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise LeasesUnknownError(self._unreadable(error)) from error
        if found["whole"] or edition != self._edition:
            self._index = LazyIndex(self)
        self._edition, self._seq, self._trusted = edition, seq, found["trusted"] is True
        self._index.changed()
        self._index.keys |= frozenset(keys if self._trusted else ())
        for lease in leases:
            if lease.ending is None or self._trusted:
                self._index.put(lease)
            else:
                self._index.drop(lease.id)

    def _leases_of(self, found: Mapping[str, Any]) -> list[Lease]:
        try:
            return [*map(_lease, found["leases"])]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise LeasesUnknownError(self._unreadable(error)) from error

    # -- those that had ended before, see ``history.History`` -----------------------------------------------------------

    def ended(self, id_: str) -> Lease | None:
        """The ended lease with this id, from a service that is believed. Raises LeasesUnknownError."""
        return next((lease for lease in self._ended(id=id_) if lease.id == id_), None)

    def with_claims(self, first: datetime, last: datetime) -> Iterable[Lease]:
        """Those that ended with claims, and lived at some moment between two times. Raises LeasesUnknownError."""
        return self._ended(**{"from": first.isoformat(), "until": last.isoformat()})

    def all_ended(self) -> Iterable[Lease]:
        """All that have ended. Raises LeasesUnknownError."""
        return self._ended()

    def _ended(self, **query: object) -> Iterator[Lease]:
        if not self._trusted:
            return
        found = self._ask(**query)
        if found["trusted"]:
            yield from (lease for lease in self._leases_of(found) if lease.ending is not None)

    def count(self) -> int:
        """How many there may be at the least, and one more for the ended ones that have not been asked for."""
        return len(tuple(self._index.known)) + self._trusted

    def containers(self, id_: str) -> Container[tuple[str, str]]:
        """See ``history.History``: this host has recorded them, whatever the service says."""
        return frozenset() if self._state is None else MadeContainers(self._state, id_)


class RemoteLeases(ServedLeases):
    """Reads them at the address of a service that may be on another host: an engine that hosts share has one that knows.

    It protects and makes nothing garbage: nothing on this host proves who answers there.

    Args:
        url: of http or https.
        token: the service's, where it requires one.
        state: the state directory.
    """

    def __init__(self, url: str, token: str | None, state: Path | None = None) -> None:
        super().__init__(url, state)
        self._token = token
        self._prefix = urlsplit(url).path.rstrip("/")

    @property
    def _name(self) -> str:
        parts = urlsplit(self._path)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def _hint(self) -> str:
        return f"start it again, or unset {URL} where no service knows the leases of these endpoints any more"

    def _connect(self) -> http.client.HTTPConnection:
        return connection_to(self._path)

    def _target(self) -> tuple[str, Mapping[str, str]]:
        return f"{self._prefix}/leases", {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _is_believed(self, _: http.client.HTTPConnection) -> bool:
        return False

    def _refusal(self, status: int, problem: str) -> str:
        if status in (401, 403):
            return (
                f"the service at {self._name} does not show its leases: {problem}; set {TOKEN} to the token of its [leases]"
            )
        if status == 503:
            return super()._refusal(status, problem)
        return f"what answers at {self._name} is no service of reaper's ({status}); set {URL} to the service's address"


class FollowedLeases:
    """The same, asked for again and again by a thread: no event loop waits for another process, which may be this one.

    Args:
        leases: how they are read.
    """

    def __init__(self, leases: ServedLeases) -> None:
        self._leases = leases
        self._answers: queue.SimpleQueue[tuple[float, Mapping[str, Any] | LeasesUnknownError]] = queue.SimpleQueue()
        self._over, self._first = threading.Event(), threading.Event()
        self._problem: LeasesUnknownError | None = LeasesUnknownError("the service has not been asked for its leases yet")
        self._at = time.monotonic()
        self._thread = threading.Thread(target=self._follow, name="follow the leases of a service", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        edition, seq = "", 0
        while True:
            asked = time.monotonic()
            try:
                found = self._leases.ask(edition, seq)
                edition, seq = str(found.get("edition", "")), found.get("seq", 0)
                self._answers.put((asked, found))
            except LeasesUnknownError as error:
                edition = ""
                self._answers.put((asked, error))
            self._first.set()
            if self._over.wait(FRESH):
                return

    def wait(self, seconds: float) -> None:
        """Wait for the first answer, but no longer than this."""
        self._first.wait(seconds)

    def __call__(self) -> Leases:
        """As ``ServedLeases``, without waiting."""
        while not self._answers.empty():
            self._at, found = self._answers.get()
            try:
                if isinstance(found, LeasesUnknownError):
                    raise found
                if self._problem is None or found["whole"]:  # else it would lack what was said before
                    self._leases.take(found)
                    self._problem = None
            except LeasesUnknownError as error:
                self._problem = error
        if self._problem is not None:
            raise self._problem
        if time.monotonic() - self._at > STALE:
            raise LeasesUnknownError(f"the service has not answered for {STALE:g} s, so what its leases keep is unknown")
        return self._leases.known

    def close(self) -> None:
        """Ask no more."""
        self._over.set()


def _parts(answer: http.client.HTTPResponse, end: float) -> Iterator[bytes]:
    """The parts of an answer. Raises TimeoutError for one that does not end in time, or never."""
    size = 0
    while part := answer.read1(_PART):
        size += len(part)
        if time.monotonic() > end or size > LONGEST:
            raise TimeoutError(f"its answer was not whole within {WHOLE_WITHIN:g} s and {LONGEST} bytes")
        yield part


def _problem(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "it does not say why"


def _lease(row: Mapping[str, Any]) -> Lease:
    holder, ending = row["holder"], None
    if (ended_at := row["ended_at"]) is not None:
        ending = Ending(parse_time(ended_at), str(row["cause"] or ""), parse_time(row["claims_until"]))
    return Lease(
        id=str(row["id"]),
        owner=str(Holder(str(holder["host"]), holder["pid"])),
        claims=tuple(map(Claim.of, row["claims"])),
        since=parse_time(row["since"]),
        ending=ending,
        endpoints=frozenset(texts(row["granted_for"])),
    )
