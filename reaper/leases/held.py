"""A lease whose holder this process watches, and who is notified of what becomes of leases."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from reaper.errors import LeasesUnknownError
from reaper.leases.record import LeaseRecord


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
    """

    record: LeaseRecord
    due: float | None
    heard_at: datetime
