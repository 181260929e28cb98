"""Small files that other programs may have damaged or replaced: what is no regular file is an error, never a wait."""

import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from errno import EINVAL, EPERM
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

LARGEST = 64 << 20  # bytes; a file of a million remembered resources


def check_regular(path: Path) -> None:
    """Raise OSError unless ``path`` is a regular file: opening a FIFO or a device may never return."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(EINVAL, "it is no regular file", str(path))


def check_own(path: Path, found: os.stat_result) -> None:
    """Raise OSError where another user could have written a file by which things are taken for garbage.

    Root may read what the service's own user has written.
    """
    if found.st_mode & stat.S_IWOTH:
        raise OSError(EPERM, "every user can write it; make it its owner's alone (chmod go-w)", str(path))
    if os.geteuid() and found.st_uid not in (0, os.geteuid()):
        raise OSError(EPERM, f"it belongs to user {found.st_uid}", str(path))


def write_text(path: Path, text: str) -> None:
    """Replace a file at once by one that its owner alone can read and write. Raises OSError."""
    # Several processes may share the folder, in containers and on hosts of which each has a process 1.
    partial = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(partial, flags, 0o600), "w", encoding="utf-8") as opened:  # noqa: PTH123 - it is open already
            opened.write(text)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)  # half a file would keep the last bytes of a full disk
        raise


def read_text(path: Path, *, own: bool = False) -> str:
    """The content of a regular file. Raises OSError, and ValueError for what is no UTF-8 or too large.

    Args:
        path: the file.
        own: whether no other user may be able to write it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb") as opened:  # noqa: PTH123 - it is open already
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(EINVAL, "it is no regular file", str(path))
        if own:
            check_own(path, found)
        content = opened.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST >> 20} MiB")
    return content.decode("utf-8")


def read_json(path: Path, *, own: bool = False) -> object:
    """The JSON in a regular file; see ``read_text``. Raises OSError, and ValueError for what is no JSON."""
    try:
        return json.loads(read_text(path, own=own))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class EndpointFile:
    """Remembers something about one endpoint. What cannot be used, or another user could have written, is no memory.

    Args:
        folder: the state directory; it is made when there is something to write.
        name: of the file, before the endpoint's part of it.
        identity: the endpoint's address: names may come to mean another endpoint.
        version: of the content.
    """

    def __init__(self, folder: Path, name: str, identity: str, version: int) -> None:
        import hashlib  # noqa: PLC0415 - most who use this module have no need of it

        self.path = folder / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
        self._version = version

    def read(self, parse: Callable[[Any], T]) -> T | None:
        """What ``parse`` makes of the content, which may have any form; None without one of this version."""
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
            content: Any = read_json(self.path, own=True)
            if content["version"] == self._version:
                return parse(content)
        return None

    def write(self, what: str, content: Mapping[str, object]) -> str | None:
        """Write the content; why ``what`` cannot be remembered, if so."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_text(self.path, json.dumps({"version": self._version, **content}))
        except OSError as error:
            return f"{what} cannot be remembered in {self.path}: {error.strerror}"
        return None
