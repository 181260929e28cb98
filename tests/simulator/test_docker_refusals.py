"""What an engine refuses, or does not answer, told apart: it never works, it may work later, or it is fine."""

import json
from pathlib import Path
from typing import Any

import pytest

from devkit.client import OBEYS_TERM
from devkit.faults import Fault, FaultProxy
from reaper.simulator.docker.app import Behaviour
from reaper.simulator.docker.life import Life
from tests.engine.lab import reasons, rows
from tests.run import Program
from tests.simulator.docker_world import World

OWNED = {"terminal-bench": "yes"}
PROJECT = {"com.docker.compose.project": "p", "com.docker.compose.container-number": "1"}
SOON = {"REAPER_RETRY__INITIAL_DELAY": "20ms", "REAPER_RETRY__JITTER": "0"}


@pytest.fixture
def program(world: World, tmp_path: Path) -> Program:
    return Program(tmp_path, {"DOCKER_HOST": world.host, **SOON})


@pytest.mark.parametrize("command", [("list",), ("check",), ("--once", "--stopped"), ("--once", "--stopped", "--dry-run")])
def test_a_removal_that_blocks_every_request_is_left_in_short_time(
    world: World, program: Program, command: tuple[str, ...]
) -> None:
    container = world.add("going", labels=OWNED, behaviour=Behaviour(removal=3600, blocks=True))
    world.do(lambda: Life(world.sim).remove(container, container.id, volumes=True, force=False))
    world.add("other", labels=OWNED)
    ended = program(*command, "--json")
    assert ended.code == (6 if command == ("check",) else 0), ended.err
    assert "attempt_failed" not in ended.err
    if command != ("check",):
        assert reasons(ended)["going"] == "changing"
        assert "being removed" in rows(ended)["going"]["sentence"]


def test_a_container_whose_layer_is_lost_fails_at_the_first_try_with_a_remedy(world: World, program: Program) -> None:
    world.add("lost", labels=OWNED, behaviour=Behaviour(lost=True))
    world.add("other", labels=OWNED)
    ended = program("--once", "--stopped", "--json")
    assert ended.code == 3
    assert ended.outcomes() == {"lost": "failed", "other": "deleted"}
    assert "docker rm --force" in rows(ended)["lost"]["detail"]
    assert "attempt_failed" not in ended.err


@pytest.mark.parametrize("state", ["exited", "running"])
def test_a_foreign_container_whose_layer_is_lost_does_not_keep_what_has_ended(
    world: World, program: Program, state: str
) -> None:
    world.add("lost", state=state, behaviour=Behaviour(lost=True))
    world.add("ended", labels=OWNED)
    world.add("runs", labels=OWNED, state="running", command=OBEYS_TERM)
    ended = program("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"ended": "deleted"} | ({"runs": "deleted"} if state == "exited" else {})


def test_a_network_with_a_stale_endpoint_is_a_failure_with_a_remedy(world: World, program: Program) -> None:
    network = world.do(lambda: world.sim.networks.add("p_default", labels=PROJECT))
    world.do(lambda: setattr(network, "stale", "gone"))
    world.add("member", labels={**OWNED, **PROJECT})
    ended = program("--once", "--stopped", "--json")
    assert ended.code == 3
    assert ended.outcomes() == {"member": "deleted", "p_default": "failed"}
    assert "docker network disconnect --force" in rows(ended)["p_default"]["detail"]


def stale(world: World, key: str, name: str = "p-client-1") -> str:
    """A network of a project, with the endpoint of a container that is gone."""
    network = world.do(lambda: world.sim.networks.add("p_default", labels=PROJECT))
    network.stale, network.stale_key = name, key
    world.add("member", labels={**OWNED, **PROJECT})
    return network.id


@pytest.mark.parametrize("key", ["e" * 64, "ep-" + "e" * 64], ids=["of its sandbox", "of its own"])
def test_a_network_is_freed_of_what_a_container_that_is_gone_has_left_on_it(world: World, tmp_path: Path, key: str) -> None:
    network = stale(world, key)
    with FaultProxy(world.socket) as proxy:
        ended = Program(tmp_path, {"DOCKER_HOST": proxy.host, **SOON})("--once", "--stopped", "--json")
        changes = [(call.method, call.path.partition(network)[2], call.status) for call in proxy.calls("*", network)]
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"member": "deleted", "p_default": "deleted"}
    assert [change for change in changes if change[0] != "GET"] == [
        ("DELETE", "", 403),
        ("POST", "/disconnect", 200),
        ("DELETE", "", 204),
    ]


@pytest.mark.parametrize(
    ("foreign", "key"),
    [
        ({"name": "p-client-1"}, "e" * 64),
        ({"name": "p-client-1", "state": "created"}, "ep-1"),
        ({"name": "other", "networks": ("p_default",)}, "e" * 64),
        ({"name": "other", "networks": ("p_default",), "state": "created"}, "e" * 64),
        ({"name": "other", "state": "running", "behaviour": Behaviour(unnamed=True)}, "e" * 64),
    ],
    ids=["of its name", "of its name, never started", "on the network", "to be on the network", "without an id"],
)
def test_nothing_is_disconnected_while_a_container_may_be_meant(
    world: World, tmp_path: Path, foreign: dict[str, Any], key: str
) -> None:
    stale(world, key)
    world.add(**foreign)
    with FaultProxy(world.socket) as proxy:
        Program(tmp_path, {"DOCKER_HOST": proxy.host, **SOON})("--once", "--stopped", "--json")
        assert proxy.calls("POST") == []
    assert world.networks() == ["p_default"]


def test_what_is_of_no_listed_container_and_is_found_by_its_id_is_left(world: World, tmp_path: Path) -> None:
    """A listing may lag: the inspection is asked as well."""
    network = stale(world, "e" * 64)
    with FaultProxy(world.socket) as proxy:
        proxy.add(Fault("status", "GET", f"/containers/{'e' * 64}/json", status=200, body={"Id": "e" * 64}))
        ended = Program(tmp_path, {"DOCKER_HOST": proxy.host, **SOON})("--once", "--stopped", "--json")
        assert proxy.calls("POST") == []
        assert proxy.calls("DELETE", network) == []
    assert ended.outcomes() == {"member": "deleted", "p_default": "skipped"}


def podman(message: str) -> bytes:
    return json.dumps({"cause": message.rpartition(": ")[2], "message": message, "response": 500}).encode()


IMPROPER = podman("container 1 is running or paused, refusing to clean up: container state improper")


def test_podman_is_let_go_of_what_is_paused_before_it_is_stopped(world: World, tmp_path: Path) -> None:
    frozen = world.add("frozen", labels=OWNED, state="paused", command=OBEYS_TERM)
    with FaultProxy(world.socket) as proxy:
        proxy.add(Fault("status", "POST", "/stop", times=1, status=500, body=IMPROPER))
        ended = Program(tmp_path, {"DOCKER_HOST": proxy.host, **SOON})("--once", "--all", "--json")
        asked = [(call.method, call.path.partition(frozen.id)[2]) for call in proxy.log if call.method != "GET"]
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"frozen": "deleted"}
    assert asked == [("POST", "/stop?t=10"), ("POST", "/unpause"), ("POST", "/stop?t=10"), ("DELETE", "?v=1")]


@pytest.mark.parametrize(
    ("message", "tries"),
    [
        ("cleaning up storage: some new reason: internal libpod error", 1),
        ("saving the state: database is locked: internal libpod error", 4),
    ],
)
def test_a_refusal_with_a_cause_is_tried_once_unless_it_passes(
    world: World, tmp_path: Path, message: str, tries: int
) -> None:
    world.add("it", labels=OWNED)
    with FaultProxy(world.socket) as proxy:
        proxy.add(Fault("status", "DELETE", "", status=500, body=podman(message)))
        ended = Program(tmp_path, {"DOCKER_HOST": proxy.host, **SOON})("--once", "--stopped", "--json")
        tried = len(proxy.calls("DELETE", ""))
    assert ended.code == 3
    assert ended.outcomes() == {"it": "failed"}
    assert message in rows(ended)["it"]["detail"]
    assert tried == tries if tries == 1 else tried >= tries


def test_a_pull_is_refused_since_the_registry_has_none(world: World) -> None:
    status, answer = world.api.post("/images/create?fromImage=nginx&tag=latest")
    assert (status, answer["message"].partition(",")[0]) == (404, "pull access denied for nginx")
