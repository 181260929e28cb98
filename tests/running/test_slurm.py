"""Slurm's scripts: a job's lease lasts from its prolog to its epilog, and neither ever fails."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from devkit.client import EngineClient
from tests.engine.lab import containers
from tests.run import Program
from tests.running.lab import until

FOLDER = Path(__file__).parents[2] / "deploy/slurm"
JOBS = Path("/run/reaper-slurm")
PATH = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"


class Job:
    """A job, as the scripts see it."""

    def __init__(self, program: Program) -> None:
        self.id = f"test-{uuid.uuid4().hex}"
        self.env = {**program.env, "PATH": PATH, "SLURM_JOB_ID": self.id}

    def run(self, script: str, **env: str) -> str:
        done = subprocess.run(
            [FOLDER / script], env={**self.env, **env}, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture
def job(program: Program) -> Iterator[Job]:
    if os.geteuid() != 0:
        pytest.skip("only root may write to /run")
    job = Job(program)
    yield job
    job.run("epilog.sh")
    shutil.rmtree(JOBS / job.id, ignore_errors=True)


def test_what_carries_the_label_is_kept_from_the_prolog_to_the_epilog_and_goes_then(
    program: Program, engine_of_run: EngineClient, job: Job
) -> None:
    job.env["DOCKER_HOST"] = engine_of_run.host
    assert job.run("prolog.sh") == ""
    variables = dict(line.removeprefix("export ").split("=", 1) for line in job.run("task_prolog.sh").splitlines())
    (known,) = program("leases", "list", "--json").document["leases"]
    assert (known["id"], known["state"]) == (variables["REAPER_LEASE"], "live")
    label, _, value = variables["REAPER_LABEL"].partition("=")
    engine_of_run.create("mine", start=True, labels={label: value})
    engine_of_run.create("neighbour", start=True)
    engine_of_run.create("foreign", start=True, labels={label: "another-job"})
    assert program("--once", "--all", env={"DOCKER_HOST": engine_of_run.host}).code == 0
    assert containers(engine_of_run) == {"mine", "neighbour", "foreign"}
    assert job.run("epilog.sh") == ""
    until(lambda: containers(engine_of_run) == {"neighbour", "foreign"}, "it is left", 30.0)
    assert job.run("task_prolog.sh") == ""


@pytest.mark.parametrize("path", ["/usr/bin:/bin", "/nowhere"], ids=["without reaper", "without any program"])
def test_no_script_fails_a_job_that_has_no_lease(job: Job, path: str) -> None:
    for script in ("prolog.sh", "task_prolog.sh", "epilog.sh"):
        assert job.run(script, PATH=path) == ""


@pytest.mark.parametrize("script", ["prolog.sh", "task_prolog.sh", "epilog.sh"])
def test_no_script_fails_outside_of_a_job(job: Job, script: str) -> None:
    assert job.run(script, SLURM_JOB_ID="") == ""


def test_the_epilog_ends_no_other_process_that_has_the_id_of_the_job_s_own(job: Job) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        (JOBS / job.id).mkdir(parents=True)
        (JOBS / job.id / "pid").write_text(f"{other.pid}\n")
        job.run("epilog.sh")
        assert other.poll() is None
        other.kill()
