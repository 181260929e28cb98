"""The simulated engine and a real one, side by side. Where they differ, the simulator is wrong."""

import json
import time
from contextlib import suppress
from typing import Any

import pytest

from devkit.client import IGNORES_TERM, OBEYS_TERM, EngineClient
from devkit.engine import PrivateEngine
from reaper.simulator.docker.app import Behaviour
from tests.simulator.docker_calls import call, filters, reply_shape, shape
from tests.simulator.docker_script import SESSIONS
from tests.simulator.docker_world import World

RUNNING = "You cannot remove a running container {id}. Stop the container before attempting removal or force remove"
RESTARTING = "You cannot remove a restarting container {id}. Stop the container before attempting removal or force remove"


@pytest.fixture(params=["simulator", pytest.param("engine", marks=pytest.mark.engine)])
def side(request: pytest.FixtureRequest) -> EngineClient:
    """The simulator, and the real engine."""
    client: EngineClient = request.getfixturevalue("world" if request.param == "simulator" else "engine")
    return client


def replay(client: EngineClient, session: str) -> list[tuple[str, Any]]:
    for image in client.api.must("GET", "/images/json"):
        client.api.delete(f"/images/{image['Id']}?force=1")
    client.import_image()
    replies = []
    for step in SESSIONS[session]:
        if step[0] == "UNTIL":
            client.wait_state(step[1], step[2])
        elif step[0] == "DELETE-ID":
            ident = client.api.must("GET", f"/images/{step[1]}/json")["Id"]
            replies.append((f"{step}", reply_shape(call(client, "DELETE", f"/images/{ident}?noprune=1"))))
        else:
            replies.append((f"{step[0]} {step[1]} {step[2:]}", reply_shape(call(client, *step))))
    return replies


@pytest.fixture(scope="module")
def firewall() -> bool:
    return True  # what the engine tells of its networks depends on it


@pytest.mark.engine
@pytest.mark.parametrize("session", SESSIONS)
def test_session_has_the_same_answers(session: str, world: World, engine: PrivateEngine) -> None:
    for (step, theirs), (_, ours) in zip(replay(engine, session), replay(world, session), strict=True):
        assert ours == theirs, step


def test_sessions_pass_without_a_server_error_of_our_own(world: World) -> None:
    for session in SESSIONS:
        for step, reply in replay(world, session):
            assert reply["status"] < 500 or "message" in reply["body"], step


# What reaper asks, in each state


@pytest.mark.parametrize(("command", "code"), [(OBEYS_TERM, 0), (IGNORES_TERM, 137)])
def test_stop_is_obeyed_or_ends_in_a_kill(side: EngineClient, command: tuple[str, ...], code: int) -> None:
    ident = side.create("stops", cmd=command, start=True)
    began = time.monotonic()
    side.stop_container(ident, 1)
    assert (time.monotonic() - began >= 0.99) is (code == 137)
    assert side.inspect(ident)["State"]["ExitCode"] == code


def test_restarting_container(side: EngineClient) -> None:
    ident = side.make_restarting("loops")
    reply = call(side, "DELETE", f"/containers/{ident}?v=1")
    assert (reply.status, reply.message) == (409, RESTARTING.format(id=ident))
    row, found = side.listed(ident), side.inspect(ident)["State"]
    assert (row["State"], found["Status"], found["Running"], found["Restarting"]) == ("restarting", "restarting", True, True)
    assert row["Status"].startswith("Restarting (1)")
    assert call(side, "POST", f"/containers/{ident}/pause").message.endswith(
        "is restarting, wait until the container is running"
    )
    assert call(side, "POST", f"/containers/{ident}/stop?t=1").status == 204
    assert side.inspect(ident)["State"]["ExitCode"] == 1
    assert side.state(ident) == "exited"


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_stopped_by_hand_stays_stopped(side: EngineClient, policy: str) -> None:
    for verb in ("kill", "stop?t=0"):
        ident = side.create(f"{policy}-{verb[:4]}", restart=policy, start=True)
        side.api.must("POST", f"/containers/{ident}/{verb}")
        side.wait_state(ident, "exited")
        assert side.state(ident) == "exited"
        assert side.inspect(ident)["RestartCount"] == 0


def test_rebuilt_tag_shows_as_an_id(side: EngineClient) -> None:
    side.import_image("tb__chess__client:latest")
    ident = side.create("old", image="tb__chess__client")
    side.rebuild_tag("tb__chess__client:latest")
    assert side.listed(ident)["Image"].startswith("sha256:")
    assert side.inspect(ident)["Config"]["Image"] == "tb__chess__client"


def test_prefixes_and_names(side: EngineClient) -> None:
    ids = [side.create(f"many-{number}") for number in range(17)]
    firsts = [ident[0] for ident in ids]
    twice = next(first for first in firsts if firsts.count(first) > 1)
    assert side.inspect(ids[0][:20])["Id"] == ids[0]
    assert side.inspect("many-3")["Id"] == ids[3]
    reply = call(side, "DELETE", f"/containers/{twice}")
    assert (reply.status, reply.message) == (500, f"Multiple IDs found with provided prefix: {twice}")
    reply = call(side, "POST", "/containers/create?name=many-0", {"Image": "bench:1", "Cmd": ["true"]})
    assert (reply.status, reply.message) == (
        409,
        f'Conflict. The container name "/many-0" is already in use by container "{ids[0]}". '
        "You have to remove (or rename) that container to be able to reuse that name.",
    )
    assert [row["Id"] for row in side.api.must("GET", "/containers/json?all=1")] == ids[::-1]


def test_events_tell_a_life(side: EngineClient) -> None:
    ident = side.create("lives", cmd=IGNORES_TERM, labels={"x": "y"}, start=True)
    side.pause_container(ident)
    side.unpause_container(ident)
    side.stop_container(ident, 0)
    side.start_container(ident)
    side.pause_container(ident)
    side.remove(ident, force=True)
    answer = side.api.must("GET", f"/events?since=0&until={time.time() + 0.001:.6f}&{filters(type=['container'])}")
    events = [event for line in answer.splitlines() if (event := json.loads(line))["Actor"]["ID"] == ident]
    # A real engine that is short of time tells of a pause and its end twice.
    actions = " ".join(event["Action"] for event in events).replace("pause unpause pause unpause", "pause unpause")
    assert actions == "create start pause unpause kill kill die stop start pause kill die destroy"
    by_action = {event["Action"]: event["Actor"]["Attributes"] for event in events}
    assert events[0]["from"] == "bench:1"
    assert by_action["start"] == {"image": "bench:1", "name": "lives", "x": "y"}
    assert [event["Actor"]["Attributes"]["signal"] for event in events if event["Action"] == "kill"] == ["15", "9", "9"]
    assert by_action["die"]["exitCode"] == "137"


# States that only trouble brings: made in different ways, seen alike


def trouble(client: EngineClient, ident: str) -> list[Any]:
    """What a container that is on its way out says to each verb."""
    verbs = ("start", "stop", "kill", "pause")
    said = [reply_shape(call(client, "POST", f"/containers/{ident}/{verb}")) for verb in verbs]
    row, found = client.listed(client.inspect(ident)["Id"]), client.inspect(ident)["State"]
    return [*said, row["State"], row["Status"], shape({**found, "Error": bool(found["Error"])})]


@pytest.mark.engine
def test_removal_in_progress(world: World, engine: PrivateEngine) -> None:
    frozen = world.add("slow", behaviour=Behaviour(removal=3600.0), command=("true",))
    with suppress(TimeoutError):
        world.api.request("DELETE", f"/containers/{frozen.id}?v=1", timeout=0.2)
    ours = trouble(world, "slow")
    again = call(world, "DELETE", "/containers/slow?force=1")
    ident = engine.create("slow", cmd=("true",), start=True)
    engine.wait_state(ident, "exited")
    with engine.removing(ident):
        assert trouble(engine, "slow") == ours
        assert reply_shape(call(engine, "DELETE", "/containers/slow?force=1")) == reply_shape(again)
    assert again.message == "removal of container slow is already in progress"


@pytest.mark.engine
def test_failed_removal(world: World, engine: PrivateEngine) -> None:
    ours = world.add("half", behaviour=Behaviour(removal_failures=1), command=("true",)).id
    failed = call(world, "DELETE", f"/containers/{ours}?v=1")
    assert failed.status == 500
    assert failed.message.startswith(f"unable to remove filesystem for {ours}: ")
    theirs = engine.create("half", cmd=("true",), start=True)
    engine.wait_state(theirs, "exited")
    engine.fail_removal(theirs)
    assert engine.inspect(theirs)["State"]["Error"].startswith(f"unable to remove filesystem for {theirs}: ")
    assert trouble(engine, "half") == trouble(world, "half")
    assert (world.state(ours), world.listed(ours)["State"]) == ("dead", "removing")
    for client, ident in ((engine, theirs), (world, ours)):
        assert call(client, "DELETE", f"/containers/{ident}?v=1").status == 204
        assert client.state(ident) == "gone"


@pytest.mark.engine
def test_dead_container(world: World, engine: PrivateEngine) -> None:
    world.add("dead", state="dead", command=("true",))
    ident = engine.create("dead", cmd=("true",), start=True)
    engine.wait_state(ident, "exited")
    engine.make_dead(ident)
    assert trouble(engine, "dead") == trouble(world, "dead")
    assert world.listed(world.inspect("dead")["Id"])["State"] == "dead"
    for client in (engine, world):
        assert call(client, "DELETE", "/containers/dead?v=1").status == 204
