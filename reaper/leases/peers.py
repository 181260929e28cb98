"""Local unix sockets: peer credentials, which come from the kernel and cannot be forged, and where the service is."""

import getpass
import os
import pwd
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from reaper import liveness, paths
from reaper.paths import URL

PATIENCE = 1.0  # seconds for a service of this machine to accept a connection
UNKNOWN_USER = 65534  # the kernel's overflow UID, which is the user "nobody" as well
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that made a connection.

    Args:
        pid: its id; None when it lives in a namespace of process ids that this process does not see.
        uid: whose it is; UNKNOWN_USER for all that are not mapped in this process's user namespace.
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
        return None if self.pid is None else liveness.started(self.pid)


def is_trusted(uid: int | None) -> bool:
    """Whether what a process of this user says is believed: it is this process's own user, or root."""
    return uid != UNKNOWN_USER and uid in (0, os.geteuid())


def user_name(uid: int) -> str:
    """The user's name; the number where it has none."""
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
    """The UID of a user who is given by name or by UID. Raises KeyError."""
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        if user.isascii() and user.isdigit():
            return int(user)
        raise KeyError(user) from None


def listener(path: str) -> int | None:
    """The user whose process listens on this socket, or whose file it is while it takes no connection; None: none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(path)
            return Peer.of(connection).uid
        except (BlockingIOError, TimeoutError):  # so many wait that it does not take more: it lives
            with suppress(OSError):
                return os.lstat(path).st_uid
            return None
        except (OSError, ValueError):
            return None


def service_url(env: Mapping[str, str] | None = None) -> str:
    """Where a client asks the service: $REAPER_URL, a local socket where this user's or root's listens, or its address.

    In /run/reaper root alone can have put it, for a user of its own (systemd's DynamicUser): it is asked to protect, as
    it is at its address, where any user may listen. What makes anything garbage asks ``is_trusted`` about who answers.
    """
    env = os.environ if env is None else env
    if given := env.get(URL):
        return given
    shared = f"{paths.SHARED_RUNTIME}/{paths.SOCKET}"
    asked = ((path, listener(path)) for path in paths.sockets_to_ask(env))
    found = next((path for path, uid in asked if is_trusted(uid) or (uid is not None and path == shared)), None)
    return f"http://{paths.LISTEN}" if found is None else f"unix://{found}"
