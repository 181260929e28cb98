"""An engine that is upgraded, or replaced by an older one, under a service that goes on."""

from pathlib import Path

import pytest

from devkit.engine import PrivateEngine
from tests import needs
from tests.engine.lab import containers, exited, until
from tests.run import Program
from tests.service.daemon import Daemon

pytestmark = [pytest.mark.engine, pytest.mark.engines("docker-20.10", "docker-28.5")]

CONFIG = '[[policy]]\nname = "stopped"\nkinds = ["container"]\nstopped_for = "1s"\nevery = "1s"\n'


def test_it_is_swept_by_the_version_of_the_api_that_it_has_now(
    engine: PrivateEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_upgrade = engine.flavour.name == "docker-20.10"
    if is_upgrade:
        monkeypatch.setenv("DOCKER_MIN_API_VERSION", "1.44")  # Docker 29 has it by default
    other = "docker-28.5" if is_upgrade else "docker-20.10"
    if reason := PrivateEngine.available(other):
        needs.lacking(reason)
    socket, program = tmp_path / "engine.sock", Program(tmp_path, {"DOCKER_HOST": f"unix://{tmp_path}/engine.sock"})
    socket.symlink_to(engine.socket)
    with PrivateEngine(other) as later, Daemon(program, CONFIG).start() as daemon:
        daemon.wait("sweep_finished")
        exited(later, "leaked")
        (tmp_path / "later.sock").symlink_to(later.socket)
        engine.terminate()
        (tmp_path / "later.sock").replace(socket)
        until(lambda: "leaked" not in containers(later), "its deletion", deadline=100.0)
        assert daemon.stop() == 0
    engine.restart()
