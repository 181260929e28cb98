"""Policies with a cron expression run at their times: not because the service was started, or something died."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from reaper.config.policies import PolicyTable
from reaper.config.service_tables import ServiceTable
from reaper.core.model import EndpointFailure, EndpointReport
from reaper.errors import UnavailableError
from reaper.observers.journal import NAME
from reaper.observers.journal_db import Database
from reaper.observers.journal_rows import Begun
from reaper.providers.memory import Rule
from reaper.service.catchup import LastRuns, last_runs, missed
from tests.daytona.server import Served
from tests.service.daemon import QUICK, Daemon
from tests.service.lab import House
from tests.sweep.conftest import anyio_backend
from tests.sweep.lab import STOPPED, running, stopped

__all__ = ["anyio_backend"]  # a fixture
NOW = datetime(2026, 11, 28, 14, 1, tzinfo=UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
NIGHTLY = PolicyTable(name="nightly", kinds=("container",), older_than="1h", cron="30 3 * * *")
LAST_NIGHT = NOW.replace(hour=3, minute=30)


def _missed(ran: datetime | None, now: datetime, within: timedelta = HOUR) -> tuple[datetime, list[str]] | None:
    runs = LastRuns({("local", "nightly"): ran}) if ran is not None else LastRuns()
    return missed(NIGHTLY, ["local"], runs, now, ServiceTable(catch_up=within))


@pytest.mark.parametrize(
    ("ran", "now", "expected"),
    [
        (LAST_NIGHT, NOW, None),
        (LAST_NIGHT - 24 * HOUR, NOW, None),
        (LAST_NIGHT - 24 * HOUR, LAST_NIGHT + HOUR / 2, (LAST_NIGHT, ["local"])),
        (LAST_NIGHT + SECOND, LAST_NIGHT + HOUR / 2, None),
        (None, LAST_NIGHT + HOUR / 2, None),
        (LAST_NIGHT - 24 * HOUR, LAST_NIGHT - HOUR, None),
    ],
    ids=["it ran", "missed long ago", "missed just now", "it ran just now", "new", "before its time"],
)
def test_only_a_time_that_was_missed_lately_is_made_up_for(
    ran: datetime | None, now: datetime, expected: tuple[datetime, list[str]] | None
) -> None:
    assert _missed(ran, now) == expected


def test_how_late_a_run_may_be_can_be_told() -> None:
    assert _missed(LAST_NIGHT - 24 * HOUR, NOW, 12 * HOUR) == (LAST_NIGHT, ["local"])


def _record(
    folder: Path, at: datetime, due: frozenset[str] | None, endpoint: str = "default", failure: EndpointFailure | None = None
) -> None:
    database = Database(folder / NAME, thorough=False)
    begun = Begun(endpoint=endpoint, provider="daytona", host="h", pid=1, token=1, version="0", due=due, at=at)
    with database.transaction():
        database.finish(begun, EndpointReport(endpoint=endpoint, provider="daytona", failure=failure), at, at, {})
    database.close()


def test_the_journal_tells_when_a_policy_was_last_swept_for(tmp_path: Path) -> None:
    assert last_runs(tmp_path / NAME) == LastRuns()
    _record(tmp_path, NOW - 3 * HOUR, frozenset({"a", "b"}))
    _record(tmp_path, NOW - 2 * HOUR, frozenset({"a"}))
    _record(tmp_path, NOW - HOUR, frozenset({"a"}), failure=EndpointFailure("timeout", "no answer"))
    runs = last_runs(tmp_path / NAME)
    assert (runs.of("default", "a"), runs.of("default", "b")) == (NOW - 2 * HOUR, NOW - 3 * HOUR)
    assert runs.of("local", "a") is None
    _record(tmp_path, NOW, None)
    assert last_runs(tmp_path / NAME).of("default", "b") == NOW


def test_a_journal_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"x" * 4096)
    assert last_runs(tmp_path / NAME) == LastRuns()


def _at(ago: timedelta) -> str:
    at = datetime.now(UTC) - ago
    return f'cron = "{at.minute} {at.hour} * * *"'


def _policies(ago: timedelta) -> str:
    return QUICK.replace('every = "1s"', _at(ago)).replace('"quick"', '"nightly"') + QUICK.replace("6h", "60h")


def test_a_start_runs_no_policy_whose_time_it_is_not(served: Served) -> None:
    program = served.program()
    served.add("leftover")
    with Daemon(program, _policies(10 * HOUR)).start() as daemon:
        told = daemon.wait("policy_waits_for_its_time", policy="nightly")
        assert told["next_at"] > datetime.now(UTC).isoformat()
        daemon.wait("sweep_finished", times=4)
        assert served.left() == {"leftover"}
        assert daemon.stop() == 0


def test_a_start_makes_up_for_a_time_that_was_missed_while_it_was_down_and_says_so(served: Served) -> None:
    program = served.program()
    _record(program.folder, datetime.now(UTC) - 26 * HOUR, frozenset({"nightly"}))
    served.add("leftover")
    with Daemon(program, _policies(HOUR / 4)).start() as daemon:
        assert daemon.wait("missed_run_caught_up", policy="nightly")["endpoints"] == ["default"]
        daemon.wait("deleted", name="leftover")
        assert daemon.stop() == 0


@pytest.mark.anyio
async def test_a_death_brings_no_policy_forward_that_runs_at_its_times() -> None:
    soon = replace(STOPPED, stopped_for=timedelta(minutes=5))
    rules = replace(House(running("one")).rules, policies=(soon,))
    house = House(running("one"), rules=rules, watched=True, at_times=frozenset({"stopped"}))
    async with house.kept():
        await anyio.sleep(1)
        house.provider.tell(house.die("one"))
        await anyio.sleep(3600)
    assert house.diary.sweeps == []


@pytest.mark.anyio
async def test_an_endpoint_that_comes_back_hours_later_waits_for_the_next_time() -> None:
    house = House(stopped("leftover"), running("long"), at_times=frozenset({"stopped"}))
    house.world.rules.append(down := Rule("list", error=UnavailableError("no engine")))
    async with house.kept() as worker:
        worker.post(["stopped", "old"])
        await anyio.sleep(3 * 3600)
        house.world.rules.remove(down)
        await anyio.sleep(1000)
        assert house.left() == {"leftover"}
        assert ("stopped",) in house.diary.late
        worker.post(["stopped"])
        await anyio.sleep(60)
    assert house.left() == set()
