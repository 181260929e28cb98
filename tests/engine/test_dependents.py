"""Who lives in another container's namespaces, or waits for its network, keeps it: on each engine, in each command."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from devkit.client import DEFAULT_IMAGE
from devkit.engine import PrivateEngine
from devkit.faults import FaultProxy
from tests.engine.lab import OWNED, WAITS, containers, exited, member_of, reached, reasons, rows, started
from tests.run import Program

pytestmark = [
    pytest.mark.engine,
    pytest.mark.engines("docker-20.10", "docker-28.5", "podman-4.3", "podman-5.8", "podman-5.8-rootless"),
]

WAYS: Mapping[str, Mapping[str, Any]] = {
    "pid": {"NetworkMode": "none", "PidMode": "container:HOST"},
    "ipc": {"NetworkMode": "none", "IpcMode": "container:HOST"},
    "network": {"NetworkMode": "container:HOST"},
    "volumes": {"NetworkMode": "none", "VolumesFrom": ["HOST:ro"]},
}


@pytest.fixture
def guests(engine: PrivateEngine) -> Iterator[list[str]]:
    """Ids of containers that depend on others: they go first at the end, which Podman insists on."""
    made: list[str] = []
    yield made
    for ident in reversed(made):
        engine.api.delete(f"/containers/{ident}?force=1&v=1")


def lives_in(engine: PrivateEngine, guests: list[str], host: str, way: str, *, start: bool = True) -> str:
    """A container without an owner that depends on another one, in one of the ways; its id."""
    mode = {
        key: [v.replace("HOST", host) for v in value] if isinstance(value, list) else value.replace("HOST", host)
        for key, value in WAYS[way].items()
    }
    body = {"Image": DEFAULT_IMAGE, "Cmd": list(WAITS), "HostConfig": mode}
    ident = str(engine.api.must("POST", f"/containers/create?name=guest-{way}", body)["Id"])
    guests.append(ident)
    if start:
        engine.start_container(ident)
    return ident


def create(engine: PrivateEngine, name: str, mode: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> str:
    body = {"Image": DEFAULT_IMAGE, "Cmd": list(WAITS), "Labels": dict(labels or {}), "HostConfig": mode}
    ident = str(engine.api.must("POST", f"/containers/create?name={name}", body)["Id"])
    engine.start_container(ident)
    return ident


def host(engine: PrivateEngine) -> str:
    return create(engine, "host", {"NetworkMode": "none", "IpcMode": "shareable"}, OWNED)


@pytest.mark.parametrize("way", WAYS)
def test_what_depends_on_it_keeps_it_in_each_command(
    engine: PrivateEngine, reaper: Program, guests: list[str], way: str
) -> None:
    lives_in(engine, guests, host(engine), way)
    found = {}
    for command in (("check", "--all"), ("list", "--all"), ("--once", "--all", "--dry-run"), ("--once", "--all")):
        ended = reaper(*command, "--json")
        found[command] = reasons(ended)["host"]
        assert ended.outcomes() == {}
    assert set(found.values()) == {"in_use"}
    assert f"guest-{way}, which is kept, uses it" in reaper("explain", "host", "--all").out
    assert {row["State"] for row in engine.api.must("GET", "/containers/json?all=1")} == {"running"}


@pytest.mark.parametrize("way", ["pid", "network"])
def test_what_comes_after_the_listing_keeps_it(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy, guests: list[str], way: str
) -> None:
    ident = host(engine)
    gate = proxy.hold("GET", f"{ident}/json", after=True)  # it has been listed, and is decided about
    with started(proxied, "--once", "--all", "--json") as process:
        reached(gate, process)
        guest = lives_in(engine, guests, ident, way)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"host": "skipped"}
    assert "uses it" in rows(ended)["host"]["detail"]
    assert {engine.inspect(one)["State"]["Status"] for one in (ident, guest)} == {"running"}


def test_a_dependent_that_goes_as_well_goes_first(engine: PrivateEngine, reaper: Program, guests: list[str]) -> None:
    ident = host(engine)
    body = {"Image": DEFAULT_IMAGE, "Cmd": list(WAITS), "Labels": OWNED, "HostConfig": {"NetworkMode": f"container:{ident}"}}
    guests.append(str(engine.api.must("POST", "/containers/create?name=rider", body)["Id"]))
    engine.start_container(guests[0])
    ended = reaper("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"host": "deleted", "rider": "deleted"}


@pytest.mark.engines("docker-20.10", "docker-28.5", "podman-4.3", "podman-5.8")  # a rootless one lacks the network here
def test_a_container_that_was_never_started_keeps_its_network(
    engine: PrivateEngine, reaper: Program, guests: list[str]
) -> None:
    """Its network has no id yet, only a name, and the engine would delete it."""
    engine.create_network("p_default", member_of("p", {"com.docker.compose.container-number": "1"}))
    engine.create(
        "member", labels=member_of("p", {**OWNED, "com.docker.compose.container-number": "1"}), cmd=WAITS, start=True
    )
    guests.append(engine.create("stranger", network="p_default"))
    ended = reaper("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"member": "deleted"}
    assert reasons(ended)["p_default"] == "in_use"
    assert engine.networks(builtin=False)
    engine.start_container("stranger")
    assert containers(engine) == {"stranger"}


@pytest.mark.engines("docker-20.10", "docker-28.5", "podman-5.8")
def test_one_whose_anonymous_volume_another_has_mounted_by_its_folder_stays(engine: PrivateEngine, reaper: Program) -> None:
    """The engine deletes the volume with it, under a container that runs: no engine knows what it has mounted."""
    ident = engine.create("host", labels=OWNED, cmd=("sh", "-c", "echo work > /data/file"), volumes=["/data"], start=True)
    engine.wait_state(ident, "exited")
    stays_for_what_mounts_its_folder(engine, reaper, ident)


def stays_for_what_mounts_its_folder(engine: PrivateEngine, reaper: Program, ident: str, options: str = "") -> None:
    folder = engine.inspect(ident)["Mounts"][0]["Source"]
    engine.create("guest", cmd=WAITS, binds=[f"{folder}:/work{options}"], start=True)
    ended = reaper("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {}
    assert reasons(ended)["host"] == "in_use"
    engine.remove("guest", force=True)
    assert reaper("--once", "--stopped", "--json").outcomes() == {"host": "deleted"}


@pytest.mark.engines("docker-20.10", "docker-28.5", "podman-5.8")
def test_one_in_the_control_group_of_another_is_not_killed_with_it(
    engine: PrivateEngine, reaper: Program, guests: list[str]
) -> None:
    """The runtime kills what is in the group of a container without a PID namespace of its own when that ends."""
    engine.import_image()
    ident = create(engine, "host", {"NetworkMode": "none", "PidMode": "host"}, OWNED)
    group = f"/libpod_parent/libpod-{ident}" if engine.flavour.is_podman else f"/{engine.directory.name}/{ident}"
    guests.append(create(engine, "guest", {"NetworkMode": "none", "CgroupParent": group}))
    ended = reaper("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {}
    assert reasons(ended)["host"] == "in_use"
    engine.stop_container(ident)
    engine.wait_state(guests[0], "exited")  # else the rule is for nothing
    assert engine.inspect(guests[0])["State"]["ExitCode"] == 137
    assert reaper("--once", "--stopped", "--json").outcomes() == {}
    engine.remove(guests.pop())
    assert reaper("--once", "--stopped", "--json").outcomes() == {"host": "deleted"}


@pytest.mark.engines("podman-5.8")
def test_one_whose_anonymous_volume_is_below_an_overlay_stays(engine: PrivateEngine, reaper: Program) -> None:
    """`podman run -v FOLDER:/work:O`: only the options of the mount name the folder, in the inspection."""
    stays_for_what_mounts_its_folder(engine, reaper, exited(engine, "host", volumes=["/data"]), ":O")


@pytest.mark.engines("docker-20.10", "docker-28.5", "podman-5.8")
def test_one_whose_anonymous_volume_is_mounted_after_the_listing_stays(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy
) -> None:
    ident = engine.create("host", labels=OWNED, cmd=("true",), volumes=["/data"], start=True)
    engine.wait_state(ident, "exited")
    (mount,) = engine.inspect(ident)["Mounts"]
    gate = proxy.hold("GET", f"{ident}/json", after=True)
    with started(proxied, "--once", "--stopped", "--json") as process:
        reached(gate, process)
        engine.create("guest", cmd=WAITS, binds=[f"{mount['Source']}:/work"], start=True)
        gate.release()
        ended = proxied.finish(process)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"host": "skipped"}
    assert "guest, which is kept, uses it" in rows(ended)["host"]["detail"]


@pytest.mark.engines("docker-20.10", "docker-28.5", "docker-28.5-containerd")
@pytest.mark.parametrize("is_connected_later", [False, True])
def test_a_link_on_a_network_of_a_client_keeps_it(
    engine: PrivateEngine, reaper: Program, guests: list[str], is_connected_later: bool
) -> None:
    """As Compose writes its external_links: the configuration of the host does not have them."""
    engine.create_network("shared")
    engine.create("linked", labels=OWNED, cmd=WAITS, network="shared", start=True)
    place = {"Links": ["linked:db"]}
    body = {
        "Image": DEFAULT_IMAGE,
        "Cmd": list(WAITS),
        "HostConfig": {"NetworkMode": "bridge" if is_connected_later else "shared"},
    }
    body |= {} if is_connected_later else {"NetworkingConfig": {"EndpointsConfig": {"shared": place}}}
    guests.append(str(engine.api.must("POST", "/containers/create?name=user", body)["Id"]))
    engine.start_container("user")
    if is_connected_later:
        engine.api.must("POST", "/networks/shared/connect", {"Container": "user", "EndpointConfig": place})
    ended = reaper("--once", "--all", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {}
    assert reasons(ended)["linked"] == "in_use"


@pytest.mark.engines("docker-20.10", "docker-28.5", "podman-5.8")
@pytest.mark.parametrize("part", ["", "/inner"])
def test_one_from_whose_anonymous_volume_another_volume_is_mounted_stays(
    engine: PrivateEngine, reaper: Program, part: str
) -> None:
    """Another container has that other volume: its listing and its inspection name no other, and no engine knows more."""
    engine.import_image()
    work = ("sh", "-c", "mkdir -p /data/inner && echo work > /data/inner/file")
    ident = engine.create("host", labels=OWNED, cmd=work, volumes=["/data"], start=True)
    engine.wait_state(ident, "exited")
    folder = engine.inspect(ident)["Mounts"][0]["Source"]
    bound_to(engine, "borrowed", folder + part)
    engine.create("guest", cmd=WAITS, binds=["borrowed:/work"], start=True)
    try:
        ended = reaper("--once", "--stopped", "--json")
        assert ended.code == 0, ended.err
        assert ended.outcomes() == {}
        assert reasons(ended)["host"] == "in_use"
        engine.remove("guest", force=True)
        assert reaper("--once", "--stopped", "--json").outcomes() == {"host": "deleted"}
    finally:
        engine.api.delete("/volumes/borrowed")


@pytest.mark.engines("docker-20.10", "docker-28.5", "podman-5.8")
def test_one_from_whose_anonymous_volume_another_is_mounted_after_the_listing_stays(
    engine: PrivateEngine, proxied: Program, proxy: FaultProxy
) -> None:
    ident = engine.create("host", labels=OWNED, cmd=("true",), volumes=["/data"], start=True)
    engine.wait_state(ident, "exited")
    (mount,) = engine.inspect(ident)["Mounts"]
    gate = proxy.hold("GET", f"{ident}/json", after=True)
    try:
        with started(proxied, "--once", "--stopped", "--json") as process:
            reached(gate, process)
            bound_to(engine, "borrowed", mount["Source"])
            engine.create("guest", cmd=WAITS, binds=["borrowed:/work"], start=True)
            gate.release()
            ended = proxied.finish(process)
        assert ended.outcomes() == {"host": "skipped"}
        assert engine.state(ident) == "exited"
    finally:
        engine.remove("guest", force=True)
        engine.api.delete("/volumes/borrowed")


def bound_to(engine: PrivateEngine, name: str, folder: str) -> None:
    """A volume that is mounted from a folder."""
    options = {"type": "none", "o": "bind", "device": folder}
    engine.api.must("POST", "/volumes/create", {"Name": name, "DriverOpts": options})
