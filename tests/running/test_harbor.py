"""The Harbor plugin: what a job creates is leased until its end, and goes when it has ended or was killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devkit.client import EngineClient
from devkit.engine import PrivateEngine
from tests.engine.lab import containers
from tests.run import Program
from tests.running.lab import guards, until
from tests.running.runners import HARBOR, RealRunner, in_trial

JOB = Path(__file__).with_name("harbor_job.py")
ROOT = JOB.parents[2]
OTHERS = {"neighbour", "foreign"}


@contextmanager
def running(program: Program, engine: EngineClient, jobs: int, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Harbor's part, beside a neighbour's containers, which are as old as its own."""
    for name, labels in {"neighbour": {}, "foreign": {"reaper.lease": "another-run"}}.items():
        engine.create(name, start=True, labels=labels)
    command = [sys.executable, str(JOB), str(program.folder), str(jobs), *options]
    env = {**program.env, "DOCKER_HOST": engine.host, "PYTHONPATH": str(ROOT)}
    pipes: Mapping[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=env, cwd=program.folder, text=True, start_new_session=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: "subprocess.Popen[str]") -> Any:
    assert process.stdout is not None
    assert process.stderr is not None
    return json.loads(process.stdout.readline() or json.dumps(process.stderr.read()))


def go_on(process: "subprocess.Popen[str]") -> Any:
    """Have the next job end."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return line(process)


def test_what_a_job_made_goes_at_its_end_and_nothing_else(program: Program, engine_of_run: EngineClient) -> None:
    with running(program, engine_of_run, 1) as process:
        seen = line(process)
        assert seen["sandbox"]["labels"] == {"run": "mine", "reaper.lease": seen["lease"]}
        made = engine_of_run.api.must("GET", "/containers/mine-0/json")
        assert made["Config"]["Labels"]["reaper.lease"] == seen["lease"]
        assert containers(engine_of_run) == {*OTHERS, "mine-0"}
        (known,) = program("leases", "list", "--json").document["leases"]
        assert (known["id"], known["state"]) == (seen["lease"], "live")
        after = go_on(process)
        assert containers(engine_of_run) == OTHERS
        assert after["variables"] == {"DOCKER_HOST": engine_of_run.host, "REAPER_LEASE": None}
        assert after["sandbox"]["labels"] == {"run": "mine"}
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "mine-0" in err


@pytest.mark.parametrize("killed", ["Harbor", "its process group"])
def test_what_a_killed_job_made_goes_and_nothing_else(program: Program, engine_of_run: EngineClient, killed: str) -> None:
    with running(program, engine_of_run, 1) as process:
        assert line(process)["lease"]
        if killed == "Harbor":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        until(lambda: containers(engine_of_run) == OTHERS, "something is left", 15.0)
    until(lambda: not guards(program.folder), "its guard was not dismissed")


def test_jobs_that_run_side_by_side_keep_one_lease_until_the_last_has_ended(
    program: Program, engine_of_run: EngineClient
) -> None:
    with running(program, engine_of_run, 2) as process:
        lease = line(process)["lease"]
        labels = [engine_of_run.api.must("GET", f"/containers/mine-{n}/json")["Config"]["Labels"] for n in (0, 1)]
        assert [found["reaper.lease"] for found in labels] == [lease, lease]
        assert go_on(process)["variables"]["REAPER_LEASE"] == lease
        assert containers(engine_of_run) == {*OTHERS, "mine-0", "mine-1"}
        assert go_on(process)["variables"]["REAPER_LEASE"] is None
        assert containers(engine_of_run) == OTHERS


def test_a_job_that_is_to_keep_its_containers_has_no_lease(program: Program, engine_of_run: EngineClient) -> None:
    with running(program, engine_of_run, 1, "keep_containers=yes") as process:
        assert line(process)["lease"] is None
        go_on(process)
        assert containers(engine_of_run) == {*OTHERS, "mine-0"}


def test_a_job_without_a_lease_does_not_start(program: Program, engine_of_run: EngineClient) -> None:
    with running(program, engine_of_run, 1, "max_age=soon") as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert err.startswith("reaper: no lease can be taken, so the job was not started: ")
    assert "soon" in err
    assert "Traceback" not in err
    assert containers(engine_of_run) == OTHERS


def projects(engine: PrivateEngine) -> set[str]:
    """What the running jobs have: the names of their tasks, of whatever kind."""
    found = [c["Labels"]["com.docker.compose.project"] for c in engine.api.must("GET", "/containers/json?all=1")]
    found += [n["Name"] for n in engine.api.must("GET", "/networks") if "__" in n["Name"]]
    found += [t for i in engine.api.must("GET", "/images/json") for t in i["RepoTags"] or () if "__" in t]
    return {name.partition("__")[0] for name in found}


@pytest.mark.engine
@pytest.mark.engines("docker-28.5")
def test_harbor_itself_killed_in_mid_trial_leaves_nothing_and_a_neighbour_s_job_goes_on(
    engine: PrivateEngine, program: Program, tmp_path: Path
) -> None:
    harbor = RealRunner(HARBOR, tmp_path / "harbor", engine, program)
    plugin = ("--plugin", "reaper.harbor:Lease")

    with harbor.job("killed", *plugin) as killed, harbor.job("neighbour", *plugin) as neighbour:
        until(lambda: len(in_trial(engine)) == 2, "the trials do not run", 240.0)
        assert projects(engine) == {"killed", "neighbour"}
        killed.kill()
        until(lambda: projects(engine) == {"neighbour"}, "something is left", 30.0)
        assert neighbour.poll() is None
        (ident,) = in_trial(engine)
        exec_ = engine.api.must("POST", f"/containers/{ident}/exec", {"Cmd": ["touch", "/go"]})
        engine.api.must("POST", f"/exec/{exec_['Id']}/start", {"Detach": True})
        assert neighbour.wait(120) == 0, harbor.said("neighbour")
    results = json.loads((harbor.folder / "jobs/neighbour/result.json").read_text())
    (of_agent,) = results["stats"]["evals"].values()
    assert (of_agent["n_errors"], of_agent["metrics"]) == (0, [{"mean": 1.0}])
    assert projects(engine) == set()
