"""What the engine's JSON says of volumes and images is read as; what is odd is kept, and what is not whole is an error."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from devkit.faults import Fault, FaultProxy
from reaper.core.model import Kind, State
from reaper.providers.base import Inventory
from reaper.providers.docker.client import DockerProvider
from reaper.providers.docker.settings import DockerTable
from reaper.providers.docker.volumes_images import image, reports_creation, volume
from tests.providers.lab import NAME, direct
from tests.providers.sides import unlike
from tests.simulator.docker_world import World

ID = "sha256:" + "0123456789abcdef" * 4
VOLUME: dict[str, Any] = {
    "CreatedAt": "2026-11-21T21:48:56Z",
    "Driver": "local",
    "Labels": {"reaper.lease": "7f3a", "com.docker.compose.project": "chess"},
    "Mountpoint": "/var/lib/docker/volumes/chess_data/_data",
    "Name": "chess_data",
    "Options": None,
    "Scope": "local",
}
LISTED: dict[str, Any] = {"Created": 1795297739, "Id": ID, "Labels": {"reaper.lease": "7f3a"}, "RepoTags": ["b:1", "a:1"]}
INSPECTED: dict[str, Any] = {
    "Created": "2026-11-21T21:48:59.099945468Z",
    "Id": ID,
    "Config": {"Labels": {"reaper.lease": "7f3a"}},
    "RepoTags": ["a:1", "b:1"],
}


def a_volume(**changes: Any) -> Any:
    return volume({**VOLUME, **changes}, "local", exact=True)


def an_image(**changes: Any) -> Any:
    return image({**LISTED, **changes}, "local")


def test_a_volume() -> None:
    found = a_volume()
    assert (found.kind, found.id, found.name, found.group) == (Kind.VOLUME, "chess_data", "chess_data", "chess")
    assert (found.state, found.created_at) == (State.STOPPED, datetime(2026, 11, 21, 21, 48, 56, tzinfo=UTC))
    assert (found.system_container, found.unreadable, found.created_at_inexact) == (None, None, False)
    changed = volume(VOLUME, "local", exact=False)
    assert changed is not None
    assert changed.created_at_inexact


ROOT = "/var/lib/docker/volumes"


@pytest.mark.parametrize(
    ("options", "uses"),
    [
        ({"type": "none", "o": "bind", "device": f"{ROOT}/base/_data"}, {"base"}),
        ({"type": "none", "o": "rbind,ro", "device": f"{ROOT}/base/_data/part"}, {"base"}),
        ({"type": "overlay", "o": f"lowerdir={ROOT}/a/_data:{ROOT}/b/_data,upperdir={ROOT}/c/_data/up"}, {"a", "b", "c"}),
        ({"device": f"{ROOT}/chess_data/_data"}, set()),
        ({"type": "nfs", "o": "addr=10.0.0.1", "device": ":/exports/volumes"}, set()),
        ({"device": ["x"], "o": None}, set()),
        ("odd", set()),
        (None, set()),
    ],
)
def test_a_volume_uses_those_from_whose_folders_it_is_mounted(options: object, uses: set[str]) -> None:
    assert a_volume(Options=options).uses == uses


@pytest.mark.parametrize(
    ("version", "tells"),
    [("v1.41", False), ("1.24", False), ("v1.42", True), ("v1.50", True), ("v2.0", True), ("auto", False), ("", False)],
)
def test_engines_tell_when_a_volume_was_made_since_docker_23(version: str, tells: bool) -> None:
    assert reports_creation(version) is tells


def test_an_image_is_listed_and_inspected_alike() -> None:
    found, inspected = an_image(), image(INSPECTED, "local")
    assert inspected is not None
    assert unlike(found, inspected, whole_seconds=True) == set()
    assert (found.kind, found.id, found.name, found.image, found.tags) == (Kind.IMAGE, ID, "a:1", "a:1", ("a:1", "b:1"))
    assert found.created_at == datetime(2026, 11, 21, 21, 48, 59, tzinfo=UTC)
    assert (found.system_container, found.unreadable) == (None, None)


@pytest.mark.parametrize("tags", [None, [], ["<none>:<none>"], [5], "a:1"])
def test_an_image_without_tags_has_a_short_id(tags: object) -> None:
    found = an_image(RepoTags=tags)
    assert (found.name, found.image, found.tags) == ("0123456789ab", None, ())


@pytest.mark.parametrize(("created", "year"), [(0, 1970), ("1970-01-01T00:00:00Z", 1970), ("1980-01-01T00:00:01Z", 1980)])
def test_a_reproducible_image_is_as_old_as_it_says(created: object, year: int) -> None:
    assert an_image(Created=created).created_at.year == year


@pytest.mark.parametrize("created", [-62135596800, "0001-01-01T00:00:00Z", None])
def test_what_has_no_time_has_none(created: object) -> None:
    assert an_image(Created=created).created_at is None
    assert a_volume(CreatedAt=created if isinstance(created, str) else None).created_at is None


@pytest.mark.parametrize("labels", [["a"], {"a": 1}, "reaper.lease"])
def test_odd_labels_are_missing_labels(labels: object) -> None:
    assert a_volume(Labels=labels).labels is None
    assert an_image(Labels=labels).labels is None


def test_null_means_that_there_are_no_labels() -> None:
    """So an engine says it of what was made without any; an answer without the key is another matter."""
    assert a_volume(Labels=None).labels == {}
    assert an_image(Labels=None).labels == {}


@pytest.mark.parametrize("row", [{}, {"Name": "", "Id": ""}, {"Name": 5, "Id": 5}, {"Name": None, "Id": None}])
def test_what_cannot_be_named_is_nothing(row: dict[str, object]) -> None:
    assert volume(row, "local", exact=True) is None
    assert image(row, "local") is None


ODD: dict[str, tuple[Kind, dict[str, Any]]] = {
    "a slash in the name": (Kind.VOLUME, {"Name": "volumes/data"}),
    "a way out in the name": (Kind.VOLUME, {"Name": "../networks/x"}),
    "a colon in the name": (Kind.VOLUME, {"Name": "plugin:data"}),
    "an odd time of a volume": (Kind.VOLUME, {"CreatedAt": "soon"}),
    "a time without a zone": (Kind.VOLUME, {"CreatedAt": "2026-11-21T21:48:56"}),
    "a number for a time": (Kind.VOLUME, {"CreatedAt": 5}),
    "a name for an id": (Kind.IMAGE, {"Id": "bench:1"}),
    "a short id": (Kind.IMAGE, {"Id": ID[:20]}),
    "an odd time of an image": (Kind.IMAGE, {"Created": "soon"}),
    "too big a time": (Kind.IMAGE, {"Created": 10**30}),
    "a list for a time": (Kind.IMAGE, {"Created": []}),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_unreadable(name: str) -> None:
    kind, changes = ODD[name]
    assert (a_volume(**changes) if kind is Kind.VOLUME else an_image(**changes)).unreadable


SYSTEM_CONTAINER: dict[str, tuple[Kind, dict[str, Any]]] = {
    "shared by engines": (Kind.VOLUME, {"Scope": "global"}),
    "of an unknown scope": (Kind.VOLUME, {"Scope": None}),
    "a cluster's": (Kind.VOLUME, {"ClusterVolume": {"ID": "x"}}),
    "a Swarm stack's": (Kind.VOLUME, {"Labels": {"com.docker.stack.namespace": "x"}}),  # as seen on 28.5
    "BuildKit's state": (Kind.VOLUME, {"Name": "buildx_buildkit_builder0_state"}),
    "BuildKit": (Kind.IMAGE, {"RepoTags": ["acme/x:1", "moby/buildkit:v0.12"]}),
    "Ryuk": (Kind.IMAGE, {"Labels": {"org.testcontainers.ryuk": "true"}}),
}


@pytest.mark.parametrize("name", SYSTEM_CONTAINER)
def test_system_containers(name: str) -> None:
    kind, changes = SYSTEM_CONTAINER[name]
    assert (a_volume(**changes) if kind is Kind.VOLUME else an_image(**changes)).system_container


# Whole listings


@asynccontextmanager
async def answering(**bodies: object) -> AsyncIterator[DockerProvider]:
    """A simulated engine that answers with these to ``volumes``, ``images`` and ``version``."""
    with World() as world, FaultProxy(world.socket) as proxy:
        for name, body in bodies.items():
            status, content = body if isinstance(body, tuple) else (200, body)
            proxy.add(Fault("status", "GET", f"/{name}", status=status, body=json.dumps(content).encode()))
        provider = DockerProvider(DockerTable(name=NAME, host=proxy.host))
        try:
            yield provider
        finally:
            await provider.close()


async def listing(**bodies: object) -> Inventory:
    async with answering(**bodies) as provider:
        return await provider.list(direct, frozenset({"reaper.lease"}))


def volumes(*rows: object) -> dict[str, object]:
    return {"Volumes": rows, "Warnings": None}


@pytest.mark.anyio
async def test_a_filter_that_the_engine_ignores_lists_nothing_that_was_not_asked_for() -> None:
    foreign = [{**VOLUME, "Name": "a", "Labels": {"run": "x"}}, {**VOLUME, "Name": "b", "Labels": None}]
    inventory = await listing(
        volumes=volumes(*foreign, VOLUME), images=[{**LISTED, "Labels": {}}, {**LISTED, "Labels": None}]
    )
    assert [resource.name for resource in inventory.resources] == ["chess_data"]


@pytest.mark.anyio
async def test_a_volume_that_lies_on_another_one_is_listed_whatever_its_labels() -> None:
    above = {**VOLUME, "Name": "above", "Labels": None, "Options": {"device": f"{ROOT}/chess_data/_data"}}
    inventory = await listing(volumes=volumes(above, VOLUME, {**above, "Name": "other", "Options": None}))
    assert [resource.name for resource in inventory.resources] == ["above", "chess_data"]


@pytest.mark.anyio
async def test_one_odd_row_spoils_nothing_else() -> None:
    odd = [{**VOLUME, "Name": "x/y"}, {**VOLUME, "Name": None}, {}]
    inventory = await listing(volumes=volumes(*odd, VOLUME), images=[{}, LISTED])
    found = {resource.name: resource.unreadable is None for resource in inventory.resources}
    assert (found, inventory.unreadable) == ({"x/y": False, "chess_data": True, "a:1": True}, 3)


@pytest.mark.anyio
async def test_a_volume_with_another_thing_s_id_for_a_name_is_left_out() -> None:
    """Else what is said of the one would be said of the other."""
    async with answering() as provider:
        (network,) = await networks(provider)
    stub = {**VOLUME, "Name": "f" * 64}
    network = {**network, "Id": "f" * 64, "Labels": {"reaper.lease": "7f3a"}}
    inventory = await listing(networks=[network], volumes=volumes(stub, VOLUME))
    assert {(resource.kind, resource.id) for resource in inventory.resources} == {
        (Kind.NETWORK, "f" * 64),
        (Kind.VOLUME, "chess_data"),
    }


async def networks(provider: DockerProvider) -> list[dict[str, Any]]:
    rows = await provider._connection.client()._query_json("networks")
    return [row for row in rows if row["Name"] == "bridge"]


NOT_WHOLE: dict[str, dict[str, object]] = {
    "a driver does not answer": {"volumes": {"Volumes": [VOLUME], "Warnings": ["driver nfs: timeout"]}},
    "no volumes in the answer": {"volumes": {}},
    "a list": {"volumes": [VOLUME]},
    "no list": {"volumes": {"Volumes": {}}},
    "rows of something else": {"volumes": volumes("x")},
    "an object for images": {"images": {}},
    "nothing for images": {"images": None},
    "an error": {"images": (500, {"message": "no"})},
    "a proxy that refuses": {"volumes": (403, {"message": "no"})},
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", NOT_WHOLE)
async def test_what_is_not_whole_leaves_out_its_kind_and_says_why(name: str) -> None:
    bodies = NOT_WHOLE[name]
    inventory = await listing(**bodies)
    (kind,) = inventory.unlisted
    assert kind is (Kind.IMAGE if "images" in bodies else Kind.VOLUME)
    assert kind not in {resource.kind for resource in inventory.resources}
    if "refuses" in name:
        assert "GET /volumes and GET /images/json have to be let through" in inventory.unlisted[kind]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("version", "created_at_inexact"), [("1.40", True), ("1.41", True), ("1.42", False), ("1.52", False)]
)
async def test_the_engine_s_version_says_whether_a_volume_may_be_older(version: str, created_at_inexact: bool) -> None:
    nothing: dict[str, object] = {"containers": [], "networks": [], "images": []}  # the simulator speaks 1.41 only
    (found,) = (await listing(version={"ApiVersion": version}, volumes=volumes(VOLUME), **nothing)).resources
    assert found.created_at_inexact is created_at_inexact


@pytest.mark.anyio
async def test_no_volumes_at_all_is_an_empty_listing() -> None:
    assert (await listing(volumes={"Volumes": None, "Warnings": None})).resources == ()
