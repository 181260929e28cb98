"""An event loop on which time jumps, though real sockets are spoken through, and a simulated clock that follows it."""

import asyncio
import selectors
from datetime import datetime
from typing import Any

from reaper.simulator.clock import Clock

ARRIVES = 0.003  # real seconds within which what was sent through the loopback arrives


class _JumpingSelector(selectors.DefaultSelector):
    loop: "JumpingLoop"

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if ready or timeout <= 0:
            return ready
        if ready := super().select(min(timeout, ARRIVES)):
            return ready
        self.loop.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time stands still while tasks run and sockets speak, and jumps when all wait.

    Both ends of every connection live in this loop, so an answer that is under way arrives at once.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class LoopClock(Clock):
    """A simulated clock that passes as the running loop's does."""

    def __init__(self, start: datetime) -> None:
        super().__init__(start)
        self._loop = asyncio.get_running_loop()
        self._origin = self._loop.time()

    def elapsed(self) -> float:
        return self._loop.time() - self._origin + self._turned
