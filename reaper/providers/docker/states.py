"""What the raw states of a container mean. Whatever is missing here is unknown, and kept."""

from collections.abc import Mapping

from reaper.core.model import State

STATES: Mapping[str, State] = {
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
