"""The GitHub Action: what a job's steps create is leased, and goes at the job's end or with the runner."""

import subprocess
import sys
from pathlib import Path

import docker  # type: ignore[import-untyped]
import pytest

from devkit.client import OBEYS_TERM, EngineClient
from tests import needs
from tests.engine.lab import containers
from tests.run import Program
from tests.running.lab import until

FOLDER = Path(__file__).parents[2] / "deploy/github-action"
RUNNER = 'node "$1/main.js" >&2 || exit 1; echo ready; read -r word; STATE_pid=$(sed -n s/pid=//p state) STATE_log=$(sed -n s/log=//p state) node "$1/post.js"'  # noqa: E501


def test_it_is_as_the_schema_has_it() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-actions",
        str(FOLDER / "action.yml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("ends", [True, False], ids=["the job ends", "the runner is killed"])
def test_what_the_steps_made_goes_and_nothing_else(program: Program, engine_of_run: EngineClient, ends: bool) -> None:
    needs.tool("node", "nodejs")
    engine_of_run.create("neighbour", start=True)
    folder = program.folder
    env = {
        **program.env,
        "PATH": f"{Path(sys.executable).parent}:{program.env['PATH']}",
        "DOCKER_HOST": engine_of_run.host,
        "RUNNER_TEMP": str(folder),
        "GITHUB_ENV": str(folder / "env"),
        "GITHUB_STATE": str(folder / "state"),
        "INPUT_PACKAGE": "",
        "INPUT_SWEEP": "--dry-run",
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = ["sh", "-c", RUNNER, "sh", str(FOLDER)]
    with subprocess.Popen(command, env=env, cwd=folder, text=True, **pipes) as runner:  # type: ignore[call-overload]
        try:
            assert runner.stdout.readline() == "ready\n", runner.stderr.read()
            given = dict(line.split("=", 1) for line in (folder / "env").read_text().splitlines())
            client = docker.DockerClient(given["DOCKER_HOST"])
            client.containers.run("bench:1", OBEYS_TERM, name="mine", detach=True, network_mode="none")
            client.close()
            assert containers(engine_of_run) == {"neighbour", "mine"}
            made = engine_of_run.api.must("GET", "/containers/mine/json")
            assert made["Config"]["Labels"]["reaper.lease"] == given["REAPER_LEASE"]
            if ends:
                out, err = runner.communicate("\n", timeout=60)
                assert (runner.returncode, containers(engine_of_run)) == (0, {"neighbour"}), err
                assert "mine" in out
        finally:
            runner.kill()
    until(lambda: containers(engine_of_run) == {"neighbour"}, "something is left", 20.0)
