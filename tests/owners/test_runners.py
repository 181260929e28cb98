"""Runs of real runners, not under ``reaper run``: what a killed one left goes, what a living one has stays.

One round by default; ``REAPER_RUNS_KILLED`` says how many.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from devkit.engine import PrivateEngine
from tests.run import Program
from tests.running.lab import until
from tests.running.runners import RUNNERS, TERMINAL_BENCH, RealRunner, Runner, in_trial

ROUNDS = int(os.environ.get("REAPER_RUNS_KILLED", "1"))
CONFIG = """
[scope]
presets = ["{preset}"]
[[docker]]
name = "local"
host = "{host}"
[[owner]]
processes = {processes}
[[policy]]
name = "orphaned"
kinds = ["container"]
orphaned_for = "2s"
every = "1s"
"""
HIDES = "import os, runpy; runpy.run_path(os.environ['HIDDEN'], run_name='__main__')"


COMMANDS = {
    "harbor": {
        "/venv/bin/python /venv/bin/harbor run -p task": True,
        "/venv/bin/python /venv/bin/harbor job resume -p jobs/1": True,
        "/venv/bin/python -c from harbor.cli.main import app; app() run -c /tmp/a.json": True,  # its viewer's
        "/venv/bin/python /venv/bin/harbor view jobs": False,
        "vim /venv/bin/harbor": False,
    },
    "terminal-bench": {
        "/venv/bin/python /venv/bin/tb run -d terminal-bench-core": True,
        "/venv/bin/python /venv/bin/terminal-bench run": True,
        "bash -c docker exec -it a bash; T_BENCH_TASK_DOCKER_CLIENT_IMAGE_NAME=a docker compose down": True,  # interact
        "grep tb run": False,
    },
    "inspect-ai": {
        "/venv/bin/python /venv/bin/inspect eval-set a.py": True,
        "/venv/bin/python -m inspect_ai._cli.main eval a.py --json --no-detach": True,  # detached
        "/venv/bin/python /venv/bin/inspect view": False,
    },
}


each = pytest.mark.parametrize("runner", RUNNERS, ids=lambda runner: runner.preset)


@each
def test_the_documented_patterns_match_each_process_that_makes_something(runner: Runner) -> None:
    documents = (Path(__file__).parents[2] / "docs" / "owners.md").read_text()
    assert f"`{json.dumps(runner.processes)}`" in documents
    for command, makes in COMMANDS[runner.preset].items():
        assert any(fnmatchcase(command, glob) for glob in runner.processes) is makes, command


class Host:
    """A private engine, a runner, and a reaper for what it makes."""

    def __init__(self, engine: PrivateEngine, folder: Path, runner: Runner) -> None:
        self.engine, self.program = engine, Program(folder)
        self.runner = RealRunner(runner, folder / "jobs", engine, self.program)
        globs = [glob.replace("*/bin/", f"*{self.runner.folder}/bin/") for glob in runner.processes]
        config = CONFIG.format(preset=runner.preset, host=engine.host, processes=json.dumps(globs))
        (folder / "reaper.toml").write_text(config)

    def begin(self, stack: ExitStack, job: str, *before: str, options: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """Start a job, and wait until its task waits in a container."""
        trials = len(in_trial(self.engine))
        process = stack.enter_context(self.runner.job(job, *options, before=before))
        until(lambda: len(in_trial(self.engine)) > trials or process.poll() is not None, f"{job} is in no trial", 240.0)
        assert process.poll() is None, self.runner.said(job)
        return process

    def left(self, job: str = "") -> set[str]:
        """The containers and networks of a job, or of all, by name."""
        found = {c["Names"][0].strip("/") for c in self.engine.api.must("GET", "/containers/json?all=1")}
        found |= {n["Name"] for n in self.engine.api.must("GET", "/networks") if n["Labels"]}
        return {name for name in found if job in name}

    def sweep(self, seconds: int) -> dict[str, str]:
        """What a sweep does that waits so long for what is due soon."""
        ended = self.program("--once", "--json", "--wait", "--timeout", f"{seconds}s")
        assert ended.code == 0, ended.out + ended.err
        return ended.outcomes()

    def grow_older(self) -> None:
        """Wait until what is started now is told from what has made the last container: by two seconds, in whole ones."""
        made = max(c["Created"] for c in self.engine.api.must("GET", "/containers/json?all=1"))
        until(lambda: time.time() - made > 4, "it does not become older")


@pytest.mark.engine
@pytest.mark.engines("docker-28.5")
@pytest.mark.parametrize("number", range(ROUNDS))
@each
def test_what_a_killed_run_left_goes_and_what_a_living_one_has_stays(
    engine: PrivateEngine, tmp_path: Path, runner: Runner, number: int
) -> None:
    host = Host(engine, tmp_path, runner)
    with ExitStack() as stack:
        dies = host.begin(stack, f"dies{number}")
        host.grow_older()
        lives = host.begin(stack, f"lives{number}")
        its, others = host.left("dies"), host.left("lives")
        assert len(its) == len(others) == 2, host.left()
        assert host.sweep(5) == {}
        dies.kill()
        dies.wait()
        assert host.sweep(60) == dict.fromkeys(its, "deleted")
        assert host.left() == others
        assert len(in_trial(engine)) == 1
        assert lives.poll() is None
    assert host.sweep(60) == dict.fromkeys(others, "deleted")


@pytest.mark.engine
@pytest.mark.engines("docker-28.5")
def test_what_a_run_has_taken_over_from_a_killed_one_stays(engine: PrivateEngine, tmp_path: Path) -> None:
    """Terminal-Bench uses the container that an earlier run with the same --run-id has left running."""
    host = Host(engine, tmp_path, TERMINAL_BENCH)

    def at_work() -> int:
        (trial,) = in_trial(engine)
        return len(engine.inspect(trial)["ExecIDs"] or ())

    with ExitStack() as stack:
        dies = host.begin(stack, "again", options=("--run-id", "nightly"))
        assert host.sweep(5) == {}
        dies.kill()
        dies.wait()
        host.grow_older()
        left = at_work()
        lives = stack.enter_context(host.runner.job("again", "--run-id", "nightly"))
        until(lambda: at_work() > left or lives.poll() is not None, "the second run is in no trial", 60.0)
        assert host.sweep(10) == {}
        assert len(in_trial(engine)) == 1
        assert lives.poll() is None, host.runner.said("again")
    assert {*host.sweep(60).values()} == {"deleted"}


@pytest.mark.engine
@pytest.mark.engines("docker-28.5")
@each
def test_nothing_of_a_run_that_is_hidden_goes(engine: PrivateEngine, tmp_path: Path, runner: Runner) -> None:
    """Neither of a living one nor of a dead one, also where one was seen before."""
    host = Host(engine, tmp_path, runner)
    with ExitStack() as stack:
        host.begin(stack, "seen")
        assert host.sweep(5) == {}
    assert {*host.sweep(60).values()} == {"deleted"}
    with ExitStack() as stack:
        python = str(host.runner.venv / "python")
        host.begin(stack, "lives", python, "-c", HIDES)
        dies = host.begin(stack, "dies", python, "-c", HIDES)
        dies.kill()
        dies.wait()
        hidden = host.left()
        assert len(hidden) == 4
        assert host.sweep(10) == host.sweep(10) == {}
        assert host.left() == hidden
