"""TCP ports for programs that cannot be told to take any."""

import socket


def free_port() -> int:
    """A port of the loopback that is free at this moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
