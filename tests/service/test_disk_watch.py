"""What has an endpoint swept when its disk is too full, on time that jumps."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest

from reaper.core.conditions import Policy
from reaper.core.disk import DiskUsage
from reaper.core.model import Kind, Outcome, Resource
from reaper.core.rules import Rules
from reaper.errors import UnavailableError
from reaper.providers.memory import Rule
from reaper.providers.memory.disk import MemoryDisk
from reaper.sweep.pressure import meter_of
from tests.service.lab import House
from tests.sweep.conftest import anyio_backend
from tests.sweep.lab import HOUR, STOPPED, running, stopped

__all__ = ["anyio_backend"]  # a fixture
pytestmark = pytest.mark.anyio

GIB = 1 << 30
GUARD = Policy("guard", frozenset({Kind.CONTAINER}), stopped_for=HOUR, under_pressure=True, asleep=True)


class DiskHouse(House):
    """A kept endpoint with a disk of 100 GiB, and what was told of that."""

    def __init__(self, *things: Resource, policies: tuple[Policy, ...] = (GUARD,), others: int = 0, **more: Any) -> None:
        super().__init__(*things, rules=Rules(policies=policies), **more)
        self.disk = MemoryDisk(self.world, 100 * GIB, others=others * GIB)
        self.worker.endpoint.reader.meter = self.disk  # type: ignore[attr-defined]
        self.worker.__post_init__()  # as if it had had that from the beginning
        assert meter_of(self.worker.endpoint) is self.disk
        self.told: list[tuple[float, DiskUsage, Mapping[str, Any]]] = []
        self.diary.disk = self._tell  # type: ignore[attr-defined]

    def _tell(self, _endpoint: str, usage: DiskUsage, _thresholds: object, **found: Any) -> None:
        self.told.append((anyio.current_time(), usage, found))


def large(name: str, size: int, **fields: Any) -> Resource:
    return stopped(name, size=size * GIB, **fields)


async def test_a_disk_that_fills_up_is_emptied_within_seconds() -> None:
    house = DiskHouse(large("c", 20), large("small", 1))
    async with house.kept():
        await anyio.sleep(100)
        assert house.diary.sweeps == []
        house.disk.others = 70 * GIB
        await anyio.sleep(30)
    assert house.left() == {"small"}
    (sweep,) = house.diary.sweeps
    assert sweep.due == {"guard"}
    assert sweep.report is not None
    assert [(r.decision.resource.name, r.outcome) for r in sweep.report.results] == [("c", Outcome.DELETED)]


async def test_without_a_policy_for_it_nothing_is_measured() -> None:
    house = DiskHouse(large("c", 99), policies=(STOPPED,))
    async with house.kept():
        await anyio.sleep(3600)
    assert (house.told, house.diary.sweeps) == ([], [])


async def test_a_policy_that_waits_for_pressure_is_looked_at_on_a_schedule_and_takes_nothing() -> None:
    house = DiskHouse(large("c", 20))
    async with house.kept() as worker:
        worker.post(["guard"])
        await anyio.sleep(60)
    assert len(house.world.made("list")) == 1
    assert house.left() == {"c"}
    (sweep,) = house.diary.sweeps
    assert sweep.due == frozenset()


async def test_one_with_a_schedule_runs_on_that_as_well() -> None:
    house = DiskHouse(large("c", 20), policies=(replace(GUARD, asleep=False),))
    async with house.kept() as worker:
        worker.post(["guard"])
        await anyio.sleep(60)
    assert house.left() == set()


async def test_where_nothing_more_may_go_it_rests_longer_and_longer() -> None:
    house = DiskHouse(running("young", hours=0.5, size=99 * GIB))
    async with house.kept():
        await anyio.sleep(2 * 3600)
    times = [sweep.began for sweep in house.diary.sweeps]
    assert 8 <= len(times) <= 14
    assert times[1] - times[0] >= 60
    assert times[-1] - times[-2] >= 900
    ended = [found["relief"] for _, _, found in house.told if found["relief"] is not None]
    assert len(ended) == len(times)
    assert all(relief.exhausted for relief in ended)


async def test_pressure_that_ends_by_itself_ends_the_rest() -> None:
    house = DiskHouse(large("c", 1), large("young", 5, hours=0.5), others=95)
    async with house.kept():
        await anyio.sleep(20)
        assert house.left() == {"young"}
        house.disk.others = 0
        await anyio.sleep(30)
        assert not house.told[-1][2]["pressed"]
        house.world.add(large("later", 20))
        house.disk.others = 70 * GIB
        await anyio.sleep(30)
    assert house.left() == {"young"}


async def test_an_endpoint_that_is_down_is_not_asked_for_its_disk_s_sake() -> None:
    house = DiskHouse(large("c", 99))
    down = Rule("list", error=UnavailableError("no engine"))
    house.world.rules.append(down)
    async with house.kept():
        await anyio.sleep(3600)
        assert len(house.diary.sweeps) < 12
        house.world.rules.remove(down)
        await anyio.sleep(1800)
    assert house.left() == set()


async def test_a_disk_that_cannot_be_measured_has_nothing_swept() -> None:
    house = DiskHouse(large("c", 99))
    house.disk.problem = "no such path"
    async with house.kept():
        await anyio.sleep(3600)
    assert house.left() == {"c"}
    assert house.told[-1][1].problem == "no such path"
