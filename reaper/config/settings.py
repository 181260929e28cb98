"""What can be configured: one frozen model for each table of the TOML file, with its defaults and its checks.

The models know nothing of files and variables (see ``config``), and the rest of the program sees of a policy or a
scope only what ``Settings.rules`` makes of it.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    Field,
    PrivateAttr,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from reaper.config.owners import OwnerTable, check_owners
from reaper.config.policies import PolicyTable, policies
from reaper.config.policies import default_policies as built_in_policies
from reaper.config.presets import PresetTable
from reaper.config.prices import PricesTable
from reaper.config.quotas import QuotaTable
from reaper.config.service_tables import LeasesTable, RyukTable, ServiceTable
from reaper.core import disk
from reaper.core.caps import MAX_LEASE_DELETIONS
from reaper.core.conditions import SHORTEST_CREATED_GRACE, Policy
from reaper.core.disk import DEFAULT_HIGH, DEFAULT_LOW, Thresholds
from reaper.core.owner_process import OwnerRule
from reaper.core.presets import PRESETS, in_force
from reaper.core.rules import Rules
from reaper.core.scope import Protect, Scope, Selector
from reaper.providers import registry
from reaper.providers.fields import (
    Duration,
    Globs,
    Labels,
    Positive,
    ProtectingGlobs,
    Size,
    Table,
    at_least,
    did_you_mean,
    toml_value,
)
from reaper.providers.registration import EndpointTable, Registration

MAX_DELETIONS, MAX_DELETIONS_OF_EVERYTHING, MAX_FRACTION_OF_EVERYTHING = 1000, 100, 0.5


class ScopeTable(Table):
    """[scope]: what this reaper owns; nothing else is ever touched."""

    presets: tuple[StrictStr, ...] = ("terminal-bench", "harbor")
    labels: Labels = ()
    names: Globs = ()
    images: Globs = ()
    everything: StrictBool = False
    image_labels: StrictBool = False


class ProtectTable(Table):
    """[protect]: what is kept although it is owned."""

    labels: Labels = ("reaper.keep",)
    names: ProtectingGlobs = ()
    images: ProtectingGlobs = ()
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
    max_lease_deletions: Annotated[StrictInt, Field(ge=0)] | None = MAX_LEASE_DELETIONS

    @field_validator("max_deletions", "max_fraction", "max_lease_deletions", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value == "none" else value


class DiskTable(Table):
    """[disk]: from when on an engine's disk is too full, and to where policies with ``under_pressure`` empty it."""

    high: StrictStr = str(DEFAULT_HIGH)
    low: StrictStr = str(DEFAULT_LOW)

    @field_validator("high", "low")
    @classmethod
    def _level(cls, value: str) -> str:
        disk.parse(value)
        return value

    @model_validator(mode="after")
    def _is_a_span(self) -> Self:
        thresholds, pair = self.thresholds, f'low = "{self.low}" and high = "{self.high}"'
        if (thresholds.high.part is None) != (thresholds.low.part is None):
            raise ValueError(f"{pair} cannot be compared; write both in % or both in bytes")
        if thresholds.low_reaches_high:
            raise ValueError(f'{pair}: low has to be less; write for example high = "85%" and low = "75%"')
        return self

    @property
    def thresholds(self) -> Thresholds:
        """The same, as sweeps read it."""
        return Thresholds(disk.parse(self.high), disk.parse(self.low))


class RetryTable(Table):
    """[retry]: how often and how long one call is tried."""

    attempts: Annotated[StrictInt, Field(ge=1, le=100)] = 4
    initial_delay: Duration = timedelta(seconds=2)
    factor: Annotated[float, Field(strict=True, ge=1, le=100)] = 2.0
    max_delay: Duration = timedelta(seconds=30)
    jitter: Duration = timedelta(seconds=1)
    total: Positive = timedelta(seconds=60)
    request_timeout: Positive = timedelta(seconds=30)


class JournalTable(Table):
    """[journal]: the record of what was deleted, when and why. What is older or beyond the size is dropped."""

    enabled: StrictBool = True
    keep_for: Duration = timedelta(days=90)
    max_megabytes: Annotated[StrictInt, Field(ge=1)] = 256


class EvidenceTable(Table):
    """[evidence]: what is saved of a container or sandbox before it is deleted. Nothing unless this is set.

    Secrets in environment variables are masked; what a program writes to its log is its own affair.
    """

    logs: Annotated[StrictInt, Field(ge=0, le=1000)] = 0
    inspect: StrictBool = False
    keep_for: Duration = timedelta(days=14)
    max_size: Annotated[
        Size, at_least(10**7, 'it is at least 10MB, which a few logs may have; write for example "1GiB"')
    ] = 2**30

    @property
    def wanted(self) -> bool:
        """Whether anything is saved."""
        return bool(self.logs) or self.inspect


def _check_unique(names: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError when two tables have one name. ``names`` are pairs of table and name."""
    seen: dict[str, str] = {}
    for table, name in names:
        if (other := seen.get(name)) == table:
            raise ValueError(f"two [[{table}]] tables have the name {name!r}; give one another name")
        if other is not None:
            raise ValueError(f"a [[{other}]] and a [[{table}]] table have the name {name!r}; give one another name")
        seen[name] = table


def _check_places(endpoints: Iterable[tuple[Registration[Any], EndpointTable]]) -> None:
    """Raise ValueError when two tables name one engine. Those without an address are known when contexts are followed."""
    seen: dict[Hashable, str] = {}
    for provider, table in endpoints:
        if "host" not in table.model_fields_set:
            continue
        if (other := seen.setdefault((provider.name, provider.place(table)), table.name)) != table.name:
            raise ValueError(f"[[{provider.name}]] {table.name!r} is the engine of {other!r} again; leave one of them out")


def _tables_of(providers: Iterable[Registration[Any]]) -> dict[str, Any]:
    return {provider.name: (tuple[provider.table, ...], ()) for provider in providers}  # type: ignore[name-defined]


class _General(Table):
    preset: tuple[PresetTable, ...] = ()
    scope: ScopeTable = ScopeTable()
    protect: ProtectTable = ProtectTable()
    limits: LimitsTable = LimitsTable()
    disk: DiskTable = DiskTable()
    retry: RetryTable = RetryTable()
    service: ServiceTable = ServiceTable()
    journal: JournalTable = JournalTable()
    evidence: EvidenceTable = EvidenceTable()
    leases: LeasesTable = LeasesTable()
    ryuk: RyukTable = RyukTable()
    prices: PricesTable = PricesTable()

    @field_validator("preset")
    @classmethod
    def _presets_are_unique(cls, presets: tuple[PresetTable, ...]) -> tuple[PresetTable, ...]:
        _check_unique(("preset", preset.name) for preset in presets)
        return presets

    @field_validator("scope")
    @classmethod
    def _presets_are_known(cls, scope: ScopeTable, info: ValidationInfo) -> ScopeTable:
        known = {*PRESETS, *(preset.name for preset in info.data.get("preset", ()))}
        for preset in scope.presets if "preset" in info.data else ():  # else the tables are wrong themselves
            if preset not in known:
                raise ValueError(
                    f"presets = {toml_value(scope.presets)}: {preset!r} is no preset; {did_you_mean(preset, known)}"
                )
        return scope


if TYPE_CHECKING:
    _WithEndpoints = _General
else:
    _WithEndpoints = create_model("_WithEndpoints", __base__=_General, **_tables_of(registry.built_in()))


class Settings(_WithEndpoints):
    """Everything that can be configured, parsed and checked."""

    owner: tuple[OwnerTable, ...] = ()
    default_policies: StrictBool = False
    policy: tuple[PolicyTable, ...] = Field(default_factory=built_in_policies)
    quota: tuple[QuotaTable, ...] = ()

    @model_validator(mode="after")
    def _keep_the_default_policies(self) -> Self:
        if (
            self.default_policies
        ):  # behind the file's own, whose places error messages name; one of the same name replaces it
            named = {policy.name for policy in self.policy}
            kept = tuple(policy for policy in built_in_policies() if policy.name not in named)
            object.__setattr__(self, "policy", (*self.policy, *kept))
        return self

    _groups: Mapping[str, tuple[str, ...]] = PrivateAttr(default_factory=dict)

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """By the name of a table that names files of hosts, the names of its endpoints."""
        return self._groups

    def with_groups(self, groups: Mapping[str, tuple[str, ...]]) -> Self:
        """These settings, which know from now on that these names mean so many endpoints."""
        self._groups = groups
        return self

    @classmethod
    def with_tables_of(cls, providers: Iterable[Registration[Any]]) -> "type[Settings]":
        """The settings with the tables of more providers."""
        fields = _tables_of(providers)
        return create_model(cls.__name__, __base__=cls, **fields) if fields else cls

    @classmethod
    def providers(cls) -> tuple[Registration[Any], ...]:
        """The providers whose tables these settings may have."""
        return tuple(registry.get(name) for name in registry.names() if name in cls.model_fields)

    def endpoints(self) -> tuple[tuple[Registration[Any], EndpointTable], ...]:
        """The configured endpoints, each with its provider."""
        return tuple((provider, table) for provider in self.providers() for table in getattr(self, provider.name))

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        _check_unique((provider.name, table.name) for provider, table in self.endpoints())
        _check_places(self.endpoints())
        named = [("policy", policy.name) for policy in self.policy]
        _check_unique([*named, *(("quota", quota.name) for quota in self.quota)])
        return self

    @model_validator(mode="after")
    def _owners_can_be_proven(self) -> Self:
        _check_unique(("owner", rule.name) for rule in self.owner_rules())
        addresses = {table.name: provider.address(table) for provider, table in self.endpoints()}
        check_owners(self.owner, self.scope.presets, addresses)
        return self

    def owner_rules(self) -> tuple[OwnerRule, ...]:
        """How owners are found besides by their own label."""
        return tuple(table.rule(number) for number, table in enumerate(self.owner, 1))

    @model_validator(mode="after")
    def _ryuk_has_leases(self) -> Self:
        if self.ryuk.address is not None and not self.leases.enabled:
            raise ValueError("[ryuk] listen needs leases, which [leases] enabled = false turns off; leave one of them out")
        return self

    @model_validator(mode="after")
    def _endpoints_are_known(self) -> Self:
        configured = {table.name for _, table in self.endpoints()}
        known = configured or {provider.default_name for provider in registry.built_in() if provider.default_name}
        named = [(f"policy {policy.name!r} names", endpoint) for policy in self.policy for endpoint in policy.endpoints]
        named += [(f"quota {quota.name!r} names", endpoint) for quota in self.quota for endpoint in quota.endpoints]
        named += [("[prices.endpoints] names", endpoint) for endpoint in self.prices.endpoints]
        for which, endpoint in named:
            if endpoint not in known:
                hint = did_you_mean(endpoint, known)
                raise ValueError(f"{which} the endpoint {endpoint!r}, which is not configured; {hint}")
        return self

    def rules(self) -> Rules:
        """What the decisions are made by."""
        table, protect = self.scope, self.protect
        scope = Scope(
            table.presets,
            Selector(table.labels, table.names, table.images),
            everything=table.everything,
            image_labels=table.image_labels,
            own_presets=tuple(preset.preset() for preset in self.preset),
        )
        return Rules(
            scope,
            Protect(Selector(protect.labels, protect.names, protect.images), protect.restart_policies),
            policies(self.policy, tuple(preset.keepalive for preset in in_force(scope) if preset.keepalive)),
            created_grace=SHORTEST_CREATED_GRACE,
            owner_rules=self.owner_rules(),
        )

    @property
    def catch_all(self) -> str | None:
        """The first entry that takes (nearly) all, as it is written in the file; None without one."""
        of_policies = (f"all = true in policy {policy.name}" for policy in self.policy if policy.all)
        return self.rules().scope.catch_all or next(of_policies, None)

    def effective_limits(self) -> LimitsTable:
        """The limits in force: tight ones where (nearly) everything is owned or taken, unless they were set on purpose."""
        if self.catch_all is None:
            return self.limits
        tight = {"max_deletions": MAX_DELETIONS_OF_EVERYTHING, "max_fraction": MAX_FRACTION_OF_EVERYTHING}
        unset = {key: value for key, value in tight.items() if key not in self.limits.model_fields_set}
        return self.limits.model_copy(update=unset)


def one_off(rules: Rules, policies: Iterable[Policy], narrow: Selector) -> Rules:
    """``rules`` with ``policies`` in place of the configured ones; nothing is taken but what ``narrow`` selects."""
    extra = () if narrow == Selector() else (narrow,)
    narrowed = tuple(replace(policy, selectors=(*policy.selectors, *extra)) for policy in policies)
    return replace(rules, policies=narrowed, without_policy=narrow)
