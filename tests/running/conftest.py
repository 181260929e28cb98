"""``reaper run`` against a simulated or a real engine, and a simulated Daytona."""

from collections.abc import Iterator

import pytest

from devkit.client import EngineClient, archive
from devkit.engine import PrivateEngine
from tests.conftest import SIMULATOR
from tests.daytona.server import Served
from tests.run import Program
from tests.running.lab import end_guards


class Simulated(EngineClient):
    """The simulated engine as the real one is driven; nothing is ever run there, so an image needs no program."""

    @staticmethod
    def _root(mark: str) -> bytes:
        return archive(mark)


@pytest.fixture
def engine_of_run(request: pytest.FixtureRequest, flavour: str, served: Served) -> EngineClient:
    """The engine with the image bench:1: the simulated one, or a private one."""
    if flavour != SIMULATOR:
        found = request.getfixturevalue("engine")
        assert isinstance(found, PrivateEngine)
        return found
    client = Simulated(served.sim.docker_host.removeprefix("unix://"))
    client.import_image()
    return client


@pytest.fixture
def program(served: Served) -> Iterator[Program]:
    """The program, pointed at them. No guard outlives the test."""
    program = served.program()
    yield program
    end_guards(program.folder)
