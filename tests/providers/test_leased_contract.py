"""What the providers promise of volumes and images, tried on the simulated engine, a real one, and in memory."""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from devkit.client import EngineClient
from reaper.core.model import Kind, Resource, State
from reaper.errors import ConflictError, DependencyError, NotFoundError
from reaper.providers.base import Also, Provider
from reaper.providers.docker.client import MANY_KEYS, DockerProvider
from reaper.providers.docker.settings import DockerTable
from reaper.providers.memory import Held, MemoryProvider, MemoryWorld
from reaper.sweep.context import what_changed
from tests import needs
from tests.providers.lab import NAME, Recorder, by_name, direct
from tests.providers.sides import unlike

pytestmark = [pytest.mark.anyio, pytest.mark.engines("docker-simulator", *needs.ENGINES, "memory")]
LEASE = {"reaper.lease": "7f3a"}
LONG = "docker.io/library/"
KEYS = frozenset({"reaper.lease"})


class Side(ABC):
    """An endpoint with neither volumes nor images at first."""

    provider: Provider

    @abstractmethod
    async def volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Make a volume."""

    @abstractmethod
    async def image(self, name: str, labels: Mapping[str, str]) -> str:
        """Make an image, and return its id."""

    @abstractmethod
    async def user(self, volume: str, image: str) -> None:
        """Make a container "user" that has stopped and has both."""

    @abstractmethod
    async def without_user(self) -> None:
        """Remove it."""


class DockerSide(Side):
    def __init__(self, engine: EngineClient) -> None:
        self.engine = engine
        self.provider = DockerProvider(DockerTable(name=NAME, host=engine.host))

    async def volume(self, name: str, labels: Mapping[str, str]) -> None:
        await asyncio.to_thread(self.engine.create_volume, name, labels)

    async def image(self, name: str, labels: Mapping[str, str]) -> str:
        return await asyncio.to_thread(self.engine.labelled_image, name, labels)

    async def user(self, volume: str, image: str) -> None:
        await asyncio.to_thread(self.engine.create, "user", image=image, cmd=("/none",), binds=[f"{volume}:/data"])

    async def without_user(self) -> None:
        await asyncio.to_thread(self.engine.remove, "user", volumes=False)


class MemorySide(Side):
    def __init__(self) -> None:
        self.world = MemoryWorld((), lambda: datetime.now(UTC), latency=0)
        self.provider = MemoryProvider(self.world, NAME)

    async def volume(self, name: str, labels: Mapping[str, str]) -> None:
        self._add(Kind.VOLUME, name, name, labels)

    async def image(self, name: str, labels: Mapping[str, str]) -> str:
        self._add(Kind.IMAGE, f"id-{name}", name, labels, image=name, tags=(name,))
        return f"id-{name}"

    async def user(self, volume: str, image: str) -> None:
        self._add(Kind.CONTAINER, "id-user", "user", {}, uses=frozenset({volume, f"id-{image}"}))

    async def without_user(self) -> None:
        self.world.remove("user")

    def _add(self, kind: Kind, id_: str, name: str, labels: Mapping[str, str], **fields: object) -> None:
        made = Resource(
            provider="memory",
            endpoint=NAME,
            kind=kind,
            id=id_,
            name=name,
            state=State.STOPPED,
            raw_state="present",
            created_at=datetime.now(UTC),
            labels=labels,
            **fields,  # type: ignore[arg-type]
        )
        self.world.add(Held(made, stop_seconds=math.inf))


@asynccontextmanager
async def docker_side(which: str, request: pytest.FixtureRequest) -> AsyncIterator[DockerSide]:
    engine: EngineClient = request.getfixturevalue("world" if which == "docker-simulator" else "engine")
    made = DockerSide(engine)
    yield made
    await made.provider.close()
    engine.clear()
    engine.remove_images()


ENGINES = pytest.mark.engines("docker-simulator", *needs.ENGINES)


@pytest.fixture
async def side(request: pytest.FixtureRequest, flavour: str) -> AsyncIterator[Side]:
    if flavour == "memory":
        yield MemorySide()
        return
    async with docker_side(flavour, request) as made:
        yield made


async def listed(side: Side, keys: frozenset[str] = KEYS) -> Mapping[str, Resource]:
    return short(by_name(await side.provider.list(direct, keys)))


def short(found: Mapping[str, Resource]) -> Mapping[str, Resource]:
    """By the names that Docker gives: Podman calls an image docker.io/library/..."""
    return {name.removeprefix(LONG): resource for name, resource in found.items()}


async def test_only_those_with_a_label_that_is_asked_for_are_listed(side: Side) -> None:
    await side.volume("mine", LEASE)
    await side.volume("theirs", {"run": "x"})
    await side.volume("unowned", {})
    ids = {"mine:1": await side.image("mine:1", LEASE), "theirs:1": await side.image("theirs:1", {"run": "x", "b": ""})}
    assert (await listed(side, frozenset())).keys() == set()
    assert (await listed(side)).keys() == {"mine", "mine:1"}
    assert (await listed(side, frozenset({"none"}))).keys() == set()
    found = await listed(side, frozenset({"run", "reaper.lease", "none", "b"}))
    assert {name: resource.id for name, resource in found.items()} == {"mine": "mine", "theirs": "theirs", **ids}
    many = frozenset({"run", *(f"key-{number}" for number in range(MANY_KEYS))})
    assert (await listed(side, many)).keys() == {"theirs", "theirs:1"}


async def test_a_listing_has_the_fields_that_every_rule_needs_and_a_look_by_id_tells_the_same(side: Side) -> None:
    labels = {**LEASE, "com.docker.compose.project": "chess"}
    await side.volume("data", labels)
    await side.image("built:1", labels)
    found = await listed(side)
    if side.provider.provider == "docker":  # in memory a group is no label
        assert {resource.group for resource in found.values()} == {"chess"}
    assert {resource.kind for resource in found.values()} == {Kind.VOLUME, Kind.IMAGE}
    for resource in found.values():
        assert (resource.state, resource.endpoint, resource.labels) == (State.STOPPED, NAME, labels)
        assert resource.created_at is not None
        assert abs(datetime.now(UTC) - resource.created_at) < timedelta(minutes=1)
        assert (resource.unreadable, resource.system_container, resource.inspected) == (None, None, True)
        fresh = await side.provider.inspect(resource)
        told = replace(fresh, tagged_at=None, layers=())  # an inspection alone tells
        told = replace(told, size=resource.size)  # of a containerd store the listing counts more
        assert unlike(resource, told, whole_seconds=side.provider.provider == "docker") == set()
        assert fresh.identity == resource.identity
    built = found["built:1"]
    assert ([tag.removeprefix(LONG) for tag in built.tags], built.image) == (["built:1"], built.name)


async def test_what_is_asked_for_by_its_id_is_listed_without_a_label(side: Side) -> None:
    await side.volume("plain", {})
    await side.volume("other", {})
    ids = frozenset({"plain", "gone", await side.image("plain:1", {}), "sha256:" + "0" * 64})
    await side.image("other:1", {})
    found = short(by_name(await side.provider.list(direct, frozenset(), Also(ids))))
    assert found.keys() == {"plain", "plain:1"}
    tagged = found["plain:1"].tagged_at
    if tagged is not None:  # neither Podman nor a world in memory tells
        assert abs(datetime.now(UTC) - tagged) < timedelta(minutes=1)


async def test_those_of_projects_are_listed_where_they_are_asked_for(side: Side) -> None:
    labels = {"com.docker.compose.project": "chess"}
    await side.volume("plain", {})
    await side.volume("data", labels)
    await side.image("built:1", labels)
    found = short(by_name(await side.provider.list(direct, frozenset(), Also(projects=True))))
    assert found.keys() == ({"data", "built:1"} if side.provider.provider == "docker" else set())  # in memory by the group


async def test_each_goes_by_its_id_and_is_then_not_found(side: Side) -> None:
    for number in (1, 2):
        await side.volume(f"data-{number}", LEASE)
        await side.image(f"built:{number}", LEASE)
    found = await listed(side)
    for name in ("data-1", "built:1"):
        await side.provider.delete(found[name])
        for ask in (side.provider.inspect, side.provider.delete):
            with pytest.raises(NotFoundError):
                await ask(found[name])
    assert (await listed(side)).keys() == {"data-2", "built:2"}


async def test_what_a_container_has_is_refused_though_it_does_not_run(side: Side) -> None:
    await side.volume("data", LEASE)
    await side.image("built:1", LEASE)
    await side.user("data", "built:1")
    found = await listed(side)
    things = [found["data"], found["built:1"]]
    assert {thing.id for thing in things} <= found["user"].uses
    assert {thing.id for thing in things} <= (await side.provider.inspect(found["user"])).uses
    for thing in things:
        for force in (False, True):
            with pytest.raises(DependencyError):
                await side.provider.delete(thing, force=force)
        assert what_changed(thing, await side.provider.inspect(thing)) is None
    await side.without_user()
    for thing in things:
        await side.provider.delete(thing)
    assert await listed(side) == {}


async def test_each_request_of_a_listing_can_be_made_again(side: Side) -> None:
    await side.volume("data", LEASE)
    await side.image("built:1", LEASE)
    recorder = Recorder()
    assert short(by_name(await side.provider.list(recorder, KEYS))).keys() == {"data", "built:1"}
    pods, lists = (sum(word in what for what in recorder.asked) for word in ("pods", "manifest lists"))  # of Podman
    assert len(recorder.asked) - pods - lists == (4 if side.provider.provider == "docker" else 1)
    without = Recorder()
    await side.provider.list(without)
    assert len(without.asked) - pods == (2 if side.provider.provider == "docker" else 1), (
        "not one request more where there are no leases"
    )


# What only an engine does


@pytest.fixture
async def docker(request: pytest.FixtureRequest, flavour: str) -> AsyncIterator[DockerSide]:
    async with docker_side(flavour, request) as made:
        yield made


@ENGINES
async def test_what_a_container_carries_may_be_its_image_s(docker: DockerSide) -> None:
    """A container gets the labels of its image."""
    await docker.image("mine:1", {**LEASE, "run": "x"})
    await docker.image("other:1", {"reaper.lease": "b2", "reaper.lease.image": "7f3a"})
    for name, image, labels in (
        ("plain", "bench:1", LEASE),
        ("guest", "mine:1", {}),
        ("told", "mine:1", LEASE),
        ("another", "mine:1", {"reaper.lease": "c3"}),
        ("own", "other:1", LEASE),
    ):
        docker.engine.create(name, image=image, cmd=("/none",), labels=labels)
    found = await listed(docker, frozenset({"reaper.lease", "reaper.lease.image", "run"}))
    assert {
        name: "reaper.lease" in (found[name].inherited or ()) for name in ("plain", "guest", "told", "another", "own")
    } == {
        "plain": False,
        "guest": True,
        "told": True,  # it was given the same by its maker, which cannot be seen
        "another": False,
        "own": False,
    }
    assert (await docker.provider.inspect(found["guest"])).inherited == frozenset({"reaper.lease", "run"})


@ENGINES
async def test_an_image_with_several_tags_is_refused(docker: DockerSide) -> None:
    await docker.image("built:1", LEASE)
    for repository in ("built", "another"):
        docker.engine.api.must("POST", f"/images/built:1/tag?repo={repository}&tag=2")
    (image,) = (await listed(docker)).values()
    assert [tag.removeprefix(LONG) for tag in image.tags] == ["another:2", "built:1", "built:2"]
    with pytest.raises(ConflictError, match=r"referenced in multiple repositories|with more than one tag"):
        await docker.provider.delete(image, force=True)
    assert what_changed(image, await docker.provider.inspect(image)) is None


@ENGINES
async def test_a_volume_without_a_lease_s_label_goes_with_no_container_s_anonymous_ones(docker: DockerSide) -> None:
    await docker.volume("named", {})
    ident = docker.engine.create("c1", binds=["named:/n"], volumes=["/anonymous"])
    container = (await listed(docker))["c1"]
    assert len(container.uses & set(docker.engine.volumes())) == 2
    await docker.provider.delete(replace(container, id=ident))
    assert docker.engine.volumes() == ["named"]


@ENGINES
async def test_an_untagged_image_has_a_short_id_for_a_name(docker: DockerSide) -> None:
    first = await docker.image("built:1", LEASE)
    await docker.image("built:1", {})
    (image,) = (await listed(docker)).values()
    assert (image.id, image.name, image.image, image.tags) == (first, first.removeprefix("sha256:")[:12], None, ())
    await docker.provider.delete(image)
    assert await listed(docker) == {}
    assert docker.engine.images() == ["bench:1", "built:1"]
