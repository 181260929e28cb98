"""Rate limits as the real server keeps them: a throttler per organisation and group, and one for wrong keys."""

import math
from collections import deque
from dataclasses import dataclass

from reaper.simulator.clock import Clock


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in a window of so many seconds; one more blocks for as long again."""

    requests: int
    seconds: float


class Throttler:
    """Counts in windows, each of which begins with the first request after the last has ended.

    A request over the limit blocks for a whole window. Requests made while blocked count: a client that made more than the
    limit of them in the last window before the block ends is blocked again.
    """

    def __init__(self, limit: Limit, clock: Clock) -> None:
        self.limit = limit
        self._clock = clock
        self._hits = 0
        self._window_ends = -math.inf
        self._block_ends: float | None = None
        self._blocked: deque[float] = deque()  # when requests were made in vain

    def hit(self) -> float | None:
        """Count a request: None when it may pass, else the seconds for which it is blocked."""
        now = self._clock.elapsed()
        if self._block_ends is None:
            if now >= self._window_ends:
                self._hits, self._window_ends = 0, now + self.limit.seconds
        elif now < self._block_ends:
            self._blocked.append(now)
            return self._block_ends - now
        else:
            while self._blocked and self._blocked[0] <= now - self.limit.seconds:
                self._blocked.popleft()
            self._hits, self._window_ends, self._block_ends = len(self._blocked), now + self.limit.seconds, None
        self._hits += 1
        if self._hits <= self.limit.requests:
            self._blocked.clear()
            return None
        self._block_ends = now + self.limit.seconds
        self._blocked.append(now)
        return self.limit.seconds

    def headers(self, group: str) -> dict[str, str]:
        """The headers of an answer that passed, about the group."""
        left = max(0.0, self._window_ends - self._clock.elapsed())
        return {
            f"X-RateLimit-Limit-{group}": str(self.limit.requests),
            f"X-RateLimit-Remaining-{group}": str(max(0, self.limit.requests - self._hits)),
            f"X-RateLimit-Reset-{group}": str(math.ceil(left)),
        }


class WrongKeys:
    """Counts wrong keys by address; over the limit an address is blocked, good keys too."""

    def __init__(self, limit: Limit, clock: Clock) -> None:
        self.limit = limit
        self._clock = clock
        self._counts: dict[str, tuple[int, float]] = {}
        self._blocks: dict[str, float] = {}

    def blocked(self, address: str) -> float | None:
        """Seconds for which the address is still blocked, or None."""
        left = self._blocks.get(address, -math.inf) - self._clock.elapsed()
        return left if left > 0 else None

    def count(self, address: str) -> None:
        """Count a wrong key from there."""
        now = self._clock.elapsed()
        hits, ends = self._counts.get(address, (0, -math.inf))
        if now >= ends:
            hits, ends = 0, now + self.limit.seconds
        self._counts[address] = (hits + 1, ends)
        if hits + 1 >= self.limit.requests:
            self._blocks[address] = now + self.limit.seconds
