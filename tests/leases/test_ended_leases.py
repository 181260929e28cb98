"""What a sweep of the program takes of an ended lease: system containers aside, and what cannot be listed."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devkit.client import OBEYS_TERM
from reaper.leases.database import create
from reaper.leases.record import Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from tests.run import Program
from tests.simulator.docker_world import World

MINE, OWNED = {"reaper.lease": "run-1"}, {"terminal-bench": "yes"}
RYUK = {"org.testcontainers.ryuk": "true", "org.testcontainers": "true"}
IMAGES, VOLUMES = "path=/images/json", "path=/volumes"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An engine, and a lease whose holder was killed a second from now: what is made in the meantime may be its own."""
    now = datetime.now(UTC)
    create(tmp_path / NAME)
    begun = LeaseRecord(id="run-1", sort=Liveness.HEARTBEAT, holder=Holder("gpu-1", 4711), since=now, seen_at=now)
    ended_at = now + timedelta(seconds=1)
    LeaseFile(tmp_path / NAME).put(replace(begun, state=LeaseState.EXPIRED, ended_at=ended_at, cause="killed"))
    with World() as world:
        world.import_image()
        yield world


@pytest.mark.parametrize("kind", ["volume", "image"])
def test_all_else_of_an_ended_lease_goes_and_the_code_tells(world: World, tmp_path: Path, kind: str) -> None:
    """But what cannot be listed costs the sweep nothing but itself."""
    for label in ({}, OWNED):
        world.create(f"stopped-{len(label)}", labels=label, cmd=("true",), start=True)
    world.create("mine", labels=MINE, cmd=OBEYS_TERM, start=True)
    world.create_network("mine-net", MINE)
    world.create_volume("mine-data", MINE)
    world.labelled_image("mine/built:1", {"reaper.lease.image": "run-1"})
    world.faults.add(f"status:500,{IMAGES if kind == 'image' else VOLUMES}")
    ended = Program(tmp_path, {"DOCKER_HOST": world.host})("--once", "--stopped", "--json")
    other = {"volume": "mine/built:1", "image": "mine-data"}[kind]
    assert ended.outcomes() == dict.fromkeys(("mine", "mine-net", "stopped-1", other), "deleted"), ended.err
    assert ended.code == 5
    (endpoint,) = ended.document["endpoints"]
    assert endpoint["failure"]["error"] == "partly_listed"
    assert f"its {kind}s could not be listed" in endpoint["failure"]["message"]
    assert ended.document["seconds"] < 30
    world.faults.clear()
    ended = Program(tmp_path, {"DOCKER_HOST": world.host})("--once", "--json")
    assert (ended.code, list(ended.outcomes().values())) == (0, ["deleted"])


def test_of_system_containers_only_the_reaper_that_its_run_started_goes_with_it(world: World, tmp_path: Path) -> None:
    made = {"mine": RYUK | MINE, "theirs": RYUK, "kubernetes": MINE | {"io.kubernetes.pod.name": "x"}}
    for name, labels in made.items():
        world.create(name, labels=labels, cmd=OBEYS_TERM, start=True)
    ended = Program(tmp_path, {"DOCKER_HOST": world.host})("--once", "--json")
    assert (ended.code, ended.outcomes()) == (0, {"mine": "deleted"}), ended.err
