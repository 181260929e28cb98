"""Checks what the program and its tests are built from: ``python -m devkit.audit``, a part of ``make lint``.

Without a network: each package that is installed is pinned, as the very version, and each requirement has a lower bound.
With one: no pinned version has a known vulnerability. For what the advisory service does not answer that is said, and
fails only where REAPER_REQUIRE_AUDIT is set: a check that was not made is not passed.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
WITHIN = 300  # seconds for all packages
PROGRAM = "bench-reaper"


def pins(text: str) -> dict[str, str]:
    """Versions by name. Raises ValueError for a line that does not pin one."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            pinned = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line.strip())
            if pinned is None:
                raise ValueError(f"{line!r} pins no version; write NAME==VERSION")
            found[canonicalize_name(pinned[1])] = pinned[2]
    return found


def needed(name: str, extras: frozenset[str], found: dict[str, str]) -> None:
    """Add what a distribution needs here, and all that those need, to the versions by name."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        marker, key = requirement.marker, canonicalize_name(requirement.name)
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            if key == "pip" or (key in found and not requirement.extras):  # a virtual environment brings its pip
                continue
            try:
                found[key] = distribution(requirement.name).version
            except PackageNotFoundError:
                found[key] = "not"
                continue
            needed(requirement.name, frozenset(requirement.extras), found)


def problems(pinned: dict[str, str], installed: dict[str, str], project: str) -> list[str]:
    """What is wrong with the pins.

    Args:
        pinned: versions by name.
        installed: likewise, what is needed.
        project: the text of pyproject.toml.
    """
    found = []
    for name, version in sorted(installed.items()):
        if pinned.get(name) != version:
            found.append(f"{name} {version} is installed, and constraints.txt has {pinned.get(name, 'no such line')}")
    table = tomllib.loads(project)["project"]
    for text in (*table["dependencies"], *(each for extra in table["optional-dependencies"].values() for each in extra)):
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if requirement.url is not None or ">=" not in str(requirement.specifier):
            found.append(f"pyproject.toml: {text} has no lower bound")
        elif not requirement.specifier.contains(Version(pinned.get(name, "0")), prereleases=True):
            found.append(f"pyproject.toml: {text} does not allow what constraints.txt pins: {pinned.get(name, 'nothing')}")
    return found


def advisories(answer: str, pinned: Collection[str]) -> tuple[list[str], list[str]]:
    """The known vulnerabilities in the answer of pip-audit, and the packages that it says nothing of."""
    try:
        answered = {canonicalize_name(each["name"]): each for each in json.loads(answer)["dependencies"] if "vulns" in each}
    except (ValueError, KeyError):
        answered = {}
    known = [
        f"{name} {each['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'no version'}"
        for name, each in answered.items()
        for one in each["vulns"]
    ]
    return known, sorted(set(pinned) - answered.keys())


def _ask() -> str:
    """What pip-audit answers; nothing where it does not come to an end."""
    options = ("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "5")
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(CONSTRAINTS), *options]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""


def main() -> int:
    """1 when something is wrong."""
    installed: dict[str, str] = {}
    needed(PROGRAM, frozenset({"dev"}), installed)
    pinned = pins(CONSTRAINTS.read_text(encoding="utf-8"))
    found = problems(pinned, installed, (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    known, unchecked = advisories(_ask(), pinned)
    if unchecked:
        which = (
            f"{len(unchecked)} of {len(pinned)} packages ({', '.join(unchecked[:5])}{', ...' if len(unchecked) > 5 else ''})"
        )
        print(f"audit: {which} are NOT checked for known vulnerabilities: the advisory service has not answered about them")
    for problem in (*found, *known):
        print(f"audit: {problem}")
    if found or known or (unchecked and os.environ.get("REAPER_REQUIRE_AUDIT")):
        return 1
    print(f"audit: {len(pinned)} packages are pinned, {len(pinned) - len(unchecked)} are checked")
    return 0


if __name__ == "__main__":
    sys.exit(main())
