"""What Podman's own listing shows: parts of manifest lists and mounted images whose tag has moved, which it would delete."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devkit.engine import PrivateEngine
from reaper.errors import DeniedError, NotFoundError, ProviderError, UnavailableError
from reaper.providers.docker.podman_images import PodmanImages
from reaper.providers.docker.volumes_images import image
from tests.engine.lab import toml
from tests.providers.lab import NAME, direct
from tests.providers.test_mounted_images import mount
from tests.run import Program

PART, OTHER, LIST = "a" * 64, "b" * 64, "c" * 64
ROWS: list[dict[str, Any]] = [
    {"Id": PART, "RepoTags": None, "RepoDigests": [], "Digest": "sha256:1", "IsManifestList": False},
    {"Id": OTHER, "RepoTags": ["localhost/x:1"], "RepoDigests": ["localhost/x@sha256:2"], "IsManifestList": False},
    {"Id": LIST, "RepoTags": ["localhost/list:1"], "RepoDigests": [], "Digest": "sha256:3", "IsManifestList": True},
]


class Podman:
    """Answers with these rows, and with this content of the list."""

    is_podman = True

    def __init__(self, rows: Any = ROWS, content: Any = None) -> None:
        self.asked: list[str] = []
        self._answers = {
            "libpod/images/json": rows,
            f"libpod/manifests/{LIST}/json": {"manifests": [{"digest": "sha256:1"}]} if content is None else content,
        }

    async def ask(self, path: str, **_: str) -> Any:
        self.asked.append(path)
        if isinstance(answer := self._answers.get(path, NotFoundError("no such image")), ProviderError):
            raise answer
        return answer


def mark_of(lists: PodmanImages, id_: str) -> str | None:
    """What the image with this id is said to be a part of."""
    found = lists.mark(image({"Id": f"sha256:{id_}", "RepoTags": [], "Created": 1_790_000_000, "Labels": None}, NAME))
    assert found is not None
    return found.system_container


@pytest.mark.anyio
@pytest.mark.parametrize("digest", ["sha256:1", "sha256:2"])
async def test_the_images_with_the_digests_of_a_list_are_its_parts(digest: str) -> None:
    """By their own digest, or by that of the repository where they are."""
    engine: Any = Podman(content={"manifests": [{"digest": digest}, {"digest": "sha256:9"}]})
    lists = PodmanImages(NAME, engine)
    assert await lists.read_with([{}], direct) == [{}]
    said = "a part of the manifest list localhost/list:1"
    assert (mark_of(lists, PART), mark_of(lists, OTHER)) == ((said, None) if digest == "sha256:1" else (None, said))


@pytest.mark.anyio
async def test_podman_4_does_not_say_what_is_a_list() -> None:
    """It is asked about what has a name and no former ones, and answers 404 of an image."""
    rows = [{key: value for key, value in row.items() if key != "IsManifestList"} for row in ROWS]
    rows[1] |= {"History": ["localhost/x:1"]}
    engine: Any = Podman([*rows, {**rows[2], "Id": "d" * 64}])
    lists = PodmanImages(NAME, engine)
    assert await lists.read_with([{}], direct) == [{}]
    assert mark_of(lists, PART) == "a part of the manifest list localhost/list:1"
    assert engine.asked == ["libpod/images/json", f"libpod/manifests/{LIST}/json", f"libpod/manifests/{'d' * 64}/json"]


@pytest.mark.anyio
async def test_a_list_that_is_not_found_is_an_error_where_it_is_one() -> None:
    engine: Any = Podman([{**ROWS[2], "Id": "d" * 64}])
    assert isinstance(await PodmanImages(NAME, engine).read_with([{}], direct), ProviderError)


@pytest.mark.anyio
async def test_a_list_may_be_empty() -> None:
    engine: Any = Podman(content={"schemaVersion": 2, "manifests": None})
    lists = PodmanImages(NAME, engine)
    assert await lists.read_with([{}], direct) == [{}]
    assert mark_of(lists, PART) is None


@pytest.mark.anyio
@pytest.mark.parametrize("broken", [{}, [], {"manifests": {}}, {"manifests": ["x"]}, UnavailableError("busy")])
async def test_images_are_not_listed_while_a_list_cannot_be_read(broken: Any) -> None:
    for engine in (Podman(content=broken), Podman(rows=broken if broken != [] else None)):
        spoken: Any = engine
        assert isinstance(await PodmanImages(NAME, spoken).read_with([{}], direct), ProviderError)


@pytest.mark.anyio
async def test_a_refusal_says_what_has_to_be_let_through() -> None:
    engine: Any = Podman(rows=DeniedError("403"))
    assert "GET /libpod/manifests/ID/json" in str(await PodmanImages(NAME, engine).read_with([{}], direct))


@pytest.mark.anyio
async def test_docker_is_asked_nothing_and_podman_only_where_there_are_images() -> None:
    engine: Any = SimpleNamespace(is_podman=False)
    assert await PodmanImages(NAME, engine).read_with([{}], direct) == [{}]
    engine = SimpleNamespace(is_podman=True)
    assert await PodmanImages(NAME, engine).read_with([], direct) == []


@pytest.fixture
def listed(engine: PrivateEngine) -> Iterator[dict[str, str]]:
    """Ids by name of two images without a tag, and one with one; the first and the last are parts of lists."""
    found = {name: engine.labelled_image(f"acme/{name}:1", {"team": "rl"}) for name in ("part", "free", "tagged")}
    tags = {row["Id"]: row["RepoTags"][0] for row in engine.api.must("GET", "/images/json")}
    for name in ("part", "tagged"):
        engine.api.must("POST", f"/v4.0.0/libpod/manifests/list-{name}?images=containers-storage:{tags[found[name]]}")
    for name in ("part", "free"):
        engine.api.must("POST", f"/v4.0.0/libpod/images/{tags[found[name]]}/untag")
    yield found
    for name in ("part", "tagged"):
        engine.api.must("DELETE", f"/v4.0.0/libpod/manifests/list-{name}")
    engine.remove_images()


@pytest.mark.engine
@pytest.mark.engines("podman-5.8")
def test_a_mounted_image_whose_tag_has_moved_stays(engine: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    """The engine itself would delete it, and the container would find its folder empty."""
    ids = {name: engine.labelled_image(f"acme/{name}:1", {"team": "rl"}) for name in ("mounted", "free")}
    mount(engine, "user", "acme/mounted:1")
    for name in ids:
        engine.rebuild_tag(f"acme/{name}:1")
    config = toml(
        tmp_path, '[scope]\nlabels = ["team=rl"]\n[[policy]]\nname = "old"\nkinds = ["image"]\nolder_than = "1ms"\n'
    )
    reaper("--once", *config)  # the memory of images begins here
    ended = reaper("--once", "--json", *config)
    assert ended.code == 0, ended.err
    left = {one["Id"] for one in engine.api.must("GET", "/images/json?all=1")}
    assert left & {*ids.values()} == {ids["mounted"]}
    engine.remove("user", force=True)
    engine.remove_images()


@pytest.mark.engine
@pytest.mark.engines("podman-4.3", "podman-5.8")
def test_the_parts_of_a_manifest_list_stay(
    engine: PrivateEngine, reaper: Program, tmp_path: Path, listed: dict[str, str]
) -> None:
    """The engine itself would delete them, and the list would name what is not there."""
    policy = '[scope]\nlabels = ["team=rl"]\n[[policy]]\nname = "old"\nkinds = ["image"]\nolder_than = "1ms"\n'
    config = toml(tmp_path, policy)
    reaper("--once", *config)  # the memory of images begins here
    ended = reaper("--once", "--json", *config)
    assert ended.code == 0, ended.err
    (row,) = (row for row in ended.document["endpoints"][0]["resources"] if row["outcome"] == "deleted")
    assert row["id"] == listed["free"]
    left = {one["Id"] for one in engine.api.must("GET", "/images/json?all=1")}
    assert {listed["part"], listed["tagged"]} <= left, json.dumps([*left])
