"""Images for an engine that reaches no registry: a base with Python and systemd, reaper's own, and Debian's programs.

What costs time is kept in the user's cache directory, under a name that follows from how it was made: several test
modules and runs share it. See `base_image` and `reaper_image` for the seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devkit.api import EngineError
from devkit.client import EngineClient

__all__ = [
    "BASE",
    "REAPER",
    "RYUK",
    "base_image",
    "build",
    "context",
    "host_image",
    "missing",
    "reaper_image",
    "run",
    "ryuk_image",
    "wheels",
]

ROOT = Path(__file__).resolve().parent.parent

BASE, REAPER, RYUK = "debian-python:local", "reaper:local", "reaper-ryuk:local"

SUITE, PYTHON = "bookworm", "3.11"
VARIANT = "minbase"
INCLUDED = ("python3", "python3-venv", "python3-pip", "ca-certificates", "systemd", "systemd-sysv")
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""The host's certificates: where a local authority signs, a program in a container must know it too."""

CONTEXT = (
    "Dockerfile",
    ".dockerignore",
    "LICENSE",
    "README.md",
    "constraints.txt",
    "docs/reaper.1",
    "pyproject.toml",
    "reaper",
    "reaper.example.toml",
)


def missing() -> list[str]:
    """Debian's packages that are needed here and not installed."""
    commands = {"debootstrap": "debootstrap", "docker": "docker.io"}
    return [package for command, package in commands.items() if _which(command) is None]


def base_image(engine: EngineClient) -> str:
    """A Debian with Python, venv, pip and systemd as an image of ``engine``; its name.

    The root file system is made once for a machine, in 40 to 120 s; its import into an engine takes about 5 s.

    Raises:
        EngineError: it could not be made; the text carries the end of what was printed.
    """
    if engine.api.get(f"/images/{BASE}/json").status == 404:
        recipe = json.dumps([SUITE, VARIANT, INCLUDED, _digest(AUTHORITIES.read_bytes()), platform.machine()])
        tar = _cached(f"base-{_digest(recipe.encode())}.tar", _bootstrap)
        run("docker", "--host", engine.host, "import", "--change", 'CMD ["/bin/bash"]', str(tar), BASE)
    return BASE


def reaper_image(engine: EngineClient, **arguments: str) -> str:
    """The image of the Dockerfile on `base_image`, built in ``engine`` without any index; its name. About 30 s.

    Args:
        engine: where it is built.
        arguments: further build arguments.

    Raises:
        EngineError: it could not be built; the text carries the end of what was printed.
    """
    return _built(engine, REAPER, None, arguments)


def ryuk_image(engine: EngineClient, **arguments: str) -> str:
    """The same of its target ryuk. About 2 s where `reaper_image` was built with the same arguments before.

    Raises:
        EngineError: it could not be built; the text carries the end of what was printed.
    """
    return _built(engine, RYUK, "ryuk", arguments)


def _built(engine: EngineClient, name: str, target: str | None, arguments: Mapping[str, str]) -> str:
    if engine.api.get(f"/images/{name}/json").status == 404:
        base = base_image(engine)
        with context() as folder:
            offline = "--no-index --find-links=/src/wheels"
            build(engine, folder, name, target, BASE=base, PIP_OPTIONS=offline, **arguments)
    return name


@contextmanager
def context() -> Iterator[Path]:
    """A copy of what the Dockerfile is built from, the wheels with it, removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="reaper-build-") as made:
        folder = Path(made)
        for name in CONTEXT:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copy2(source, folder / name)
        shutil.copytree(wheels(), folder / "wheels")
        yield folder


def build(engine: EngineClient, folder: Path, name: str, target: str | None = None, **arguments: str) -> str:
    """Build the Dockerfile of a directory with the classic builder; what it printed. Raises EngineError."""
    options = [option for key, value in arguments.items() for option in ("--build-arg", f"{key}={value}")]
    options += ["--target", target] if target else []
    command = ["docker", "--host", engine.host, "build", "--force-rm", "--tag", name, *options, str(folder)]
    return run(*command, env={"DOCKER_BUILDKIT": "0"})


def wheels() -> Path:
    """A directory with the wheel of everything that the image needs, for the Python of `base_image`. About 20 s, once."""
    constraints = ROOT / "constraints.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    recipe = json.dumps([wanted, constraints.read_text(encoding="utf-8"), PYTHON, platform.machine()])

    def download(folder: Path) -> None:
        options = ["--disable-pip-version-check", "--quiet", "--only-binary=:all:", "--python-version", PYTHON]
        pip = [sys.executable, "-m", "pip", "download", *options, "--constraint", str(constraints)]
        run(*pip, "--dest", str(folder), *wanted)

    return _cached(f"wheels-{_digest(recipe.encode())}", download)


def host_image(
    engine: EngineClient,
    name: str,
    programs: Mapping[str, str],
    folders: Mapping[str, int],
    *,
    config: Mapping[str, Any],
    files: Iterable[str] = (),
) -> str:
    """An image of programs of this host, with the libraries that they load, and nothing else; its name. About 2 s.

    Args:
        engine: where it is made.
        name: what it is called there.
        programs: path in the image to path on this host.
        folders: directories in the image that a volume may be mounted on, each with the number of its owner.
        config: `Entrypoint`, `Cmd` and `User`, as the published image of the same program has them.
        files: further files of this host.

    Raises:
        EngineError: the engine refused it.
    """
    if engine.api.get(f"/images/{name}/json").status == 404:
        with tempfile.TemporaryDirectory(prefix="reaper-image-") as made:
            tar = Path(made) / "root.tar"
            _pack(tar, programs, folders, files)
            changes = [f"{key.upper()} {json.dumps(value)}" for key, value in config.items()]
            options = [part for change in changes for part in ("--change", change)]
            run("docker", "--host", engine.host, "import", *options, str(tar), name)
    return name


def run(*command: str, env: Mapping[str, str] | None = None, timeout: float = 600.0) -> str:
    """What a command prints. Raises EngineError with its end where it fails."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise EngineError(f"{' '.join(command)}: {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def _which(command: str) -> str | None:
    return shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _bootstrap(tar: Path) -> None:
    """Make the root file system of the base, as a tar archive."""
    debootstrap = _which("debootstrap")
    if debootstrap is None:
        raise EngineError("debootstrap is not installed (Debian: debootstrap)")
    with tempfile.TemporaryDirectory(prefix="reaper-base-") as made:
        root = Path(made) / "root"
        included = f"--include={','.join(INCLUDED)}"
        run(debootstrap, f"--variant={VARIANT}", included, SUITE, str(root), timeout=1800)
        for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):  # what only an installation needs
            shutil.rmtree(root / folder)
            (root / folder / "partial").mkdir(parents=True)
        shutil.copyfile(AUTHORITIES, root / AUTHORITIES.relative_to("/"))
        run("tar", "--numeric-owner", "-C", str(root), "-cf", str(tar), ".")


def _pack(tar: Path, programs: Mapping[str, str], folders: Mapping[str, int], further: Iterable[str]) -> None:
    files = {Path(file): Path(file) for file in (*further, str(AUTHORITIES))}
    files |= {Path(inside): Path(outside) for inside, outside in programs.items()}
    files |= {library: library for program in programs.values() for library in _libraries(program)}
    with tarfile.open(tar, "w", dereference=True) as archive:
        for inside, outside in files.items():
            archive.add(outside, str(inside).lstrip("/"), recursive=False)
        for folder, owner in {**folders, "/tmp": 0, "/etc": 0}.items():
            entry = tarfile.TarInfo(folder.lstrip("/"))
            entry.type, entry.mode, entry.uid, entry.gid = (
                tarfile.DIRTYPE,
                0o1777 if folder == "/tmp" else 0o755,
                owner,
                owner,
            )
            archive.addfile(entry)


def _libraries(program: str) -> Iterator[Path]:
    """The shared libraries that a program loads, and the loader itself, as paths on this host."""
    printed = run("ldd", program)
    for line in printed.splitlines():
        words = line.replace("=>", " ").split()
        paths = [word for word in words if word.startswith("/")]
        if paths:
            yield Path(paths[-1])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    """A file or directory of the cache; where it is not there, ``make`` is given the path to make it at.

    Only one process makes it while others wait, and it comes into view when it is whole.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reaper-devkit"
    cache.mkdir(parents=True, exist_ok=True)
    found = cache / name
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            with tempfile.TemporaryDirectory(prefix=".making-", dir=cache) as made:
                making = Path(made) / name
                make(making)
                making.rename(found)
    return found
