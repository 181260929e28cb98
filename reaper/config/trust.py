"""Who may write a file that this program obeys. One that another user may write is refused, as ssh does."""

import grp
import os
import pwd
import stat
from pathlib import Path

from reaper.errors import ConfigError

_MOUNTS = Path("/proc/self/mountinfo")


def read_own(path: str | Path, encoding: str) -> str:
    """The text of a file that root and this user alone can write.

    Raises ConfigError when others can, and what reading a file raises. What is mounted read-only, or is a mount of its own,
    was put there by those who made the mount: its owner is another host's user, or a container's.
    """
    with Path(path).open(encoding=encoding) as file:
        number = file.fileno()
        if (problem := _written_by_others(path, os.fstat(number))) and not _is_mounted(path, number):
            raise ConfigError(
                f"{problem}, who could have anything deleted with it",
                f"if it is yours to trust: chown {_name(os.geteuid())} {path} && chmod go-w {path}",
                str(path),
            )
        return file.read()


def _written_by_others(path: str | Path, opened: os.stat_result) -> str | None:
    """Why it is not for this user alone to write; None when it is."""
    trusted = {0, os.geteuid()}
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode) and found.st_uid not in trusted:
        return f"it is a symbolic link that belongs to {_name(found.st_uid)}"
    if opened.st_uid not in trusted:
        return f"it belongs to {_name(opened.st_uid)}"
    if not stat.S_ISREG(opened.st_mode):
        return None  # a pipe or a device is not written to beforehand
    if opened.st_mode & stat.S_IWOTH:
        return "it can be written by every user"
    if opened.st_mode & stat.S_IWGRP and (others := _members(opened.st_gid) - trusted - {opened.st_uid}):
        return f"it can be written by its group, and with that by {_name(min(others))}"
    return None


def _members(group: int) -> frozenset[int]:
    """The users of a group, as far as the user database names them."""
    users = {user.pw_name: user.pw_uid for user in pwd.getpwall()}
    primary = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == group}
    try:
        named = grp.getgrgid(group).gr_mem
    except KeyError:
        named = []
    return frozenset(primary | {users[name] for name in named if name in users})


def _is_mounted(path: str | Path, number: int) -> bool:
    if os.fstatvfs(number).f_flag & os.ST_RDONLY:
        return True
    try:
        mounts = {line.split()[4] for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()}
    except OSError:
        return False
    return str(Path(path).resolve()) in mounts


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
