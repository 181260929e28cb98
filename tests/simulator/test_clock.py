import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from reaper.simulator.clock import Clock
from tests.daytona.loop import JumpingLoop, LoopClock

pytestmark = pytest.mark.anyio

START = datetime(2026, 11, 21, tzinfo=UTC)


def test_a_frozen_clock_stands_until_it_is_turned() -> None:
    clock = Clock(START, rate=0)
    assert clock.now() == START
    clock.advance(timedelta(hours=2))
    assert clock.now() == START + timedelta(hours=2)
    assert clock.elapsed() == 7200


def test_time_passes_at_its_rate_and_turns_add_up() -> None:
    clock = Clock(START, rate=1000)
    before = time.monotonic()
    clock.advance(timedelta(days=1))
    first = clock.now()
    while clock.now() == first:
        pass
    real = time.monotonic() - before
    assert timedelta(days=1) < clock.now() - START <= timedelta(days=1, seconds=real * 1000 + 50)


def test_the_default_is_the_real_time() -> None:
    assert abs(Clock().now() - datetime.now(UTC)) < timedelta(seconds=5)


@pytest.mark.parametrize("rate", [-1, -0.1])
def test_it_cannot_run_or_be_turned_backwards(rate: float) -> None:
    with pytest.raises(ValueError, match="backwards"):
        Clock(rate=rate)
    with pytest.raises(ValueError, match="aware"):
        Clock(datetime(2026, 1, 1))  # noqa: DTZ001 - the point
    with pytest.raises(ValueError, match="turned back"):
        Clock().advance(timedelta(seconds=-1))


async def _ticks() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_sleepers_wake_when_their_time_has_come_and_not_before() -> None:
    async def main() -> list[str]:
        clock = Clock(START, rate=0)
        woken: list[str] = []

        async def sleeper(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            woken.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper("long", 10))
            group.create_task(sleeper("short", 3))
            await _ticks()
            clock.advance(timedelta(seconds=2))
            await _ticks()
            assert woken == []
            clock.advance(timedelta(seconds=2))
            await _ticks()
            assert woken == ["short"]
            clock.advance(timedelta(seconds=6))
        return woken

    assert asyncio.run(main()) == ["short", "long"]


def test_a_turn_from_another_thread_wakes_sleepers() -> None:
    clock = Clock(START, rate=0)
    asleep = threading.Event()

    async def main() -> None:
        async def sleeper() -> None:
            asyncio.get_running_loop().call_soon(asleep.set)
            await clock.sleep(3600)

        await asyncio.wait_for(sleeper(), 60)

    def turn() -> None:
        asleep.wait(60)
        clock.advance(timedelta(hours=1))

    thread = threading.Thread(target=turn)
    thread.start()
    asyncio.run(main())
    thread.join()


def test_sleep_counts_real_time_by_the_rate() -> None:
    clock = Clock(START, rate=10_000)
    before = time.monotonic()
    asyncio.run(clock.sleep(100))
    assert time.monotonic() - before < 5
    assert clock.elapsed() >= 100


def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = Clock(START, rate=0)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(clock.sleep(5), 0.01)

    asyncio.run(main())
    clock.advance(timedelta(seconds=10))
    assert not clock._sleepers


async def test_a_turn_before_a_sleep_has_begun_counts() -> None:
    clock = Clock(datetime(2026, 11, 21, tzinfo=UTC), rate=0)
    sleeping = asyncio.ensure_future(clock.sleep_until(clock.elapsed() + 4))
    clock.advance(timedelta(seconds=4))
    await asyncio.wait_for(sleeping, 60)


class Impatient(JumpingLoop):
    """Its time stands still while tasks run: one that is woken too early is woken for ever."""

    asked = 0

    def time(self) -> float:
        self.asked += 1
        assert self.asked < 1000, "it is woken again and again"
        return super().time()


@pytest.mark.parametrize("left", [1e-12, 1e-10, 1e-9, 3e-9])
def test_a_sleep_shorter_than_its_loop_can_tell_ends(left: float) -> None:
    async def main() -> float:
        clock = LoopClock(START)
        await clock.sleep_until(left)
        return clock.elapsed()

    loop = Impatient()
    try:
        assert loop.run_until_complete(main()) >= left
    finally:
        loop.close()
