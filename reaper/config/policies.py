"""The tables of policies, and those that hold where the file names none."""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, time, timedelta, tzinfo
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, StrictStr, WithJsonSchema, field_validator, model_validator

from reaper.core.actions import OF_KINDS
from reaper.core.conditions import DEFAULT_STOP_TIMEOUT, Policy
from reaper.core.model import Action, Kind
from reaper.core.narrowing import ExitCodes, Window
from reaper.core.scope import Selector
from reaper.providers import registry
from reaper.providers.fields import (
    Duration,
    Labels,
    Name,
    NarrowingGlobs,
    ProtectingGlobs,
    Size,
    Table,
    at_least,
    did_you_mean,
)

# Known to be right (a test says so): checking it would import a scheduler into every run.
_DEFAULT_CRON = ("15 * * * *", None)


DEFAULT_EVERY = timedelta(minutes=10)  # of a policy that says neither every nor cron


_KINDS = tuple(kind.value for kind in Kind if kind is not Kind.POD)  # which goes with its containers
_RUN = frozenset(kind for kind in Kind if kind.runs)
_UNUSED = frozenset({Kind.NETWORK, Kind.VOLUME, Kind.IMAGE, Kind.BUILD_CACHE})
_OF_KINDS: dict[str, frozenset[Kind]] = {
    "older_than": _RUN | {Kind.NETWORK, Kind.VOLUME, Kind.IMAGE},
    "stopped_for": _RUN,
    "states": _RUN,
    "unused_for": _UNUSED,
    "orphaned_for": _RUN,
    "larger_than": frozenset({Kind.VOLUME, Kind.IMAGE, Kind.BUILD_CACHE}),
    "untagged": frozenset({Kind.IMAGE}),
    "anonymous": frozenset({Kind.VOLUME}),
    "oneoff": frozenset({Kind.CONTAINER}),
    "keepalive": frozenset({Kind.SANDBOX}),
    "with_project": _RUN,
    "under_pressure": frozenset({Kind.CONTAINER, Kind.VOLUME, Kind.IMAGE, Kind.BUILD_CACHE}),
    "exit_codes": frozenset({Kind.CONTAINER}),
    "all": _RUN,
}
"""The kinds that have each condition; a policy with it is for no other."""
_CONDITIONS = (
    "older_than",
    "stopped_for",
    "idle_for",
    "unused_for",
    "orphaned_for",
    "larger_than",
    "untagged",
    "anonymous",
    "states",
)
_ALL_OR_THESE = ("older_than", "stopped_for", "idle_for", "states", "exit_codes", "under_pressure")
LONGEST_WINDOW_OF_ALL = timedelta(hours=12)
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*(?:([01]\d|2[0-3]):([0-5]\d)|24:00)", re.ASCII)
_LARGEST_CODE = 255


class ExcludeTable(Table):
    """exclude = { ... } in a policy: what it is not for. The entries are ORed."""

    labels: Labels = ()
    names: ProtectingGlobs = ()
    images: ProtectingGlobs = ()

    @model_validator(mode="after")
    def _has_entries(self) -> Self:
        if not (self.labels or self.names or self.images):
            raise ValueError('it excludes nothing; write for example exclude = { labels = ["user=bob"] }, or leave it out')
        return self


_SHOWS_LATE = 'it is at least five minutes: a use may show a minute late, or not by itself; write for example "30m"'


class PolicyTable(Table):
    """[[policy]]: when an owned, unprotected resource is garbage, and how often it is looked for."""

    name: Name
    action: Annotated[Action, WithJsonSchema({"type": "string", "enum": [each.value for each in OF_KINDS]})] = Action.DELETE
    kinds: Annotated[
        tuple[Annotated[Kind, WithJsonSchema({"type": "string", "enum": list(_KINDS)})], ...], Field(min_length=1)
    ]
    older_than: Duration | None = None
    stopped_for: Duration | None = None
    idle_for: Annotated[Duration, at_least(timedelta(minutes=5), _SHOWS_LATE)] | None = None
    unused_for: Duration | None = None
    orphaned_for: Duration | None = None
    larger_than: Size | None = None
    untagged: StrictBool = False
    anonymous: StrictBool = False
    oneoff: StrictBool = False
    keepalive: StrictBool = False
    with_project: tuple[Literal["network", "volume", "image"], ...] = ("network",)
    states: tuple[StrictStr, ...] = ()
    exit_codes: tuple[Literal["zero", "nonzero"] | Annotated[int, Field(strict=True, ge=0, le=_LARGEST_CODE)], ...] = ()
    all: StrictBool = False
    endpoints: tuple[Name, ...] = ()
    labels: Labels = ()
    names: NarrowingGlobs = ()
    images: NarrowingGlobs = ()
    exclude: ExcludeTable | None = None
    exclusive: StrictBool = False
    window: StrictStr | None = None
    stop_timeout: Duration = DEFAULT_STOP_TIMEOUT
    under_pressure: StrictBool = False
    every: Duration | None = None
    cron: StrictStr | None = None
    timezone: StrictStr | None = None

    @field_validator("kinds", mode="before")
    @classmethod
    def _known_kinds(cls, kinds: object) -> object:
        for kind in kinds if isinstance(kinds, list | tuple) else ():
            if kind not in _KINDS:
                raise ValueError(f"{kind!r} is no kind; {did_you_mean(str(kind), _KINDS)}")
        return kinds

    @field_validator("action", mode="before")
    @classmethod
    def _known_action(cls, action: object) -> object:
        known = tuple(each.value for each in OF_KINDS)
        if action not in known:
            raise ValueError(f"{action!r} is no action; {did_you_mean(str(action), known)}")
        return action

    @field_validator("states")
    @classmethod
    def _known_states(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = registry.states()
        for name in names:
            if name not in known:
                raise ValueError(f"{name!r} is no state; {did_you_mean(name, known)}")
        return names

    @field_validator("exit_codes", mode="before")
    @classmethod
    def _known_codes(cls, codes: object) -> object:
        if not isinstance(codes, list | tuple):
            raise ValueError('write a list, for example exit_codes = ["nonzero"]')  # noqa: TRY004 - see _duration
        found = [int(code) if isinstance(code, str) and code.isascii() and code.isdigit() else code for code in codes]
        for code in found:
            is_number = isinstance(code, int) and not isinstance(code, bool) and 0 <= code <= _LARGEST_CODE
            if not is_number and code not in ("zero", "nonzero"):
                raise ValueError(
                    f'{code!r} is no exit code; write "zero", "nonzero" or numbers from 0 to {_LARGEST_CODE},'
                    ' for example ["nonzero"] or [0, 137]'
                )
        return found

    @field_validator("exclude", mode="before")
    @classmethod
    def _is_table(cls, exclude: object) -> object:
        if exclude is not None and not isinstance(exclude, dict | ExcludeTable):
            raise ValueError('write for example exclude = { labels = ["user=bob"] }')
        return exclude

    @field_validator("window")
    @classmethod
    def _is_part_of_a_day(cls, window: str | None) -> str | None:
        if window is not None:
            read_window(window, UTC, "UTC")
        return window

    @field_validator("older_than", "stopped_for", "idle_for", "unused_for", "orphaned_for")
    @classmethod
    def _lasts(cls, value: timedelta | None) -> timedelta | None:
        return value if value is None else check_threshold(value)

    @model_validator(mode="after")
    def _has_conditions(self) -> Self:
        if not self.all and not any(getattr(self, condition) not in (None, False, ()) for condition in _CONDITIONS):
            fitting = [name for name in _CONDITIONS if set(self.kinds) <= _OF_KINDS.get(name, {Kind.SANDBOX})]
            what = "exit_codes alone would take what has just ended" if self.exit_codes else "it has no condition"
            raise ValueError(f"{what}; give it {' or '.join(', '.join(fitting).rsplit(', ', 1))}")
        for condition, kinds in _OF_KINDS.items():
            if condition in self.model_fields_set and (wrong := [kind for kind in self.kinds if kind not in kinds]):
                fitting = [kind.plural for kind in Kind if kind in kinds]
                those = " and ".join(", ".join(fitting).rsplit(", ", 1))
                raise ValueError(f"{condition} is for {those} only, not for a {wrong[0]}")
        if self.idle_for is not None and (other := [kind for kind in self.kinds if kind is not Kind.SANDBOX]):
            raise ValueError(f"idle_for is for sandboxes only: idleness of a {other[0]} is unknown")
        if self.keepalive and self.idle_for is None:
            raise ValueError('keepalive = true says where idleness means that the runner is gone; add idle_for = "30m"')
        return self

    @model_validator(mode="after")
    def _all_is_bounded(self) -> Self:
        if not self.all:
            return self
        if given := [name for name in _ALL_OR_THESE if getattr(self, name)]:
            raise ValueError(
                f"all = true takes everything that is owned, so {given[0]} does not go with it; leave one of them out"
            )
        if self.window is None or (window := self.opening()) is None:
            raise ValueError(
                "all = true takes every run that is alive and has no lease: say when none is, for example window ="
                ' "02:00-05:00" with timezone = "Europe/Berlin"'
            )
        if window.length > LONGEST_WINDOW_OF_ALL:
            raise ValueError(f"window = {self.window!r}: all = true needs one of 12 hours at most, for example 02:00-05:00")
        return self

    @model_validator(mode="after")
    def _exclusive_selects(self) -> Self:
        if self.exclusive and not (self.labels or self.names or self.images):
            raise ValueError(
                'exclusive = true is for what labels, names or images select; add for example labels = ["user=bob"]'
            )
        return self

    @model_validator(mode="after")
    def _can_act(self) -> Self:
        if wrong := [kind for kind in self.kinds if kind not in OF_KINDS[self.action]]:
            fitting = " and ".join(kind.plural for kind in Kind if kind in OF_KINDS[self.action])
            raise ValueError(f'action = "{self.action}" is for {fitting} only, not for {wrong[0].article}')
        for key in ("stopped_for", "exit_codes"):
            if self.action is Action.STOP and getattr(self, key):
                raise ValueError(f'action = "stop" is for what runs, and {key} for what has stopped; leave one out')
        only_deleted = {"with_project", "under_pressure", "only_under_pressure"} & self.model_fields_set
        if self.action is not Action.DELETE and only_deleted:
            key = min(only_deleted)
            raise ValueError(f'{key} is for what is deleted, and not for action = "{self.action}"; leave one out')
        return self

    @model_validator(mode="after")
    def _has_a_schedule(self) -> Self:
        if self.every is not None and self.cron is not None:
            raise ValueError("every and cron exclude each other; leave one out")
        if self.every is not None and self.every < timedelta(seconds=1):
            raise ValueError('every is at least one second, for example "10m"')
        if self.timezone is not None and self.cron is None and self.window is None:
            raise ValueError("timezone goes with cron and window only")
        if self.timezone is not None:
            read_zone(self.timezone)
        if self.cron is not None and (self.cron, self.timezone) != _DEFAULT_CRON:
            check_cron(self.cron, self.timezone)
        return self

    @property
    def only_under_pressure(self) -> bool:
        """Whether it has no schedule, and runs only while the disk is too full."""
        return self.under_pressure and self.every is None and self.cron is None

    def opening(self) -> Window | None:
        """The part of the day in which it matches; None where that is all day. Raises ValueError."""
        if self.window is None:
            return None
        return read_window(self.window, read_zone(self.timezone) if self.timezone else UTC, self.timezone or "UTC")

    def policy(self) -> Policy:
        """The policy as the rules read it."""
        narrow = Selector(self.labels, self.names, self.images)
        return Policy(
            self.name,
            frozenset(self.kinds),
            older_than=self.older_than,
            stopped_for=self.stopped_for,
            idle_for=self.idle_for,
            unused_for=self.unused_for,
            orphaned_for=self.orphaned_for,
            larger_than=self.larger_than,
            untagged=self.untagged,
            anonymous=self.anonymous,
            oneoff=self.oneoff,
            with_project=frozenset(map(Kind, self.with_project)) | {Kind.POD},
            states=frozenset(self.states),
            exit_codes=_exit_codes(self.exit_codes),
            window=self.opening(),
            endpoints=frozenset(self.endpoints),
            selectors=() if narrow == Selector() else (narrow,),
            exclude=Selector() if (no := self.exclude) is None else Selector(no.labels, no.names, no.images),
            stop_timeout=self.stop_timeout,
            under_pressure=self.under_pressure,
            asleep=self.only_under_pressure,
            every_resource=self.all,
            action=self.action,
        )


def policies(tables: Iterable[PolicyTable], keepalive: tuple[str, ...] = ()) -> tuple[Policy, ...]:
    """The policies as the rules read them: what exclusive ones select is for these alone.

    Args:
        tables: they.
        keepalive: the labels of sandboxes whose runner keeps them alive, by the presets in force.
    """
    found = [
        (replace(table.policy(), keepalive=keepalive if table.keepalive else None), table.exclusive) for table in tables
    ]
    exclusive = tuple(policy for policy, alone in found if alone)
    return tuple(policy if alone else replace(policy, yields_to=exclusive) for policy, alone in found)


def _exit_codes(codes: Iterable[str | int]) -> ExitCodes:
    numbers = frozenset(0 if code == "zero" else code for code in codes if code != "nonzero")
    return ExitCodes(frozenset(code for code in numbers if isinstance(code, int)), nonzero="nonzero" in tuple(codes))


def read_window(text: str, zone: tzinfo, zone_name: str) -> Window:
    """The part of the day that ``text`` names. Raises ValueError."""
    found = _WINDOW.fullmatch(text.strip())
    if found is None:
        raise ValueError(f'{text!r} is no part of a day; write for example "02:00-05:00", or "22:00-04:00" over midnight')
    begin, end = time(int(found[1]), int(found[2])), time(int(found[3] or 0), int(found[4] or 0))
    if begin == end:
        raise ValueError(f"{text!r} is no part of a day: it ends when it begins; for all day leave window out")
    return Window(begin, end, zone, zone_name)


def read_zone(name: str) -> tzinfo:
    """The time zone of that name. Raises ValueError."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - only for those who name one

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f'{name!r} is no time zone; write for example "Europe/Berlin"') from None


def check_threshold(value: timedelta) -> timedelta:
    """``value`` when it is longer than nothing: no threshold at all must not pass for one. Raises ValueError."""
    if not value:
        raise ValueError(
            'it must be greater than 0, since everything is older than that; write for example "6h", or'
            ' states = ["stopped", "failed"] for what has stopped, however lately'
        )
    return value


def check_cron(expression: str, timezone: str | None) -> None:
    """Raise ValueError unless APScheduler can read the five fields of ``expression`` and the zone exists."""
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - 30 ms that most configurations do not need

    zone = read_zone(timezone or "UTC")
    try:
        CronTrigger.from_crontab(expression, timezone=zone)
    except ValueError as error:
        raise ValueError(f'{expression!r} is no cron expression ({error}); write for example "15 * * * *"') from None


DEFAULT_POLICIES: tuple[dict[str, Any], ...] = (
    {"name": "stopped-containers", "kinds": ["container"], "stopped_for": "6h", "every": "10m"},
    {"name": "old-containers", "kinds": ["container"], "older_than": "24h", "stop_timeout": "10s", "every": "30m"},
    {"name": "orphaned", "kinds": ["container", "sandbox"], "orphaned_for": "10m", "every": "5m"},
    {"name": "stopped-sandboxes", "kinds": ["sandbox"], "stopped_for": "6h", "every": "10m"},
    {
        "name": "idle-sandboxes",
        "kinds": ["sandbox"],
        "idle_for": "30m",
        "keepalive": True,
        "states": ["running"],
        "every": "10m",
    },
    {"name": "old-sandboxes", "kinds": ["sandbox"], "older_than": "1d", "idle_for": "2h", "cron": _DEFAULT_CRON[0]},
)


def default_policies() -> tuple[PolicyTable, ...]:
    """The policies that hold where the file names none."""
    return tuple(PolicyTable.model_validate(policy) for policy in DEFAULT_POLICIES)
