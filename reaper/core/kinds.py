"""The kinds of resources, the states that they are in, what is done with them and what comes of that. Pure."""

from enum import StrEnum

from reaper.core.wording import plural


class Kind(StrEnum):
    """What sort of thing a resource is."""

    CONTAINER = "container"
    SANDBOX = "sandbox"
    POD = "pod"
    NETWORK = "network"
    VOLUME = "volume"
    IMAGE = "image"
    BUILD_CACHE = "build-cache"

    @property
    def runs(self) -> bool:
        """Whether it can have processes: then it decides for its group. The others follow."""
        return self in _RUN

    @property
    def joined(self) -> bool:
        """Whether containers join it, and it goes with the last of them: a network, or a pod of Podman."""
        return self in _JOINED

    @property
    def opt_in(self) -> bool:
        """Whether no sweep looks at it unless a lease, or a policy that names its kind, asks for it."""
        return self in _OPT_IN

    @property
    def plural(self) -> str:
        """What people call several of it."""
        return plural(self.value)

    @property
    def article(self) -> str:
        """It with its indefinite article."""
        return f"an {self.value}" if self is Kind.IMAGE else f"a {self.value}"

    @property
    def stage(self) -> int:
        """Its place in the order of deletion: what uses something goes before it."""
        return _STAGES[self]


_RUN = frozenset({Kind.CONTAINER, Kind.SANDBOX})
_JOINED = frozenset({Kind.POD, Kind.NETWORK})
_OPT_IN = frozenset({Kind.VOLUME, Kind.IMAGE, Kind.BUILD_CACHE})
_STAGES = {
    Kind.CONTAINER: 0,
    Kind.SANDBOX: 0,
    Kind.POD: 1,
    Kind.NETWORK: 2,
    Kind.VOLUME: 3,
    Kind.IMAGE: 4,
    Kind.BUILD_CACHE: 5,
}


class Action(StrEnum):
    """What is done with a resource that a policy matches."""

    DELETE = "delete"
    STOP = "stop"
    ARCHIVE = "archive"
    SET_TIMER = "set_timer"
    """The platform's own timer is set, for what is kept: no policy's action."""

    @property
    def strength(self) -> int:
        """How much it takes away: of several that are allowed the strongest is done, and a group gets the weakest."""
        return _STRENGTHS[self]

    @property
    def done(self) -> str:
        """What has become of the resource then."""
        return _DONE[self]


_STRENGTHS = {Action.SET_TIMER: 0, Action.STOP: 1, Action.ARCHIVE: 2, Action.DELETE: 3}
_DONE = {Action.SET_TIMER: "given a timer", Action.STOP: "stopped", Action.ARCHIVE: "archived", Action.DELETE: "deleted"}


class State(StrEnum):
    """The providers' raw states, mapped onto what the policies need to know."""

    RUNNING = "running"
    STOPPED = "stopped"
    CHANGING = "changing"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """What came of a decision to act."""

    DELETED = "deleted"
    GONE = "gone"
    STOPPED = "stopped"
    ARCHIVED = "archived"
    TIMER_SET = "timer_set"
    FAILED = "failed"
    SKIPPED = "skipped"
    WOULD_DELETE = "would_delete"
    ABANDONED = "abandoned"

    @property
    def removed(self) -> bool:
        """Whether what was to go is not there any more, removed by this program or by another client."""
        return self in (Outcome.DELETED, Outcome.GONE)
