"""What the raw states of a sandbox mean. Whatever is missing here is unknown, and kept."""

from collections.abc import Mapping

from reaper.core.model import State

STATES: Mapping[str, State] = {
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
