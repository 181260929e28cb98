"""The service over a private engine: deaths are hints, and an engine that goes away and comes back is swept again."""

import json
import signal
from datetime import datetime
from pathlib import Path

import pytest

from devkit.client import EngineClient
from devkit.engine import PrivateEngine
from tests.daytona.server import Served
from tests.engine.lab import OWNED, containers, exited
from tests.run import Program
from tests.service.daemon import QUICK, Daemon

DEATHS = """
[[policy]]
name = "dead"
kinds = ["container"]
stopped_for = "2s"
every = "1h"
"""
BOTH = (
    QUICK.replace('["container", "sandbox"]', '["sandbox"]')
    + """
[[policy]]
name = "dead"
kinds = ["container"]
stopped_for = "1s"
every = "1s"
"""
)


def at(line: dict[str, str]) -> datetime:
    return datetime.fromisoformat(line["timestamp"])


def test_a_container_that_dies_goes_as_soon_as_its_policy_allows_and_not_at_the_next_hour(
    any_engine: EngineClient, tmp_path: Path
) -> None:
    program = Program(tmp_path, {"DOCKER_HOST": any_engine.host})
    image = any_engine.tag("bench:1", "tb__chess__client:latest")
    with Daemon(program, DEATHS, "sweep_at_start = false").start() as daemon:
        daemon.wait("event_stream_connected", endpoint="local")
        assert daemon.metric("reaper_events_connected") == 1
        exited(any_engine, "foreign", {})
        exited(any_engine, "by-label")
        ident = exited(any_engine, "by-image", {}, image=image)
        finished = datetime.fromisoformat(any_engine.inspect(ident)["State"]["FinishedAt"][:26] + "+00:00")
        daemon.until(lambda: containers(any_engine) == {"foreign"}, "end of the dead")
        daemon.wait("sweep_finished")
        assert daemon.stop() == 0
    names = [
        line["event"] for line in daemon.lines if line["event"] in ("event_stream_connected", "deleted", "sweep_finished")
    ]
    assert names[:2] == ["event_stream_connected", "deleted"]
    assert names[-1] == "sweep_finished"
    assert {line["name"] for line in daemon.events("deleted")} == {"by-label", "by-image"}
    (deleted,) = daemon.events("deleted", name="by-image")
    assert 2 <= (at(deleted) - finished).total_seconds() < 10  # a container outlives nothing but its time
    assert list(daemon.events("events_lost")) == []
    assert daemon.other == []


@pytest.mark.engine
def test_endpoints_that_go_away_and_come_back(module_engine: PrivateEngine, tmp_path: Path) -> None:
    """The engine by its events, and an organisation when a sweep is asked for: else each rests for a minute."""
    engine = module_engine
    with Served(tmp_path, "ill", "well") as served:
        tables = "".join(
            f'[[daytona]]\nname = "{name}"\napi_url = "{served.sim.daytona_url}"\napi_key_env = "KEY_{name.upper()}"\n'
            for name in ("ill", "well")
        )
        keys = {f"KEY_{name.upper()}": served.sim.api_key(name) for name in ("ill", "well")}
        docker = f'[[docker]]\nname = "engine"\nhost = "{engine.host}"\n'
        with Daemon(served.program(**keys), f"{BOTH}{tables}{docker}").start() as daemon:
            for name in ("engine", "ill", "well"):
                daemon.wait("sweep_finished", endpoint=name, result="success")
            daemon.wait("event_stream_connected", endpoint="engine")
            served.sim.faults.add("status:500,endpoint=ill")
            engine.kill(containers=True)
            daemon.wait("events_lost", endpoint="engine")
            daemon.wait("sweep_finished", endpoint="engine", result="unlisted")
            daemon.wait("sweep_finished", endpoint="ill", result="unlisted")
            _tells_of_the_failures(daemon)

            swept = len(list(daemon.events("sweep_finished", endpoint="well")))
            served.add("meanwhile", org="well")
            daemon.wait("deleted", endpoint="well", name="meanwhile")
            times = [at(daemon.wait("sweep_finished", endpoint="well", times=swept + number)) for number in (1, 4)]
            assert (times[1] - times[0]).total_seconds() < 10  # three intervals of a second

            engine.restart()
            exited(engine, "leftover", OWNED)
            served.sim.faults.clear()
            served.add("leftover", org="ill")
            daemon.wait("event_stream_connected", endpoint="engine", times=2)
            assert daemon.metric("reaper_events_connected", endpoint="engine") == 1
            assert daemon.metric("reaper_events_lost_total", endpoint="engine") == 1
            for name in ("engine", "ill"):
                if name == "ill":
                    daemon.signal(signal.SIGUSR1)
                _recovers(daemon, name)
                daemon.wait("sweep_finished", endpoint=name, result="success", times=2)
                assert daemon.metric("reaper_endpoint_up", endpoint=name) == 1
                assert daemon.metric("reaper_sweeps_total", endpoint=name, result="unlisted") == 1
            assert {check["detail"] for check in json.loads(daemon.get("/readyz")[1])["checks"]} >= {
                "3 of 3 could be listed"
            }
            assert "answered 500" not in daemon.get("/")[1]
            assert daemon.stop() == 0
            assert daemon.other == []
            assert list(daemon.events("internal_error")) == []


def _recovers(daemon: Daemon, name: str) -> None:
    daemon.until(lambda: list(daemon.events("deleted", endpoint=name, name="leftover")), f"recovery of {name}")


def _tells_of_the_failures(daemon: Daemon) -> None:
    """Metrics, health and the page, while the engine and one of the organisations are down."""
    for name, up in (("engine", 0), ("ill", 0), ("well", 1)):
        assert daemon.metric("reaper_endpoint_up", endpoint=name) == up
    assert daemon.metric("reaper_events_connected", endpoint="engine") == 0
    assert daemon.metric("reaper_events_lost_total", endpoint="engine") == 1
    assert daemon.metric("reaper_retries_total", endpoint="ill", error="server_error") > 0
    assert daemon.get("/healthz")[0] == 200
    status, ready = daemon.get("/readyz")
    assert status == 200
    assert "1 of 3 could be listed; down: engine, ill" in ready
    page = daemon.get("/")[1]
    assert "the server answered 500" in page
    assert "engine.sock" in page or "docker.sock" in page
