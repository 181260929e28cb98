"""Who holds a lease, and from when on it has ended: on time that jumps."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import pytest

from reaper.core.lease import Claim
from reaper.core.scope import Selector
from reaper.errors import LeasesUnknownError
from reaper.leases.database import create
from reaper.leases.record import HEARTBEAT_DUE, Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.sources import NAME
from reaper.leases.store import REMEMBER, LeaseFile
from reaper.leases.watcher import CONNECTION_WINDOW, HEARTBEAT_WINDOW, RESTART_WINDOW, LeaseBook
from reaper.liveness import started
from reaper.providers.memory import VirtualClock
from tests.sweep.lab import NOW

pytestmark = pytest.mark.anyio
HOLDER = Holder("gpu-1", 4711, "8812", "harbor", "ada")
LIVE, RECONNECTING, EXPIRED, RELEASED = LeaseState
SECOND = timedelta(seconds=1)


class House:
    """A book, and its events."""

    def __init__(self, folder: Path, token: int = 1) -> None:
        self.path = folder / NAME
        self.clock = VirtualClock(NOW)
        self.set_forward = timedelta(0)
        self.alive: dict[int, bool | None] = {}
        self.told: list[tuple[str, LeaseState]] = []
        self.failures: list[LeasesUnknownError] = []
        self.file = LeaseFile(self.path)
        self.book = LeaseBook(self.file, self.now, self, token=token, lives=self.lives)

    def now(self) -> datetime:
        return self.clock() + self.set_forward

    def lives(self, token: int) -> bool | None:
        return self.alive.get(token)

    def changed(self, record: LeaseRecord) -> None:
        self.told.append((record.id, record.state))

    def failed(self, error: LeasesUnknownError) -> None:
        self.failures.append(error)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[LeaseBook]:
        self.book.open()
        async with anyio.create_task_group() as group:
            group.start_soon(self.book.run)
            yield self.book
            group.cancel_scope.cancel()

    def state(self, id_: str) -> LeaseState:
        return next(record.state for record in LeaseFile(self.path).records() if record.id == id_)

    def record(self, id_: str) -> LeaseRecord:
        return next(record for record in LeaseFile(self.path).records() if record.id == id_)


async def wait(span: timedelta) -> None:
    await anyio.sleep(span.total_seconds())


async def test_a_lease_is_on_the_disk_when_it_is_taken(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        claim = Claim(Selector(names=("chess-*",)))
        record = book.take(Liveness.CONNECTION, HOLDER, [claim])
        assert LeaseFile(house.path).records() == (record,)
        assert (record.holder, record.claims, record.state, record.since) == (HOLDER, (claim,), LIVE, house.clock())
        assert book.take(Liveness.HEARTBEAT, HOLDER, name="mine").id == "mine"
    assert [state for _, state in house.told] == [LIVE, LIVE]


async def test_a_heartbeat_that_is_missed_is_waited_for(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(Liveness.HEARTBEAT, HOLDER).id
        await wait(HEARTBEAT_DUE + 2 * SECOND)
        assert house.state(id_) is RECONNECTING
        await wait(HEARTBEAT_WINDOW - 5 * SECOND)
        assert house.state(id_) is RECONNECTING
        assert book.heard(id_) is not None
        assert house.state(id_) is LIVE
        await wait(HEARTBEAT_DUE + HEARTBEAT_WINDOW + 4 * SECOND)
        assert house.state(id_) is EXPIRED
        assert house.record(id_).cause == "no heartbeat for 300 s"
        assert book.heard(id_) is None, "a late heartbeat has to be refused"
    assert [state for _, state in house.told] == [LIVE, RECONNECTING, LIVE, RECONNECTING, EXPIRED]


async def test_a_connection_that_is_gone_may_come_back_for_a_while(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(Liveness.CONNECTION, HOLDER).id
        await wait(timedelta(minutes=20))
        assert house.state(id_) is LIVE, "an open connection needs no heartbeat"
        book.lost(id_)
        await wait(CONNECTION_WINDOW - 2 * SECOND)
        assert house.state(id_) is RECONNECTING
        book.heard(id_)
        await wait(timedelta(minutes=20))
        assert house.state(id_) is LIVE
        book.lost(id_)
        await wait(CONNECTION_WINDOW + 2 * SECOND)
        assert house.record(id_).cause == "its connection was gone for 10 s"
        book.lost(id_)
    assert [state for _, state in house.told] == [LIVE, RECONNECTING, LIVE, RECONNECTING, EXPIRED]


async def test_a_process_is_dead_when_the_kernel_says_so_and_not_when_that_is_unknown(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(Liveness.PROCESS, HOLDER, token=77).id
        house.alive[77] = None
        await wait(timedelta(minutes=20))
        assert house.state(id_) is LIVE
        house.alive[77] = True
        await wait(timedelta(minutes=20))
        assert house.state(id_) is LIVE
        house.alive[77] = False
        await wait(2 * SECOND)
        assert (house.record(id_).state, house.record(id_).cause) == (EXPIRED, "killed")


async def test_processes_whose_leases_others_took_are_watched_too(tmp_path: Path) -> None:
    house, other = House(tmp_path), House(tmp_path, token=2)
    house.alive = other.alive = {1: True, 2: True, 77: True}
    async with house.watching(), other.watching() as book:
        id_ = book.take(Liveness.PROCESS, HOLDER, token=77).id
        await wait(2 * SECOND)
        house.alive[77] = False
        await wait(2 * SECOND)
    assert house.state(id_) is EXPIRED


async def test_what_a_process_watched_that_died_meanwhile_is_taken_over(tmp_path: Path) -> None:
    """As in an upgrade: the later one began while the earlier one lived."""
    house, later = House(tmp_path), House(tmp_path, token=2)
    later.alive[1] = True
    async with later.watching() as watcher:
        async with house.watching() as book:
            back, gone, at_once = (book.take(Liveness.CONNECTION, HOLDER).id for _ in range(3))
            await wait(5 * SECOND)
            assert watcher.find(back) is None
        later.alive[1] = False
        assert watcher.heard(at_once) is not None, "before it has looked by itself"
        await wait(2 * SECOND)
        assert [later.state(id_) for id_ in (at_once, back, gone)] == [LIVE, RECONNECTING, RECONNECTING]
        assert watcher.heard(back) is not None
        await wait(RESTART_WINDOW - 5 * SECOND)
        assert later.state(gone) is RECONNECTING
        await wait(10 * SECOND)
        assert [later.state(id_) for id_ in (at_once, back, gone)] == [LIVE, LIVE, EXPIRED]


async def test_of_two_that_take_a_lease_over_the_one_that_is_spoken_to_decides(tmp_path: Path) -> None:
    house, spoken_to, other = (House(tmp_path, token) for token in (1, 2, 3))
    async with house.watching() as book:
        record = book.take(Liveness.CONNECTION, HOLDER)
    spoken_to.alive |= {1: True, 3: True}
    other.alive |= {1: True, 2: True}
    async with spoken_to.watching(), other.watching():
        spoken_to.alive[1] = other.alive[1] = False
        for one in (spoken_to, other):
            one.book._adopt(record)  # each has read it before the other one wrote
        assert spoken_to.book.heard(record.id) is not None
        assert other.book.watches(record.id)
        await wait(RESTART_WINDOW + 5 * SECOND)
        assert not other.book.watches(record.id)
        assert (other.state(record.id), other.told[-1]) == (LIVE, (record.id, RECONNECTING))


async def test_a_restart_gives_everybody_a_whole_window(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        connection, heartbeat = (book.take(sort, HOLDER).id for sort in (Liveness.CONNECTION, Liveness.HEARTBEAT))
        book.lost(connection)
        await wait(CONNECTION_WINDOW - 2 * SECOND)
    await wait(timedelta(days=3))  # it was away
    again = House(tmp_path, token=2)
    again.alive[1] = False
    async with again.watching() as book:
        assert again.state(connection) is again.state(heartbeat) is RECONNECTING
        await wait(RESTART_WINDOW - 2 * SECOND)
        assert again.state(connection) is RECONNECTING
        book.heard(connection)
        await wait(HEARTBEAT_WINDOW - RESTART_WINDOW - SECOND)
        assert again.state(heartbeat) is RECONNECTING
        await wait(5 * SECOND)
        assert again.state(heartbeat) is EXPIRED
        assert again.state(connection) is LIVE


@pytest.mark.parametrize("lives", [True, None])
async def test_what_another_process_watches_or_may_watch_is_left_to_it(tmp_path: Path, lives: bool | None) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(Liveness.CONNECTION, HOLDER).id
    again = House(tmp_path, token=2)
    again.alive[1] = lives
    async with again.watching() as book:
        assert book.find(id_) is None
        await wait(timedelta(minutes=20))
    assert house.state(id_) is LIVE


async def test_a_wall_clock_that_is_set_ends_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        ids = [book.take(sort, HOLDER).id for sort in (Liveness.CONNECTION, Liveness.HEARTBEAT)]
        for jump in (timedelta(days=400), timedelta(days=-800)):
            house.set_forward = jump
            for _ in range(10):
                await wait(30 * SECOND)
                for id_ in ids:
                    book.heard(id_)
            assert {house.state(id_) for id_ in ids} == {LIVE}


async def test_a_time_in_which_this_process_stood_still_ends_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        heartbeat, connection = (book.take(sort, HOLDER).id for sort in (Liveness.HEARTBEAT, Liveness.CONNECTION))
        book.lost(connection)
        # The watch is asked late, as after SIGSTOP: both windows are long over by then.
        book._begin_anew()
        await wait(CONNECTION_WINDOW - 2 * SECOND)
        assert house.state(connection) is RECONNECTING
        assert house.state(heartbeat) is LIVE


async def test_while_it_cannot_be_written_nothing_ends_and_it_is_tried_again(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(Liveness.PROCESS, HOLDER, token=77).id
        content = house.path.read_bytes()
        os.truncate(house.path, 0)
        house.alive[77] = False
        await wait(5 * SECOND)
        assert len(house.failures) >= 2
        with pytest.raises(LeasesUnknownError):
            book.take(Liveness.CONNECTION, HOLDER)
        assert house.told == [(id_, LIVE)]
        house.path.write_bytes(content)
        await wait(3 * SECOND)
        assert house.state(id_) is EXPIRED


async def test_a_state_directory_that_is_emptied_ends_no_living_lease(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.alive[77] = True
    async with house.watching() as book:
        ids = {book.take(sort, HOLDER, token=77).id for sort in Liveness}
        await wait(2 * SECOND)
        house.path.unlink()
        await wait(2 * SECOND)
        assert {record.id for record in LeaseFile(house.path).open()} == ids
        (given_back,) = (record.id for record in book.open_records() if record.sort is Liveness.HEARTBEAT)
        book.release(given_back)
        ids.remove(given_back)
        await wait(2 * SECOND)
        assert {record.id for record in LeaseFile(house.path).open()} == ids


async def test_a_file_in_the_place_of_the_one_that_was_removed_gets_the_living_leases(tmp_path: Path) -> None:
    """The first to take one makes it, before this process has seen that the other one is gone."""
    house = House(tmp_path)
    async with house.watching() as book:
        ids = {book.take(sort, HOLDER).id for sort in (Liveness.CONNECTION, Liveness.HEARTBEAT)}
        house.path.unlink()
        create(house.path)
        await wait(2 * SECOND)
        assert {record.id for record in LeaseFile(house.path).open()} == ids


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "600"]) as child:
        yield child
        child.kill()


def signalled(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Have it stop or go on."""
    os.kill(child.pid, number)
    os.waitpid(child.pid, os.WUNTRACED | os.WCONTINUED)


async def test_a_holder_that_is_stopped_is_waited_for(tmp_path: Path, child: "subprocess.Popen[bytes]") -> None:
    """``^Z``: it lives, and cannot come back after a restart of the service."""
    signalled(child, signal.SIGSTOP)
    house = House(tmp_path)
    async with house.watching() as book:
        id_ = book.take(Liveness.CONNECTION, Holder(os.uname().nodename, child.pid, started(child.pid))).id
        book.lost(id_)
        await wait(timedelta(hours=1))
        assert house.state(id_) is RECONNECTING
        signalled(child, signal.SIGCONT)
        await wait(CONNECTION_WINDOW + 2 * SECOND)
        assert house.state(id_) is EXPIRED


async def test_long_ended_ones_are_forgotten_at_a_start(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.watching() as book:
        book.release(book.take(Liveness.CONNECTION, HOLDER).id)
    await wait(timedelta(seconds=1))
    later = House(tmp_path, token=2)
    later.set_forward = REMEMBER + timedelta(days=1)
    later.book.open()
    assert LeaseFile(later.path).records() == ()
