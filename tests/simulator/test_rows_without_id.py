"""A listing with a row that has lost its id: nothing is taken for gone from it, and nothing goes that the row may use."""

import json
from pathlib import Path

import pytest

from devkit.client import OBEYS_TERM
from devkit.faults import Fault, FaultProxy
from reaper.simulator.docker.app import Behaviour
from tests.engine.lab import IMPATIENT, rows
from tests.run import Program
from tests.simulator.docker_world import World

OWNED = {"terminal-bench": "yes"}
PROJECT = {"com.docker.compose.project": "p", "com.docker.compose.container-number": "1"}
UNNAMED = Behaviour(unnamed=True)


@pytest.fixture
def program(world: World, tmp_path: Path) -> Program:
    return Program(tmp_path, {"DOCKER_HOST": world.host, **IMPATIENT})


@pytest.mark.parametrize("state", ["running", "paused", "created"])
def test_what_lives_and_cannot_be_told_apart_keeps_what_it_may_use(world: World, program: Program, state: str) -> None:
    """It may live in the namespace of whatever runs: no row tells, and without an id it cannot be inspected."""
    world.add("stranger", state=state, behaviour=UNNAMED)
    world.add("runs", labels=OWNED, state="running", command=OBEYS_TERM)
    world.add("ended", labels=OWNED)
    world.do(lambda: world.sim.networks.add("p_default", labels=PROJECT))
    world.add("member", labels={**OWNED, **PROJECT})
    ended = program("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"ended": "deleted", "member": "deleted"}
    assert rows(ended)["runs"]["reason"] == "in_use"
    assert rows(ended)["p_default"]["reason"] == "in_use"
    assert "its row has no Id" in ended.err
    assert {row["name"] for row in rows(program("list", "--json")).values()} >= {"stranger", "runs", "p_default"}


@pytest.mark.parametrize("state", ["exited", "dead"])
def test_what_has_ended_and_cannot_be_told_apart_keeps_nothing_else(world: World, program: Program, state: str) -> None:
    world.add("stranger", state=state, behaviour=UNNAMED)
    world.add("runs", labels=OWNED, state="running", command=OBEYS_TERM)
    ended = program("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"runs": "deleted"}  # it was looked for by its id, since the listing proves nothing


def test_one_that_comes_after_the_listing_keeps_what_it_may_use(world: World, tmp_path: Path) -> None:
    world.add("runs", labels=OWNED, state="running", command=OBEYS_TERM)
    with FaultProxy(world.socket) as proxy:
        program = Program(tmp_path, {"DOCKER_HOST": proxy.host, **IMPATIENT})
        look = proxy.hold("GET", "/containers/[0-9a-f]{64}/json")
        with program.start("--once", "--all", "--json") as process:
            look.reached()
            world.add("stranger", state="running", behaviour=UNNAMED)
            look.release()
            ended = program.finish(process)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"runs": "skipped"}
    assert rows(ended)["runs"]["detail"] == "stranger, which is kept, uses it"


def test_nothing_is_confirmed_by_a_listing_with_such_a_row(world: World, tmp_path: Path) -> None:
    """The engine says 204 and still has it, and the row that would tell has lost its id."""
    left, gone = world.add("left", labels=OWNED), world.add("gone", labels=OWNED)
    with FaultProxy(world.socket) as proxy:
        proxy.add(Fault("status", "DELETE", left.id, status=204, body=b""))
        listing = json.loads(json.dumps(world.api.must("GET", "/containers/json?all=1")))
        final = [{**row, "Id": None} for row in listing if row["Id"] == left.id]
        proxy.add(Fault("status", "GET", "containers/json[?]all=1$", skip=2, status=200, body=final))
        ended = Program(tmp_path, {"DOCKER_HOST": proxy.host, **IMPATIENT})("--once", "--stopped", "--json")
        asked = [call.path for call in proxy.calls("GET", f"({left.id}|{gone.id})/json")]
    assert ended.code == 3, ended.err
    assert ended.outcomes() == {"left": "failed", "gone": "deleted"}
    assert rows(ended)["left"]["error"] == "unconfirmed"
    assert "row without an id, and its inspection says exited" in rows(ended)["left"]["detail"]
    assert asked


def test_a_member_is_not_taken_for_gone_when_a_row_of_its_project_has_no_id(world: World, tmp_path: Path) -> None:
    member = world.add("member", labels={**OWNED, **PROJECT})
    with FaultProxy(world.socket) as proxy:
        [row] = world.api.must("GET", "/containers/json?all=1")
        proxy.add(Fault("status", "GET", "filters=", status=200, body=[{**row, "Id": None, "Labels": None}]))
        ended = Program(tmp_path, {"DOCKER_HOST": proxy.host, **IMPATIENT})("--once", "--stopped", "--json")
    assert ended.outcomes() == {"member": "failed"}
    assert "has a row without Id" in rows(ended)["member"]["detail"]
    assert world.inspect("member")["Id"] == member.id
