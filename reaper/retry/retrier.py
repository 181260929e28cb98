"""The one place that retries.

Attempts and total time are both bounded; ``Retry-After`` is honoured and clamped; a cooldown ordered by a rate limit
costs no attempt and no time of the total; a call that backs off gives up its slot.
"""

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeVar

import anyio

from reaper.errors import (
    CallTimeoutError,
    CircuitOpenError,
    CredentialsError,
    ProviderError,
    RateLimitedError,
    UnavailableError,
)
from reaper.retry.breaker import Breaker, Cooldown
from reaper.retry.budget import AdaptiveLimiter, Budget
from reaper.retry.resting import Resting

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long one call is tried. Delays are the base of the backoff, in the words of [retry].

    Args:
        attempts: the first try included.
        total: all tries of one call together, the delays included.
        request_timeout: for one try, unless the call names its own.
    """

    attempts: int = 4
    initial_delay: timedelta = timedelta(seconds=2)
    factor: float = 2.0
    max_delay: timedelta = timedelta(seconds=30)
    jitter: timedelta = timedelta(seconds=1)
    total: timedelta = timedelta(seconds=60)
    request_timeout: timedelta = timedelta(seconds=30)

    def delay(self, attempt: int) -> float:
        """Seconds to wait after the ``attempt``-th failure, counted from 1, jitter included."""
        base = self.initial_delay.total_seconds() * self.factor ** min(attempt - 1, 64)
        jitter = random.uniform(0, self.jitter.total_seconds())  # noqa: S311 - spreads tasks, guards nothing
        return min(base + jitter, self.max_delay.total_seconds())


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt failed and another one follows.

    Args:
        what: the call, for people: "delete container chess-1".
        attempt: which one failed, counted from 1.
        attempts: of how many.
        delay: seconds until the next one begins.
        cooldown: whether a rate limit ordered the delay: then the attempt does not count.
    """

    what: str
    attempt: int
    attempts: int
    error: ProviderError
    delay: float
    cooldown: bool = False


class AttemptCall(Protocol):
    """Makes a request that belongs to the attempt of another call, and is retried with it."""

    async def __call__(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        """The result of ``function``; ``what`` is for messages."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """A last look that belongs to each attempt of a change: when it has to be taken again, and how.

    It is made in the attempt's own slot, so that nothing lies between what it sees and the change. Where it is needed
    already before that, it is taken ahead, outside the slot, and again only if waiting for the slot takes too long.
    Each makes its requests through the call that it is given: each has a time-out of its own, and waits for its budget
    outside it.
    """

    needed: Callable[[], bool]
    take: Callable[["AttemptCall"], Awaitable[None]]
    ahead: Callable[["AttemptCall"], Awaitable[None]] | None = None


class Retrier:
    """Makes the calls to one endpoint, with retries.

    Args:
        on_retry: is called with every attempt that is followed by another.
        reading: the budget of calls that only look.
        changing: the budget of calls that change something; the same one where the endpoint does not distinguish them.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        on_retry: Callable[[FailedAttempt], None] = lambda _: None,
        breaker: Breaker | None = None,
        reading: Budget | None = None,
        changing: Budget | None = None,
    ) -> None:
        self.policy = policy
        self.breaker = breaker or Breaker()
        self.on_retry = on_retry
        self.failed: FailedAttempt | None = None  # the last one that was to be followed by another
        self.reading = reading or Budget()
        self.changing = changing or self.reading
        self.resting = Resting()

    def begin(self, on_retry: Callable[[FailedAttempt], None]) -> None:
        """A sweep begins, which is told of what is tried again, and asks anew what refused the credentials."""
        self.on_retry, self.failed = on_retry, None
        self.breaker.renew()

    async def call(
        self,
        what: str,
        function: Callable[[], Awaitable[T]],
        *,
        slots: AbstractAsyncContextManager[object] | None = None,
        extra: timedelta = timedelta(0),
        changes: bool = False,
        look: Look | None = None,
    ) -> T:
        """The result of ``function``, tried until it succeeds, fails for good, or the attempts or the time are used up.

        Args:
            what: for messages: verb, kind and name.
            function: makes the call; is called once for each attempt.
            slots: held during an attempt, and given up while backing off. Waiting for one costs none of the total, nor does
                waiting for a budget.
            extra: time that the call needs by its nature (a container's stop time-out), on top of the limits.
            changes: whether it changes something, and so is counted in the other budget, and apart in the breaker.
            look: is taken before ``function`` in an attempt that needs it.

        Raises:
            ProviderError: the last error. ``CircuitOpenError`` at once while the endpoint is given up.
        """
        total = (self.policy.total + extra).total_seconds()
        timeout = (self.policy.request_timeout + extra).total_seconds()
        budget = self.changing if changes else self.reading
        return await _Call(self, what, slots or nullcontext(), timeout, total, budget, changes, look).run(function)


class _TotalTimeoutError(BaseException):
    """The time of one call is up: no answer to others that wait for what it asks (see ``Shared``)."""


@dataclass(slots=True)
class _Call:
    """One call with all its attempts.

    Args:
        timeout: seconds for one attempt.
        total: seconds for all of them, the delays included.
        changes: whether it changes something; its looks are reads.
    """

    owner: Retrier
    what: str
    slots: AbstractAsyncContextManager[object]
    timeout: float
    total: float
    budget: Budget
    changes: bool
    look: Look | None
    number: int = 0
    vain_looks: int = 0  # last looks that failed
    last_error: ProviderError | None = None
    left: float = field(init=False)  # of the total; waiting for a slot or a budget does not use it up
    asked: Budget = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.total
        self.asked = self.budget

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Try until it succeeds, fails for good, or was tried often enough."""
        while True:
            try:
                return await self._attempt(function)
            except _TotalTimeoutError:
                raise self.last_error or CallTimeoutError(f"no answer within {self.total:g} s in all") from None
            except CircuitOpenError as error:
                raise self.last_error or error from None  # one that was tried has an error of its own
            except ProviderError as error:
                delay = self._backoff(error)
                if delay is None:
                    raise
                with self.owner.resting.one():
                    await anyio.sleep(min(delay, self.left))
                self.left -= delay
                if self.left <= 0:
                    raise

    async def _attempt(self, function: Callable[[], Awaitable[T]]) -> T:
        self.number += 1
        for cooldowns_left in range(self.owner.policy.attempts, -1, -1):
            try:
                return await self._once(function)
            except RateLimitedError as error:
                if error.retry_after is None:
                    raise
                asked, self.asked = self.asked, self.budget
                for budget in {self.owner.reading, self.owner.changing} if error.everything else {asked}:
                    budget.blocked(error.retry_after)
                if not cooldowns_left:
                    raise
                self._report(error, min(error.retry_after, Cooldown.LONGEST), cooldown=True)
        raise AssertionError("the last round of the loop returns or raises")

    async def _once(self, function: Callable[[], Awaitable[T]]) -> T:
        while True:
            if (ahead := self._look_ahead()) is not None:
                await self._take(ahead)
            async with self.budget, self.slots:
                if self._is_paused():
                    continue  # it was ordered while this task waited for its slot
                self.owner.breaker.check(changes=self.changes)
                if self.look is not None and self.look.needed():
                    await self._take(self.look.take)
                    if self._is_paused():
                        continue
                return await self._timed(function)

    def _look_ahead(self) -> Callable[["AttemptCall"], Awaitable[None]] | None:
        if self.look is None or self.look.ahead is None or self.owner.breaker.open_for(changes=self.changes):
            return None
        return self.look.ahead if self.look.needed() else None

    def _is_paused(self) -> bool:
        return self.budget.cooldown.active

    async def _look(self, what: str, function: Callable[[], Awaitable[T]]) -> T:  # noqa: ARG002 - the attempt has a name
        """Make a request of the last look. Waiting for its budget counts for no deadline."""
        async with self.owner.reading:
            self.owner.breaker.check()
            self.asked = self.owner.reading
            result = await self._timed(function, look=True)
            self.asked = self.budget
        return result

    async def _timed(self, function: Callable[[], Awaitable[T]], *, look: bool = False) -> T:
        changes = self.changes and not look
        began = anyio.current_time()
        within = min(self.timeout, self.left)
        try:
            with anyio.CancelScope(deadline=began + within) as scope:
                result = await function()
                if not look:  # which says nothing of how quick changes are
                    self._adapt(began, well=True)
                self.owner.breaker.succeeded(changes=changes)
                return result
        except TimeoutError:
            pass
        except ProviderError as error:
            self._failed(error, began, changes=changes)
            raise
        finally:
            self.left -= anyio.current_time() - began
        if scope.cancelled_caught and within < self.timeout:
            cut_short = CallTimeoutError(f"no answer within {self.total:g} s in all")
            self.owner.breaker.failed(cut_short, changes=changes)  # which speaks of the endpoint, too
            raise _TotalTimeoutError
        timed_out = CallTimeoutError(f"no answer within {self.timeout:g} s")
        self._failed(timed_out, began, changes=changes)
        raise timed_out

    def _adapt(self, began: float, *, well: bool) -> None:
        if isinstance(self.slots, AdaptiveLimiter):
            self.slots.observe(anyio.current_time() - began, well=well)

    def _failed(self, error: ProviderError, began: float, *, changes: bool) -> None:
        self.last_error = error
        self._adapt(began, well=not isinstance(error, UnavailableError | RateLimitedError))
        if isinstance(error, CredentialsError):
            self.owner.breaker.trip(error)
        else:
            self.owner.breaker.failed(error, changes=changes)

    async def _take(self, look: Callable[["AttemptCall"], Awaitable[None]]) -> None:
        """Take the last look. One that is refused is no try of the change, up to twice as many times as there are tries."""
        try:
            await look(self._look)
        except ProviderError as error:
            slow = isinstance(error, CallTimeoutError)
            if error.retryable and not slow and self.vain_looks < 2 * self.owner.policy.attempts:
                self.vain_looks += 1
                self.number -= 1
            raise

    def _backoff(self, error: ProviderError) -> float | None:
        """Seconds to wait before the next attempt; None when there is to be none."""
        if not error.retryable or self.left <= 0 or self.number >= self.owner.policy.attempts:
            return None
        if self.owner.breaker.open_for(changes=self.changes):
            return None
        delay = self.owner.policy.delay(max(self.number, 1))
        if error.retry_after is not None:
            delay = max(delay, min(error.retry_after, Cooldown.LONGEST))
        self._report(error, delay)
        return delay

    def _report(self, error: ProviderError, delay: float, *, cooldown: bool = False) -> None:
        attempts = self.owner.policy.attempts
        self.owner.failed = FailedAttempt(self.what, max(self.number, 1), attempts, error, delay, cooldown)
        self.owner.on_retry(self.owner.failed)
