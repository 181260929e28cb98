"""What endpoints hold, in the endpoints' own terms: plain data for the oracle and the servers of the tests.

Nothing here, in ``oracle``, ``worlds`` and ``servers`` imports anything of the program: a field that the program forgets
cannot be forgotten here by way of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
BOOTED, REUSED = timedelta(hours=5), timedelta(hours=2)
"""Before NOW this host was started, and the number of a process that had ended was used by another one."""
_HOST, _BOOT, _LAST_BOOT = "a" * 32, "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
LIVING, OF_REUSED, OF_LAST_BOOT = f"{_HOST}/{_BOOT}/101/1000", f"{_HOST}/{_BOOT}/102/1000", f"{_HOST}/{_LAST_BOOT}/77/5"
UNPROVEN = (f"{'b' * 32}/{_LAST_BOOT}/77/5", f"{'c' * 32}/{_BOOT}/77/5", f"{_HOST}/{_BOOT}/103/1000", "77")
"""Labels reaper.owner of another host, of another PID namespace, of what /proc hides, and of nothing."""
ENDPOINT, ORGANISATION = "local", "rl-org"

PROJECT = "com.docker.compose.project"
WORKING_DIR = "com.docker.compose.project.working_dir"
CONFIG_FILES = "com.docker.compose.project.config_files"
NUMBER = "com.docker.compose.container-number"
ONEOFF = "com.docker.compose.oneoff"
SESSION = "harbor.session_id"
INSTANCE = "harbor.instance_id"


@dataclass(frozen=True)
class Image:
    """An image of the engine; ``missing``: the engine knows it no more, as after a removal by force.

    Args:
        tagged: when it was last built or tagged, where that is not when it was created.
    """

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    created: datetime
    missing: bool = False
    tagged: datetime | None = None


@dataclass(frozen=True)
class Container:
    """A container. ``labels`` are those that the engine shows: the image's, and over them those that its creator gave.

    Args:
        image: the reference as its creator wrote it.
        exit_code: what the engine says; it says 0 of what runs, and nothing where it is None.
        network_mode: as in HostConfig; likewise ``pid_mode``, ``ipc_mode``, ``cgroup_parent``, ``links``, ``volumes_from``.
        pod: the id of the pod that it is in.
        auto_remove: whether a stop destroys it (``docker run --rm``).
        networks: names of networks that it is attached to. The engine gives their ids once it has been started.
        odd: values of the listing's row and of the inspection that are not what an engine gives: by a path in its JSON.
    """

    id: str
    name: str
    image: str
    image_id: str
    labels: Mapping[str, str] | None
    state: str
    created: datetime | None
    started: datetime | None = None
    finished: datetime | None = None
    exit_code: int | None = 0
    restart: str | None = "no"
    network_mode: str = "default"
    pid_mode: str = ""
    ipc_mode: str = "private"
    cgroup_parent: str = ""
    links: tuple[str, ...] = ()
    volumes_from: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    pod: str | None = None
    auto_remove: bool = False
    odd: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Pod:
    """A pod of Podman: what is in it says so. ``infra`` is the id of its infra container, if it has one."""

    id: str
    name: str
    labels: Mapping[str, str] | None
    created: datetime | None
    infra: str | None = None


@dataclass(frozen=True)
class Network:
    """A network that was created: those that every engine has are not here."""

    id: str
    name: str
    labels: Mapping[str, str] | None
    created: datetime | None
    scope: str = "local"


@dataclass(frozen=True)
class Volume:
    """A named volume."""

    name: str
    labels: Mapping[str, str] | None
    created: datetime | None


@dataclass(frozen=True)
class Sandbox:
    """A sandbox of Daytona's.

    Args:
        linked: the id of its owner; only GET by id shows it.
        wanted: its desired state, where that is not its state.
        auto_stop: minutes without activity after which the platform stops it; 0 never, None is not in the answer.
        auto_delete: minutes after its stop until the platform deletes it; 0 with its stop, negative never.
        cpu: how many it has; ``memory`` and ``disk`` are in GiB. None is not in the answer.
        odd: values of its JSON that are not what the platform gives.
    """

    id: str
    name: str
    labels: Mapping[str, str] | None
    state: str
    created: datetime | None
    updated: datetime | None = None
    active: datetime | None = None
    wanted: str | None = None
    target: str = "us"
    runner: str | None = "runner-1"
    linked: str | None = None
    warm: bool = False
    auto_stop: int | None = 0
    auto_delete: int = -1
    cpu: float | None = None
    memory: float | None = None
    disk: float | None = None
    odd: Mapping[str, object] = field(default_factory=dict)

    @property
    def last(self) -> datetime | None:
        """When it last did or was anything: of one that has failed also the last write, as of an order to recover it."""
        known = [self.created, self.active or self.updated]
        if self.state in ("error", "build_failed"):
            known.append(self.updated)
        return max((time for time in known if time is not None), default=None)


Thing = Container | Network | Pod | Volume | Image | Sandbox


def key(thing: Thing) -> str:
    """What it is called in the answers: its id, and of a volume, whose id is its name, more."""
    return f"volume {thing.name}" if isinstance(thing, Volume) else thing.id


@dataclass(frozen=True)
class Claim:
    """What a run says to be its own: labels and the fields ANDed, the others ORed."""

    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lease:
    """A lease.

    Args:
        ended: when its holder was found dead.
        heard: the holder's last sign of life, where it had been dead for a while by then.
        elsewhere: it was granted for another endpoint than the one of this world.
    """

    id: str
    since: datetime
    ended: datetime | None = None
    heard: datetime | None = None
    claims: tuple[Claim, ...] = ()
    resources: frozenset[str] = frozenset()
    elsewhere: bool = False


@dataclass(frozen=True)
class Policy:
    """A policy as the file has it, its durations as such, its ``window`` in UTC. ``everything`` is all = true."""

    name: str
    kinds: tuple[str, ...] = ("container",)
    action: str = "delete"
    orphaned_for: timedelta | None = None
    older_than: timedelta | None = None
    stopped_for: timedelta | None = None
    idle_for: timedelta | None = None
    keepalive: bool = False
    states: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    exit_codes: tuple[str | int, ...] = ()
    exclude_labels: tuple[str, ...] = ()
    exclude_names: tuple[str, ...] = ()
    exclude_images: tuple[str, ...] = ()
    exclusive: bool = False
    everything: bool = False
    window: tuple[str, str] | None = None
    unused_for: timedelta | None = None
    with_project: tuple[str, ...] = ("network",)
    only_under_pressure: bool = False
    oneoff: bool = False
    untagged: bool = False
    endpoints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quota:
    """How much may be there at once, together or for each value of a label.

    Args:
        most: by measure: "count", "cpu", "memory" and "disk" (GiB).
    """

    name: str
    kinds: tuple[str, ...]
    most: Mapping[str, int]
    label: str | None = None
    enforce: bool = True
    idle_for: timedelta = timedelta(hours=8)


@dataclass(frozen=True)
class Config:
    """What the operator has configured, and asked for: ``everything_goes`` is --all.

    Args:
        runners: globs of command lines: what presets own belongs to such processes ([[owner]]).
        safety_net: the platform's own timers are set for sandboxes that have them off.
    """

    presets: tuple[str, ...] = ("terminal-bench", "harbor")
    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    everything: bool = False
    image_labels: bool = False
    protect_labels: tuple[str, ...] = ("reaper.keep",)
    protect_names: tuple[str, ...] = ()
    protect_images: tuple[str, ...] = ()
    restart_policies: tuple[str, ...] = ("always", "unless-stopped")
    policies: tuple[Policy, ...] = ()
    everything_goes: bool = False
    target: str | None = None
    runners: tuple[str, ...] = ()
    safety_net: bool = False
    quotas: tuple[Quota, ...] = ()


@dataclass(frozen=True)
class World:
    """One engine, one organisation, the leases that are known, and what is asked for.

    Args:
        skew: the engine's clock minus this host's; all times here are of the engine's clock.
        podman: whether the engine is Podman: its listing has no HostConfig.
        remembered: the ids of members of projects that an earlier sweep may have known to be owned.
        begun: the ids of networks whose project an earlier sweep has begun to reap.
        dead: by the value of a label ``reaper.owner``, since when its process is dead, where this host can prove that.
        runners: of each process that ``Config.runners`` match when it began and when it ended; None where other hosts
            use the endpoint as well, so that nothing is known of them.
        used: by the key of a network, a volume or an image, when a container was last seen to have it.
        seen: likewise, when the program was first shown it.
        called: the tags that an image had last, by its id.
        exceeded: of which quotas, and values of their labels, more was there since the sweep began.
        steady: since when the program has watched without a gap, where that is sure.
        pressed: whether its disk is too full.
    """

    config: Config
    images: tuple[Image, ...] = ()
    containers: tuple[Container, ...] = ()
    networks: tuple[Network, ...] = ()
    pods: tuple[Pod, ...] = ()
    volumes: tuple[Volume, ...] = ()
    sandboxes: tuple[Sandbox, ...] = ()
    leases: tuple[Lease, ...] = ()
    skew: timedelta = timedelta(0)
    podman: bool = False
    now: datetime = NOW
    remembered: frozenset[str] = frozenset()
    begun: frozenset[str] = frozenset()
    dead: Mapping[str, datetime] = field(default_factory=dict)
    runners: tuple[tuple[datetime, datetime | None], ...] | None = None
    used: Mapping[str, datetime] = field(default_factory=dict)
    seen: Mapping[str, datetime] = field(default_factory=dict)
    called: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exceeded: frozenset[tuple[str, str]] = frozenset()
    steady: datetime | None = None
    pressed: bool = False
