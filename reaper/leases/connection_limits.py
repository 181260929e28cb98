"""Bounds the connections to a server: so many in all, so many of one user, and none that says nothing for long.

Any client could else use up the descriptors of the process, without which it neither sweeps nor hears of a holder's
death. A door that is full closes the connection that has said nothing for longest, so that a health check gets in.
"""

import asyncio
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.typedefs import Handler

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

HEAD_WITHIN = 10.0  # seconds in which a connection has to send its request, after it was made and after each answer
RESERVED = 256  # descriptors at least, for sweeps, files and whatever else the process does
ACCEPTED_AT_ONCE = 16  # connections in one turn of the loop: those that are refused have their descriptors for a few turns
WAITING = 512  # that may wait to be accepted
_FEWEST = 16

Protocol = Callable[[], asyncio.BaseProtocol]
Connection = asyncio.BaseTransport


@dataclass(frozen=True, slots=True)
class Room:
    """How many connections there may be.

    Args:
        most: in all.
        untrusted: of users who are not trusted, together.
        of_one: of one of those.
    """

    most: int
    untrusted: int
    of_one: int

    @classmethod
    def share(cls, part: float) -> "Room":
        """This part of the descriptors that the process may have, but for those that it needs itself."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = max(soft - max(RESERVED, soft // 4), 0) if soft != resource.RLIM_INFINITY else 1_000_000
        most = max(int(free * part), _FEWEST)
        return cls(most, most * 3 // 4, most // 4)


@dataclass
class _Entry:
    """An open connection.

    Args:
        user: who made it, where the kernel says so.
        since: when it began to do what it does, on the loop's clock.
        busy: whether a request is being answered.
        held: whether it is a lease.
    """

    user: int | None
    since: float
    busy: bool = False
    held: bool = False
    timer: asyncio.TimerHandle | None = None


class Door:
    """The connections to one server.

    Args:
        name: for the log.
        room: how many there may be.
        log: gets one event when connections are refused, and another only after there was room.
        user: who made a connection; None where that is unknown.
        trusted: whether that user is bounded by the room alone.
    """

    def __init__(
        self,
        name: str,
        room: Room,
        log: "FilteringBoundLogger",
        *,
        user: Callable[[Connection], int | None] = lambda _: None,
        trusted: Callable[[int | None], bool] = lambda _: True,
    ) -> None:
        self.room = room
        self._name = name
        self._log = log
        self._user = user
        self._trusted = trusted
        self._open: dict[Connection, _Entry] = {}
        self._of: Counter[int | None] = Counter()
        self._logged: set[str] = set()

    def admit(self, connection: Connection) -> bool:
        """Whether a new connection may stay: perhaps in the place of one that says nothing."""
        user = self._user(connection)
        trusted = self._trusted(user)
        if not trusted and self._of[user] >= self.room.of_one:
            if not self._make_room(lambda entry: entry.user == user):
                return self._refuse(f"user {user} has {self.room.of_one} connections open already")
        elif not trusted and self._untrusted >= self.room.untrusted:
            if not self._make_room(lambda entry: not self._trusted(entry.user)):
                return self._refuse(f"{self.room.untrusted} connections of users who are not trusted are open already")
        elif len(self._open) >= self.room.most and not self._make_room(lambda _: True):
            return self._refuse(f"{self.room.most} connections are open already")
        self._open[connection] = _Entry(user, 0.0)
        self._of[user] += 1
        self._idle(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """A connection is gone."""
        entry = self._open.pop(connection, None)
        if entry is None:
            return
        if entry.timer is not None:
            entry.timer.cancel()
        self._of[entry.user] -= 1
        if not self._of[entry.user]:
            del self._of[entry.user]
        if len(self._open) < self.room.most // 2:
            self._logged.clear()

    @contextmanager
    def busy(self, connection: Connection | None) -> Iterator[None]:
        """While a request on the connection is answered it may take its time."""
        entry = None if connection is None else self._open.get(connection)
        if entry is None or connection is None:
            yield
            return
        if entry.timer is not None:
            entry.timer.cancel()
        entry.busy, entry.since = True, asyncio.get_running_loop().time()
        try:
            yield
        finally:
            entry.busy = entry.held = False
            if connection in self._open:
                self._idle(connection)

    def may_hold(self, connection: Connection | None) -> bool:
        """Whether the connection may be a lease, and stay: where nothing else gets in no heartbeat arrives either."""
        if sum(entry.held for entry in self._open.values()) >= self.room.most * 3 // 4:
            return False
        if connection is not None and (entry := self._open.get(connection)) is not None:
            entry.held = True
        return True

    @property
    def _untrusted(self) -> int:
        return sum(number for user, number in self._of.items() if not self._trusted(user))

    def _idle(self, connection: Connection) -> None:
        entry, loop = self._open[connection], asyncio.get_running_loop()
        entry.since = loop.time()
        entry.timer = loop.call_later(HEAD_WITHIN, self._close, connection)

    def _make_room(self, among: Callable[[_Entry], bool]) -> bool:
        """Close the connection that has said nothing for longest, or else that reads its answer too slowly."""
        now = asyncio.get_running_loop().time()
        there = [(connection, entry) for connection, entry in self._open.items() if among(entry) and not entry.held]
        candidates = [(connection, entry) for connection, entry in there if not entry.busy] or [
            (connection, entry) for connection, entry in there if now - entry.since > HEAD_WITHIN
        ]
        if not candidates:
            return False
        self._report("crowded", "it is full, so what says nothing is closed early")
        self._close(min(candidates, key=lambda found: found[1].since)[0])
        return True

    def _close(self, connection: Connection) -> None:
        self.leave(connection)
        if isinstance(connection, asyncio.Transport):
            connection.abort()

    def _refuse(self, problem: str) -> bool:
        self._report(problem, problem)
        return False

    def _report(self, key: str, problem: str) -> None:
        """Once for each problem, until there is room again: thousands may knock in a second."""
        if key not in self._logged:
            self._logged.add(key)
            self._log.warning("connections_limited", server=self._name, problem=problem)


class _Guarded(asyncio.Protocol):
    """Passes on what a connection says, if it may stay."""

    def __init__(self, door: Door, inner: asyncio.Protocol) -> None:
        self._door, self._inner = door, inner
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._door.admit(transport):
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
            return
        self._transport = transport
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._door.leave(self._transport)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._inner.resume_writing()


DOOR = web.AppKey("DOOR", Door)


class GuardedRunner(web.AppRunner):
    """A runner whose connections go through a door, which handlers find in ``request.config_dict`` under ``DOOR``.

    Args:
        app: what answers; it is not started yet.
        door: bounds its connections.
        shutdown_timeout: seconds that answers under way get when it is closed.
    """

    def __init__(self, app: web.Application, door: Door, *, shutdown_timeout: float) -> None:
        app[DOOR] = self._door = door
        app.middlewares.insert(0, self._busy)
        super().__init__(app, access_log=None, shutdown_timeout=shutdown_timeout)

    @property
    def server(self) -> "web.Server | None":
        """What its sites make protocols with."""
        inner = super().server
        if inner is None:
            return None
        return lambda: _Guarded(self._door, inner())  # type: ignore[return-value]  # it is called, no more

    async def listen(self, site: web.BaseSite) -> None:
        """Start a site of this runner, made with the backlog ``ACCEPTED_AT_ONCE``. Raises OSError."""
        await site.start()
        server = site._server  # noqa: SLF001 - nothing else has the sockets of an address
        assert isinstance(server, asyncio.Server)
        for listening in server.sockets:
            with listening.dup() as same:
                same.listen(WAITING)

    @web.middleware
    async def _busy(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        with self._door.busy(request.transport):
            return await handler(request)
