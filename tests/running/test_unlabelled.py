"""What a run makes that carries no label: anonymous volumes, and the images that BuildKit builds for it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from devkit.api import EngineError
from devkit.client import EngineClient
from devkit.compose import COMMAND
from devkit.engine import PrivateEngine
from tests import needs
from tests.engine.lab import containers
from tests.run import NO_DAYTONA, Program
from tests.running.lab import end_guards, until
from tests.simulator.docker_world import World

LEAVER = Path(__file__).with_name("leaver.py")
FORGOTTEN = Path(__file__).with_name("forgotten.py")
WITHIN = 60.0  # seconds
ENGINES = pytest.mark.engines(*needs.DOCKERS)


@pytest.fixture
def runner(any_engine: EngineClient, tmp_path: Path) -> Iterator[Program]:
    yield Program(tmp_path, {"DOCKER_HOST": any_engine.host, **NO_DAYTONA})
    end_guards(tmp_path)


def volumes(engine: EngineClient) -> set[str]:
    return {volume["Name"] for volume in engine.api.must("GET", "/volumes")["Volumes"] or ()}


def of(engine: EngineClient, container: str) -> set[str]:
    return {mount["Name"] for mount in engine.api.must("GET", f"/containers/{container}/json")["Mounts"]}


@ENGINES
@pytest.mark.parametrize("end", ["normal", "killed"])
def test_anonymous_volumes_of_what_the_run_removed_go_and_no_others(
    any_engine: EngineClient, runner: Program, tmp_path: Path, end: str
) -> None:
    engine = any_engine
    engine.create("neighbour", volumes=["/data"], start=True)
    gone = engine.create("gone", volumes=["/data"])
    theirs = of(engine, "neighbour") | of(engine, gone)
    engine.remove(gone, volumes=False)
    command = [sys.executable, str(LEAVER), str(tmp_path), "sleep" if end == "killed" else "end"]
    with runner.start("run", "--skip-cleanup", "--", *command, start_new_session=True) as process, ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("{"), process.stderr and process.stderr.read()
        made = json.loads(line)
        (lent,) = made["lent"]
        engine.create("tenant", binds=[f"{lent}:/data"])
        engine.create("late", volumes=["/data"])
        theirs |= of(engine, "late")
        (tmp_path / "go").touch()
        assert process.stdout.readline() == "removed\n", process.stderr and process.stderr.read()
        assert {*made["mine"], *made["own"]} <= volumes(engine), "they were gone before the run's end"
        if end == "killed":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            assert runner.finish(process).code == 0
        until(lambda: not volumes(engine) & {*made["mine"], *made["own"]} - theirs, "some are left", WITHIN)
    assert volumes(engine) == theirs | {lent, "own"}, "what a container has stays, and what a client has named"
    gone_volumes = [act for act in acts(runner) if act["kind"] == "volume"]
    assert {act["reason"] for act in gone_volumes} == {"lease_ended"}
    assert "another client" not in json.dumps(gone_volumes), "an engine's own removal with a container is not another's"


def acts(program: Program) -> list[dict[str, str]]:
    found: list[dict[str, str]] = program("history", "--json", "--limit", "none").document["acts"]
    return found


def tags(engine: EngineClient) -> set[str]:
    """The repositories of all images. A listing of containerd's store fails while an image in it is being deleted."""
    try:
        rows = engine.api.must("GET", "/images/json")
    except EngineError:
        time.sleep(0.1)
        rows = engine.api.must("GET", "/images/json")
    return {tag.partition(":")[0] for image in rows for tag in image["RepoTags"] or ()}


def project(folder: Path) -> Path:
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM bench:1\nCOPY file /file\n")
    (folder / "file").write_text("the same in all")
    service = {"build": ".", "command": ["sleep", "1000"], "stop_grace_period": "0s", "network_mode": "none"}
    (folder / "compose.yaml").write_text(json.dumps({"services": {"db": service}}))
    return folder


@pytest.mark.engine
@pytest.mark.engines("docker-28.5", "docker-28.5-containerd")
@pytest.mark.parametrize("end", ["killed", "down"])
def test_images_that_were_built_for_a_run_go_and_no_others(engine: PrivateEngine, tmp_path: Path, end: str) -> None:
    """They were built from the cache, so the engine says that they are as old as the first build."""
    program = Program(tmp_path, {"DOCKER_HOST": engine.host, "HOME": str(tmp_path), **NO_DAYTONA})
    ours, theirs = project(tmp_path / "ours"), project(tmp_path / "theirs")

    def compose(name: str, folder: Path, *words: str) -> list[str]:
        file = str(folder / "compose.yaml")
        return engine._running_cell().inside(COMMAND, "--ansi", "never", "-p", name, "-f", file, *words)

    def outside(*words: str) -> None:
        done = subprocess.run(words, env=program.env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr

    def steps(*commands: Sequence[str]) -> str:
        return " && ".join(f"{shlex.join(command)} >&2" for command in commands)

    outside(*compose("neighbour", theirs, "build"))
    outside(*compose("before", ours, "build"))  # the same one is built again under the lease: it was there before
    identical = engine.api.must("GET", "/images/before-db/json")["Id"]
    script = steps(
        compose("ours", ours, "up", "-d", "--build"),
        compose("tagged", ours, "up", "-d", "--build"),
        compose("used", ours, "up", "-d", "--build"),
        compose("before", ours, "up", "-d", "--build"),
    )
    if end == "down":
        script += " && " + steps(*(compose(name, ours, "down") for name in ("ours", "tagged", "used", "before")))
    with ExitStack() as stack:
        stack.callback(end_guards, tmp_path)
        words = ("run", "--skip-cleanup", "--", "sh", "-c", f"{script} && echo ready && exec sleep 1000")
        process = stack.enter_context(program.start(*words, start_new_session=True))
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
        outside(*compose("neighbour", theirs, "up", "-d", "--build"))  # in the lease's time, by another
        engine.api.must("POST", "/images/tagged-db/tag?repo=wanted&tag=1")
        engine.create("tenant", image="used-db")
        os.killpg(process.pid, signal.SIGKILL)
        until(lambda: "ours-db" not in tags(engine), f"it is left: {program('list').out}", WITHIN)
        until(lambda: len(engine.ids()) == 2, "a container is left", WITHIN)
        left = {"bench", "neighbour-db", "tagged-db", "wanted", "used-db"}
        if "containerd" not in engine.flavour.name:  # that store makes another one of each build, which was not there before
            left |= {"before-db"}
            assert engine.api.must("GET", "/images/before-db/json")["Id"] == identical
        until(lambda: tags(engine) == left, f"not these alone are left: {left}", WITHIN)


@pytest.mark.engines("docker-28.5-containerd")
def test_a_container_whose_image_the_run_has_built_again_goes_at_its_end(engine: PrivateEngine, tmp_path: Path) -> None:
    """The store forgets the image, and so whether the label of the lease came with that: the run was seen to make it."""
    engine.import_image()
    (tmp_path / "Dockerfile").write_text("FROM bench:1\nCOPY mark /mark\n")
    docker, steps = shlex.join(engine.docker_command()), []
    for name in ("first", "second"):
        steps += [f"echo {name} > {tmp_path}/mark", f"{docker} build --quiet --tag acme/x:1 {tmp_path}"]
        steps += [f"{docker} run --detach --name {name} --network none acme/x:1 sleep 1000"]
    runner = Program(tmp_path, {"DOCKER_HOST": engine.host, **NO_DAYTONA})
    try:
        ended = runner("run", "--", "sh", "-ec", "\n".join(steps))
    finally:
        end_guards(tmp_path)
    assert ended.code == 0, ended.err
    assert not engine.api.must("GET", "/containers/json?all=1"), ended.err
    assert {act["name"] for act in acts(runner) if act["kind"] == "container"} == {"first", "second"}
    engine.clear()
    engine.remove_images()


@ENGINES
@pytest.mark.parametrize("end", ["normal", "killed"])
def test_containers_of_forgotten_images_go_and_no_others(
    any_engine: EngineClient, runner: Program, tmp_path: Path, end: str
) -> None:
    """Any engine forgets the image of a container that does not run. A neighbour's image may carry the lease's label."""
    engine = any_engine
    for name in ("own", "kept"):
        engine.labelled_image(f"{name}:1", {})
    with (
        runner.start("run", "--", sys.executable, str(FORGOTTEN), str(tmp_path), start_new_session=True) as process,
        ExitStack() as stack,
    ):
        stack.callback(process.kill)
        assert process.stdout is not None
        lease = process.stdout.readline().strip()
        engine.labelled_image("copy:1", {"reaper.lease": lease})
        neighbour = engine.create("neighbour", image="copy:1")
        (tmp_path / "copied").touch()
        assert process.stdout.readline() == "made\n", process.stderr and process.stderr.read()
        assert engine.inspect(neighbour)["Config"]["Labels"]["reaper.lease"] == lease
        for name in ("own", "copy"):
            engine.api.must("DELETE", f"/images/{name}:1?force=1")
        if end == "killed":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            (tmp_path / "go").touch()
            assert runner.finish(process).code == 0
        until(lambda: containers(engine) == {"neighbour"}, f"not right: {containers(engine)}", WITHIN)
    assert {act["reason"] for act in acts(runner)} == {"lease_ended"}
    engine.clear()
    engine.remove_images()


def test_a_running_container_goes_whose_image_the_engine_has_forgotten(tmp_path: Path) -> None:
    """As Docker's containerd store forgets one."""
    with World(forgets_images=True) as engine:
        engine.import_image()
        runner = Program(tmp_path, {"DOCKER_HOST": engine.host, **NO_DAYTONA})
        again = "from devkit.client import EngineClient as E; import os; e = E(os.environ['DOCKER_HOST'].removeprefix('unix://'))"
        script = f"{again}; e.create('mine', start=True); e.labelled_image('bench:1', {{}})"
        try:
            ended = runner("run", "--", sys.executable, "-c", script)
        finally:
            end_guards(tmp_path)
        assert ended.code == 0, ended.err
        assert containers(engine) == set(), ended.err
