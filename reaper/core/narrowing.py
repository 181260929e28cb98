"""What a policy is for besides kinds, labels and ages: the exit codes of containers, and a part of the day. Pure."""

from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from functools import cached_property

from reaper.core.model import Resource, State

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ExitCodes:
    """The exit codes that a policy is for.

    Args:
        codes: each of these.
        nonzero: and each that is not zero.
    """

    codes: frozenset[int] = frozenset()
    nonzero: bool = False

    def __bool__(self) -> bool:
        return self.nonzero or bool(self.codes)

    def __contains__(self, code: int) -> bool:
        return code in self.codes or (self.nonzero and code != 0)

    def __str__(self) -> str:
        return " or ".join([*(["nonzero"] if self.nonzero else []), *map(str, sorted(self.codes))])

    def covers(self, other: "ExitCodes") -> bool:
        """Whether it has all that ``other`` has."""
        return (self.nonzero or not other.nonzero) and all(code in self for code in other.codes)

    def meets(self, other: "ExitCodes") -> bool:
        """Whether some code is in both."""
        if self.nonzero and other.nonzero:
            return True
        return any(code in other for code in self.codes) or any(code in self for code in other.codes)

    def excludes(self, resource: Resource) -> str | None:
        """Why they are not for a container, or None. One whose code is not known does not match.

        What a listing alone says of a stopped one is uncertain while it has no code: an inspection shows it.
        """
        code = resource.exit_code
        if code is not None:
            return None if code in self else f"is for exit code {self}, and it exited with {code}"
        uncertain = not resource.inspected and resource.state in (State.STOPPED, State.FAILED, State.CHANGING)
        if uncertain and not resource.never_started:
            return None
        ran = resource.state in (State.STOPPED, State.FAILED) and not resource.never_started
        fact = "its exit code is not known" if ran else f"it is {resource.raw_state} and has none"
        return f"is for exit code {self}, and {fact}"


@dataclass(frozen=True)
class Window:
    """A part of each day, by the clocks of one time zone.

    It is open whenever they show a time from ``begin`` to before ``end``, so it is shorter or longer by the hour that is
    left out or comes twice when they are changed.

    Args:
        begin: with it.
        end: without it; where it is not after ``begin``, on the next day.
        zone: the time zone.
        zone_name: as it is written in the file.
    """

    begin: time
    end: time
    zone: tzinfo
    zone_name: str

    def is_open(self, moment: datetime) -> bool:
        """Whether it is open at an aware time."""
        shown = moment.astimezone(self.zone).time()
        if self.begin < self.end:
            return self.begin <= shown < self.end
        return shown >= self.begin or shown < self.end

    @cached_property
    def length(self) -> timedelta:
        """How long it is on an ordinary day."""
        span = timedelta(hours=self.end.hour - self.begin.hour, minutes=self.end.minute - self.begin.minute)
        return span if span > timedelta(0) else span + _DAY

    def __str__(self) -> str:
        return f"between {self.begin:%H:%M} and {self.end:%H:%M} ({self.zone_name})"
