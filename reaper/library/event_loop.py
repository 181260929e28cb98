"""Which event loop the caller is in, if in one."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio

from reaper.library.errors import WrongLoopError

P = ParamSpec("P")
T = TypeVar("T")


def running() -> str | None:
    """The event loop that runs in this thread: "asyncio", "trio", or None."""
    if (trio := sys.modules.get("trio")) is not None and trio.lowlevel.in_trio_run():
        return "trio"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return None
    return "asyncio"


def asyncio_only(what: str, sdk: str) -> None:
    """Raise WrongLoopError unless asyncio runs.

    Args:
        what: was called, for the message.
        sdk: the client that needs asyncio.
    """
    if (loop := running()) != "asyncio":
        there = "under trio" if loop == "trio" else "without an event loop"
        raise WrongLoopError(
            f"{what} cannot work {there}: {sdk} needs asyncio. Call its synchronous twin in a worker thread"
            " (anyio.to_thread.run_sync, trio.to_thread.run_sync)"
        )


def no_loop(what: str, instead: str) -> None:
    """Raise WrongLoopError when an event loop runs in this thread: a synchronous call would stop it.

    Args:
        what: was called, for the message.
        instead: what to write in its place.
    """
    if (loop := running()) is not None:
        raise WrongLoopError(f"{what} would block the {loop} event loop that runs in this thread; write {instead}")


def run(what: str, instead: str, work: Callable[[], Awaitable[T]]) -> T:
    """The result of ``work``, run in a loop of its own. Raises WrongLoopError when one runs already."""
    no_loop(what, instead)
    return anyio.run(work)


def twin(method: Callable[Concatenate[Any, P], Awaitable[T]]) -> Callable[Concatenate[Any, P], T]:
    """A method of an asynchronous manager, for the synchronous one that has it as ``_manager``. Raises WrongLoopError."""
    manager, _, name = method.__qualname__.partition(".")
    what, instead = f"{manager.removeprefix('Async')}.{name}", f"await {manager}(...).{name}(...)"

    @wraps(method)
    def call(self: Any, /, *arguments: P.args, **keywords: P.kwargs) -> T:  # noqa: ANN401 - whichever has it
        return run(what, instead, lambda: method(self._manager, *arguments, **keywords))

    call.__qualname__ = what
    return call
