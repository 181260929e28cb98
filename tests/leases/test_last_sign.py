"""Until when the claims of a dead holder take what was made: its last sign of life, and what was in flight."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import sniffio
import trio
from trio.testing import MockClock

from reaper.core.lease import IN_FLIGHT, Claim
from reaper.core.scope import Selector
from reaper.leases.record import HEARTBEAT_DUE, Liveness
from reaper.leases.watcher import CONNECTION_WINDOW, HEARTBEAT_WINDOW, WRITE_EVERY
from tests.leases.test_leasebook import EXPIRED, HOLDER, LIVE, SECOND, House, wait
from tests.sweep.loops import JumpingLoop

pytestmark = pytest.mark.anyio
BY_NAME = Claim(Selector(names=("chess-*",)))
HOUR = timedelta(hours=1)


def stand_still(span: timedelta) -> None:
    """Let time pass in which no task of this process runs."""
    if sniffio.current_async_library() == "trio":
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(span.total_seconds())
    else:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        loop.now += span.total_seconds()


def claims_until(house: House, id_: str) -> datetime:
    """Until when an ended lease claims, for those who read the file."""
    (lease,) = (lease for lease in house.file.leases() if lease.id == id_)
    assert lease.ending is not None
    return lease.ending.last


async def test_of_a_missed_heartbeat_it_is_the_last_one(tmp_path: Path) -> None:
    """The file is written once a minute: what it says meanwhile is older than the last heartbeat."""
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(Liveness.HEARTBEAT, HOLDER, [BY_NAME]).id
        for _ in range(7):
            await wait(17 * SECOND)
            book.heard(id_)
        last = house.clock()
        assert last - house.record(id_).seen_at > SECOND
        await wait(HEARTBEAT_DUE + HEARTBEAT_WINDOW + 4 * SECOND)
        assert house.state(id_) is EXPIRED
    assert claims_until(house, id_) == last + IN_FLIGHT


async def test_of_a_connection_it_is_its_end(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(Liveness.CONNECTION, HOLDER, [BY_NAME]).id
        await wait(WRITE_EVERY / 2)
        book.lost(id_)
        last = house.clock()
        await wait(CONNECTION_WINDOW + 4 * SECOND)
    assert claims_until(house, id_) == last + IN_FLIGHT


@pytest.mark.parametrize("sort", [Liveness.CONNECTION, Liveness.HEARTBEAT])
async def test_of_a_holder_that_cleaned_up_it_is_the_end_of_its_command(tmp_path: Path, sort: Liveness) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(sort, HOLDER, [BY_NAME]).id
        await wait(3 * SECOND)
        last = house.clock()
        book.over(id_, SECOND)
        for _ in range(3):
            await wait(40 * SECOND)
            book.heard(id_)
        book.lost(id_)
        await wait(HEARTBEAT_WINDOW + HEARTBEAT_DUE + 4 * SECOND)
        assert house.state(id_) is EXPIRED
    assert claims_until(house, id_) == last - SECOND + IN_FLIGHT


async def test_of_a_process_it_is_when_it_was_last_seen(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.alive[77] = True
    async with house.watching() as book:
        id_ = book.take(Liveness.PROCESS, HOLDER, [BY_NAME], token=77).id
        await wait(HOUR)
        last = house.clock()
        house.alive[77] = False
        await wait(4 * SECOND)
    assert timedelta(0) <= last + IN_FLIGHT - claims_until(house, id_) <= SECOND


async def test_a_client_that_cannot_come_back_lived_until_its_connection_ended(tmp_path: Path) -> None:
    """The program that it was connected to ends, before the time is up for which it is waited for."""
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(Liveness.CONNECTION, HOLDER, [BY_NAME]).id
        await wait(WRITE_EVERY)
        book.lost(id_)
        last = house.clock()
        await wait(CONNECTION_WINDOW - 2 * SECOND)
        book.abandon(id_, "its connection was gone when this program ended")
        book.abandon("another", "not known here")
    assert (house.state(id_), claims_until(house, id_)) == (EXPIRED, last + IN_FLIGHT)


@pytest.mark.parametrize("sort", [Liveness.CONNECTION, Liveness.HEARTBEAT])
async def test_what_is_heard_after_this_process_stood_still_proves_life_only_until_then(
    tmp_path: Path, sort: Liveness
) -> None:
    """Stopped by a signal, or paused with its container, it hears only hours later what was sent to it meanwhile.

    The holder may have died at any moment of them, and others have made things of the same names since.
    """
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(sort, HOLDER, [BY_NAME]).id
        await wait(10 * SECOND)
        stopped_at = house.clock()
        stand_still(HOUR)
        if sort is Liveness.HEARTBEAT:
            assert book.heard(id_) is not None
        else:
            book.lost(id_)
        assert house.state(id_) is not EXPIRED, "it is waited for as ever"
        await wait(HEARTBEAT_DUE + HEARTBEAT_WINDOW + 4 * SECOND)
        assert house.state(id_) is EXPIRED
    assert timedelta(0) <= stopped_at + IN_FLIGHT - claims_until(house, id_) <= 2 * SECOND


async def test_what_is_heard_a_while_after_this_process_stood_still_is_from_now(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(Liveness.HEARTBEAT, HOLDER, [BY_NAME]).id
        await wait(10 * SECOND)
        stand_still(HOUR)
        await wait(30 * SECOND)
        book.heard(id_)
        assert (house.state(id_), house.record(id_).seen_at) == (LIVE, house.clock())


async def test_of_a_machine_that_answered_no_more_it_is_its_last_answer(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(Liveness.CONNECTION, HOLDER, [BY_NAME]).id
        await wait(HOUR)
        last = house.clock() - timedelta(minutes=15)
        book.lost(id_, timedelta(minutes=15))
        assert house.state(id_) is not EXPIRED, "it is waited for as ever"
        await wait(CONNECTION_WINDOW + 4 * SECOND)
    assert claims_until(house, id_) == last + IN_FLIGHT
