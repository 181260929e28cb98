"""One answer for all who ask at the same time."""

import math
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, Self, TypeVar

import anyio

from reaper.errors import NotFoundError
from reaper.providers.base import Call

T = TypeVar("T")
R = TypeVar("R")

OFTEN = 0.3  # seconds from the beginning of one call to that of the next, but ...
DUTY = 8  # ... no more than so many times what the call took
IN_VAIN = 3  # calls that failed while a task waited: then it has failed as well


class Lock(Protocol):
    """One of asyncio's or anyio's."""

    async def acquire(self) -> object:
        """Wait until it is free, and take it."""
        ...

    def release(self) -> None:
        """Let the next one have it."""
        ...


class Turn:
    """A lock that its holder passes on as soon as a request of its has failed, since that backs off.

    Args:
        call: of the holder, which may try again.
        failed: is called before the lock is passed on.
    """

    def __init__(self, lock: Lock, call: Call, failed: Callable[[], None] = lambda: None) -> None:
        self._lock = lock
        self._call = call
        self._failed = failed
        self._is_ours = False

    async def __aenter__(self) -> Self:
        await self._lock.acquire()
        self._is_ours = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pass_on()

    @property
    def is_ours(self) -> bool:
        """Whether it has not been passed on."""
        return self._is_ours

    def _pass_on(self) -> None:
        if self._is_ours:
            self._is_ours = False
            self._lock.release()

    async def call(self, what: str, function: Callable[[], Awaitable[R]]) -> R:
        """Make a request through the holder's call."""

        async def tried() -> R:
            try:
                return await function()
            except NotFoundError:
                raise
            except BaseException:  # out of time as well
                self._failed()
                self._pass_on()
                raise

        return await self._call(what, tried)


class Shared(Generic[T]):
    """Makes a call for all tasks that asked before it began: no answer is older than the question.

    However many ask, there is one call under way and at most one more that waits. That one is put off for a while: so more
    tasks share an answer, and the endpoint has time for other things than such calls. While a call that has failed backs
    off, the next one may begin: one unlucky request does not hold up all.
    """

    def __init__(self) -> None:
        self._turn = anyio.Lock()
        self._begun = 0
        self._ended = 0  # the number of the last call that was answered
        self._failed = 0  # how many were not
        self._next_at = -math.inf
        self._answer: T | None = None
        self._error: Exception | None = None

    async def get(self, take: Callable[[Call], Awaitable[T]], call: Call) -> T:
        """What ``take`` returns or raises, called for this task or for another one that asked as well.

        Args:
            take: makes its requests through the call that it is given.
            call: of this task, which may try again.
        """
        wanted, failed, began = self._begun + 1, self._failed, math.inf
        async with Turn(self._turn, call, lambda: self._put_off(began)) as turn:
            try:
                if self._ended >= wanted:
                    return self._answer  # type: ignore[return-value]  # ``take`` has returned it
                if self._error is not None and self._failed - failed >= IN_VAIN:
                    raise self._error
                await anyio.sleep(max(0.0, self._next_at - anyio.current_time()))
                began = anyio.current_time()
                self._begun = number = self._begun + 1
                try:
                    answer = await take(turn.call)
                except Exception as error:
                    self._failed, self._error = self._failed + 1, error
                    raise
                self._put_off(began)
                if number > self._ended:
                    self._ended, self._answer = number, answer
                return answer
            finally:
                if turn.is_ours and not self._turn.statistics().tasks_waiting:
                    self._answer = self._error = None  # it is large, and those who ask from now on get another

    def _put_off(self, began: float) -> None:
        """Have the next call wait for a while, as this one, which began then, has ended."""
        self._next_at = began + min(DUTY * (anyio.current_time() - began), OFTEN)
