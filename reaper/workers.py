"""A few tasks for many things."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

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
