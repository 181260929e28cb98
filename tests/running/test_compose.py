"""What the benchmark runners start carries no label of reaper's: the proxy gives it the lease's."""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from devkit import compose
from devkit.compose import HARBOR_FILE
from devkit.engine import PrivateEngine
from tests import needs
from tests.program.wrapped import started
from tests.run import Program
from tests.running.lab import end_guards, until
from tests.running.test_killed import WITHIN, acts

pytestmark = [pytest.mark.engine, pytest.mark.engines("docker-20.10", "docker-28.5")]
TRIAL = "chess-best-move-1-of-1-2026-11-21__06-30-00"
SESSION = "build-cython-ext__x7k2m9q"
SERVICE = {"command": ["sh", "-c", "trap exit TERM; sleep 1000 & wait"]}


def file(folder: Path, path: str, image: str, name: str) -> Path:
    """A Compose file as the runners' own ones are: a service that sleeps, a network, and a volume with a name."""
    found = folder / path
    found.parent.mkdir(parents=True, exist_ok=True)
    services: Mapping[str, Any] = {
        name: {**SERVICE, "image": image, "volumes": ["data:/data"]},
        "db": {**SERVICE, "image": "bench:1", "restart": "always"},
    }
    found.write_text(json.dumps({"version": "3.7", "services": services, "volumes": {"data": {}}}))
    return found


def up(engine: PrivateEngine, project: str, path: Path) -> str:
    return f"{shlex.join(engine.compose_command())} -p {project} -f {path} up -d >/dev/null"


def held(engine: PrivateEngine) -> set[str]:
    """The projects that have anything there."""
    key = "com.docker.compose.project"
    found = [c["Labels"] for c in engine.api.must("GET", "/containers/json?all=1")]
    found += [n["Labels"] or {} for n in engine.api.must("GET", "/networks")]
    found += [v["Labels"] or {} for v in engine.api.must("GET", "/volumes")["Volumes"] or ()]
    return {labels[key] for labels in found if key in labels}


def test_projects_of_both_runners_go_with_their_run_and_others_stay(engine: PrivateEngine, tmp_path: Path) -> None:
    if (reason := compose.available()) is not None:
        needs.lacking(reason)
    program = Program(tmp_path, {"DOCKER_HOST": engine.host})
    image = engine.tag("bench:1", "tb__chess-best-move__client:latest")
    trial = file(tmp_path / "tb", "tasks/chess-best-move/docker-compose.yaml", image, "client")
    session = file(tmp_path / "hb", HARBOR_FILE, "bench:1", "main")
    script = f"{up(engine, TRIAL, trial)} && {up(engine, SESSION, session)} && echo ready && exec sleep 1000"
    other = f"{up(engine, 'neighbour-1-of-1-x', trial)} && echo ready && exec sleep 1000"
    with ExitStack() as stack:
        stack.callback(end_guards, tmp_path)
        quickly = ("run", "--skip-cleanup", "--", "sh", "-c")
        first = stack.enter_context(program.start(*quickly, script, start_new_session=True))
        stack.callback(first.kill)
        second = stack.enter_context(started(program, *quickly, other))
        for process in (first, second):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
        subprocess.run(["sh", "-c", up(engine, "unleased-1-of-1-x", trial)], env=program.env, check=True, timeout=60)
        projects = {TRIAL, SESSION, "neighbour-1-of-1-x", "unleased-1-of-1-x"}
        assert held(engine) == projects
        os.killpg(first.pid, signal.SIGKILL)
        until(lambda: held(engine) == projects - {TRIAL, SESSION}, "something is left", WITHIN)
        second.send_signal(signal.SIGTERM)
        ended = program.finish(second)
        assert ended.code == 143
        assert "local: 4 deleted" in ended.err or "local: 5 deleted" in ended.err
        assert held(engine) == {"unleased-1-of-1-x"}
        assert len(engine.ids()) == 2
    until(lambda: len(acts(program)) >= 12, "they are not on record", WITHIN)
    assert {act["name"].rpartition("_")[0] for act in acts(program) if act["kind"] == "network"} == {
        TRIAL,
        SESSION,
        "neighbour-1-of-1-x",
    }
