"""What the service has to do with leases: it keeps the book, answers those who hold some, and sweeps when one has ended."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import anyio

from reaper import host
from reaper.config.secrets import lease_token, ryuk_secret
from reaper.config.service_tables import LeasesTable, RyukTable
from reaper.errors import ConfigError, LeasesUnknownError
from reaper.leases.http_api import LeaseApi
from reaper.leases.local_socket import LocalSocket
from reaper.leases.peers import uid_of
from reaper.leases.record import LeaseRecord, LeaseState
from reaper.leases.ryuk_server import Ryuk
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from reaper.leases.watcher import LeaseBook
from reaper.liveness import Alive, lock_file, new_token
from reaper.paths import NOWHERE, sockets_to_listen_on
from reaper.providers.base import Provider
from reaper.service.reporter import Reporter
from reaper.service.status import SHOWN_LEASES, OpenLease
from reaper.sweep import connect
from reaper.sweep.sweep import Endpoint

RETRY = 5.0  # seconds until it is tried again to open the book
COUNT_EVERY = 5.0  # seconds
IDENTIFY_WITHIN = 5.0  # seconds for all endpoints to say which they are


class Leasing:
    """The service's book of leases.

    Args:
        folder: the state directory.
        table: what is configured.
        env: where the token may be.
        reporter: its log, metrics and status get every change.
        ended: is called when a lease has ended: what it covered is garbage now.
        endpoints: gives those that the service sweeps: for them leases are granted.
        ryuk: whether and where the Ryuk protocol is spoken.

    Raises ConfigError when the token or the secret is named and not there, and for trusted users that do not exist.
    """

    def __init__(
        self,
        folder: Path,
        table: LeasesTable,
        env: Mapping[str, str],
        reporter: Reporter,
        ended: Callable[[], None],
        *,
        endpoints: Callable[[], Sequence[Endpoint]],
        ryuk: RyukTable,
    ) -> None:
        self._path = folder / NAME
        self._clock, self._log = reporter.clock, reporter.log
        self._metrics, self._status = reporter.metrics, reporter.status
        self._ended = ended
        self._claimable, self._max_age = table.claimable, table.max_age
        self._token = lease_token(table, env)
        self._trusted = _known(table.trusted_users)
        self._endpoints = endpoints
        paths = sockets_to_listen_on(env) if table.socket is None else (table.socket,)
        named = table.socket is not None
        self._local = (
            None
            if table.socket == NOWHERE
            else LocalSocket(lambda: self.api, paths, named=named, log=self._log, trusted=self._trusted)
        )
        self._problem: str | None = "it has not been opened yet"
        self._alive: Alive | None = None
        self.book: LeaseBook | None = None
        self.api: LeaseApi | None = None
        self.ryuk: Ryuk | None = None
        self._ryuk_address = ryuk.address
        if ryuk.address is not None:
            secret, count = ryuk_secret(ryuk, env), reporter.metrics.ryuk_refused
            self.ryuk = Ryuk(lambda: self.book, table.claimable, reporter.log, secret=secret, refused=count)
        self._count((), {})

    async def listen(self) -> None:
        """Listen on the local socket and for Ryuk's clients, where that is wanted. Raises ConfigError when it cannot."""
        if self._local is not None:
            with suppress(OSError):  # which the book reports
                self._make_folder()
            await self._local.open()
        if self.ryuk is not None and self._ryuk_address is not None:
            await self.ryuk.start(*self._ryuk_address)

    async def run(self) -> None:
        """Open the book, however long that takes, and watch those who hold leases. A bug in that costs it a few seconds."""
        if not host.boot_id():
            problem = "a restart leaves all open leases open for good, max_age ends none, and no owner is proven to be dead"
            hint = "leave ProcSubset=pid out of the unit"
            self._log.warning("boot_id_unreadable", file=host.BOOT_ID, problem=problem, hint=hint)
        async with anyio.create_task_group() as group:
            if self._local is not None:
                group.start_soon(self._local.run, name="look after the local socket")
            # A lease is granted for endpoints: none is while their ids are unknown, but for those that are down.
            with anyio.move_on_after(IDENTIFY_WITHIN):
                await connect.identify(self._endpoints())
            await self._keep()

    async def _keep(self) -> None:
        while True:
            try:
                if (book := self._open()) is not None:
                    await self._watch(book)
            except Exception as error:  # noqa: BLE001 - the service goes on; the holders get whole windows again
                self._log.error("internal_error", error=f"{type(error).__name__}: {error}", exc_info=error)
            self._let_go()
            await anyio.sleep(RETRY)

    def _let_go(self) -> None:
        self.close_connections()  # who holds a lease by one has the next book know it
        if self.book is not None:
            self.book.close()
        self.book = self.api = None

    async def _watch(self, book: LeaseBook) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(book.run, name="watch those who hold leases")
            while True:
                with suppress(LeasesUnknownError):  # which the book reports
                    self._count(book.open_records(), book.states())
                    self._problem = self._status.leases_error = None
                    self._metrics.leases_unknown(False)  # noqa: FBT003 - the value itself
                self._stay_alive()
                await anyio.sleep(COUNT_EVERY)

    def _stay_alive(self) -> None:
        """Hold the lock although its file was removed: without it others take this process for dead, and its leases over."""
        if self._alive is not None and not self._alive.is_current():
            with suppress(OSError):  # it is tried again
                before, self._alive = self._alive, Alive(lock_file(self._path), self._alive.token)
                before.close()

    def _lives(self, token: int) -> bool | None:
        return None if self._alive is None else self._alive.lives_or_unknown(token)

    def close_connections(self) -> None:
        """Tell those who hold a lease by an open connection that it ends: no server waits for them then."""
        if self.api is not None:
            self.api.close_connections()

    async def close(self) -> None:
        """Let go: another process may watch from now on."""
        if self.ryuk is not None:
            await self.ryuk.close()
        if self._local is not None:
            await self._local.close()
        self._let_go()
        if self._alive is not None:
            self._alive.close()

    def _count(self, opened: Sequence[LeaseRecord], states: Mapping[LeaseState, int]) -> None:
        self._status.leases = tuple(_shown(record) for record in opened[:SHOWN_LEASES])
        self._status.leases_open = len(opened)
        oldest = min((record.since for record in opened), default=None)
        age = None if oldest is None else (self._clock() - oldest).total_seconds()
        self._metrics.leases({state.value: states.get(state, 0) for state in LeaseState}, max(age or 0.0, 0.0))

    def _open(self) -> LeaseBook | None:
        try:
            self._make_folder()
            self._alive = self._alive or Alive(lock_file(self._path), new_token())
            token, lives = self._alive.token, self._lives
            ids = lambda: connect.ids(self._endpoints())  # noqa: E731
            book = LeaseBook(
                LeaseFile(self._path), self._clock, self, token=token, lives=lives, endpoints=ids, max_age=self._max_age
            )
            book.open()
        except OSError as error:
            self.failed(LeasesUnknownError(f"the leases in {self._path} cannot be watched: {error.strerror or error}"))
            return None
        except LeasesUnknownError as error:
            self.failed(error)
            return None
        self.api = LeaseApi(
            book, token=self._token, claimable=self._claimable, trusted=self._trusted, endpoints=self._cleaned_up
        )
        self.book = book
        return book

    def _cleaned_up(self) -> list[str]:
        """The identities of what it deletes from when a lease ends: a dry run from nothing, and a run has its own guard."""
        return [endpoint.reader.identity for endpoint in self._endpoints() if isinstance(endpoint.reader, Provider)]

    def _make_folder(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)

    # -- events of the book ---------------------------------------------------------------------------------------------

    def changed(self, record: LeaseRecord) -> None:
        """See ``watcher.LeaseListener``."""
        covers = " or ".join(map(str, record.claims))
        about = {"lease": record.id, "holder": str(record.holder), "user": record.holder.user, "covers": covers}
        if record.state.ended:
            self._log.info(f"lease_{record.state}", **about, cause=record.cause)
            self._ended()
        else:
            self._log.info(f"lease_{record.state}", **about)

    def failed(self, error: LeasesUnknownError) -> None:
        """See ``watcher.LeaseListener``. Said once for each problem: it is tried again every second."""
        self._metrics.leases_unknown(True)  # noqa: FBT003
        self._status.leases_error = str(error)
        if str(error) != self._problem:
            self._problem = str(error)
            self._log.error("leases_unknown", problem=str(error))


def _known(users: Sequence[str]) -> frozenset[int]:
    """The numbers of users. Raises ConfigError for one that does not exist on this machine."""
    found = set()
    for user in users:
        try:
            found.add(uid_of(user))
        except KeyError:
            hint = "name one that `getent passwd` shows here, or write the user's number"
            raise ConfigError(f"this machine has no user {user!r}", hint, "[leases] trusted_users") from None
    return frozenset(found)


def _shown(record: LeaseRecord) -> OpenLease:
    holder = record.holder
    covers = tuple(str(claim) for claim in record.claims)
    waiting = record.state is LeaseState.RECONNECTING
    return OpenLease(record.id, str(holder), holder.user, holder.command, covers, record.since, waiting)
