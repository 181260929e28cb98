"""Each fault at the stream of an engine's events, before a worker as the service has one.

Events are hints: while there are none, what dies goes with the next sweep of the schedule; when they are back, soon.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import pytest

from reaper.core.durations import parse
from reaper.service.endpoint_worker import EndpointWorker
from reaper.service.loaded import Loaded
from reaper.sweep.result import SweepResult
from tests.matrix import outcomes
from tests.matrix.bench import Bench
from tests.matrix.faults import DOCKER, EVENTS, FAULTS, Fault
from tests.matrix.worlds import DockerWorld
from tests.service.lab import Diary

pytestmark = pytest.mark.anyio

GRACE, EVERY = "5m", timedelta(minutes=30)
POLICY = {"name": "stopped", "kinds": ["container"], "stopped_for": GRACE}
CELLS = [pytest.param(fault, id=fault.name) for fault in FAULTS if fault.reason(DOCKER, EVENTS) is None]
SOON = parse(GRACE) + timedelta(minutes=2)


class Served:
    """A bench whose endpoint has a worker, and is swept on schedule."""

    def __init__(self, bench: Bench, world: DockerWorld, diary: Diary) -> None:
        self.bench, self.world, self.diary = bench, world, diary

    async def goes_after(self, name: str) -> timedelta | None:
        """Start a container that ends at once; how long it takes until it is deleted, None where nothing can be."""
        self.world.die(name)
        began, results = self.bench.clock.now(), len(self.diary.results)
        while name in self.world.names():
            await asyncio.sleep(30)
            if self.diary.results[results:].count(SweepResult.UNLISTED) > 2:
                return None
            assert self.bench.clock.now() - began < 3 * EVERY, (name, self.diary.events, self.diary.results)
        return self.bench.clock.now() - began


@asynccontextmanager
async def served(fault: Fault) -> AsyncIterator[Served]:
    """A worker that follows the events, at which the fault strikes until it ends."""
    world, diary = DockerWorld(), Diary()
    world.live -= {"nearly-stopped"}  # the policy here has a shorter grace
    async with Bench(world, EVENTS, fault.strikes(DOCKER, EVENTS), None, policy=[POLICY]) as bench:
        (endpoint,) = bench.session.endpoints
        loaded = Loaded(bench.settings, bench.session.plan)
        worker = EndpointWorker(endpoint, bench.session, lambda: loaded, diary)  # type: ignore[arg-type]  # as a reporter

        async def schedule() -> None:
            while True:
                worker.post(["stopped"])
                await asyncio.sleep(EVERY.total_seconds())

        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            group.start_soon(schedule)
            await asyncio.sleep(60)
            yield Served(bench, world, diary)
            worker.retire(timedelta(0))
            await worker.finished.wait()
            group.cancel_scope.cancel()
        assert diary.bugs == diary.stumbles == bench.bugs == []
        assert world.live <= world.names()


@pytest.mark.parametrize("fault", CELLS)
async def test_a_fault_at_the_events(fault: Fault) -> None:
    async with served(fault) as here:
        assert here.bench.struck
        during = await here.goes_after("died-1")
        assert during is None or during <= EVERY + parse(GRACE) + timedelta(minutes=1)
        known = here.diary.events[-1:]  # what the service shows of them
        await here.bench.end()
        await asyncio.sleep(20 * 60)  # silence is noticed after ten minutes, and an endpoint that failed rests for fifteen
        assert fault.skew > 3600 or "died-1" not in here.world.names()  # by the right clock it ends in an hour from now
        after = await here.goes_after("died-2")
        assert here.diary.events[-1][0], "the events are followed again"
        assert after is not None
        assert after <= SOON, after
    goes = "later" if during is None else "soon" if during <= SOON else "on schedule"
    outcomes.hold(DOCKER, fault.name, EVENTS, f"{goes}, {'connected' if known and known[0][0] else 'not connected'}")
