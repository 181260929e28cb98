"""Writes every generated file: ``python -m devkit.generate``.

A module that makes files has ``FILES``: the path, relative to the top of the work tree, and what makes the text.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from devkit.generate import dashboards, kubernetes, manual, metrics, openapi, proxy, reference, reliability, swarm

ROOT = Path(__file__).resolve().parent.parent.parent

FILES: Mapping[Path, Callable[[], str]] = {
    **dashboards.FILES,
    **kubernetes.FILES,
    **manual.FILES,
    **metrics.FILES,
    **openapi.FILES,
    **proxy.FILES,
    **reference.FILES,
    **reliability.FILES,
    **swarm.FILES,
}


def stale() -> dict[Path, str]:
    """The files that are not as they would be made now, each with what would stand in it."""
    made = {path: make() for path, make in FILES.items()}
    return {path: text for path, text in made.items() if _read(ROOT / path) != text}


def main() -> int:
    """Write what is not up to date, and say which files those are."""
    for path, text in stale().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
        print(path)
    return 0


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
