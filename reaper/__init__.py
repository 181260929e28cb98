"""reaper: delete the Docker containers and cloud sandboxes that benchmark runs leave behind.

The package is imported by every command, so nothing heavier than the version stands here: the library, which Python programs
import from here, is loaded name by name when it is first used.
"""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reaper.library.cleanup_scope import CleanupFailures, CleanupScope
    from reaper.library.creation import sandbox
    from reaper.library.daytona import AsyncDaytonaCleanupManager, DaytonaCleanupManager
    from reaper.library.docker import AsyncDockerCleanupManager, DockerCleanupManager
    from reaper.library.errors import CleanupError, RetryableCleanupError, WrongLoopError
    from reaper.library.lease import lease
    from reaper.library.lease_client import LeaseRefusedError
    from reaper.library.managed import managed_daytona_sandbox, managed_docker_container
    from reaper.library.owner import owner_label

__all__ = [
    "AsyncDaytonaCleanupManager",
    "AsyncDockerCleanupManager",
    "CleanupError",
    "CleanupFailures",
    "CleanupScope",
    "DaytonaCleanupManager",
    "DockerCleanupManager",
    "LeaseRefusedError",
    "RetryableCleanupError",
    "WrongLoopError",
    "__version__",
    "lease",
    "managed_daytona_sandbox",
    "managed_docker_container",
    "owner_label",
    "sandbox",
]

__version__ = "0.1.0"


def unsupported() -> str:
    """Why this program cannot run here; empty where it can."""
    here: str = sys.platform  # a type checker takes it for the system that it runs on
    if here == "linux":
        return ""
    return (
        f"reaper runs on Linux, and this is {here}: its journal and leases rest on what that kernel tells of "
        "processes and locks. Where the engine runs in a virtual machine, run reaper's image on it (deploy/README.md)"
    )


_HOMES = {
    "AsyncDaytonaCleanupManager": "reaper.library.daytona",
    "AsyncDockerCleanupManager": "reaper.library.docker",
    "DaytonaCleanupManager": "reaper.library.daytona",
    "DockerCleanupManager": "reaper.library.docker",
    "CleanupError": "reaper.library.errors",
    "CleanupFailures": "reaper.library.cleanup_scope",
    "CleanupScope": "reaper.library.cleanup_scope",
    "LeaseRefusedError": "reaper.library.lease_client",
    "RetryableCleanupError": "reaper.library.errors",
    "WrongLoopError": "reaper.library.errors",
    "lease": "reaper.library.lease",
    "managed_daytona_sandbox": "reaper.library.managed",
    "managed_docker_container": "reaper.library.managed",
    "owner_label": "reaper.library.owner",
    "sandbox": "reaper.library.creation",
}


if not TYPE_CHECKING:  # or no misspelt name would be found

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if why := unsupported():
            raise ImportError(why)
        from importlib import import_module  # noqa: PLC0415 - not for those who only ask for the version

        return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
