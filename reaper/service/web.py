"""What the service serves over HTTP: ``/metrics``, ``/healthz``, ``/readyz`` and the status page. These only read.

``/leases`` is another matter, and ``http_api``'s. The rest has no login. It listens on the loopback by default,
and there it answers only to the loopback's own names: else any page in a browser on this machine could have its own name
resolve to 127.0.0.1, and read along.
"""

import json
import re
from collections.abc import Callable
from datetime import datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from reaper.leases import http_api
from reaper.leases.connection_limits import ACCEPTED_AT_ONCE, Door, GuardedRunner, Room
from reaper.leases.http_api import LeaseApi
from reaper.leases.listening import explained
from reaper.paths import LISTEN
from reaper.service import page
from reaper.service.health import health, readiness
from reaper.service.status import Status

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

T = TypeVar("T")

SHARE = 0.25  # of the connections that this process may have
SHUTDOWN_TIMEOUT = 2.0  # seconds that answers under way get when it is closed
THREADS, WAITING = 2, 16  # answers that are rendered at once, and requests that may wait for it

_PATHS = ("/", "/metrics", "/healthz", "/readyz")
_LOCAL = re.compile(r"(localhost\.?|127(\.\d{1,3}){3}|\[::1\])(:\d*)?", re.ASCII | re.IGNORECASE)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": page.CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "reaper",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_WHERE = "[service] listen"


class Web:
    """The server.

    Args:
        status: what the page and the checks show.
        render_metrics: makes the metrics for an ``Accept`` header: the body and its content type. Called in a thread.
        clock: returns the time (aware UTC).
        leases: what answers about leases, None until they can be read; not given where none can be taken.
        log: gets refused connections.
    """

    def __init__(
        self,
        status: Status,
        render_metrics: Callable[[str], tuple[bytes, str]],
        *,
        clock: Callable[[], datetime],
        leases: Callable[[], LeaseApi | None] | None = None,
        log: "FilteringBoundLogger | None" = None,
    ) -> None:
        self._status = status
        self._render_metrics = render_metrics
        self._clock = clock
        self._leases = leases
        self._threads = anyio.CapacityLimiter(THREADS)
        self._rendering = 0
        self._door = Door("web", Room.share(SHARE), log or structlog.get_logger())
        self._runner: web.AppRunner | None = None
        self._local = False

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The hosts and ports that it listens on."""
        return tuple((at[0], at[1]) for at in self._runner.addresses) if self._runner else ()

    async def start(self, host: str, port: int) -> None:
        """Listen. Port 0 takes one that is free.

        Raises:
            ConfigError: it cannot listen there: the port is taken, the host is not known or not here, or it is not allowed.
        """
        app = web.Application(middlewares=[self._check_host, _explain_errors])
        if self._leases is not None:
            app.add_subapp(http_api.PATH, http_api.lease_app(self._leases, local=lambda: self._local))
        handlers = (self._page, self._metrics, self._healthz, self._readyz)
        app.add_routes([web.get(path, handler) for path, handler in zip(_PATHS, handlers, strict=True)])
        app.on_response_prepare.append(_finish)
        runner = GuardedRunner(app, self._door, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await runner.setup()
        try:
            with explained(host, port, _WHERE, LISTEN):
                await runner.listen(web.TCPSite(runner, host, port, backlog=ACCEPTED_AT_ONCE))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await runner.cleanup()
            raise
        self._runner = runner
        self._local = all(ip_address(address).is_loopback for address, _ in self.addresses)

    async def close(self) -> None:
        """Stop listening; what is being answered gets ``SHUTDOWN_TIMEOUT`` seconds."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @web.middleware
    async def _check_host(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._local and not _LOCAL.fullmatch(request.headers.get("Host", "localhost")):
            return _text(421, f"This listens on {self.addresses[0][0]} and answers to localhost, 127.0.0.1 and [::1] only.")
        return await handler(request)

    async def _healthz(self, _: web.Request) -> web.Response:
        return _json(*health(self._status, self._clock()))

    async def _readyz(self, _: web.Request) -> web.Response:
        return _json(*readiness(self._status, self._clock()))

    async def _metrics(self, request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        body, kind = await self._in_thread(lambda: self._render_metrics(accept))
        return web.Response(body=body, headers={"Content-Type": kind})

    async def _page(self, request: web.Request) -> web.Response:
        # The thread must not see it change.
        status, now, reload = self._status.snapshot(), self._clock(), request.query.get("refresh") != "off"
        text = await self._in_thread(lambda: page.render(status, now, reload=reload))
        return web.Response(text=text, content_type="text/html", charset="utf-8")

    async def _in_thread(self, render: Callable[[], T]) -> T:
        """Rendering takes milliseconds, and tens of them for the metrics of many endpoints: not on the event loop."""
        if self._rendering >= THREADS + WAITING:
            text = "Too many requests are waiting for their answer already.\n"
            raise web.HTTPServiceUnavailable(text=text, headers={"Retry-After": "5"})
        self._rendering += 1
        try:
            return await anyio.to_thread.run_sync(render, limiter=self._threads, abandon_on_cancel=True)
        finally:
            self._rendering -= 1


@web.middleware
async def _explain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _text(404, f"There is nothing here. What there is: {' '.join(_PATHS)}")
    except web.HTTPMethodNotAllowed as error:
        return _text(405, "This can only be read: GET or HEAD.", Allow=", ".join(sorted(error.allowed_methods)))


async def _finish(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _text(code: int, text: str, **headers: str) -> web.Response:
    return web.Response(status=code, text=f"{text}\n", content_type="text/plain", charset="utf-8", headers=headers)


def _json(ok: bool, document: dict[str, Any]) -> web.Response:  # noqa: FBT001 - as it comes from the check
    text = json.dumps(document, indent=2) + "\n"
    return web.Response(status=200 if ok else 503, text=text, content_type="application/json")
