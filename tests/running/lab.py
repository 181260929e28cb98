"""What the tests of ``reaper run`` share."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.run import LIMIT


def guards(state: Path) -> list[int]:
    """The guards that are alive for a state directory."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            mine = f"STATE_DIRECTORY={state}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mine and b"reaper.run.guard" in words:
            found.append(int(folder.name))
    return found


def end_guards(state: Path) -> None:
    """Kill them: each goes on looking for a while, and for longer when its engine is gone."""
    for pid in guards(state):
        os.kill(pid, signal.SIGKILL)


def state(pid: int) -> str:
    """The letter of a process's state in /proc: R, S, T, Z, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until(condition: Callable[[], object], said: str = "waited in vain", within: float = LIMIT) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, said
        time.sleep(0.02)
