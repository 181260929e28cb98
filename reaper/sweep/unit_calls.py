"""The calls of one unit: none is made any more once the sweep is ending, unless the unit has begun to act."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TypeVar

from reaper.retry.retrier import Look
from reaper.sweep.context import AbandonedError, Context

T = TypeVar("T")


class UnitCalls:
    """Makes them, with the retries and slots of the endpoint.

    Args:
        context: of the sweep.

    Attributes:
        begun: whether one has been made that changes something.
    """

    def __init__(self, context: Context) -> None:
        self.begun = False
        self._context = context

    async def read(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        """Look at one resource."""
        return await self._look(self._context.slots.reads, what, function)

    async def list(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        """List something."""
        return await self._look(self._context.slots.listings, what, function)

    async def act(
        self,
        what: str,
        function: Callable[[], Awaitable[None]],
        slots: AbstractAsyncContextManager[object],
        extra: timedelta = timedelta(0),
        look: Look | None = None,
    ) -> None:
        """Change something."""

        async def guarded() -> None:
            self._check()
            self.begun = True
            await function()

        await self._context.retrier.call(what, guarded, slots=slots, extra=extra, changes=True, look=look)

    async def _look(self, slots: AbstractAsyncContextManager[object], what: str, function: Callable[[], Awaitable[T]]) -> T:
        async def guarded() -> T:
            self._check()
            return await function()

        return await self._context.retrier.call(what, guarded, slots=slots)

    def _check(self) -> None:
        """Raises AbandonedError."""
        if self._context.draining and not self.begun:
            raise AbandonedError
