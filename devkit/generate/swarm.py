"""The socket proxy's rules for a Swarm, where it listens on a socket of its node and outlives the reaper that it serves."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from devkit.generate import proxy

SOCKET = "/run/docker-proxy/docker.sock"
"""Where it listens: in the volume that both have."""

GRACE = timedelta(seconds=30)
"""For so long it goes on as if nothing was when it is told to end: the grace period of reaper, which is told so too."""


def config() -> str:
    """The file for HAProxy."""
    return proxy.config(bind=f"unix@{SOCKET} mode 660", settings=[f"grace {GRACE.seconds}s"])


FILES: Mapping[Path, Callable[[], str]] = {Path("deploy/swarm/haproxy.cfg"): config}
