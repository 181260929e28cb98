"""What an engine's events tell of uses, whatever the second of its clock is that its answers are dated with."""

import asyncio
import time

import pytest

from reaper.providers.docker.client import DockerProvider
from reaper.providers.docker.settings import DockerTable
from tests.providers.lab import NAME, direct
from tests.simulator.docker_world import World

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_what_has_just_been_used_is_told_at_any_time_of_a_second() -> None:
    with World() as engine:
        provider = DockerProvider(DockerTable(name=NAME, host=engine.host))
        await provider.list(direct)
        mark, number, began = (await provider.uses(None, direct)).mark, 0, time.monotonic()
        while time.monotonic() - began < 1.1:  # through all of a second
            number += 1
            await provider.list(direct)
            await asyncio.to_thread(engine.create_volume, f"data-{number}", {})
            found = await provider.uses(mark, direct)
            assert f"data-{number}" in found.ids
            assert found.complete, number
            mark = found.mark
        await provider.close()
