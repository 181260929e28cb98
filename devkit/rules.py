"""What the fault proxy is told and what it tells: faults, gates, and the log's entries."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Literal, Self

Kind = Literal["reset", "reset_after", "status", "hang", "delay", "truncate", "garbage"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong, for which requests.

    Attributes:
        kind:
            `reset`: the connection is reset; the engine never sees the request.
            `reset_after`: the engine does it and answers, then the connection is reset: done, and without an answer.
            `status`: answered with `status`, `headers` and `body`; the engine never sees it.
            `hang`: no answer until the client gives up; the engine never sees it.
            `delay`: forwarded after `delay` seconds.
            `truncate`: forwarded; of the answer's body the first half arrives, then the connection ends. An answer
            without a body passes unharmed.
            `garbage`: 200 with something that is not JSON; the engine never sees it.
        method: a glob, such as `DELETE` or `*`.
        path: a regular expression, searched for in path and query; clients put `/v1.41` in front.
        times: how often it happens in all; None is always.
        skip: how many matching requests pass before the first.
        every: 2 is every second matching request, beginning with the first.
        probability: 0.0 to 1.0, drawn from a generator seeded with `seed`, so a run can be repeated.
        status: for `status`.
        body: for `status`; what is not bytes is sent as JSON.
        headers: for `status`, such as `{"Retry-After": "2"}`.
        delay: seconds to wait before doing any of these.
    """

    kind: Kind
    method: str = "*"
    path: str = ""
    times: int | None = None
    skip: int = 0
    every: int = 1
    probability: float = 1.0
    seed: int = 0
    status: int = 500
    body: Any = field(default_factory=lambda: {"message": "injected by the fault proxy"})
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass
class Call:
    """One request that arrived.

    Attributes:
        method, path: as sent; the path with its query.
        at: when it arrived, seconds of `time.monotonic`.
        status: what the client was answered; None as long as there was no answer, and for ever after a reset.
        fault: the kind of the fault that hit it; `upstream` when the engine itself did not answer.
        answered: when the answer began to go to the client, same clock; None as long as `status` is.
    """

    method: str
    path: str
    at: float
    status: int | None = None
    fault: str | None = None
    answered: float | None = None

    def answer(self, status: int) -> None:
        """For the proxy: note the answer, before the client can have it."""
        self.answered = time.monotonic()
        self.status = status


class Gate:
    """Holds one request (or more) until `release`; a context manager that releases at its end."""

    def __init__(self, method: str, path: str, times: int, after: bool) -> None:
        self._method, self._path, self._left, self.after = method, re.compile(path), times, after
        self._reached = threading.Event()
        self._open = threading.Event()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._lock = threading.Lock()

    def reached(self, deadline: float = 30.0) -> None:
        """Wait until a request stands at the gate. It blocks: from async code call it in a thread.

        Raises:
            TimeoutError: none has come within `deadline` seconds.
        """
        if not self._reached.wait(deadline):
            raise TimeoutError(f"no request came to the gate within {deadline:g} s")

    @property
    def is_reached(self) -> bool:
        """Whether a request has come to the gate."""
        return self._reached.is_set()

    def release(self) -> None:
        """Let it go on, and stop no more requests."""
        with self._lock:
            self._open.set()
            for loop, event in self._waiters:
                loop.call_soon_threadsafe(event.set)
            self._waiters = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    async def admit(self, method: str, path: str) -> None:
        """For the proxy, with every request: return at once unless it is one to be held."""
        if not fnmatchcase(method, self._method) or not self._path.search(path):
            return
        event = asyncio.Event()
        with self._lock:
            if self._left == 0 or self._open.is_set():
                return
            self._left -= 1
            self._waiters.append((asyncio.get_running_loop(), event))
        self._reached.set()
        await event.wait()


class Rule:
    """A fault and how often it has been considered and has happened; one thread at a time."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._path = re.compile(fault.path)
        self._random = random.Random(fault.seed)
        self._seen = 0
        self._fired = 0

    def fires(self, method: str, path: str) -> bool:
        """Whether this request is hit; counts it."""
        fault = self.fault
        if not fnmatchcase(method, fault.method) or not self._path.search(path):
            return False
        number = self._seen - fault.skip
        self._seen += 1
        if number < 0 or number % fault.every or (fault.times is not None and self._fired >= fault.times):
            return False
        if fault.probability < 1.0 and self._random.random() >= fault.probability:
            return False
        self._fired += 1
        return True
