"""One answer for all who ask at the same time."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Shared(Generic[T]):
    """Makes a call for all tasks that asked before it began: no answer is older than the question.

    However many ask, there is one call under way and at most one more that waits.
    """

    def __init__(self) -> None:
        self._lock = anyio.Lock()
        self._begun = 0
        self._ended = 0
        self._answer: T | None = None
        self._error: Exception | None = None

    async def get(self, take: Callable[[], Awaitable[T]]) -> T:
        """What ``take`` returns or raises, called for this task or for another one that asked as well."""
        wanted = self._begun + 1
        async with self._lock:
            if self._ended < wanted:
                self._begun += 1
                number, self._answer, self._error = self._begun, None, None
                try:
                    self._answer = await take()
                except Exception as error:  # noqa: BLE001 - every task that waited gets it
                    self._error = error
                self._ended = number
            if self._error is not None:
                raise self._error
            return self._answer  # type: ignore[return-value]  # ``take`` has returned it
