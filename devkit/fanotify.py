"""Delay the processes that open a directory, by the kernel's fanotify permission events.

The engine's `removing` lasts a millisecond. To see it for as long as a test wants, its removal is held where it opens
the container's directory: the kernel asks us first, and it waits for the answer.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

# <linux/fanotify.h>
_CLASS_CONTENT = 0x04
_CLOEXEC = 0x01
_NONBLOCK = 0x02
_MARK_ADD = 0x01
_OPEN_PERM = 0x00010000
_ONDIR = 0x40000000
_ALLOW, _DENY = 1, 2
_EVENT = struct.Struct("=IBBHQii")  # event_len, vers, reserved, metadata_len, mask, fd, pid
_RESPONSE = struct.Struct("=iI")  # fd, response

_libc = ctypes.CDLL(None, use_errno=True)


class OpenHold:
    """Every open of one directory waits, from construction until `allow`, `deny` or `close`.

    Entries are reached by path without opening the directory, so only listing it (as a recursive removal must)
    waits. Needs root, and a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS, as those of Debian and Ubuntu.

    Raises:
        OSError: the kernel does not offer it, or the directory does not exist.
    """

    def __init__(self, directory: Path) -> None:
        # O_LARGEFILE is implied on 64 bits; O_RDONLY is 0.
        self._fd = _checked(_libc.fanotify_init(_CLASS_CONTENT | _CLOEXEC | _NONBLOCK, os.O_RDONLY))
        self._waiting: list[int] = []
        mask = ctypes.c_uint64(_OPEN_PERM | _ONDIR)
        try:
            _checked(_libc.fanotify_mark(self._fd, _MARK_ADD, mask, -100, os.fsencode(directory)))
        except OSError:
            os.close(self._fd)
            raise

    def wait(self, deadline: float = 60.0) -> bool:
        """Wait until a process opens the directory; False when none has within `deadline` seconds."""
        if not self._waiting:
            if not select.select([self._fd], [], [], deadline)[0]:
                return False
            data = os.read(self._fd, 4096)
            while data:
                length, _, _, _, _, fd, _ = _EVENT.unpack_from(data)
                self._waiting.append(fd)
                data = data[length:]
        return True

    def allow(self, deadline: float = 60.0) -> None:
        """Let the opening go on, or the next one, waiting `deadline` seconds for it.

        Raises:
            TimeoutError: no process opened the directory.
        """
        self._answer(_ALLOW, deadline)

    def deny(self, deadline: float = 60.0) -> None:
        """Let the opening fail with EPERM, or the next one. Raises as `allow` does."""
        self._answer(_DENY, deadline)

    def close(self) -> None:
        """Hold no longer: the kernel lets everybody through. Harmless when done twice."""
        if self._fd >= 0:
            for fd in self._waiting:
                os.close(fd)
            os.close(self._fd)
            self._fd = -1

    def _answer(self, response: int, deadline: float) -> None:
        if not self.wait(deadline):
            raise TimeoutError(f"no process opened the directory within {deadline:g} s")
        for fd in self._waiting:
            os.write(self._fd, _RESPONSE.pack(fd, response))
            os.close(fd)
        self._waiting = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
