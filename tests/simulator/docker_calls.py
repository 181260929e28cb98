"""Calls of the Docker Engine's API, and what two engines' answers to them have in common."""

import http.client
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from devkit.api import _UnixConnection
from devkit.client import OBEYS_TERM, EngineClient

OBEYS = {"Image": "bench:1", "Cmd": list(OBEYS_TERM)}
SLEEPS = {"Image": "bench:1", "Cmd": ["sleep", "infinity"]}
QUICK = {"Image": "bench:1", "Cmd": ["true"]}


def filters(**wanted: list[str]) -> str:
    """A query with filters; a trailing underscore stands for `!`, others for `-`."""
    return "filters=" + quote(
        json.dumps({key.replace("_not", "!").replace("_", "-"): value for key, value in wanted.items()})
    )


@dataclass(frozen=True)
class Reply:
    """An answer: status, headers (lower case) and body, parsed where it is JSON."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def message(self) -> str:
        """The error's text."""
        return str(self.body["message"])


def call(client: EngineClient, method: str, path: str, body: object = None, kind: str = "application/json") -> Reply:
    """Send one request."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    headers = {"Connection": "close"} | ({"Content-Type": kind} if data is not None else {})
    if data is None and method == "POST":
        headers["Content-Length"] = "0"
    connection: http.client.HTTPConnection = _UnixConnection(client.socket, 60)
    try:
        with suppress(BrokenPipeError):  # it may refuse before it has read all
            connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    found: Any = text
    if (answer.getheader("Content-Type") or "").startswith("application/json"):
        lines = [json.loads(line) for line in text.splitlines()]
        found = lines[0] if len(lines) == 1 else lines
    return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, found)


_ID = re.compile(r"\b[0-9a-f]{64}\b")
_SHORT = re.compile(r"\b[0-9a-f]{12}\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_ROOT = re.compile(r"/(?:tmp/reaper-[0-9a-f]+/data|var/lib/docker)\b")
_AGO = re.compile(r"Less than a second|\b\d+ seconds?\b")
_ADDRESS = re.compile(r"\b(?:172|192|10)\.\d+\.\d+\.\d+(/\d+)?\b")
_MAC = re.compile(r"\b02:42(?::[0-9a-f]{2}){4}\b")
_FREE = frozenset(  # machines differ in these
    ("BuildTime", "ContainersStopped", "Error", "GitCommit", "GoVersion", "ID", "KernelVersion", "LowerDir", "SandboxKey")
)


def text_shape(text: str) -> str:
    """A text without what is different each time."""
    if _TIME.fullmatch(text):
        return "<never>" if text.startswith("0001") else "<time>"
    for pattern, word in (
        (_ID, "<id>"),
        (_ROOT, "<root>"),
        (_AGO, "<ago>"),
        (_ADDRESS, "<address>"),
        (_MAC, "<mac>"),
        (_SHORT, "<short>"),
    ):
        text = pattern.sub(word, text)
    return text


def shape(value: Any, key: str = "") -> Any:
    """What two engines must agree on: fields, types, and the texts that are no ids, times or places."""
    if isinstance(value, dict):
        made = {text_shape(str(name)): shape(found, str(name)) for name, found in value.items()}
        return dict(sorted(made.items()))
    if isinstance(value, list):
        made_list = [shape(item, key) for item in value]
        return made_list if key in ("Names", "Cmd", "Args", "Aliases") else sorted(made_list, key=repr)
    if key in _FREE:
        return type(value).__name__
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if value in (0, -1) or key in ("ExitCode", "StatusCode") else "<number>"
    return text_shape(str(value))


def reply_shape(reply: Reply) -> Any:
    """The same for a whole answer."""
    names = {name for name in reply.headers if name not in ("content-length", "transfer-encoding", "connection", "date")}
    return {"status": reply.status, "headers": sorted(names), "body": shape(reply.body)}
