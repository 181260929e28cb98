"""How running containers are ended, and what goes with a container."""

import time

import pytest

from devkit.engine import IGNORES_TERM, SLEEPS, PrivateEngine
from tests import needs
from tests.engine.lab import OWNED, WAITS, containers, events, exited, in_parallel, toml
from tests.run import Program

pytestmark = pytest.mark.engine

ALL_THAT_RUN = """
[[policy]]
name = "all-that-run"
kinds = ["container"]
states = ["running"]
stop_timeout = "1s"
"""


def test_each_gets_its_own_signal_and_then_its_time(engine: PrivateEngine, reaper: Program) -> None:
    began = time.time()
    engine.create("obeys", labels=OWNED, cmd=WAITS, start=True, networked=True)
    engine.create("ignores", labels=OWNED, cmd=IGNORES_TERM, start=True)
    interrupt = ("sh", "-c", "trap 'exit 7' INT; sleep infinity & wait")
    engine.create("interrupt", labels=OWNED, cmd=interrupt, start=True, stop_signal="SIGINT", stop_timeout=60)
    ended = reaper("--once", "--json", *toml(reaper.folder, ALL_THAT_RUN))
    assert ended.code == 0, ended.err
    assert ended.outcomes() == dict.fromkeys(("obeys", "ignores", "interrupt"), "deleted")
    assert containers(engine) == set()
    signals: dict[str, list[tuple[str, float]]] = {}
    for event in events(engine, "kill", began):
        signals.setdefault(event["name"], []).append((event["signal"], event["at"]))
    assert {name: [signal for signal, _ in sent] for name, sent in signals.items()} == {
        "obeys": ["15"],
        "ignores": ["15", "9"],
        "interrupt": ["2"],
    }
    (_, asked), (_, killed) = signals["ignores"]
    assert 1.0 <= killed - asked < 8.0, "the policy's time-out, not the engine's ten seconds"
    codes = {event["name"]: event["exitCode"] for event in events(engine, "die", began)}
    assert codes == {"obeys": "0", "ignores": "137", "interrupt": "7"}


def test_many_that_ignore_it_wait_together(engine: PrivateEngine, reaper: Program) -> None:
    """More than the eight that are removed at a time."""
    in_parallel(lambda number: engine.create(f"stubborn-{number}", labels=OWNED, cmd=SLEEPS, start=True), 20)
    ended = reaper("--once", "--json", *toml(reaper.folder, ALL_THAT_RUN))
    assert ended.code == 0, ended.err
    assert set(ended.outcomes().values()) == {"deleted"}
    assert containers(engine) == set()
    sent = [event for event in events(engine, "kill") if event["name"].startswith("stubborn-")]
    first_kill = min(event["at"] for event in sent if event["signal"] == "9")
    asked_before = sum(event["signal"] == "15" and event["at"] < first_kill for event in sent)
    assert asked_before == 20


def test_anonymous_volumes_go_and_named_ones_stay(engine: PrivateEngine, reaper: Program) -> None:
    engine.create_volume("results")
    exited(engine, "mixed", binds=["results:/results", "cache:/cache"], volumes=["/scratch", "/tmp"])
    engine.create("running", labels=OWNED, cmd=WAITS, start=True, binds=["results:/results"], volumes=["/scratch"])
    exited(engine, "neighbour", {}, volumes=["/scratch"])
    assert len(engine.volumes()) == 6
    ended = reaper("--once", "--all", "--json")
    assert ended.outcomes() == {"mixed": "deleted", "running": "deleted"}
    assert containers(engine) == {"neighbour"}
    left = engine.volumes()
    assert len(left) == 3
    assert {"results", "cache"} < set(left)


def test_one_that_removes_itself_when_it_is_stopped(engine: PrivateEngine, reaper: Program) -> None:
    """``docker run --rm``: our stop makes the engine remove it, at the same time as we do."""
    in_parallel(lambda number: engine.create(f"rm-{number}", labels=OWNED, cmd=WAITS, start=True, auto_remove=True), 8)
    ended = reaper("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert set(ended.outcomes().values()) == {"deleted"}, "no other client has removed one"
    assert len(ended.outcomes()) == 8
    assert containers(engine) == set()


STOP_ALL = """
[[policy]]
name = "stop-all-that-run"
kinds = ["container"]
action = "stop"
states = ["running"]
stop_timeout = "1s"
"""


@pytest.mark.engines(*needs.DOCKERS)
def test_a_policy_that_stops_deletes_nothing(engine: PrivateEngine, reaper: Program) -> None:
    engine.create("obeys", labels=OWNED, cmd=WAITS, start=True, networked=True)
    engine.create("ignores", labels=OWNED, cmd=IGNORES_TERM, start=True)
    engine.create("removed-by-a-stop", labels=OWNED, cmd=WAITS, start=True, auto_remove=True)
    engine.create("neighbour", cmd=WAITS, start=True)
    exited(engine, "ended")
    everything = containers(engine)
    assert reaper("check", *toml(reaper.folder, STOP_ALL)).code == 6
    ended = reaper("--once", "--json", *toml(reaper.folder, STOP_ALL))
    assert ended.code == 0, ended.err
    assert ended.outcomes() == dict.fromkeys(("obeys", "ignores"), "stopped")
    assert containers(engine) == everything
    assert reaper("check", *toml(reaper.folder, STOP_ALL)).code == 0
    again = reaper("--once", "--json", *toml(reaper.folder, STOP_ALL))
    assert again.outcomes() == {}
