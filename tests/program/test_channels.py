"""stdin, stdout and stderr, closed, broken or full: nothing that is done depends on them, and no exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program.fakeengine import FakeEngine
from tests.run import Program

COMMANDS = {
    "list": (("list",), 0),
    "check": (("check",), 6),
    "check json": (("check", "--json"), 6),
    "once": (("--once",), 0),
    "once at all levels": (("--once", "--log-level", "debug"), 0),
    "once json": (("--once", "--json"), 0),
    "explain": (("explain", "old-1"), 0),
    "history": (("history",), 0),
    "config check": (("config", "check"), 0),
    "config show": (("config", "show"), 0),
    "config schema": (("config", "schema"), 0),
    "a mistake": (("--onze",), 2),
    "a bad file": (("--once", "--config", "/nowhere"), 2),
    "version": (("--version",), 0),
    "help": (("--help",), 0),
}
WAYS = [">&-", "2>&-", "<&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full", "| true", "2>&1 | true"]
WORST = ["<&- >&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 | true"]


def shell(program: Program, arguments: tuple[str, ...], way: str, **env: str) -> int:
    """The exit code of the program, run by a shell that redirects it in some ``way``."""
    redirections, pipe, reader = way.partition("|")
    script = f'"$@" {redirections} {f"| {reader}" if pipe else ""}; exit ${{PIPESTATUS[0]}}'
    command = ["bash", "-c", script, "bash", sys.executable, "-m", "reaper", *arguments]
    return subprocess.run(command, env={**program.env, **env}, cwd=program.folder, check=False, timeout=120).returncode


def fill(fake: FakeEngine) -> set[str]:
    names = {f"old-{number}" for number in range(6)}
    for name in names:
        fake.add(name, ago="30h")
    return names


TRIED = [(name, way) for name in COMMANDS for way in (WAYS if name in ("once", "once json", "check") else WORST)]


@pytest.mark.parametrize(("name", "way"), TRIED)
def test_no_channel_changes_what_is_done(run: Program, fake: FakeEngine, name: str, way: str) -> None:
    (arguments, code), names = COMMANDS[name], fill(fake)
    assert shell(run, arguments, way) == code
    acts = "--once" in arguments and code == 0
    assert fake.names() == (set() if acts else names)


def test_what_was_to_be_printed_and_is_lost_is_reported(run: Program, fake: FakeEngine) -> None:
    fill(fake)
    script = '"$@" >/dev/full'
    command = ["bash", "-c", script, "bash", sys.executable, "-m", "reaper", "list"]
    ended = subprocess.run(command, env=run.env, cwd=run.folder, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "reaper: what was to be printed is lost: No space left on device\n")


def test_a_reader_of_the_log_that_does_not_read_holds_nothing_up(run: Program, fake: FakeEngine) -> None:
    for number in range(400):
        fake.add(f"old-{number}", ago="30h")
    reading, writing = os.pipe()
    try:
        command = [sys.executable, "-m", "reaper", "--once", "--json", "--log-level", "debug"]
        ended = subprocess.run(command, env=run.env, cwd=run.folder, check=False, stdout=-1, stderr=writing, timeout=110)
        assert ended.returncode == 0
        assert json.loads(ended.stdout)["counts"]["deleted"] == 400
        assert fake.names() == set()
    finally:
        os.close(reading)
        os.close(writing)


def test_a_pipe_that_does_not_block_gets_all(run: Program, fake: FakeEngine, tmp_path: Path) -> None:
    fill(fake)
    whole = run("config", "schema").out
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from reaper.cli import main; main(['config', 'schema']); main(['config', 'schema'])",
        ],
        env={**run.env, "PYTHONPATH": os.getcwd()},  # noqa: PTH109
        cwd=tmp_path,
        stdout=writing,
    )
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:  # noqa: PTH123
        found = pipe.read()
    assert process.wait(60) == 0
    assert found == 2 * whole
