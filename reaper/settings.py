"""What can be configured: one frozen model for each table of the TOML file, with its defaults and its checks.

The models know nothing of files and variables (see ``config``), and the rest of the program sees of a policy or a
scope only what ``Settings.rules`` makes of it.
"""

import difflib
import fnmatch
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from reaper import durations, states
from reaper.conditions import DEFAULT_STOP_TIMEOUT, Policy
from reaper.judge import SHORTEST_CREATED_GRACE, Rules
from reaper.model import Kind
from reaper.scope import PRESETS, Protect, Scope, Selector

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
PROVIDERS = ("docker", "daytona")
MAX_DELETIONS, MAX_DELETIONS_OF_EVERYTHING, MAX_FRACTION_OF_EVERYTHING = 1000, 100, 0.5

# Known to be right (a test says so): checking it would import a scheduler into every run.
_DEFAULT_CRON = ("15 * * * *", None)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_HOST = re.compile(r"unix:///.+|(tcp|http|https)://(\[[0-9A-Fa-f:.]+\]|[^/:@\s]+)(:\d{1,5})?/?")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A cure for a misspelt ``word``: the nearest of the ``known`` ones, else all of them."""
    choices = sorted(str(name) for name in known)
    near = difflib.get_close_matches(word, choices, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(choices)}"


def toml_value(value: object) -> str:
    """``value`` as it is written in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # TOML's basic strings know the same escapes
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml_value(item)}' for key, item in value.items())}}}"
    return str(value)


def masked(host: str) -> str:
    """``host`` without a user and a password, which nobody should have written there."""
    return re.sub(r"^([\w+]+://)?.*@", r"\1***@", host, flags=re.DOTALL)


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        # pydantic turns ValueError, and only that, into an error of the key
        raise ValueError(f"a duration is a text with a unit, for example {durations.EXAMPLES}")  # noqa: TRY004
    return durations.parse(value)


def check_glob(value: str) -> str:
    """``value`` when it can match something. Raises ValueError with the cure."""
    if not value:
        raise ValueError("an empty glob matches nothing; leave it out")
    start = value.find("[")
    while start >= 0:
        first = start + 2 if value.startswith("!", start + 1) else start + 1
        end = value.find("]", first + 1)  # a bracket that stands first is in the set and does not close it
        if end < 0:
            raise ValueError(f"the glob {value!r} opens a bracket and does not close it; a literal one is written [[]")
        start = value.find("[", end)
    if "(?!)" in fnmatch.translate(value):  # what it makes of an empty range
        raise ValueError(f"the glob {value!r} can never match: its range runs backwards; write for example [a-z]")
    return value


def check_label(value: str) -> str:
    """``value`` when it is a label pattern. Raises ValueError with the cure."""
    key, equals, glob = value.partition("=")
    if not key.strip() or key != key.strip():
        raise ValueError(f'{value!r} names no label; write "key", "key=value" or "key=glob"')
    if equals:
        check_glob(glob or "?*")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no name; letters, digits, '-', '_' and '.' are, for example \"gpu-1\"")
    return value


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(durations.spell, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\s*(0|(\d+(\.\d+)?(ms|s|m|h|d|w))+)\s*$", "examples": ["90s", "6h", "1d12h"]}
    ),
]
Globs = tuple[Annotated[StrictStr, AfterValidator(check_glob)], ...]
Labels = tuple[Annotated[StrictStr, AfterValidator(check_label)], ...]
Name = Annotated[StrictStr, AfterValidator(_name)]


class Table(BaseModel):
    """One table of the file: frozen, and nothing in it that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ScopeTable(Table):
    """[scope]: what this reaper owns; nothing else is ever touched."""

    presets: tuple[StrictStr, ...] = ("terminal-bench", "harbor")
    labels: Labels = ()
    names: Globs = ()
    images: Globs = ()
    everything: StrictBool = False

    @field_validator("presets")
    @classmethod
    def _known(cls, presets: tuple[str, ...]) -> tuple[str, ...]:
        for preset in presets:
            if preset not in PRESETS:
                raise ValueError(f"{preset!r} is no preset; {did_you_mean(preset, PRESETS)}")
        return presets


class ProtectTable(Table):
    """[protect]: what is kept although it is owned."""

    labels: Labels = ("reaper.keep",)
    names: Globs = ()
    images: Globs = ()
    restart_policies: tuple[StrictStr, ...] = ("always", "unless-stopped")

    @field_validator("restart_policies")
    @classmethod
    def _known(cls, policies: tuple[str, ...]) -> tuple[str, ...]:
        known = ("always", "unless-stopped", "on-failure", "no")
        for policy in policies:
            if policy not in known:
                raise ValueError(f"{policy!r} is no restart policy; {did_you_mean(policy, known)}")
        return policies


class LimitsTable(Table):
    """[limits]: more deletions than this in one sweep of one endpoint are refused. "none" means no limit."""

    max_deletions: Annotated[StrictInt, Field(ge=0)] | None = MAX_DELETIONS
    max_fraction: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None

    @field_validator("max_deletions", "max_fraction", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value == "none" else value


class RetryTable(Table):
    """[retry]: how often and how long one call is tried."""

    attempts: Annotated[StrictInt, Field(ge=1, le=100)] = 4
    initial_delay: Duration = timedelta(seconds=2)
    factor: Annotated[float, Field(strict=True, ge=1, le=100)] = 2.0
    max_delay: Duration = timedelta(seconds=30)
    jitter: Duration = timedelta(seconds=1)
    total: Duration = timedelta(seconds=60)
    request_timeout: Duration = timedelta(seconds=30)

    @field_validator("total", "request_timeout")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if not value:
            raise ValueError('nothing can be done in no time; write for example "60s"')
        return value


class DockerTable(Table):
    """[[docker]]: one engine.

    ``removals`` and ``stops`` bound what is asked of it at the same time: an engine gains nothing from more than about
    eight removals, while stopping waits for the container and wants all of them at once.
    """

    name: Name
    host: StrictStr = DEFAULT_SOCKET
    tls_ca: StrictStr | None = None
    tls_cert: StrictStr | None = None
    tls_key: StrictStr | None = None
    tls_verify: StrictBool = True
    removals: Annotated[StrictInt, Field(ge=1, le=64)] = 8
    stops: Annotated[StrictInt, Field(ge=1, le=4096)] = 128

    @field_validator("host")
    @classmethod
    def _speakable(cls, host: str) -> str:
        return check_docker_host(host)

    @field_validator("name")
    @classmethod
    def _no_provider(cls, name: str) -> str:
        if name in PROVIDERS:
            raise ValueError(f"{name!r} cannot be the name of an endpoint: --only {name} means all endpoints of that kind")
        return name

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: a client certificate needs both")
        if self.tls and not self.host.startswith(("tcp://", "https://")):
            raise ValueError("tls_ca, tls_cert and tls_key are for tcp:// hosts")
        return self

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.host.startswith("https://") or any((self.tls_ca, self.tls_cert)) or not self.tls_verify


def check_docker_host(host: str) -> str:
    """``host`` when the Docker provider can speak to it. Raises ValueError with the cure."""
    if host.startswith("ssh://"):
        raise ValueError(
            f"{masked(host)!r}: ssh is not supported; forward the socket, ssh -L ./docker.sock:/var/run/docker.sock HOST"
        )
    if host.startswith("/"):
        raise ValueError(f'{host!r} lacks its scheme; write "unix://{host}"')
    if "@" in host and not host.startswith("unix:"):
        raise ValueError("the host holds a user or a password, which Docker engines do not take; use TLS certificates")
    if not _HOST.fullmatch(host):
        raise ValueError(f'{host!r} is no Docker host; write for example "{DEFAULT_SOCKET}" or "tcp://10.0.0.5:2376"')
    return host


class PolicyTable(Table):
    """[[policy]]: when an owned, unprotected resource is garbage, and how often it is looked for."""

    name: Name
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)]
    older_than: Duration | None = None
    stopped_for: Duration | None = None
    idle_for: Duration | None = None
    states: tuple[StrictStr, ...] = ()
    endpoints: tuple[Name, ...] = ()
    labels: Labels = ()
    names: Globs = ()
    images: Globs = ()
    stop_timeout: Duration = DEFAULT_STOP_TIMEOUT
    every: Duration | None = None
    cron: StrictStr | None = None
    timezone: StrictStr | None = None

    @field_validator("kinds", mode="before")
    @classmethod
    def _judged(cls, kinds: object) -> object:
        for kind in kinds if isinstance(kinds, list | tuple) else ():
            if kind == "network":
                raise ValueError("networks need no policy: they go with the containers of their project")
            if kind not in ("container", "sandbox"):
                raise ValueError(f"{kind!r} is no kind; {did_you_mean(str(kind), ('container', 'sandbox'))}")
        return kinds

    @field_validator("states")
    @classmethod
    def _known_states(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in states.NAMES:
                raise ValueError(f"{name!r} is no state; {did_you_mean(name, states.NAMES)}")
        return names

    @model_validator(mode="after")
    def _has_conditions(self) -> Self:
        if self.older_than is None and self.stopped_for is None and self.idle_for is None and not self.states:
            raise ValueError("it has no condition; give it older_than, stopped_for, idle_for or states")
        if self.idle_for is not None and Kind.CONTAINER in self.kinds:
            raise ValueError("idle_for is for sandboxes only: nothing tells whether a container is idle")
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

    def policy(self) -> Policy:
        """The policy as the rules read it."""
        narrow = Selector(self.labels, self.names, self.images)
        return Policy(
            self.name,
            frozenset(self.kinds),
            older_than=self.older_than,
            stopped_for=self.stopped_for,
            idle_for=self.idle_for,
            states=frozenset(self.states),
            endpoints=frozenset(self.endpoints),
            selectors=() if narrow == Selector() else (narrow,),
            stop_timeout=self.stop_timeout,
        )


def check_cron(expression: str, timezone: str | None) -> None:
    """Raise ValueError unless APScheduler can read the five fields of ``expression`` and knows the zone."""
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
    {"name": "stopped-sandboxes", "kinds": ["sandbox"], "stopped_for": "6h", "every": "10m"},
    {"name": "old-sandboxes", "kinds": ["sandbox"], "older_than": "1d", "idle_for": "2h", "cron": _DEFAULT_CRON[0]},
)


def _default_policies() -> tuple[PolicyTable, ...]:
    return tuple(PolicyTable.model_validate(policy) for policy in DEFAULT_POLICIES)


class Settings(Table):
    """Everything that can be configured, parsed and checked."""

    scope: ScopeTable = ScopeTable()
    protect: ProtectTable = ProtectTable()
    limits: LimitsTable = LimitsTable()
    retry: RetryTable = RetryTable()
    docker: tuple[DockerTable, ...] = ()
    policy: tuple[PolicyTable, ...] = Field(default_factory=_default_policies)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for table, entries in (("docker", self.docker), ("policy", self.policy)):
            seen = set()
            for entry in entries:
                if entry.name in seen:
                    raise ValueError(f"two [[{table}]] tables have the name {entry.name!r}; give one another name")
                seen.add(entry.name)
        return self

    @model_validator(mode="after")
    def _policies_name_endpoints(self) -> Self:
        known = {engine.name for engine in self.docker} or {"local"}
        for policy in self.policy:
            for endpoint in policy.endpoints:
                if endpoint not in known:
                    cure = did_you_mean(endpoint, known)
                    raise ValueError(
                        f"policy {policy.name!r} names the endpoint {endpoint!r}, which is not configured; {cure}"
                    )
        return self

    def rules(self) -> Rules:
        """What the decisions are made by."""
        scope, protect = self.scope, self.protect
        return Rules(
            Scope(scope.presets, Selector(scope.labels, scope.names, scope.images), everything=scope.everything),
            Protect(Selector(protect.labels, protect.names, protect.images), protect.restart_policies),
            tuple(policy.policy() for policy in self.policy),
            created_grace=SHORTEST_CREATED_GRACE,
        )

    def effective_limits(self) -> LimitsTable:
        """The limits in force: tight ones where everything is owned, unless they were set on purpose."""
        if not self.scope.everything:
            return self.limits
        tight = {"max_deletions": MAX_DELETIONS_OF_EVERYTHING, "max_fraction": MAX_FRACTION_OF_EVERYTHING}
        unset = {key: value for key, value in tight.items() if key not in self.limits.model_fields_set}
        return self.limits.model_copy(update=unset)


def one_off(rules: Rules, policies: Iterable[Policy], narrow: Selector) -> Rules:
    """``rules`` with ``policies`` in place of the configured ones, each narrowed to what ``narrow`` selects."""
    extra = () if narrow == Selector() else (narrow,)
    return replace(rules, policies=tuple(replace(p, selectors=(*p.selectors, *extra)) for p in policies))
