"""Waiting for what an endpoint does in its own time, by looking again and again."""

import math
from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio

from reaper.errors import NotFoundError
from reaper.model import Resource, State

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
