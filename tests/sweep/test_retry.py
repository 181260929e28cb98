"""The one place that retries, on time that jumps."""

import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.errors import (
    CallTimeoutError,
    CircuitOpenError,
    ConflictError,
    DeniedError,
    InProgressError,
    InvalidError,
    NoSuchEndpointError,
    NotFoundError,
    ProviderError,
    RateLimitedError,
    ServerError,
    UnavailableError,
    UnreadableError,
)
from reaper.retry.breaker import Breaker, Cooldown
from reaper.retry.budget import Budget
from reaper.retry.retrier import AttemptCall, FailedAttempt, Look, Retrier, RetryPolicy

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)
EXACT = RetryPolicy(jitter=timedelta(0))
LONG = RetryPolicy(jitter=timedelta(0), total=timedelta(hours=10), request_timeout=timedelta(minutes=10))
MARGIN = Cooldown.MARGIN


class Caller:
    """Calls through a retrier what answers as told, and remembers when."""

    def __init__(self, policy: RetryPolicy = EXACT, *answers: object, breaker: Breaker | None = None) -> None:
        self.told: list[FailedAttempt] = []
        self.retrier = Retrier(policy, self.told.append, breaker)
        self.answers = list(answers)
        self.times: list[float] = []

    @staticmethod
    async def reading(retrier: Retrier) -> str:
        """What a read that is answered returns."""

        async def read() -> str:
            return "read"

        return await retrier.call("read", read)

    async def answer(self) -> str:
        """The next answer: an error is raised, a number of seconds passes, None never comes. The last one stays."""
        self.times.append(anyio.current_time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await anyio.sleep_forever()
        await anyio.sleep(answer if isinstance(answer, float) else 0)
        if isinstance(answer, BaseException):
            raise answer
        return "done"

    async def call(
        self,
        function: Callable[[], Awaitable[str]] | None = None,
        *,
        slots: AbstractAsyncContextManager[object] | None = None,
        extra: timedelta = timedelta(0),
    ) -> str | ProviderError:
        """What came of a call, an error included."""
        try:
            return await self.retrier.call("do it", function or self.answer, slots=slots, extra=extra)
        except ProviderError as error:
            return error

    def offsets(self) -> list[float]:
        return [round(time - self.times[0], 6) for time in self.times]


async def took(awaitable: Awaitable[object]) -> float:
    began = anyio.current_time()
    await awaitable
    return anyio.current_time() - began


async def test_attempts_are_bounded_and_the_last_error_is_raised() -> None:
    errors = [ServerError(f"{n}") for n in range(1, 9)]
    caller = Caller(LONG, *errors)
    assert await caller.call() is errors[3]
    assert caller.offsets() == [0, 2, 6, 14]
    assert [(event.attempt, event.attempts, event.delay) for event in caller.told] == [(1, 4, 2), (2, 4, 4), (3, 4, 8)]
    assert [event.error for event in caller.told] == errors[:3]


@pytest.mark.parametrize("failures", range(4))
async def test_it_ends_with_the_first_success(failures: int) -> None:
    caller = Caller(LONG, *[UnavailableError("gone")] * failures, 0.0)
    assert await caller.call() == "done"
    assert len(caller.times) == failures + 1


@pytest.mark.parametrize("attempts", [1, 2, 7])
async def test_as_many_attempts_as_configured(attempts: int) -> None:
    policy = RetryPolicy(attempts=attempts, total=timedelta(hours=1), max_delay=SECOND)
    caller = Caller(policy, UnavailableError("gone"))
    assert isinstance(await caller.call(), UnavailableError)
    assert len(caller.times) == attempts
    assert len(caller.told) == attempts - 1


async def test_time_outs_of_ten_minutes_are_over_in_a_blink() -> None:
    caller = Caller(LONG, None)
    seconds = await took(caller.call())
    assert seconds == pytest.approx(4 * 600 + 2 + 4 + 8)
    assert len(caller.times) == 4


async def test_one_attempt_that_times_out_is_retried() -> None:
    caller = Caller(EXACT, None, 0.5)
    assert await caller.call() == "done"
    assert caller.offsets() == [0, 32]
    assert isinstance(caller.told[0].error, CallTimeoutError)


async def test_the_total_ends_a_call_that_hangs() -> None:
    caller = Caller(EXACT, None)
    assert await took(caller.call()) == pytest.approx(60)
    assert len(caller.times) == 2


async def test_the_total_ends_a_backing_off_and_raises_the_last_error() -> None:
    error = ServerError("last")
    policy = RetryPolicy(attempts=50, jitter=timedelta(0), total=20 * SECOND)
    caller = Caller(policy, ServerError("first"), ServerError("second"), error)
    assert await took_and_is(caller, error) == pytest.approx(20)  # it would have tried again at 30 s
    assert caller.offsets() == [0, 2, 6, 14]


async def took_and_is(caller: Caller, error: ProviderError) -> float:
    began = anyio.current_time()
    assert await caller.call() is error
    return anyio.current_time() - began


async def test_a_first_attempt_cut_by_the_total_says_so() -> None:
    policy = RetryPolicy(total=10 * SECOND, request_timeout=30 * SECOND)
    error = await Caller(policy, None).call()
    assert isinstance(error, CallTimeoutError)
    assert "10 s in all" in str(error)


async def test_a_time_out_raised_by_the_call_itself_counts_as_one() -> None:
    caller = Caller(EXACT, TimeoutError("from within"), 0.0)
    assert await caller.call() == "done"
    assert isinstance(caller.told[0].error, CallTimeoutError)


async def test_extra_time_is_on_top_of_both_limits() -> None:
    caller = Caller(EXACT, 75.0)
    assert await caller.call(extra=50 * SECOND) == "done"
    assert await took(Caller(EXACT, None).call(extra=50 * SECOND)) == pytest.approx(110)


@pytest.mark.parametrize(
    "error",
    [NotFoundError, InProgressError, ConflictError, DeniedError, InvalidError, NoSuchEndpointError, CircuitOpenError],
)
async def test_what_will_not_change_is_not_retried(error: type[ProviderError]) -> None:
    caller = Caller(EXACT, error("no"))
    assert isinstance(await caller.call(), error)
    assert len(caller.times) == 1


@pytest.mark.parametrize("error", [UnavailableError, CallTimeoutError, ServerError, UnreadableError, RateLimitedError])
async def test_what_may_pass_is_retried(error: type[ProviderError]) -> None:
    caller = Caller(EXACT, error("for now"), 0.0)
    assert await caller.call() == "done"
    assert caller.offsets() == [0, 2]


async def test_an_error_that_will_not_change_ends_the_retries() -> None:
    caller = Caller(EXACT, ServerError("500"), NotFoundError("404"))
    assert isinstance(await caller.call(), NotFoundError)
    assert len(caller.times) == 2


async def test_a_bug_passes_through_at_once() -> None:
    caller = Caller(EXACT, ServerError("500"), RuntimeError("bug"))
    with pytest.raises(RuntimeError, match="bug"):
        await caller.call()
    assert len(caller.times) == 2


async def test_a_cancelled_call_ends_at_once() -> None:
    caller = Caller(EXACT, ServerError("500"))
    with anyio.move_on_after(1) as scope:
        await caller.call()
    assert scope.cancelled_caught
    assert len(caller.times) == 1


# -- delays ------------------------------------------------------------------------------------------------------------


@given(
    attempt=st.integers(1, 3000),
    initial=st.floats(0.01, 60),
    factor=st.floats(1, 10),
    largest=st.floats(0.01, 600),
    jitter=st.floats(0, 10),
)
def test_delays_grow_exponentially_up_to_the_largest(
    attempt: int, initial: float, factor: float, largest: float, jitter: float
) -> None:
    policy = RetryPolicy(
        initial_delay=timedelta(seconds=initial),
        factor=factor,
        max_delay=timedelta(seconds=largest),
        jitter=timedelta(seconds=jitter),
    )
    base = policy.initial_delay.total_seconds() * factor ** min(attempt - 1, 100)
    longest = policy.max_delay.total_seconds()
    delay = policy.delay(attempt)
    assert min(base, longest) * 0.999999 <= delay or attempt > 65
    assert delay <= min(base + policy.jitter.total_seconds(), longest) * 1.000001


def test_jitter_spreads() -> None:
    delays = {RetryPolicy().delay(1) for _ in range(50)}
    assert len(delays) > 40
    assert 2 <= min(delays) <= max(delays) <= 3


async def test_retry_after_of_a_server_error_lengthens_the_delay() -> None:
    caller = Caller(LONG, ServerError("503", retry_after=77), 0.0)
    assert await caller.call() == "done"
    assert caller.offsets() == [0, 77]
    assert not caller.told[0].cooldown


async def test_retry_after_never_shortens_the_delay() -> None:
    caller = Caller(LONG, ServerError("503", retry_after=0.5), 0.0)
    await caller.call()
    assert caller.offsets() == [0, 2]


@pytest.mark.parametrize("seconds", [301, 86400, math.inf])
async def test_retry_after_is_clamped(seconds: float) -> None:
    caller = Caller(LONG, ServerError("503", retry_after=seconds), 0.0)
    await caller.call()
    assert caller.offsets() == [0, 300]


async def test_a_server_error_pauses_no_other_call() -> None:
    caller = Caller(LONG, ServerError("503", retry_after=100), 0.0)
    async with anyio.create_task_group() as group:
        group.start_soon(caller.call)
        await anyio.sleep(1)
        assert await took(caller.call()) == 0


# -- rate limits -------------------------------------------------------------------------------------------------------


async def test_a_rate_limit_costs_no_attempt_and_no_time_of_the_total() -> None:
    limited = RateLimitedError("429", retry_after=200)
    caller = Caller(EXACT, limited, limited, limited, ServerError("1"), ServerError("2"), ServerError("3"), 0.0)
    assert await caller.call() == "done"
    quiet = 3 * (200 + MARGIN)
    assert caller.offsets() == pytest.approx([0, 200 + MARGIN, 2 * (200 + MARGIN), quiet, quiet + 2, quiet + 6, quiet + 14])
    assert [event.cooldown for event in caller.told] == [True] * 3 + [False] * 3
    assert [event.attempt for event in caller.told] == [1, 1, 1, 1, 2, 3]


async def test_a_rate_limit_silences_everybody_for_the_whole_time() -> None:
    caller = Caller(EXACT, RateLimitedError("429", retry_after=50), 0.0)
    async with anyio.create_task_group() as group:
        group.start_soon(caller.call)
        await anyio.sleep(1)
        for _ in range(20):
            group.start_soon(caller.call)
    assert len(caller.times) == 22
    assert caller.offsets()[1:] == pytest.approx([50 + MARGIN] * 21)


async def test_those_who_wait_for_a_slot_heed_a_cooldown_ordered_meanwhile() -> None:
    caller = Caller(EXACT, RateLimitedError("429", retry_after=50), 0.0)
    slots = anyio.CapacityLimiter(1)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(lambda: caller.call(slots=slots))
    assert caller.offsets() == pytest.approx([0, *[50 + MARGIN] * 5])


async def test_a_cooldown_is_clamped() -> None:
    caller = Caller(EXACT, RateLimitedError("429", retry_after=1e9), 0.0)
    await caller.call()
    assert caller.offsets() == pytest.approx([0, Cooldown.LONGEST + MARGIN])


async def test_a_negative_cooldown_is_none() -> None:
    caller = Caller(EXACT, RateLimitedError("429", retry_after=-5), 0.0)
    await caller.call()
    assert caller.offsets() == pytest.approx([0, 0.3])  # the margin: a request that comes a moment too early is refused


async def test_a_shorter_cooldown_does_not_cut_a_longer_one() -> None:
    cooldown = Cooldown()
    assert not cooldown.active
    cooldown.order(100)
    cooldown.order(1)
    assert await took(cooldown.wait()) == pytest.approx(100 + MARGIN)


async def test_a_cooldown_that_is_prolonged_is_waited_out() -> None:
    cooldown = Cooldown()
    cooldown.order(10)
    async with anyio.create_task_group() as group:
        group.start_soon(prolong, cooldown)
        assert await took(cooldown.wait()) == pytest.approx(5 + 20 + MARGIN)


async def prolong(cooldown: Cooldown) -> None:
    await anyio.sleep(5)
    cooldown.order(20)


@pytest.mark.parametrize("retry_after", [None, 0.0, 5.0, 3600.0])
async def test_endless_rate_limits_are_bounded(retry_after: float | None) -> None:
    caller = Caller(EXACT, RateLimitedError("429", retry_after=retry_after))
    began = anyio.current_time()
    assert isinstance(await caller.call(), RateLimitedError)
    assert len(caller.times) <= 4 * 5
    assert anyio.current_time() - began <= 4 * 4 * (Cooldown.LONGEST + MARGIN) + 60 + 4


async def test_the_last_rate_limit_that_is_borne_silences_the_others_too() -> None:
    caller = Caller(RetryPolicy(attempts=1), RateLimitedError("429", retry_after=50))
    assert isinstance(await caller.call(), RateLimitedError)
    assert caller.offsets() == pytest.approx([0, 50 + MARGIN])
    assert caller.retrier.reading.cooldown.active


async def test_a_rate_limit_without_a_time_is_backed_off_like_any_other_error() -> None:
    caller = Caller(EXACT, RateLimitedError("429"))
    assert isinstance(await caller.call(), RateLimitedError)
    assert caller.offsets() == [0, 2, 6, 14]


# -- slots and the budget ----------------------------------------------------------------------------------------------


async def test_waiting_for_a_slot_costs_no_budget() -> None:
    caller = Caller(EXACT, 25.0)
    slots = anyio.CapacityLimiter(1)
    results: list[object] = []

    async def one() -> None:
        results.append(await caller.call(slots=slots))

    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(one)
    assert results == ["done"] * 40
    assert anyio.current_time() - began == pytest.approx(1000)


async def test_what_was_used_before_waiting_for_a_slot_again_stays_used() -> None:
    # 25 s in the first attempt, 2 s of backing off, then 500 s of waiting, which are free: 33 s are left.
    caller = Caller(EXACT, 25.0, None)
    slots = anyio.CapacityLimiter(1)

    async def fails_then_hangs() -> str:
        if not caller.times:
            await caller.answer()
            raise ServerError("500")
        return await caller.answer()

    async def occupy() -> None:
        await anyio.sleep(25)
        async with slots:
            await anyio.sleep(500)

    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(occupy)
        assert isinstance(await caller.call(fails_then_hangs, slots=slots), CallTimeoutError)
    assert caller.offsets() == [0, 525]
    assert anyio.current_time() - began == pytest.approx(525 + 30, abs=4)


async def test_backing_off_gives_up_the_slot() -> None:
    slots = anyio.CapacityLimiter(1)
    failing = Caller(EXACT, ServerError("500"), 0.0)
    other = Caller(EXACT, 0.0)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: failing.call(slots=slots))
        await anyio.sleep(0.5)
        assert await took(other.call(slots=slots)) == 0
    assert failing.offsets() == [0, 2]


async def test_waiting_out_a_cooldown_gives_up_the_slot() -> None:
    slots = anyio.CapacityLimiter(1)
    caller = Caller(EXACT, RateLimitedError("429", retry_after=50), 0.0)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: caller.call(slots=slots))
        await anyio.sleep(1)
        assert slots.borrowed_tokens == 0


async def test_a_slot_is_given_back_whatever_happens() -> None:
    slots = anyio.CapacityLimiter(1)
    for answer in (0.0, None, ServerError("500"), NotFoundError("404"), RateLimitedError("429", retry_after=1)):
        await Caller(EXACT, answer).call(slots=slots)
        assert slots.borrowed_tokens == 0


# -- the breaker -------------------------------------------------------------------------------------------------------


async def fail(caller: Caller, times: int) -> None:
    for _ in range(times):
        await caller.call()


ONCE = RetryPolicy(attempts=1)


async def test_the_breaker_opens_after_twenty_failures_in_a_row() -> None:
    caller = Caller(ONCE, ServerError("500"))
    await fail(caller, 20)
    assert len(caller.times) == 20
    error = await caller.call()
    assert isinstance(error, CircuitOpenError)
    assert "20 reads in a row failed, the last one with: 500" in str(error)
    assert len(caller.times) == 20


@pytest.mark.parametrize("answer", [0.0, NotFoundError("404"), ConflictError("409"), RateLimitedError("429")])
async def test_any_answer_that_shows_life_starts_the_count_again(answer: object) -> None:
    caller = Caller(ONCE, *[ServerError("500")] * 19, answer, *[ServerError("500")] * 19, 0.0)
    await fail(caller, 39)
    assert not caller.retrier.breaker.open
    assert await caller.call() == "done"


async def answered_look(call: AttemptCall) -> None:
    await call("look", anyio.lowlevel.checkpoint)


@pytest.mark.parametrize("answer", [ServerError("500"), UnavailableError("refused"), None])
async def test_changes_that_all_fail_open_the_breaker_for_changes_and_reads_go_on(answer: object) -> None:
    """Each of them is preceded by a look that is answered."""
    caller = Caller(ONCE, answer)
    looks = 0

    async def look(call: AttemptCall) -> None:
        nonlocal looks
        looks += 1
        await answered_look(call)

    async def change() -> object:
        return await caller.retrier.call("change", caller.answer, changes=True, look=Look(lambda: True, look))

    for _ in range(20):
        with pytest.raises(UnavailableError):
            await change()
    with pytest.raises(CircuitOpenError, match=r"20 changes in a row failed, the last one with: (500|refused|no answer)"):
        await change()
    assert looks == len(caller.times) == 20  # nothing is asked for the sake of a change that is not made
    assert caller.retrier.breaker.open
    assert await Caller.reading(caller.retrier) == "read"


async def test_reads_that_fail_hold_back_reads_and_no_change_is_made_without_its_look() -> None:
    retrier = Retrier(ONCE)

    async def fails() -> None:
        raise ServerError("500")

    async def change() -> str:
        return "changed"

    async def look(call: AttemptCall) -> None:
        await call("look", fails)

    for _ in range(20):
        with pytest.raises(ServerError):
            await retrier.call("read", fails)
    with pytest.raises(CircuitOpenError):
        await retrier.call("read", fails)
    with pytest.raises(CircuitOpenError, match="20 reads in a row failed"):
        await retrier.call("change", change, changes=True, look=Look(lambda: True, look))
    assert await retrier.call("change", change, changes=True) == "changed"


async def test_an_answered_change_closes_the_breaker_for_changes_alone() -> None:
    caller = Caller(ONCE, *[ServerError("500")] * 20, 0.0)
    for _ in range(20):
        with pytest.raises(ServerError):
            await caller.retrier.call("change", caller.answer, changes=True)
    for _ in range(30):
        assert await Caller.reading(caller.retrier) == "read"
    with pytest.raises(CircuitOpenError):
        await caller.retrier.call("change", caller.answer, changes=True)
    await anyio.sleep(Breaker.PROBE_EVERY)
    for _ in range(2):
        assert await caller.retrier.call("change", caller.answer, changes=True) == "done"
    assert not caller.retrier.breaker.open


async def test_looks_of_which_one_in_three_fails_open_nothing() -> None:
    retrier = Retrier(ONCE)
    asked = 0

    async def ask() -> None:
        nonlocal asked
        asked += 1
        if asked % 3 == 0:
            raise ServerError("500")

    async def look(call: AttemptCall) -> None:
        for _ in range(4):
            await call("look", ask)

    for _ in range(60):
        with pytest.raises(ServerError):  # no change gets through
            await retrier.call("change", ask, changes=True, look=Look(lambda: True, look))
    assert not retrier.breaker.open


async def test_a_call_that_backs_off_gives_up_when_the_breaker_opens() -> None:
    caller = Caller(EXACT, ServerError("500"))
    results: list[object] = []

    async def one() -> None:
        results.append(await caller.call())

    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(one)
    assert len(caller.times) == 30  # all were under way when it opened, and none was tried again
    assert all(isinstance(error, ServerError) for error in results)  # not that it was held back: each has been tried


async def test_reset_lets_calls_through_again() -> None:
    caller = Caller(ONCE, *[ServerError("500")] * 20, 0.0)
    await fail(caller, 20)
    caller.retrier.breaker.reset()
    assert await caller.call() == "done"


@pytest.mark.parametrize("request_timeout", [5, 30, 600])
async def test_a_hung_endpoint_is_given_up_after_a_while(request_timeout: int) -> None:
    """Whether the attempt or the total runs out first: the calls that are cut by the total are failures too."""
    caller = Caller(RetryPolicy(request_timeout=request_timeout * SECOND), None)
    slots = anyio.CapacityLimiter(8)
    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(lambda: caller.call(slots=slots))
    assert anyio.current_time() - began <= 4 * 60
    assert len(caller.times) <= 60


# -- half-open ---------------------------------------------------------------------------------------------------------


async def test_a_breaker_lets_one_call_through_every_few_seconds_and_its_success_closes_it() -> None:
    caller = Caller(RetryPolicy(attempts=1), *[UnavailableError("down")] * 7, 0.0, breaker=Breaker(failures=5))
    for _ in range(5):
        await caller.call()
    asked = []
    for second in range(16):
        before = len(caller.times)
        answer = await caller.call()
        if len(caller.times) > before:
            asked.append(second)
        else:
            assert isinstance(answer, CircuitOpenError)
        await anyio.sleep(1)
    assert asked[:3] == [5, 10, 15]
    assert not caller.retrier.breaker.open
    assert await caller.call() == "done"


async def test_of_many_that_ask_an_open_breaker_at_once_one_gets_through() -> None:
    caller = Caller(RetryPolicy(attempts=1), UnavailableError("down"), breaker=Breaker(failures=5))
    for _ in range(5):
        await caller.call()
    await anyio.sleep(60)
    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(caller.call)
    assert len(caller.times) == 6


async def test_a_last_look_that_waits_for_its_budget_is_no_time_out() -> None:
    reading = Budget()
    reading.observe(1, 0, 50, 0)
    retrier = Retrier(
        RetryPolicy(attempts=1, total=20 * SECOND, request_timeout=10 * SECOND), reading=reading, changing=Budget()
    )
    asked: list[str] = []

    async def look(call: AttemptCall) -> None:
        async def request() -> None:
            asked.append("look")

        for _ in range(2):
            await call("look", request)

    async def change() -> None:
        asked.append("change")

    seconds = await took(retrier.call("do it", change, changes=True, look=Look(lambda: True, look)))
    assert asked == ["look", "look", "change"]
    assert seconds >= 50


async def test_each_request_of_a_last_look_has_a_time_out_of_its_own() -> None:
    retrier = Retrier(RetryPolicy(attempts=1, total=90 * SECOND, request_timeout=10 * SECOND))

    async def look(call: AttemptCall) -> None:
        for seconds in (8, 8, 11):
            await call("look", partial(anyio.sleep, seconds))

    async def change() -> None:
        raise AssertionError("not reached")

    began = anyio.current_time()
    with pytest.raises(CallTimeoutError):
        await retrier.call("do it", change, changes=True, look=Look(lambda: True, look))
    assert anyio.current_time() - began == pytest.approx(26)


async def test_a_429_of_a_last_look_pauses_the_reads() -> None:
    retrier = Retrier(RetryPolicy(attempts=1), reading=Budget(), changing=Budget())
    answers = [RateLimitedError("429", retry_after=30)]

    async def look(call: AttemptCall) -> None:
        async def request() -> None:
            if answers:
                raise answers.pop()

        await call("look", request)

    async def change() -> None:
        assert anyio.current_time() >= began + 30

    began = anyio.current_time()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: retrier.call("do it", change, changes=True, look=Look(lambda: True, look)))
        await anyio.sleep(1)
        assert retrier.reading.cooldown.active
        assert not retrier.changing.cooldown.active


async def test_a_last_look_that_fails_uses_up_no_try_of_the_change() -> None:
    looks = changes = 0

    async def ask() -> None:
        nonlocal looks
        looks += 1
        if looks <= 6:
            raise ServerError("500")

    async def take(call: AttemptCall) -> None:
        await call("look", ask)

    async def change() -> None:
        nonlocal changes
        changes += 1
        if changes < EXACT.attempts:
            raise ServerError("500")

    await Retrier(EXACT).call("change", change, changes=True, look=Look(lambda: True, take))
    assert (changes, looks) == (EXACT.attempts, 6 + EXACT.attempts)
