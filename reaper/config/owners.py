"""The tables that say how the processes are found to which resources belong, besides by their own label."""

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Self

from pydantic import Field, StrictStr, model_validator

from reaper.core.owner_process import OWNER_LABEL, OwnerRule
from reaper.core.scope import is_catch_all, is_catch_all_label
from reaper.providers.fields import Name, Table, did_you_mean

_WITH_PID = ("host_label", "start_label", "session_label")


class OwnerTable(Table):
    """[[owner]]: what names the process that owns something; its death is proven on this host alone."""

    name: Name | None = None
    endpoints: tuple[Name, ...] = ()
    pid_label: Annotated[StrictStr, Field(min_length=1)] | None = None
    host_label: Annotated[StrictStr, Field(min_length=1)] | None = None
    start_label: Annotated[StrictStr, Field(min_length=1)] | None = None
    session_label: Annotated[StrictStr, Field(min_length=1)] | None = None
    presets: tuple[StrictStr, ...] = ()
    processes: tuple[StrictStr, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.pid_label is None and not self.processes:
            raise ValueError('it names no owner; give it pid_label = "KEY", or processes = ["*/bin/harbor [!v]*"]')
        for key in _WITH_PID:
            if self.pid_label is None and getattr(self, key) is not None:
                raise ValueError(f"{key} goes with pid_label only")
        if self.name == OWNER_LABEL:
            raise ValueError(f"name: {OWNER_LABEL!r} is the label that needs no table; give it another name")
        labels = [key for key in (self.pid_label, self.host_label, self.start_label) if key is not None]
        if len({*labels}) < len(labels):
            raise ValueError("pid_label, host_label and start_label are one label; each has a value of its own")
        for label in (*labels, self.session_label or ""):
            if is_catch_all_label(label):
                raise ValueError(f"{label!r} is a label that tools set on all that they make; name one that the runner sets")
        if self.presets and not self.processes:
            raise ValueError("presets goes with processes only: labels say themselves what they are on")
        for glob in self.processes:
            if is_catch_all(glob):
                raise ValueError(f'{glob!r} would match nearly every process; write for example "*/bin/harbor [!v]*"')
        return self

    def rule(self, number: int) -> OwnerRule:
        """The rule as the sweep reads it. ``number`` is its place in the file, for one without a name."""
        return OwnerRule(
            name=self.name or f"owner-{number}",
            endpoints=frozenset(self.endpoints),
            pid_label=self.pid_label or "",
            host_label=self.host_label or "",
            start_label=self.start_label or "",
            session_label=self.session_label or "",
            presets=frozenset(self.presets),
            processes=self.processes,
        )


def check_owners(owners: Iterable[OwnerTable], presets: Collection[str], addresses: Mapping[str, str]) -> None:
    """Raise ValueError for a table that names what there is not, or where nothing could be proven.

    Args:
        owners: the tables.
        presets: those of [scope].
        addresses: of the configured endpoints, by name.
    """
    for owner in owners:
        for preset in owner.presets:
            if preset not in presets:
                raise ValueError(f"[[owner]] names the preset {preset!r}, which [scope] presets does not have")
        for endpoint in owner.endpoints if addresses else ():
            if endpoint not in addresses:
                hint = did_you_mean(endpoint, addresses)
                raise ValueError(f"[[owner]] names the endpoint {endpoint!r}, which is not configured; {hint}")
            if not addresses[endpoint].startswith("unix:"):
                why = "which other hosts may use, too: it is for engines on a unix socket of this host"
                raise ValueError(f"[[owner]] names the endpoint {endpoint!r}, {why}")
