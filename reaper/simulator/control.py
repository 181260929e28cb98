"""The requests that a simulated server has met, and what another process may look at:

GET    /_simulator/state                what the server holds, in short
GET    /_simulator/requests             the numbers of requests, by route and status
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.typedefs import Middleware

from reaper.simulator.clock import Clock
from reaper.simulator.faults import CONTROL, Handler

_REMEMBERED = 100_000


class Call(NamedTuple):
    """One request: when (simulated seconds since the start), what, and with which status it was answered."""

    at: float
    method: str
    route: str
    path: str
    status: int


class Traffic:
    """The requests that a server has met, those that faults ended included (status 0 when nothing was answered)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.counts: Counter[tuple[str, str, int]] = Counter()
        self.calls: deque[Call] = deque(maxlen=_REMEMBERED)

    def count(self, method: str = "", route: str = "", status: int | None = None) -> int:
        """How many requests were of this method, whose route contains this, with this status; all by default."""
        return sum(
            number
            for (verb, place, answer), number in self.counts.items()
            if method in {"", verb} and route in place and status in {None, answer}
        )

    def clear(self) -> None:
        """Forget all."""
        self.counts.clear()
        self.calls.clear()

    def middleware(self) -> Middleware:
        """The outermost middleware of the server."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path.startswith(CONTROL):
                return await handler(request)
            at, status = self._clock.elapsed(), 0
            try:
                answer = await handler(request)
                if request.transport is not None and not request.transport.is_closing():
                    status = answer.status
            except web.HTTPException as raised:
                status = raised.status
                raise
            else:
                return answer
            finally:
                resource = request.match_info.route.resource
                route = resource.canonical if resource is not None else "-"
                self.counts[request.method, route, status] += 1
                self.calls.append(Call(at, request.method, route, request.path_qs, status))

        return count


def add_control(app: web.Application, traffic: Traffic, dump: Callable[[], Any]) -> None:
    """Show the app's traffic, and what `dump` returns: what the server holds."""

    async def state(_: web.Request) -> web.Response:
        return web.json_response(dump())

    async def requests(_: web.Request) -> web.Response:
        rows = sorted(traffic.counts.items())
        listed = [{"method": verb, "route": route, "status": status, "count": n} for (verb, route, status), n in rows]
        return web.json_response({"total": traffic.count(), "requests": listed})

    app.router.add_get(CONTROL + "state", state)
    app.router.add_get(CONTROL + "requests", requests)
