"""How old an image is: since it was last built, pulled, loaded or tagged on this engine, and not since it was first seen."""

from pathlib import Path

import pytest

from devkit.engine import PrivateEngine
from tests.engine.lab import docker, seen_a_day_ago, toml
from tests.run import Program

pytestmark = [pytest.mark.engine, pytest.mark.engines("docker-20.10", "docker-28.5", "docker-28.5-containerd")]

CONFIG = """
[scope]
images = ["acme/*"]

[[policy]]
name = "images"
kinds = ["image"]
older_than = "1h"
"""


WAYS = ("nothing", "pull", "remove and pull", "pull by digest", "load")


@pytest.mark.parametrize("way", WAYS)
def test_an_image_is_as_young_as_its_last_pull(
    clean: PrivateEngine, reaper: Program, registry: str, tmp_path: Path, way: str
) -> None:
    """Docker's own image store dates no image by that. A runner that pulls what is here already is about to use it."""
    engine, name, saved = clean, f"{registry}/acme/pulled:1", str(tmp_path / "image.tar")
    docker(engine, "pull", "--quiet", name)
    if way == "load":
        docker(engine, "save", "--output", saved, name)
    config = toml(tmp_path, CONFIG)
    assert reaper("--once", "--json", *config).outcomes() == {}
    seen_a_day_ago(reaper.folder)
    if way == "remove and pull":
        docker(engine, "rmi", name)
    match way:
        case "pull" | "remove and pull":
            docker(engine, "pull", "--quiet", name)
        case "pull by digest":
            (digest,) = engine.api.must("GET", f"/images/{name}/json")["RepoDigests"]
            docker(engine, "pull", "--quiet", digest)
        case "load":
            docker(engine, "load", "--input", saved)
    ended = reaper("--once", "--json", *config)
    # containerd's store dates an image by each pull, so that no time has passed for it.
    stays = way != "nothing" or engine.flavour.name.endswith("containerd")
    assert ended.outcomes() == ({} if stays else {name: "deleted"}), ended.err


@pytest.mark.parametrize("is_tagged", [False, True])
def test_an_image_that_was_pulled_by_digest_goes(
    clean: PrivateEngine, reaper: Program, registry: str, tmp_path: Path, is_tagged: bool
) -> None:
    """Containerd's store lists that reference twice, which is no second tag."""
    engine, name = clean, f"{registry}/acme/pulled:1"
    docker(engine, "pull", "--quiet", name)
    (digest,) = engine.api.must("GET", f"/images/{name}/json")["RepoDigests"]
    if not is_tagged:
        docker(engine, "rmi", name)
    docker(engine, "pull", "--quiet", digest)
    config = toml(tmp_path, CONFIG.replace("1h", "1ms"))
    ended = reaper("--once", "--json", *config)
    if not ended.outcomes():  # Docker's own store tells no time of the pull, so it counts from the first look
        ended = reaper("--once", "--json", *config)
    assert ended.outcomes() == {name if is_tagged else digest: "deleted"}, ended.err
    assert name not in engine.images()


@pytest.mark.engines("podman-4.3", "podman-5.8")
@pytest.mark.parametrize("is_loaded", [True, False])
def test_an_image_that_podman_loads_again_is_used(
    clean: PrivateEngine, reaper: Program, tmp_path: Path, is_loaded: bool
) -> None:
    """Podman has a word of its own for that event."""
    engine, saved = clean, str(tmp_path / "image.tar")
    engine.labelled_image("acme/x:1", {})
    docker(engine, "save", "--output", saved, "acme/x:1")
    config = toml(tmp_path, CONFIG.replace("older_than", "unused_for"))
    assert reaper("--once", "--json", *config).outcomes() == {}
    seen_a_day_ago(reaper.folder)
    if is_loaded:
        docker(engine, "load", "--input", saved)
    ended = reaper("--once", "--json", *config)
    assert list(ended.outcomes().values()) == ([] if is_loaded else ["deleted"]), ended.err
