"""What an engine's events tell of uses and deletions, at whatever time of a second of its clock."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import anyio
import pytest

from devkit.client import EngineClient
from devkit.engine import PrivateEngine
from reaper.core.model import Kind
from reaper.providers.base import Also
from reaper.providers.docker.client import DockerProvider
from reaper.providers.docker.settings import DockerTable
from reaper.providers.docker.use_events import used
from tests import needs
from tests.providers.lab import NAME, direct
from tests.simulator.docker_world import World

pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize("action", ["mount", "unmount"])
async def test_an_image_that_a_person_mounts_on_podman_is_used(action: str) -> None:
    """`podman image mount`, as Podman 5.8 tells of it; it would delete the image under the mount."""
    event = {"Type": "image", "Action": action, "Actor": {"ID": "a" * 64, "Attributes": {"image": "", "name": ""}}}
    assert set(used([event])) == {f"sha256:{'a' * 64}"}


@pytest.mark.engines(*needs.ENGINES)
async def test_the_deletion_of_a_volume_and_of_an_image_is_told_with_its_time(any_engine: EngineClient) -> None:
    any_engine.create_volume("data", {})
    ids = {"data", any_engine.labelled_image("acme/again:1", {})}
    provider = DockerProvider(DockerTable(name=NAME, host=any_engine.host))
    kinds = frozenset({Kind.VOLUME, Kind.IMAGE})
    listed = (await provider.list(direct, also=Also(kinds=kinds))).resources
    mine = [resource for resource in listed if resource.id in ids]
    assert {resource.kind for resource in mine} == kinds
    before = datetime.now(UTC)
    assert not {resource.id for resource in mine} & (await provider.uses(None, direct)).deleted.keys()
    for resource in mine:
        await provider.delete(resource)
    any_engine.create_volume("data", {})
    told: Mapping[str, datetime] = {}
    with anyio.fail_after(30):
        while not ids <= told.keys():  # Podman notes those of images a moment later
            told = (await provider.uses(None, direct)).deleted
    for id_ in ids:
        assert before <= told[id_] <= datetime.now(UTC)
    await provider.close()


@pytest.mark.engines(*needs.ENGINES, "podman-4.3")
async def test_all_that_was_used_since_a_look_is_told(any_engine: EngineClient) -> None:
    provider = DockerProvider(DockerTable(name=NAME, host=any_engine.host))
    await provider.list(direct)
    any_engine.create_volume("before", {})
    mark = (await provider.uses(None, direct)).mark
    names = {f"data-{number}" for number in range(60)}
    for name in sorted(names):
        any_engine.create_volume(name, {})
    told = await provider.uses(mark, direct)
    assert told.complete
    assert names <= told.ids
    assert "before" not in told.ids
    assert not (await provider.uses(told.mark, direct)).ids
    await provider.close()


@pytest.mark.engines(*needs.ENGINES, "podman-4.3")
async def test_what_a_container_used_that_is_gone_again_may_be_used(any_engine: EngineClient) -> None:
    any_engine.import_image()
    any_engine.create_volume("data", {})
    network = any_engine.create_network("net")
    provider = DockerProvider(DockerTable(name=NAME, host=any_engine.host))
    await provider.list(direct)
    mark = (await provider.uses(None, direct)).mark
    assert not (await provider.uses(mark, direct)).untold
    user = any_engine.create("user", cmd=("/bin/true",), binds=["data:/data"], network="net")
    any_engine.start_container(user)
    any_engine.wait_state(user, "exited")
    any_engine.remove(user)
    told = await provider.uses(mark, direct)
    assert "data" in told.ids or Kind.VOLUME in told.untold
    assert network in told.ids or Kind.NETWORK in told.untold
    await provider.close()


@pytest.mark.engine
@pytest.mark.engines("podman-4.3", "podman-5.8")
async def test_podman_which_keeps_its_events_in_a_file_knows_of_more_than_a_few(engine: PrivateEngine) -> None:
    """So no stream is followed there."""
    provider = DockerProvider(DockerTable(name=NAME, host=engine.host))
    await provider.list(direct)
    mark = (await provider.uses(None, direct)).mark
    engine.create_volume("first", {})
    for number in range(150):
        engine.create_volume(f"data-{number}", {})
        await provider._connection.request("DELETE", f"volumes/data-{number}")
    told = await provider.uses(mark, direct)
    assert told.complete
    assert "first" in told.ids
    assert not await provider.follow_uses()
    await provider.close()
