"""Faults on demand: rules that make a server slow, silent, broken or wrong, and the middleware that applies them.

Example:
    faults = Faults(seed=7)
    faults.add("status:503,method=DELETE,path=/sandbox/,times=3")
    app = web.Application(middlewares=[middleware(faults, "rl-org", clock)])
"""

import asyncio
import random
import re
import socket
import struct
import threading
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from http import HTTPStatus
from typing import Literal, Self, get_args

from aiohttp import web
from aiohttp.typedefs import Middleware

from reaper.core.durations import parse as parse_duration
from reaper.simulator import EXAMPLE_FAULTS
from reaper.simulator.clock import Clock

Kind = Literal["latency", "reset", "hang", "truncate", "status", "garbage", "empty", "huge", "deep"]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Names = Callable[[web.Request], Sequence[str]]
CONTROL = "/_simulator/"
_KINDS = get_args(Kind)
_GARBAGE = b"<html><body>this is not the answer you expect</body></html>"
_PAIR = re.compile(r"((?:[^,\\]|\\.)*)(?:,|$)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    r"""A rule: which requests it meets, and what happens to them.

    Args:
        kind: `latency` waits and goes on; `reset` ends the connection (RST on TCP); `hang` never answers;
            `truncate` sends the true answer's head and half of its body; `status` answers `status`;
            `garbage` answers 200 (or `status`, if that was changed) with HTML, `empty` with nothing, `huge` with 600 MB that
            are a few hundred kB as they are sent, `deep` with JSON that is nested 100,000 times.
        endpoint: glob of the server's name (`docker`, the name of a Daytona API).
        method: glob of the verb.
        path: regular expression, searched in the path (without the query).
        resource: glob of the id or the name of the resource that is addressed; `*` also means "none".
        times: how often it strikes; None for always.
        skip: let so many matching requests pass first.
        every: then strike at each n-th of them, the first included.
        probability: and of these, at each with this chance (the rule's own random numbers, by seed).
        status: HTTP status of `status`.
        message: of the error; the status' own phrase when empty.
        headers: of the answer of `status` and `garbage`.
        seconds: simulated seconds to wait first, of any kind.
        after: let the server do what was asked before the fault strikes: the client cannot know that it was done.
    """

    kind: Kind
    endpoint: str = "*"
    method: str = "*"
    path: str = ""
    resource: str = "*"
    times: int | None = None
    skip: int = 0
    every: int = 1
    probability: float = 1.0
    status: int = 0
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    after: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"{self.kind!r} is no kind of fault; there are {', '.join(_KINDS)}")
        if self.kind == "status" and not 100 <= self.status <= 599:
            raise ValueError(f"a status fault needs a status between 100 and 599, for example status:503, not {self.status}")
        try:
            re.compile(self.path)
        except re.error as error:
            raise ValueError(f"path={self.path!r} is no regular expression: {error}") from error
        if self.every < 1 or self.skip < 0 or (self.times is not None and self.times < 0):
            raise ValueError("every must be at least 1, skip and times at least 0")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability={self.probability} does not lie between 0 and 1")
        if self.seconds < 0:
            raise ValueError(f"seconds={self.seconds} lies in the past")

    def meets(self, endpoint: str, method: str, path: str, resource: Sequence[str]) -> bool:
        """Whether this rule is about such a request; `resource` are the ids and names that it addresses."""
        return (
            fnmatchcase(endpoint, self.endpoint)
            and fnmatchcase(method, self.method.upper())
            and re.search(self.path, path) is not None
            and (self.resource == "*" or any(fnmatchcase(name, self.resource) for name in resource))
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        r"""The fault that a line such as ``status:503,method=DELETE,path=/sandbox/,times=3`` describes.

        First the kind, with `:` the status, or the seconds (as a number or as "50ms"), then the fields as ``key=value``;
        ``header=Name:value`` may be repeated; ``after`` stands alone; a comma inside a value is written ``\,``.
        Raises ValueError that says what is wrong.
        """
        first, *rest = [re.sub(r"\\(.)", r"\1", part) for part in _split(text)]
        kind, _, argument = first.strip().partition(":")
        if kind not in _KINDS:
            known = ", ".join(_KINDS)
            raise ValueError(f"fault {text!r}: {kind!r} is no kind; there are {known}; write for example {EXAMPLE_FAULTS}")
        values: dict[str, object] = {"kind": kind}
        headers: dict[str, str] = {}
        try:
            if argument:
                key = "status" if kind in {"status", *_BODIES} else "seconds"
                values[key] = _value(key, argument)
            for part in rest:
                key, equals, value = part.partition("=")
                key = key.strip()
                if key == "after" and not equals:
                    values["after"] = True
                elif key == "header":
                    name, colon, content = value.partition(":")
                    if not colon:
                        raise ValueError(f"{part!r}: a header is written header=Name:value")
                    headers[name.strip()] = content.strip()
                elif not equals:
                    raise ValueError(f"{part!r} is no key=value")
                else:
                    values[key] = _value(key, value)
            return cls(**values, headers=headers)  # type: ignore[arg-type]  # _value has seen to the types
        except ValueError as error:
            raise ValueError(f"fault {text!r}: {error}; write for example {EXAMPLE_FAULTS}") from error


def _split(text: str) -> list[str]:
    return [match[1] for match in _PAIR.finditer(text + ",")][:-1]


def _value(key: str, text: str) -> object:
    try:
        match key:
            case "endpoint" | "method" | "path" | "resource" | "message":
                return text
            case "times" | "skip" | "every" | "status":
                return int(text)
            case "probability":
                return float(text[:-1]) / 100 if text.endswith("%") else float(text)
            case "seconds":
                return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else parse_duration(text).total_seconds()
            case "after":
                return {"true": True, "false": False}[text]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{key}={text!r} cannot be read") from error
    raise ValueError(f"{key!r} is no field of a fault")


class _Rule:
    """A fault and how often it was met."""

    def __init__(self, fault: Fault, seed: str) -> None:
        self.fault = fault
        self.met = self.struck = 0
        self._random = random.Random(seed)  # noqa: S311 - reproducible on purpose

    def strikes(self) -> bool:
        """Count a request that the fault meets; whether it strikes there."""
        number, self.met = self.met - self.fault.skip, self.met + 1
        if number < 0 or number % self.fault.every or self.struck == self.fault.times:
            return False
        if self.fault.probability < 1 and self._random.random() >= self.fault.probability:
            return False
        self.struck += 1
        return True


class Faults:
    """The rules in force, for any number of servers. May be changed from any thread.

    Args:
        seed: the same seed, rules and requests strike the same.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._added = 0
        self._hanging: set[asyncio.Future[None]] = set()

    def add(self, *faults: Fault | str) -> None:
        """Add rules, as such or as text. Raises ValueError for a text that says nothing."""
        parsed = [Fault.parse(fault) if isinstance(fault, str) else fault for fault in faults]
        with self._lock:
            for fault in parsed:
                self._rules.append(_Rule(fault, f"{self._seed}/{self._added}"))
                self._added += 1

    def clear(self) -> None:
        """Forget all rules. What hangs goes on hanging."""
        with self._lock:
            self._rules = []

    def rules(self) -> list[tuple[Fault, int, int]]:
        """Each rule with the number of requests that it met, and at how many of them it struck."""
        with self._lock:
            return [(rule.fault, rule.met, rule.struck) for rule in self._rules]

    def pick(self, endpoint: str, method: str, path: str, resource: str | Sequence[str] = ()) -> list[Fault]:
        """What strikes at this request: every latency that does, and the first other fault.

        Rules behind that one do not count the request.
        """
        names = (resource,) if isinstance(resource, str) else resource
        struck: list[Fault] = []
        with self._lock:
            for rule in self._rules:
                if rule.fault.meets(endpoint, method, path, names) and rule.strikes():
                    struck.append(rule.fault)
                    if rule.fault.kind != "latency":
                        break
        return struck

    async def hang(self) -> None:
        """Return when `release` is called."""
        future = asyncio.get_running_loop().create_future()
        self._hanging.add(future)
        try:
            await future
        finally:
            self._hanging.discard(future)

    def release(self) -> None:
        """End all that hangs; for the server's loop, when it closes."""
        for future in self._hanging:
            if not future.done():
                future.set_result(None)


ErrorBody = Callable[[web.Request, int, str], web.Response]


def _plain_error(_: web.Request, status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


def _match_info(request: web.Request) -> Sequence[str]:
    return list(request.match_info.values())


def middleware(
    faults: Faults,
    endpoint: str | Callable[[web.Request], str],
    clock: Clock,
    names: Names = _match_info,
    error: ErrorBody = _plain_error,
) -> Middleware:
    """The aiohttp middleware that lets `faults` strike. Requests below `/_simulator/` are never met.

    Args:
        faults: the rules.
        endpoint: this server's name, as the rules' globs know it, or what finds it for a request.
        clock: what latency is measured by.
        names: the ids and names that a request addresses; all variable parts of its route by default.
        error: makes an error in the form that this server uses.
    """

    @web.middleware
    async def strike(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(CONTROL):
            return await handler(request)
        name = endpoint if isinstance(endpoint, str) else endpoint(request)
        struck = faults.pick(name, request.method, request.path, names(request))
        fatal = next((fault for fault in struck if fault.kind != "latency"), None)
        if wait := sum(fault.seconds for fault in struck if not fault.after):
            await clock.sleep(wait)
        answer = None
        if fatal is None or fatal.after or fatal.kind == "truncate":
            answer = await _handled(request, handler)
        if wait := sum(fault.seconds for fault in struck if fault.after):
            await clock.sleep(wait)
        if fatal is None:
            assert answer is not None
            return answer
        if fatal.kind == "hang":
            await faults.hang()
        if fatal.kind in {"reset", "hang"} or (answer is not None and answer.prepared):  # a stream can only be cut
            return reset(request, answer)
        if fatal.kind == "truncate":
            assert answer is not None
            return await truncated(request, answer)
        return _wrong(request, fatal, error)

    return strike


@cache
def _huge() -> bytes:
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)  # as gzip
    return b"".join(pack.compress(b" " * (1 << 20)) for _ in range(600)) + pack.flush()


_BODIES: Mapping[str, Callable[[], tuple[Mapping[str, str], bytes]]] = {
    "garbage": lambda: ({"Content-Type": "text/html"}, _GARBAGE),
    "empty": lambda: ({}, b""),
    "huge": lambda: ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, _huge()),
    "deep": lambda: ({"Content-Type": "application/json"}, b"[" * 100_000 + b"]" * 100_000),
}


def _wrong(request: web.Request, fault: Fault, error: ErrorBody) -> web.Response:
    """The made-up answer of `status` and `garbage`."""
    if (make := _BODIES.get(fault.kind)) is not None:
        head, body = make()
        return web.Response(status=fault.status or 200, body=body, headers={**head, **fault.headers})
    answer = error(request, fault.status, fault.message or _phrase(fault.status))
    answer.headers.update(fault.headers)
    return answer


async def _handled(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as raised:
        return raised


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Injected"


def reset(request: web.Request, answer: web.StreamResponse | None = None) -> web.StreamResponse:
    """End the connection so that the client sees a reset: RST on TCP, an end without an answer on a unix socket."""
    if request.transport is not None:
        raw = request.transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response() if answer is None else answer  # never sent: aiohttp finds the connection gone


async def truncated(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    """Send the head of `answer` as it is, the first half of its body, and the end of the connection."""
    body = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes | bytearray) else b""
    if not body or request.method == "HEAD":
        return reset(request, answer)
    cut = web.StreamResponse(status=answer.status, reason=answer.reason, headers=answer.headers)
    cut.content_length = len(body)
    await cut.prepare(request)
    await cut.write(bytes(body[: len(body) // 2]))
    if request.transport is not None:
        request.transport.close()  # flushes what was written, then ends
    return cut
