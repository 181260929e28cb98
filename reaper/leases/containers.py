"""Which containers were seen to be made under a lease: a file for each lease, beside the file of leases.

There may be ten thousand for one lease, each is written while its client waits, and hardly one is ever asked for. So they
are no rows of a database that all runs share: a line is added to a file of one run, and no process reads it before it is
needed.
What cannot be read, or another user could have written, proves nothing: then a container stays.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from reaper.files import read_text

FOLDER = "containers"  # in the state directory
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")  # of a lease whose file can have its name


@dataclass(frozen=True, slots=True)
class MadeContainers:
    """By endpoint id and id, the containers that were seen to be made under a lease.

    Args:
        state: the state directory.
        lease: the lease's id.
    """

    state: Path
    lease: str

    @property
    def _path(self) -> Path | None:
        return self.state / FOLDER / self.lease if _NAME.fullmatch(self.lease) else None

    def __contains__(self, container: object) -> bool:
        """Whether it was."""
        if self._path is None or not isinstance(container, tuple):
            return False
        try:
            found = self._path.stat()
            lines = _lines(self._path, found.st_ino, found.st_ctime_ns, found.st_size)
        except (OSError, ValueError):
            return False
        return self._line(*container) in lines

    def add(self, endpoint: str, id_: str) -> None:
        """Write that this one was. A process that is killed afterwards loses nothing. Raises OSError."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.write(descriptor, f"{self._line(endpoint, id_)}\n".encode())
        finally:
            os.close(descriptor)

    def _line(self, endpoint: str, id_: str) -> str:
        return f"{self.lease} {endpoint} {id_}"  # a file system may take two leases' names for one


@lru_cache(maxsize=4)
def _lines(path: Path, *_: int) -> frozenset[str]:
    """The whole lines of a file, read again when it has changed: what has no end was cut off. Raises OSError, ValueError."""
    return frozenset(read_text(path, own=True).split("\n")[:-1])


def forget(state: Path, before: datetime, but: Iterable[str] = ()) -> None:
    """Delete the files that were written before a time, but those of some leases."""
    try:
        recorded = {path.name for path in (state / FOLDER).iterdir()}
    except OSError:
        return
    for lease in recorded.difference(but):
        path = state / FOLDER / lease
        with suppress(OSError):  # another process was faster
            if path.stat().st_mtime < before.timestamp():
                path.unlink()
