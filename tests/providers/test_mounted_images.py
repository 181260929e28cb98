"""Images that containers have mounted: in use like their own ones, though no engine says so or refuses their deletion."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from devkit.client import DEFAULT_IMAGE, SLEEPS, EngineClient
from devkit.engine import PrivateEngine
from reaper.core.model import Kind, Resource
from reaper.errors import DependencyError, ProviderError, UnavailableError
from reaper.providers.base import Also
from reaper.providers.docker.client import DockerProvider
from reaper.providers.docker.connection import EngineConnection
from reaper.providers.docker.containers import listed_container
from reaper.providers.docker.mounted_images import MountedImages, mounted
from reaper.providers.docker.settings import DockerTable
from reaper.providers.docker.volumes_images import image
from tests.providers.lab import NAME, direct

ID = "sha256:" + "ab" * 32
DOCKERS = {"Type": "image", "Name": "acme/data:1", "Source": "/var/lib/docker/overlay2/5f/merged", "Destination": "/mnt"}
PODMANS = {"Type": "image", "Source": "docker.io/acme/data:1", "Destination": "/mnt"}
IMAGE = image({"Id": ID, "RepoTags": ["acme/data:1"], "Created": 1_790_000_000, "Labels": None}, NAME)
MOUNTING = ("docker-28.5", "docker-28.5-containerd", "podman-5.8")


class Listings(EngineConnection):
    """An engine of version 1.48 that lists these containers.

    Args:
        answers: of one listing after the other; the last is that of all later ones.
    """

    def __init__(self, *answers: list[dict[str, Any]] | ProviderError) -> None:
        super().__init__(DockerTable(name=NAME, host="unix:///nowhere.sock"))
        self._answers = list(answers)
        self.made = 0

    def client(self) -> Any:
        return SimpleNamespace(api_version="1.48")

    async def containers(self, **_: str) -> Sequence[dict[str, Any]]:
        """Takes as long as one would."""
        self.made += 1
        answer = self._answers[min(self.made, len(self._answers)) - 1]
        await anyio.sleep(0.5)
        if isinstance(answer, ProviderError):
            raise answer
        return answer


def row(*mounts: object) -> dict[str, Any]:
    found = {"Id": "c" * 64, "Names": ["/user"], "State": "running", "Image": "x", "Created": 1_790_000_000}
    return {**found, "Mounts": list(mounts)}


@pytest.mark.parametrize("mount", [DOCKERS, PODMANS, {**DOCKERS, "Name": ID}, {**DOCKERS, "Name": "abababababab"}])
def test_a_container_uses_what_it_has_mounted(mount: dict[str, str]) -> None:
    assert IMAGE is not None
    listed = row(mount, {"Type": "volume", "Name": "data"})
    found = MountedImages(Listings())
    found.listed([listed])
    found.know([IMAGE])
    assert ID in found.mark(listed_container(listed, NAME)).uses


def test_it_uses_what_had_the_name_before() -> None:
    """Its tag has moved to a newer image since, and Podman would delete it under the mount."""
    before = image({"Id": ID, "RepoTags": [], "Created": 1_790_000_000, "Labels": None}, NAME)
    assert before is not None
    found = MountedImages(Listings())
    found.listed([row(PODMANS)])
    for former, uses in (({}, False), ({ID: ["localhost/x:1"]}, False), ({ID: ["docker.io/acme/data:1"]}, True)):
        found.know([before], former)
        assert (ID in found.mark(listed_container(row(PODMANS), NAME)).uses) is uses


def test_it_uses_no_other_image_and_none_that_an_earlier_listing_had() -> None:
    assert IMAGE is not None
    other = row({**DOCKERS, "Name": "acme/data:2"})
    found = MountedImages(Listings())
    found.listed([other])
    found.know([IMAGE])
    assert ID not in found.mark(listed_container(other, NAME)).uses
    mine = row(DOCKERS)
    found.listed([mine])
    assert ID not in found.mark(listed_container(mine, NAME)).uses


@pytest.mark.parametrize("mounts", [None, "x", [None], [{"Type": "image"}], [{"Type": "volume", "Name": "data"}]])
def test_odd_mounts_are_none(mounts: object) -> None:
    assert mounted({"Mounts": mounts}) == frozenset()


async def refusals(found: MountedImages, *images: Resource) -> list[str]:
    """Ask for the deletion of all of these at once: what kept them."""
    kept: list[str] = []

    async def delete(image: Resource) -> None:
        try:
            await found.refuse(image)
        except ProviderError as error:
            kept.append(f"{image.name}: {error}")

    async with anyio.create_task_group() as group:
        for one in images:
            group.start_soon(delete, one)
    return sorted(kept)


@pytest.mark.anyio
async def test_one_listing_answers_for_all_deletions_that_ask_at_once_and_no_older_one() -> None:
    """On a host of 5,000 containers each listing takes an engine half a second: one for each of 2,000 images is too much."""
    assert IMAGE is not None
    images = [replace(IMAGE, id=f"sha256:{number:064x}", name=str(number), tags=()) for number in range(100, 164)]
    engine = Listings([], [row({**DOCKERS, "Name": images[-1].id})])
    found = MountedImages(engine)
    assert await refusals(found, *images) == []
    assert await refusals(found, *images) == [f"163: the container {'c' * 12} has it mounted"]
    assert engine.made == 2


@pytest.mark.anyio
async def test_a_listing_that_fails_fails_the_one_that_made_it() -> None:
    assert IMAGE is not None
    images = [replace(IMAGE, id=f"sha256:{number:064x}", name=str(number), tags=()) for number in range(100, 104)]
    engine = Listings(UnavailableError("it is busy"), [])
    assert await refusals(MountedImages(engine), *images) == ["100: it is busy"]
    assert engine.made == 2


def mount(engine: EngineClient, name: str, reference: str) -> None:
    """Start a container that has mounted the image."""
    body: dict[str, Any]
    if isinstance(engine, PrivateEngine) and engine.flavour.is_podman:  # Docker's calls cannot say it there
        volumes = [{"Destination": "/mnt", "Source": reference}]
        body = {"name": name, "image": DEFAULT_IMAGE, "command": SLEEPS, "netns": {"nsmode": "none"}}
        engine.api.must("POST", "/v5.0.0/libpod/containers/create", {**body, "image_volumes": volumes})
    else:
        host = {"Mounts": [{"Type": "image", "Source": reference, "Target": "/mnt"}]}
        body = {"Image": DEFAULT_IMAGE, "Cmd": SLEEPS, "NetworkDisabled": True, "HostConfig": host}
        engine.api.must("POST", f"/containers/create?name={name}", body)
    engine.start_container(name)


@pytest.mark.anyio
@pytest.mark.engines(*MOUNTING)
async def test_it_is_told_by_listing_and_inspection_and_its_deletion_is_refused(engine: PrivateEngine) -> None:
    """Also of one that was mounted after the listing: the engine itself would delete it."""
    ids = {name: engine.labelled_image(f"acme/{name}:1", {}) for name in ("name", "id", "late", "free")}
    mount(engine, "by-name", "acme/name:1")
    mount(engine, "by-id", ids["id"])
    provider = DockerProvider(DockerTable(name=NAME, host=engine.host))
    try:
        listed = (await provider.list(direct, also=Also(kinds=frozenset({Kind.IMAGE})))).resources
        uses = {one.name: one.uses for one in listed if one.kind is Kind.CONTAINER}
        assert ids["name"] in uses["by-name"]
        assert ids["id"] in uses["by-id"]
        for one in listed:
            if one.kind is Kind.CONTAINER:
                assert (await provider.inspect(one)).uses & {*ids.values()} == one.uses & {*ids.values()}
        mount(engine, "late-user", "acme/late:1")
        images = {one.id: one for one in listed if one.kind is Kind.IMAGE}
        for name in ("name", "id", "late"):
            with pytest.raises(DependencyError, match="has it mounted"):
                await provider.delete(images[ids[name]])
        await provider.delete(images[ids["free"]])
    finally:
        await provider.close()
        engine.clear()
    left = {row["Id"] for row in engine.api.must("GET", "/images/json")}
    assert left & {*ids.values()} == {ids["name"], ids["id"], ids["late"]}
    engine.remove_images()
