"""The container that this program runs in is never touched, whatever network it has, nor is its project or pod."""

import re
from dataclasses import replace

import pytest

from devkit.client import EngineClient
from devkit.engine import PrivateEngine
from devkit.pods import create_in_pod, create_pod
from reaper.core.model import Resource
from reaper.providers.docker.client import DockerReader
from reaper.providers.docker.own_container import OwnContainer, own_container_ids
from reaper.providers.docker.settings import DockerTable
from tests import needs
from tests.core.make import NETWORK, RUNNING
from tests.engine.lab import until
from tests.providers.lab import NAME, direct

ID, OTHER = "c0ffee" + "0" * 58, "decaf" + "0" * 59
MOUNT = f"651 641 254:0 /data/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw"
PODMAN = f"651 641 0:24 /overlay-containers/{ID}/userdata/hostname /etc/hostname rw - tmpfs tmpfs rw"
PODMANS_NETWORK = f"650 641 0:24 /overlay-containers/{OTHER}/userdata/resolv.conf /etc/resolv.conf rw - tmpfs tmpfs rw"
HOST = f"99 30 0:50 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw"
TELLS = ("sh", "-c", "cat /proc/self/mountinfo; sleep infinity")
"""Writes into its log what this program would read in its place."""


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "ids"),
    [
        (MOUNT, "", {ID}),
        (PODMAN, "", {ID}),
        (f"{PODMANS_NETWORK}\n{PODMAN}", "0::/", {ID, OTHER}),
        ("", f"4:memory:/docker/{ID}\n0::/", {ID}),
        ("", f"0::/system.slice/docker-{ID}.scope", {ID}),
        (MOUNT, f"4:memory:/docker/{OTHER}", {ID, OTHER}),
        (HOST, "0::/user.slice", set()),
        (f"1 2 3:4 /home/{ID}/hostname /mnt/hostname rw", "0::/init.scope", set()),
    ],
)
def test_the_own_container_is_reported_by_id(mountinfo: str, cgroup: str, ids: set[str]) -> None:
    assert own_container_ids(mountinfo, cgroup) == ids


def marked(*resources: Resource, ids: frozenset[str] = frozenset({ID})) -> dict[str, str | None]:
    return {one.name: one.system_container for one in OwnContainer(ids).mark(resources)}


def test_the_own_container_its_dependents_and_their_projects_are_marked() -> None:
    own = replace(RUNNING, id=ID, name="own", group="tools")
    inside = replace(RUNNING, id="a" * 64, name="inside", uses=frozenset({ID}), group="monitor")
    found = marked(
        *(own, inside, replace(RUNNING, name="beside", group="monitor"), replace(NETWORK, name="net", group="tools")),
        replace(RUNNING, name="other", group="bench"),
    )
    assert found == {
        "own": "this program's own container",
        "inside": "in the network of this program's own container",
        "beside": "in this program's own Compose project",
        "net": "in this program's own Compose project",
        "other": None,
    }


def test_outside_of_a_container_nothing_is_marked() -> None:
    assert marked(replace(RUNNING, id=ID, name="own"), ids=frozenset()) == {"own": None}


def test_a_look_by_id_knows_the_groups_of_the_listing() -> None:
    own = OwnContainer(frozenset({ID}))
    own.mark([replace(RUNNING, id=ID, group="tools")])
    (found,) = own.mark([replace(RUNNING, group="tools")])
    assert found.system_container == "in this program's own Compose project"


def mounts_of(engine: EngineClient, container: str) -> str:
    """What is mounted in the container, as it has written it."""

    def log() -> str:
        return str(engine.api.must("GET", f"/containers/{container}/logs?stdout=1"))

    until(lambda: " /etc/resolv.conf " in log() and " /etc/hostname " in log(), "the container's log")
    return re.sub(r"[\x00-\x02]\x00\x00\x00[\s\S]{4}", "", log())


async def system_containers(engine: EngineClient, container: str) -> dict[str, str | None]:
    """How this program marks what it lists when it runs in that container, whose control group tells nothing."""
    reader = DockerReader(DockerTable(name=NAME, host=engine.host), own_container_ids(mounts_of(engine, container), "0::/"))
    try:
        listed = (await reader.list(direct)).resources
        inspected = [await reader.inspect(one) for one in listed if one.kind.runs]
    finally:
        await reader.close()
    marked_alike = {one.name: one.system_container is None for one in listed if one.kind.runs}
    assert {one.name: one.system_container is None for one in inspected}.items() <= marked_alike.items()
    return {one.name: one.system_container for one in listed if one.kind.runs}


@pytest.mark.anyio
@pytest.mark.engines(*needs.ENGINES)
async def test_in_the_network_of_another_container_it_is_known_too(engine: PrivateEngine) -> None:
    """As beside a socket proxy: the files by which a container is known are the other one's then."""
    engine.create("proxy", networked=True, start=True)
    own = engine.create("own", cmd=TELLS, network="container:proxy", start=True)
    engine.create("other", networked=True, start=True)
    found = await system_containers(engine, own)
    engine.remove(own, force=True)  # before what it depends on, on which Podman insists
    assert found["own"] is not None
    assert found["proxy"] is not None
    assert found["other"] is None


@pytest.mark.anyio
@pytest.mark.engines("podman-4.3", "podman-5.8")
async def test_in_a_pod_it_is_known_with_all_that_is_in_it(engine: PrivateEngine) -> None:
    create_pod(engine, "tools")
    own = create_in_pod(engine, "tools", "own", TELLS, {})
    create_in_pod(engine, "tools", "beside", TELLS, {})
    engine.create("other", start=True)
    found = await system_containers(engine, own)
    assert found["other"] is None
    assert None not in {what for name, what in found.items() if name != "other"}
