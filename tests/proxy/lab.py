"""A proxy before an engine that does what a test says, and clients that send bytes in the pieces that a test wants."""

import asyncio
import fcntl
import json
import socket
import struct
import tempfile
import termios
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from hypothesis import strategies as st

from devkit.wire import ClosedError, Wire, read_head, request_body
from reaper.providers.docker.settings import DockerTable
from reaper.run.proxy import DockerProxy

T = TypeVar("T")

LABELS = {"reaper.lease": "run-1"}
LIMIT = 60  # seconds; what takes longer hangs
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"

Conduct = Callable[[Wire], Awaitable[None]]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do it, within the limit."""

    async def bounded() -> T:
        async with asyncio.timeout(LIMIT):
            return await work

    return asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop turns until ``condition()`` holds."""
    while not condition():  # noqa: ASYNC110 - what is waited for lies in the kernel
        await asyncio.sleep(0)


class Client(Wire):
    """A connection to the proxy."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.connect(str(path))
        except OSError:
            self.sock.close()
            raise
        super().__init__(self.sock)

    async def send_in(self, pieces: Iterable[bytes]) -> None:
        """Send them one by one: the next when the last has been read."""
        for piece in pieces:
            await self.send(piece)
            await until(lambda: unread(self.sock) == 0)

    async def exactly(self, length: int) -> bytes:
        return b"".join([piece async for piece in self.pieces(length)])

    async def ask(self, raw: bytes) -> tuple[int, bytes]:
        """Send a request; the status of the answer and its body."""
        await self.send(raw)
        return await self.answer()

    async def answer(self) -> tuple[int, bytes]:
        head = await read_head(self)
        assert head is not None, "the connection was closed"
        body = b"" if head.words[1] == "101" else await request_body(self, head)
        return int(head.words[1]), body

    async def everything(self) -> bytes:
        """All that comes until the end."""
        return b"".join([piece async for piece in self.rest()])


def unread(sock: socket.socket) -> int:
    """What the peer has not read yet, in bytes of the kernel's memory."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))
    return int(waiting)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """``data`` in pieces, cut at these places."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


async def no_recording(_id: str = "") -> None:
    """Take a turn of the loop and nothing else."""
    await asyncio.sleep(0)


class Lab:
    """A proxy, what it has told, and the engine behind it.

    Attributes:
        conduct: what the engine does with a connection; it is closed afterwards.
        requests: heads and bodies as the engine got them, where it ``serves``.
        created: the ids of the containers that the proxy has told of; ``recording`` is awaited for each.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.engine = folder / "proxy.sock", folder / "engine.sock"
        self.told: list[str] = []
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.conduct: Conduct = self.serves
        self.created: list[str] = []
        self.recording: Callable[[], Awaitable[None]] = no_recording
        engine = DockerTable(name="local", host=f"unix://{self.engine}")
        self.proxy = DockerProxy(engine, LABELS, self.told.append, self._record)

    async def _record(self, id_: str) -> None:
        self.created.append(id_)
        await self.recording()

    def client(self) -> Client:
        return Client(self.path)

    async def quiet(self) -> None:
        """Wait until no connection is left."""
        await until(lambda: not self.proxy._relays)

    async def take(self, wire: Wire) -> tuple[bytes, bytes] | None:
        """The next request on a connection of the engine."""
        head = await read_head(wire)
        if head is None:
            return None
        self.requests.append((head.raw, await request_body(wire, head)))
        return self.requests[-1]

    async def serves(self, wire: Wire) -> None:
        """Answer OK to everything."""
        while await self.take(wire):
            await wire.send(OK)

    async def engine_runs(self, group: asyncio.TaskGroup, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            self.connections += 1
            group.create_task(self._connection(Wire(sock)))

    async def _connection(self, wire: Wire) -> None:
        try:
            with suppress(ClosedError, OSError):
                await self.conduct(wire)
        finally:
            wire.close()


@asynccontextmanager
async def lab(*, engine: bool = True) -> AsyncIterator[Lab]:
    """A proxy in this loop, and an engine unless there is to be none. Nothing may be left open afterwards."""
    with tempfile.TemporaryDirectory(prefix="proxy-") as folder:
        made = Lab(Path(folder))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.setblocking(False)
            if engine:
                listener.bind(str(made.engine))
                listener.listen(100)
            await made.proxy.start(made.path)
            async with asyncio.TaskGroup() as group:
                task = group.create_task(made.engine_runs(group, listener)) if engine else None
                try:
                    yield made
                finally:
                    await made.proxy.close()
                    if task is not None:
                        task.cancel()
        assert not made.proxy._relays
        assert not made.path.exists()


class Proxied:
    """A proxy in a thread of its own, for clients that block. A context manager.

    Args:
        host: the engine's address.
        settings: of the engine's table, for TLS.
    """

    def __init__(self, host: str, **settings: Any) -> None:
        self.told: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="proxy-")
        self.path = Path(self._folder.name) / "docker.sock"
        self.host = f"unix://{self.path}"
        self._loop = asyncio.new_event_loop()
        engine = DockerTable(name="local", host=host, **settings)
        self._proxy = DockerProxy(engine, LABELS, self.told.append, no_recording)
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.do(self._proxy.start(self.path))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.do(self._proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT)
        self._loop.close()
        self._folder.cleanup()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in the proxy's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT)

    @property
    def connections(self) -> int:
        return len(self._proxy._relays)


def create(kind: str, body: Any, *, head: bytes = b"") -> bytes:
    """A request to create something, with its Content-Length."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"POST /v1.41/%s/create HTTP/1.1\r\nHost: docker\r\n%sContent-Length: %d\r\n\r\n%s" % (
        kind.encode(),
        head,
        len(raw),
        raw,
    )


@st.composite
def chunked(draw: st.DrawFn, lines: Sequence[bytes] = (b"\r\n", b";a=b\r\n")) -> tuple[bytes, bytes]:
    """A body in chunks, and what it says."""
    raw, said = b"", b""
    for size in draw(st.lists(st.sampled_from([1, 2, 9, 16, 255, 4096]), max_size=5)):
        data = draw(st.sampled_from([b"x", b"\r\n", b"0\r\n\r\n", b"\n"])) * size
        digits = draw(st.sampled_from([b"%x", b"%X", b"0%x"])) % len(data)
        raw += digits + draw(st.sampled_from(lines)) + data + b"\r\n"
        said += data
    trailers = draw(st.sampled_from([b"", b"X: y\r\n", b"X: y\r\nZ:\r\n"]))
    return raw + b"0" + draw(st.sampled_from(lines)) + trailers + b"\r\n", said
