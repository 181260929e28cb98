"""The library before a real engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp
import docker  # type: ignore[import-untyped]
import pytest

from devkit.client import DEFAULT_IMAGE, OBEYS_TERM
from devkit.engine import PrivateEngine
from reaper import CleanupError, DockerCleanupManager, lease, managed_docker_container
from reaper.core.model import Outcome
from tests.simulator.docker_world import World

pytestmark = pytest.mark.engine


def test_containers_of_a_real_engine(engine: PrivateEngine, alone: Path) -> None:
    def add(name: str, labels: dict[str, str] | None = None) -> str:
        return engine.create(name, cmd=OBEYS_TERM, labels=labels, start=True)

    mine, kept = add("mine"), add("kept", {"reaper.keep": ""})
    add("other")
    with pytest.raises(KeyError), managed_docker_container("mine", host=engine.host, stop_timeout=1) as container:
        assert container.id == mine
        raise KeyError
    assert container.outcome is Outcome.DELETED
    manager = DockerCleanupManager(host=engine.host)
    assert {one.name for one in manager.list_containers()} == {"kept", "other"}
    with pytest.raises(CleanupError, match=r"reaper\.keep"):
        manager.stop_container("kept", 1)
    assert manager.stop_container("kept", 1, even_protected=True) is Outcome.STOPPED
    assert engine.state(kept) == "exited"
    assert manager.remove_container("other", force=True) is Outcome.DELETED
    assert manager.remove_container(mine) is Outcome.GONE
    assert engine.ids() == [kept]


def test_a_container_of_docker_py_goes_on_the_engine_of_its_client(engine: PrivateEngine, world: World) -> None:
    """DOCKER_HOST names another engine, on which it would seem to be gone already."""
    engine.import_image()
    client = docker.DockerClient(base_url=engine.host)
    with lease(name="the-run", on_trouble=lambda _: None, url="http://127.0.0.1:9") as held:
        kept = client.containers.create(DEFAULT_IMAGE, "true", labels={"reaper.keep": ""})
        mine = client.containers.run(DEFAULT_IMAGE, OBEYS_TERM, detach=True, labels=held.labels)
        with managed_docker_container(mine, stop_timeout=1) as container:
            assert container.id == mine.id
            assert mine.labels["reaper.lease"] == "the-run"
    assert container.outcome is Outcome.DELETED
    with pytest.raises(CleanupError, match=r"reaper\.keep"), managed_docker_container(kept):
        pass
    assert engine.ids() == [kept.id]
    client.close()


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[aiodocker.Docker]:
    async with aiodocker.Docker(url=url) as client:
        yield client


@pytest.mark.anyio
async def test_a_container_of_aiodocker_likewise(engine: PrivateEngine, world: World) -> None:
    engine.import_image()
    async with client_of(engine.host) as client:
        config: dict[str, Any] = {"Image": DEFAULT_IMAGE, "Cmd": OBEYS_TERM}
        mine = await client.containers.create(config, name="mine")
        await mine.start()
        async with managed_docker_container(mine, stop_timeout=1) as container:
            assert engine.ids() == [mine.id]
    assert container.outcome is Outcome.DELETED
    assert engine.ids() == []


@pytest.mark.anyio
async def test_a_container_whose_client_does_not_tell_its_engine_must_be_on_the_configured_one(
    engine: PrivateEngine, world: World
) -> None:
    mine = engine.create("mine")
    async with client_of(engine.host) as client:
        held = await client.containers.get(mine)
        held.docker.docker_host = "https://127.0.0.1:2376"  # with certificates that only the client has
        client.connector = aiohttp.TCPConnector()
        with pytest.raises(CleanupError, match="has no container"):
            async with managed_docker_container(held):
                raise AssertionError
        async with managed_docker_container(held, host=engine.host):
            pass
    assert engine.ids() == []
