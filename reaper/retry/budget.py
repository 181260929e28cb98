"""How fast an endpoint may be asked: the budget of each limit group, and how many calls at the same time.

Shared by all tasks of an endpoint. Times are anyio's, so tests turn the clock.
"""

import math
from collections import deque
from types import TracebackType

import anyio

from reaper.errors import ProviderError, RateLimitedError, UnavailableError
from reaper.retry.breaker import Cooldown


class Budget:
    """The requests that one limit group allows in a window, by the server's answers.

    The server counts all clients of an organisation together, blocks all of them for a whole window once the limit is
    passed, and counts what is asked while it blocks. So this stops before the budget is used up, and takes no more than
    its share, since others live on the rest. A server that names no limit is asked without one::

        async with budget:  # waits until one more request may be made
            answer = await ask()
            budget.observe(limit, remaining, reset, asked_at)

    Args:
        share: of the limit, how much this program may use: above 0, up to 1.
        cautious: make one request at a time until an answer has named a limit, or has come without one: a small
            limit would be passed before that. After a 429 there is a limit, whatever answers say.
    """

    MARGIN = 0.1  # who asks a moment before the window's end still asks in it
    LARGER_MARGIN = 1.1  # for servers that round the seconds of the reset down
    RESERVE = 0.02  # of the limit: others ask, too, and their requests show in our answers late

    def __init__(self, share: float = 1.0, *, cautious: bool = False) -> None:
        self.cooldown = Cooldown()
        self._share = share
        self._margin = self.MARGIN
        self._limit: int | None = None
        self._remaining = math.inf
        self._used = 0
        self._under_way = 0
        self._began = -math.inf
        self._ends: float | None = None  # None: no answer of this window has said yet
        self._cautious = cautious
        self._limited = False  # a 429 has come
        self._answered = None if not cautious else anyio.Event()
        self._turn = anyio.Lock(fast_acquire=True)

    async def __aenter__(self) -> None:
        if self._limit is None and self._answered is None and not self.cooldown.active:
            self._count()
            return
        async with self._turn:  # first come, first served; and one waiter wakes, not a thousand
            while True:
                await self.cooldown.wait()
                if self._answered is not None and self._under_way:
                    await self._answered.wait()
                    continue
                if (wait := self._must_wait()) <= 0:
                    break
                await anyio.sleep(wait)
            self._count()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._under_way -= 1
        if self._answered is not None:
            # Cancelled, broken off or refused: nothing is known of the limit that an answer would have named.
            untold = self._limit is None and (self._limited or (error is not None and not isinstance(error, ProviderError)))
            untold = untold or (self._limit is None and isinstance(error, UnavailableError | RateLimitedError))
            answered, self._answered = self._answered, anyio.Event() if untold else None
            answered.set()

    def observe(self, limit: int, remaining: int, reset: float, asked_at: float) -> None:
        """What an answer said: the limit of the window, what remains of it, and in how many seconds it ends.

        ``asked_at`` is when the request was sent (``anyio.current_time()``): the answer to one of an earlier window says
        nothing about this one.
        """
        self._limit = limit
        if asked_at < self._began:
            return
        # Given in whole seconds, rounded up: the earliest end that any answer of the window gave is the nearest.
        ends = anyio.current_time() + reset
        self._ends = ends if self._ends is None else min(self._ends, ends)
        # Ours are counted when they are made; less than that remains when others have asked, too.
        self._remaining = min(self._remaining, remaining)

    def blocked(self, seconds: float) -> None:
        """A 429 came: all requests pause for ``seconds`` and a margin, and then a new window begins."""
        self._limited = True
        if self._cautious and self._limit is None and self._answered is None:
            self._answered = anyio.Event()
        if anyio.current_time() < self._began + 1:
            self._margin = self.LARGER_MARGIN  # the window had not ended yet
        self.cooldown.order(seconds)
        self._begin_window()

    def _count(self) -> None:
        self._used += 1
        self._remaining -= 1
        self._under_way += 1

    def _begin_window(self) -> None:
        # What is under way now may be counted by the server in the new window.
        self._used = self._under_way
        self._remaining = math.inf if self._limit is None else self._limit - self._under_way
        self._began = anyio.current_time()
        self._ends = None

    def _must_wait(self) -> float:
        """Seconds until the window ends, when it or this program's share of it is used up; else 0."""
        if self._limit is None:
            return 0.0
        now = anyio.current_time()
        if self._ends is not None and now >= self._ends + self._margin:
            self._begin_window()
        mine = max(1, math.floor(self._limit * self._share))
        if self._used < mine and self._remaining > math.floor(self._limit * self.RESERVE):
            return 0.0
        if self._ends is None:
            # The first answer of the new window will show it; when all that was counted ended without one, another must ask.
            return self.MARGIN if self._under_way else 0.0
        return self._ends + self._margin - now


class AdaptiveLimiter:
    """A limit on calls under way that grows while answers stay quick and shrinks when they slow down or fail.

    It starts at a quarter of the most and doubles with every round of quick answers, up to half of what it was before the
    last failures, and grows by one a round from there on; a failure halves it, slow answers take a fifth off, at most once a
    round. So it is back soon after an outage, in which failure follows failure.

    Args:
        most: never more calls than this at the same time.
    """

    SLOW = 3.0  # times the quickest answers of late
    NEVER_SLOW = 0.25  # seconds: an answer within this is quick, whatever others were
    LEAST = 1.0
    RECENT = 64  # answers after which the quickest one is forgotten by half

    def __init__(self, most: int) -> None:
        self._most = most
        self._tokens = self._first(most)
        self._under_way = 0
        self._waiting: deque[anyio.Event] = deque()
        self._quickest = math.inf
        self._doubles_up_to = math.inf
        self._went_well = True  # since the last cut
        self._answers_until_next_cut = 0

    @property
    def now(self) -> int:
        """How many calls may be under way now."""
        return int(self._tokens)

    async def __aenter__(self) -> None:
        # anyio's limiter gives others a turn with each slot that is free, and the slot stays unused meanwhile.
        if self._under_way < self.now and not self._waiting:
            self._under_way += 1
            return
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._under_way -= 1
                self._wake()
            else:
                self._waiting.remove(turn)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._under_way -= 1
        self._wake()

    def _wake(self) -> None:
        """Give the slots that are free to those who have waited longest."""
        while self._waiting and self._under_way < self.now:
            self._under_way += 1
            self._waiting.popleft().set()

    def observe(self, seconds: float, *, well: bool) -> None:
        """A call took so long, and went well or not (the endpoint's fault, not the resource's)."""
        self._answers_until_next_cut -= 1
        if not well:
            self._cut(0.5, outage=not self._went_well)
        elif seconds > max(self.SLOW * self._quickest, self.NEVER_SLOW):
            self._cut(0.8)
        else:
            self._went_well = True
            step = 1.0 if self._tokens < self._doubles_up_to else 1.0 / self._tokens
            self._tokens = min(self._most, self._tokens + step)
        if well:
            # It drifts up, so that an endpoint that has become slower for good is not taken for sick for ever.
            drifted = self._quickest * 2 ** (1 / self.RECENT)
            self._quickest = min(seconds, drifted)
        self._wake()

    def _first(self, most: int) -> float:
        return max(1.0, most / 4)

    def _cut(self, factor: float, *, outage: bool = False) -> None:
        if self._answers_until_next_cut <= 0:
            self._answers_until_next_cut = int(self._tokens)
            self._tokens = max(min(self.LEAST, self._most), self._tokens * factor)
            if not outage:  # else it says nothing of what the endpoint bears when it is well again
                self._doubles_up_to = self._tokens
            self._went_well = False


class RemovalLimiter(AdaptiveLimiter):
    """The same for the removals of an engine, which knows no limit but slows down for its other users.

    It starts with all of them, and a failure takes none away: the circuit breaker ends what fails. One removal takes many
    times as long as another (a busy disk, a large container): only when they are slow on average others suffer.
    """

    SLOW = 2.0
    NEVER_SLOW = 0.02  # eight at a time take no longer on an engine with two cores and no other work
    AVERAGED = 8  # removals
    LEAST = 2.0

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self._average: float | None = None

    def observe(self, seconds: float, *, well: bool) -> None:
        """See ``AdaptiveLimiter``."""
        if well:
            before = seconds if self._average is None else self._average
            self._average = before + (seconds - before) / self.AVERAGED
            super().observe(self._average, well=True)

    def _first(self, most: int) -> float:
        return float(most)
