"""What ``providers.base`` promises, tried on every provider: simulated, on a real engine, and in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from devkit.engine import PrivateEngine
from devkit.flavours import FLAVOURS
from reaper.core.model import Kind, Remembered, Resource, State
from reaper.errors import (
    ConflictError,
    InProgressError,
    InvalidError,
    NoSuchEndpointError,
    NotFoundError,
    ProviderError,
    ServerError,
    UnavailableError,
)
from reaper.providers.base import Listed, Provider, Reader, Traits
from reaper.providers.docker.client import DockerProvider
from reaper.providers.docker.settings import DockerTable
from tests import needs
from tests.engine.sshd import Sshd
from tests.engine.tls import TlsServer, authority, certificate
from tests.providers.lab import NAME, Recorder, by_name, client, direct
from tests.providers.sides import CONFIRMS, DockerSide, MemorySide, Side, daytona_side, unlike

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.engines(
        "docker-simulator",
        *needs.ENGINES,
        "podman-4.3",
        "podman-5.8-rootless",
        "docker-28.5-ssh",
        "docker-28.5-tls",
        "daytona",
        "memory",
        "memory-confirms",
    ),
]
T = TypeVar("T")
SECOND = timedelta(seconds=1)


@pytest.fixture
async def side(request: pytest.FixtureRequest, flavour: str) -> AsyncIterator[Side]:
    match flavour:
        case "docker-simulator":
            async for made in _closing(DockerSide(request.getfixturevalue("world"))):
                yield made
        case "daytona":
            async with daytona_side() as made:
                yield made
        case "memory" | "memory-confirms":
            yield MemorySide(Traits() if flavour == "memory" else CONFIRMS)
        case _:
            way = FLAVOURS[flavour].way
            table = request.getfixturevalue(f"table_of_{way}") if way is not None else None
            async for made in _closing(DockerSide(request.getfixturevalue("engine"), table)):
                yield made


@pytest.fixture
def table_of_ssh(engine: PrivateEngine, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> DockerTable:
    """The engine's socket on a host that only ssh reaches."""
    monkeypatch.setenv("PATH", sshd.path)
    return DockerTable(name=NAME, host=f"ssh://root@gpu-1{engine.socket}")


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("ssh") / "sshd") as sshd:
        yield sshd


@pytest.fixture
def table_of_tls(tls_server: TlsServer, tls_client: Path) -> DockerTable:
    files = {f"tls_{what}": str(tls_client / f"{what}.pem") for what in ("ca", "cert", "key")}
    return DockerTable.model_validate({"name": NAME, "host": tls_server.host, **files})


@pytest.fixture(scope="module")
def tls_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's certificate; that of the server is beside it."""
    folder = tmp_path_factory.mktemp("certificates")
    ca = authority(folder / "ca")
    certificate(ca, folder / "server", "serverAuth")
    return certificate(ca, folder / "client", "clientAuth")


@pytest.fixture(scope="module")
def tls_server(module_engine: PrivateEngine, tls_client: Path) -> Iterator[TlsServer]:
    with TlsServer(module_engine.socket, tls_client.parent / "server") as server:
        yield server


async def _closing(side: Side) -> AsyncIterator[Side]:
    try:
        yield side
    finally:
        await side.provider.close()
        await side.reader.close()


async def listed(side: Side) -> Mapping[str, Resource]:
    return by_name(await side.reader.list(direct))


async def one(side: Side, name: str = "chess", group: str | None = None, *, running: bool = False) -> Resource:
    """Make one, and list it."""
    await side.add(name, group, running=running)
    return (await listed(side))[name]


async def is_gone(side: Side, resource: Resource) -> bool:
    """Whether neither a look by id nor the listing finds it, a minute later."""
    await side.pass_time()
    try:
        await side.reader.inspect(resource)
    except NotFoundError:
        return resource.name not in await listed(side)
    return False


# Looking


async def test_an_empty_endpoint_is_an_empty_inventory(side: Side) -> None:
    inventory = await side.reader.list(direct)
    assert (inventory.resources, inventory.unreadable) == ((), 0)


async def test_a_listing_has_everything_and_the_fields_that_every_rule_needs(side: Side) -> None:
    ids = {name: await side.add(name) for name in ("one", "two", "three")}
    ids["four"] = await side.add("four", running=True)
    ids["five"] = await side.add("five", group="chess")
    found = await listed(side)
    assert {name: resource.id for name, resource in found.items()} == ids
    for name, resource in found.items():
        assert (resource.endpoint, resource.provider, resource.kind) == (NAME, side.provider.provider, side.kind)
        assert resource.state is (State.RUNNING if name == "four" else State.STOPPED)
        assert resource.raw_state
        assert resource.group == ("chess" if name == "five" else None)
        assert isinstance(resource.labels, Mapping)
        assert resource.created_at is not None
        assert resource.created_at.utcoffset() == timedelta(0)
        assert resource.unreadable is None
        assert resource.system_container is None
        assert resource.remembered is None


async def test_what_was_made_just_now_is_new_once_the_clocks_difference_is_allowed_for(side: Side) -> None:
    """The simulated organisation's clock stands at a time of its own."""
    await side.add("chess")
    inventory = await side.reader.list(direct)
    (resource,) = inventory.resources
    assert resource.created_at is not None
    assert abs(datetime.now(UTC) + inventory.clock_skew - resource.created_at) < timedelta(minutes=1)


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("group", [None, "chess"])
async def test_a_look_by_id_tells_what_the_listing_told(side: Side, running: bool, group: str | None) -> None:
    resource = await one(side, group=group, running=running)
    fresh = await side.reader.inspect(resource)
    assert unlike(resource, fresh, whole_seconds=side.whole_seconds) == set()
    assert fresh.inspected
    assert fresh.links_known
    assert (fresh.stopped_at is None) is running
    if side.kind is Kind.CONTAINER:
        assert fresh.restart_policy == "no"
        assert fresh.started_at is not None


async def test_a_look_by_id_keeps_what_is_remembered(side: Side) -> None:
    known = Remembered("harbor", datetime(2026, 11, 21, tzinfo=UTC))
    fresh = await side.reader.inspect(replace(await one(side), remembered=known))
    assert fresh.remembered == known


async def test_what_is_not_there_is_not_found(side: Side) -> None:
    resource = replace(await one(side), id="no-such-id")
    with pytest.raises(NotFoundError):
        await side.reader.inspect(resource)
    with pytest.raises(NotFoundError):
        await side.provider.delete(resource)
    with pytest.raises(NotFoundError):
        await side.provider.stop(resource, SECOND)
    assert (await listed(side)).keys() == {"chess"}


async def test_a_name_is_no_id_to_look_by(side: Side) -> None:
    """The resource that is meant has gone, and a new one has its name."""
    resource = await one(side)
    await side.provider.delete(resource)
    assert await is_gone(side, resource)
    await side.add("another")
    with pytest.raises(NotFoundError):
        await side.reader.inspect(resource)
    with pytest.raises(NotFoundError):
        await side.provider.delete(replace(resource, name="another"))
    assert (await listed(side)).keys() == {"another"}


async def test_the_members_of_a_group(side: Side) -> None:
    for name, group in (("one", "chess"), ("two", "chess"), ("three", "go"), ("four", None)):
        await side.add(name, group)
    await side.add("five", "chess", running=True)
    found = await listed(side)
    recorder = Recorder()
    members = await side.reader.members(found["one"], recorder)
    assert {member.name for member in members} == {"one", "two", "five"}
    assert recorder.asked
    for member in members:
        assert unlike(found[member.name], member, whole_seconds=False) == set()


async def test_who_has_joined_a_group_since_its_members_were_listed_is_seen_with_what_depends_on_it(side: Side) -> None:
    await side.add("one", "chess")
    await side.add("three", "go")
    inventory = await side.reader.list(direct)
    resource = by_name(inventory)["one"]
    newest = max(r.created_at for r in inventory.resources if r.created_at is not None)
    await side.add("two", "chess", running=True)
    await side.add("four")
    since = Listed(frozenset(r.id for r in inventory.resources), newest)
    found = await side.reader.dependents([resource], since, direct)
    assert [one.name for one in found if one.id != resource.id] == ["two"]


async def test_the_last_listing_shows_the_members_themselves_where_it_has_them(side: Side) -> None:
    await side.add("one", "chess")
    await side.add("two", "chess", running=True)
    found = await listed(side)
    asked = [found["one"], found["two"]]
    shown = await side.reader.dependents(asked, Listed(frozenset(r.id for r in asked), None), direct)
    only_new = side.reader.provider == "daytona"
    assert {one.name for one in shown} == (set() if only_new else {"one", "two"})
    for one in shown:
        assert unlike(found[one.name], one, whole_seconds=False) == set()


async def test_what_stands_alone_is_its_only_member_and_nothing_is_asked(side: Side) -> None:
    resource = await one(side)
    recorder = Recorder()
    assert list(await side.reader.members(resource, recorder)) == [resource]
    assert recorder.asked == []


async def test_a_group_that_is_gone_has_no_members(side: Side) -> None:
    resource = await one(side, group="chess")
    await side.provider.delete(resource)
    assert await is_gone(side, resource)
    assert list(await side.reader.members(resource, direct)) == []


# Requests go through the call that is given


class Twice:
    """A call that makes each request twice, as one does whose first answer was lost."""

    def __init__(self) -> None:
        self.requests = 0

    async def __call__(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        assert what
        self.requests += 1
        await function()
        return await function()


async def test_each_request_of_a_listing_can_be_made_again(side: Side) -> None:
    names = {f"c{number}" for number in range(5)}
    for name in sorted(names):
        await side.add(name, group="chess")
    call = Twice()
    found = by_name(await side.reader.list(call))
    assert found.keys() == names
    # Pages, and what the index lacks; containers, networks and their image, and Podman's pods.
    podman = isinstance(side, DockerSide) and side.is_podman
    assert call.requests == (4 if podman else {"daytona": 4, "docker": 3}.get(side.provider.provider, 1))
    assert {member.name for member in await side.reader.members(found["c0"], call)} == names


@pytest.mark.parametrize("request_", ["list", "members"])
async def test_a_call_that_fails_for_good_ends_the_listing(side: Side, request_: str) -> None:
    resource = await one(side, group="chess")

    async def fail(what: str, function: Callable[[], Awaitable[T]]) -> T:
        raise ServerError("no more attempts")

    with pytest.raises(ServerError, match="no more attempts"):
        await (side.reader.list(fail) if request_ == "list" else side.reader.members(resource, fail))


# Acting


async def test_what_has_stopped_is_deleted(side: Side) -> None:
    resource = await one(side)
    other = await one(side, "other")
    await side.provider.delete(resource)
    if side.provider.traits.confirm_within is None:
        with pytest.raises(NotFoundError):
            await side.reader.inspect(resource)
    assert await is_gone(side, resource)
    assert (await side.reader.inspect(other)).state is State.STOPPED


async def test_a_second_deletion_is_answered_that_another_was_first(side: Side) -> None:
    resource = await one(side)
    await side.provider.delete(resource)
    with pytest.raises((NotFoundError, InProgressError)):
        await side.provider.delete(resource)
    assert await is_gone(side, resource)
    with pytest.raises(NotFoundError):
        await side.provider.delete(resource, force=True)


async def test_of_many_deletions_at_once_at_least_one_is_told_that_it_succeeded(side: Side) -> None:
    resource = await one(side)

    async def delete() -> str:
        try:
            await side.provider.delete(resource)
        except (NotFoundError, InProgressError):
            return "another was first"
        return "deleted"

    told = await asyncio.gather(*(delete() for _ in range(8)))
    # Docker 28 and Podman tell those that they have kept waiting meanwhile the same.
    assert told.count("deleted") == 1 or (told.count("deleted") > 1 and type(side) is DockerSide)
    assert await is_gone(side, resource)


async def test_what_runs_is_not_deleted_without_force_where_it_must_stop_first(side: Side) -> None:
    resource = await one(side, running=True)
    if side.provider.traits.stops_first:
        with pytest.raises(ConflictError):
            await side.provider.delete(resource)
        assert (await side.reader.inspect(resource)).state is State.RUNNING
    else:
        await side.provider.delete(resource)
        assert await is_gone(side, resource)


async def test_what_runs_is_deleted_by_force(side: Side) -> None:
    resource = await one(side, running=True)
    await side.provider.delete(resource, force=True)
    assert await is_gone(side, resource)


async def test_a_stop(side: Side) -> None:
    resource = await one(side, running=True)
    await side.provider.stop(resource, SECOND)
    if not side.provider.traits.stops_first:
        await side.pass_time()
    fresh = await side.reader.inspect(resource)
    assert fresh.state is State.STOPPED
    assert fresh.stopped_at is not None
    assert fresh.created_at is not None
    assert fresh.stopped_at >= fresh.created_at
    assert (await listed(side))["chess"].state is State.STOPPED
    await side.provider.delete(fresh)
    assert await is_gone(side, fresh)


async def test_a_stop_of_what_has_stopped_changes_nothing(side: Side) -> None:
    resource = await one(side)
    before = await side.reader.inspect(resource)
    try:
        await side.provider.stop(resource, SECOND)
    except InvalidError:
        assert not side.provider.traits.stops_first
    assert await side.reader.inspect(resource) == before


# Clients


async def test_a_reader_has_no_method_that_changes_anything(side: Side) -> None:
    for verb in ("delete", "stop"):
        assert hasattr(side.provider, verb)
        assert not hasattr(side.reader, verb)
    assert isinstance(side.provider, Provider)
    assert not isinstance(side.reader, Provider)


async def test_a_client_tells_what_it_is(side: Side) -> None:
    for each in (side.reader, side.provider):
        assert each.endpoint == NAME
        assert each.identity == side.reader.identity != ""
        assert each.provider in ("docker", "daytona", "memory")
        limits = each.limits
        assert min(limits.reads, limits.removals, limits.stops, limits.together or 1) >= 1


async def test_closing_is_fine_at_any_time(side: Side) -> None:
    await side.reader.close()  # before anything was asked
    await side.add("chess")
    assert (await listed(side)).keys() == {"chess"}
    for _ in range(2):
        await side.reader.close()
    assert (await listed(side)).keys() == {"chess"}  # it connects again
    await side.reader.close()


def _not_there(which: str, folder: Path) -> Reader:
    if which == "daytona":
        return client("http://127.0.0.1:1/api")
    host = "tcp://127.0.0.1:1" if which == "docker-tcp" else f"unix://{folder}/docker.sock"
    return DockerProvider(DockerTable(name=NAME, host=host))


@pytest.mark.parametrize("which", ["docker-socket", "docker-tcp", "daytona"])
async def test_a_server_that_is_not_there(tmp_path: Path, which: str) -> None:
    reader = _not_there(which, tmp_path)
    resource = Resource(
        provider="", endpoint=NAME, kind=Kind.CONTAINER, id="x", name="x", state=State.STOPPED, raw_state="",
        created_at=None, labels=None, group="chess",
    )  # fmt: skip
    try:
        for ask in (
            lambda: reader.list(direct),
            lambda: reader.inspect(resource),
            lambda: reader.members(resource, direct),
        ):
            with pytest.raises((UnavailableError, NoSuchEndpointError)) as caught:
                await ask()
            assert isinstance(caught.value, ProviderError)
    finally:
        await reader.close()
