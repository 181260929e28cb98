"""A simulated clock that follows the time of a loop in which time jumps.

Both ends of every connection live in that loop: what one end sends is there for the other one before the loop waits.
"""

import asyncio
from datetime import datetime

from reaper.simulator.clock import Clock
from tests.sweep import loops


class JumpingLoop(loops.JumpingLoop):
    """On a machine that has been up for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0


class LoopClock(Clock):
    """A simulated clock that passes as the running loop's does."""

    def __init__(self, start: datetime) -> None:
        super().__init__(start)
        self._loop = asyncio.get_running_loop()
        self._origin = self._loop.time()

    def elapsed(self) -> float:
        return self._loop.time() - self._origin + self._turned
