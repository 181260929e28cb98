"""The service's own answers about leases, from a thread."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from reaper.leaseapi import LeaseApi
from reaper.leasebook import LeaseBook
from reaper.leasedb import LeaseFile, LeaseRecord
from reaper.leases import NAME


class Quiet:
    def changed(self, record: LeaseRecord) -> None: ...

    def failed(self, error: Exception) -> None: ...


class Service:
    """The service's own answers, in a thread."""

    def __init__(self, folder: Path, port: int, token: str | None) -> None:
        self.port, self._token, self._path = port, token, folder / NAME
        self.heartbeats = threading.Semaphore(0)
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self._thread.start()
        assert self._ready.wait(30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def records(self) -> dict[str, LeaseRecord]:
        file = LeaseFile(self._path)
        try:
            return {record.id: record for record in file.records()}
        finally:
            file.close()

    def end(self, id_: str) -> None:
        async def call() -> None:
            self.book.release(id_, "by somebody else")

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(30)

    async def _serve(self) -> None:
        file = LeaseFile(self._path)
        self.book = LeaseBook(file, lambda: datetime.now(UTC), Quiet(), token=1, lives=lambda _: None)
        self.book.open()
        api = LeaseApi(self.book, token=self._token, claimable=("org.testcontainers.*",))

        async def answer(request: web.Request) -> web.StreamResponse:
            answer = await api.answer(request, local=True)
            if request.method == "PUT":
                self.heartbeats.release()
            return answer

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()
        file.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()


@contextmanager
def serving(folder: Path, port: int = 0, token: str | None = None) -> Iterator[Service]:
    folder.mkdir(exist_ok=True)
    service = Service(folder, port, token)
    try:
        yield service
    finally:
        service.close()
