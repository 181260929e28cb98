"""Searches all that the program says and writes in any test for secrets: a plugin of pytest.

The secrets of a test are what it hands to a process in a variable that is named as one, and what the tests use wherever
they need a secret. Searched are the output of processes, what a test reads of a service, what is printed and logged in the
test's own process, and the files that the program writes into the test's folder.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

USUAL = re.compile(rb"dtn_[0-9A-Za-z]{12,}|hunter2|s3cr3t|s3cret")
"""Keys as Daytona and its simulator make them, and the passwords and tokens of the tests."""

_NAMES = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD)(?!\w*_(?:ENV|FILE)$)")  # those say where a secret stands
_SHORTEST = 6  # characters: what is shorter is found by chance
_WRITTEN = (
    "*.db*",
    "*.log",
    "*.prom",
    "owned-*",
    "own-labels-*",
    "containers/*",
    "links-*",
    "evidence/*",
)  # by the program; tests write configurations and secrets
_LARGEST = 8 << 20  # bytes of a file that is read
_MAKE_SECRETS = {"simulate", "demo"}  # commands that print the keys of their own worlds

_secrets: set[bytes] = set()
_said: list[tuple[str, bytes]] = []


def note(where: str, said: str | bytes | None) -> None:
    """Have something searched when the test ends."""
    if said:
        _said.append((where, said.encode(errors="replace") if isinstance(said, str) else said))


def shown(said: Iterable[tuple[str, bytes]], secrets: Iterable[bytes]) -> list[str]:
    """Where one of the secrets, or a usual one, shows; without it."""
    search = re.compile(b"|".join([USUAL.pattern, *map(re.escape, sorted(secrets))]))
    return [f"{where}, behind {text[: found.start()][-80:]!r}" for where, text in said if (found := search.search(text))]


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for pattern in _WRITTEN:
        for file in folder.rglob(pattern):
            with suppress(OSError):  # a test has made it unreadable
                if file.is_file() and file.stat().st_size <= _LARGEST:
                    yield str(file), file.read_bytes()


def _is_searched(arguments: Any) -> bool:
    words = [str(word) for word in arguments] if isinstance(arguments, list | tuple) else []
    return "reaper" in words and not _MAKE_SECRETS & {*words}


@pytest.fixture(scope="session", autouse=True)
def outputs_are_noted() -> Iterator[None]:
    """Notes what processes say to those who wait for them, and what tests read of their own process's output."""
    patch = pytest.MonkeyPatch()
    start, communicate, read = subprocess.Popen.__init__, subprocess.Popen.communicate, pytest.CaptureFixture.readouterr

    def started(self: Any, *arguments: Any, **options: Any) -> None:
        for name, value in (options.get("env") or {}).items():
            if _NAMES.search(name) and len(value) >= _SHORTEST and not value.startswith("/"):
                _secrets.add(value.encode())
        start(self, *arguments, **options)

    def communicated(self: Any, *arguments: Any, **options: Any) -> Any:
        both = communicate(self, *arguments, **options)
        if _is_searched(self.args):
            for said in both:
                note("the output of a process", said)
        return both

    def was_read(self: Any) -> Any:
        both = read(self)
        for said in both:
            note("the output of this process", said)
        return both

    patch.setattr(subprocess.Popen, "__init__", started)
    patch.setattr(subprocess.Popen, "communicate", communicated)
    patch.setattr(pytest.CaptureFixture, "readouterr", was_read)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def no_secret_is_shown(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails the test in whose outputs a secret shows."""
    _secrets.clear()
    _said.clear()
    yield
    for when, kind, text in request.node._report_sections:
        note(f"{kind} of this process ({when})", text)
    folder = request.node.funcargs.get("tmp_path")
    files = _files(folder) if isinstance(folder, Path) else ()
    found = shown([*_said, *files], _secrets)
    assert not found, f"a secret shows in {'; '.join(found)}"
