"""Runs the program as its users do: as a process."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import forks

NO_DAYTONA = {"DAYTONA_API_URL": "http://127.0.0.1:9/api"}
"""Where nothing listens: no test may ask the real service."""

LIMIT = 120  # seconds; a program that hangs is a failure, not a wait


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """stdout, which must be one JSON document."""
        return json.loads(self.out)

    @property
    def logs(self) -> list[dict[str, Any]]:
        """The log lines on stderr, which are JSON when it is no terminal."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    def outcomes(self) -> dict[str, str]:
        """What became of each resource that has an outcome, by name."""
        resources = (r for endpoint in self.document["endpoints"] for r in endpoint["resources"])
        return {r["name"]: r["outcome"] for r in resources if r["outcome"] is not None}


class Program:
    """The reaper command with an environment of its own: nothing of the caller's configuration leaks in.

    Args:
        state: becomes STATE_DIRECTORY.
        env: further variables, for example DOCKER_HOST.
    """

    def __init__(self, state: Path, env: Mapping[str, str] | None = None) -> None:
        # The socket is there, too: no test's service may be found by another's client.
        own = {"STATE_DIRECTORY": str(state), "RUNTIME_DIRECTORY": str(state), "DOCKER_CONFIG": str(state / ".docker")}
        self.env = {**forks.kept(), **own, **(env or {})}
        self.folder = state

    def start(self, *arguments: str, env: Mapping[str, str] | None = None, **popen: Any) -> subprocess.Popen[str]:
        """Start the program without waiting for it."""
        return self._started(["-m", "reaper", *arguments], env, **popen)

    def _started(self, words: list[str], env: Mapping[str, str] | None, **popen: Any) -> subprocess.Popen[str]:
        return forks.Forked(
            [sys.executable, *words],
            env={**self.env, **(env or {})},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )

    def start_at(self, terminal: int, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the program at a terminal, given as its file descriptor."""
        command = [sys.executable, "-m", "reaper", *arguments]
        return forks.Forked(command, env=self.env, cwd=self.folder, stdin=terminal, stdout=terminal, stderr=terminal)

    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        """Run the program to its end."""
        return self.finish(self.start(*arguments, env=env))

    def run_code(self, code: str, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        """Run code where all of the program has been imported, as ``python -c`` does."""
        return self.finish(self._started(["-c", code, *arguments], env))

    def finish(self, process: subprocess.Popen[str]) -> Ended:
        """Wait for a started program."""
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"the program hung\n{out}\n{err}") from None
        return Ended(process.returncode, out, err)
