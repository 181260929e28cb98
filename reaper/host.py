"""Identity of this machine, and of this boot of it."""

import hashlib
import os
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id", "/sys/class/dmi/id/product_uuid")
BOOT_ID = "/proc/sys/kernel/random/boot_id"


FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""The inode of the PID namespace that the kernel starts with (PROC_PID_INIT_INO in its sources)."""


def machine_id() -> str:
    """A hash of this machine's id, which machine-id(5) requires to be kept confidential; empty where it has none.

    A container has its own, if any: give it the host's with ``--volume /etc/machine-id:/etc/machine-id:ro``.
    """
    return machine_id_in(FIRST_PID_NAMESPACE)


@cache
def machine_id_in(pid_namespace: int) -> str:
    """The same, and another one for each PID namespace but the first: a process id means another process in each."""
    found = next((text for file in _MACHINE_IDS if (text := _read(file)) and text != "uninitialized"), None)
    inner = "" if pid_namespace == FIRST_PID_NAMESPACE else str(pid_namespace)
    return "" if found is None else hashlib.sha256(f"reaper {found}{inner}".encode()).hexdigest()[:32]


@cache
def boot_id() -> str:
    """What the running kernel calls this boot; the same in all containers and nowhere else. Empty where it has none."""
    return _read(BOOT_ID)


def booted_at() -> datetime:
    """When this machine was started, on the clock as it is set now (aware UTC)."""
    return datetime.fromtimestamp(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME), UTC)


def here() -> str:
    """This machine, for an address that means another engine on each: its id, else its name."""
    return machine_id() or os.uname().nodename


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
