"""What comes with an image owns nothing, and two projects of one name are two: on real engines, with real Compose."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from devkit.client import EngineClient
from devkit.engine import PrivateEngine
from tests import needs
from tests.engine.lab import HOUR, OWNED, WAITS, containers, exited, member_of, ran, reasons, rows, services, toml
from tests.run import Program

pytestmark = [pytest.mark.engine, pytest.mark.engines(*needs.DOCKERS)]

BUILT = {
    "com.docker.compose.project": "chess-1",
    "com.docker.compose.service": "db",
    "com.docker.compose.version": "2.40.3",
}
"""What Compose 2.40.3 writes into an image that it builds."""


def image_of(engine: EngineClient, name: str, labels: Mapping[str, str]) -> str:
    """A runnable image with these labels, committed from a container that carries them."""
    ident = engine.create(f"{name}-source", labels=labels, cmd=WAITS)
    engine.commit(ident, f"{name}:1")
    engine.remove(ident)
    return f"{name}:1"


def forget(engine: PrivateEngine, image: str, folder: Path) -> None:
    """Have the engine know nothing of an image of which containers are there that do not run."""
    if "containerd" not in engine.flavour.name:
        engine.api.must("DELETE", f"/images/{image}?force=1")
        return
    (folder / "Dockerfile").write_text(f"FROM bench:1\nLABEL other={image}\n")
    words = [*engine.docker_command(), "build", "--quiet", "--tag", image, str(folder)]
    done = subprocess.run(words, env={**os.environ, "DOCKER_HOST": engine.host}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def old(engine: PrivateEngine, *idents: str) -> None:
    engine.backdate({ident: ran(30 * HOUR) for ident in idents})


@pytest.mark.parametrize(
    "labels",
    [BUILT, {**BUILT, **member_of("chess-1")}, OWNED, {"harbor.managed": "true"}],
    ids=["built", "committed member", "preset label", "harbor label"],
)
def test_a_neighbour_s_container_of_a_run_s_image_stays(
    engine: PrivateEngine, reaper: Program, labels: Mapping[str, str]
) -> None:
    image = image_of(engine, "chess-1-db", labels)
    client = engine.tag("bench:1", "tb__chess__client:latest")
    trial = engine.create("chess-1-client-1", labels=member_of("chess-1"), image=client, cmd=WAITS, start=True)
    neighbour = engine.create("neighbour", image=image, cmd=WAITS, start=True)
    always = engine.create("always", image=image, cmd=WAITS, start=True, restart="always")
    old(engine, trial, neighbour, always)
    ended = reaper("--once", "--json", "--all")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"chess-1-client-1": "deleted"}
    assert containers(engine) == {"neighbour", "always"}
    assert set(reasons(ended).values()) == {"all", "not_owned"}
    explained = reaper("explain", "neighbour")
    assert "not_owned" in explained.out or "nothing in [scope] matches it" in explained.out


def test_inherited_labels_are_explained_hinted_and_own_if_the_operator_says_so(
    engine: PrivateEngine, reaper: Program, tmp_path: Path
) -> None:
    image = image_of(engine, "snapshot", {**OWNED, "reaper.keep": ""})
    plain = image_of(engine, "plain", OWNED)
    for name, of in (("kept", image), ("one", plain), ("two", plain)):
        engine.create(name, image=of, cmd=WAITS, start=True)
    ended = reaper("--once", "--json", "--all")
    assert ended.outcomes() == {}
    (hint,) = [hint for hint in ended.document["hints"] if "image_labels" in hint]
    assert hint.startswith("3 resources have a label that [scope] requires, from its image alone")
    explained = reaper("explain", "one")
    assert "is its image's label, not its own" in explained.out
    assert "not owned: label is its image's" in reaper("list").out
    own = toml(tmp_path, "[scope]\nimage_labels = true\n")
    ended = reaper("--once", "--json", "--all", *own)
    assert ended.outcomes() == {"one": "deleted", "two": "deleted"}
    assert reasons(ended)["kept"] == "protected"


def test_a_young_stranger_of_the_image_keeps_no_dead_trial(engine: PrivateEngine, reaper: Program) -> None:
    image = image_of(engine, "chess-db", member_of("chess"))
    trial = exited(engine, "chess-client-1", member_of("chess", OWNED))
    engine.create("stranger", image=image, cmd=WAITS, start=True)
    assert trial
    ended = reaper("--once", "--json", "--stopped")
    assert ended.outcomes() == {"chess-client-1": "deleted"}
    assert containers(engine) == {"stranger"}


def test_labels_of_an_image_that_is_gone_take_nothing(engine: PrivateEngine, reaper: Program) -> None:
    image = image_of(engine, "gone", {"run": "x"})
    exited(engine, "mine", OWNED, image=image)
    engine.api.must("DELETE", f"/images/{image}?force=1")
    ended = reaper("--once", "--json", "--stopped")
    assert ended.code == 0, ended.err
    if ended.outcomes():  # the containerd store keeps what a container is made of
        assert ended.outcomes() == {"mine": "deleted"}
    else:
        assert "its image could not be read" in rows(ended)["mine"]["sentence"]


def test_labels_that_a_sweep_has_proven_to_be_its_own_take_it_when_its_image_is_gone(
    engine: PrivateEngine, reaper: Program, tmp_path: Path
) -> None:
    """What an earlier listing has shown stays true; of what was made since, nothing is known."""
    plain, labelled = image_of(engine, "plain", {"run": "x"}), image_of(engine, "labelled", OWNED)
    exited(engine, "mine", OWNED, image=plain)
    exited(engine, "stranger", {}, image=labelled)
    assert reaper("--once", "--json", "--older-than", "1h").outcomes() == {}
    exited(engine, "late", OWNED, image=plain)
    for image in (plain, labelled):
        forget(engine, image, tmp_path)
    for _ in range(2):
        assert "not_owned" not in reasons(reaper("--once", "--dry-run", "--json", "--stopped"))["mine"]
    ended = reaper("--once", "--json", "--stopped")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"mine": "deleted"}
    assert containers(engine) == {"stranger", "late"}


@pytest.mark.usefixtures("compose_possible")
def test_two_projects_of_one_name_from_two_folders(engine: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    client = engine.tag("bench:1", "tb__chess__client:latest")
    trial, web = tmp_path / "trial", tmp_path / "web"
    engine.compose("chess", services({"client": client}), "up", "-d", directory=trial)
    theirs = services({"db": "bench:1"})
    theirs["services"]["db"]["restart"] = "always"
    engine.compose("chess", theirs, "up", "-d", directory=web)
    found = {engine.inspect(i)["Config"]["Labels"]["com.docker.compose.service"]: i for i in engine.ids()}
    assert found.keys() == {"client", "db"}
    old(engine, *found.values())
    ended = reaper("--once", "--json")
    assert ended.code == 0, ended.err
    assert engine.ids() == [found["db"]], "the trial has gone, and what others run has not"
    assert engine.inspect(found["db"])["State"]["Running"]
    assert engine.networks() == ["chess_default"]
    said = {name: row["sentence"] for name, row in rows(ended).items() if row["reason"] != "older_than"}
    assert any("another project of the name chess is owned" in sentence for sentence in said.values())


@pytest.mark.usefixtures("compose_possible")
def test_what_compose_runs_once_and_scales_is_one_project(engine: PrivateEngine, reaper: Program, tmp_path: Path) -> None:
    client = engine.tag("bench:1", "tb__chess__client:latest")
    content = services({"client": client, "side": "bench:1"})
    engine.compose("chess", content, "up", "-d", "--scale", "side=2", directory=tmp_path)
    engine.compose("chess", content, "run", "-d", "side", *WAITS, directory=tmp_path)
    assert len(engine.ids()) == 4
    old(engine, *engine.ids())
    ended = reaper("--once", "--json")
    assert ended.code == 0, ended.err
    assert len(ended.outcomes()) == 5
    assert engine.ids() == []
    assert engine.networks() == []
