"""Waiting for what an endpoint does in its own time, by looking again and again."""

import math
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TypeVar

import anyio

from reaper.core.model import Resource, State
from reaper.errors import NotFoundError
from reaper.providers.base import Limits
from reaper.retry.budget import AdaptiveLimiter
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


class Pace(AdaptiveLimiter):
    """Lets so many units be under way that what was seen of each is still true when its turn comes.

    Args:
        limits: of the endpoint's calls.
        units: how many there are.
        running: in how many of them something has to be stopped: all at once, beside those who wait.
        resting: counts those that do not count.

    Attributes:
        most: never more than this, since a task for each of tens of thousands costs memory.
    """

    def __init__(self, limits: Limits, units: int, running: int, resting: Resting) -> None:
        stopping = min(running, limits.stops)
        self._begins_with = 6 * (limits.reads + limits.removals) + stopping
        self.most = max(self._begins_with, units // 16)
        self.LEAST, self._resting = 2 * limits.removals + stopping, resting
        super().__init__(self.most)

    @property
    def now(self) -> int:
        """See ``AdaptiveLimiter``."""
        return super().now + self._resting.number

    async def within(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work when its turn has come."""
        self._wake()  # others may have begun to rest
        async with self:
            await work()
        self.observe(0.0, well=True)

    def crowded(self) -> None:
        """What was seen of one is no longer true."""
        self.observe(0.0, well=False)

    def _first(self, most: int) -> float:  # noqa: ARG002
        return self._begins_with


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
