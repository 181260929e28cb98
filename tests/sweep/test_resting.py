"""Tasks that back off, or wait for others, keep no other from beginning."""

import anyio
import pytest

from reaper.retry.resting import Resting
from reaper.sweep.concurrency import MOST_RESTING, for_each

pytestmark = pytest.mark.anyio
WORKERS = 4


async def test_others_go_on_while_all_workers_back_off() -> None:
    resting, ended = Resting(), dict[int, float]()

    async def one(number: int) -> None:
        if number < WORKERS:
            with resting.one():
                await anyio.sleep(10)
        await anyio.sleep(0.1)
        ended[number] = anyio.current_time() - began

    began = anyio.current_time()
    await for_each(range(40), one, WORKERS, "work", resting)
    assert max(seconds for number, seconds in ended.items() if number >= WORKERS) < 2
    assert max(ended.values()) < 10.5
    assert resting.number == 0


async def test_no_more_are_busy_than_workers_once_none_rests() -> None:
    resting, busy = Resting(), 0
    most: list[int] = []

    async def one(number: int) -> None:
        nonlocal busy
        if number % 5 == 0:
            with resting.one():
                await anyio.sleep(1)
        busy += 1
        if number >= 100:
            most.append(busy)
        await anyio.sleep(0.1)
        busy -= 1

    await for_each(range(200), one, WORKERS, "work", resting)
    assert max(most) <= 2 * WORKERS, "those that come back from a rest, at the most, besides the workers"


async def test_the_number_of_tasks_has_a_bound() -> None:
    resting, started = Resting(), 0

    async def one(number: int) -> None:
        nonlocal started
        started += 1
        with resting.one():
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        group.start_soon(for_each, range(3 * MOST_RESTING), one, WORKERS, "work", resting)
        await anyio.sleep(0.5)
        assert started == WORKERS + MOST_RESTING
        group.cancel_scope.cancel()
