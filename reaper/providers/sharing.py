"""One answer for all who ask at the same time."""

import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")

LONGEST_PAUSE = 0.25  # seconds


class Shared(Generic[T]):
    """Makes a call for all tasks that asked before it began: no answer is older than the question.

    However many ask, there is one call under way and at most one more that waits. Between two calls there is a pause as long
    as the first one took: so more tasks share an answer, and the endpoint is busy with such calls half of the time at most.
    """

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._begun = 0
        self._ended = 0
        self._paused_until = -math.inf
        self._answer: T | None = None
        self._error: Exception | None = None

    async def get(self, take: Callable[[], Awaitable[T]]) -> T:
        """What ``take`` returns or raises, called for this task or for another one that asked as well."""
        wanted = self._begun + 1
        async with self._lock:
            if self._ended < wanted:
                if (pause := self._paused_until - anyio.current_time()) > 0:
                    await anyio.sleep(pause)
                self._begun += 1
                number, self._answer, self._error = self._begun, None, None
                began = anyio.current_time()
                try:
                    self._answer = await take()
                except Exception as error:  # noqa: BLE001 - every task that waited gets it
                    self._error = error
                self._ended = number
                ended = anyio.current_time()
                self._paused_until = ended + min(ended - began, LONGEST_PAUSE)
            answer, error = self._answer, self._error
            if not self._lock.statistics().tasks_waiting:
                self._answer, self._error = None, None  # it is large, and those who ask from now on get another
            if error is not None:
                raise error
            return answer  # type: ignore[return-value]  # ``take`` has returned it
