"""Local unix sockets: who is at the other end, which the kernel says and nobody can forge, and where the service is."""

import getpass
import os
import pwd
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from reaper import alive, places
from reaper.places import URL

PATIENCE = 1.0  # seconds for a service of this machine to accept a connection
UNKNOWN_USER = 65534  # the kernel's word for it, and "nobody" as well
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that made a connection.

    Args:
        pid: its id; None when it lives in a namespace of process ids that this process does not see.
        uid: whose it is; UNKNOWN_USER for all whom this process's user namespace does not know.
        gid: its group.
    """

    pid: int | None
    uid: int
    gid: int

    @classmethod
    def of(cls, connection: socket.socket) -> "Peer":
        """Who made it. Raises OSError."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(raw)
        return cls(pid or None, uid, gid)

    def started(self) -> str | None:
        """When the process began, in the kernel's ticks since the machine did; None where this process may not see it."""
        return None if self.pid is None else alive.started(self.pid)


def user_name(uid: int) -> str:
    """What the user is called; the number where nobody knows."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def this_user() -> str:
    """What the user of this process is called."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.geteuid())


def uid_of(user: str) -> int:
    """The number of a user who is named, or given by his number already. Raises KeyError."""
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        if user.isascii() and user.isdigit():
            return int(user)
        raise KeyError(user) from None


def answers(path: str) -> bool:
    """Whether somebody listens on this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(path)
        except (BlockingIOError, TimeoutError):  # so many wait that it does not take more: it lives
            return True
        except (OSError, ValueError):
            return False
    return True


def service_url(env: Mapping[str, str] | None = None) -> str:
    """Where a client asks the service: $REAPER_URL, a local socket on which somebody listens, or its usual address."""
    env = os.environ if env is None else env
    if given := env.get(URL):
        return given
    found = next((path for path in places.sockets_to_ask(env) if answers(path)), None)
    return f"http://{places.LISTEN}" if found is None else f"unix://{found}"
