"""Where the configuration and the state stand, and where the service listens.

``probe`` runs every few seconds for the life of a container, so nothing is imported here.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CANDIDATES = ("reaper.toml", "/etc/reaper/reaper.toml")
"""Where the file is looked for when none was named."""

LISTEN = "127.0.0.1:9797"
"""Where the service listens by default."""

RYUK_LISTEN = "127.0.0.1:8080"
"""Where it would speak the Ryuk protocol: the port that the original has."""

NOWHERE = "none"
"""The address of a service that serves nothing."""

SOCKET, SHARED_RUNTIME = "reaper.sock", "/run/reaper"
"""The service's local socket, and where that of the whole machine is."""

URL = "REAPER_URL"
"""The variable that says where the service is."""

TOKEN = "REAPER_TOKEN"  # noqa: S105 - the name of a variable
"""The variable that has the service's token."""


def header_token(text: str | None) -> str | None:
    """The token without the line break that ends a file, or None. Raises ValueError, which does not repeat it."""
    token = (text or "").strip()
    if not token.isascii() or not token.isprintable():
        raise ValueError("the service's token has a line break or another character that no header takes")
    return token or None


LONGEST_PATH = 107
"""Bytes of a socket's path: the kernel takes no more."""


def is_there(path: str) -> bool:
    """Whether there is such a file. One that cannot be read is there too: its author did not mean the defaults."""
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


def state_directory(env: "Mapping[str, str]") -> str:
    """Where this program keeps what it must remember. It may not exist yet."""
    if given := env.get("STATE_DIRECTORY"):
        return given.split(":")[0]  # systemd lists several with colons
    if os.geteuid() == 0:
        return "/var/lib/reaper"
    base = env.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 - pathlib is not imported here
    return f"{base}/reaper"


def sockets_to_listen_on(env: "Mapping[str, str]") -> tuple[str, ...]:
    """Where the service listens for this machine's users by default: the first of these that can be made.

    Only users who can enter the directory can connect: into the user's own, and the state directory, that is one user.
    """
    if given := env.get("RUNTIME_DIRECTORY"):  # systemd's
        runtime = given.split(":")[0]
    elif os.geteuid() == 0:
        runtime = SHARED_RUNTIME
    else:
        runtime = _users_runtime(env)
    state = state_directory(env)
    return tuple(f"{folder}/{SOCKET}" for folder in dict.fromkeys((runtime, state)) if folder)


def sockets_to_ask(env: "Mapping[str, str]") -> tuple[str, ...]:
    """Where a client looks for the service, in this order. There may be nothing, or one of a service that is dead."""
    if (given := env.get(URL, "")).startswith("unix://"):
        return (given.removeprefix("unix://"),)
    folders = (_users_runtime(env), SHARED_RUNTIME, state_directory(env))
    return tuple(f"{folder}/{SOCKET}" for folder in folders if folder)


def _users_runtime(env: "Mapping[str, str]") -> str:
    base = env.get("XDG_RUNTIME_DIR")
    return f"{base}/reaper" if base else ""
