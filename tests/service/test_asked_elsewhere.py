"""A service that is told of another one by REAPER_URL, or of itself."""

import signal
from pathlib import Path

import pytest

from reaper import lease
from tests.program.conftest import fake
from tests.program.fakeengine import FakeEngine
from tests.run import Program
from tests.service.daemon import QUICK, SELDOM, Daemon

__all__ = ["fake"]  # a fixture


@pytest.mark.parametrize("itself", [True, False], ids=["itself", "another"])
def test_it_sweeps_beside_the_leases_that_are_known_there(fake: FakeEngine, tmp_path: Path, itself: bool) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    second = Daemon(Program(tmp_path / "second", {"DOCKER_HOST": fake.host}), QUICK)
    first = (
        second
        if itself
        else Daemon(Program(tmp_path / "first", {"DOCKER_HOST": fake.host}), SELDOM, "sweep_at_start = false")
    )
    url = f"http://127.0.0.1:{first.port}"
    if not itself:
        first.start().wait("service_started")
    with first, second.start(REAPER_URL=url):
        second.wait("service_started")
        first.until(lambda: first.send("GET", "/leases")[0] == 200, "book of leases")
        with lease(url=url, name="run-1", on_trouble=print):
            second.wait("sweep_finished", times=len([*second.events("sweep_finished")]) + 3)
            fake.add("mine", ago="25h", labels={"reaper.lease": "run-1"})
            fake.add("leftover", ago="25h")
            second.until(lambda: fake.names() == {"mine"}, "sweep")
            if not itself:
                first.signal(signal.SIGTERM)
                first.ended()
                fake.add("leftover", ago="25h")
                second.wait("sweep_finished", times=len([*second.events("sweep_finished")]) + 3)
                assert fake.names() == {"mine", "leftover"}, "what is unknown is not guessed"
        assert second.stop() == 0
