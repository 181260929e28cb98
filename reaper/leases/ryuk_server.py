"""Speaks the Ryuk protocol, which every library of Testcontainers does: the open connection is the lease.

There is one lease for each distinct set of filters, and not one for all: what a dead client made goes although another one
lives, and clients that name the same filters hold one lease together. A line is answered with ACK when its lease is on the
disk, and not at all when it was not understood, is not allowed or cannot be stored: without an ACK a client is not covered.
"""

import hmac
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import anyio
import anyio.abc
from anyio.abc import SocketAttribute

from reaper.core.lease import Claim
from reaper.errors import LeasesUnknownError
from reaper.leases.connection_limits import Room
from reaper.leases.http_api import MOST
from reaper.leases.listening import explained
from reaper.leases.record import Holder, Liveness
from reaper.leases.ryuk_protocol import LineError, Lines, claim_of, is_http, lease_id
from reaper.leases.watcher import LeaseBook
from reaper.paths import RYUK_LISTEN

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

ACK = b"ACK\n"
MOST_CLIENTS = 1000  # connections at once, where the process may have so many
SHARE = 0.25  # of the connections that this process may have
MOST_OF_ONE = 100  # leases that one connection holds
FIRST_LINE_WITHIN = 60.0  # seconds in which a client has to name something
SECRET_WITHIN = 10.0  # seconds in which a client has to show the secret, where one is wanted
ROUND = 1.0  # seconds between two looks whether the book is still the same
MOST_LOGGED = 10  # refused lines of one connection that are logged one by one
_CHUNK = 4096
_SECRET = b"secret="
# A peer that vanished without a word is noticed after about half a minute: the protocol has no sign of life of its own.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class _NoClientError(Exception):
    """What connected is no client: it did not begin with the secret, or speaks HTTP. Nothing more of it is read."""


@dataclass(frozen=True, slots=True)
class _Named:
    """What was named, and which client did so first."""

    claim: Claim
    holder: Holder


@dataclass
class _Client:
    """A connection."""

    stream: anyio.abc.SocketStream
    peer: str
    proven: bool
    leases: set[str] = field(default_factory=set)
    refused: int = 0
    limit: anyio.CancelScope | None = None


class Ryuk:
    """The server.

    Args:
        book: where the leases stand; None while it cannot be written. It may be another one later.
        claimable: globs of the label keys that clients may claim by.
        log: gets the refusals.
        secret: what each client must send first; None where none is needed.
        where: the key or variable that holds the address.
        refused: is called for each line that gets no ACK.
        sessions_since: from when on a claim by a session's own id covers what carries it; from its line on when None.
    """

    def __init__(
        self,
        book: Callable[[], LeaseBook | None],
        claimable: Sequence[str],
        log: "FilteringBoundLogger",
        *,
        secret: str | None = None,
        where: str = "[ryuk] listen",
        refused: Callable[[], None] = lambda: None,
        sessions_since: datetime | None = None,
    ) -> None:
        self._book = book
        self._claimable = claimable
        self._log = log
        self._secret = None if secret is None else _SECRET + secret.encode()
        self._where = where
        self._refused = refused
        self._sessions_since = sessions_since
        self._listeners: Sequence[anyio.abc.Listener[anyio.abc.SocketStream]] = ()
        self._held: dict[str, tuple[_Named, set[int]]] = {}  # by lease; with the clients that named it
        self._gone: set[str] = set()  # leases that no client names any more, while the book cannot be written
        self._followed: LeaseBook | None = None
        self._accepting: anyio.CancelScope | None = None  # a scope belongs to a loop, which is not there yet
        self._running: anyio.CancelScope | None = None
        self._refuses = False
        self._ended = anyio.Event()
        self.clients = 0
        self._talking: dict[int, _Client] = {}  # the oldest first, but for those whose connection is closed
        self._crowded = False
        self.served = 0
        self.seen: set[str] = set()
        self.quiet_since = 0.0

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that it listens on."""
        return tuple(each.extra(SocketAttribute.local_port) for each in self._listeners)  # noqa: S610 - it is anyio's

    @property
    def connected(self) -> frozenset[str]:
        """The leases that open connections have named."""
        return frozenset(self._held)

    # -- its life ------------------------------------------------------------------------------------------------------

    async def start(self, host: str | None, port: int, inherited: socket.socket | None = None) -> None:
        """Listen; ``run`` answers.

        Args:
            host: the address; None for all of this machine's.
            port: its port; 0 takes one that is free.
            inherited: listens already, in place of both.

        Raises:
            ConfigError: it cannot listen there.
        """
        self.quiet_since = anyio.current_time()
        if inherited is not None:
            self._listeners = (await anyio.abc.SocketListener.from_socket(inherited),)
            return
        with explained(host or "", port, self._where, RYUK_LISTEN):
            multi = await anyio.create_tcp_listener(local_host=host, local_port=port)
        self._listeners = multi.listeners

    async def run(self) -> None:
        """Answer the clients that connect, until it is closed."""
        try:
            async with anyio.create_task_group() as group:
                self._running = group.cancel_scope
                group.start_soon(self._follow, name="follow the book of leases")
                with anyio.CancelScope() as self._accepting:
                    if self._refuses:
                        self._accepting.cancel()
                    async with anyio.create_task_group() as accepting:
                        for listener in self._listeners:
                            accepting.start_soon(self._accept, listener, group, name="accept Ryuk's clients")
                await self._close_listeners()
        finally:
            self._running = None
            self._ended.set()

    def refuse_new(self) -> None:
        """Take no new connection; those that are open go on."""
        self._refuses = True
        if self._accepting is not None:
            self._accepting.cancel()

    async def close(self) -> None:
        """End all connections. Their leases stand as those of clients that are waited for."""
        if self._running is not None:
            self._running.cancel()
            await self._ended.wait()
        await self._close_listeners()

    async def _close_listeners(self) -> None:
        with anyio.CancelScope(shield=True):
            for listener in self._listeners:
                await listener.aclose()

    async def _accept(self, listener: anyio.abc.Listener[anyio.abc.SocketStream], group: anyio.abc.TaskGroup) -> None:
        logged: str | None = None
        while True:
            try:
                await listener.serve(self._serve, group)
            except anyio.ClosedResourceError:
                return
            except OSError as error:  # a client was gone before it was here, or there are too many open files
                if str(error) != logged:  # said once for each problem: it is tried again every second
                    logged = str(error)
                    self._log.warning("ryuk_accept_failed", error=logged)
                await anyio.sleep(ROUND)

    async def _follow(self) -> None:
        """Update the book with what it could not be given at the time, and a new one with everything."""
        while True:
            await anyio.sleep(ROUND)
            if (book := self._book()) is not None:
                with suppress(LeasesUnknownError):  # which the book reports; it is tried again
                    self._update_book(book)

    def _update_book(self, book: LeaseBook) -> None:
        if book is not self._followed:
            for id_, (named, _) in tuple(self._held.items()):
                try:
                    self._take(book, id_, named)
                except LineError as error:
                    self._log.error("ryuk_lease_lost", lease=id_, problem=str(error))
            self._followed = book
        for id_ in tuple(self._gone):
            book.lost(id_)
            self._gone.discard(id_)

    # -- a client ------------------------------------------------------------------------------------------------------

    async def _serve(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            peer = _peer(stream)
            if self.clients >= (most := min(MOST_CLIENTS, Room.share(SHARE).most)) and not self._make_room():
                if not self._crowded:  # said once, until there is room again
                    self._crowded = True
                    self._log.error("ryuk_client_refused", peer=peer, problem=f"{most} connections are open already")
                return
            _keep_alive(stream)
            client = _Client(stream, peer, proven=self._secret is None)
            self.clients += 1
            self.served += 1
            self._log.debug("ryuk_client_connected", peer=peer, clients=self.clients)
            try:
                await self._talk(client)
            except TimeoutError:
                self._refused()
                what, limit = ("line", FIRST_LINE_WITHIN) if client.proven else ("secret", SECRET_WITHIN)
                self._log.error("ryuk_client_refused", peer=peer, problem=f"no {what} within {limit:g} s")
            except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                pass  # it is gone
            except _NoClientError as error:
                self._refused()
                self._log.error("ryuk_client_refused", peer=peer, problem=str(error))
            except Exception as error:  # noqa: BLE001 - it costs this client its connection, and no other
                self._log.error("internal_error", error=f"{type(error).__name__}: {error}", exc_info=error)
            finally:
                self._talking.pop(id(client), None)
                self.clients -= 1
                self._crowded = self._crowded and self.clients >= most // 2
                self.quiet_since = anyio.current_time()
                for id_ in client.leases:
                    self._let_go(client, id_)
                self._log.debug("ryuk_client_gone", peer=peer, clients=self.clients)

    def _make_room(self) -> bool:
        """Close the connection of the client that has named nothing for longest, if there is one."""
        client = next((client for client in self._talking.values() if not client.leases), None)
        if client is None or client.limit is None:
            return False
        del self._talking[id(client)]
        client.limit.cancel()
        return True

    async def _talk(self, client: _Client) -> None:
        lines, began = Lines(), anyio.current_time()
        with anyio.fail_after(FIRST_LINE_WITHIN if client.proven else SECRET_WITHIN) as limit:
            client.limit = limit
            self._talking[id(client)] = client
            try:
                while True:
                    for line in lines.feed(await client.stream.receive(_CHUNK)):
                        if limit.cancel_called:
                            return  # it was closed while this was under way: no lease begins now
                        await self._answer(client, line)
                        if client.leases:
                            limit.deadline = float("inf")
                        elif client.proven:
                            limit.deadline = began + FIRST_LINE_WITHIN
            except anyio.EndOfStream:
                if lines.unfinished:
                    self._refuse(client, "it does not end with a line break, so it may have been cut off")

    async def _answer(self, client: _Client, line: bytes | None) -> None:
        if not client.proven:
            assert self._secret is not None
            if line is None or not hmac.compare_digest(line, self._secret):
                raise _NoClientError("its first line is not secret=VALUE with the secret of [ryuk]")
            client.proven = True
        elif line is not None and is_http(line):
            raise _NoClientError("it speaks HTTP, as a browser does, and not the Ryuk protocol")
        elif not line and line is not None:
            return
        else:
            try:
                self._name(client, line)
            except (LineError, LeasesUnknownError) as error:
                self._refuse(client, str(error))
                return
        await client.stream.send(ACK)

    def _refuse(self, client: _Client, why: str) -> None:
        """Tell of a line that gets no ACK; of one client's not more than a few."""
        self._refused()
        client.refused += 1
        if client.refused < MOST_LOGGED:
            self._log.error("ryuk_line_refused", peer=client.peer, problem=why)
        elif client.refused == MOST_LOGGED:
            self._log.error("ryuk_line_refused", peer=client.peer, problem=why, further="of this client are not logged")

    # -- its leases ----------------------------------------------------------------------------------------------------

    def _name(self, client: _Client, line: bytes | None) -> None:
        """Take a lease for a client's line. Raises LineError, LeasesUnknownError."""
        if line is None:
            raise LineError("it is too long")
        claim = claim_of(line, self._claimable)
        id_ = lease_id(claim)
        if id_ not in client.leases and len(client.leases) >= MOST_OF_ONE:
            raise LineError(f"this connection holds {MOST_OF_ONE} leases already")
        if (book := self._book()) is None:
            raise LeasesUnknownError("the leases cannot be written at the moment")
        named = self._held[id_][0] if id_ in self._held else _Named(claim, Holder(host=client.peer.rpartition(":")[0]))
        try:
            self._take(book, id_, named)
        except LeasesUnknownError:
            if id_ not in self._held:
                self._gone.add(id_)  # the book may be waiting for no client now
            raise
        self._gone.discard(id_)
        if not self._held:
            self._followed = book  # it has all that there is
        self._held.setdefault(id_, (named, set()))[1].add(id(client))
        self.seen.add(id_)
        client.leases.add(id_)

    def _take(self, book: LeaseBook, id_: str, named: _Named) -> None:
        """Have the book know that the lease lives. Raises LineError, LeasesUnknownError."""
        there = book.find(id_)
        if there is not None and (there.sort is not Liveness.CONNECTION or there.claims != (named.claim,)):
            raise LineError(f"lease {id_} is there already, and is another one")
        if there is not None and book.heard(id_) is not None:
            return
        before = book.known(id_)
        if before is not None and not before.state.ended:
            raise LineError(f"lease {id_} is held by another process that shares the state directory")
        if before is not None and before.ended_by:
            raise LineError(f"lease {id_} was ended by {before.ended_by}: {before.cause}")
        if len(book.open_records()) >= MOST:
            raise LineError(f"{MOST} leases are open already")
        # A session that comes back late has not forgotten what it made before. Other labels may be on others' things since.
        since = None
        if named.claim.of_one_session:
            since = before.since if before is not None else self._sessions_since
        book.take(Liveness.CONNECTION, named.holder, [named.claim], name=id_, since=since)

    def _let_go(self, client: _Client, id_: str) -> None:
        _, clients = self._held[id_]
        clients.discard(id(client))
        if clients:
            return
        del self._held[id_]
        self._gone.add(id_)
        if (book := self._book()) is not None:
            with suppress(LeasesUnknownError):  # it is tried again
                book.lost(id_)
                self._gone.discard(id_)


def _peer(stream: anyio.abc.SocketStream) -> str:
    address = stream.extra(SocketAttribute.remote_address, "?")  # noqa: S610
    if not isinstance(address, tuple):
        return str(address)
    return f"{str(address[0]).removeprefix('::ffff:')}:{address[1]}"  # as IPv6 sockets show IPv4's


def _keep_alive(stream: anyio.abc.SocketStream) -> None:
    raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610
    with suppress(OSError):  # it is gone already
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            raw.setsockopt(socket.IPPROTO_TCP, option, value)
