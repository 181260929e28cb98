"""Asks the service about leases, over its local socket or over HTTP. Knows no event loop."""

import http.client
import json
import os
import socket
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from reaper.leases.peers import service_url
from reaper.leases.served import LocalConnection, connection_to
from reaper.library.errors import CleanupError
from reaper.paths import LISTEN, TOKEN, header_token

ENDED = 410  # the status of an answer about a lease that its holder does not get back
SILENT_FOR = 60.0  # seconds after which a connection is given up on which there should be a sign every 15
LONGEST = 1_000_000  # bytes of an answer

_lines: "weakref.WeakSet[Line]" = weakref.WeakSet()


class LeaseRefusedError(CleanupError):
    """The service answers, and does not grant the lease: the token or the claims are not what it takes.

    Attributes:
        ended: whether the lease was ended for good, by an operator or by its age.
    """

    def __init__(self, problem: str, *, ended: bool = False) -> None:
        super().__init__(problem)
        self.ended = ended


class AwayError(Exception):
    """No answer, or not the service's."""


class Line:
    """An open connection that is a lease: the lease lasts while it is open.

    Nothing is read from it but through the socket itself: a thread that waits in a buffered file would hold that file's lock
    when the interpreter ends, or the process is forked.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.settimeout(SILENT_FOR)
        _lines.add(self)

    def until_it_ends(self) -> None:
        """Wait until it is gone, however that comes."""
        with suppress(OSError):
            while self._socket.recv(4096):
                pass

    def end(self) -> None:
        """Wake the thread that waits for its end. From any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it."""
        _lines.discard(self)
        self._socket.close()


def _forget() -> None:
    for line in list(_lines):
        line.close()  # this copy, without a word to the other end


os.register_at_fork(after_in_child=_forget)  # a child that outlives its parent must not hold the parent's leases


class Service:
    """Asks the service.

    Args:
        url: "unix:///PATH", or a URL of http or https; it is looked for when None. Raises ValueError for another one.
        token: to be sent.
    """

    def __init__(self, url: str | None, token: str | None) -> None:
        self._given = url is not None
        self._token = header_token(token)
        self._set(url if url is not None else f"http://{LISTEN}")

    def _set(self, url: str) -> None:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError(
                f"the service's URL has a user or a password, which it does not ask for; put its token into {TOKEN}"
            )
        self._socket = unquote(parts.path) if parts.scheme == "unix" and not parts.netloc else None
        if not self._socket and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError(
                f"{url!r} is no http or https URL, and no socket's; write for example 'http://{LISTEN}' or"
                " 'unix:///run/reaper/reaper.sock'"
            )
        self._parts = parts
        self._name = self._socket or parts.netloc

    @property
    def uses_connection(self) -> bool:
        """Whether the open connection is the lease."""
        return self._socket is not None

    def find(self) -> None:
        """Look for it, where no address was given: it may have begun to listen."""
        if not self._given:
            self._set(service_url())

    def ask(self, method: str, name: str) -> tuple[int, Mapping[str, Any]]:
        """Status and answer. Raises AwayError, and LeaseRefusedError for a token that is not the right one."""
        status, answer, _ = self._ask(method, name, None)
        return status, answer

    def take(self, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any], Line | None]:
        """Status and answer to a request for a lease, and the connection where it is held by that. Raises as ``ask``."""
        return self._ask("POST", "", {**body, "hold": True} if self.uses_connection else body)

    def _ask(self, method: str, name: str, body: Mapping[str, Any] | None) -> tuple[int, Mapping[str, Any], Line | None]:
        connection, hold = self._connection(), body is not None and "hold" in body
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None if body is None else json.dumps(body)
        if data is not None:
            headers |= {"Content-Type": "application/json"}
        if hold:
            headers |= {"Connection": "close"}  # the end of the answer is the end of the connection
        path = f"{'' if self._socket else self._parts.path.rstrip('/')}/leases" + (f"/{name}" if name else "")
        line = None
        try:
            connection.request(method, path, data, headers)
            ours = connection.sock if hold else None  # it is let go of as soon as the answer begins
            with connection.getresponse() as response:
                status = response.status
                if ours is not None and status in (200, 201):
                    answer = json.loads(response.readline(LONGEST))
                    line = Line(ours.dup())
                else:
                    answer = json.loads(response.read(LONGEST))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise AwayError(f"{self._name} does not answer as the service does: {error}") from None
        finally:
            connection.close()
        if isinstance(answer, dict) and status < 500 and status not in (401, 403):
            return status, answer, line
        if line is not None:
            line.close()
        if not isinstance(answer, dict) or status >= 500:
            raise AwayError(f"{self._name} answered {status}")
        raise LeaseRefusedError(str(answer.get("error", status)))

    def _connection(self) -> http.client.HTTPConnection:
        return LocalConnection(self._socket) if self._socket is not None else connection_to(self._parts.geturl())
