"""TCP ports for programs that cannot be told to take any."""

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port of the loopback that is free at this moment, below those that the kernel gives to connections meanwhile."""
    lowest = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32768
    choice = random.SystemRandom()  # processes that run side by side must not try the same
    while True:
        port = choice.randrange(10_000, max(lowest, 11_000))
        with socket.socket() as taken:
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
