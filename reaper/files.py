"""Small files that other programs may have damaged or replaced: what is no regular file is an error, never a wait."""

import json
import os
import stat
from errno import EINVAL
from pathlib import Path

LARGEST = 64 << 20  # bytes; a file of a million remembered resources


def check_regular(path: Path) -> None:
    """Raise OSError unless ``path`` is a regular file: opening a FIFO or a device may never return."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(EINVAL, "it is no regular file", str(path))


def read_text(path: Path) -> str:
    """The content of a regular file. Raises OSError, and ValueError for what is no UTF-8 or too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb") as opened:  # noqa: PTH123 - it is open already
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(EINVAL, "it is no regular file", str(path))
        content = opened.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST >> 20} MiB")
    return content.decode("utf-8")


def read_json(path: Path) -> object:
    """The JSON in a regular file. Raises OSError, and ValueError for what is no JSON."""
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
