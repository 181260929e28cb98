"""Images that containers have mounted: in use like their own ones, though no engine says so or refuses their deletion."""

from typing import Any

import pytest

from devkit.client import DEFAULT_IMAGE, SLEEPS, EngineClient
from devkit.engine import PrivateEngine
from reaper.core.model import Kind
from reaper.errors import DependencyError
from reaper.providers.base import Also
from reaper.providers.docker.client import DockerProvider
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


def row(*mounts: object) -> dict[str, Any]:
    found = {"Id": "c" * 64, "Names": ["/user"], "State": "running", "Image": "x", "Created": 1_790_000_000}
    return {**found, "Mounts": list(mounts)}


@pytest.mark.parametrize("mount", [DOCKERS, PODMANS, {**DOCKERS, "Name": ID}, {**DOCKERS, "Name": "abababababab"}])
def test_a_container_uses_what_it_has_mounted(mount: dict[str, str]) -> None:
    assert IMAGE is not None
    listed = row(mount, {"Type": "volume", "Name": "data"})
    found = MountedImages()
    found.listed([listed])
    found.know([IMAGE])
    assert ID in found.mark(listed_container(listed, NAME)).uses


def test_it_uses_no_other_image_and_none_that_an_earlier_listing_had() -> None:
    assert IMAGE is not None
    other = row({**DOCKERS, "Name": "acme/data:2"})
    found = MountedImages()
    found.listed([other])
    found.know([IMAGE])
    assert ID not in found.mark(listed_container(other, NAME)).uses
    mine = row(DOCKERS)
    found.listed([mine])
    assert ID not in found.mark(listed_container(mine, NAME)).uses


@pytest.mark.parametrize("mounts", [None, "x", [None], [{"Type": "image"}], [{"Type": "volume", "Name": "data"}]])
def test_odd_mounts_are_none(mounts: object) -> None:
    assert mounted({"Mounts": mounts}) == frozenset()


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
