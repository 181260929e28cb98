"""What a simulated Docker engine holds: containers, networks, volumes and images, and how containers behave."""

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SIZE = 1_984_132  # of an image, by default


class RefusedError(Exception):
    """The engine's answer to a request that it does not grant.

    Args:
        status: of the HTTP answer.
        message: the engine's own words.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def signal_number(text: str) -> int:
    """The signal that `9`, `KILL` or `SIGKILL` names."""
    return int(text) if text.isdecimal() else int(getattr(signal, f"SIG{text.upper().removeprefix('SIG')}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the process in a container does, and how hard it is to remove. All times are simulated seconds.

    Args:
        runs: ends by itself after so long; None never.
        code: exit code of that end.
        obeys: ends when it is sent its stop signal. As process 1 most programs do not.
        stops_in: how long it takes to end then.
        stop_code: exit code of that end.
        removal: how long the removal of its files takes; its state is `removing` meanwhile.
        removal_failures: so many removals fail (500) and leave it `dead`.
        blocks: while its removal is under way no other request about it is answered, and the listing says `dead`: so do
            engines since Docker 26.
        lost: its layer is gone from the engine's disk: an inspection fails (500), a removal works.
        unnamed: its row in the listing has lost its Id, as a proxy before the engine may lose it.
        log: what each of its runs writes at its start, each entry as the number of the stream (1 or 2) and the bytes.
        oom: the kernel ends it for want of memory when it ends by itself.
    """

    runs: float | None = None
    code: int = 0
    obeys: bool = True
    stops_in: float = 0.0
    stop_code: int = 0
    removal: float = 0.0
    removal_failures: int = 0
    blocks: bool = False
    lost: bool = False
    unnamed: bool = False
    log: tuple[tuple[int, bytes], ...] = ()
    oom: bool = False


_SHELLS = ("sh", "bash", "ash", "dash")
_EXIT_TRAP = re.compile(r"trap\s+['\"]exit(?:\s+(\d+))?['\"]\s+(?:SIG)?TERM")
_NULL_TRAP = re.compile(r"trap\s+(?:''|\"\")\s+(?:SIG)?TERM")
_SLEEP = re.compile(r"\bsleep\s+(\d+(?:\.\d+)?)\b")
_EXIT = re.compile(r"(?:^|[;&|\s])exit\s+(\d+)\s*;?\s*$")
_ECHO = re.compile(r"(?:^|[;&\n])\s*echo\s+([\w .:=-]+?)\s*(>&2)?\s*(?=[;&\n]|$)")


def behaviour_of(argv: Sequence[str]) -> Behaviour:
    """What `argv` would do as process 1 of a container: the programs of tests and benchmarks; all others run and obey."""
    program = argv[0].rsplit("/", 1)[-1] if argv else ""
    match program:
        case "true":
            return Behaviour(runs=0)
        case "false":
            return Behaviour(runs=0, code=1)
        case "sleep":
            text = argv[1] if len(argv) > 1 else ""
            return Behaviour(runs=float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None, obeys=False)
        case "tail":
            return Behaviour(obeys=False)
        case _ if program in _SHELLS and len(argv) > 2 and argv[1] == "-c":
            return _script(argv[2])
        case _:
            return Behaviour()


def _script(text: str) -> Behaviour:
    trap = _EXIT_TRAP.search(text)
    lasts = any(word in text for word in ("while", "infinity", "wait", "tail -f"))
    runs = None if lasts else sum(float(seconds) for seconds in _SLEEP.findall(text))
    code = _EXIT.search(text)
    return Behaviour(
        runs=runs,
        code=int(code[1]) if code else 0,
        obeys=trap is not None and _NULL_TRAP.search(text) is None,
        stop_code=int(trap[1] or 0) if trap else 0,
        log=tuple((2 if error else 1, f"{words}\n".encode()) for words, error in _ECHO.findall(text)),
    )


@dataclass(slots=True)
class Endpoint:
    """A container's place in a network; `id` is empty while the container does not run."""

    network_id: str = ""
    id: str = ""
    gateway: str = ""
    address: str = ""
    prefix: int = 0
    mac: str = ""
    aliases: list[str] | None = None
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume, a directory of the host or a tmpfs in a container; `anonymous` volumes go with it when v=1."""

    kind: str
    name: str
    source: str
    destination: str
    mode: str = ""
    writable: bool = True
    anonymous: bool = False


@dataclass(slots=True)
class Removal:
    """A removal under way: whether the anonymous volumes go too, and how it ended."""

    volumes: bool
    over: bool = False
    error: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Container:
    """A container with the flags that the real engine keeps; times are nanoseconds of the engine's clock, 0 for never."""

    id: str
    name: str
    image: str
    image_id: str
    argv: tuple[str, ...]
    created: int
    labels: Mapping[str, str]
    config: Mapping[str, Any]
    host: Mapping[str, Any]
    network_mode: str
    networks: dict[str, Endpoint]
    mounts: tuple[Mount, ...]
    behaviour: Behaviour
    policy: str = ""
    retries: int = 0
    auto_remove: bool = False
    stop_signal: int = 15
    stop_timeout: int = 10

    running: bool = False
    paused: bool = False
    restarting: bool = False
    removing: bool = False
    dead: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started: int = 0
    finished: int = 0
    restart_count: int = 0

    manually_stopped: bool = False
    run: int = 0  # changes with each start and end: what was meant for an earlier run is void
    ends_at: float | None = None  # on the clock's scale: when the process ends by itself, or what is left while paused
    term_pending: bool = False
    stops: int = 0  # requests to stop that wait for the end
    delay: float = 0.0  # before the next restart
    oom_killed: bool = False
    log: list[tuple[int, bytes]] = field(default_factory=list)  # all that it has written, by stream
    failures: int = 0  # removals that have failed
    half_gone: bool = False  # a failed removal: the listing says `removing` for ever (the engine does not update it)
    removal: Removal | None = None
    head: bytes = b""  # of its row in the listing, up to the status text
    tail: bytes = b""
    status: bytes = b""
    status_from: int = 0
    status_until: int = 0

    @property
    def state(self) -> str:
        """The state as the inspection shows it."""
        if self.running:
            return "paused" if self.paused else "restarting" if self.restarting else "running"
        if self.removing:
            return "removing"
        if self.dead:
            return "dead"
        return "exited" if self.started else "created"

    @property
    def listed_state(self) -> str:
        """The state as the listing shows it."""
        if self.removing and self.behaviour.blocks:
            return "dead"
        return "removing" if self.half_gone and not self.running else self.state


@dataclass(slots=True, kw_only=True, eq=False)
class Network:
    """A network; `attached` holds the running containers by id.

    `stale` names a container that is gone and whose endpoint was left: the network cannot be deleted until that is
    disconnected by this name, with force. Its inspection shows it under `stale_key`; or nothing where that is empty, and it
    cannot be disconnected either.
    """

    id: str
    name: str
    created: int
    labels: Mapping[str, str]
    driver: str = "bridge"
    given: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    subnet: str = ""
    gateway: str = ""
    hosts: int = 1
    attached: dict[str, Container] = field(default_factory=dict)
    stale: str = ""
    stale_key: str = ""

    @property
    def predefined(self) -> bool:
        """One of the engine's own three."""
        return self.name in PREDEFINED

    @property
    def is_configuration(self) -> bool:
        """Whether it is but the configuration of others."""
        return bool(self.given.get("ConfigOnly"))

    @property
    def configuration(self) -> str:
        """The name of the network that its configuration is from; empty where it has its own."""
        return str((self.given.get("ConfigFrom") or {}).get("Network") or "")


PREDEFINED = ("none", "host", "bridge")


@dataclass(slots=True, kw_only=True, eq=False)
class Volume:
    """A volume; `users` are the ids of the containers that have it, running or not.

    `created` is what the engine returns as `CreatedAt`: before Docker 23 it moves when something comes into the volume's top
    folder. Nothing is ever written here, so it moves only where it is set.
    """

    name: str
    created: int
    labels: Mapping[str, str] | None
    options: Mapping[str, str] | None = None
    size: int = 0
    users: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True, eq=False)
class Image:
    """An image; `tags` are its references in short form, `below` the layers of what it was built on.

    `parent` is the id of the image that the classic builder made it of; BuildKit writes none.
    """

    id: str
    created: int
    tagged: int = 0
    size: int = SIZE
    layer: str = ""
    below: tuple[str, ...] = ()
    tags: list[str] = field(default_factory=list)
    labels: Mapping[str, str] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    comment: str = ""
    parent: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class CacheRecord:
    """One record of the build cache; times in ns of the engine's clock.

    `shared` ones have a layer that an image has, and go by no pruning without `all`.
    """

    id: str
    size: int
    created: int
    used: int
    in_use: bool = False
    shared: bool = False
