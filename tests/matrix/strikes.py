"""What happens to one request when a fault strikes: done on the server's side, over the real connection."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from reaper.simulator.faults import Handler, reset

if TYPE_CHECKING:
    from tests.matrix.bench import Bench

Strike = Callable[["Bench", web.Request, Handler], Awaitable[web.StreamResponse]]
"""Is given the request and what would answer it."""
Change = Callable[[Any], Any]


def simulated(line: str) -> Strike:
    """The simulator's own fault of this line."""

    async def strike(bench: "Bench", request: web.Request, handler: Handler) -> web.StreamResponse:
        bench.sim.faults.clear()
        bench.sim.faults.add(f"{line},times=1")  # the request gets there without another one in between
        return await handler(request)

    return strike


def status(code: int, message: str = "", headers: Mapping[str, Callable[[], str]] | None = None) -> Strike:
    """An error in the server's own form, whose headers are made when it strikes."""

    async def strike(bench: "Bench", request: web.Request, handler: Handler) -> web.StreamResponse:
        made = "".join(f",header={name}:{value().replace(',', chr(92) + ',')}" for name, value in (headers or {}).items())
        words = f",message={message}" if message else ""
        return await simulated(f"status:{code}{words}{made}")(bench, request, handler)

    return strike


def changed(change: Change, *, raw: Callable[[bytes], bytes] = lambda body: body) -> Strike:
    """The true answer with another body: ``change`` is given its JSON, ``raw`` what is sent."""

    async def strike(bench: "Bench", request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        if not isinstance(answer, web.Response) or not isinstance(answer.body, bytes) or not answer.body:
            return web.Response(body=raw(b'{"a": [1, 2]}'), content_type="application/json")
        answer.body = raw(json.dumps(change(json.loads(answer.body))).encode())
        return answer

    return strike


def slowly(seconds: float = 1.0) -> Strike:
    """The true answer, a byte at a time."""

    async def strike(bench: "Bench", request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        if answer.prepared:  # a stream
            return reset(request, answer)
        body = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b""
        head = f"HTTP/1.1 {answer.status} {answer.reason}\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items() if name != "Content-Length")
        transport = request.transport
        for byte in head.encode() + b"\r\n" + body:
            if transport is None or transport.is_closing():
                break
            transport.write(bytes((byte,)))
            await asyncio.sleep(seconds)
        return reset(request)

    return strike


def never_done() -> Strike:
    """What is asked for is accepted, and not done."""

    async def strike(bench: "Bench", request: web.Request, handler: Handler) -> web.StreamResponse:
        return bench.world.never_done(request)

    return strike


def fails_later() -> Strike:
    """What is asked for is accepted, and fails afterwards."""

    async def strike(bench: "Bench", request: web.Request, handler: Handler) -> web.StreamResponse:
        bench.world.fails_later(request)
        return await handler(request)

    return strike


def refused() -> Strike:
    """The server ends: this connection breaks, and no other can be made until it listens again."""

    async def strike(bench: "Bench", request: web.Request, handler: Handler) -> web.StreamResponse:
        await bench.stop_listening()
        return reset(request)

    return strike


def clock_moves(seconds: float) -> Strike:
    """The server's clock is set, before it answers."""

    async def strike(bench: "Bench", request: web.Request, handler: Handler) -> web.StreamResponse:
        bench.set_skew(seconds)
        return await handler(request)

    return strike


def lines(*events: bytes) -> Strike:
    """A stream of events that has these lines and then goes on as the true one."""

    async def strike(bench: "Bench", request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        for event in events:
            await answer.write(event)
        await asyncio.sleep(3600)
        return answer

    return strike


# Changes of the JSON of both providers.


def _rows(found: Any) -> Iterable[dict[str, Any]]:
    """The rows of a listing, or the one object."""
    if isinstance(found, dict) and isinstance(found.get("items"), list):
        return list(found["items"])
    return [row for row in (found if isinstance(found, list) else [found]) if isinstance(row, dict)]


def unknown_state(found: Any) -> Any:
    """Each state is one that no client has heard of."""
    for row in _rows(found):
        if isinstance(row.get("State"), dict):
            row["State"] |= {"Status": "hibernating", "Running": False, "Paused": False}
        elif "State" in row:
            row["State"] = "hibernating"
        elif "state" in row:
            row["state"] = "hibernating"
    return found


def without(*keys: str) -> Change:
    """Each row lacks these fields, wherever in it they stand."""

    def change(found: Any) -> Any:
        for row in _rows(found):
            for place in (row, row.get("Config")):
                for key in keys:
                    if isinstance(place, dict):
                        place.pop(key, None)
        return found

    return change


def empty(found: Any) -> Any:
    """No rows, and nothing that follows."""
    return [] if isinstance(found, list) else {**found, "items": [], "nextCursor": None}


def half(found: Any) -> Any:
    """Every second row is lost."""
    return found[::2] if isinstance(found, list) else {**found, "items": found["items"][::2]}


def cut_off(found: Any) -> Any:
    """This page claims to be the last one."""
    return {**found, "nextCursor": None}


@dataclass
class Repeated:
    """Every page is the first one that was seen, its cursor included; after ``times`` the true ones come."""

    times: int = 3
    first: dict[str, Any] | None = None
    seen: int = field(default=0)

    def __call__(self, found: Any) -> Any:
        self.first = self.first or found
        self.seen += 1
        return self.first if self.seen <= self.times else found
