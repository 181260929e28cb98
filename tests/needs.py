"""What a test needs of the machine: without it the test is skipped, or fails where everything has to be tested."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from devkit.flavours import DEFAULT, FLAVOURS

DOCKERS = ("docker-20.10", "docker-28.5", "docker-28.5-containerd")
"""The engines of ``devkit.flavours`` on which everything is tried that an engine may do otherwise than another one."""

ENGINES = (*DOCKERS, "podman-5.8")
"""Those on which the provider's contract, the states and the groups are tried."""


def flavours() -> tuple[str, ...]:
    """The engines that tests run on: the default one, and all with REAPER_FLAVOURS=all."""
    return tuple(FLAVOURS) if everything() else (DEFAULT,)


def everything() -> bool:
    """Whether all is tried, as CI does, and not only what a change may break first."""
    return os.environ.get("REAPER_FLAVOURS") == "all"


def lacking(reason: str) -> NoReturn:
    """Skip the test, or fail it where REAPER_REQUIRE_ENGINE is set.

    Args:
        reason: what is missing, in one sentence.
    """
    if os.environ.get("REAPER_REQUIRE_ENGINE"):
        pytest.fail(f"REAPER_REQUIRE_ENGINE is set, but {reason}")
    pytest.skip(reason)


def root(why: str) -> None:
    """Go on as root only.

    Args:
        why: what only root can do, in one sentence.
    """
    if os.geteuid() != 0:
        lacking(why)


def tool(name: str, package: str) -> str:
    """The path of a command.

    Args:
        name: the command's name.
        package: Debian's package that has it.
    """
    return shutil.which(name) or lacking(f"{name} (Debian's package {package}) is not installed")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, mounted at a folder that is made for it.

    Args:
        folder: does not exist yet.
        size: as ``mount`` takes it, for example "256k".
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root may mount a file system, and not everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def python(version: str) -> str:
    """The path of an interpreter: of this one, and of all with REAPER_FLAVOURS=all.

    Args:
        version: for example "3.12".
    """
    if not (everything() or sys.version.startswith(f"{version}.")):
        pytest.skip(f"it is for Python {version}; REAPER_FLAVOURS=all runs it")
    # pyenv's shims stand on PATH also for versions that are not switched on.
    found: list[str | Path | None] = [shutil.which(f"python{version}")]
    found += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for path in found:
        if path is not None and subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return str(path)
    lacking(f"Python {version} is not installed")
