"""Networks, volumes and images by policies of their own, on real engines: what is owned goes, and nothing else."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from devkit import images
from devkit.client import DEFAULT_IMAGE, EngineClient
from devkit.engine import PrivateEngine
from tests import needs
from tests.engine.lab import DAY, WAITS, docker, exited, member_of, rows, toml, until
from tests.run import Program

pytestmark = [pytest.mark.engine, pytest.mark.engines(*needs.DOCKERS)]

OWNED = """
[scope]
names = ["bench-*"]
labels = ["team=rl"]
images = ["acme/*"]
"""
NETWORKS = '[[policy]]\nname = "networks"\nkinds = ["network"]\nolder_than = "1d"\n'
VOLUMES = '[[policy]]\nname = "volumes"\nkinds = ["volume"]\nolder_than = "1ms"\n'
UNUSED = '[[policy]]\nname = "unused"\nkinds = ["network", "volume", "image"]\nunused_for = "1ms"\n'


def volume(engine: EngineClient, name: str = "", labels: Mapping[str, str] | None = None) -> str:
    made: str = engine.api.must("POST", "/volumes/create", {"Name": name, "Labels": labels or {}})["Name"]
    return made


def test_networks_outside_of_projects_go(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    engine = clean
    for name in ("bench-a", "bench-used", "bench-young", "other"):
        engine.create_network(name)
    engine.create_network("labelled", {"team": "rl"})
    engine.create_network("p_default", {"com.docker.compose.project": "p", "team": "rl"})
    exited(engine, "user", {}, network="bench-used")
    old = [name for name in engine.networks() if name != "bench-young"]
    engine.backdate({}, networks=dict.fromkeys(old, 2 * DAY))
    ended = reaper("--once", "--json", *toml(tmp_path, OWNED + NETWORKS))
    assert ended.code == 0, ended.err
    assert ended.outcomes() == dict.fromkeys(("bench-a", "labelled", "p_default"), "deleted")
    assert sorted(engine.networks()) == ["bench-used", "bench-young", "other"]


@pytest.mark.parametrize("is_other_owned", [False, True])
def test_a_network_that_is_the_configuration_of_another_goes_after_that(
    clean: PrivateEngine, reaper: Program, tmp_path: Path, is_other_owned: bool
) -> None:
    """The engine refuses it with 403, which is no matter of permission."""
    engine, other = clean, "bench-made" if is_other_owned else "made"
    engine.api.must("POST", "/networks/create", {"Name": "bench-configuration", "ConfigOnly": True})
    body = {"Name": other, "Driver": "bridge", "ConfigFrom": {"Network": "bench-configuration"}}
    engine.api.must("POST", "/networks/create", body)
    engine.backdate({}, networks={"bench-configuration": 2 * DAY, other: 2 * DAY})
    ended = reaper("--once", "--json", *toml(tmp_path, OWNED + NETWORKS))
    assert ended.code == 0, ended.err
    assert ended.outcomes() == ({"bench-configuration": "deleted", other: "deleted"} if is_other_owned else {})
    if not is_other_owned:
        assert rows(ended)["bench-configuration"]["reason"] == "in_use"
        engine.api.must("DELETE", f"/networks/{other}")  # the fixture knows of no order


@pytest.mark.parametrize("is_named", [False, True])
def test_a_network_on_whose_bridge_another_lies_stays_for_that(
    clean: PrivateEngine, reaper: Program, tmp_path: Path, is_named: bool
) -> None:
    """The engine would delete it, and with its bridge what the containers of the other one have."""
    engine = clean
    engine.import_image()
    named = {"Options": {"com.docker.network.bridge.name": "bench0"}} if is_named else {}
    id_ = engine.api.must("POST", "/networks/create", {"Name": "bench-below", "Driver": "bridge", **named})["Id"]
    parent = "bench0" if is_named else f"br-{id_[:12]}"
    body = {"Name": "above", "Driver": "macvlan", "Options": {"parent": parent}}
    engine.api.must("POST", "/networks/create", body)
    alive = engine.create("alive", network="above", start=True)
    engine.backdate({}, networks={"bench-below": 2 * DAY, "above": 2 * DAY})
    ended = reaper("--once", "--json", *toml(tmp_path, OWNED + NETWORKS))
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {}
    assert rows(ended)["bench-below"]["reason"] == "in_use"
    engine.api.must("DELETE", f"/containers/{alive}?force=1")
    engine.api.must("DELETE", "/networks/above")
    assert reaper("--once", "--json", *toml(tmp_path, OWNED + NETWORKS)).outcomes() == {"bench-below": "deleted"}


def test_anonymous_volumes_go_and_named_ones_stay(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    engine = clean
    engine.import_image()
    anonymous = [volume(engine) for _ in range(20)]
    named = [volume(engine, f"data-{number}") for number in range(5)]
    engine.create("user", cmd=("/none",), binds=[f"{anonymous[0]}:/data"])
    policy = VOLUMES + "anonymous = true\n"
    ended = reaper("--once", "--json", "--max-deletions", "none", *toml(tmp_path, "[scope]\neverything = true\n" + policy))
    assert ended.code == 0, ended.err
    assert ended.outcomes() == dict.fromkeys(anonymous[1:], "deleted")
    assert sorted(engine.volumes()) == sorted([anonymous[0], *named])


def test_owned_volumes_go_and_foreign_ones_stay(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    engine = clean
    engine.import_image()
    for name in ("bench-a", "bench-used", "foreign"):
        volume(engine, name)
    volume(engine, "labelled", {"team": "rl"})
    volume(engine, "kept", {"team": "rl", "reaper.keep": ""})
    engine.create("user", cmd=("/none",), binds=["bench-used:/data"])
    ended = reaper("--once", "--json", *toml(tmp_path, OWNED + VOLUMES))
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"bench-a": "deleted", "labelled": "deleted"}
    assert sorted(engine.volumes()) == ["bench-used", "foreign", "kept"]


@pytest.mark.parametrize("end", ["/_data", "/_data/below", ""])
def test_a_volume_whose_folder_a_container_has_mounted_stays(
    clean: PrivateEngine, reaper: Program, tmp_path: Path, end: str
) -> None:
    """The engine itself would delete it."""
    engine = clean
    for name in ("bench-mounted", "bench-free"):
        volume(engine, name)
    folder = engine.api.must("GET", "/volumes/bench-mounted")["Mountpoint"].removesuffix("/_data")
    engine.create("user", cmd=("/none",), binds=[f"{folder}{end}:/backup:ro"])
    ended = reaper("--once", "--json", *toml(tmp_path, OWNED + VOLUMES))
    assert ended.outcomes() == {"bench-free": "deleted"}, ended.err
    assert engine.volumes() == ["bench-mounted"]


@pytest.mark.engines(*needs.DOCKERS, "podman-5.8")
@pytest.mark.parametrize("option", ["device", "lowerdir"])
def test_a_volume_that_another_one_is_mounted_from_stays(
    clean: PrivateEngine, reaper: Program, tmp_path: Path, option: str
) -> None:
    """The engine itself would delete it under a running container, and with it what the other one holds."""
    engine = clean
    engine.import_image()
    for name in ("bench-base", "bench-free"):
        volume(engine, name)
    folder = engine.api.must("GET", "/volumes/bench-base")["Mountpoint"]
    options = {"type": "none", "o": "bind", "device": folder}
    if option == "lowerdir":
        options = {"type": "overlay", "device": "overlay", "o": f"lowerdir={folder},upperdir=/none/u,workdir=/none/w"}
    engine.api.must("POST", "/volumes/create", {"Name": "above", "Driver": "local", "DriverOpts": options})
    if option == "device" and not engine.flavour.is_podman:
        engine.create("user", cmd=WAITS, binds=["above:/data"], start=True)
    ended = reaper("--once", "--json", *toml(tmp_path, OWNED + VOLUMES))
    assert ended.outcomes() == {"bench-free": "deleted"}, ended.err
    assert engine.volumes() == ["above", "bench-base"]


def test_a_use_of_what_was_built_on_an_image_counts(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    """No event names what a build began with, nor what is below the image of a container."""
    engine = clean
    engine.rebuild_tag("acme/base:1")
    engine.create("step", image="acme/base:1", cmd=("sh", "-c", "echo 1 > /step"), start=True)
    engine.wait_state("step", "exited")
    engine.commit("step", "neighbour/above:1")
    engine.remove("step")
    config = toml(tmp_path, OWNED + UNUSED)
    assert reaper("--once", "--json", *config).outcomes() == {}
    engine.create("user", image="neighbour/above:1", cmd=WAITS, start=True)
    assert reaper("--once", "--json", *config).outcomes() == {}
    engine.remove("user", force=True)
    engine.api.must("DELETE", "/images/neighbour/above:1?noprune=1")
    ended = reaper("--once", "--json", *config)
    assert ended.outcomes() == {}, ended.err
    assert reaper("--once", "--json", *config).outcomes() == {"acme/base:1": "deleted"}


def test_what_was_unused_goes_at_the_second_look(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    """Also on an engine that has just been started, where nothing has happened since."""
    engine = clean
    engine.import_image()
    engine.create_network("bench-net")
    volume(engine, "bench-data")
    engine.labelled_image("acme/x:1", {})
    engine.backdate({}, networks={"bench-net": 2 * DAY})
    config = toml(tmp_path, OWNED + UNUSED)
    assert reaper("--once", "--json", *config).outcomes() == {}
    ended = reaper("--once", "--json", *config)
    assert ended.outcomes() == dict.fromkeys(("bench-net", "bench-data", "acme/x:1"), "deleted"), ended.err


def test_a_use_between_two_looks_counts(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    engine = clean
    engine.rebuild_tag("acme/x:1")
    engine.labelled_image("acme/tagged:1", {})
    for name in ("bench-data", "bench-unused"):
        volume(engine, name)
    engine.create_network("bench-net")
    engine.backdate({}, networks={"bench-net": 2 * DAY})
    config = toml(tmp_path, OWNED + UNUSED)
    reaper("--once", *config)
    user = exited(engine, "user", {}, image="acme/x:1", binds=["bench-data:/data"], network="bench-net")
    engine.remove(user, volumes=False)
    engine.tag("acme/tagged:1", "acme/tagged:1")
    assert reaper("--once", "--json", *config).outcomes() == {"bench-unused": "deleted"}
    ended = reaper("--once", "--json", *config)
    names = ("bench-net", "bench-data", "acme/x:1", "acme/tagged:1")
    assert ended.outcomes() == dict.fromkeys(names, "deleted"), rows(ended)


def test_a_use_by_any_name_of_an_image_counts(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    """Events have the reference that a person wrote: runners write the registry, digests and the beginnings of ids."""
    engine = clean
    engine.import_image()
    for name in ("registry", "short", "digest", "unused"):
        engine.rebuild_tag(f"acme/{name}:1")
    images = {name: engine.api.must("GET", f"/images/acme/{name}:1/json") for name in ("short", "digest")}
    used = ["docker.io/acme/registry:1", images["short"]["Id"].removeprefix("sha256:")[:10]]
    used += [f"acme/digest:1@{digest.partition('@')[2]}" for digest in images["digest"]["RepoDigests"] or ()]
    config = toml(tmp_path, OWNED + UNUSED)
    reaper("--once", *config)
    for number, image in enumerate(used):
        engine.remove(exited(engine, f"user-{number}", {}, image=image))
    deleted = {"acme/unused:1": "deleted"} | ({"acme/digest:1": "deleted"} if len(used) == 2 else {})
    assert reaper("--once", "--json", *config).outcomes() == deleted


def test_a_start_of_the_engine_counts_as_a_use(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    """What happened before it is not known any more."""
    engine = clean
    volume(engine, "bench-data")
    config = toml(tmp_path, OWNED + UNUSED)
    reaper("--once", *config)
    engine.backdate({})
    assert reaper("--once", "--json", *config).outcomes() == {}
    assert reaper("--once", "--json", *config).outcomes() == {"bench-data": "deleted"}


def test_images_go_by_their_names_and_nothing_else_does(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    engine = clean
    engine.import_image()
    engine.rebuild_tag("acme/base:1")
    for name in ("acme/a:1", "acme/used:1", "acme/mixed:1", "acme/kept:1", "neighbour/x:1"):
        engine.labelled_image(name, {"reaper.keep": ""} if "kept" in name else {})
    engine.tag("acme/mixed:1", "neighbour/mixed:1")
    engine.create("user", image="acme/used:1", cmd=("/none",))
    child = engine.create("child", image="acme/base:1", cmd=("sh", "-c", "echo x > /new"), start=True)
    engine.wait_state(child, "exited")
    engine.commit(child, "neighbour/child:1")
    engine.remove(child)
    config = toml(tmp_path, OWNED + UNUSED)
    before = set(engine.images())
    assert reaper("--once", "--json", *config).outcomes() == {}
    ended = reaper("--once", "--json", *config)
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"acme/a:1": "deleted"}
    assert set(engine.images()) == before - {"acme/a:1"}


@pytest.mark.engines("docker-28.5", "docker-28.5-containerd")
def test_an_image_that_a_container_has_mounted_stays(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    """It could not be started again elsewhere, and the engine refuses nothing."""
    engine = clean
    for name in ("acme/mounted:1", "acme/free:1"):
        engine.labelled_image(name, {})
    mounts = [{"Type": "image", "Source": "acme/mounted:1", "Target": "/mnt"}]
    body = {"Image": engine.import_image(), "Cmd": ["true"], "NetworkDisabled": True, "HostConfig": {"Mounts": mounts}}
    engine.api.must("POST", "/containers/create?name=user", body)
    policy = '[[policy]]\nname = "images"\nkinds = ["image"]\nolder_than = "1ms"\n'
    assert reaper("--once", "--json", *toml(tmp_path, OWNED + policy)).outcomes() == {"acme/free:1": "deleted"}
    assert "acme/mounted:1" in engine.images()


def test_an_image_that_lost_its_tag_goes(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    engine = clean
    engine.labelled_image("acme/x:1", {"n": "1"})
    engine.labelled_image("neighbour/x:1", {"n": "1"})
    config = toml(tmp_path, OWNED + UNUSED)
    reaper("--once", *config)
    for name in ("acme/x:1", "neighbour/x:1"):
        engine.labelled_image(name, {"n": "2"})
    untagged = [row for row in engine.api.must("GET", "/images/json") if row["RepoTags"] in (None, [], ["<none>:<none>"])]
    assert len(untagged) == 2
    assert reaper("--once", "--json", *config).outcomes() == {}
    ended = reaper("--once", "--json", *config)
    assert len(ended.outcomes()) == 2, ended.err
    assert set(ended.outcomes().values()) == {"deleted"}
    left = [row for row in engine.api.must("GET", "/images/json") if row["RepoTags"] in (None, [], ["<none>:<none>"])]
    assert len(left) == 1


def test_a_project_goes_with_its_volumes(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    engine = clean
    for project in ("gone", "alive"):
        volume(engine, f"{project}_data", {"com.docker.compose.project": project})
        network = engine.create_network(f"{project}_default", {"com.docker.compose.project": project})
        exited(engine, project, member_of(project, {"team": "rl"}), network=network, binds=[f"{project}_data:/data"])
    engine.create("more", labels=member_of("alive", {"team": "rl"}), start=True)
    policy = (
        '[[policy]]\nname = "stopped"\nkinds = ["container"]\nstopped_for = "1ms"\nwith_project = ["network", "volume"]\n'
    )
    ended = reaper("--once", "--json", *toml(tmp_path, OWNED + policy))
    assert ended.code == 0, ended.err
    assert ended.outcomes() == dict.fromkeys(("gone", "gone_default", "gone_data"), "deleted")
    assert engine.volumes() == ["alive_data"]
    assert engine.networks() == ["alive_default"]


@pytest.mark.engines("docker-20.10", "docker-28.5")  # containerd's store forgets an image with its tag, and so its labels
@pytest.mark.parametrize("is_built_again", [True, False])
def test_an_image_that_was_built_again_since_stays(
    clean: PrivateEngine, reaper: Program, tmp_path: Path, is_built_again: bool
) -> None:
    """By another user in a folder of the same name, or for the next ``up``."""
    engine, labels = clean, {"com.docker.compose.project": "p", "com.docker.compose.service": "web"}
    for name in ("p-web-1", "again") if is_built_again else ("p-web-1",):
        exited(engine, "step", {}, image=engine.import_image())
        engine.commit("step", "p-web:latest", {**labels, "build": name})
        engine.remove("step")
        if name == "p-web-1":
            exited(engine, name, member_of("p", {**labels, "team": "rl"}), image="p-web")
    policy = (
        '[[policy]]\nname = "stopped"\nkinds = ["container"]\nstopped_for = "1ms"\nwith_project = ["network", "image"]\n'
    )
    ended = reaper("--once", "--json", *toml(tmp_path, OWNED + policy))
    assert ended.outcomes() == {"p-web-1": "deleted"} | ({} if is_built_again else {"p-web:latest": "deleted"}), ended.err
    assert ("p-web:latest" in engine.images()) is is_built_again


def built(engine: PrivateEngine, folder: Path, name: str, base: str) -> str:
    """Build an image with BuildKit; its id."""
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(f'FROM {base}\nCOPY file /{name.partition("/")[0]}\nRUN ["true"]\n')
    (folder / "file").write_bytes(name.encode() * 50_000)
    docker = ["/usr/bin/docker", "--host", engine.host, "build", "--network", "none", "--tag", name, str(folder)]
    command = engine.beside("/usr/bin/env", "DOCKER_BUILDKIT=1", f"HOME={folder}", *docker)
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return str(engine.api.must("GET", f"/images/{name}/json")["Id"])


@pytest.mark.engines("docker-28.5", "docker-28.5-containerd")
def test_an_image_that_the_cache_gives_once_more_for_the_next_up_stays(
    clean: PrivateEngine, reaper: Program, tmp_path: Path
) -> None:
    """It has the same id, whether its project's containers are there still or it was deleted with them."""
    engine, labels = clean, {"com.docker.compose.project": "p", "com.docker.compose.service": "web"}
    exited(engine, "step", {}, image=engine.import_image())
    engine.commit("step", "base:1", labels)
    engine.remove("step")
    policy = (
        '[[policy]]\nname = "stopped"\nkinds = ["container"]\nstopped_for = "1ms"\nwith_project = ["network", "image"]\n'
    )
    config, gone = toml(tmp_path, OWNED + policy), {"p-web-1": "deleted"}
    id_ = built(engine, tmp_path / "b", "p-web:latest", "base:1")
    exited(engine, "p-web-1", member_of("p", {**labels, "team": "rl"}), image="p-web")
    assert built(engine, tmp_path / "b", "p-web:latest", "base:1") == id_
    assert reaper("--once", "--json", *config).outcomes() == gone
    exited(engine, "p-web-1", member_of("p", {**labels, "team": "rl"}), image="p-web")
    assert reaper("--once", "--json", *config).outcomes() == gone | {"p-web:latest": "deleted"}
    assert built(engine, tmp_path / "b", "p-web:latest", "base:1") == id_
    assert reaper("--once", "--json", *config).outcomes() == {}
    assert "p-web:latest" in engine.images()


def cached(engine: PrivateEngine) -> int:
    """Bytes of the build cache that no image shares."""
    records = engine.api.must("GET", "/system/df?type=build-cache")["BuildCache"] or []
    return sum(record["Size"] for record in records if not record["Shared"])


@pytest.mark.engines("docker-28.5", "docker-28.5-containerd")
def test_a_container_whose_image_was_built_again_is_no_unseen_leak(
    clean: PrivateEngine, reaper: Program, tmp_path: Path
) -> None:
    """The store of containerd forgets its image, and so whether the container's label came with that."""
    engine = clean
    engine.import_image()
    (tmp_path / "Dockerfile").write_text(f"FROM {DEFAULT_IMAGE}\nCOPY mark /mark\n")
    for name in ("run-1", "run-2"):
        (tmp_path / "mark").write_text(name)
        docker(engine, "build", "--quiet", "--tag", "acme/x:1", str(tmp_path))
        exited(engine, name, {"team": "rl"}, image="acme/x:1")
    policy = '[scope]\nlabels = ["team=rl"]\n[[policy]]\nname = "stopped"\nkinds = ["container"]\nstopped_for = "1ms"\n'
    ended = reaper("--once", "--json", *toml(tmp_path, policy))
    hints = [hint for hint in ended.document["hints"] if "maybe from its image" in hint and "(run-1)" in hint]
    is_forgotten = engine.flavour.name.endswith("containerd")
    assert (set(ended.outcomes()), len(hints)) == (({"run-2"}, 1) if is_forgotten else ({"run-1", "run-2"}, 0)), ended.err


@pytest.mark.engines("docker-28.5", "docker-28.5-containerd")
def test_what_buildkit_built_goes_and_then_its_cache(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    engine = clean
    engine.import_image()
    built(engine, tmp_path / "b", "acme/base:1", DEFAULT_IMAGE)
    built(engine, tmp_path / "c", "neighbour/child:1", "acme/base:1")
    built(engine, tmp_path / "g", "acme/gone:1", DEFAULT_IMAGE)
    config = toml(tmp_path, OWNED + UNUSED)
    reaper("--once", *config)
    ended = reaper("--once", "--json", *config)
    assert ended.outcomes() == {"acme/gone:1": "deleted"}, ended.err
    assert "was built on it" in rows(ended)["acme/base:1"]["sentence"]
    assert any("build cache" in hint for hint in ended.document["hints"])
    before = cached(engine)
    assert before > 0
    cache = '[[policy]]\nname = "cache"\nkinds = ["build-cache"]\nunused_for = "1ms"\n'
    dry = reaper("--once", "--dry-run", "--json", *toml(tmp_path, cache))
    assert dry.outcomes() == {"build-cache": "would_delete"}
    assert cached(engine) == before
    # The engine counts in whole seconds, and prunes nothing that was used within the last one.
    sweeps = (reaper("--once", "--json", *toml(tmp_path, cache)) for _ in range(60))
    ended = next(ended for ended in sweeps if ended.outcomes() != {"build-cache": "gone"})
    assert ended.outcomes() == {"build-cache": "deleted"}, ended.err
    assert "freed" in rows(ended)["build-cache"]["detail"]
    assert cached(engine) < before
    # containerd gives back in its own time what the pruned records held, and some count as free until then.
    until(lambda: reaper("--once", "--json", *toml(tmp_path, cache)).outcomes() == {}, "nothing left to prune")
    assert {"acme/base:1", "neighbour/child:1"} <= set(engine.images())


@pytest.mark.engines("docker-20.10", "docker-28.5")
def test_what_the_classic_builder_left_below_an_image_goes_with_it(
    clean: PrivateEngine, reaper: Program, tmp_path: Path
) -> None:
    """Else the bytes stay: the layer of a file is that of an image without a name, which the listing does not show."""
    engine = clean
    engine.import_image()
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * 500_000)
    for name, last in (("acme/x:1", "A=1"), ("acme/y:1", "A=2"), ("neighbour/z:1", "A=3")):
        steps = ["FROM " + DEFAULT_IMAGE, *(["COPY file /file"] if "z" not in name else []), "ENV B=1", f"ENV {last}"]
        (folder / "Dockerfile").write_text("\n".join(steps))
        images.build(engine, folder, name)
    everything = engine.api.must("GET", "/images/json?all=1")
    assert len(everything) > len(engine.api.must("GET", "/images/json"))
    config = toml(tmp_path, OWNED + UNUSED)
    reaper("--once", *config)
    ended = reaper("--once", "--json", *config)
    assert ended.code == 0, ended.err
    assert set(ended.outcomes().values()) == {"deleted"}, ended.outcomes()
    assert {"acme/x:1", "acme/y:1"} <= set(ended.outcomes())
    kept = engine.api.must("GET", "/images/neighbour/z:1/json")["Id"]
    left = {row["Id"] for row in engine.api.must("GET", "/images/json?all=1")}
    assert len(left) == 3, "the base, the neighbour's image, and what is below that"
    assert kept in left


def test_an_image_that_lost_its_tag_and_is_used_stays(clean: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    """And so does the one that has the tag now: the container names it."""
    engine = clean
    used = engine.labelled_image("acme/x:1", {"n": "1"})
    engine.create("user", image="acme/x:1", cmd=("/none",))
    config = toml(tmp_path, OWNED + UNUSED)
    reaper("--once", *config)
    engine.labelled_image("acme/x:1", {"n": "2"})
    reaper("--once", *config)
    ended = reaper("--once", "--json", *config)
    assert ended.outcomes() == {}, ended.err
    found = {row["id"]: row for row in rows(ended).values() if row["kind"] == "image"}
    assert "user uses it" in found[used]["sentence"]
    assert engine.api.get(f"/images/{used}/json")[0] == 200


HOST = """
[scope]
names = ["bench-*"]
images = ["acme/*"]

[[policy]]
name = "stopped"
kinds = ["container"]
stopped_for = "1ms"
with_project = ["network", "volume", "image"]

[[policy]]
name = "unused"
kinds = ["network", "volume", "image"]
unused_for = "1ms"
"""


def test_a_whole_host_is_cleaned_and_its_neighbours_keep_everything(
    clean: PrivateEngine, reaper: Program, tmp_path: Path
) -> None:
    engine = clean
    engine.import_image()
    trials = [f"hello-{n}-1-of-1-2026-11-21__06-30-00" for n in range(6)]
    neighbours = ["website", "shop"]
    for number, project in enumerate((*trials, *neighbours)):
        labels = {"com.docker.compose.project": project}
        volume(engine, f"{project}_data", labels)
        network = engine.create_network(f"{project}_default", labels)
        owned = project in trials
        service = {**labels, "com.docker.compose.service": "client"}
        engine.labelled_image(f"{project}-client:latest", service)
        if owned and number % 2:
            continue  # its containers went long before
        image = engine.tag(DEFAULT_IMAGE, "tb__hello__client:latest") if owned else DEFAULT_IMAGE
        make: dict[str, Any] = {"network": network, "binds": [f"{project}_data:/data"], "image": image}
        if owned:
            exited(engine, f"{project}-client", {**member_of(project), **service}, **make)
        else:
            engine.create(f"{project}-client", labels={**member_of(project), **service}, start=True, **make)
    for name in ("bench-a", "data", "cache"):
        volume(engine, name)
        engine.create_network(name)
    for name in ("acme/x:1", "tb__other__client:latest", "hb__x:1", "postgres:16", "someone/tb__x:1"):
        engine.labelled_image(name, {})
    engine.backdate({}, networks=dict.fromkeys(engine.networks(), DAY))
    config = toml(tmp_path, HOST)
    for _ in range(3):
        ended = reaper("--once", "--json", *config)
        assert ended.code == 0, ended.err
    assert sorted(engine.networks()) == sorted(["cache", "data", "shop_default", "website_default"])
    assert sorted(engine.volumes()) == sorted(["cache", "data", "shop_data", "website_data"])
    assert len(engine.ids()) == len(engine.ids(all=False)) == len(neighbours)
    kept = {"postgres:16", "someone/tb__x:1", "shop-client:latest", "website-client:latest"}
    assert set(engine.images()) == kept | {DEFAULT_IMAGE, "tb__hello__client:latest"}  # two names of one image


def test_what_is_unused_goes_from_an_engine_with_live_restore_where_nothing_runs(
    flavour: str, reaper: Program, tmp_path: Path
) -> None:
    with PrivateEngine(flavour).start(live_restore=True) as engine:
        volume(engine, "bench-data")
        engine.restart()
        config = toml(tmp_path, OWNED + UNUSED)
        env = {"DOCKER_HOST": engine.host}
        assert reaper("--once", "--json", *config, env=env).outcomes() == {}
        ended = reaper("--once", "--json", *config, env=env)
        assert ended.outcomes() == {"bench-data": "deleted"}, ended.err


def test_what_was_used_before_an_engine_forgot_that_and_kept_its_containers_stays(
    flavour: str, reaper: Program, tmp_path: Path
) -> None:
    """With live-restore it keeps its network "bridge" over a start, by which else a start is known when nothing happened."""
    with PrivateEngine(flavour).start(live_restore=True) as engine:
        engine.create("lives", cmd=WAITS, networked=True, start=True)
        volume(engine, "bench-data")
        config = toml(tmp_path, OWNED + UNUSED)
        env = {"DOCKER_HOST": engine.host}
        engine.restart()
        assert reaper("--once", "--json", *config, env=env).outcomes() == {}
        exited(engine, "user", {}, binds=["bench-data:/data"])
        engine.remove("user")
        engine.restart()
        assert engine.state("lives") == "running"
        assert reaper("--once", "--json", *config, env=env).outcomes() == {}
        engine.create_volume("other")  # from here on something has happened
        assert reaper("--once", "--json", *config, env=env).outcomes() == {}
        ended = reaper("--once", "--json", *config, env=env)
        assert ended.outcomes() == {"bench-data": "deleted"}, ended.err
