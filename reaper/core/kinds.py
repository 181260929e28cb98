"""The kinds of resources and the states that they are in. Pure."""

from enum import StrEnum


class Kind(StrEnum):
    """What sort of thing a resource is."""

    CONTAINER = "container"
    SANDBOX = "sandbox"
    NETWORK = "network"
    VOLUME = "volume"
    IMAGE = "image"
    BUILD_CACHE = "build-cache"

    @property
    def runs(self) -> bool:
        """Whether it can have processes: then it decides for its group. The others follow."""
        return self in _RUN

    @property
    def opt_in(self) -> bool:
        """Whether no sweep looks at it unless a lease, or a policy that names its kind, asks for it."""
        return self in _OPT_IN

    @property
    def plural(self) -> str:
        """What people call several of it."""
        return f"{self.value}es" if self.value.endswith("x") else f"{self.value}s"

    @property
    def stage(self) -> int:
        """Its place in the order of deletion: what uses something goes before it."""
        return _STAGES[self]


_RUN = frozenset({Kind.CONTAINER, Kind.SANDBOX})
_OPT_IN = frozenset({Kind.VOLUME, Kind.IMAGE, Kind.BUILD_CACHE})
_STAGES = {Kind.CONTAINER: 0, Kind.SANDBOX: 0, Kind.NETWORK: 1, Kind.VOLUME: 2, Kind.IMAGE: 3, Kind.BUILD_CACHE: 4}


class State(StrEnum):
    """The providers' raw states, mapped onto what the policies need to know."""

    RUNNING = "running"
    STOPPED = "stopped"
    CHANGING = "changing"
    FAILED = "failed"
    UNKNOWN = "unknown"
