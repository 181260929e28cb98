"""A clock that passes as the real one does, or faster or not at all, and that can be turned forward."""

import asyncio
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

_TICK = 1e-6  # seconds: a loop wakes those up at once who wait for less than it can tell, on a virtual one for ever


class Clock:
    """Simulated time. It may be read and turned from any thread; sleepers may live on any asyncio loop.

    Args:
        start: the time to begin at (aware); the real time when None.
        rate: simulated seconds per real second. At 0 only `advance` moves it.
    """

    def __init__(self, start: datetime | None = None, rate: float = 1.0) -> None:
        if rate < 0:
            raise ValueError(f"a clock cannot run backwards: rate {rate}")
        if start is not None and start.tzinfo is None:
            raise ValueError("a clock needs an aware start time")
        self._start = (start or datetime.now(UTC)).astimezone(UTC)
        self.rate = rate
        self._origin = time.monotonic()
        self._turned = 0.0
        self._lock = threading.Lock()
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def elapsed(self) -> float:
        """Simulated seconds since the start; never goes back."""
        return (time.monotonic() - self._origin) * self.rate + self._turned

    def now(self) -> datetime:
        """The simulated time, aware UTC."""
        return self._start + timedelta(seconds=self.elapsed())

    def advance(self, by: timedelta) -> None:
        """Turn the clock forward and wake those whose time has come. Raises ValueError when asked to turn it back."""
        if by < timedelta(0):
            raise ValueError(f"a clock cannot be turned back: {by}")
        with self._lock:
            self._turned += by.total_seconds()
            sleepers = list(self._sleepers)
        for loop, event in sleepers:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def sleep(self, seconds: float) -> None:
        """Return when that many simulated seconds have gone, by passing or by turning."""
        await self.sleep_until(self.elapsed() + seconds)

    async def sleep_until(self, due: float) -> None:
        """Return when so many simulated seconds have gone since the start."""
        event = asyncio.Event()
        entry = (asyncio.get_running_loop(), event)
        with self._lock:
            self._sleepers.add(entry)
        try:
            while (left := due - self.elapsed()) > 0:
                event.clear()
                # A turn between the two lines above is not lost: the wake-up comes through the loop, after them.
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(left / self.rate, _TICK) if self.rate else None):
                        await event.wait()
        finally:
            with self._lock:
                self._sleepers.discard(entry)
        await asyncio.sleep(0)  # also a sleep that is over at once lets others run
