"""The service's book of leases, when a bug ends its watch, and when it cannot tell which boot this is."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from reaper import host
from reaper.config.service_tables import LeasesTable, RyukTable
from reaper.leases import watcher
from reaper.leases.record import LeaseState
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from reaper.leases.watcher import LeaseBook
from reaper.library.lease import lease
from reaper.service import lease_server
from reaper.service.lease_server import Leasing
from reaper.service.reporter import Reporter
from tests.library.service import Log

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def bugs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is in it is raised at the next look at the holders."""
    bugs: list[str] = []
    look = LeaseBook._look

    def looks(self: LeaseBook, now: float) -> None:
        if bugs:
            raise KeyError(bugs.pop())
        look(self, now)

    monkeypatch.setattr(LeaseBook, "_look", looks)
    monkeypatch.setattr(watcher, "ROUND", 0.02)
    monkeypatch.setattr(watcher, "RESTART_WINDOW", watcher.CONNECTION_WINDOW / 5)
    monkeypatch.setattr(watcher, "CONNECTION_WINDOW", watcher.CONNECTION_WINDOW / 5)
    monkeypatch.setattr(lease_server, "RETRY", 0.05)
    yield bugs
    assert not bugs


def book_in(folder: Path, log: Log) -> Leasing:
    """One that listens on a socket in the folder."""
    quiet = SimpleNamespace(leases=lambda *_: None, leases_unknown=lambda _: None, ryuk_refused=lambda: None)
    reporter = SimpleNamespace(clock=lambda: datetime.now(UTC), log=log.bound(), metrics=quiet, status=SimpleNamespace())
    return Leasing(
        folder,
        LeasesTable(socket=str(folder / "reaper.sock")),
        {},
        cast("Reporter", cast("Any", reporter)),
        lambda: None,
        endpoints=tuple,
        ryuk=RyukTable(),
    )


@asynccontextmanager
async def running(leasing: Leasing) -> AsyncIterator[None]:
    """It listens, and its book is open; it is closed at the end."""
    async with anyio.create_task_group() as group:
        await leasing.listen()
        group.start_soon(leasing.run)
        with anyio.fail_after(60):
            while leasing.book is None:  # noqa: ASYNC110 - it opens by itself
                await anyio.sleep(0.01)
        yield
        with suppress(anyio.get_cancelled_exc_class()):
            await leasing.close()
        group.cancel_scope.cancel()


async def test_a_bug_of_the_watch_ends_no_lease_that_an_open_connection_holds(tmp_path: Path, bugs: list[str]) -> None:
    log, socket = Log(), tmp_path / "reaper.sock"
    leasing = book_in(tmp_path, log)
    file = LeaseFile(tmp_path / NAME)

    def state() -> LeaseState:
        (record,) = file.records()
        return record.state

    async with running(leasing):
        with anyio.fail_after(60):
            async with lease(url=f"unix://{socket}", on_trouble=lambda _: None):
                first = leasing.book
                bugs.append("of the watch")
                while leasing.book in (None, first):  # noqa: ASYNC110 - likewise
                    await anyio.sleep(0.01)
                while state() is LeaseState.RECONNECTING:  # noqa: ASYNC110 - likewise
                    await anyio.sleep(0.01)
                assert state() is LeaseState.LIVE
                assert log.events().count("internal_error") == 1
    file.close()


@pytest.mark.parametrize("boot", ["", "5ec0d5ec-0d5e-c0d5-ec0d-5ec0d5ec0d5e"])
async def test_it_says_so_when_it_cannot_tell_which_boot_this_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot: str
) -> None:
    """Then no lease of an earlier process is known to be dead: it would stay for good."""
    monkeypatch.setattr(host, "boot_id", lambda: boot)
    log = Log()
    leasing = book_in(tmp_path, log)
    async with running(leasing):
        pass
    assert log.events().count("boot_id_unreadable") == (not boot)
