"""Where the configuration stands and where the service listens: what the health check has to know of both.

``probe`` runs every few seconds for the life of a container, so nothing is imported here.
"""

import os

CANDIDATES = ("reaper.toml", "/etc/reaper/reaper.toml")
"""Where the file is looked for that nobody named."""

LISTEN = "127.0.0.1:9797"
"""Where the service listens unless it is told otherwise."""

RYUK_LISTEN = "127.0.0.1:8080"
"""Where it would speak the Ryuk protocol: the port that the original has."""

NOWHERE = "none"
"""The address of a service that serves nothing."""


def is_there(path: str) -> bool:
    """Whether there is such a file. One that cannot be read is there too: nobody means the defaults who wrote it."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def host_and_port(listen: str) -> tuple[str, int] | None:
    """The parts of "HOST:PORT" or "[HOST]:PORT"; None for "none". Raises ValueError for what is no address."""
    if listen == NOWHERE:
        return None
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)
