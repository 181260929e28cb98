"""What a policy is for besides kinds, labels and ages: exit codes, one-off containers, keepalives, times of day. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from functools import cached_property

from reaper.core.durations import human
from reaper.core.identity import ONEOFF_LABEL
from reaper.core.model import Kind, Resource, State

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


def is_oneoff(resource: Resource) -> bool:
    """Whether Compose has made it for a single command (``docker compose run``), by a label of its own."""
    return resource.kind is Kind.CONTAINER and resource.own_labels.get(ONEOFF_LABEL) == "True"


def without_keepalive(resource: Resource, labels: Collection[str], idle_for: timedelta | None) -> str | None:
    """Why no activity says nothing of a sandbox's runner, or None where it means that the runner is gone.

    An idle sandbox may have an agent in it that works for hours. It is gone only where its runner refreshes the activity for
    as long as it lives, and has the platform stop what had none for no longer than the policy waits for.

    Args:
        resource: it.
        labels: one of these is on each sandbox whose runner does so.
        idle_for: for how long the policy waits.
    """
    if not any(label in resource.own_labels for label in labels):
        which = f"label {' or '.join(labels)}" if labels else "which no preset in force has"
        return f"is for sandboxes that a runner keeps alive ({which}), and it is none"
    if resource.auto_stop is None:
        return "is for what a runner keeps alive, and the answer has no auto-stop interval or no last activity"
    if resource.auto_stop <= timedelta(0):
        return "is for what a runner keeps alive, and its auto-stop is off: it was kept on purpose"
    if idle_for is None or resource.auto_stop > idle_for:
        return f"is for what the platform would have stopped by now, and its auto-stop waits for {human(resource.auto_stop)}"
    return None
