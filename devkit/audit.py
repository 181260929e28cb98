"""Checks what the program and its tests are built from: ``python -m devkit.audit``, a part of ``make lint``.

Without a network: each package that is installed is pinned, as the very version, and each requirement has a lower bound.
With one: no pinned version has a known vulnerability. Where the advisory service cannot be reached that is said, and
fails only where REAPER_REQUIRE_AUDIT is set: a check that was not made is not passed.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
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
    found = {}
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
            if key in found and not requirement.extras:
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


def advisories(answer: str) -> list[str] | None:
    """The known vulnerabilities in the answer of pip-audit; None where it has not been answered itself."""
    try:
        dependencies = json.loads(answer)["dependencies"]
    except (ValueError, KeyError):
        return None
    return [
        f"{each['name']} {each['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version'}"
        for each in dependencies
        for known in each.get("vulns", ())
    ]


def _asked() -> list[str] | None:
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        CONSTRAINTS,
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
    ]
    try:
        done = subprocess.run(
            [*command, "--progress-spinner", "off", "--timeout", "5"],
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return advisories(done.stdout)


def main() -> int:
    """1 when something is wrong."""
    installed: dict[str, str] = {}
    needed(PROGRAM, frozenset({"dev"}), installed)
    pinned = pins(CONSTRAINTS.read_text(encoding="utf-8"))
    found = problems(pinned, installed, (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    known = _asked()
    if known is None:
        print("audit: the pins are NOT checked for known vulnerabilities, since the advisory service cannot be reached")
    for problem in (*found, *(known or ())):
        print(f"audit: {problem}")
    if found or known or (known is None and os.environ.get("REAPER_REQUIRE_AUDIT")):
        return 1
    print(f"audit: {len(pinned)} packages are pinned" + ("" if known is None else ", none with a known vulnerability"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
