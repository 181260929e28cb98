"""What drives a simulated server from outside: counts of its requests, and the control API below `/_simulator/`.

GET    /_simulator/state                what the server holds, in short
GET    /_simulator/requests             the numbers of requests, by route and status;  DELETE forgets them
GET    /_simulator/faults               the rules, how often they were met, how often they struck
POST   /_simulator/faults               {"add": ["status:503,method=DELETE,times=3"]};  DELETE removes all
GET    /_simulator/clock                {"now": ...};  POST {"advance": "2h"} turns it
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.typedefs import Middleware

from reaper.core.durations import parse as parse_duration
from reaper.simulator.clock import Clock
from reaper.simulator.faults import CONTROL, Faults, Handler

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


def add_control(app: web.Application, clock: Clock, faults: Faults, traffic: Traffic, dump: Callable[[], Any]) -> None:
    """Give the app the control API; `dump` returns what the server holds."""
    control = _Control(clock, faults, traffic, dump)
    app.router.add_get(CONTROL + "state", control.state)
    app.router.add_get(CONTROL + "requests", control.requests)
    app.router.add_delete(CONTROL + "requests", control.forget)
    app.router.add_get(CONTROL + "faults", control.rules)
    app.router.add_post(CONTROL + "faults", control.add)
    app.router.add_delete(CONTROL + "faults", control.remove)
    app.router.add_get(CONTROL + "clock", control.time)
    app.router.add_post(CONTROL + "clock", control.turn)


class _Control:
    def __init__(self, clock: Clock, faults: Faults, traffic: Traffic, dump: Callable[[], Any]) -> None:
        self._clock, self._faults, self._traffic, self._dump = clock, faults, traffic, dump

    async def state(self, _: web.Request) -> web.Response:
        return web.json_response(self._dump())

    async def requests(self, _: web.Request) -> web.Response:
        rows = sorted(self._traffic.counts.items())
        listed = [{"method": verb, "route": route, "status": status, "count": n} for (verb, route, status), n in rows]
        return web.json_response({"total": self._traffic.count(), "requests": listed})

    async def forget(self, request: web.Request) -> web.Response:
        self._traffic.clear()
        return await self.requests(request)

    async def rules(self, _: web.Request) -> web.Response:
        return web.json_response(
            [{"fault": str(fault), "met": met, "struck": struck} for fault, met, struck in self._faults.rules()]
        )

    async def add(self, request: web.Request) -> web.Response:
        body = await _body(request)
        texts = body.get("add")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return _refused('write for example {"add": ["status:503,method=DELETE,times=3"]}')
        try:
            self._faults.add(*texts)
        except ValueError as error:
            return _refused(str(error))
        return await self.rules(request)

    async def remove(self, request: web.Request) -> web.Response:
        self._faults.clear()
        return await self.rules(request)

    async def time(self, _: web.Request) -> web.Response:
        return web.json_response({"now": self._clock.now().isoformat(), "elapsed": self._clock.elapsed()})

    async def turn(self, request: web.Request) -> web.Response:
        body = await _body(request)
        try:
            self._clock.advance(parse_duration(str(body.get("advance", ""))))
        except ValueError as error:
            return _refused(f'{error}: {{"advance": "2h"}}')
        return await self.time(request)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _refused(message: str) -> web.Response:
    return web.json_response({"message": message}, status=400)
