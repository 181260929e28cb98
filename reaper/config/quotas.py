"""[[quota]]: how much an endpoint, or each value of a label on it, may hold at once."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, StrictBool, StrictInt, StrictStr, WithJsonSchema, field_validator, model_validator

from reaper.config.policies import PolicyTable
from reaper.core.conditions import SHORTEST_CREATED_GRACE
from reaper.core.kinds import Kind
from reaper.core.quota import COUNT, CPU, DEFAULT_IDLE_FOR, DISK, MEMORY, Quota
from reaper.providers.fields import Duration, Name, Size, Table, at_least, did_you_mean

_KINDS = (Kind.CONTAINER.value, Kind.SANDBOX.value)


class QuotaTable(Table):
    """[[quota]]: how much may be there at once. Over it what is reapable goes before its turn, the oldest first."""

    name: Name
    kinds: Annotated[
        tuple[Annotated[Kind, WithJsonSchema({"type": "string", "enum": list(_KINDS)})], ...], Field(min_length=1)
    ]
    max_count: Annotated[StrictInt, Field(ge=0)] | None = None
    max_cpu: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    max_memory: Size | None = None
    max_disk: Size | None = None
    endpoints: tuple[Name, ...] = ()
    per_label: StrictStr | None = None
    enforce: StrictBool = False
    idle_for: Annotated[
        Duration,
        at_least(SHORTEST_CREATED_GRACE, 'it is at least ten minutes: a run may pause for so long; write for example "8h"'),
    ] = DEFAULT_IDLE_FOR

    @field_validator("kinds", mode="before")
    @classmethod
    def _are_counted(cls, kinds: object) -> object:
        for kind in kinds if isinstance(kinds, list | tuple) else ():
            if kind not in _KINDS:
                raise ValueError(f"a quota counts containers and sandboxes, no {kind!r}; {did_you_mean(str(kind), _KINDS)}")
        return kinds

    @field_validator("per_label")
    @classmethod
    def _is_a_key(cls, key: str | None) -> str | None:
        if key is not None and (not key.strip() or key != key.strip() or set(key) & set("=*?[")):
            raise ValueError(
                f'{key!r} is no key of a label; write for example "user", and each of its values counts by itself'
            )
        return key

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if not self.limits:
            raise ValueError("it limits nothing; give it max_count, max_cpu, max_memory or max_disk")
        parts = [key for key in ("max_cpu", "max_memory", "max_disk") if getattr(self, key) is not None]
        if parts and set(self.kinds) != {Kind.SANDBOX}:
            raise ValueError(f'{parts[0]} is for kinds = ["sandbox"] alone: an engine does not say what a container takes')
        if not self.enforce and "idle_for" in self.model_fields_set:
            raise ValueError("idle_for goes with enforce = true only")
        return self

    @property
    def limits(self) -> dict[str, float]:
        """By measure."""
        found = {COUNT: self.max_count, CPU: self.max_cpu, MEMORY: self.max_memory, DISK: self.max_disk}
        return {measure: limit for measure, limit in found.items() if limit is not None}

    def quota(self) -> Quota:
        """The quota as the rules read it."""
        kinds, endpoints = frozenset(self.kinds), frozenset(self.endpoints)
        return Quota(self.name, kinds, self.limits, endpoints, self.per_label, self.enforce, self.idle_for)


def quotas(tables: Iterable[QuotaTable], policies: Iterable[PolicyTable]) -> tuple[Quota, ...]:
    """The quotas as the rules read them: what exclusive policies select is for these alone."""
    exclusive = tuple(table.policy() for table in policies if table.exclusive)
    return tuple(replace(table.quota(), yields_to=exclusive) for table in tables)
