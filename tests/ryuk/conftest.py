"""A server of the Ryuk protocol over real sockets, with a book in a file and windows that pass quickly."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run import Program
from tests.simulator.docker_world import World


@pytest.fixture
def anyio_backend() -> str:
    """Sockets need real time, and the service runs on asyncio."""
    return "asyncio"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        world.import_image()
        yield world


@pytest.fixture
def program(world: World, tmp_path: Path) -> Program:
    return Program(tmp_path, {"DOCKER_HOST": world.host})
