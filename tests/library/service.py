"""The service's own answers about leases, from a thread."""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from reaper.leases.http_api import PATH, LeaseApi, lease_app
from reaper.leases.local_socket import LocalSocket
from reaper.leases.record import LeaseRecord, LeaseState
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from reaper.leases.watcher import CONNECTION_WINDOW, LeaseBook
from reaper.paths import SOCKET
from reaper.simulator.runner import EndingRunner

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

CLAIMABLE = ("org.testcontainers.*",)
ENDPOINTS = ("unix:///nowhere", "https://nowhere.example/api default")


class Quiet:
    def changed(self, record: LeaseRecord) -> None: ...

    def failed(self, error: Exception) -> None: ...


class Log:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info

    def bound(self) -> "FilteringBoundLogger":
        return cast("FilteringBoundLogger", self)

    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


class Service:
    """The service's own answers, in a thread: over TCP, and on a local socket."""

    def __init__(
        self,
        folder: Path,
        port: int,
        token: str | None,
        *,
        socket: Path | None = None,
        trusted: Collection[int] = (),
        window: timedelta = CONNECTION_WINDOW,
        watcher: int = 1,
        lives: Callable[[int], bool | None] = lambda _: None,
    ) -> None:
        self.port, self._token, self._path = port, token, folder / NAME
        self._watcher, self._lives = watcher, lives
        self.asked = 0  # how many requests have come
        self.socket = socket or folder / SOCKET
        self._trusted, self._window = trusted, window
        self.heartbeats = threading.Semaphore(0)
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def local_url(self) -> str:
        return f"unix://{self.socket}"

    def records(self) -> dict[str, LeaseRecord]:
        file = LeaseFile(self._path)
        try:
            return {record.id: record for record in file.records()}
        finally:
            file.close()

    def until(self, id_: str, state: LeaseState) -> LeaseRecord:
        deadline = time.monotonic() + 60
        while self.records()[id_].state is not state:
            assert time.monotonic() < deadline, self.records()[id_]
            time.sleep(0.02)
        return self.records()[id_]

    def end(self, id_: str) -> None:
        async def call() -> None:
            self.book.release(id_, "by another client")

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(30)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        file = LeaseFile(self._path)
        self.book = LeaseBook(
            file, lambda: datetime.now(UTC), Quiet(), token=self._watcher, lives=self._lives, connection=self._window
        )
        self.book.open()
        api = LeaseApi(self.book, token=self._token, claimable=CLAIMABLE, trusted=self._trusted, endpoints=lambda: ENDPOINTS)

        def current() -> LeaseApi:
            self.asked += 1
            return api

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            answer = await handler(request)
            if request.method == "PUT":
                self.heartbeats.release()
            return answer

        app = web.Application(middlewares=[count])
        app.add_subapp(PATH, lease_app(current))
        runner = EndingRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = runner.addresses[0][1]
        local = LocalSocket(current, [str(self.socket)], named=True, log=Log().bound())
        await local.open()
        watch = asyncio.create_task(self.book.run(), name="watch")
        self._ready.set()
        await self._stop.wait()
        api.close_connections()
        watch.cancel()
        await asyncio.wait([watch])
        await local.close()
        await runner.cleanup()
        file.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)


@contextmanager
def serving(folder: Path, port: int = 0, token: str | None = None, **more: Any) -> Iterator[Service]:
    folder.mkdir(exist_ok=True)
    service = Service(folder, port, token, **more)
    try:
        yield service
    finally:
        service.close()
