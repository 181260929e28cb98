"""A server that ends leaves no connection open, even where its event loop is closed at once."""

import asyncio
import gc
import socket
import warnings
from collections.abc import Callable

import pytest
from aiohttp import web

from reaper.simulator.runner import EndingRunner

ANSWER = b"x" * (16 << 20)  # more than the kernel holds


def served(turns: int, request: bytes) -> list[str]:
    """What is still open after a server to which a client connected so many turns of the loop before it ended."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=ANSWER)

    async def main(client: socket.socket) -> None:
        app = web.Application()
        app.router.add_get("/", answer)
        runner = EndingRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        client.connect(runner.addresses[0][:2])
        client.sendall(request)
        for _ in range(turns):
            await asyncio.sleep(0)
        await runner.cleanup()

    gc.collect()
    with warnings.catch_warnings(record=True) as told, socket.socket() as client:
        warnings.simplefilter("always")
        asyncio.run(main(client))
        gc.collect()
    return [str(warning.message) for warning in told]


@pytest.mark.parametrize("request_", [b"", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"], ids=["silent", "reads nothing"])
@pytest.mark.parametrize("turns", range(8))
def test_a_server_that_ends_leaves_no_connection_open(turns: int, request_: bytes) -> None:
    assert served(turns, request_) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # on Python 3.14, of what was left open
def test_what_is_compared_leaves_some_open(monkeypatch: pytest.MonkeyPatch) -> None:
    cleanup: Callable[[web.AppRunner], object] = web.AppRunner.cleanup
    monkeypatch.setattr(EndingRunner, "cleanup", cleanup)

    assert any(served(turns, b"") for turns in range(8))
