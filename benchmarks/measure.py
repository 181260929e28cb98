"""Measured runs of commands, and what is told about a set of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

_LAUNCH = Path(__file__).with_name("launch.py")
_LIMIT = 900.0  # seconds; a command that hangs is an error, not a long run


class BenchmarkError(Exception):
    """A command did not do its work, so that its time says nothing."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a command.

    Args:
        seconds: wall time, from before the process was made until after it was reaped.
        cpu: seconds of processor time, its children included; the engine's is not in it.
        peak_mib: the largest resident memory.
        requests: what the simulated server was asked for each sandbox, where that was counted.
        figure: what the row is about, where that is none of these: file descriptors, or seconds that are not the run's.
    """

    seconds: float
    cpu: float
    peak_mib: float
    requests: float = 0.0
    figure: float = 0.0


@dataclass(slots=True)
class Series:
    """The runs of one command, in the order of time."""

    runs: list[Run] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        return [run.seconds for run in self.runs]

    @property
    def cpu(self) -> list[float]:
        return [run.cpu for run in self.runs]

    @property
    def peaks(self) -> list[float]:
        return [run.peak_mib for run in self.runs]

    @property
    def figures(self) -> list[float]:
        return [run.figure for run in self.runs]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours by theirs: of the medians, and the least and the greatest of the pairs that ran one after the other."""

    middle: float
    least: float
    greatest: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
        pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
        return cls(median(ours) / median(theirs), min(pairs), max(pairs))


class Launcher:
    """Runs commands from an empty directory, in an environment that holds nothing of the caller's.

    Args:
        folder: an existing directory outside any checkout; it becomes the working directory, HOME and STATE_DIRECTORY.
    """

    def __init__(self, folder: Path) -> None:
        self._output = folder / "output"
        self._work = folder / "work"
        self._work.mkdir()
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self._work),
            "STATE_DIRECTORY": str(self._work / "state"),
        }

    def run(self, *command: str, env: Mapping[str, str] | None = None, codes: Collection[int] = (0,)) -> Run:
        """One run, which must end with one of these exit codes.

        Raises:
            BenchmarkError: it ended with another code; the text carries the end of its output.
        """
        program = shutil.which(command[0])
        if program is None:
            raise BenchmarkError(f"there is no command {command[0]}")
        launch = [sys.executable, "-I", "-S", str(_LAUNCH), str(self._output), program, *command[1:]]
        done = subprocess.run(
            launch, cwd=self._work, env={**self._env, **(env or {})}, timeout=_LIMIT, stdout=subprocess.PIPE, check=True
        )
        told = json.loads(done.stdout)
        if told["code"] not in codes:
            shown = " ".join(command)[:100]
            raise BenchmarkError(f"exit code {told['code']} of {shown}:\n{self.output()[-2000:]}")
        return Run(told["seconds"], told["cpu"], told["peak_kib"] / 1024)

    def output(self) -> str:
        """What the last run wrote to stdout and stderr."""
        return self._output.read_text(encoding="utf-8", errors="replace")


class Measurements:
    """Measures runs of the installed command.

    Args:
        folder: an empty directory for the commands to work in.
        reaper: the installed command.
        say: is told what goes on.
    """

    def __init__(self, folder: Path, reaper: str, say: Callable[[str], None]) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._launcher = folder, Launcher(folder)
        self._reaper, self._say = reaper, say
