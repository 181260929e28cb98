"""Waiting for what an endpoint does in its own time, by looking again and again."""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TypeVar

import anyio

from reaper.core.model import Resource, State
from reaper.errors import NotFoundError
from reaper.retry.resting import Resting

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
        resting: counts those that do not count.
    """

    WINDOW = 1.0

    def __init__(self, least: int, most: int, resting: Resting) -> None:
        self._least, self._most, self._resting = least, most, resting
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
        busy = self._most
        if now - self._began > self.WINDOW:
            busy = min(max(len(self._ended), self._least), self._most)
        self._limiter.total_tokens = busy + self._resting.number


T = TypeVar("T")


MOST_RESTING = 1000  # a task for each of tens of thousands costs memory


async def for_each(
    items: Iterable[T],
    function: Callable[[T], Awaitable[None]],
    workers: int,
    name: str,
    resting: Resting | None = None,
) -> None:
    """``function`` for all items, by so many tasks at the same time.

    Args:
        items: what there is to do.
        function: does one of them.
        workers: how many tasks. One for each of thousands would cost memory.
        name: of the tasks.
        resting: counts those of them for which another one may go on meanwhile.
    """
    left, busy, more = iter(items), 0, True
    resting = resting or Resting()

    async def work() -> None:
        nonlocal busy, more
        for item in left:
            await function(item)
            if busy > workers + resting.number:
                break
        else:
            more = False
        busy -= 1

    def begin() -> None:
        nonlocal busy
        if more and busy < workers + min(resting.number, MOST_RESTING):
            busy += 1
            group.start_soon(work, name=f"{name} {busy}")

    with resting.calls(begin):
        async with anyio.create_task_group() as group:
            for _ in range(workers):
                begin()
