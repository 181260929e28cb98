"""Roots of other Debian releases: their programs run beside this host's. Made once for a machine, and kept.

`python -m devkit.debian SUITE...` makes those that are not there yet: about four minutes and 1 GB each.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from devkit.api import EngineError

DOCKER = ("docker.io", "docker-cli", "docker-compose", "docker-buildx")
PACKAGES = {
    "bookworm": ("docker.io", "docker-compose", "podman", "catatonit"),
    "trixie": DOCKER,
    "forky": (*DOCKER, "podman", "catatonit", "uidmap", "nftables", "aardvark-dns"),
}
"""What each release brings beside `iptables` and certificates."""

# Nothing starts by itself: the tests start engines of their own.
_NO_SERVICES = "#!/bin/sh\nexit 101\n"

_INSTALL = """
mount -t proc proc "$0/proc"
export DEBIAN_FRONTEND=noninteractive
exec chroot "$0" apt-get install -y -qq --no-install-recommends "$@"
"""


def folder() -> Path:
    """Where the roots are kept: $REAPER_ENGINES, else `reaper-engines` in the user's cache directory."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("REAPER_ENGINES") or cache / "reaper-engines")


def release() -> str:
    """This host's release, such as `bookworm`; empty where it does not say."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r'^VERSION_CODENAME="?([a-z]+)', text, re.MULTILINE)
    return found[1] if found else ""


def root(suite: str) -> Path | None:
    """The root of a release, or None where it was not made."""
    found = folder() / suite
    return found if (found / ".complete").exists() else None


def make(suite: str) -> Path:
    """The root of a release, made where it is not there. Needs root, and debootstrap.

    Raises:
        EngineError: it could not be made; the text carries the end of what was printed.
    """
    folder().mkdir(parents=True, exist_ok=True)
    place = folder() / suite
    with (folder() / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root(suite) is None:
            shutil.rmtree(place, ignore_errors=True)
            _bootstrap(place, suite)
            _install(place, PACKAGES[suite])
            (place / ".complete").touch()
        elif absent := [package for package in PACKAGES[suite] if not _has(place, package)]:
            _install(place, absent)  # it was made for an earlier list
    return place


def _has(place: Path, package: str) -> bool:
    return (place / f"usr/share/doc/{package}").exists()


def _bootstrap(place: Path, suite: str) -> None:
    debootstrap = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if debootstrap is None:
        raise EngineError(f"the root of Debian {suite} needs debootstrap (Debian: debootstrap)")
    index = next(indexes(Path("/etc/apt")), None)
    if index is None:
        raise EngineError(f"the root of Debian {suite} needs a package index, and /etc/apt names none")
    # debootstrap of an older release has no script of this name; the one of sid does for every release since.
    script = suite if Path(f"/usr/share/debootstrap/scripts/{suite}").exists() else "sid"
    _run(place, debootstrap, "--variant=minbase", "--include=ca-certificates,iptables", suite, str(place), index, script)
    policy = place / "usr/sbin/policy-rc.d"
    policy.write_text(_NO_SERVICES)
    policy.chmod(0o755)


def _install(place: Path, packages: Sequence[str]) -> None:
    shutil.copyfile("/etc/resolv.conf", place / "etc/resolv.conf")
    _run(place, "unshare", "-m", "--propagation", "private", "sh", "-ec", _INSTALL, str(place), *packages)


def _run(place: Path, *command: str) -> None:
    log = place.with_suffix(".log")
    with log.open("a") as output:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    if done.returncode != 0:
        raise EngineError(f"{command[0]} ended with {done.returncode} ({log}):\n{log.read_text(errors='replace')[-2000:]}")


def indexes(apt: Path) -> Iterator[str]:
    """The package indexes of Debian itself that this host is configured with, in both of apt's formats."""
    for file in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        for words in (line.split() for line in lines if line.startswith("deb ")):
            yield from filter(_of_debian, words)
    for file in sorted((apt / "sources.list.d").glob("*.sources")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("URIs:"):
                yield from filter(_of_debian, line.split())


def _of_debian(word: str) -> bool:
    return re.match(r"https?://\S*debian", word) is not None and "security" not in word


def main() -> int:
    """Make the roots that are named on the command line."""
    for suite in sys.argv[1:]:
        try:
            print(make(suite))
        except EngineError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
