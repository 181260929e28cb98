"""One answer for all tasks that ask at the same time, and rests between the calls for it."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import pytest

from reaper.errors import ServerError
from reaper.providers.base import Call, call_once
from reaper.providers.sharing import DUTY, IN_VAIN, OFTEN, Shared

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class Listing:
    """Takes ``seconds`` for each answer, which is the time at which it was asked for."""

    def __init__(self, seconds: float) -> None:
        self.shared: Shared[float] = Shared()
        self.seconds = seconds
        self.began: list[float] = []

    async def _take(self, call: Call) -> float:  # noqa: ARG002
        self.began.append(anyio.current_time())
        await anyio.sleep(self.seconds)
        return self.began[-1]

    async def asked_at(self, seconds: float) -> None:
        """Ask so many seconds from now: the answer must not be older than the question."""
        await anyio.sleep(seconds)
        asked = anyio.current_time()
        assert await self.shared.get(self._take, call_once) >= asked


@pytest.mark.parametrize("took", [0.001, 0.01, 0.1, 0.2])
async def test_the_next_call_waits_so_that_most_of_the_time_is_free_and_answers_all_who_asked_meanwhile(took: float) -> None:
    listing = Listing(took)
    start, then = anyio.current_time(), min(DUTY * took, OFTEN)
    async with anyio.create_task_group() as group:
        for when in (0.0, 0.25 * took, 0.5 * took, took, (took + then) / 2):
            group.start_soon(listing.asked_at, when)
    assert [round(began - start, 6) for began in listing.began] == [0.0, round(then, 6)]


async def test_calls_that_take_long_follow_each_other_at_once() -> None:
    listing = Listing(1.0)
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for when in (0.0, 0.5, 1.5):
            group.start_soon(listing.asked_at, when)
    assert [round(began - start, 6) for began in listing.began] == [0.0, 1.0, 2.0]


async def test_the_first_call_and_one_after_a_long_time_wait_for_nothing() -> None:
    listing = Listing(0.1)
    for _ in range(2):
        began = anyio.current_time()
        await listing.asked_at(0.0)
        assert anyio.current_time() - began == pytest.approx(0.1)
        await anyio.sleep(1.0)


async def test_an_answer_is_not_kept_when_all_have_it() -> None:
    listing = Listing(0.1)
    await listing.asked_at(0.0)
    assert listing.shared._answer is None


async def twice(what: str, function: Callable[[], Awaitable[T]]) -> T:
    """A ``Call`` that tries once more, two seconds later."""
    try:
        return await function()
    except ServerError:
        await anyio.sleep(2)
        return await function()


class Failing:
    """A shared listing of which the first so many requests fail."""

    def __init__(self, failures: int) -> None:
        self.shared: Shared[float] = Shared()
        self.failures = failures
        self.ended: dict[str, float] = {}
        self._origin = anyio.current_time()

    async def _take(self, call: Call) -> float:
        return await call("list", self._request)

    async def _request(self) -> float:
        await anyio.sleep(0.1)
        self.failures -= 1
        if self.failures >= 0:
            raise ServerError("500")
        return anyio.current_time()

    async def ask(self, name: str, call: Call, after: float = 0.0) -> None:
        """Ask so many seconds from now, and note when that ended, negative with an error."""
        await anyio.sleep(after)
        try:
            await self.shared.get(self._take, call)
        except ServerError:
            self.ended[name] = -round(anyio.current_time() - self._origin, 3)
        else:
            self.ended[name] = round(anyio.current_time() - self._origin, 3)


async def test_while_a_call_that_failed_backs_off_another_answers_all_who_wait() -> None:
    failing = Failing(1)
    async with anyio.create_task_group() as group:
        for name, after in (("first", 0.0), ("second", 0.05), ("third", 0.06)):
            group.start_soon(failing.ask, name, twice, after)
    assert failing.ended == {"second": OFTEN + 0.1, "third": OFTEN + 0.1, "first": 2.2}


async def test_the_error_of_one_is_not_that_of_the_others_unless_all_fail() -> None:
    failing = Failing(1)
    async with anyio.create_task_group() as group:
        for name in ("first", "second", "third"):
            group.start_soon(failing.ask, name, call_once, 0.05 * len(failing.ended))
    assert sorted(failing.ended.values()) == [-0.1, OFTEN + 0.1, OFTEN + 0.1]
    failing = Failing(100)
    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(failing.ask, str(number), call_once)
    assert 100 - failing.failures == IN_VAIN
    assert len(failing.ended) == 40
    assert max(failing.ended.values()) < 0
