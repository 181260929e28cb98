"""The server of the Ryuk protocol on real sockets, with a book in a file and windows that pass quickly."""

from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import structlog

from reaper.config.service_tables import LeasesTable
from reaper.errors import LeasesUnknownError
from reaper.leases.record import LeaseRecord, LeaseState
from reaper.leases.ryuk_protocol import claim_of, lease_id
from reaper.leases.ryuk_server import Ryuk
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from reaper.leases.watcher import LeaseBook

CLAIMABLE = LeasesTable().claimable
WINDOW = timedelta(milliseconds=300)
LIMIT = 60.0  # seconds for anything that is waited for
SILENCE = 0.1  # seconds without an ACK, where none is to come


def line(session: str) -> bytes:
    """As Python's library sends it."""
    return f"label=org.testcontainers.session-id={session}".encode()


def lease(session: str) -> str:
    """The id of a session's lease."""
    return lease_id(claim_of(line(session), CLAIMABLE))


class Client:
    """One connection."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.stream = stream

    async def send(self, text: bytes, end: bytes = b"\n") -> None:
        await self.stream.send(text + end)

    async def acks(self, number: int = 1) -> None:
        """Wait for so many answers."""
        with anyio.fail_after(LIMIT):
            found = b""
            while len(found) < number * 4:
                found += await self.stream.receive(number * 4 - len(found))
        assert found == b"ACK\n" * number

    async def named(self, session: str) -> "Client":
        """Name a session, and wait until it is understood."""
        await self.send(line(session))
        await self.acks()
        return self

    async def silent(self) -> None:
        """No answer comes, though the connection is open."""
        with anyio.move_on_after(SILENCE):
            raise AssertionError(f"it said {await self.stream.receive()!r}")

    async def ended(self) -> None:
        """Wait until the other side closes."""
        with anyio.fail_after(LIMIT):
            try:
                raise AssertionError(f"it said {await self.stream.receive()!r}")
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass

    async def close(self) -> None:
        await self.stream.aclose()


class House:
    """A server, its book and what it told."""

    def __init__(self, folder: Path, *, token: int = 1, secret: str | None = None) -> None:
        self.file = LeaseFile(folder / NAME)
        self.token = token
        self.living = {token}  # the processes that watch holders
        self.log: list[MutableMapping[str, Any]] = []
        self.refused = 0
        self.failures: list[str] = []
        self.clients: list[Client] = []
        logger = structlog.wrap_logger(None, processors=[self._keep], wrapper_class=structlog.BoundLogger)
        self.book: LeaseBook | None = None
        self.server = Ryuk(lambda: self.book, CLAIMABLE, logger, secret=secret, refused=self._count)

    def _keep(self, _: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        self.log.append({**event, "level": method})
        raise structlog.DropEvent

    def _count(self) -> None:
        self.refused += 1

    def changed(self, record: LeaseRecord) -> None:
        """See ``watcher.LeaseListener``."""

    def failed(self, error: LeasesUnknownError) -> None:
        """See ``watcher.LeaseListener``."""
        self.failures.append(str(error))

    def open(self) -> LeaseBook:
        """A book; those whom an earlier one watched get a window."""
        book = LeaseBook(
            self.file,
            lambda: datetime.now(UTC),
            self,
            token=self.token,
            lives=lambda token: token in self.living,
            connection=WINDOW,
        )
        book.open()
        return book

    @asynccontextmanager
    async def serving(self, *, closed: bool = False) -> AsyncIterator["House"]:
        """Serve; without a book if it is ``closed``."""
        await self.server.start("127.0.0.1", 0)
        async with anyio.create_task_group() as group:
            self.group = group
            if not closed:
                self.begin()
            group.start_soon(self.server.run)
            yield self
            await self.server.close()
            for client in self.clients:
                await client.close()
            self.file.close()
            group.cancel_scope.cancel()

    def begin(self) -> None:
        """Open the book, in place of the one that there was."""
        self.book = self.open()
        self.group.start_soon(self.book.run)

    async def client(self) -> Client:
        self.clients.append(Client(await anyio.connect_tcp("127.0.0.1", self.server.ports[0])))
        return self.clients[-1]

    def records(self) -> Sequence[LeaseRecord]:
        """What is on the disk."""
        file = LeaseFile(self.file.file)
        try:
            return file.records()
        finally:
            file.close()

    def record(self, session: str) -> LeaseRecord:
        return next(record for record in self.records() if record.id == lease(session))

    def states(self, *sessions: str) -> list[LeaseState]:
        return [self.record(session).state for session in sessions]

    def told(self, event: str) -> list[MutableMapping[str, Any]]:
        return [entry for entry in self.log if entry["event"] == event]


async def until(reached: Callable[[], bool], what: str) -> None:
    """Wait for something."""
    with anyio.move_on_after(LIMIT):
        while not reached():  # noqa: ASYNC110 - it is the file that tells
            await anyio.sleep(0.01)
        return
    raise AssertionError(f"waited {LIMIT:g} s for {what}")
