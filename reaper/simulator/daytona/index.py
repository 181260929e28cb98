"""What the list of sandboxes reads: sorted copies of the table, a fresh one and one that lags behind.

Each order that was asked for is kept as a sorted list, so that a page costs a bisection and the rows that it
looks at, however many there are.
"""

import random
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime

from reaper.simulator.daytona.model import Sandbox, micros, stamp

Key = int  # microseconds since 1970
SORTS = ("lastActivityAt", "createdAt")


def sort_key(row: Sandbox, sort: str, *, descending: bool) -> Key | None:
    """What the row is sorted by; None where it has no such value."""
    us = row.active if sort == "lastActivityAt" else row.created
    # A cursor holds milliseconds, the rows hold microseconds. Going up, the rows of the cursor's own millisecond are
    # therefore still greater than it, and come again; going down, the real server was seen to be exact.
    return us if us is None or not descending else us - us % 1000


def cursor_value(row: Sandbox, sort: str) -> str | None:
    """The sortValue of a cursor that points behind the row."""
    value = row.active if sort == "lastActivityAt" else row.created
    return None if value is None else stamp(value)


def cursor_key(value: object) -> Key:
    """The key that a cursor's sortValue means. Raises ValueError or TypeError when it is no time."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return micros(datetime.fromisoformat(value))


class _Order:
    """The ids in one order. Those without a key stand at the end, whichever the direction."""

    def __init__(self, key: Callable[[Sandbox], Key | None], rows: Iterator[Sandbox]) -> None:
        self._key = key
        self._keys = {row.id: key(row) for row in rows}
        self.sorted: list[tuple[Key, str]] = sorted((key, own) for own, key in self._keys.items() if key is not None)
        self.missing = sorted(own for own, key in self._keys.items() if key is None)

    def put(self, row: Sandbox) -> None:
        key = self._key(row)
        if row.id in self._keys:
            if self._keys[row.id] == key:
                return
            self.remove(row.id)
        self._keys[row.id] = key
        if key is None:
            insort(self.missing, row.id)
        else:
            insort(self.sorted, (key, row.id))

    def remove(self, own: str) -> None:
        key = self._keys.pop(own)
        if key is None:
            del self.missing[bisect_left(self.missing, own)]
        else:
            del self.sorted[bisect_left(self.sorted, (key, own))]


class Index:
    """One copy of the table, as far as the list shows it."""

    def __init__(self) -> None:
        self.rows: dict[str, Sandbox] = {}
        self._orders: dict[tuple[str, bool], _Order] = {}

    def put(self, row: Sandbox) -> None:
        """Show the row, which may have changed since it was put there before."""
        self.rows[row.id] = row
        for order in self._orders.values():
            order.put(row)

    def remove(self, own: str) -> None:
        """Show it no longer."""
        if self.rows.pop(own, None) is not None:
            for order in self._orders.values():
                order.remove(own)

    def walk(self, sort: str, *, descending: bool, after: tuple[Key, str] | None = None) -> Iterator[Sandbox]:
        """The rows in order, behind the cursor. As in SQL, a comparison with a missing value is never true:

        rows without the value come last, and behind a cursor not at all.
        """
        order = self._orders.get((sort, descending))
        if order is None:
            order = _Order(lambda row: sort_key(row, sort, descending=descending), iter(self.rows.values()))
            self._orders[sort, descending] = order
        rows, items = self.rows, order.sorted
        if descending:
            end = len(items) if after is None else bisect_left(items, after)
            for place in range(end - 1, -1, -1):
                yield rows[items[place][1]]
        else:
            for place in range(0 if after is None else bisect_right(items, after), len(items)):
                yield rows[items[place][1]]
        if after is None:
            for own in order.missing:
                yield rows[own]


class Views:
    """The copies that answer: one is up to date, the other learns of each write `lag` seconds later.

    Args:
        flap: the share of the requests that the late one answers.

    Attributes:
        lost: ids that no list shows: a search index may lack a row for good, and the answer of one of its shards.
    """

    def __init__(self, lag: float, flap: float, seed: str) -> None:
        self.fresh = Index()
        self.lost: set[str] = set()
        self._late = Index() if lag > 0 and flap > 0 else None
        self._lag = int(lag * 1_000_000)
        self._flap = flap
        self._random = random.Random(f"{seed}/views")  # noqa: S311 - reproducible on purpose
        self._queue: deque[tuple[int, str, Sandbox | None]] = deque()

    def add(self, row: Sandbox) -> None:
        """Show a row that both copies have long known."""
        self.fresh.put(row)
        if self._late is not None:
            self._late.put(row)

    def before(self, row: Sandbox) -> None:
        """The row is about to be written: the late copy keeps what it was."""
        if self._late is not None and self._late.rows.get(row.id) is row:
            self._late.rows[row.id] = row.copy()

    def after(self, row: Sandbox, at: int) -> None:
        """The row was written at that time."""
        gone = row.state == "destroyed"
        if gone:
            self.fresh.remove(row.id)
        else:
            self.fresh.put(row)
        if self._late is not None:
            due = max(at + self._lag, self._queue[-1][0]) if self._queue else at + self._lag
            self._queue.append((due, row.id, None if gone else row.copy()))

    def settle(self, now: int) -> None:
        """Let the late copy learn of what it may know by now."""
        while self._queue and self._queue[0][0] <= now:
            _, own, row = self._queue.popleft()
            assert self._late is not None
            if row is None:
                self._late.remove(own)
                continue
            live = self.fresh.rows.get(own)
            self._late.put(live if live is not None and live.version == row.version else row)

    def pick(self) -> Index:
        """The copy that answers the next request."""
        return self._late if self._late is not None and self._random.random() < self._flap else self.fresh
