"""How many calls are under way: more while answers stay quick, fewer when they slow down or fail."""

import anyio
import anyio.lowlevel
import pytest

from reaper.errors import NotFoundError, ProviderError, ServerError
from reaper.providers.base import Limits
from reaper.retry.budget import AdaptiveLimiter
from reaper.retry.retrier import AttemptCall, Look, Retrier
from reaper.sweep.concurrency import for_each
from reaper.sweep.context import Slots
from tests.sweep.lab import EXACT

pytestmark = pytest.mark.anyio

MOST = 32


class Endpoint:
    """Takes ``seconds`` for each call, and fails those that ``wrong`` says."""

    def __init__(self) -> None:
        self.limiter = AdaptiveLimiter(MOST)
        self.seconds = 0.05
        self.wrong: ProviderError | None = None
        self.under_way = self.most = 0

    async def answer(self) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await anyio.sleep(self.seconds)
        self.under_way -= 1
        if self.wrong is not None:
            raise self.wrong

    async def ask(self, count: int) -> int:
        """Make so many calls; how many were under way at the most."""
        retrier = Retrier(EXACT)
        self.most = 0

        async def one(number: int) -> None:
            try:
                await retrier.call(f"call {number}", self.answer, slots=self.limiter)
            except NotFoundError:
                return

        await for_each(range(count), one, 4 * MOST, "ask")
        return self.most


async def test_it_starts_low_and_grows_to_the_most_within_three_rounds() -> None:
    endpoint = Endpoint()
    began = anyio.current_time()
    assert await endpoint.ask(8) == MOST // 4
    assert await endpoint.ask(200) == MOST
    rounds = -(-200 // MOST) + 3
    assert anyio.current_time() - began <= rounds * 0.05 + 0.001


async def test_answers_that_slow_down_lower_it_and_quick_ones_raise_it_again() -> None:
    endpoint = Endpoint()
    await endpoint.ask(200)
    endpoint.seconds = 1.0
    await endpoint.ask(200)
    slow = endpoint.limiter.now
    assert slow <= MOST / 2
    endpoint.seconds = 0.05
    await endpoint.ask(4000)
    assert endpoint.limiter.now == MOST


async def test_an_endpoint_that_has_become_slower_for_good_is_not_taken_for_sick_for_ever() -> None:
    endpoint = Endpoint()
    await endpoint.ask(200)
    endpoint.seconds = 0.5
    await endpoint.ask(4000)
    assert endpoint.limiter.now == MOST


async def test_an_answer_within_a_quarter_of_a_second_is_never_slow() -> None:
    endpoint = Endpoint()
    endpoint.seconds = 0.001
    await endpoint.ask(200)
    endpoint.seconds = 0.2
    await endpoint.ask(200)
    assert endpoint.limiter.now == MOST


async def test_failures_of_the_endpoint_halve_it_once_a_round() -> None:
    limiter = AdaptiveLimiter(MOST)
    for _ in range(100):
        limiter.observe(0.05, well=True)
    for _ in range(MOST):
        limiter.observe(0.05, well=False)
    assert limiter.now == MOST // 2
    for _ in range(1000):
        limiter.observe(0.05, well=False)
    assert limiter.now == 1, "and one call goes on, so that it learns when all is well again"


async def test_a_server_error_lowers_it_and_a_missing_resource_does_not() -> None:
    endpoint = Endpoint()
    await endpoint.ask(200)
    endpoint.wrong = NotFoundError("gone")
    await endpoint.ask(200)
    assert endpoint.limiter.now == MOST
    retrier = Retrier(EXACT)
    endpoint.wrong = ServerError("500")
    with pytest.raises(ServerError):
        await retrier.call("call", endpoint.answer, slots=endpoint.limiter)
    assert endpoint.limiter.now < MOST


def test_after_an_outage_it_is_back_within_a_few_rounds() -> None:
    limiter = AdaptiveLimiter(MOST)
    for _ in range(200):
        limiter.observe(0.05, well=True)
    assert limiter.now == MOST
    for _ in range(200):
        limiter.observe(0.05, well=False)
    assert limiter.now == 1
    for _ in range(MOST):
        limiter.observe(0.05, well=True)
    assert limiter.now >= MOST / 2


def test_an_endpoint_that_fails_now_and_then_is_not_asked_as_before_an_outage() -> None:
    limiter = AdaptiveLimiter(MOST)
    for _ in range(400):
        limiter.observe(0.05, well=True)
        limiter.observe(0.05, well=False)
    assert limiter.now <= 3


async def test_slots_go_to_those_who_have_waited_longest() -> None:
    limiter, order = AdaptiveLimiter(4), []

    async def one(number: int) -> None:
        async with limiter:
            order.append(number)
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(one, number)
            await anyio.wait_all_tasks_blocked()
    assert order == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("after", [0.5, 1.0])
async def test_one_that_is_cancelled_while_it_waits_leaves_its_slot_to_the_next(after: float) -> None:
    """At half-time nothing is free; at the end of the first its slot has just been given to the second."""
    limiter, entered = AdaptiveLimiter(4), []

    async def one(number: int, scope: anyio.CancelScope) -> None:
        with scope:
            async with limiter:
                entered.append(number)
                await anyio.sleep(1)

    scopes = [anyio.CancelScope() for _ in range(3)]
    async with anyio.create_task_group() as group:
        for number, scope in enumerate(scopes):
            group.start_soon(one, number, scope)
            await anyio.wait_all_tasks_blocked()
        await anyio.sleep(after)
        scopes[1].cancel()
    assert entered in ([0, 2], [0, 1, 2])
    async with limiter:
        assert limiter.now == 1


class Engine:
    """Takes the longer for each removal the more are under way, those of its other users included."""

    def __init__(self) -> None:
        self.slots = Slots(Limits(removals=8))
        self.others = 0
        self.under_way: list[int] = []
        self._now = 0

    async def remove(self) -> None:
        self._now += 1
        self.under_way.append(self._now)
        await anyio.sleep(0.002 * (self._now + self.others))
        self._now -= 1

    async def glance(self, call: AttemptCall) -> None:
        await call("look", anyio.lowlevel.checkpoint)

    async def sweep(self, count: int) -> list[int]:
        """Remove so many, each with a last look; how many were under way at the beginning of each."""
        retrier, look = Retrier(EXACT), Look(lambda: True, self.glance)
        self.under_way = []

        async def one(number: int) -> None:
            await retrier.call(f"delete {number}", self.remove, slots=self.slots.removals, changes=True, look=look)

        await for_each(range(count), one, 64, "delete")
        return self.under_way


async def test_an_engine_without_other_work_is_asked_for_as_many_removals_as_are_allowed() -> None:
    assert (await Engine().sweep(200))[50:190] == [8] * 140


async def test_removals_are_fewer_while_another_user_slows_the_engine_down_and_many_again_afterwards() -> None:
    engine = Engine()
    await engine.sweep(100)
    engine.others = 16
    assert max((await engine.sweep(60))[30:]) <= 4
    engine.others = 0
    assert max(await engine.sweep(300)) == 8
