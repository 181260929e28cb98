"""The socket that the proxy listens on, and its way to the engine."""

import asyncio
import errno
import os
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

from reaper.errors import ConfigError
from reaper.providers.docker import ssh
from reaper.providers.docker.address import tcp_address, tls_context, unix_path
from reaper.providers.docker.settings import DockerTable
from reaper.run.proxy.relay import Relay
from reaper.run.proxy.sockets import PIECE, ProxySocket, Tls, TlsSocket

CONNECT_WITHIN = 30.0  # seconds
BACKLOG = 4096
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REST = 1.0  # seconds without new connections, where no more can be had


class DockerProxy:
    """Passes every byte between its clients and an engine, and puts labels on the containers, networks and volumes made.

    Each connection of a client has one of its own to the engine. What the client has labelled itself with one of these
    names stays as it is.

    Args:
        engine: where the engine is.
        labels: what is put on all that is created.
        report: is called with what went wrong, in words.
        created: is awaited with the id of each container that was made, before the client hears of it; None where nothing
            is waited for.
    """

    def __init__(
        self,
        engine: DockerTable,
        labels: Mapping[str, str],
        report: Callable[[str], None],
        created: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._engine = engine
        self._labels = dict(labels)
        self._report = report
        self._created = created
        self._tls: ssl.SSLContext | None = None
        self._tunnel: ssh.Tunnel | None = None
        self._listener: socket.socket | None = None
        self._path = Path()
        self._buffer = bytearray(PIECE)
        self._relays: set[Relay] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._down = False  # whether the last connection failed, which is reported once

    async def start(self, path: Path) -> None:
        """Listen on this unix socket, which only this user can connect to.

        Raises:
            ConfigError: it cannot be made, or the engine's TLS files cannot be used.
        """
        self._tls = tls_context(self._engine)
        self._tunnel = ssh.tunnel_to(self._engine)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.settimeout(0)
            listener.bind(str(path))
            os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)  # noqa: PTH101 - at once, and no client can connect yet
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            raise ConfigError(
                f"the proxy cannot listen on {path}: {error.strerror or error}",
                "name a new file in a directory that this user can write to, with a path of at most 107 bytes",
            ) from None
        self._listener, self._path = listener, path
        self._accept_again()

    async def close(self) -> None:
        """Take no new connections, cut those that are open, and remove the socket. Harmless when done twice."""
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
            with suppress(OSError):
                self._path.unlink()
        # Nothing is waited for until all is cut: the caller may have been cancelled.
        for task in self._tasks:
            task.cancel()
        for relay in list(self._relays):
            relay.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._tunnel is not None:
            self._tunnel.leave()
            self._tunnel = None

    def _accept_again(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _FULL:
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener)
                loop.call_later(_REST, self._accept_again)
                self._report(f"a connection to the proxy has to wait: {os.strerror(error.errno or 0)}")
            return
        client.settimeout(0)
        created = None if self._created is None else self._report_created
        relay = Relay(client, self._buffer, self._labels, self._report, self._relays.discard, created)
        self._relays.add(relay)
        if self._tls is None and (path := unix_path(self._engine)) is not None and (sock := _dial_at_once(path)) is not None:
            self._connected(relay, ProxySocket(sock, self._buffer, relay))
            return
        task = asyncio.get_running_loop().create_task(self._connect(relay), name="proxy connects")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _report_created(self, id_: str, known: Callable[[], None]) -> None:
        """Report which container was made, and call ``known`` afterwards, whatever becomes of that."""
        assert self._created is not None
        created = self._created

        async def report_created() -> None:
            try:
                await created(id_)
            finally:
                known()

        task = asyncio.get_running_loop().create_task(report_created(), name=f"report container {id_[:12]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, relay: Relay) -> None:
        """Give the relay its engine, or the reason why it gets none."""
        sock = None
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                sock = await self._dial()
                side = await self._side(sock, relay)
        except OSError as error:  # TimeoutError is one, too
            if sock is not None:
                sock.close()
            why = f"no connection to the engine {self._engine.name} at {self._engine.host}: {_reason(error)}"
            if not self._down:
                self._report(why)
            self._down = True
            relay.failed(why)
        except BaseException:
            if sock is not None:
                sock.close()
            relay.close()
            raise
        else:
            self._connected(relay, side)

    def _connected(self, relay: Relay, side: ProxySocket) -> None:
        self._down = False
        relay.connected(side)
        if isinstance(side, TlsSocket):
            side.begin()

    async def _dial(self) -> socket.socket:
        """A connected socket. Raises OSError."""
        path = unix_path(self._engine)
        if self._tunnel is not None:
            try:
                await self._tunnel.open()
            except ssh.SshError as error:
                raise OSError(str(error)) from None
            path = self._tunnel.path
        if path is not None:
            return await _dial_unix(path)
        host, port = tcp_address(self._engine)
        loop = asyncio.get_running_loop()
        failure: OSError | None = None
        for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(0)
                await loop.sock_connect(sock, address)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # Docker's own clients do so, too
                return sock
        raise failure or OSError(f"{host} has no address")

    async def _side(self, sock: socket.socket, relay: Relay) -> ProxySocket:
        if self._tls is None:
            return ProxySocket(sock, self._buffer, relay)
        tls = Tls(self._tls, tcp_address(self._engine)[0])
        await tls.shake_hands(sock)
        return TlsSocket(sock, self._buffer, relay, tls)


async def _dial_unix(path: str) -> socket.socket:
    """Not loop.sock_connect: where the last 4,096 are not accepted yet a unix socket says "again", not "under way"."""
    while (sock := _dial_at_once(path, raises=True)) is None:  # noqa: ASYNC110 - there is no event for room
        await asyncio.sleep(0.005)
    return sock


def _dial_at_once(path: str, *, raises: bool = False) -> socket.socket | None:
    """A socket that is connected to a unix socket without having to wait, or None."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        sock.connect(path)
    except BlockingIOError:
        sock.close()
    except OSError:
        sock.close()
        if raises:
            raise
    else:
        return sock
    return None


def _reason(error: OSError) -> str:
    """In words, without the address that asyncio puts there once more."""
    if isinstance(error, ssl.SSLError | socket.gaierror) or error.errno is None:
        return error.strerror or str(error) or "no answer in time"
    return os.strerror(error.errno)
