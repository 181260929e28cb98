"""The tables of policies, and those that hold where the file names none."""

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, StrictStr, WithJsonSchema, field_validator, model_validator

from reaper.core.conditions import DEFAULT_STOP_TIMEOUT, Policy
from reaper.core.model import Kind
from reaper.core.scope import Selector
from reaper.providers import registry
from reaper.providers.fields import Duration, Labels, Name, NarrowingGlobs, Size, Table, did_you_mean

# Known to be right (a test says so): checking it would import a scheduler into every run.
_DEFAULT_CRON = ("15 * * * *", None)


DEFAULT_EVERY = timedelta(minutes=10)  # of a policy that says neither every nor cron


_KINDS = tuple(kind.value for kind in Kind)
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
    "with_project": _RUN,
    "under_pressure": frozenset({Kind.CONTAINER, Kind.VOLUME, Kind.IMAGE, Kind.BUILD_CACHE}),
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


class PolicyTable(Table):
    """[[policy]]: when an owned, unprotected resource is garbage, and how often it is looked for."""

    name: Name
    kinds: Annotated[
        tuple[Annotated[Kind, WithJsonSchema({"type": "string", "enum": list(_KINDS)})], ...], Field(min_length=1)
    ]
    older_than: Duration | None = None
    stopped_for: Duration | None = None
    idle_for: Duration | None = None
    unused_for: Duration | None = None
    orphaned_for: Duration | None = None
    larger_than: Size | None = None
    untagged: StrictBool = False
    anonymous: StrictBool = False
    oneoff: StrictBool = False
    with_project: tuple[Literal["network", "volume", "image"], ...] = ("network",)
    states: tuple[StrictStr, ...] = ()
    endpoints: tuple[Name, ...] = ()
    labels: Labels = ()
    names: NarrowingGlobs = ()
    images: NarrowingGlobs = ()
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

    @field_validator("states")
    @classmethod
    def _known_states(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = registry.states()
        for name in names:
            if name not in known:
                raise ValueError(f"{name!r} is no state; {did_you_mean(name, known)}")
        return names

    @field_validator("older_than", "stopped_for", "idle_for", "unused_for", "orphaned_for")
    @classmethod
    def _lasts(cls, value: timedelta | None) -> timedelta | None:
        return value if value is None else check_threshold(value)

    @model_validator(mode="after")
    def _has_conditions(self) -> Self:
        if all(getattr(self, condition) in (None, False, ()) for condition in _CONDITIONS):
            fitting = [name for name in _CONDITIONS if set(self.kinds) <= _OF_KINDS.get(name, {Kind.SANDBOX})]
            raise ValueError(f"it has no condition; give it {' or '.join(', '.join(fitting).rsplit(', ', 1))}")
        for condition, kinds in _OF_KINDS.items():
            if condition in self.model_fields_set and (wrong := [kind for kind in self.kinds if kind not in kinds]):
                fitting = [kind.plural for kind in Kind if kind in kinds]
                those = " and ".join(", ".join(fitting).rsplit(", ", 1))
                raise ValueError(f"{condition} is for {those} only, not for a {wrong[0]}")
        if self.idle_for is not None and (other := [kind for kind in self.kinds if kind is not Kind.SANDBOX]):
            raise ValueError(f"idle_for is for sandboxes only: idleness of a {other[0]} is unknown")
        return self

    @model_validator(mode="after")
    def _has_a_schedule(self) -> Self:
        if self.every is not None and self.cron is not None:
            raise ValueError("every and cron exclude each other; leave one out")
        if self.every is not None and self.every < timedelta(seconds=1):
            raise ValueError('every is at least one second, for example "10m"')
        if self.timezone is not None and self.cron is None:
            raise ValueError("timezone goes with cron only")
        if self.cron is not None and (self.cron, self.timezone) != _DEFAULT_CRON:
            check_cron(self.cron, self.timezone)
        return self

    @property
    def only_under_pressure(self) -> bool:
        """Whether it has no schedule, and runs only while the disk is too full."""
        return self.under_pressure and self.every is None and self.cron is None

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
            with_project=frozenset(map(Kind, self.with_project)),
            states=frozenset(self.states),
            endpoints=frozenset(self.endpoints),
            selectors=() if narrow == Selector() else (narrow,),
            stop_timeout=self.stop_timeout,
            under_pressure=self.under_pressure,
            asleep=self.only_under_pressure,
        )


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
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - only for those who use cron

    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - 30 ms that most configurations do not need

    try:
        zone = ZoneInfo(timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f'{timezone!r} is no time zone; write for example "Europe/Berlin"') from None
    try:
        CronTrigger.from_crontab(expression, timezone=zone)
    except ValueError as error:
        raise ValueError(f'{expression!r} is no cron expression ({error}); write for example "15 * * * *"') from None


DEFAULT_POLICIES: tuple[dict[str, Any], ...] = (
    {"name": "stopped-containers", "kinds": ["container"], "stopped_for": "6h", "every": "10m"},
    {"name": "old-containers", "kinds": ["container"], "older_than": "24h", "stop_timeout": "10s", "every": "30m"},
    {"name": "orphaned", "kinds": ["container", "sandbox"], "orphaned_for": "10m", "every": "5m"},
    {"name": "stopped-sandboxes", "kinds": ["sandbox"], "stopped_for": "6h", "every": "10m"},
    {"name": "old-sandboxes", "kinds": ["sandbox"], "older_than": "1d", "idle_for": "2h", "cron": _DEFAULT_CRON[0]},
)


def default_policies() -> tuple[PolicyTable, ...]:
    """The policies that hold where the file names none."""
    return tuple(PolicyTable.model_validate(policy) for policy in DEFAULT_POLICIES)
