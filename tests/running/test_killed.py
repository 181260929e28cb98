"""Whatever is killed: what the run made goes, and nothing else does."""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from devkit.client import EngineClient
from tests.daytona.server import Served
from tests.engine.lab import containers
from tests.run import Program
from tests.running.lab import guards, until

MAKER = Path(__file__).with_name("maker.py")
WITHIN = 15.0  # seconds: the window of 10 and 5 more
MADE = 6


@pytest.mark.parametrize("killed", ["the command", "reaper run", "the process group"])
def test_all_that_it_made_goes_and_nothing_else(
    program: Program, served: Served, engine_of_run: EngineClient, killed: str
) -> None:
    engine = engine_of_run
    engine.create("neighbour", start=True)
    engine.create("foreign", start=True, labels={"reaper.lease": "another-run"})
    served.add("neighbour")
    env: Mapping[str, str] = {"DOCKER_HOST": engine.host, "WITH_COMMAND": "yes" if "reaper-" in engine.host else ""}
    arguments = ("run", "--skip-cleanup", "--no-proxy", "--", sys.executable, str(MAKER), str(MADE), str(MADE))
    with program.start(*arguments, env=env, start_new_session=True) as process, ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stdout is not None
        word, pid = process.stdout.readline().split()
        assert word == "ready"
        mine = {f"mine-{number}" for number in range(MADE)}
        assert containers(engine) == {"neighbour", "foreign", *mine}
        assert served.left() == {"neighbour", *mine}
        if killed == "the command":
            os.kill(int(pid), signal.SIGKILL)
            cause = "its command was killed by SIGKILL"
        elif killed == "reaper run":
            process.kill()
            cause = "killed"
        else:
            os.killpg(process.pid, signal.SIGKILL)
            cause = "killed"
        gone = {"neighbour", "foreign"}
        until(lambda: containers(engine) == gone and served.left() == {"neighbour"}, "something is left", WITHIN)
        ended = program.finish(process)
    assert ended.code == (137 if killed == "the command" else -9), ended.err
    if killed == "the command":
        assert f"local: {MADE} deleted" in ended.err
        assert f"default: {MADE} deleted" in ended.err
        assert program("list", env=env).code == 0  # the guard has been dismissed before
    until(lambda: len(acts(program)) == 2 * MADE, "they are not on record", WITHIN)
    assert bool(guards(program.folder)) == (killed != "the command"), "it is dismissed, or goes on looking for a while"
    for act in acts(program):
        assert (act["outcome"], act["reason"]) == ("deleted", "lease_ended")
        assert act["owner"].startswith("lease ")
        assert f"of pid {process.pid} on {os.uname().nodename} ended " in act["sentence"]
        assert act["sentence"].endswith(f" ago ({cause})")


def acts(program: Program) -> list[dict[str, str]]:
    found: list[dict[str, str]] = program("history", "--json", "--outcome", "deleted", "--limit", "none").document["acts"]
    return found
