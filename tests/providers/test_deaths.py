"""The stream of deaths tells the same facts over the simulated engine and over a real one."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta

import anyio
import pytest

from devkit.client import EngineClient
from reaper.core.model import Resource
from reaper.providers.docker.client import DockerReader
from reaper.providers.docker.settings import DockerTable
from tests import needs
from tests.providers.lab import NAME

pytestmark = [pytest.mark.anyio, pytest.mark.engines(*needs.ENGINES, "podman-5.8-rootless")]
SECOND, MOMENT = timedelta(seconds=1), timedelta(microseconds=2)
LABELS = {"terminal-bench": "yes", "team": "rl", "com.docker.compose.project": "chess"} | {
    "com.docker.compose.container-number": "1"
}
LIMIT = 60  # seconds
ADDED = {"execDuration", "containerExitCode", "podId"}
"""What Docker 23 and later and Podman add to the labels in an event."""


@dataclass
class Follower:
    """A reader of one engine's deaths."""

    engine: EngineClient
    reader: DockerReader

    async def deaths(self, *names: str, number: int = 0, since: datetime | None = None) -> list[Resource]:
        """So many deaths, those of ``names`` after the stream is there."""
        connected = anyio.Event()
        found: list[Resource] = []

        async def follow() -> None:
            async with aclosing(self.reader.deaths(connected.set, since)) as deaths:  # type: ignore[type-var]
                async for death in deaths:
                    found.append(death)
                    if len(found) == (number or len(names)):
                        return

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                await connected.wait()
                for name in names:
                    await anyio.to_thread.run_sync(self.run, name)
        return found

    def run(self, name: str) -> None:
        """A container that lives for a moment."""
        ident = self.engine.create(name, cmd=("true",), labels=LABELS, start=True)
        self.engine.wait_state(ident, "exited")


@pytest.fixture
async def follower(any_engine: EngineClient) -> AsyncIterator[Follower]:
    reader = DockerReader(DockerTable(name=NAME, host=any_engine.host))
    yield Follower(any_engine, reader)
    await reader.close()


async def test_a_death_tells_what_an_inspection_tells(follower: Follower) -> None:
    for death in await follower.deaths("one", "two"):
        fresh = await follower.reader.inspect(death)
        facts = ("id", "name", "image", "group", "kind", "state", "raw_state", "endpoint", "provider")
        assert [getattr(death, fact) for fact in facts] == [getattr(fresh, fact) for fact in facts]
        assert fresh.labels == LABELS
        # The engine adds its own to the labels.
        assert death.labels is not None
        assert death.labels.items() >= {**LABELS, "name": fresh.name, "image": fresh.image, "exitCode": "0"}.items()
        assert death.labels.keys() - LABELS.keys() - {"name", "image", "exitCode"} <= ADDED
        assert death.stopped_at is not None
        assert fresh.stopped_at is not None
        assert abs(death.stopped_at - fresh.stopped_at) < SECOND


async def test_the_deaths_since_a_time_are_reported_again(follower: Follower) -> None:
    one, two = await follower.deaths("one", "two")
    assert one.stopped_at is not None
    assert two.stopped_at is not None
    # A time of Python's has no nanoseconds, so the death itself may lie before it.
    assert await follower.deaths(number=2, since=one.stopped_at - MOMENT) == [one, two]
    again, three = await follower.deaths("three", number=2, since=two.stopped_at - MOMENT)
    assert (again, three.name) == (two, "three")


async def test_other_events_are_no_deaths(follower: Follower) -> None:
    def bustle() -> None:
        created = follower.engine.create("created", cmd=("true",), labels=LABELS)
        follower.engine.remove(created)

    connected = anyio.Event()
    (death,) = await follower.deaths("one")
    found: list[str] = []
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:

            async def follow() -> None:
                async with aclosing(follower.reader.deaths(connected.set)) as deaths:  # type: ignore[type-var]
                    async for each in deaths:
                        found.append(each.name)
                        return

            group.start_soon(follow)
            await connected.wait()
            await anyio.to_thread.run_sync(bustle)
            await anyio.to_thread.run_sync(follower.engine.remove, death.id)
            await anyio.to_thread.run_sync(follower.run, "last")
    assert found == ["last"]
