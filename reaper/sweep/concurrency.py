"""Waiting for what an endpoint does in its own time, by looking again and again."""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TypeVar

import anyio

from reaper.core.model import Resource, State
from reaper.errors import NotFoundError

FIRST_DELAY, LONGEST_DELAY = 0.1, 2.0
# Daytona's GET may be ten seconds old, so a state that does not change for longer than this has not changed.
OLDEST_ANSWER = 12.0


async def until(
    done: Callable[[Resource], bool], look: Callable[[], Awaitable[Resource]], patience: timedelta
) -> Resource | None:
    """Look at a resource until it is gone, ``done`` is true of it, or the patience is at its end.

    Returns:
        the resource as it was seen last; None when it is gone.

    Raises:
        ProviderError: it could not be looked at.
    """
    ends = anyio.current_time() + patience.total_seconds()
    delay = FIRST_DELAY
    while True:
        try:
            seen = await look()
        except NotFoundError:
            return None
        if done(seen) or anyio.current_time() >= ends:
            return seen
        await anyio.sleep(min(delay, ends - anyio.current_time()))
        delay = min(delay * 2, LONGEST_DELAY)


def not_changing() -> Callable[[Resource], bool]:
    """Whether a resource has not been changing for longer than an answer may be old. Each call makes a new one."""
    since = math.inf

    def done(resource: Resource) -> bool:
        nonlocal since
        now = anyio.current_time()
        since = math.inf if resource.state is State.CHANGING else min(since, now)
        return now - since >= OLDEST_ANSWER

    return done


class Pace:
    """Lets as many units begin as end within a second: more would only wait, until what was seen of them is no longer true.

    Args:
        least: so many at the same time in any case.
        most: never more than this; also in the first second.
    """

    WINDOW = 1.0

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most
        self._limiter = anyio.CapacityLimiter(most)
        self._began = anyio.current_time()
        self._ended: deque[float] = deque()

    async def within(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work when its turn has come."""
        async with self._limiter:
            await work()
        now = anyio.current_time()
        self._ended.append(now)
        while self._ended[0] <= now - self.WINDOW:
            self._ended.popleft()
        if now - self._began > self.WINDOW:
            self._limiter.total_tokens = min(max(len(self._ended), self._least), self._most)


T = TypeVar("T")


async def for_each(items: Iterable[T], function: Callable[[T], Awaitable[None]], workers: int, name: str) -> None:
    """``function`` for all items, by so many tasks at the most: a task for each of thousands costs memory."""
    left = iter(items)

    async def work() -> None:
        for item in left:
            await function(item)

    async with anyio.create_task_group() as group:
        for number in range(workers):
            group.start_soon(work, name=f"{name} {number}")
