"""HTTP/1.1 on raw sockets, as little of it as a proxy needs: where a message ends, and what its first line says."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

_CHUNK = 65536


class ClosedError(Exception):
    """The peer closed the connection in the middle of a message."""


class Wire:
    """A connection with a read buffer, owned by one event loop.

    The last byte received is left in the kernel until more is wanted. Closing a socket with unread bytes is what
    makes Linux tell the peer "connection reset", on unix sockets too, where there is no other way to do it.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._buffer = bytearray()
        self._unread = 0
        self._eof = False

    async def fill(self) -> bool:
        """Receive something into the buffer; False at the end of the stream (a reset ends it too)."""
        if self._eof:
            return False
        try:
            if self._unread:
                self._sock.recv(self._unread)
                self._unread = 0
            await _readable(self._sock)
            data = self._sock.recv(_CHUNK, socket.MSG_PEEK)
            if len(data) > 1:
                self._sock.recv(len(data) - 1)
        except ConnectionError:
            data = b""
        self._eof = not data
        self._unread = 1 if data else 0
        self._buffer += data
        return not self._eof

    async def gone(self) -> None:
        """Return when the peer has closed the connection, without reading anything.

        An event loop can only wait for "readable", which the unread byte always is: so this looks every 20 ms.
        """
        # A unix socket tells a closed peer (POLLHUP, always reported) from one that only has no more to send, as the
        # docker CLI after an upgrade; over TCP both look the same.
        poll = select.poll()
        poll.register(self._sock, 0 if self._sock.family == socket.AF_UNIX else select.POLLRDHUP)
        while self._sock.fileno() >= 0 and not poll.poll(0):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)

    async def until(self, mark: bytes) -> bytes:
        """Read up to and including `mark`. Raises `ClosedError`, or returns b"" at an end before the first byte."""
        while mark not in self._buffer:
            if not await self.fill():
                if self._buffer:
                    raise ClosedError
                return b""
        return self._take(self._buffer.index(mark) + len(mark))

    async def pieces(self, length: int) -> AsyncIterator[bytes]:
        """Read `length` bytes as they come. Raises `ClosedError`."""
        while length:
            if not self._buffer and not await self.fill():
                raise ClosedError
            piece = self._take(min(length, len(self._buffer)))
            length -= len(piece)
            yield piece

    async def rest(self) -> AsyncIterator[bytes]:
        """Read all there is until the peer closes, as it comes."""
        while self._buffer or await self.fill():
            yield self._take(len(self._buffer))

    async def send(self, data: bytes) -> None:
        """Send all of `data`. Raises `OSError` when the peer has gone."""
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    def end(self) -> None:
        """Send no more; the peer sees the end of the stream but can go on sending."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close in order: the peer sees the end of the stream."""
        if self._unread and self._sock.fileno() >= 0:
            with suppress(OSError):
                self._sock.recv(self._unread)  # or it would be a reset
            self._unread = 0
        self._sock.close()

    def reset(self) -> None:
        """Close so that the peer sees ECONNRESET."""
        if self._sock.family != socket.AF_UNIX:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the headers of a message.

    Attributes:
        raw: all of it as received, with the empty line.
        words: the first line's three parts: `GET /path HTTP/1.1`, or `HTTP/1.1 200 OK`.
        headers: names in lower case; of a repeated one the last.
    """

    raw: bytes
    words: tuple[str, str, str]
    headers: dict[str, str]

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def length(self) -> int | None:
        """The body's length in bytes, when the message says."""
        text = self.headers.get("content-length")
        return None if text is None else int(text)


async def read_head(wire: Wire) -> Head | None:
    """The next message's head, None at the end of the stream. Raises `ClosedError` in the middle of one."""
    raw = await wire.until(b"\r\n\r\n")
    if not raw:
        return None
    first, *lines = raw.decode("latin-1").strip().split("\r\n")
    words = (*first.split(" ", 2), "", "")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Head(raw, (words[0], words[1], words[2]), headers)


async def request_body(wire: Wire, head: Head) -> bytes:
    """A request's whole body, as received (chunks with their framing)."""
    return b"".join([piece async for piece in _framed(wire, head)])


def response_body(wire: Wire, head: Head, method: str) -> AsyncIterator[bytes]:
    """A response's body, as received and as it comes; `method` is that of the request."""
    status = int(head.words[1])
    if method == "HEAD" or status in (204, 304) or status < 200:
        return wire.pieces(0)
    if not head.chunked and head.length is None:
        return wire.rest()
    return _framed(wire, head)


def delimited(head: Head, method: str) -> bool:
    """Whether a response says where it ends; if not, only closing the connection ends it."""
    return method == "HEAD" or head.words[1] in ("204", "304") or head.chunked or head.length is not None


async def _framed(wire: Wire, head: Head) -> AsyncIterator[bytes]:
    if not head.chunked:
        async for piece in wire.pieces(head.length or 0):
            yield piece
        return
    while True:
        line = await wire.until(b"\r\n")
        if not line:
            raise ClosedError
        yield line
        size = int(line.split(b";")[0], 16)
        if size == 0:
            while line not in (b"\r\n", b""):  # trailers, up to an empty line
                line = await wire.until(b"\r\n")
                yield line
            return
        async for piece in wire.pieces(size + 2):
            yield piece


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, wake)
    try:
        await ready
    finally:
        loop.remove_reader(sock)
