"""The budgets of limit groups, held against the rule by which Daytona's server counts and blocks, on a clock that jumps."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaper.errors import RateLimitedError, UnavailableError
from reaper.retry.budget import Budget
from reaper.retry.retrier import Retrier, RetryPolicy
from reaper.simulator.clock import Clock
from reaper.simulator.daytona.limits import Limit, Throttler
from reaper.sweep.concurrency import for_each
from tests.sweep.lab import EXACT, elapse

pytestmark = pytest.mark.anyio

GROUP = "authenticated"
RETRY_MARGIN = 0.3


class LoopClock(Clock):
    """The simulator's clock, running with the event loop."""

    def elapsed(self) -> float:
        return anyio.current_time()


@dataclass
class Server:
    """Answers after a latency, as the limit allows, and tells of the budget in its headers unless it is silent.

    Attributes:
        asked: when each request of the sweep arrived.
        refused: when one was answered with 429.
    """

    limit: Limit
    latency: float = 0.05
    tells: bool = True
    round_: Callable[[float], float] = lambda seconds: seconds
    asked: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.throttler = Throttler(self.limit, LoopClock())

    async def answer(self, budget: Budget) -> None:
        """One request of the sweep."""
        sent = anyio.current_time()
        await anyio.sleep(self.latency / 2)
        self.asked.append(anyio.current_time())
        blocked = self.throttler.hit()
        headers = self.throttler.headers(GROUP)
        await anyio.sleep(self.latency / 2)
        if blocked is not None:
            self.refused.append(self.asked[-1])
            raise RateLimitedError("ThrottlerException: Too Many Requests", retry_after=blocked)
        if self.tells:
            limit, remaining, reset = (headers[f"X-RateLimit-{what}-{GROUP}"] for what in ("Limit", "Remaining", "Reset"))
            budget.observe(int(limit), int(remaining), self.round_(float(reset)), sent)

    def other(self) -> None:
        """A request of another client."""
        self.throttler.hit()


async def ask(server: Server, count: int, *, share: float = 1.0, workers: int = 32, retry: RetryPolicy = EXACT) -> float:
    """Make so many calls by so many workers; the seconds that it took."""
    budget = Budget(share, cautious=True)
    retrier = Retrier(retry, reading=budget)
    began = anyio.current_time()

    async def one(number: int) -> None:
        await retrier.call(f"call {number}", lambda: server.answer(budget))

    await for_each(range(count), one, workers, "ask")
    return anyio.current_time() - began


async def test_a_budget_is_never_exceeded_and_hardly_wasted() -> None:
    server = Server(Limit(600, 10))
    seconds = await ask(server, 2000)
    assert server.refused == []
    assert seconds < 3 * 10 * 1.1, "four windows are needed, and three of them must be waited for"


async def test_a_server_that_tells_of_no_limit_is_asked_without_one() -> None:
    server = Server(Limit(10**9, 10), tells=False)
    assert await ask(server, 640) == pytest.approx(0.05 + 20 * 0.05, abs=0.06), "one alone, and then 32 at a time"


async def test_the_first_request_goes_alone() -> None:
    """A limit smaller than the number of workers would be passed before any answer has told of it."""
    server = Server(Limit(5, 10))
    await ask(server, 12)
    assert server.refused == []
    assert sum(at == server.asked[0] for at in server.asked) == 1


async def test_one_that_is_cancelled_leaves_the_caution_to_the_next() -> None:
    budget = Budget(cautious=True)
    with anyio.move_on_after(1):
        async with budget:
            await anyio.sleep_forever()
    server = Server(Limit(1, 10))

    async def one() -> None:
        async with budget:
            await server.answer(budget)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one)
    assert server.refused == []


@pytest.mark.parametrize("share", [0.25, 0.5])
async def test_others_get_their_share(share: float) -> None:
    server = Server(Limit(100, 10))
    await ask(server, 200, share=share)
    for window in range(4):
        used = sum(10 * window <= at < 10 * (window + 1) for at in server.asked)
        assert used <= 100 * share + 1


async def test_what_others_use_is_seen_in_the_answers() -> None:
    """Another client uses up most of each window at once: we stop before the limit is passed."""
    server = Server(Limit(100, 10))

    async with anyio.create_task_group() as group:

        async def others() -> None:
            while True:
                await anyio.sleep(0.2)
                for _ in range(80):
                    server.other()
                await anyio.sleep(10)

        group.start_soon(others)
        seconds = await ask(server, 90, workers=2)
        group.cancel_scope.cancel()
    assert server.refused == []
    assert seconds > 3 * 10, "twenty a window are left"


async def test_after_a_429_no_request_is_made_until_the_block_is_over() -> None:
    """Requests made while blocked count: who goes on asking is never let in again."""
    server = Server(Limit(50, 10), tells=False)
    await ask(server, 120)
    assert server.refused, "nothing told of the limit, so the first window is exceeded"
    for at in server.refused:
        later = [asked for asked in server.asked if asked > at + server.latency]
        assert not later or min(later) >= at + 10 + RETRY_MARGIN - 0.001


async def test_a_cooldown_costs_no_attempt() -> None:
    server = Server(Limit(20, 10), tells=False)
    await ask(server, 60, workers=8, retry=RetryPolicy(attempts=1, jitter=EXACT.jitter))
    assert server.refused


async def test_a_server_that_rounds_the_end_down_is_asked_too_early_once_at_most() -> None:
    server = Server(Limit(100, 10), round_=lambda seconds: seconds - 1)
    await ask(server, 700)
    blocks = [at for i, at in enumerate(server.refused) if i == 0 or at > server.refused[i - 1] + 5]
    assert len(blocks) <= 1


async def test_the_late_answer_of_an_earlier_window_says_nothing_about_this_one() -> None:
    budget = Budget()
    await anyio.sleep(100)
    async with budget:
        budget.observe(10, 0, 5, anyio.current_time())
    await anyio.sleep(6)
    async with budget:  # begins a new window
        pass
    budget.observe(10, 0, 1, asked_at=99)
    before = anyio.current_time()
    async with budget:
        assert anyio.current_time() == pytest.approx(before, abs=Budget.MARGIN)


@settings(max_examples=60, deadline=None)
@given(
    limit=st.builds(Limit, st.integers(1, 80), st.sampled_from((1.0, 3.0, 10.0))),
    count=st.integers(1, 200),
    workers=st.integers(1, 40),
    share=st.sampled_from((0.3, 0.5, 1.0)),
    latency=st.sampled_from((0.001, 0.05, 0.4)),
)
def test_whatever_the_limit_it_is_kept(limit: Limit, count: int, workers: int, share: float, latency: float) -> None:
    async def main() -> None:
        server = Server(limit, latency)
        seconds = await ask(server, count, share=share, workers=workers)
        assert server.refused == []
        mine = max(1, int(limit.requests * share))
        usable = max(1, min(mine, limit.requests - int(limit.requests * Budget.RESERVE)))
        windows = -(-count // usable)
        slack = windows * (Budget.MARGIN + 1 + latency) + count * latency / min(workers, usable) + 2 * latency
        assert seconds <= windows * limit.seconds + slack

    elapse(main)


@pytest.mark.parametrize("tells", [True, False])
async def test_after_a_first_429_it_stays_careful_until_a_limit_is_known(tells: bool) -> None:
    server = Server(Limit(3, 10), tells=tells)
    while server.throttler.hit() is None:  # other clients have used the window up
        pass
    await ask(server, 9, workers=8)
    assert len(server.refused) <= (1 if tells else 1 + 3), "one for each window at the most"


async def test_a_first_request_that_was_not_answered_leaves_the_caution_to_the_next() -> None:
    budget = Budget(cautious=True)
    under_way = most = begun = 0

    async def one() -> None:
        nonlocal under_way, most, begun
        with suppress(UnavailableError):
            async with budget:
                begun += 1
                under_way += 1
                most = max(most, under_way)
                await anyio.sleep(1)
                under_way -= 1
                if begun <= 3:
                    raise UnavailableError("broke")

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(one)
    assert most == 1
