"""Docker's commands, with an engine's address of the caller's choice: at a pipe and at a terminal."""

import fcntl
import io
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import tarfile
import termios
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests import needs

LIMIT = 60  # seconds; what takes longer hangs

# What differs between two runs of the same command: ids, with the digests of images.
_ID = re.compile(rb"\b(?:[0-9a-f]{64}|[0-9a-f]{12})\b")


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: bytes
    err: bytes = b""

    def without_ids(self) -> "Ended":
        """With X in place of ids."""
        return Ended(self.code, _ID.sub(b"X", self.out), _ID.sub(b"X", self.err))


class Docker:
    """The docker command before one engine.

    Args:
        host: the engine's address.
        home: an empty directory, so that no user's configuration matters.
        command: which docker.
    """

    def __init__(self, host: str, home: Path, command: str = "docker") -> None:
        self._command = command
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "DOCKER_HOST": host,
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
        }

    def __call__(self, *arguments: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> Ended:
        """Run it to its end; its stdin ends behind what is given."""
        done = subprocess.run(
            [self._command, *arguments],
            env={**self._env, **(env or {})},
            input=stdin,
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it, with pipes."""
        pipe = subprocess.PIPE
        return subprocess.Popen([self._command, *arguments], env=self._env, stdin=pipe, stdout=pipe, stderr=pipe)

    def at_terminal(self, *arguments: str, says: Sequence[tuple[bytes, bytes]]) -> Ended:
        """Run it at a terminal: each time that the one is on the screen, the other is typed."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        process = subprocess.Popen(
            [self._command, *arguments], env=self._env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        seen, place = b"", 0
        try:
            for awaited, typed in says:
                while (found := seen.find(awaited, place)) < 0:
                    seen += _read(master)
                place = found + len(awaited)
                os.write(master, typed)
            while piece := _read(master):
                seen += piece
        finally:
            os.close(master)
            try:
                code = process.wait(LIMIT)
            finally:
                process.kill()
        return Ended(code, seen)


def _read(terminal: int) -> bytes:
    ready, _, _ = select.select([terminal], [], [], LIMIT)
    assert ready, "nothing more was shown"
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""  # how a terminal reports that the other end is closed


def with_buildkit() -> str:
    """A docker command that speaks to BuildKit by itself: one before version 23, or one with buildx."""
    for command in (shutil.which("docker"), "/usr/bin/docker"):
        if command is None or not Path(command).exists():
            continue
        version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
        buildx = subprocess.run([command, "buildx", "version"], capture_output=True, check=False)
        if buildx.returncode == 0 or int(re.findall(r"version (\d+)", version)[0]) < 23:
            return command
    return needs.lacking("no docker command with BuildKit (Debian's package docker.io) is installed")


def until(condition: object, what: str) -> None:
    """Wait until ``condition()`` holds."""
    assert callable(condition)
    give_up = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        select.select([], [], [], 0.01)


def tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    """An archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(data), 1_700_000_000
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()
