"""Every place that decides knows the leases that the commands know: those of the machine's services, too."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reaper import CleanupError, DockerCleanupManager
from reaper.core.model import Outcome
from reaper.library.lease import lease
from tests.daytona.server import Served
from tests.leases.test_proofs import row
from tests.leases.test_proofs import service as answering
from tests.library.conftest import alone, world
from tests.program.wrapped import started
from tests.run import Program
from tests.running.lab import end_guards, guards, until
from tests.running.test_run import QUICKLY, Making
from tests.running.test_service import program, running, service
from tests.simulator.docker_world import DAY, World

__all__ = ["alone", "program", "service", "world"]  # fixtures


@pytest.mark.parametrize(
    "act",
    [
        lambda manager, id_: manager.remove_container(id_, force=True),
        lambda manager, id_: manager.stop_container(id_, 1),
        lambda manager, _: manager.cleanup_containers({}, stop_timeout=1),
        lambda manager, _: manager.cleanup_old_containers(1, True),
    ],
    ids=["remove", "stop", "cleanup", "cleanup old"],
)
def test_the_library_leaves_alone_what_a_lease_of_the_service_covers(
    world: World, alone: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[DockerCleanupManager, str], Any]
) -> None:
    id_ = world.add("leased", labels={"terminal-bench": ""}, age=2 * DAY, state="running").id
    path = alone / "service.sock"
    monkeypatch.setenv("REAPER_URL", f"unix://{path}")
    with answering(path, row("alive", ended=False)):
        try:
            act(DockerCleanupManager(), id_)
        except CleanupError as error:
            assert "lease alive" in str(error)  # noqa: PT017 - some raise, others report
    assert world.state(id_) == "running"


@pytest.mark.parametrize("killed", [False, True], ids=["hold", "guard"])
def test_a_run_leaves_alone_what_a_lease_of_the_service_covers(
    program: Program, service: Program, served: Served, killed: bool
) -> None:
    """The service does not sweep the run's engine, so the run cleans up by itself."""
    service.env.update({"DAYTONA_API_KEY": "", "DOCKER_HOST": "tcp://127.0.0.1:9"})
    url = f"unix://{service.folder}/reaper.sock"
    try:
        with running(service), lease([{"names": ["shared"]}], url=url) as held:
            assert held.state == "live"
            with started(program, *QUICKLY, "--", *Making({"mine": {}, "shared": {}}, waits=True).words) as process:
                assert process.stdout is not None
                assert process.stdout.readline()
                process.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
                until(lambda: served.left() == {"shared"}, "mine is left, or shared is gone")
                program.finish(process)
            if killed:
                until(lambda: not guards(program.folder), "the guard goes on")
            assert served.left() == {"shared"}
    finally:
        end_guards(program.folder)


def test_a_stop_by_the_library_is_on_record(world: World, alone: Path) -> None:
    id_ = world.add("named", age=DAY, state="running").id
    assert DockerCleanupManager().stop_container(id_, 1) is Outcome.STOPPED
    (act,) = Program(alone)("history", "--json").document["acts"]
    assert (act["name"], act["outcome"], act["error"]) == ("named", "stopped", None)


def test_a_stop_by_the_library_that_fails_is_on_record(world: World, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = world.add("named", age=DAY, state="running").id
    world.faults.add("status:403,method=POST,path=/stop")
    with pytest.raises(CleanupError):
        DockerCleanupManager().stop_container(id_, 1)
    (act,) = Program(alone)("history", "--json").document["acts"]
    assert (act["name"], act["outcome"], act["error"]) == ("named", "failed", "denied")
