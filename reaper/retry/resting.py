"""How many tasks of an endpoint hold nothing and only wait, so that others may begin meanwhile."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Resting:
    """Counts the tasks that back off, or wait for what others find out.

    Attributes:
        number: of them.
        on_more: is called when there is one more.
    """

    def __init__(self) -> None:
        self.number = 0
        self.on_more: Callable[[], None] = _nothing

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a task while the block runs."""
        self.number += 1
        self.on_more()
        try:
            yield
        finally:
            self.number -= 1

    @contextmanager
    def calls(self, on_more: Callable[[], None]) -> Iterator[None]:
        """Have ``on_more`` called while the block runs."""
        before, self.on_more = self.on_more, on_more
        try:
            yield
        finally:
            self.on_more = before


def _nothing() -> None:
    """There is nothing to begin."""
