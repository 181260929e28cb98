"""Connections without sockets, and a loop whose time jumps: the same seed gives the same bytes in the same order.

Everything runs in one thread: the servers, the program and what waits for the journal. Nothing here takes real time.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import connector
from aiohttp.client_exceptions import ClientConnectorError, UnixClientConnectorError

from reaper.leases import sources, watcher
from reaper.observers import evidence, journal
from reaper.providers import parsing
from reaper.providers.daytona import client as daytona
from reaper.providers.docker import connection as docker
from reaper.providers.docker import uses
from reaper.retry import retrier
from reaper.service import endpoint_worker
from reaper.simulator.clock import Clock
from reaper.sweep import owner_proofs
from reaper.sweep.processes import Machine

Server = Callable[[], asyncio.Protocol]
DELAYS = (0.0, 0.0, 0.001, 0.004, 0.02)  # seconds that a piece of a message is under way


class Network:
    """What listens where, and how long it takes to get there.

    Attributes:
        servers: by the path of a unix socket or "HOST:PORT".
        refused: addresses at which connections are refused.
        cut: whether the program is dead: nothing that it sends or is sent arrives, but the end of its connections.
        disk: what comes of evidence that is written: it "works", is "full", "broken" or "hangs".
    """

    def __init__(self, seed: int) -> None:
        self.servers: dict[str, Server] = {}
        self.refused: set[str] = set()
        self.cut = False
        self.disk = "works"
        self.random = random.Random(f"network/{seed}")

    async def connect(self, address: str, factory: Callable[[], Any]) -> Any:
        """A connection to what listens there; its protocol. Raises OSError."""
        await asyncio.sleep(0)
        if self.cut or address in self.refused or address not in self.servers:
            raise ConnectionRefusedError(111, "Connection refused")
        loop = asyncio.get_running_loop()
        ours, theirs = factory(), self.servers[address]()
        one, other = _End(loop, ours, self), _End(loop, theirs, self)
        one.peer, other.peer = other, one
        theirs.connection_made(other)
        ours.connection_made(one)
        return ours


class _End(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: Any, network: Network) -> None:
        super().__init__({})
        self.peer: _End
        self._loop, self._protocol, self._network = loop, protocol, network
        self._closing = self._paused = False
        self._sent: deque[bytes | BaseException | None] = deque()  # of those that arrive at one time the loop knows no order
        self._arrived: deque[bytes | BaseException | None] = deque()
        self._last = 0.0  # when the last piece arrives at the peer: none overtakes another

    def _send(self, piece: bytes | BaseException | None) -> None:
        if self._network.cut and isinstance(piece, bytes):
            return
        self._last = max(self._last, self._loop.time() + self._network.random.choice(DELAYS))
        self._sent.append(piece)
        self._loop.call_at(self._last, self._arrive)

    def _arrive(self) -> None:
        self.peer._arrived.append(self._sent.popleft())
        self.peer._deliver()

    def _deliver(self) -> None:
        while self._arrived and not self._closing and not self._paused:
            piece = self._arrived.popleft()
            if isinstance(piece, bytes):
                self._protocol.data_received(piece)
                continue
            self._closing = True
            if piece is None:
                self._protocol.eof_received()
            self._protocol.connection_lost(piece)

    def write(self, data: Any) -> None:
        if not self._closing and len(data):
            self._send(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._end(None)

    def abort(self) -> None:
        self._end(ConnectionResetError(104, "Connection reset by peer"))

    def _end(self, how: BaseException | None) -> None:
        if not self._closing:
            self._closing = True
            self._send(how)
            self._loop.call_soon(self._protocol.connection_lost, None)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._deliver)

    def is_reading(self) -> bool:
        return not self._paused

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol


def _virtual(clock: Clock) -> type[datetime]:
    """A ``datetime`` that reads that clock."""

    class Virtual(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return clock.now().astimezone(tz)

    return Virtual


@contextmanager
def joined(network: Network, clock: Clock, machine: Machine) -> Iterator[None]:
    """The program's connections go through the network, and it reads the clock and this machine, while the block runs."""

    async def unix(self: Any, request: aiohttp.ClientRequest, *_: object) -> Any:
        try:
            return await network.connect(self.path, self._factory)
        except OSError as error:
            raise UnixClientConnectorError(self.path, request.connection_key, error) from error

    async def tcp(self: Any, request: aiohttp.ClientRequest, *_: object) -> Any:
        try:
            return await network.connect(f"{request.url.host}:{request.url.port}", self._factory)
        except OSError as error:
            raise ClientConnectorError(request.connection_key, error) from error

    async def wait(job: Any, seconds: float) -> bool:
        return bool(job.done.wait(seconds))  # in this thread: no virtual time passes while the journal is written

    async def write(_: Any, function: Callable[..., str | None], *arguments: object) -> str | None:
        if network.disk == "hangs":
            await asyncio.sleep(3600)
        if network.disk == "full" and function.__name__ == "_write":
            return "No space left on device"
        if network.disk == "broken":
            raise RuntimeError("can't start new thread")
        return function(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence.EvidenceFiles, "_in_thread", write)
        patch.setattr(owner_proofs, "ThisMachine", lambda: machine)
        for module in (sources, parsing, daytona, docker, owner_proofs):
            patch.setattr(module, "datetime", _virtual(clock))
        patch.setattr(uses, "time", SimpleNamespace(time=lambda: clock.now().timestamp()))
        patch.setattr(journal, "_wait", wait)
        patch.setattr(retrier, "random", network.random)
        patch.setattr(endpoint_worker, "gc", SimpleNamespace(collect=lambda: 0))  # half a second of this process each time
        patch.setattr(watcher, "ROUND", 4.0)  # fewer looks at the holders; still less than a process that stands still
        patch.setattr(connector.UnixConnector, "_create_connection", unix)
        patch.setattr(connector.TCPConnector, "_create_connection", tcp)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
        yield
