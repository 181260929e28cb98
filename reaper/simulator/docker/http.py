"""What all routes of a simulated Docker engine share: queries, bodies, answers, headers, and the form of its errors."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.model import RefusedError
from reaper.simulator.docker.text import boolean, encode, http_date
from reaper.simulator.faults import CONTROL, Handler

VERSION, API, OLDEST = "20.10.24+dfsg1", "1.41", "1.12"
_HEADERS = {"Api-Version": API, "Docker-Experimental": "false", "Ostype": "linux", "Server": f"Docker/{VERSION} (linux)"}
_CHUNKED_FROM = 2048  # what Go's server buffers: longer answers come in chunks

Work = Callable[[Engine, web.Request, str], Awaitable[web.StreamResponse]]
ROUTES: list[tuple[str, str, Work]] = []


class Empty(web.Response):
    """An answer without a body or a type of one."""


class Stream(web.StreamResponse):
    """An answer whose head goes out before its body is known."""

    def __init__(self) -> None:
        super().__init__(headers={"Content-Type": "application/json"})
        self.enable_chunked_encoding()


class RawStream(Stream):
    """One without a type, as Docker 20.10 sends logs."""


def flag(request: web.Request, name: str) -> bool:
    """A flag of the query."""
    return boolean(request.query.get(name))


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON object that was sent."""
    parsed: dict[str, Any] = await request.json()
    return parsed


def answer(value: object, status: int = 200) -> web.Response:
    """A JSON answer."""
    return raw_answer(encode(value), status)


def raw_answer(body: bytes, status: int = 200) -> web.Response:
    """A JSON answer that is encoded already."""
    response = web.Response(status=status, body=body, headers={"Content-Type": "application/json"})
    if len(body) >= _CHUNKED_FROM:
        response.enable_chunked_encoding()
    return response


def empty(status: int = 204) -> web.Response:
    """An answer without a body."""
    return Empty(status=status)


def refusal(status: int, message: str) -> web.Response:
    """An error in the engine's form."""
    return answer({"message": message}, status)


class Shell:
    """The middleware around all routes: time, versions, headers and errors.

    Args:
        engine: whose clock, latency and skew count.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def finish(self, request: web.Request, response: web.StreamResponse) -> None:
        """The last touch before the head is sent: the engine's own date, and nothing of aiohttp's."""
        if request.path.startswith(CONTROL):
            return
        if isinstance(response, Stream):
            response.headers.update(_HEADERS)
        response.headers["Date"] = http_date(self._engine.time())
        if not response.headers.get("Server", "").startswith("Docker/"):
            response.headers.pop("Server", None)
        if isinstance(response, Empty | RawStream):
            response.headers.pop("Content-Type", None)

    def error(self, _: web.Request, status: int, message: str) -> web.Response:
        """An error that a fault orders, in the engine's form and with its headers."""
        response = refusal(status, message)
        response.headers.update(_HEADERS)
        return response

    def middleware(self) -> Middleware:
        """The innermost middleware."""

        @web.middleware
        async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path.startswith(CONTROL):
                return await handler(request)
            version = request.match_info.get("version")
            known: Mapping[str, str] = _HEADERS
            if version is not None and (wrong := _unfit(version)):
                response: web.StreamResponse = wrong
                known = {key: value for key, value in known.items() if key != "Docker-Experimental"}
            else:
                try:
                    if self._engine.latency:
                        await self._engine.clock.sleep(self._engine.latency)
                    self._engine.settle()
                    response = await handler(request)
                    self._engine.settle()
                except RefusedError as refused:
                    response = refusal(refused.status, refused.message)
                except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
                    return refusal(404, "page not found")
            if not response.prepared:
                response.headers.update(known)
            return response

        return serve


def _unfit(version: str) -> web.Response | None:
    numbers, newest, oldest = _numbers(version), _numbers(API), _numbers(OLDEST)
    if numbers > newest:
        return refusal(400, f"client version {version} is too new. Maximum supported API version is {API}")
    if numbers < oldest:
        text = f"client version {version} is too old. Minimum supported API version is {OLDEST}, "
        text += "please upgrade your client to a newer version"
        return refusal(400, text)
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)


def route(method: str, path: str) -> Callable[[Work], Work]:
    """Serve a path by the decorated function, which gets the engine, the request and what stands for `{name}`."""

    def register(work: Work) -> Work:
        ROUTES.append((method, path, work))
        return work

    return register


def add_routes(app: web.Application, engine: Engine) -> None:
    """Serve all of them, with and without a version before the path; `{name}` in it may hold slashes."""

    def handler(work: Work) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await work(engine, request, request.match_info.get("name", ""))

        return handle

    for method, path, work in ROUTES:
        pattern = path.replace("{name}", "{name:.*}")
        app.router.add_route(method, pattern, handler(work))
        app.router.add_route(method, "/v{version:[0-9.]+}" + pattern, handler(work))
