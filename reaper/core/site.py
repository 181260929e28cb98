"""The endpoint as a lease sees it: which one it is, and how its clock relates to this host's."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from reaper.core.durations import shifted

LARGEST_SKEW = timedelta(hours=1)  # beyond it a clock is wrong, and proves nothing


class Jump(NamedTuple):
    """The clock of this host jumped: it slept, or was set.

    Attributes:
        at: when it was seen to have jumped, by the clock afterwards (aware UTC).
        by: how far; negative where it was set back.
    """

    at: datetime
    by: timedelta


@dataclass(frozen=True, slots=True)
class Site:
    """The endpoint on which a lease is asked for, and how its clock relates to this host's.

    Args:
        id: what identifies the endpoint; None where that is not known.
        skew: its clock minus this host's, as times are shown.
        slowest: that difference at the least, as far as it was measured.
        fastest: that difference at the most.
        jumps: of the clock that it shares with this host, if it does.
    """

    id: str | None = None
    skew: timedelta = timedelta(0)
    slowest: timedelta = timedelta(0)
    fastest: timedelta = timedelta(0)
    jumps: tuple[Jump, ...] = ()

    @property
    def has_known_clock(self) -> bool:
        """Whether its times prove anything."""
        return max(abs(self.slowest), abs(self.fastest)) <= LARGEST_SKEW

    def made_between(self, created: datetime) -> tuple[datetime, datetime]:
        """Between which moments of this host's clock a resource was made that the endpoint dates so."""
        return shifted(created, -self.fastest), shifted(created, -self.slowest)

    def jumped_since(self, moment: datetime) -> timedelta:
        """For how much of the time since a moment nothing went on: this host was asleep, or its clock was wrong."""
        here = shifted(moment, -self.skew)
        jumps = (jump.by for jump in self.jumps if here <= shifted(jump.at, -max(jump.by, timedelta(0))))
        return max(sum(jumps, timedelta(0)), timedelta(0))
