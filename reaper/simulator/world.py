"""What a simulated world holds: believable leftovers of benchmark runs, living trials and bystanders, by seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

ABSENT: Final = object()
"""The value of a field that the JSON does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """A container as the Docker half shall hold it. All times are aware UTC.

    Args:
        state: Docker's own word: created, running, paused, restarting, exited, dead.
        started: the last start; None when it never started.
        finished: the last end; None while it runs.
        networks: names of the networks that it is attached to; each is in the world, or is `bridge`, `host` or `none`.
        restart_policy: no, always, unless-stopped or on-failure.
    """

    name: str
    image: str
    labels: Mapping[str, str]
    state: str
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    exit_code: int = 0
    networks: tuple[str, ...] = ("bridge",)
    restart_policy: str = "no"
    command: tuple[str, ...] = ("sleep", "infinity")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A network as the Docker half shall hold it."""

    name: str
    created: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = "bridge"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """A Daytona sandbox as the simulator shall hold it. All times are aware UTC.

    Args:
        id: made up when empty.
        name: the id when empty, as the real server does.
        state: the stored one. A state of transition goes on from here, unless `stuck`.
        desired: what belongs to the state when empty.
        created: now when None.
        updated: as `active` when None.
        active: lastActivityAt; as `created` when None.
        no_activity: the row has no activity at all: lastActivityAt is null.
        labels: None makes the odd row whose labels are null.
        auto_stop: minutes without activity; 0 never.
        auto_archive: minutes stopped.
        auto_delete: minutes stopped; negative never, 0 as soon as it is stopped (an ephemeral sandbox).
        destroy_at: when its time to live ends (newer servers).
        warm_pool: id of the pool in which it waits to be claimed.
        parent: id of the sandbox that it is a fork of.
        linked: id of the sandbox that it is linked to, and goes with.
        stuck: its transition never ends.
        runner_dead: nothing that its host should do is ever done.
        inconsistent: deleting it is an error 500.
        destroy_fails: its deletion is accepted and ends in an error that no answer shows.
        extra: JSON fields that replace or, as ABSENT, remove what it would have.
    """

    id: str = ""
    name: str = ""
    state: str = "started"
    desired: str = ""
    created: datetime | None = None
    updated: datetime | None = None
    active: datetime | None = None
    no_activity: bool = False
    labels: Mapping[str, str] | None = field(default_factory=dict)
    target: str = "us"
    runner: str = ""
    snapshot: str | None = "daytonaio/sandbox:0.5.0-slim"
    public: bool = False
    cpu: int = 1
    gpu: int = 0
    memory: int = 1
    disk: int = 3
    error_reason: str | None = None
    recoverable: bool = False
    auto_stop: int = 0
    auto_archive: int = 10080
    auto_delete: int = -1
    destroy_at: datetime | None = None
    warm_pool: str | None = None
    parent: str | None = None
    linked: str | None = None
    stuck: bool = False
    runner_dead: bool = False
    inconsistent: bool = False
    destroy_fails: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
