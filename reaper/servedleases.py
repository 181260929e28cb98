"""The leases of a service on this machine, for those who do not share its state directory: other users, above all."""

import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from reaper.claims import Claim, Ending, Lease
from reaper.errors import LeasesUnknownError

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

    Args:
        path: the socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._text = b""
        self._leases: Sequence[Lease] = ()
        self._at = float("-inf")

    def __call__(self) -> Sequence[Lease]:
        """The leases, living and ended; the same object while nothing changes. Blocks for milliseconds.

        Raises LeasesUnknownError when the service does not answer: what it knows may be all that keeps a living run.
        """
        if time.monotonic() - self._at > FRESH:
            text = self._read()
            if text != self._text:
                self._leases, self._text = _parsed(self._path, text), text
            self._at = time.monotonic()
        return self._leases

    def _read(self) -> bytes:
        connection = LocalConnection(self._path)
        try:
            connection.request("GET", "/leases")
            answer = connection.getresponse()
            text = answer.read(LONGEST)
        except (OSError, http.client.HTTPException) as error:
            raise LeasesUnknownError(
                f"the service behind {self._path} does not answer, so nobody knows what its leases keep ({error});"
                " start it again, or remove the socket when it is gone for good"
            ) from error
        finally:
            connection.close()
        if answer.status != 200:
            raise LeasesUnknownError(f"the service on {self._path} cannot tell its leases now: {_problem(text)}")
        return text


def _problem(text: bytes) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "it does not say why"


def _parsed(path: str, text: bytes) -> Sequence[Lease]:
    try:
        return tuple(map(_lease, json.loads(text)["leases"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LeasesUnknownError(f"what the service on {path} says of its leases cannot be read: {error}") from error


def _lease(row: Mapping[str, Any]) -> Lease:
    holder = row["holder"]
    owner = f"pid {holder['pid']} on {holder['host']}" if holder["pid"] is not None else str(holder["host"])
    ended_at = row["ended_at"]
    ending = None if ended_at is None else Ending(datetime.fromisoformat(ended_at), row["cause"] or "")
    return Lease(
        id=str(row["id"]),
        owner=owner,
        claims=tuple(map(Claim.of, row["claims"])),
        since=datetime.fromisoformat(row["since"]),
        ending=ending,
    )
