"""An event loop of asyncio on which time jumps to the next timer instead of passing, as trio's MockClock does."""

import asyncio
import selectors
from typing import Any


class _JumpingSelector(selectors.DefaultSelector):
    loop: "JumpingLoop"

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or not timeout:
            return ready if timeout is not None else super().select(None)
        self.loop.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its time stands still while tasks run, and jumps when all of them wait."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now
