"""The providers' raw states, mapped onto the normalised ones. Whatever is missing here is unknown, and kept."""

from collections.abc import Mapping

from reaper.core.model import State

DOCKER: Mapping[str, State] = {
    "created": State.STOPPED,
    "exited": State.STOPPED,
    "running": State.RUNNING,
    "paused": State.RUNNING,
    "restarting": State.RUNNING,
    "removing": State.CHANGING,
    "dead": State.FAILED,
    "stopped": State.STOPPED,  # this and the next are Podman's: its process has ended, and it is not cleaned up yet
    "stopping": State.CHANGING,
}

DAYTONA: Mapping[str, State] = {
    "started": State.RUNNING,
    "stopped": State.STOPPED,
    "paused": State.STOPPED,
    "archived": State.STOPPED,
    "error": State.FAILED,
    "build_failed": State.FAILED,
    "unknown": State.UNKNOWN,
    **dict.fromkeys(
        (
            "creating",
            "restoring",
            "destroyed",
            "destroying",
            "starting",
            "stopping",
            "pending_build",
            "building_snapshot",
            "pulling_snapshot",
            "archiving",
            "resizing",
            "snapshotting",
            "forking",
            "pausing",
            "resuming",
        ),
        State.CHANGING,
    ),
}

NAMES = frozenset(State) | DOCKER.keys() | DAYTONA.keys()
