"""How many connections a server takes, and which it closes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
import structlog
from aiohttp import web
from structlog.testing import LogCapture

from reaper.leases import connection_limits
from reaper.leases.connection_limits import Door, GuardedRunner, Room

pytestmark = pytest.mark.anyio
OWN, GUEST, OTHER = 0, 1, 2


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Lobby:
    """A server behind a door, whose clients' credentials are set by the test."""

    def __init__(self, path: Path, room: Room) -> None:
        self.path = path
        self.logged = LogCapture()
        self.user = OWN
        self.release = asyncio.Event()
        log = structlog.wrap_logger(None, processors=[self.logged], wrapper_class=structlog.make_filtering_bound_logger(0))
        self.door = Door("lobby", room, log, user=lambda _: self.user, trusted=lambda user: user == OWN)
        self._open: list[socket.socket] = []

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/hold":
            if not self.door.may_hold(request.transport):
                return web.Response(status=429)
            await self.release.wait()
        if request.path == "/slow":
            await self.release.wait()
        return web.Response(text="well")

    async def connect(self, user: int, say: bytes = b"") -> socket.socket:
        """A connection of this user, which says nothing more than this."""
        self.user = user
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        self._open.append(connection)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, str(self.path))
        await loop.sock_sendall(connection, say)
        await self.settle()
        return connection

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)

    async def asks(self, user: int, path: str = "/") -> bytes:
        """The answer to a request; nothing when it is closed without one."""
        connection = await self.connect(user, f"GET {path} HTTP/1.0\r\n\r\n".encode())
        with anyio.fail_after(60):
            try:
                return await asyncio.get_running_loop().sock_recv(connection, 4096)
            except ConnectionError:
                return b""

    async def is_closed(self, connection: socket.socket) -> bool:
        with anyio.move_on_after(0.05):
            try:
                return await asyncio.get_running_loop().sock_recv(connection, 1) == b""
            except ConnectionError:
                return True
        return False


@asynccontextmanager
async def lobby(folder: Path, room: Room) -> AsyncIterator[Lobby]:
    there = Lobby(folder / "sock", room)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", there.answer)
    runner = GuardedRunner(app, there.door, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(there.path)).start()
    try:
        yield there
    finally:
        there.release.set()
        for connection in there._open:
            connection.close()
        await runner.cleanup()


async def test_a_full_server_still_answers_and_closes_what_says_nothing(tmp_path: Path) -> None:
    async with lobby(tmp_path, Room(8, 6, 3)) as there:
        idle = [await there.connect(OWN) for _ in range(20)]
        assert (await there.asks(OWN)).endswith(b"well")
        assert sum([await there.is_closed(connection) for connection in idle]) >= 12
        assert len(there.logged.entries) == 1, "one line for a problem"


async def test_one_user_takes_no_others_place(tmp_path: Path) -> None:
    async with lobby(tmp_path, Room(8, 6, 2)) as there:
        for _ in range(2):
            await there.connect(GUEST, b"GET /slow HTTP/1.0\r\n\r\n")
        assert await there.asks(GUEST) == b""
        for _ in range(3):
            assert await there.asks(GUEST) == b""
        assert (await there.asks(OTHER)).endswith(b"well")
        assert (await there.asks(OWN)).endswith(b"well")
        assert [entry["problem"] for entry in there.logged.entries] == ["user 1 has 2 connections open already"]


async def test_users_who_are_not_trusted_leave_room_for_those_who_are(tmp_path: Path) -> None:
    async with lobby(tmp_path, Room(4, 3, 3)) as there:
        for user in (GUEST, GUEST, OTHER):
            await there.connect(user, b"GET /slow HTTP/1.0\r\n\r\n")
        assert await there.asks(OTHER) == b""
        assert (await there.asks(OWN)).endswith(b"well")


async def test_leases_leave_room_for_others(tmp_path: Path) -> None:
    async with lobby(tmp_path, Room(8, 6, 6)) as there:
        held = [await there.connect(OWN, b"GET /hold HTTP/1.0\r\n\r\n") for _ in range(6)]
        assert b" 429 " in await there.asks(OWN, "/hold")
        for _ in range(5):
            await there.connect(OWN)
        assert (await there.asks(OWN)).endswith(b"well")
        assert not any([await there.is_closed(connection) for connection in held]), "a lease is never closed to make room"


async def test_what_says_nothing_is_closed_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "HEAD_WITHIN", 0.05)
    async with lobby(tmp_path, Room(8, 6, 6)) as there:
        silent, slow = await there.connect(OWN), await there.connect(OWN, b"GET / HTTP/1.1\r\nX: ")
        answered = await there.connect(OWN, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        busy = await there.connect(OWN, b"GET /slow HTTP/1.0\r\n\r\n")
        loop = asyncio.get_running_loop()
        with anyio.fail_after(60):
            assert (await loop.sock_recv(answered, 4096)).endswith(b"well")
            for connection in (silent, slow, answered):
                while not await there.is_closed(connection):
                    pass
        assert not await there.is_closed(busy)


def test_the_room_is_below_what_the_process_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft in (64, 1024, 16_384, 1_000_000):
        monkeypatch.setattr("resource.getrlimit", lambda _, soft=soft: (soft, soft))
        shares = [Room.share(part) for part in (0.5, 0.25, 0.25)]
        assert all(share.of_one <= share.untrusted <= share.most for share in shares)
        if soft >= 1024:
            assert sum(share.most for share in shares) <= soft - 256
