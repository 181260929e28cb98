"""One answer for all who ask while it is fresh, renewed before it is not: so none of thousands waits for the next one."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from reaper.errors import ProviderError
from reaper.providers.base import Call
from reaper.providers.sharing import IN_VAIN, Turn

T = TypeVar("T")

AHEAD = 1.25  # times what the last answer took: so long before its end the next one is asked for

Take = Callable[[Call], Awaitable[T]]


class Kept(Generic[T]):
    """The latest answer, and until when it is fresh.

    What takes it makes its requests through the call that it is given: when one fails, the next task may take it meanwhile.

    Args:
        lasts: for how many seconds an answer is fresh from when it was asked for, by the seconds that it took.
    """

    def __init__(self, lasts: Callable[[float], float]) -> None:
        self._lasts = lasts
        self._lock = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._answer: T | None = None
        self._about: object = None
        self._failed = 0  # how many were not answered
        self._error: ProviderError | None = None
        self._began = self._until = self._renew_at = self._believed_until = -math.inf

    async def get(self, about: object, take: Take[T], call: Call) -> T:
        """The answer about this, which was fresh when this was called. Raises what ``take`` raises."""
        asked, failed = asyncio.get_running_loop().time(), self._failed
        if not self._is_fresh(about, asked):
            async with Turn(self._lock, call) as turn:
                if not self._is_fresh(about, asked):
                    if self._error is not None and self._failed - failed >= IN_VAIN:
                        raise self._error
                    await self._take(about, take, turn)
        elif asked >= self._renew_at:
            self._renew_at = math.inf
            self._wanted.set()
        return self._answer  # type: ignore[return-value]  # ``take`` has returned it

    def doubt(self, answer: T) -> None:
        """Take this answer for no fresh one any more; the one after it is believed for as long as it would have been."""
        if self._answer is answer and asyncio.get_running_loop().time() >= self._believed_until:
            self._believed_until, self._until = self._until, -math.inf

    async def renew(self, take: Take[T], call: Call) -> None:
        """Take the next answer each time that the latest one comes to its end and is still asked for, until cancelled.

        An error is raised to the next one that asks.
        """
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            async with Turn(self._lock, call) as turn:
                with suppress(ProviderError):
                    await self._take(self._about, take, turn)

    def _is_fresh(self, about: object, asked: float) -> bool:
        return self._about is about and asked < self._until

    async def _take(self, about: object, take: Take[T], turn: Turn) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            answer = await take(turn.call)
        except ProviderError as error:
            self._failed, self._error = self._failed + 1, error
            raise
        if began < self._began and self._about is about:
            return  # it had to be tried again, and another task has a later one
        took = clock() - began
        self._answer, self._about, self._until = answer, about, began + self._lasts(took)
        self._began, self._renew_at = began, self._until - AHEAD * took
