"""On a host where containers are busy an engine forgets within seconds what was used: the service remembers."""

import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest

from devkit.engine import PrivateEngine
from tests import needs
from tests.engine.lab import OWNED, events, in_parallel, rows, seen_a_day_ago, toml, until
from tests.run import Program
from tests.service.daemon import Daemon

pytestmark = [pytest.mark.engine, pytest.mark.engines(*needs.DOCKERS)]

CONFIG = """
[scope]
images = ["acme/*"]

[[policy]]
name = "images"
kinds = ["image"]
unused_for = "1h"
every = "1d"
"""
ONCE = """
[limits]
max_deletions = "none"

[[policy]]
name = "stopped"
kinds = ["container"]
stopped_for = "1h"

[[policy]]
name = "volumes"
kinds = ["volume"]
older_than = "1ms"

[[policy]]
name = "images"
kinds = ["image"]
older_than = "1h"
"""
EXECS = 120  # three events each, of which an engine keeps 256


def execute(engine: PrivateEngine, container: str) -> str:
    """Run a command in the container, to its end."""
    ident = str(engine.api.must("POST", f"/containers/{container}/exec", {"Cmd": ["/bin/true"]})["Id"])
    engine.api.must("POST", f"/exec/{ident}/start", {"Detach": True})
    until(lambda: not engine.api.must("GET", f"/exec/{ident}/json")["Running"], "end of the command")
    return ident


def test_an_image_that_is_unused_goes_from_a_busy_host_and_one_that_was_used_stays(
    clean: PrivateEngine, tmp_path: Path
) -> None:
    """The one use was between two looks, and the engine has forgotten it."""
    engine, program = clean, Program(tmp_path, {"DOCKER_HOST": clean.host})
    for name in ("acme/idle:1", "acme/used:1"):
        engine.labelled_image(name, {"made": name})
    worker = engine.create("worker", start=True)
    with Daemon(program, CONFIG).start() as daemon:
        daemon.wait("sweep_finished")
        daemon.until(lambda: engine.api.must("GET", "/info")["NEventsListener"] == 2, "a stream of uses")
        began = time.monotonic()
        while time.monotonic() - began < 6:  # of an engine that is younger, a little more is remembered than has happened
            execute(engine, worker)
        daemon.signal(signal.SIGUSR1)
        daemon.wait("sweep_finished", times=2)
        seen_a_day_ago(program.folder)
        engine.remove(engine.create("user", image="acme/used:1"))
        assert events(engine, "create")
        in_parallel(lambda _: execute(engine, worker), EXECS)
        assert not events(engine, "create")
        daemon.signal(signal.SIGUSR1)
        daemon.wait("sweep_finished", times=3)
        assert daemon.stop() == 0
    assert {line["name"] for line in daemon.events("deleted")} == {"acme/idle:1"}
    assert "acme/used:1" in engine.images()


def test_a_sweep_of_more_containers_than_an_engine_remembers_takes_volumes_as_well(
    clean: PrivateEngine, tmp_path: Path
) -> None:
    """Each deletion is an event, of which an engine keeps 256: the sweep has to read them as it goes."""
    clean.fabricate_exited(300, timedelta(days=3), OWNED)
    for name in ("data", "more"):
        clean.api.must("POST", "/volumes/create", {"Name": name, "Labels": OWNED})
    ended = Program(tmp_path, {"DOCKER_HOST": clean.host})("--once", "--json", *toml(tmp_path, ONCE))
    assert ended.code == 0, ended
    assert {row["name"]: row["outcome"] for row in rows(ended).values() if row["kind"] == "volume"} == {
        "data": "deleted",
        "more": "deleted",
    }
    assert len(events(clean, "destroy")) <= 256 < len(rows(ended))
