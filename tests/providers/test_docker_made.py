"""What was made with a container, by the engine's own words about it."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import pytest

from reaper.errors import NotFoundError
from reaper.providers.docker.made import made_with

pytestmark = pytest.mark.anyio
NAMES = [digit * 64 for digit in "123456"]
LABEL = ("reaper.lease", "run-1")
IMAGE = "sha256:" + "ab" * 32
PROJECT = {"com.docker.compose.project": "chess"}


def volume(name: str, **fields: str) -> dict[str, str]:
    return {"Type": "volume", "Name": name, "Driver": "local", "Destination": "/x", **fields}


def container(mounts: list[dict[str, str]], labels: Mapping[str, str] | None = None, **host: Any) -> dict[str, Any]:
    own = dict([LABEL]) if labels is None else dict(labels)
    return {"Id": "c", "Image": IMAGE, "Config": {"Labels": own}, "HostConfig": host, "Mounts": mounts}


async def made(rows: Mapping[str, Any], *, new: bool = True) -> AbstractSet[str] | None:
    async def ask(path: str) -> object:
        if path not in rows:
            raise NotFoundError(path)
        return rows[path]

    return await made_with("c", LABEL, ask, lambda _: new)


async def test_only_volumes_that_nothing_names_were_made_with_it() -> None:
    one, bound, mounted, plugin, unnamed, _ = NAMES
    mounts = [
        volume(one),
        volume(bound),
        volume(mounted),
        volume(plugin, Driver="nfs"),
        volume(unnamed),
        volume("data"),
        {"Type": "bind", "Source": "/srv", "Destination": "/s"},
        {"Type": "tmpfs", "Destination": "/t"},
    ]
    row = container(
        mounts,
        Binds=[f"{bound}:/b:ro", "data:/d"],
        Mounts=[{"Type": "volume", "Source": mounted, "Target": "/m"}, {"Type": "volume", "Target": "/u"}],
    )
    assert await made({"containers/c/json": row}) == {one, unnamed}


async def test_what_comes_from_others_was_not_made_with_it() -> None:
    own, theirs, *_ = NAMES
    row = container([volume(own), volume(theirs)], VolumesFrom=["neighbour:ro"])
    rows = {"containers/c/json": row, "containers/neighbour/json": container([volume(theirs)], {})}
    assert await made(rows) == {own}
    del rows["containers/neighbour/json"]
    assert await made(rows) == set(), "it is unknown now"


@pytest.mark.parametrize("labels", [{}, {"reaper.lease": "another"}], ids=["none", "another"])
async def test_a_container_without_the_lease_s_label_is_another_s(labels: dict[str, str]) -> None:
    assert await made({"containers/c/json": container([volume(NAMES[0])], labels)}) is None


async def test_an_answer_about_another_container_says_nothing() -> None:
    assert await made({"containers/c/json": {**container([volume(NAMES[0])]), "Id": "d"}}) is None


async def test_null_is_nothing() -> None:
    row = {"Id": "c", "Config": {"Labels": dict([LABEL])}, "HostConfig": {"Binds": None, "Mounts": None}, "Mounts": None}
    assert await made({"containers/c/json": row}) == set()
    assert await made({"containers/c/json": {"Config": None, "HostConfig": None}}) is None


IMAGES = {
    "built": (PROJECT, True, {IMAGE}),
    "there before": (PROJECT, False, set()),
    "pulled": ({}, True, set()),
    "another project's": ({"com.docker.compose.project": "go"}, True, set()),
    "committed": ({**PROJECT, "com.docker.compose.container-number": "1"}, True, set()),
}


@pytest.mark.parametrize("name", IMAGES)
async def test_only_an_image_that_a_build_of_the_project_made_counts(name: str) -> None:
    labels, new, found = IMAGES[name]
    rows = {
        "containers/c/json": container([], {**PROJECT, **dict([LABEL])}),
        f"images/{IMAGE}/json": {"Config": {"Labels": labels}},
    }
    assert await made(rows, new=new) == found


async def test_a_container_of_no_project_has_no_built_image() -> None:
    assert await made({"containers/c/json": container([])}) == set()
