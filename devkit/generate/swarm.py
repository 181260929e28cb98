"""The socket proxy's rules for a Swarm, where it listens on a socket of its node and outlives the reaper that it serves."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from devkit.generate import proxy

SOCKET = "/run/docker-proxy/docker.sock"
"""Where it listens: in the volume that both have."""

GRACE = timedelta(seconds=30)
"""For so long it goes on as if nothing was when it is told to end: the grace period of reaper, which is told so too."""

HARD_STOP = timedelta(seconds=5)
"""What is under way after that gets so long."""


def config() -> str:
    """The file for HAProxy."""
    stop = [f"grace {GRACE.seconds}s", f"hard-stop-after {HARD_STOP.seconds}s"]
    return proxy.config(bind=f"unix@{SOCKET} mode 660", settings=stop)


FILES: Mapping[Path, Callable[[], str]] = {Path("deploy/swarm/haproxy.cfg"): config}
