"""No output channel changes what is done or the exit code: closed, full or with a reader that has left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daytona.server import Served
from tests.program.wrapped import patched
from tests.run import LIMIT, Program
from tests.running.lab import guards
from tests.running.test_run import Making

FULL = "/dev/full"
CHANNELS = {
    "stderr closed": "2>&-",
    "stderr full": f"2>{FULL}",
    "stdout closed": ">&-",
    "both closed": ">&- 2>&-",
    "all closed": "<&- >&- 2>&-",
    "the reader left": "2>&1 | true",
    "the reader leaves": "2>&1 | head -c 1 >/dev/null",
}


def shell(program: Program, line: str, *words: str) -> int:
    """The exit code of reaper in a bash pipeline, with the command's words as arguments."""
    code = '"$@" ' + line + "\nexit ${PIPESTATUS[0]}"
    command = ["bash", "-c", code, "bash", *words]
    return subprocess.run(command, env=program.env, cwd=program.folder, timeout=LIMIT, check=False).returncode


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_run_cleans_up_and_exits_as_its_command(program: Program, served: Served, channel: str) -> None:
    """With a log line for each step, and a report."""
    command = ("sh", "-c", '"$@" >/dev/null 2>&1; exit 7', "sh", *Making({"mine": {}, "mine-too": {}}).words)
    words = (sys.executable, "-m", "reaper", "run", "--no-proxy", "--log-level", "info", "--", *command)
    assert shell(program, CHANNELS[channel], *words) == 7
    assert served.left() == set()
    assert not guards(program.folder), "it is dismissed"


@pytest.mark.parametrize("channel", ["stderr full", "all closed", "the reader left"])
def test_strict_and_what_cannot_be_run_keep_their_codes(program: Program, served: Served, channel: str) -> None:
    run = (sys.executable, "-m", "reaper", "run", "--no-proxy", "--skip-cleanup")
    assert shell(program, CHANNELS[channel], *run, "--", "nosuch") == 127
    served.sim.faults.add("status:403,method=DELETE,path=/sandbox/", "status:403,method=POST,path=/stop")
    quiet = ("sh", "-c", '"$@" >/dev/null 2>&1', "sh", *Making({"x": {}}).words)
    assert shell(program, CHANNELS[channel], *run, "--strict", "--", *quiet) == 3


SHOWS = """
import os
found = set()
for number in range(3):
    try:
        os.fstat(number)
    except OSError:
        found.add(number)
print(*found, file=open("closed", "w"))
"""


@pytest.mark.parametrize("closed", [{0}, {1}, {2}, {0, 1, 2}], ids=str)
def test_the_command_finds_closed_what_was_closed(program: Program, closed: set[int], tmp_path: Path) -> None:
    """And no file of this program's in its place, such as the leases'."""
    words = (sys.executable, "-m", "reaper", "run", "--no-proxy", "--skip-cleanup", "--", sys.executable, "-c", SHOWS)
    assert shell(program, " ".join(f"{number}>&-" for number in closed), *words) == 0
    assert {*map(int, (tmp_path / "closed").read_text().split())} == closed


def test_a_pipe_that_another_process_made_non_blocking_gets_all(program: Program) -> None:
    """As Node does with the pipe that it shares."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    env = {**program.env, "REAPER_SCOPE__NAMES": ",".join(f"n{number}-*" for number in range(10_000))}
    with subprocess.Popen(
        [sys.executable, "-m", "reaper", "config", "show", "--json"], env=env, cwd=program.folder, stdout=writing
    ) as process:
        os.close(writing)
        with os.fdopen(reading) as pipe:
            text = pipe.read()
    assert process.returncode == 0
    assert "n9999-*" in text


@pytest.mark.parametrize("fault", ["method=GET,path=/sandbox", "method=DELETE,path=/sandbox/"])
@pytest.mark.parametrize("first", [(), ("--skip-cleanup",)], ids=["after a sweep", "no sweep before it"])
def test_a_retry_prints_no_line_of_its_library(program: Program, served: Served, fault: str, first: tuple[str, ...]) -> None:
    """What is retried in vain is in the report; without a log, which a sweep before it would open, that is all."""
    served.sim.faults.add(f"status:500,{fault}")
    quick = {"REAPER_RETRY__INITIAL_DELAY": "10ms", "REAPER_RETRY__MAX_DELAY": "10ms", "REAPER_RETRY__JITTER": "0s"}
    command = ("sh", "-c", '"$@" >/dev/null', "sh", *Making({"x": {}}).words)
    ended = program("run", "--no-proxy", "--only", "daytona", *first, "--", *command, env=quick)
    assert ended.code == 0
    assert "the server answered 500" in ended.err + ended.out
    assert "stamina" not in ended.err + ended.out


@pytest.mark.parametrize("strict", [(), ("--strict",)], ids=["", "strict"])
@pytest.mark.parametrize("broken", ["reaper.run.hold.clean_up", "reaper.observers.outcomes.leaked_resources"])
def test_a_bug_in_the_clean_up_leaves_the_exit_code(
    program: Program, served: Served, broken: str, strict: tuple[str, ...]
) -> None:
    """It is reported in a line, without a traceback; with --strict what is unknown does not pass for clean."""
    module, _, name = broken.rpartition(".")
    patch = f"""
import {module} as owner
def broken(*_arguments, **_options):
    raise ValueError("a bug")
owner.{name} = broken
"""
    served.sim.faults.add("status:403,method=DELETE,path=/sandbox/", "status:403,method=POST,path=/stop")
    command = ("sh", "-c", '"$@" >/dev/null; exit 7', "sh", *Making({"x": {}}).words)
    ended = patched(program, patch, "run", "--no-proxy", "--only", "daytona", *strict, "--skip-cleanup", "--", *command)
    assert ended.code == (3 if strict else 7), ended.err
    assert "ValueError: a bug" in ended.err
    assert "Traceback" not in ended.err
