"""The two ends of a proxied connection: a socket, what is still to be sent on it, and whether it is read.

Not asyncio's transports: those drop what has come but was not read yet once a write fails, and that is the answer of an
engine that refuses an upload before its end; nor do they end one direction of an encrypted connection alone.
"""

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from reaper.run.proxy.http1 import Data

if TYPE_CHECKING:
    from reaper.run.proxy.relay import Relay

PIECE = 256 << 10
"""Bytes that are read at once, and about as many may wait to be sent in each direction of a connection."""

_SEALED = PIECE - (32 << 10)
"""Bytes that are read at once of an encrypted stream: with the rest of a record from before they fit in a buffer."""


class ProxySocket:
    """A connected socket that does not block.

    Args:
        sock: the socket, which this owns from here on.
        buffer: where what comes is put; all connections may have the same.
        owner: of both sockets; is notified of what happens on them.

    Attributes:
        over: whether no more comes from there.
        peer_closed: whether it does not take anything any more either, as far as that is known.
        write_failed: whether sending to it has failed, or would.
    """

    def __init__(self, sock: socket.socket, buffer: bytearray, owner: "Relay") -> None:
        self.over = self.peer_closed = self.write_failed = False
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._file = sock.fileno()  # with the number asyncio's bookkeeping is quicker than with the socket
        self._buffer = buffer
        self._owner = owner
        self._waiting = bytearray()
        self._reading = self._ending = False

    @property
    def full(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._waiting)

    def read(self, *, wanted: bool) -> None:
        """Read what comes, or leave it where it is until further notice."""
        if wanted and not self._reading:
            self._loop.add_reader(self._file, self._guarded, self._readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._file)
        self._reading = wanted

    def send(self, data: Data | memoryview) -> None:
        """Send it, now or when there is room."""
        if self.write_failed:
            return
        if not self._waiting:
            data = data[self._transmit(data) :]
            if not len(data) or self.write_failed:
                return
            self._loop.add_writer(self._file, self._guarded, self._writable)
            self._waiting += data
            self._owner.changed(self)
        else:
            self._waiting += data

    def end(self) -> None:
        """Send no more after what is waiting; the other end sees the end of the stream and may go on sending."""
        if not self._ending and not self._waiting and not self.write_failed:
            self._shut(socket.SHUT_WR)
        self._ending = True

    def refuse(self) -> None:
        """Take nothing more from there: a sender gets EPIPE."""
        self.over = True
        self.read(wanted=False)
        self._shut(socket.SHUT_RD)

    def is_gone(self) -> bool:
        """Whether the peer has closed its socket, which on a unix socket differs from the end of its half alone."""
        poll = select.poll()
        poll.register(self._sock, 0)
        return bool(poll.poll(0))

    def drop(self) -> None:
        """Forget what is waiting."""
        if self._waiting:
            self._loop.remove_writer(self._file)
            self._waiting.clear()

    def close(self) -> None:
        """Close the socket. Harmless when done twice."""
        if self._sock.fileno() >= 0:
            self.read(wanted=False)
            self.drop()
            self._sock.close()

    def _guarded(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except BaseException:  # a bug: the loop logs it, and nothing waits for a connection that will never go on
            self._owner.close()
            raise

    def _readable(self) -> None:
        try:
            size = self._sock.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._stop(peer_closed=True)
            return
        if size:
            self._owner.came(self, self._buffer, size)
        else:
            self._stop(peer_closed=self.is_gone())

    def _stop(self, *, peer_closed: bool) -> None:
        self.over, self.peer_closed = True, peer_closed
        self.read(wanted=False)
        if peer_closed:
            self.write_failed = True
            self.drop()
        self._owner.changed(self)

    def _transmit(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._fail()
            return 0

    def _fail(self) -> None:
        self.write_failed = True
        self.drop()
        self._owner.changed(self)

    def _writable(self) -> None:
        sent = self._transmit(self._waiting)
        if self.write_failed:
            return
        del self._waiting[:sent]
        if not self._waiting:
            self._loop.remove_writer(self._file)
            if self._ending:
                self._shut(socket.SHUT_WR)
            self._owner.changed(self)

    def _shut(self, how: int) -> None:
        with suppress(OSError):  # the peer was faster
            self._sock.shutdown(how)


class TlsSocket(ProxySocket):
    """An encrypted connection whose handshake is done."""

    def __init__(self, sock: socket.socket, buffer: bytearray, owner: "Relay", tls: "Tls") -> None:
        super().__init__(sock, buffer, owner)
        self._tls = tls

    def send(self, data: Data | memoryview) -> None:
        """Send it, now or when there is room."""
        if self.write_failed:
            return
        try:
            self._tls.object.write(data)
        except ssl.SSLError:
            self._fail()
        else:
            super().send(self._tls.outgoing.read())

    def end(self) -> None:
        """Send the end of the stream. The socket itself stays open in both directions, as with Go's library."""
        if not self._ending and not self.write_failed:
            self._ending = True
            self._tls.say_goodbye()
            super().send(self._tls.outgoing.read())

    def begin(self) -> None:
        """Hand over what came together with the end of the handshake."""
        self._decrypt(b"")

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_SEALED)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._stop(peer_closed=True)
            return
        if data:
            self._decrypt(data)
        else:
            self._stop(peer_closed=False)

    def _decrypt(self, data: bytes) -> None:
        """Read all that has come: no event follows for what stays behind in here."""
        self._tls.incoming.write(data)
        size, over, failed = 0, False, False
        view = memoryview(self._buffer)
        try:
            while count := self._tls.read(view[size:]):
                size += count
            over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            over = True
        except ssl.SSLError:
            over = failed = True
        if reply := self._tls.outgoing.read():
            super().send(reply)
        if size:
            self._owner.came(self, self._buffer, size)
        if over and not self.over:
            self._stop(peer_closed=failed)

    def _shut(self, how: int) -> None:
        """One direction of an encrypted connection cannot be shut on the socket."""


class Tls:
    """What encrypts and decrypts, apart from any socket."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname=host)

    def read(self, into: memoryview) -> int:
        """The number of bytes decrypted; 0 at the end. Raises ssl.SSLError, SSLWantReadError where more must come first."""
        return self.object.read(len(into), into)  # type: ignore[return-value, arg-type, unused-ignore]  # typed as bytes

    async def shake_hands(self, sock: socket.socket) -> None:
        """Raises OSError, of which ssl.SSLError is one."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                done = False
            else:
                done = True
            finally:
                await loop.sock_sendall(sock, self.outgoing.read())  # an alert, too
            if done:
                return
            data = await loop.sock_recv(sock, _SEALED)
            if not data:
                raise ConnectionResetError("the engine closed the connection in the TLS handshake")
            self.incoming.write(data)

    def say_goodbye(self) -> None:
        """Put into ``outgoing`` that no more comes."""
        with suppress(ssl.SSLError):  # it waits for the other's goodbye, which is read in its turn
            self.object.unwrap()
