"""Each fault at each call of each provider: once so that it passes, and once for the whole sweep.

Nothing that must live dies; report, exit code and metrics say what happened; the sweep after it finishes the work.
"""

import asyncio
import itertools
from datetime import timedelta

import pytest

from reaper.core.model import Outcome
from tests import needs
from tests.matrix import outcomes
from tests.matrix.bench import LONGEST, NOW, PASSING, Bench, Swept
from tests.matrix.faults import CALLS, DAYTONA, EVENTS, FAULTS, LIST, NAMES, PROVIDERS, STOP, Fault
from tests.matrix.worlds import DaytonaWorld, DockerWorld, World

pytestmark = pytest.mark.anyio

# Every second one, so that each fault is tried at each second call and each call with each second fault; all in CI.
CELLS = [
    pytest.param(fault, provider, call, id=f"{provider}-{call}-{fault.name}")
    for row, fault in enumerate(FAULTS)
    for column, (provider, call) in enumerate(itertools.product(PROVIDERS, CALLS))
    if call != EVENTS and fault.reason(provider, call) is None
    if needs.everything() or (row + column) % 2 == 0
]
PAUSE = timedelta(minutes=20)  # until the next sweep


def world(provider: str, call: str) -> World:
    return DaytonaWorld(denied=call == STOP) if provider == DAYTONA else DockerWorld()


def came(swept: Swept) -> str:
    """How much of what was to go is gone, and the exit code."""
    left = swept.bench.world.go & swept.after
    return f"{'all' if not left else 'none' if left == swept.bench.world.go else 'some'} {swept.code}"


async def tried(fault: Fault, provider: str, call: str, times: int | None) -> str:
    """A sweep with the fault, and the next one without it."""
    skew = fault.skew if call == LIST else 0
    async with Bench(world(provider, call), call, fault.strikes(provider, call), times, skew=skew) as bench:
        swept = await bench.sweep()
        assert bench.struck, ("the call was never made", swept.story)
        await bench.end()
        pause, grown_old = PAUSE, {"nearly-old", "nearly-stopped"}
        if Outcome.STOPPED in swept.outcomes.values() and call != STOP:  # they go when they have been idle for long enough
            pause = timedelta(hours=3)
        if skew < 0 or pause > PAUSE:  # by the right clock, what was created by one that was behind is older
            bench.world.live -= grown_old
        await asyncio.sleep(pause.total_seconds())
        again = await bench.sweep()
        assert not bench.world.go & again.after, again.story
        # What could not be stopped before is stopped now, and its deletion is denied as before.
        assert again.code == (3 if Outcome.STOPPED in again.outcomes.values() else 0), again.story
        assert bench.clock.now() - NOW < LONGEST + pause, "it took so long that what must live has become old"
        return came(swept)


@pytest.mark.parametrize(("fault", "provider", "call"), CELLS)
async def test_a_fault_at_a_call(fault: Fault, provider: str, call: str) -> None:
    passing = await tried(fault, provider, call, PASSING)
    lasting = await tried(fault, provider, call, None)
    outcomes.hold(provider, fault.name, call, f"{passing}, {lasting}")


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_without_a_fault_everything_goes_that_must_and_nothing_else(provider: str) -> None:
    async with Bench(world(provider, ""), "", None, None) as bench:
        swept = await bench.sweep()
        assert (came(swept), swept.after) == ("all 0", set(bench.world.live)), swept.story


def test_the_file_has_each_cell_or_the_reason_why_there_is_none() -> None:
    outcomes.hold("rows", "of calls", "names", "\n".join(NAMES))
    none: dict[tuple[str, str], list[str]] = {}  # by fault and reason: the calls
    for provider, call in itertools.product(PROVIDERS, CALLS):
        reasons = {fault.name: reason for fault in FAULTS if (reason := fault.reason(provider, call))}
        if len(reasons) == len(FAULTS):
            reasons = {"each fault": next(iter(reasons.values()))}
        for fault_name, reason in reasons.items():
            none.setdefault((fault_name, reason), []).append(f"{provider}: {call}")
    for (fault_name, reason), places in none.items():
        outcomes.hold("no cell", fault_name, reason, ", ".join(places))
