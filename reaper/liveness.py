"""Who of those that share a folder is still alive: each holds a lock on a byte of its own in one file.

The kernel releases a lock when its holder dies, however it dies, which every process on the machine can see, in whatever
container or process namespace. Process ids do none of that: they are used again, and mean nothing elsewhere.
"""

import fcntl
import os
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FLOCK = "hhqqi"  # struct flock on 64-bit Linux: type, whence, start, length, pid
_MUTEX = 0  # the byte that is locked for mutual exclusion; tokens are other ones


def lock_file(journal: Path) -> Path:
    """The file that those who write to a journal share."""
    return journal.with_suffix(".lock")


def new_token() -> int:
    """A byte that no other process has chosen."""
    return secrets.randbelow(2**62) + 1


class Alive:
    """Says that this process lives, until it is closed.

    Args:
        file: what all of them share; it is made, empty, and stays.
        token: this one's, from ``new_token``.

    Raises OSError where there can be no such file, or no locks.
    """

    def __init__(self, file: Path, token: int) -> None:
        self.token = token
        self._file = file
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, token)
        except OSError:
            self.close()
            raise

    def _lock(self, command: int, kind: int, byte: int) -> None:
        fcntl.fcntl(self._fd, command, struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process is in such a block, and be the only one in it."""
        self._lock(fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, _MUTEX)
        try:
            yield
        finally:
            self._lock(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, _MUTEX)

    def lives(self, token: int) -> bool:
        """Whether the one with this token is alive."""
        return token == self.token or _is_held(self._fd, token)

    def lives_or_unknown(self, token: int) -> bool | None:
        """The same; None when the lock file has been replaced."""
        return self.lives(token) if self.is_current() else None

    def is_current(self) -> bool:
        """Whether the file is still the one that others look at: the folder may have been emptied."""
        try:
            return os.path.samestat(os.fstat(self._fd), self._file.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Die, as far as the others can see."""
        os.close(self._fd)


def lives(file: Path, token: int) -> bool | None:
    """Whether the one with this token is alive, for those who only look: nothing is made or changed. None: unknown."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _is_held(fd, token)
    except OSError:
        return None
    finally:
        os.close(fd)


def started(pid: int) -> str | None:
    """When a process began, in the kernel's own count; None when there is none. Process ids are used again.

    It is kept in the file of leases and compared by other processes later, so it must not depend on the clock of the day:
    psutil's ``create_time`` adds the time of the boot to it, which moves whenever that clock is set.
    """
    fields = _stat(pid)
    return None if fields is None or fields[0] in ("Z", "X") else fields[19]


def process_state(pid: int) -> tuple[int, bool] | None:
    """When a process began, in clock ticks since the boot, and whether it has ended and only its parent does not know yet.

    None where /proc does not show it. One whose first thread alone has ended is alive.
    """
    fields = _stat(pid)
    if fields is None:
        return None
    threads = int(fields[17])
    return int(fields[19]), fields[0] in ("X", "x") or (fields[0] == "Z" and threads <= 1)


def is_stopped(pid: int) -> bool:
    """Return whether a process has been stopped by a signal, and not gone on since."""
    fields = _stat(pid)
    return fields is not None and fields[0] == "T"


def parent(pid: int) -> int:
    """The process that a process is a child of; 0 when there is none."""
    fields = _stat(pid)
    return 0 if fields is None else int(fields[1])


def _stat(pid: int) -> list[str] | None:
    """What proc_pid_stat(5) has behind the name, which may hold anything; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()


def _is_held(fd: int, token: int) -> bool:
    asked = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, token, 1, 0)
    kind: int = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK
