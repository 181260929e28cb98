"""The service's book of leases, when a bug ends its watch."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

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


async def test_a_bug_of_the_watch_ends_no_lease_that_an_open_connection_holds(tmp_path: Path, bugs: list[str]) -> None:
    log, socket = Log(), tmp_path / "reaper.sock"
    quiet = SimpleNamespace(leases=lambda *_: None, leases_unknown=lambda _: None, ryuk_refused=lambda: None)
    reporter = SimpleNamespace(clock=lambda: datetime.now(UTC), log=log.bound(), metrics=quiet, status=SimpleNamespace())
    leasing = Leasing(
        tmp_path,
        LeasesTable(socket=str(socket)),
        {},
        cast("Reporter", cast("Any", reporter)),
        lambda: None,
        endpoints=tuple,
        ryuk=RyukTable(),
    )
    file = LeaseFile(tmp_path / NAME)

    def state() -> LeaseState:
        (record,) = file.records()
        return record.state

    async with anyio.create_task_group() as group:
        await leasing.listen()
        group.start_soon(leasing.run)
        with anyio.fail_after(60):
            while leasing.book is None:  # noqa: ASYNC110 - it opens by itself
                await anyio.sleep(0.01)
            async with lease(url=f"unix://{socket}", on_trouble=lambda _: None):
                first = leasing.book
                bugs.append("of the watch")
                while leasing.book in (None, first):  # noqa: ASYNC110 - likewise
                    await anyio.sleep(0.01)
                while state() is LeaseState.RECONNECTING:  # noqa: ASYNC110 - likewise
                    await anyio.sleep(0.01)
                assert state() is LeaseState.LIVE
                assert log.events().count("internal_error") == 1
        with suppress(anyio.get_cancelled_exc_class()):
            await leasing.close()
        group.cancel_scope.cancel()
    file.close()
