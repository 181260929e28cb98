"""A proxy that remembers what it was asked: absolute URLs and CONNECT."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Proxy:
    """Passes on what it is asked, unless it ``refuses`` with this status line.

    Attributes:
        heads: the head of each request that came, as text.
    """

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.refuses: str | None = None
        self.url = ""

    @property
    def asked(self) -> list[str]:
        """The request lines, without the version."""
        return [head.splitlines()[0].removesuffix(" HTTP/1.1") for head in self.heads]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, target, _ = head.splitlines()[0].split(" ")
        if self.refuses is not None:
            writer.write(f"HTTP/1.1 {self.refuses}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        there, back = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                back.write(head.replace(f"{parts.scheme}://{parts.netloc}", "", 1).encode())
            async with asyncio.TaskGroup() as group:
                group.create_task(copy(reader, back), name="there")
                group.create_task(copy(there, writer), name="back")
        except* OSError:
            pass
        finally:
            back.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError  # one side has closed: so does the other


@asynccontextmanager
async def proxying() -> AsyncIterator[Proxy]:
    """A proxy on a free port within the block."""
    proxy = Proxy()
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer), name="proxied connection")
        connections.add(task)
        task.add_done_callback(connections.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    proxy.url = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listener.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
