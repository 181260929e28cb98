"""A server of the Ryuk protocol over real sockets, with a book in a file and windows that pass quickly."""

from pathlib import Path

import pytest

from tests.run import Program
from tests.simulator.docker_world import World


@pytest.fixture
def anyio_backend() -> str:
    """Sockets need real time, and the service runs on asyncio."""
    return "asyncio"


@pytest.fixture
def program(world: World, tmp_path: Path) -> Program:
    return Program(tmp_path, {"DOCKER_HOST": world.host})
