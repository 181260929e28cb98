"""The endpoint as a lease sees it: which one it is, and how its clock relates to this host's."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from reaper.core.durations import shifted

LARGEST_SKEW = timedelta(hours=1)  # beyond it a clock is wrong, and proves nothing


@dataclass(frozen=True, slots=True)
class Site:
    """The endpoint on which a lease is asked for, and how its clock relates to this host's.

    Args:
        id: what identifies the endpoint; None where that is not known.
        skew: its clock minus this host's, as times are shown.
        slowest: that difference at the least, as far as it was measured.
        fastest: that difference at the most.
    """

    id: str | None = None
    skew: timedelta = timedelta(0)
    slowest: timedelta = timedelta(0)
    fastest: timedelta = timedelta(0)

    @property
    def has_known_clock(self) -> bool:
        """Whether its times prove anything."""
        return max(abs(self.slowest), abs(self.fastest)) <= LARGEST_SKEW

    def made_between(self, created: datetime) -> tuple[datetime, datetime]:
        """Between which moments of this host's clock a resource was made that the endpoint dates so."""
        return shifted(created, -self.fastest), shifted(created, -self.slowest)
