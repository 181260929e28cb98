"""The rules of Daytona's server as data: its refusals, where states lead, and how fast."""

from dataclasses import dataclass

Range = tuple[float, float]

IN_PROGRESS = "Sandbox state change in progress"
MODIFIED = "Sandbox was modified by another operation"
FORKED = "Cannot delete sandbox which has active fork children. The forks must be deleted first."
NOT_STOPPABLE = "Sandbox is not in a stoppable state"
NOT_STOPPED = "Sandbox is not stopped"
EPHEMERAL = "Ephemeral sandboxes cannot be archived"
EPHEMERAL_GPU = "GPU sandboxes must remain ephemeral"
NEGATIVE = "Auto-stop interval must be non-negative"
ERRORED_STATE = "Sandbox is in an errored state"
LINKED_LASTS = "Linked sandboxes must be ephemeral (set autoDeleteInterval to 0)"
CHAINED = "is itself linked to another sandbox; chained links are not allowed"
NOT_LINKABLE = "Linked sandbox must be in STARTED or STOPPED state with an assigned runner"


# Where a state of transition leads without another request: the next state, and the range of `Behaviour`.
GOES_ON = {
    "creating": ("started", "start"),
    "restoring": ("started", "start"),
    "starting": ("started", "start"),
    "resuming": ("started", "start"),
    "pulling_snapshot": ("started", "start"),
    "building_snapshot": ("started", "start"),
    "pending_build": ("building_snapshot", "start"),
    "resizing": ("started", "start"),
    "snapshotting": ("started", "start"),
    "forking": ("started", "start"),
    "stopping": ("stopped", "stop"),
    "pausing": ("paused", "stop"),
    "archiving": ("archived", "archive"),
    "destroying": ("destroyed", "destroy"),
}
SETTLED = frozenset({"started", "stopped", "paused", "archived"})
FORGOTTEN = {
    "error": 7 * 24 * 60,
    "build_failed": 24 * 60,
}  # minutes for which one that is deleted is kept, undestroyed
USES_ARE_ONE = 45  # seconds after a use was noted in which no other one is
DESIRED = {
    "stopped": "stopped",
    "stopping": "stopped",
    "paused": "paused",
    "pausing": "paused",
    "archived": "archived",
    "archiving": "archived",
    "destroying": "destroyed",
    "destroyed": "destroyed",
    "resizing": "resized",
}


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of the program
    """An answer other than 200: its status and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How the server behaves; ranges are in seconds, and which value of the range a sandbox meets depends on the seed.

    Args:
        pickup: until a desired state reaches the stored one; meanwhile the list's filters see the old one.
        destroy: until a deleted one is gone, pickup included. (0, 0) destroys at once.
        start, stop, archive: likewise.
        activity: until the use of a sandbox shows as lastActivityAt.
        get_cache: for how long GET by id may show what was true.
        list_lag: for how long an old copy of the list may show what was true.
        list_flap: at what share of the requests that old copy answers.
        race: real seconds between the server's reading and its writing of a row, in which another request may win.
    """

    pickup: Range = (0.2, 2.0)
    destroy: Range = (1.0, 16.0)
    start: Range = (1.0, 4.0)
    stop: Range = (1.0, 6.0)
    archive: Range = (5.0, 30.0)
    activity: Range = (10.0, 15.0)
    get_cache: float = 10.0
    list_lag: float = 1.5
    list_flap: float = 0.5
    race: float = 0.003
