"""A lease whose holder this process watches, when it was looked at, and who is notified of what becomes of leases."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import anyio

from reaper.errors import LeasesUnknownError
from reaper.leases.record import LeaseRecord

STOOD_STILL = 5.0  # seconds without a look: no holder could be heard in them, and as many to read what has come since


class LeaseListener(Protocol):
    """Listener for changes of leases."""

    def changed(self, record: LeaseRecord, /) -> None:
        """A lease was taken, or stands otherwise than before."""

    def failed(self, error: LeasesUnknownError, /) -> None:
        """The file cannot be read or written; it is tried again."""


@dataclass
class Held:
    """An open lease that this book watches.

    Args:
        due: when its holder has to be heard of, on the loop's clock; None while its connection is open.
        heard_at: the last sign of life, which the file has a while later.
        over_at: when that ended for which the lease was taken, where its holder has said so and goes on to clean up.
    """

    record: LeaseRecord
    due: float | None
    heard_at: datetime
    over_at: datetime | None = None

    @property
    def lived_until(self) -> datetime:
        """Until when its holder surely made something that the lease claims."""
        return self.heard_at if self.over_at is None else min(self.heard_at, self.over_at)


class Looks:
    """When the holders were looked at, and the times between in which this process stood still.

    Args:
        clock: returns the aware time in UTC.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._last: tuple[float, datetime] | None = None  # on the loop's clock, and on the wall's
        self._stalled: tuple[float, datetime] | None = None  # until when the time before is made up for, and when it began

    def looked(self, at: float) -> None:
        """They were looked at, at this time of the loop's."""
        self._last = at, self._clock()

    def have_stalled(self) -> bool:
        """Whether this process has just stood still; it is remembered for as long as it may take to read what has come."""
        now = anyio.current_time()
        if self._last is None or now - self._last[0] <= STOOD_STILL:
            return False
        looked, since = self._last
        if self._stalled is not None and looked < self._stalled[0]:  # once more, before all was read
            since = self._stalled[1]
        self._stalled = now + STOOD_STILL, since
        return True

    def proven_at(self) -> datetime:
        """Return until when a holder surely lived that is heard of, or whose connection is found closed, now.

        After a time in which this process stood still that is its beginning: a heartbeat may have been sent, and a
        connection closed, at any moment of it. Others may have made things of the same names since; no claim may take them.
        """
        self.have_stalled()
        if self._stalled is not None and anyio.current_time() < self._stalled[0]:
            return self._stalled[1]
        return self._clock()
