"""The simulated engine on a clock that stands still until a test turns it."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from devkit.client import IGNORES_TERM, OBEYS_TERM
from reaper.simulator.clock import Clock
from reaper.simulator.docker.app import Behaviour, DockerSimulator, Engine, add_container, load
from reaper.simulator.docker.model import behaviour_of
from reaper.simulator.docker.text import NS, human, rfc3339
from reaper.simulator.world import ContainerSpec, NetworkSpec
from tests.simulator.docker_calls import call, filters
from tests.simulator.docker_world import DAY, HOUR, World

START = datetime(2026, 11, 21, 6, tzinfo=UTC)


@pytest.fixture
def world() -> Iterator[World]:
    with World(Clock(START, rate=0)) as world:
        world.import_image()
        yield world


class Request:
    """A request under way in a thread."""

    def __init__(self, world: World, method: str, path: str) -> None:
        self.status: int | None = None
        self.body: Any = None

        def run() -> None:
            reply = call(world, method, path)
            self.status, self.body = reply.status, reply.body

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def done(self) -> bool:
        """Whether it was answered within a blink."""
        self._thread.join(0.05)
        return self.status is not None

    def answer(self) -> int:
        """Its status, once it is there."""
        self._thread.join(60)
        assert self.status is not None
        return self.status


def under_way(world: World, condition: Callable[[], bool]) -> None:
    """Return once the server has taken a request up."""
    for _ in range(10_000):
        if world.do(condition):
            return
    raise AssertionError("the request did not come")


def test_stop_waits_for_the_grace_and_cancelling_it_does_not_end_it(world: World) -> None:
    container = world.sim.containers[world.create("stubborn", cmd=IGNORES_TERM, start=True)]
    with pytest.raises(TimeoutError):
        world.api.request("POST", "/containers/stubborn/stop", timeout=0.1)
    second = Request(world, "POST", "/containers/stubborn/stop?t=60")
    under_way(world, lambda: container.stops == 2)
    world.turn(seconds=9.9)
    assert not second.done()
    assert world.state("stubborn") == "running"
    world.turn(seconds=0.1)
    assert second.answer() == 204
    assert world.inspect("stubborn")["State"]["ExitCode"] == 137
    assert world.inspect("stubborn")["State"]["FinishedAt"].startswith("2026-11-21T06:00:10")


def test_a_slow_ending_is_waited_for(world: World) -> None:
    behaviour = Behaviour(stops_in=4, stop_code=143)
    world.add("slow", state="running", behaviour=behaviour)
    request = Request(world, "POST", "/containers/slow/stop?t=10")
    under_way(world, lambda: world.sim.names["slow"].stops == 1)
    world.turn(seconds=4)
    assert request.answer() == 204
    assert world.inspect("slow")["State"]["ExitCode"] == 143


def test_a_grace_without_end(world: World) -> None:
    world.create("patient", cmd=IGNORES_TERM, start=True)
    request = Request(world, "POST", "/containers/patient/stop?t=-1")
    under_way(world, lambda: world.sim.names["patient"].stops == 1)
    world.turn(days=3)
    assert not request.done()
    world.kill_container("patient")
    assert request.answer() == 204


def test_what_was_due_long_ago_has_its_own_time(world: World) -> None:
    world.create("brief", cmd=("sleep", "30"), start=True)
    world.turn(days=7)
    found = world.inspect("brief")
    assert found["State"]["FinishedAt"].startswith("2026-11-21T06:00:30")
    assert world.listed(found["Id"])["Status"] == "Exited (0) 7 days ago"


def test_time_stands_still_for_a_paused_process(world: World) -> None:
    ident = world.create("paused", cmd=("sleep", "30"), start=True)
    world.turn(seconds=10)
    world.pause_container(ident)
    world.turn(hours=1)
    world.unpause_container(ident)
    world.turn(seconds=19)
    assert world.state(ident) == "running"
    world.turn(seconds=1)
    assert world.state(ident) == "exited"


def test_restarts_back_off_up_to_a_minute(world: World) -> None:
    ident = world.create("loops", cmd=("false",), restart="always", start=True)
    for number, pause in enumerate((0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60), 1):
        assert world.state(ident) == "restarting"
        assert world.inspect(ident)["RestartCount"] == number
        world.turn(seconds=pause * 0.99)
        assert world.inspect(ident)["RestartCount"] == number
        world.turn(seconds=pause * 0.011)
    assert world.listed(ident)["Status"].startswith("Restarting (1)")
    world.stop_container(ident)
    world.turn(days=1)
    assert world.state(ident) == "exited"


def test_on_failure_gives_up(world: World) -> None:
    body = {
        "Image": "bench:1",
        "Cmd": ["false"],
        "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}},
    }
    call(world, "POST", "/containers/create?name=tries", body)
    world.start_container("tries")
    world.turn(hours=1)
    assert (world.state("tries"), world.inspect("tries")["RestartCount"]) == ("exited", 2)


def test_a_process_that_lasted_is_restarted_at_once(world: World) -> None:
    ident = world.create("lasts", cmd=("sleep", "11"), restart="always", start=True)
    for count in (1, 2, 3):
        world.turn(seconds=11.01)
        assert world.inspect(ident)["RestartCount"] == count
        world.turn(seconds=0.1)
        assert world.state(ident) == "running"


def test_removal_takes_time_and_goes_on_without_its_client(world: World) -> None:
    world.add("big", behaviour=Behaviour(removal=20))
    with pytest.raises(TimeoutError):
        world.api.request("DELETE", "/containers/big?v=1", timeout=0.1)
    assert world.listed(world.inspect("big")["Id"])["Status"] == "Removal In Progress"
    assert call(world, "DELETE", "/containers/big").message == "removal of container big is already in progress"
    world.turn(seconds=20)
    assert world.state("big") == "gone"


def test_removals_fail_as_often_as_told(world: World) -> None:
    container = world.add("stuck", behaviour=Behaviour(removal_failures=2), volumes={"/v": ""})
    for _ in range(2):
        assert call(world, "DELETE", "/containers/stuck?v=1").status == 500
        assert (world.state("stuck"), world.listed(container.id)["State"]) == ("dead", "removing")
        assert len(world.volumes()) == 1
    assert call(world, "DELETE", "/containers/stuck?v=1").status == 204
    assert world.volumes() == []


def test_events_until_a_time_to_come(world: World) -> None:
    until = START.timestamp() + 60
    request = Request(world, "GET", f"/events?until={until:.0f}&{filters(type=['container'])}")
    under_way(world, lambda: world.sim.events.listeners == 1)
    world.create("seen", cmd=("sleep", "30"), start=True)
    assert not request.done()
    world.turn(seconds=60)
    assert request.answer() == 200
    assert [event["Action"] for event in request.body] == ["create", "start", "die"]
    assert world.api.must("GET", "/info")["NEventsListener"] == 0


def test_skew_shifts_the_date_and_all_times(world: World) -> None:
    world.do(lambda: setattr(world.sim, "skew", timedelta(hours=-5)))
    old = world.add("old", age=DAY)
    reply = call(world, "GET", "/containers/json?all=1")
    assert parsedate_to_datetime(reply.headers["date"]) == START - 5 * HOUR
    assert reply.body[0]["Created"] == int((START - 5 * HOUR - DAY).timestamp())
    assert reply.body[0]["Status"] == "Exited (0) About an hour ago"
    assert world.inspect(old.id)["State"]["FinishedAt"] == "2026-11-21T00:00:00Z"


def test_latency_is_on_the_clock() -> None:
    with World(Clock(START, rate=0), latency=0.5) as world:
        request = Request(world, "GET", "/_ping")
        assert not request.done()
        world.turn(seconds=0.5)
        assert request.answer() == 200


def test_kill_and_start_take_the_time_they_are_given() -> None:
    with World(Clock(START, rate=0), kill_takes=2, start_takes=3) as world:
        world.add("runs", state="running")
        removal = Request(world, "DELETE", "/containers/runs?force=1")
        under_way(world, lambda: world.sim.names["runs"].removing)
        assert world.state("runs") == "running"
        world.turn(seconds=2)
        assert removal.answer() == 204
        world.add("rests")
        start = Request(world, "POST", "/containers/rests/start")
        assert not start.done()
        world.turn(seconds=3)
        assert start.answer() == 204


def test_pool_of_ids_is_the_same_for_the_same_seed() -> None:
    def ids(seed: int) -> list[str]:
        engine = Engine(Clock(START, rate=0), seed=seed)
        return [add_container(engine, name=f"c{number}", image="bench:1").id for number in range(3)]

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)


def test_a_world_is_loaded(world: World) -> None:
    network = NetworkSpec(name="p_default", created=START - DAY, labels={"com.docker.compose.project": "p"})
    spec = ContainerSpec(
        name="p-client",
        image="tb__chess__client",
        labels={"com.docker.compose.project": "p"},
        state="running",
        created=START - DAY,
        started=START - DAY,
        networks=("p_default",),
        restart_policy="always",
    )
    world.do(lambda: load(world.sim, [spec], [network]))
    row = world.listed(world.inspect("p-client")["Id"])
    assert (row["Status"], row["Image"], row["Created"]) == (
        "Up 24 hours",
        "tb__chess__client",
        int((START - DAY).timestamp()),
    )
    assert list(row["NetworkSettings"]["Networks"]) == ["p_default"]
    assert world.inspect("p-client")["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert call(world, "DELETE", "/networks/p_default").status == 403
    state = json.loads(json.dumps(world.do(world.server.dump)))
    assert state == {"containers": {"running": 1}, "networks": 1, "volumes": 0, "images": 2}


def test_a_listing_of_many_is_quick_to_repeat() -> None:
    engine = Engine(Clock(START, rate=0))
    labels = {"terminal-bench": "yes"}
    made = [add_container(engine, name=f"c{number}", image="bench:1", labels=labels) for number in range(5_000)]
    from reaper.simulator.docker.json import listing

    first = listing(engine, engine.newest_first())
    rows = json.loads(first)
    assert [row["Id"] for row in rows] == [container.id for container in reversed(made)]
    assert listing(engine, engine.newest_first()) == first
    engine.clock.advance(timedelta(seconds=181))
    assert {row["Status"] for row in json.loads(listing(engine, engine.newest_first()))} == {"Exited (0) 3 minutes ago"}


def test_the_application_closes_its_streams(world: World) -> None:
    request = Request(world, "GET", "/events")
    under_way(world, lambda: world.sim.events.listeners == 1)
    world.do(world.sim.events.end)
    assert request.answer() == 200
    assert isinstance(world.server, DockerSimulator)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (172_799, "2 days"),
        (8 * 86_400, "8 days"),
        (15 * 86_400, "2 weeks"),
        (49 * 86_400, "7 weeks"),
        (100 * 86_400, "3 months"),
        (800 * 86_400, "2 years"),
    ],
)
def test_ages_in_dockers_words(seconds: float, text: str) -> None:
    said, left = human(int(seconds * NS))
    assert said == text
    assert human(int(seconds * NS) + left - 1)[0] == text


def test_small_things() -> None:
    assert rfc3339(0) == "0001-01-01T00:00:00Z"
    assert rfc3339(1_795_254_825 * NS + 439_994_400) == "2026-11-21T09:53:45.4399944Z"
    assert behaviour_of(OBEYS_TERM) == Behaviour(obeys=True, stop_code=0)
    assert behaviour_of(IGNORES_TERM) == Behaviour(obeys=False)
    assert behaviour_of(("sh", "-c", "sleep 2; exit 3")) == Behaviour(runs=2, code=3, obeys=False)
    assert behaviour_of(("sleep", "infinity")) == Behaviour(obeys=False)
