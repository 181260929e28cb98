"""What is deleted only if nothing has used it since it was listed, where the endpoint forgets what happened."""

import anyio
import pytest

from reaper.errors import ProviderError, UnavailableError
from reaper.providers.abilities import Uses
from reaper.providers.base import Call, call_once
from reaper.sweep.usage import UsedSince
from tests.sweep.lab import volume

pytestmark = pytest.mark.anyio

REMEMBERED = 256  # events, as by a Docker engine
DATA = volume("data", {})


class Forgetful:
    """Remembers so many events, and does not tell of them while it has an error to answer with."""

    def __init__(self) -> None:
        self.events = 0
        self.asked = 0
        self.error: ProviderError | None = None

    async def uses(self, since: str | None, call: Call) -> Uses:
        """See ``WatchesUse``."""
        return await call("read events", lambda: self._uses(int(since or 0)))

    async def _uses(self, since: int) -> Uses:
        self.asked += 1
        await anyio.sleep(0.005)
        if self.error is not None:
            raise self.error
        return Uses(frozenset(), self.events - since <= REMEMBERED, str(self.events))


async def why_after(engine: Forgetful, *, times: int, every: float, events: int, results: int) -> str | None:
    """Why the volume counts as used after so many times of so many events and results, ``every`` seconds."""
    used = UsedSince(engine, "0")
    async with anyio.create_task_group() as group:
        group.start_soon(used.follow, call_once)
        for _ in range(times):
            await anyio.sleep(every)
            engine.events += events
            for _ in range(results):
                used.settled()
        group.cancel_scope.cancel()
    return await used.why(DATA, call_once)


async def test_the_events_of_a_thousand_stops_and_deletions_are_read_as_they_come() -> None:
    engine = Forgetful()
    assert await why_after(engine, times=1000, every=0.01, events=6, results=1) is None
    assert engine.asked <= 1000 / 20


async def test_those_of_others_are_while_the_sweep_waits() -> None:
    engine = Forgetful()
    assert await why_after(engine, times=600, every=0.1, events=20, results=0) is None
    assert engine.asked <= 60 + 1


async def test_more_than_it_remembers_between_two_looks_count_as_a_use() -> None:
    why = await why_after(Forgetful(), times=10, every=0.1, events=100, results=0)
    assert why == "may have been used since it was listed: the endpoint no longer knows"


async def test_a_look_that_fails_is_no_fault_of_the_sweep_and_those_who_need_the_answer_ask_themselves() -> None:
    engine = Forgetful()
    engine.error = UnavailableError("it is busy")
    with pytest.raises(UnavailableError):
        await why_after(engine, times=30, every=0.1, events=1, results=0)
    engine.error = None
    assert await why_after(engine, times=30, every=0.1, events=1, results=0) is None
