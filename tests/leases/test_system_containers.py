"""Of all system containers only the reaper of Testcontainers goes with the lease that its own label names."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from devkit.client import OBEYS_TERM
from reaper.leases.sources import NAME
from reaper.leases.store import Holder, LeaseFile, LeaseRecord, LeaseState, Liveness, create
from tests.run import Program
from tests.simulator.docker_world import World

RYUK = {"org.testcontainers.ryuk": "true", "org.testcontainers": "true"}
LEASE = {"reaper.lease": "run-1"}


def test_the_reaper_that_a_run_started_goes_with_it_and_others_stay(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    create(tmp_path / NAME)
    begun = LeaseRecord(id="run-1", sort=Liveness.HEARTBEAT, holder=Holder("gpu-1", 4711), since=now, seen_at=now)
    ended_at = now + timedelta(seconds=1)
    LeaseFile(tmp_path / NAME).put(replace(begun, state=LeaseState.EXPIRED, ended_at=ended_at, cause="killed"))
    with World() as world:
        world.import_image()
        made = {"mine": RYUK | LEASE, "theirs": RYUK, "kubernetes": LEASE | {"io.kubernetes.pod.name": "x"}}
        for name, labels in made.items():
            world.create(name, labels=labels, cmd=OBEYS_TERM, start=True)
        ended = Program(tmp_path, {"DOCKER_HOST": world.host})("--once", "--json")
        assert (ended.code, ended.outcomes()) == (0, {"mine": "deleted"}), ended.err
