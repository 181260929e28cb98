"""What a run made under a lease, on an engine: containers and networks go when its holder is dead, the neighbours' stay."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from devkit.client import OBEYS_TERM, EngineClient
from reaper.leasedb import Holder, LeaseFile, LeaseRecord, LeaseState, Sort, create
from reaper.leases import NAME
from tests.run import Program

PROJECT = "com.docker.compose.project"
MINE, OTHERS = {"reaper.lease": "run-1"}, {"reaper.lease": "run-2"}


def test_what_a_dead_run_made_goes_and_its_neighbours_things_stay(any_engine: EngineClient, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    create(tmp_path / NAME)
    file = LeaseFile(tmp_path / NAME)
    begun = {"sort": Sort.HEARTBEAT, "holder": Holder("gpu-1", 4711), "since": now, "seen_at": now}
    file.put(LeaseRecord(id="run-2", **begun))  # type: ignore[arg-type]
    alive = LeaseRecord(id="run-1", **begun)  # type: ignore[arg-type]
    file.put(alive)
    program = Program(tmp_path, {"DOCKER_HOST": any_engine.host})

    for name, labels in (("mine", MINE), ("others", OTHERS), ("nobodys", {})):
        any_engine.create_network(f"{name}-net", labels)
        any_engine.create(name, labels=labels, cmd=OBEYS_TERM, start=True, network=f"{name}-net")
    # A project of this run, and one into which it has put a single container.
    any_engine.create_network("p_default", {**MINE, PROJECT: "p"})
    any_engine.create("p_main_1", labels={**MINE, PROJECT: "p"}, cmd=OBEYS_TERM, start=True, network="p_default")
    any_engine.create("q_main_1", labels={PROJECT: "q"}, cmd=OBEYS_TERM, start=True)
    any_engine.create("q_guest_1", labels={**MINE, PROJECT: "q"}, cmd=OBEYS_TERM, start=True)
    # The neighbours' network has a guest of this run.
    any_engine.create("guest", labels=MINE, cmd=OBEYS_TERM, start=True, network="others-net")
    everything = names(any_engine), set(any_engine.networks())

    ended = program("--once", "--json")
    assert (ended.code, ended.outcomes()) == (0, {}), ended.err
    assert (names(any_engine), set(any_engine.networks())) == everything

    file.put(
        LeaseRecord(
            id="run-1",
            **begun,  # type: ignore[arg-type]
            state=LeaseState.EXPIRED,
            ended_at=now + timedelta(seconds=1),
            cause="no heartbeat for 300 s",
        )
    )
    file.close()
    ended = program("--once", "--json")
    assert ended.code == 0, ended.err
    gone = ("mine", "mine-net", "p_main_1", "p_default", "guest")
    assert ended.outcomes() == dict.fromkeys(gone, "deleted"), ended.err
    assert names(any_engine) == {"others", "nobodys", "q_main_1", "q_guest_1"}
    assert set(any_engine.networks()) == {"others-net", "nobodys-net"}


def names(engine: EngineClient) -> set[str]:
    return {row["Names"][0].lstrip("/") for row in engine.api.must("GET", "/containers/json?all=1")}
