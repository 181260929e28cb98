"""Cancelling at the n-th await, and what must not be left behind."""

import asyncio
import threading
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from tests.simulator.docker_world import World

T = TypeVar("T")


def names(world: World) -> set[str]:
    """The names of the containers that the engine holds."""
    return world.do(lambda: {container.name for container in world.sim.containers.values()})


@types.coroutine
def counted(work: Coroutine[Any, Any, T], told: Callable[[int], None]) -> Generator[Any, Any, T]:
    """``work``; each time that it waits ``told`` is called, with the number of the await, from 0."""
    number, value, error = 0, None, None
    while True:
        try:
            wanted = work.send(value) if error is None else work.throw(error)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        told(number)
        number += 1
        value = error = None
        try:
            value = yield wanted
        except BaseException as thrown:  # noqa: BLE001 - passed on
            error = thrown


async def cancelled_at(point: int, make: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T | BaseException, bool]:
    """What ``make()`` comes to in a task that is cancelled at its n-th await, and whether there was one."""
    reached = False

    def told(number: int) -> None:
        nonlocal reached
        if number == point:
            reached = True
            task.cancel()

    async def run() -> T:
        return await counted(make(), told)

    task = asyncio.create_task(run())
    results = await asyncio.gather(task, return_exceptions=True)
    return results[0], reached


class Nothing:
    """Asserts that a block leaves no task and no thread behind. A context manager."""

    def __enter__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._threads = {thread for thread in threading.enumerate() if "AnyIO" not in thread.name}

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            assert asyncio.all_tasks() <= self._tasks
            left = {thread for thread in threading.enumerate() if "AnyIO" not in thread.name} - self._threads
            for thread in left:
                thread.join(60)
                assert not thread.is_alive(), thread
