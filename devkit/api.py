"""The smallest HTTP client that talks to an engine's unix socket: `http.client`, no SDK, no CLI."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import suppress
from typing import Any, NamedTuple


class EngineError(Exception):
    """The engine could not be started, or it refused a request; the text says which and why."""


class Answer(NamedTuple):
    """What the engine answered: the HTTP status and the parsed JSON, or the text where it is not JSON."""

    status: int
    body: Any


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """Plain requests to one engine.

    Every request opens a connection of its own: over a unix socket that costs some 50 us, makes the class safe
    to share between threads, and leaves no half-dead connection behind when the engine is killed.

    Args:
        socket_path: the engine's unix socket.
        timeout: seconds that one request may take in all reads; the default outlasts a slow stop.
    """

    def __init__(self, socket_path: str, timeout: float = 120.0) -> None:
        self.socket_path = socket_path
        self.timeout = timeout

    def request(self, method: str, path: str, body: object = None, timeout: float | None = None) -> Answer:
        """Send one request; `body` goes as it is when it is bytes (a tar archive), else as JSON.

        Raises:
            OSError, http.client.HTTPException: no process listens, the connection broke, or the time was up.
        """
        headers = {"Connection": "close"}
        data: bytes | None = None
        if isinstance(body, bytes):
            data, headers["Content-Type"] = body, "application/x-tar"
        elif body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        elif method == "POST":
            headers["Content-Length"] = "0"
        connection = _UnixConnection(self.socket_path, self.timeout if timeout is None else timeout)
        try:
            with suppress(BrokenPipeError):  # an engine that redirects may close before it has read the body
                connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        finally:
            connection.close()
        if not (response.headers.get("Content-Type") or "").startswith("application/json"):
            return Answer(response.status, text)
        try:
            return Answer(response.status, json.loads(text))
        except json.JSONDecodeError:  # a progress stream: several JSON documents, one a line
            return Answer(response.status, text)

    def get(self, path: str) -> Answer:
        """GET `path`; any status is an answer. Raises as `request` does."""
        return self.request("GET", path)

    def post(self, path: str, body: object = None) -> Answer:
        """POST to `path`; any status is an answer. Raises as `request` does."""
        return self.request("POST", path, body)

    def delete(self, path: str) -> Answer:
        """DELETE `path`; any status is an answer. Raises as `request` does."""
        return self.request("DELETE", path)

    def must(self, method: str, path: str, body: object = None) -> Any:
        """Send one request that has to succeed, and return its body.

        Raises:
            EngineError: the status is 400 or above; the text carries the engine's own message.
        """
        status, answer = self.request(method, path, body)
        if status >= 400:
            message = answer.get("message", answer) if isinstance(answer, dict) else answer
            raise EngineError(f"{method} {path}: {status} {message}".strip())
        return answer
