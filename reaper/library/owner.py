"""The label that names the process to which a container or a sandbox belongs."""

import os

from reaper.core.owner_process import OWNER_LABEL
from reaper.sweep.processes import label_of


def owner_label(pid: int | None = None) -> str:
    """Return ``reaper.owner=...``, for ``docker run --label``: what carries it is orphaned when that process is dead.

    Args:
        pid: the process, in this process's PID namespace; this process when None.

    Raises ProcessLookupError when there is no such process, and OSError where the label would prove nothing: the host has no
    machine id, or /proc cannot be read.
    """
    return f"{OWNER_LABEL}={label_of(os.getpid() if pid is None else pid)}"
