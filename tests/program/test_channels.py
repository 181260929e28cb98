"""stdin, stdout and stderr, closed, broken or full: nothing that is done depends on them, and no exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from contextlib import ExitStack
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


ALL = """
import gc, json, os, runpy, sys
import aiodocker, anyio._backends._asyncio, structlog
import reaper.cli.commands, reaper.cli.history, reaper.config.check, reaper.config.show
import reaper.observers.journal, reaper.observers.tables, reaper.providers.docker.client, reaper.session

gc.freeze()
codes = {}
for name, arguments, env in json.loads(sys.argv[1]):
    if (child := os.fork()) == 0:
        os.environ.update(env)
        sys.argv[1:] = arguments
        runpy.run_module("reaper", run_name="__main__", alter_sys=True)
    codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
with open(sys.argv[2], "w") as file:
    json.dump(codes, file)
"""


def codes_of(program: Program, names: Collection[str], way: str, env: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """The exit codes of the program, run for each of these commands in a shell that redirects it in some ``way``.

    Each is the fork of a process that has been started with these channels: a start is what takes long.
    """
    redirections, pipe, reader = way.partition("|")
    script = f'"$@" {redirections} {f"| {reader}" if pipe else ""}; exit ${{PIPESTATUS[0]}}'
    told = program.folder / "codes.json"
    orders = json.dumps([(name, COMMANDS[name][0], env[name]) for name in names])
    command = ["bash", "-c", script, "bash", sys.executable, "-c", ALL, orders, str(told)]
    root = {"PYTHONPATH": os.getcwd()}  # noqa: PTH109
    assert subprocess.run(command, env={**program.env, **root}, cwd=program.folder, check=False, timeout=120).returncode == 0
    return dict(json.loads(told.read_text()))


def fill(fake: FakeEngine) -> set[str]:
    names = {f"old-{number}" for number in range(6)}
    for name in names:
        fake.add(name, ago="30h")
    return names


@pytest.mark.parametrize("way", WAYS)
def test_no_channel_changes_what_is_done(run: Program, way: str) -> None:
    tried = COMMANDS if way in WORST else ("once", "once json", "check")
    with ExitStack() as stack:
        engines = {name: stack.enter_context(FakeEngine()) for name in tried}
        names = set[str]().union(*map(fill, engines.values()))
        state = {name: str(run.folder / name) for name in tried}
        env = {name: {"DOCKER_HOST": engine.host, "STATE_DIRECTORY": state[name]} for name, engine in engines.items()}
        assert codes_of(run, tried, way, env) == {name: COMMANDS[name][1] for name in tried}
        for name, engine in engines.items():
            acts = "--once" in COMMANDS[name][0] and COMMANDS[name][1] == 0
            assert engine.names() == (set() if acts else names), name


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
