"""What the service has to do with leases: it keeps the book, answers those who hold some, and sweeps when one has ended."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from reaper.alive import Alive, lock_file, new_token
from reaper.credentials import lease_token
from reaper.errors import LeasesUnknownError
from reaper.leaseapi import LeaseApi
from reaper.leasebook import LeaseBook
from reaper.leasedb import LeaseFile, LeaseRecord
from reaper.leases import NAME
from reaper.settings import LeasesTable

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

RETRY = 5.0  # seconds until it is tried again to open the book


class Leasing:
    """The service's book of leases.

    Args:
        folder: the state directory.
        table: what is configured.
        env: where the token may be.
        clock: returns the aware time in UTC.
        log: where every change is told.
        ended: is called when a lease has ended: what it covered is garbage now.

    Raises ConfigError when the token is named and not there.
    """

    def __init__(
        self,
        folder: Path,
        table: LeasesTable,
        env: Mapping[str, str],
        clock: Callable[[], datetime],
        log: "FilteringBoundLogger",
        ended: Callable[[], None],
    ) -> None:
        self._path = folder / NAME
        self._clock = clock
        self._log = log
        self._ended = ended
        self._claimable = table.claimable
        self._token = lease_token(table, env)
        self._problem: str | None = "it has not been opened yet"
        self._alive: Alive | None = None
        self.book: LeaseBook | None = None
        self.api: LeaseApi | None = None

    async def run(self) -> None:
        """Open the book, however long that takes, and watch those who hold leases."""
        while not self._open():
            await anyio.sleep(RETRY)
        assert self.book is not None
        await self.book.run()

    def close(self) -> None:
        """Let go: another process may watch from now on."""
        if self._alive is not None:
            self._alive.close()

    def _open(self) -> bool:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            token = new_token()
            self._alive = self._alive or Alive(lock_file(self._path), token)
            book = LeaseBook(LeaseFile(self._path), self._clock, self, token=self._alive.token, lives=self._lives)
            book.open()
        except OSError as error:
            self.failed(LeasesUnknownError(f"the leases in {self._path} cannot be watched: {error.strerror or error}"))
            return False
        except LeasesUnknownError as error:
            self.failed(error)
            return False
        self.book, self.api = book, LeaseApi(book, token=self._token, claimable=self._claimable)
        return True

    def _lives(self, token: int) -> bool | None:
        """Whether the process with the token is alive; None when somebody has replaced the file that tells."""
        assert self._alive is not None
        return self._alive.lives(token) if self._alive.is_current() else None

    # -- what the book tells -------------------------------------------------------------------------------------------

    def changed(self, record: LeaseRecord) -> None:
        """See ``leasebook.Told``."""
        self._problem = None
        about = {"lease": record.id, "holder": str(record.holder), "user": record.holder.user}
        if record.state.ended:
            self._log.info(f"lease_{record.state}", **about, cause=record.cause)
            self._ended()
        else:
            self._log.info(f"lease_{record.state}", **about)

    def failed(self, error: LeasesUnknownError) -> None:
        """See ``leasebook.Told``. Said once for each problem: it is tried again every second."""
        if str(error) != self._problem:
            self._problem = str(error)
            self._log.error("leases_unknown", problem=str(error))
