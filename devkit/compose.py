"""Compose projects on a given engine, by Debian's docker-compose: 1.29 on Debian 12, 2.x on later ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from devkit.api import EngineError

COMMAND = "/usr/bin/docker-compose"

HARBOR_FILE = "harbor/environments/docker/docker-compose-build.yaml"
"""Where Harbor's own Compose file lies; the end of a label by which its containers are known."""


def available() -> str | None:
    """None when Compose is installed, else why it cannot be used, in one sentence."""
    return None if os.access(COMMAND, os.X_OK) else f"No {COMMAND} (Debian: docker-compose)."


def compose(
    host: str,
    project: str,
    content: str | Mapping[str, Any],
    *args: str,
    directory: Path | None = None,
    file: str = "docker-compose.yaml",
    timeout: float = 300.0,
    command: Sequence[str] = (COMMAND,),
) -> str:
    """Run one Compose command on a project; `up -d` when no arguments are given. Takes about 1 s and more.

    Args:
        host: the engine's address, `unix:///...`.
        project: project name, lower-case letters, digits, `-` and `_`.
        content: the Compose file, as YAML text or as what it would parse to.
        args: what to do, such as `"down", "--volumes"`.
        directory: where the file is written, and left; a temporary directory, removed afterwards, when None. Every
            command of one project should name the same.
        file: the file's path in there. `com.docker.compose.project.config_files` ends in it.
        timeout: seconds after which the command is killed.
        command: how docker-compose is called.

    Returns:
        What it printed.

    Raises:
        EngineError: it failed; the text carries what it printed.
        subprocess.TimeoutExpired: it did not end in time.
    """
    with _kept(directory) as place:
        path = place / file
        path.parent.mkdir(parents=True, exist_ok=True)
        # JSON is YAML, so a mapping needs no YAML writer.
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        # An environment of its own: other tools' PYTHON* and COMPOSE_* variables must not reach this Python program.
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(place),
            "DOCKER_HOST": host,
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            [*command, "--ansi", "never", "-p", project, "-f", str(path), *(args or ("up", "-d"))],
            env=environment,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
    if done.returncode != 0:
        raise EngineError(f"docker-compose -p {project} {' '.join(args)}: {done.stdout.strip()}")
    return done.stdout


def compose_all(
    host: str,
    projects: Mapping[str, str | Mapping[str, Any]],
    *args: str,
    directory: Path | None = None,
    file: str = "docker-compose.yaml",
    parallel: int = 3,
    command: Sequence[str] = (COMMAND,),
) -> None:
    """Run the same Compose command on many projects, `parallel` at a time; each in `directory`/PROJECT.

    Raises:
        EngineError: one failed; those under way are finished first.
    """
    with _kept(directory) as place, ThreadPoolExecutor(parallel) as pool:

        def one(project: str) -> None:
            compose(host, project, projects[project], *args, directory=place / project, file=file, command=command)

        list(pool.map(one, projects))


@cache
def separator(command: tuple[str, ...] = (COMMAND,)) -> str:
    """What stands between the parts of a container's name."""
    done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=True)
    return "_" if done.stdout.startswith("1.") else "-"


@contextmanager
def _kept(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        yield directory
        return
    temporary = Path(tempfile.mkdtemp(prefix="reaper-compose-", dir="/tmp"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
