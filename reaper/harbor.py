"""A Harbor job plugin, a lease for the job without ``reaper run`` before it: ``harbor run --plugin reaper.harbor:Lease``.

``reaper run`` is started beside the job with a command that only waits for the job's end, so that the proxy, the lease, its
guard and the clean-up are the same. It has a session of its own: what kills Harbor, or its process group, does not reach it.
Harbor's package is not needed to import this.
"""

import asyncio
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from reaper.core.scope import LEASE_LABEL
from reaper.liveness import started

LOG = "reaper.log"
TAKEN_WITHIN = 60.0  # seconds
_VARIABLES = (
    "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_TLS",
    "REAPER_LEASE", "REAPER_LABEL", "REAPER_IMAGE_LABEL",
)  # fmt: skip


class _Environment(Protocol):
    """What is used of Harbor's ``EnvironmentConfig``."""

    type: object
    delete: bool
    kwargs: dict[str, object]

    def model_copy(self, *, update: Mapping[str, object]) -> Self: ...


class _Config(Protocol):
    environment: _Environment


class _Job(Protocol):
    """What is used of Harbor's ``Job``."""

    config: _Config
    job_dir: Path


class Lease:
    """The plugin. What the job creates goes when it has ended or was killed, and is kept until then.

    Containers, networks and volumes get the lease's label through ``DOCKER_HOST``, Daytona's sandboxes through Harbor's
    ``labels``. With ``--no-delete`` or ``keep_containers`` there is no lease: what it leaves is kept on purpose.

    Args:
        config: reaper's configuration, where it is not found as the command finds it.
        max_age: after how long the lease ends although the job runs, for example "24h".
    """

    def __init__(self, config: str | None = None, max_age: str | None = None) -> None:
        self._options = [f"--config={config}"] if config is not None else []
        self._options += [f"--max-age={max_age}"] if max_age is not None else []
        self._is_held = False

    async def on_job_start(self, job: _Job) -> None:
        """Take the lease. Without one the job does not start, as no command does under ``reaper run``."""
        environment = job.config.environment
        if not environment.delete or environment.kwargs.get("keep_containers"):
            _say("Harbor is to keep its environments, so the job has no lease")
            return
        await asyncio.to_thread(_process.enter, self._options, job.job_dir / LOG)
        self._is_held = True

    async def on_job_end(self, job_result: object) -> None:  # noqa: ARG002 - Harbor's interface
        """Delete what the job has left, and say what that was."""
        if self._is_held:
            self._is_held = False
            await asyncio.to_thread(_process.leave)


class _Process:
    """The lease of this process. Jobs that run side by side share it: ``DOCKER_HOST`` is one for all of them."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._jobs = 0
        self._run: subprocess.Popen[bytes] | None = None
        self._log = Path(os.devnull)
        self._before: dict[str, str | None] = {}
        self._unlabel: Callable[[], None] | None = None

    def enter(self, options: list[str], log: Path) -> None:
        with self._turn:
            if self._jobs == 0:
                self._start(options, log)
            self._jobs += 1

    def leave(self) -> None:
        with self._turn:
            self._jobs -= 1
            if self._jobs == 0:
                self._end()

    def _start(self, options: list[str], log: Path) -> None:
        this = os.getpid()
        wait = [sys.executable, "-P", "-m", "reaper.harbor", str(this), str(started(this))]
        command = [sys.executable, "-P", "-m", "reaper", "run", "--skip-cleanup", *options, "--", *wait]
        self._log = log
        with _log_file(log) as errors:
            self._run = subprocess.Popen(  # noqa: S603 - this program
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        assert self._run.stdout is not None
        line = self._run.stdout.readline() if select.select([self._run.stdout], [], [], TAKEN_WITHIN)[0] else b""
        if not line:
            self._run.terminate()
            raise SystemExit(f"reaper: no lease can be taken, so the job was not started: {self._said() or 'no answer'}")
        variables = json.loads(line)
        self._before = {name: os.environ.get(name) for name in _VARIABLES}
        _set(variables)
        self._unlabel = _label_sandboxes(variables["REAPER_LEASE"])

    def _end(self) -> None:
        assert self._run is not None
        assert self._unlabel is not None
        self._unlabel()
        _set(self._before)
        self._run.communicate(b"end\n")
        if said := self._said():
            _say(said)

    def _said(self) -> str:
        try:
            return self._log.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""


_process = _Process()


def _log_file(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError:
        return Path(os.devnull).open("wb")


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _say(text: str) -> None:
    sys.stderr.write(f"reaper: {text}\n")


def _label_sandboxes(lease: str) -> Callable[[], None]:
    """Have each Daytona sandbox carry the lease's label, until what is returned is called.

    The job's own configuration stays as it is: Harbor stores it, and resumes a job only with an equal one.
    """
    factory = importlib.import_module("harbor.environments.factory").EnvironmentFactory
    original = factory.create_environment_from_config

    def create(config: _Environment, **others: object) -> object:
        if getattr(config.type, "value", None) == "daytona":
            given = config.kwargs.get("labels")
            labels = {LEASE_LABEL: lease, **(given if isinstance(given, dict) else {})}
            config = config.model_copy(update={"kwargs": {**config.kwargs, "labels": labels}})
        return original(config=config, **others)

    factory.create_environment_from_config = create
    return lambda: setattr(factory, "create_environment_from_config", original)


def main(process: int, began: str) -> int:
    """Print the variables that ``reaper run`` has set, and wait for a word on stdin, or that process's end, and return 1."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # where all processes are asked to end, Harbor cleans up first
    waited = os.pidfd_open(process)
    if started(process) != began:
        return 1
    sys.stdout.write(json.dumps({name: os.environ.get(name) for name in _VARIABLES}) + "\n")
    sys.stdout.flush()
    ready = select.select([waited, sys.stdin.buffer], [], [])[0]
    return 0 if sys.stdin.buffer in ready and os.read(sys.stdin.fileno(), 1) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
