"""The program itself, as a process, against the simulated engine."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from devkit.client import OBEYS_TERM
from reaper.simulator.docker.app import Behaviour
from reaper.simulator.faults import Fault
from tests.run import Program
from tests.simulator.docker_world import DAY, HOUR, World

OWNED = {"terminal-bench": "yes"}
SOON = {"REAPER_RETRY__INITIAL_DELAY": "20ms", "REAPER_RETRY__JITTER": "0"}


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        now = world.clock.now()
        project = {"com.docker.compose.project": "chess", "com.docker.compose.container-number": "1"}
        network = world.do(lambda: world.sim.networks.add("chess_default", labels=project))
        assert network.subnet
        world.add("leftover", labels=OWNED, finished=now - 12 * HOUR)
        world.add("old-and-running", labels=OWNED, age=3 * DAY, state="running", command=OBEYS_TERM)
        world.add("old-and-frozen", labels=OWNED, age=3 * DAY, state="paused", command=OBEYS_TERM)
        world.add("living", labels=OWNED, age=HOUR, state="running")
        world.add("just-stopped", labels=OWNED, age=5 * HOUR, finished=now - HOUR)
        world.add("kept", labels={**OWNED, "reaper.keep": ""}, finished=now - 12 * HOUR)
        world.add("database", age=30 * DAY, state="running", restart_policy="always", image="postgres:16")
        world.add(
            "chess-client",
            labels=project,
            image="tb__chess__client",
            age=3 * DAY,
            networks=("chess_default",),
            finished=now - DAY,
        )
        world.add("dead", labels=OWNED, state="dead", finished=now - 12 * HOUR)
        world.add("half-gone", labels=OWNED, finished=now - 12 * HOUR, behaviour=Behaviour(removal_failures=1))
        yield world


@pytest.fixture
def program(world: World, tmp_path: Path) -> Program:
    return Program(tmp_path, {"DOCKER_HOST": world.host, **SOON})


DOOMED = {"leftover", "old-and-running", "old-and-frozen", "chess-client", "dead", "half-gone", "chess_default"}


def test_once_list_check_and_explain(world: World, program: Program) -> None:
    listed = program("list", "--json")
    assert listed.code == 0, listed.err
    assert program("check").code == 6
    assert program("explain", "leftover").code == 0
    assert program("--once", "--dry-run").code == 0
    assert len(world.ids()) == 10
    ended = program("--once", "--json")
    assert ended.code == 0, ended.err
    assert {name for name, outcome in ended.outcomes().items() if outcome == "deleted"} == DOOMED
    assert sorted(container.name for container in world.sim.containers.values()) == [
        "database",
        "just-stopped",
        "kept",
        "living",
    ]
    assert world.networks() == []
    assert program("check").code == 0


def test_faults_are_retried(world: World, program: Program) -> None:
    world.faults.add(
        Fault(kind="status", status=500, method="DELETE", times=2),
        Fault(kind="reset", method="GET", path="/json$", every=5, times=2),
        Fault(kind="latency", seconds=0.01),
    )
    ended = program("--once", "--json")
    assert ended.code == 0, ended.err
    assert {name for name, outcome in ended.outcomes().items() if outcome == "deleted"} == DOOMED
    assert all(struck for _, _, struck in world.faults.rules())


def test_a_clock_that_is_wrong_deletes_nothing(world: World, program: Program) -> None:
    world.do(lambda: setattr(world.sim, "skew", timedelta(days=-2)))
    ended = program("--once", "--json")
    assert "living" not in {name for name, outcome in ended.outcomes().items() if outcome == "deleted"}
    assert world.state("database") == "running"
