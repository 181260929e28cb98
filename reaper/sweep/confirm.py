"""Deleted means confirmed: what was only accepted is looked for by id until nothing is found.

Where an endpoint destroys in its own time, this goes on beside the deletions. A listing shows which of many are still
pending; that one is gone only its own GET by id can show, since listings lag.
"""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import anyio

from reaper.core.model import Resource
from reaper.errors import CredentialsError, NotFoundError, ProviderError
from reaper.providers.abilities import HidesFailures
from reaper.providers.base import Call, Reader
from reaper.sweep.concurrency import for_each

MANY = 100  # from so many on a listing costs less than looks by id
FIRST_DELAY, LONGEST_DELAY = 0.5, 4.0
LOOKS_AT_ONCE = 64


@dataclass
class _Pending:
    """One accepted deletion, in the loop's time."""

    resource: Resource
    confirmed: Callable[[], None]
    until: float
    delay: float = FIRST_DELAY
    seen: str = "it has not been looked at since"


class Confirmer:
    """Waits for accepted deletions to come true.

    Args:
        look: makes a call that looks by id, ``listing`` one that lists.
        within: how long a deletion may take after it was accepted.

    Attributes:
        unconfirmed: for the ids whose time is up, what was seen last, for people.
    """

    def __init__(self, reader: Reader, look: Call, listing: Call, within: timedelta) -> None:
        self.unconfirmed: dict[str, str] = {}
        self._reader = reader
        self._look = look
        self._listing = listing
        self._within = within.total_seconds()
        self._pending: dict[str, _Pending] = {}
        self._queue: list[tuple[float, int, _Pending]] = []  # by the time of the next look
        self._number = itertools.count()
        self._closed = False
        self._news = anyio.Event()
        self._settled = anyio.Event()

    def add(self, resource: Resource, confirmed: Callable[[], None]) -> None:
        """The deletion of ``resource`` was accepted just now; ``confirmed`` is called when it is gone."""
        now = anyio.current_time()
        self._pending[resource.id] = pending = _Pending(resource, confirmed, now + self._within)
        self._settled = anyio.Event()
        self._queue_up(pending, now)

    def close(self) -> None:
        """Nothing more will be added."""
        self._closed = True
        self._notify()

    def _queue_up(self, pending: _Pending, at: float) -> None:
        heapq.heappush(self._queue, (at, next(self._number), pending))
        self._notify()

    def _notify(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def settled(self) -> None:
        """Wait until nothing is pending."""
        while self._pending:
            await self._settled.wait()

    async def run(self) -> None:
        """Look for what is pending until everything is settled and nothing more will come."""
        async with anyio.create_task_group() as group:  # one that backs off keeps no other from being looked at
            while self._pending or not self._closed:
                now, due = anyio.current_time(), []
                while self._queue and self._queue[0][0] <= now:
                    due.append(heapq.heappop(self._queue)[2])
                if not due:
                    with anyio.CancelScope(deadline=self._queue[0][0] if self._queue else math.inf):
                        await self._news.wait()
                for pending in await self._not_listed(due) if len(due) > MANY else due:
                    group.start_soon(self._look_at_one, pending, name=f"confirm {pending.resource.name}")

    async def last_look(self) -> None:
        """Look once at all that is pending: the sweep is ending. What is still there is unconfirmed."""
        for pending in self._pending.values():
            pending.until = -math.inf
        await self._look_at(list(self._pending.values()))

    def give_up(self) -> None:
        """There is no time for another look: whatever is pending is unconfirmed."""
        for pending in list(self._pending.values()):
            self._settle(pending, pending.seen)

    async def _look_at(self, due: list[_Pending]) -> None:
        """Look for these by id, or, where they are many, for those of them that a listing does not show."""
        if len(due) > MANY:
            due = await self._not_listed(due)
        await for_each(due, self._look_at_one, min(len(due), LOOKS_AT_ONCE), "confirm")

    async def _not_listed(self, due: list[_Pending]) -> list[_Pending]:
        try:
            listed = {resource.id: resource for resource in (await self._reader.list(self._listing)).resources}
        except ProviderError:
            return due
        for pending in due:
            if (found := listed.get(pending.resource.id)) is not None:
                self._still_there(pending, f"it is still {found.raw_state}")
        return [pending for pending in due if pending.resource.id not in listed]

    async def _look_at_one(self, pending: _Pending) -> None:
        resource = pending.resource
        try:
            found = await self._look(f"confirm {resource.kind} {resource.name}", lambda: self._reader.inspect(resource))
        except NotFoundError:
            await self._not_found(pending)
        except CredentialsError as error:
            self._settle(pending, f"it could not be looked at: {error}")  # asking again makes it worse
        except ProviderError as error:
            self._still_there(pending, f"it could not be looked at: {error}", looked=False)
        else:
            self._still_there(pending, f"it is still {found.raw_state}")

    async def _not_found(self, pending: _Pending) -> None:
        left = None
        if isinstance(self._reader, HidesFailures):
            left = await self._reader.remainder(pending.resource, self._listing)
        if left is None:
            self._settle(pending)
        else:
            self._still_there(pending, left)

    def _still_there(self, pending: _Pending, seen: str, *, looked: bool = True) -> None:
        now = anyio.current_time()
        pending.seen = seen
        if not looked and now >= pending.until and now < pending.until + self._within:
            self._queue_up(pending, now + LONGEST_DELAY)  # nothing is known until it has been looked at
            return
        if now >= pending.until:
            self._settle(pending, seen)
            return
        at = now + pending.delay
        if len(self._pending) > MANY:
            at = math.ceil(at / LONGEST_DELAY) * LONGEST_DELAY  # together, so that one listing covers them all
        self._queue_up(pending, min(at, pending.until))
        pending.delay = min(pending.delay * 2, LONGEST_DELAY)

    def _settle(self, pending: _Pending, still: str | None = None) -> None:
        id_ = pending.resource.id
        if self._pending.pop(id_, None) is None:
            return
        if still is None:
            pending.confirmed()
        else:
            self.unconfirmed[id_] = still
        if not self._pending:
            self._settled.set()
            self._notify()
