"""A Daytona sandbox as the server stores it, and as its API shows it."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from reaper.simulator.world import ABSENT

STATES = frozenset(
    {
        "creating", "restoring", "destroyed", "destroying", "started", "stopped", "starting", "stopping", "error",
        "build_failed", "pending_build", "building_snapshot", "unknown", "pulling_snapshot", "archived", "archiving",
        "resizing", "snapshotting", "forking", "pausing", "paused", "resuming",
    }
)  # fmt: skip
ERRORED = frozenset({"error", "build_failed"})
# What DELETE takes, and how it ends: at once, or after a while. Every other state is a change in progress.
DELETED_AT_ONCE = frozenset({"archived", "pending_build"})
DELETED_SLOWLY = frozenset({"started", "stopped", "paused", "archiving"})
# What the server shows for a stored state when another one is wanted. The filters of the list know nothing of it. Any other
# stored state is shown as it is, whatever is wanted: what is paused or archiving and to be destroyed, for example.
_SHOWN = {
    ("started", "stopped"): "stopping",
    ("started", "destroyed"): "destroying",
    ("stopped", "started"): "starting",
    ("stopped", "destroyed"): "destroying",
    ("stopped", "archived"): "archiving",
    ("unknown", "started"): "creating",
}
_SHOWN_IN_LISTS = {**_SHOWN, ("archived", "started"): "restoring"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(at: datetime) -> int:
    """Microseconds since 1970: PostgreSQL keeps that much, though the JSON shows milliseconds."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment(us: int) -> datetime:
    """The aware UTC time of `micros`."""
    return _EPOCH + timedelta(microseconds=us)


def stamp(us: int) -> str:
    """ISO-8601 in UTC with milliseconds and Z, cut off and not rounded, as JavaScript writes a Date."""
    return moment(us).strftime("%Y-%m-%dT%H:%M:%S") + f".{us // 1000 % 1000:03d}Z"


@dataclass(slots=True, kw_only=True)
class Sandbox:
    """A row of the server's table. Times are microseconds since 1970.

    Args:
        desired: what the server works towards; "destroyed" from the moment that a deletion is accepted.
        active: lastActivityAt; None where the row of the activity table is missing.
        parent: id of the sandbox that this one is a fork of.
        linked: id of the sandbox that this one is linked to, and goes with.
        runner_dead: nothing that its host should do is ever done.
        used: when a use of it was last noted.
        inconsistent: deleting it is an error 500.
        destroy_fails: its deletion is accepted, and ends in an error that no answer shows.
        extra: fields that replace or, as ABSENT, remove what the JSON would have.
        version: counts the writes; a deletion that finds it changed has lost the race.
        step: counts the changes of plan, so that what was scheduled before them is void.
        item: what the list last showed of it, until the next write.
    """

    id: str
    organization_id: str
    name: str
    state: str
    desired: str
    created: int
    updated: int
    active: int | None
    labels: Mapping[str, str] | None
    target: str
    runner: str | None
    snapshot: str | None
    user: str = "daytona"
    public: bool = False
    cpu: int = 1
    gpu: int = 0
    memory: int = 1
    disk: int = 3
    sandbox_class: str = "container"
    error_reason: str | None = None
    recoverable: bool = False
    backup_state: str = "None"
    auto_stop: int = 0
    auto_archive: int = 10080
    auto_delete: int = -1
    destroy_at: int | None = None
    warm_pool: str | None = None
    parent: str | None = None
    linked: str | None = None
    runner_dead: bool = False
    used: int | None = None
    inconsistent: bool = False
    destroy_fails: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0
    step: int = 0
    item: bytes | None = None

    @property
    def shown(self) -> str:
        """The state that a list shows, derived from the stored one and the desired one."""
        return _SHOWN_IN_LISTS.get((self.state, self.desired), self.state)

    @property
    def shown_by_id(self) -> str:
        """The state that GET by id shows."""
        return _SHOWN.get((self.state, self.desired), self.state)

    @property
    def pending(self) -> bool:
        """Whether the server is bringing it into the desired state, and refuses what would change that.

        What has failed is not, nor what is to be archived.
        """
        return self.state != self.desired and self.state not in ERRORED and self.desired != "archived"

    @property
    def hidden(self) -> bool:
        """Whether it is 404 for every client: destroyed, or failed on the way there."""
        return self.state == "destroyed" or (self.state in ERRORED and self.desired == "destroyed")

    @property
    def ephemeral(self) -> bool:
        """Whether stopping it destroys it."""
        return self.auto_delete == 0

    def copy(self) -> "Sandbox":
        """The row as it is now."""
        return copy.copy(self)


def as_item(row: Sandbox, proxy_url: str, state: str = "") -> dict[str, Any]:
    """One item of the list, with the fields and the order of the real server; ``state`` in place of what a list shows."""
    shown: dict[str, Any] = {
        "id": row.id,
        "organizationId": row.organization_id,
        "name": row.name,
        "target": row.target,
        "runnerId": None if row.state == "archived" else row.runner,  # a restored one may get another
        "sandboxClass": row.sandbox_class,
        "state": state or row.shown,
        "desiredState": row.desired,
        "snapshot": row.snapshot,
        "user": row.user,
        "errorReason": row.error_reason,
        "recoverable": row.recoverable,
        "public": row.public,
        "cpu": row.cpu,
        "gpu": row.gpu,
        "memory": row.memory,
        "disk": row.disk,
        "labels": row.labels,
        "backupState": row.backup_state,
        "autoStopInterval": row.auto_stop,
        "autoArchiveInterval": row.auto_archive,
        "autoDeleteInterval": row.auto_delete,
        "createdAt": stamp(row.created),
        "updatedAt": stamp(row.updated),
        "lastActivityAt": None if row.active is None else stamp(row.active),
        "daemonVersion": None,
        "toolboxProxyUrl": proxy_url,
        "networkBlockAll": False,
        "spot": False,
        "autoPauseInterval": 0,
        "queueTimeout": None,
    }
    if row.destroy_at is not None:
        shown["autoDestroyAt"] = stamp(row.destroy_at)
    if row.warm_pool is not None:
        shown["warmPoolId"] = row.warm_pool
    for key, value in row.extra.items():
        if value is ABSENT:
            shown.pop(key, None)
        else:
            shown[key] = value
    return shown


def as_sandbox(row: Sandbox, proxy_url: str, *, by_id: bool = False) -> dict[str, Any]:
    """The whole object that GET, DELETE and the others answer; what it was built from only ``by_id``."""
    linked = {} if row.linked is None else {"linkedSandboxId": row.linked}
    built = (
        {"buildInfo": {"dockerfileContent": "FROM debian\nENV DB_PASSWORD hunter2hunter2\n"}}
        if by_id and row.snapshot is None
        else {}
    )
    return {"env": {}, "volumes": [], **as_item(row, proxy_url, row.shown_by_id), "kvm": False, **built, **linked}
