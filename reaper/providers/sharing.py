"""One answer for all who ask at the same time."""

import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")

OFTEN = 0.3  # seconds from the beginning of one call to that of the next, but ...
DUTY = 8  # ... no more than so many times what the call took


class Shared(Generic[T]):
    """Makes a call for all tasks that asked before it began: no answer is older than the question.

    However many ask, there is one call under way and at most one more that waits. That one is put off for a while: so more
    tasks share an answer, and the endpoint has time for other things than such calls.
    """

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._begun = 0
        self._ended = 0
        self._next_at = -math.inf
        self._answer: T | None = None
        self._error: Exception | None = None

    async def get(self, take: Callable[[], Awaitable[T]]) -> T:
        """What ``take`` returns or raises, called for this task or for another one that asked as well."""
        wanted = self._begun + 1
        async with self._lock:
            if self._ended < wanted:
                if (pause := self._next_at - anyio.current_time()) > 0:
                    await anyio.sleep(pause)
                self._begun += 1
                number, self._answer, self._error = self._begun, None, None
                began = anyio.current_time()
                try:
                    self._answer = await take()
                except Exception as error:  # noqa: BLE001 - every task that waited gets it
                    self._error = error
                self._ended = number
                self._next_at = began + min(DUTY * (anyio.current_time() - began), OFTEN)
            answer, failure = self._answer, self._error
            if not self._lock.statistics().tasks_waiting:
                self._answer, self._error = None, None  # it is large, and those who ask from now on get another
            if failure is not None:
                raise failure
            return answer  # type: ignore[return-value]  # ``take`` has returned it
