"""An answer that many share is renewed while it still serves, and none of them waits for that."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from reaper.errors import ServerError
from reaper.providers.base import Call
from reaper.providers.daytona.kept import Kept
from reaper.providers.sharing import IN_VAIN
from tests.daytona.loop import JumpingLoop
from tests.providers.lab import direct

pytestmark = pytest.mark.anyio

LASTS, TAKES = 5.0, 1.0
T = TypeVar("T")


class Source:
    """Counts what was taken; each time takes a second."""

    def __init__(self) -> None:
        self.taken = 0
        self.fails = False
        self.kept: Kept[int] = Kept(lambda took: took + LASTS)

    async def take(self, _: Call) -> int:
        self.taken += 1
        number = self.taken
        await asyncio.sleep(TAKES)
        if self.fails:
            raise ServerError("500")
        return number

    async def get(self, about: object = None) -> tuple[int, float]:
        """The answer, and how long it was waited for."""
        clock = asyncio.get_running_loop().time
        began = clock()
        return await self.kept.get(about, self.take, direct), clock() - began


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": JumpingLoop}


async def test_none_waits_for_an_answer_that_is_renewed_ahead(source: Source) -> None:
    renewal = asyncio.create_task(source.kept.renew(source.take, direct))
    await source.get()
    waited = []
    for _ in range(200):
        await asyncio.sleep(0.1)
        waited.append((await source.get())[1])
    renewal.cancel()
    assert max(waited) == 0
    assert source.taken in (4, 5, 6)


async def test_without_a_renewal_the_first_who_asks_too_late_takes_the_next(source: Source) -> None:
    assert await source.get() == (1, TAKES)
    await asyncio.sleep(LASTS - 0.1)
    assert await source.get() == (1, 0)
    await asyncio.sleep(0.2)
    assert await source.get() == (2, TAKES)


async def test_an_answer_that_is_not_asked_for_is_not_renewed(source: Source) -> None:
    renewal = asyncio.create_task(source.kept.renew(source.take, direct))
    await source.get()
    await asyncio.sleep(10 * LASTS)
    renewal.cancel()
    assert source.taken == 1
    assert await source.get() == (2, TAKES)


async def test_a_renewal_that_fails_serves_the_old_answer_to_its_end_and_no_longer(source: Source) -> None:
    renewal = asyncio.create_task(source.kept.renew(source.take, direct))
    await source.get()
    source.fails = True
    await asyncio.sleep(LASTS - 1)
    assert await source.get() == (1, 0)
    await asyncio.sleep(TAKES + 0.1)
    with pytest.raises(ServerError):
        await source.get()
    renewal.cancel()


async def test_another_question_is_not_answered_by_the_last_one(source: Source) -> None:
    first, second = object(), object()
    assert await source.get(first) == (1, TAKES)
    assert await source.get(second) == (2, TAKES)
    assert await source.get(second) == (2, 0)


async def test_while_the_request_of_one_backs_off_the_next_one_takes_it() -> None:
    kept: Kept[int] = Kept(lambda _: LASTS)
    asked: list[float] = []

    async def take(call: Call) -> int:
        async def request() -> int:
            asked.append(asyncio.get_running_loop().time())
            if len(asked) == 1:
                raise ServerError("500")
            return len(asked)

        return await call("list", request)

    async def patient(what: str, function: Callable[[], Awaitable[T]]) -> T:
        try:
            return await direct(what, function)
        except ServerError:
            await asyncio.sleep(60)
            return await direct(what, function)

    began = asyncio.get_running_loop().time()
    unlucky = asyncio.create_task(kept.get(None, take, patient))
    others = [asyncio.create_task(kept.get(None, take, patient)) for _ in range(100)]
    assert await asyncio.gather(*others) == [2] * 100
    assert asyncio.get_running_loop().time() - began < 1
    assert await unlucky == 3
    assert len(asked) == 3


async def test_what_fails_for_all_is_tried_by_few() -> None:
    kept: Kept[int] = Kept(lambda _: LASTS)
    tried = 0

    async def take(call: Call) -> int:
        async def request() -> int:
            nonlocal tried
            tried += 1
            await asyncio.sleep(TAKES)
            raise ServerError("500")

        return await call("list", request)

    asked = await asyncio.gather(*(kept.get(None, take, direct) for _ in range(100)), return_exceptions=True)
    assert {type(error) for error in asked} == {ServerError}
    assert tried == IN_VAIN
