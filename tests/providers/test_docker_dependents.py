"""What a container depends on stays known when that is renamed: inspections name links, and are made once."""

import pytest

from devkit.client import DEFAULT_IMAGE, SLEEPS, EngineClient
from devkit.engine import PrivateEngine
from devkit.faults import Fault, FaultProxy
from reaper.core.model import Kind
from reaper.errors import DependencyError, UnreadableError
from reaper.providers.base import Also, Listed
from reaper.providers.docker.client import DockerProvider, DockerReader
from reaper.providers.docker.links import configured_links
from reaper.providers.docker.settings import DockerTable
from tests import needs
from tests.providers.lab import NAME, direct
from tests.simulator.docker_world import World


@pytest.mark.anyio
@pytest.mark.engines(*needs.DOCKERS)
async def test_a_link_to_one_that_is_renamed_is_still_known(engine: PrivateEngine) -> None:
    linked = engine.create("linked", networked=True, start=True)
    body = {"Image": DEFAULT_IMAGE, "Cmd": SLEEPS, "HostConfig": {"Links": ["linked:db"]}}
    engine.start_container(engine.api.must("POST", "/containers/create?name=user", body)["Id"])
    reader = DockerReader(DockerTable(name=NAME, host=engine.host))
    try:
        for one in (await reader.list(direct)).resources:
            if one.kind.runs:
                await reader.inspect(one)
        engine.api.must("POST", "/containers/linked/rename?name=renamed")
        found = {one.name: one.uses for one in (await reader.list(direct)).resources}
    finally:
        await reader.close()
    assert linked in found["user"]
    assert linked not in found["renamed"]


@pytest.mark.anyio
@pytest.mark.engines(*needs.DOCKERS)
async def test_a_link_at_a_network_means_whatever_has_the_name_now(any_engine: EngineClient) -> None:
    """The engine looks it up anew each time: the container reaches the new one by its alias."""
    engine = any_engine
    engine.create_network("shared")
    engine.create("linked", network="shared", start=True)
    place = {"EndpointsConfig": {"shared": {"Links": ["linked:db"]}}}
    body = {"Image": DEFAULT_IMAGE, "Cmd": SLEEPS, "HostConfig": {"NetworkMode": "shared"}, "NetworkingConfig": place}
    engine.start_container(engine.api.must("POST", "/containers/create?name=user", body)["Id"])
    provider = DockerProvider(DockerTable(name=NAME, host=engine.host))
    try:
        for one in (await provider.list(direct)).resources:
            if one.kind.runs:
                await provider.inspect(one)
        engine.remove("linked", force=True)
        again = engine.create("linked", network="shared", start=True)
        listed = {one.name: one for one in (await provider.list(direct)).resources}
        assert again in listed["user"].uses
        (user,) = await provider.dependents([listed["linked"]], Listed(), direct)
        assert user.name == "user"
    finally:
        await provider.close()


@pytest.mark.parametrize(("now", "may"), [("e1", False), ("e2", True), ("", False)], ids=["same", "anew", "it has ended"])
def test_a_connection_to_the_same_network_that_is_new_may_have_a_link(now: str, may: bool) -> None:
    rows = ({"NetworkSettings": {"Networks": {"shared": {"EndpointID": id_}}}} for id_ in ("e1", now))
    assert configured_links(next(rows)).may_have_changed(next(rows)) is may


@pytest.mark.anyio
@pytest.mark.engines(*needs.DOCKERS)
@pytest.mark.parametrize("was_connected", [False, True])
async def test_a_link_that_comes_with_a_network_is_known_from_then_on(engine: PrivateEngine, was_connected: bool) -> None:
    engine.create_network("shared")
    linked = engine.create("linked", network="shared", start=True)
    engine.create("user", networked=True, start=True)
    if was_connected:  # without a link
        engine.api.must("POST", "/networks/shared/connect", {"Container": "user"})
    reader = DockerReader(DockerTable(name=NAME, host=engine.host))

    async def uses() -> frozenset[str]:
        (user,) = (one for one in (await reader.list(direct)).resources if one.name == "user")
        return user.uses if user.links_known else (await reader.inspect(user)).uses

    try:
        assert linked not in await uses()
        assert linked not in await uses()
        if was_connected:
            engine.api.must("POST", "/networks/shared/disconnect", {"Container": "user"})
        body = {"Container": "user", "EndpointConfig": {"Links": ["linked:db"]}}
        engine.api.must("POST", "/networks/shared/connect", body)
        assert linked in await uses()
    finally:
        await reader.close()


@pytest.mark.anyio
@pytest.mark.engines(*needs.DOCKERS)
async def test_a_network_uses_the_one_that_is_its_configuration(any_engine: EngineClient) -> None:
    any_engine.api.must("POST", "/networks/create", {"Name": "configuration", "ConfigOnly": True})
    any_engine.api.must("POST", "/networks/create", {"Name": "made", "ConfigFrom": {"Network": "configuration"}})
    provider = DockerProvider(DockerTable(name=NAME, host=any_engine.host))
    try:
        listed = (await provider.list(direct, also=Also(kinds=frozenset({Kind.NETWORK})))).resources
        found = {one.name: one for one in listed if one.kind is Kind.NETWORK}
        assert found["made"].uses == {found["configuration"].id}
        with pytest.raises(DependencyError, match="is in use"):
            await provider.delete(found["configuration"])
        await provider.delete(found["made"])
        await provider.delete(found["configuration"])
    finally:
        await provider.close()


@pytest.mark.anyio
@pytest.mark.engines(*needs.DOCKERS)
async def test_what_others_have_of_a_container_is_known_and_what_protects_its_volumes(any_engine: EngineClient) -> None:
    """The folder of its anonymous volume, volumes that are mounted from there, and a link at a network."""
    any_engine.import_image()
    any_engine.create_network("shared")
    mount = {"Type": "volume", "Target": "/data", "VolumeOptions": {"Labels": {"reaper.keep": ""}}}
    body = {"Image": DEFAULT_IMAGE, "Cmd": list(SLEEPS), "HostConfig": {"NetworkMode": "shared", "Mounts": [mount]}}
    had = any_engine.api.must("POST", "/containers/create?name=had", body)["Id"]
    (place,) = any_engine.inspect(had)["Mounts"]
    folder = any_engine.api.must("GET", f"/volumes/{place['Name']}")["Mountpoint"]
    any_engine.create("of-folder", binds=[f"{folder}:/work"])
    for name, below in (("borrowed", folder), ("borrowed-again", folder.replace(place["Name"], "borrowed"))):
        options = {"type": "none", "o": "bind", "device": below}
        any_engine.api.must("POST", "/volumes/create", {"Name": name, "DriverOpts": options})
        any_engine.create(f"of-{name}", binds=[f"{name}:/work"])
    linked = {"EndpointsConfig": {"shared": {"Links": ["had:db"]}}}
    body = {"Image": DEFAULT_IMAGE, "Cmd": list(SLEEPS), "HostConfig": {"NetworkMode": "shared"}, "NetworkingConfig": linked}
    any_engine.api.must("POST", "/containers/create?name=of-link", body)
    reader = DockerReader(DockerTable(name=NAME, host=any_engine.host))
    try:
        listed = (await reader.list(direct)).resources
        found = {one.name: await reader.inspect(one) for one in listed if one.kind.runs}
    finally:
        await reader.close()
    for name in ("of-folder", "of-borrowed", "of-borrowed-again"):
        assert {had, place["Name"]} <= found[name].uses
    assert had in found["of-link"].uses
    assert "reaper.keep" in found["had"].protecting_labels


@pytest.mark.anyio
@pytest.mark.engines(*needs.DOCKERS)
async def test_a_volume_that_came_after_the_listing_is_known_by_the_next_one(any_engine: EngineClient) -> None:
    any_engine.import_image()
    had = any_engine.create("had", volumes=["/data"])
    any_engine.create("other", volumes=["/data"])
    (place,) = any_engine.inspect(had)["Mounts"]
    folder = any_engine.api.must("GET", f"/volumes/{place['Name']}")["Mountpoint"]
    reader = DockerReader(DockerTable(name=NAME, host=any_engine.host))
    try:
        (resource,) = (one for one in (await reader.list(direct)).resources if one.id == had)
        options = {"type": "none", "o": "bind", "device": folder}
        any_engine.api.must("POST", "/volumes/create", {"Name": "borrowed", "DriverOpts": options})
        late = any_engine.create("late", binds=["borrowed:/work"])
        assert late in {one.id for one in await reader.dependents([resource], Listed(), direct)}
    finally:
        await reader.close()


@pytest.mark.anyio
async def test_what_has_a_volume_may_use_any_anonymous_one_while_the_volumes_cannot_be_listed() -> None:
    """That is said of the endpoint; what has no such volume goes all the same."""
    with World() as world, FaultProxy(world.socket) as proxy:
        client = EngineClient(world.socket)
        world.import_image()
        had, plain = client.create("had", volumes=["/data"]), client.create("plain")
        client.create("other", binds=["named:/data"])
        proxy.add(Fault("status", "GET", "/volumes", status=500, body=b"{}"))
        reader = DockerReader(DockerTable(name=NAME, host=proxy.host))
        try:
            inventory = await reader.list(direct)
            found = {one.name: one for one in inventory.resources if one.kind.runs}
            assert had in found["other"].uses
            assert had in (await reader.inspect(found["other"])).uses
            assert not any(plain in one.uses for one in found.values())
            assert not any(had in one.uses for name, one in found.items() if name != "other")
            assert list(inventory.unlisted) == [Kind.VOLUME]
            proxy.clear()
            inventory = await reader.list(direct)
            assert not any(had in one.uses for one in inventory.resources)
            assert not inventory.unlisted
        finally:
            await reader.close()


@pytest.mark.anyio
@pytest.mark.engines(*needs.DOCKERS)
async def test_the_members_of_a_project_with_a_name_that_no_request_has_room_for_are_listed(
    any_engine: EngineClient,
) -> None:
    labels = {"com.docker.compose.project": "p" * 2_000_000, "com.docker.compose.container-number": "1"}
    ids = {any_engine.create(name, labels=labels) for name in ("one", "two")}
    any_engine.create("other", labels={**labels, "com.docker.compose.project": "p"})
    reader = DockerReader(DockerTable(name=NAME, host=any_engine.host))
    try:
        one = next(one for one in (await reader.list(direct)).resources if one.id in ids)
        assert {member.id for member in await reader.members(one, direct)} == ids
    finally:
        await reader.close()


@pytest.mark.anyio
async def test_only_a_container_is_taken_for_one_that_is_being_removed_by_the_answer_to_an_inspection() -> None:
    """No engine says that of another kind; whatever does has shown nothing of it."""
    with World() as world, FaultProxy(world.socket) as proxy:
        world.import_image()
        reader = DockerReader(DockerTable(name=NAME, host=proxy.host))
        try:
            images = (await reader.list(direct, also=Also(kinds=frozenset({Kind.IMAGE})))).resources
            (image,) = (one for one in images if one.kind is Kind.IMAGE)
            message = b'{"message": "removal of container is already in progress"}'
            proxy.add(Fault("status", "GET", "/images/", status=409, body=message))
            with pytest.raises(UnreadableError, match="of containers only"):
                await reader.inspect(image)
        finally:
            await reader.close()
