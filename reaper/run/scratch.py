"""Temporary folders of this user alone in which a unix socket can be."""

import os
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from reaper.errors import ConfigError
from reaper.leases.peers import UNKNOWN_USER

_OF_TEMPFILE = ("TMPDIR", "TEMP", "TMP")
_PROBE = "reaper-probe.sock"  # no socket's name is longer


@contextmanager
def socket_folder(prefix: str, env: Mapping[str, str], hint: str = "") -> Iterator[Path]:
    """A new folder, removed at the end: where the environment puts temporary files, else in a directory that works.

    A socket's path has 107 bytes at most, and not every file system has sockets. In a directory of another user the folder
    could be replaced.

    Args:
        prefix: of the folder's name.
        env: the environment.
        hint: what else the user can do where no directory works.

    Raises ConfigError.
    """
    problems = []
    for parent in _parents(env):
        try:
            if _belongs_to_others(os.stat(parent)):  # noqa: PTH116 - of a text
                problems.append(f"{parent}: other users can replace what is in it")
                continue
            folder = Path(mkdtemp(prefix=prefix, dir=parent))
        except OSError as error:
            problems.append(f"{parent}: {error.strerror or error}")
            continue
        try:
            if (problem := _problem(folder)) is None:
                yield folder
                return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        problems.append(f"{parent}: {problem}")
    raise ConfigError(
        f"a folder for a unix socket cannot be made: {'; '.join(problems)}",
        f"set TMPDIR to a directory with a short path that this user can write to{hint}",
    )


def _parents(env: Mapping[str, str]) -> tuple[str, ...]:
    given = [env.get(name) for name in _OF_TEMPFILE]
    wanted = (*given, env.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp")  # noqa: S108 - the folders in it are private
    return tuple(dict.fromkeys(os.path.abspath(folder) for folder in wanted if folder))  # noqa: PTH100


def _belongs_to_others(parent: os.stat_result) -> bool:
    sticky = bool(parent.st_mode & stat.S_ISVTX)
    trusted = {0, os.geteuid(), *((UNKNOWN_USER,) if sticky else ())}
    return parent.st_uid not in trusted or (bool(parent.st_mode & stat.S_IWOTH) and not sticky)


def _problem(folder: Path) -> str | None:
    """Return why no socket can be in this folder; None when one can."""
    probe = folder / _PROBE
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.bind(str(probe))
        except OSError as error:  # without a number: its path is too long
            return error.strerror or str(error)
    probe.unlink()
    return None
