"""``check --all`` counts the volumes and images of owned projects, which no policy judges."""

import re
from pathlib import Path

import pytest

from devkit.client import EngineClient
from reaper.simulator.faults import Fault
from tests import needs
from tests.run import NO_DAYTONA, Program
from tests.simulator.docker_world import World

pytestmark = pytest.mark.engines(*needs.DOCKERS)
SERVICE = {"com.docker.compose.service": "client", "com.docker.compose.container-number": "1"}


def project(name: str) -> dict[str, str]:
    return {"com.docker.compose.project": name}


def volume(engine: EngineClient, name: str, of: str | None) -> None:
    engine.api.must("POST", "/volumes/create", {"Name": name, "Labels": project(of) if of else {}})


def said(program: Program) -> list[str]:
    ended = program("check", "--all", "--json")
    assert ended.code in (0, 6), ended.err
    return [hint for hint in ended.document["hints"] if "not judged" in hint]


def test_volumes_and_images_of_owned_projects_are_counted(any_engine: EngineClient, tmp_path: Path) -> None:
    engine, program = any_engine, Program(tmp_path, {"DOCKER_HOST": any_engine.host, **NO_DAYTONA})
    volume(engine, "foreign", "neighbour")
    volume(engine, "alone", None)
    engine.labelled_image("neighbour-db:1", project("neighbour"))
    try:
        assert said(program) == []
        owned = engine.create("client", labels={**project("chess"), **SERVICE, "terminal-bench": ""})
        client = engine.create("tb", labels={**project("go"), **SERVICE}, image=engine.tag("bench:1", "tb__go__client:1"))
        for number in range(2):
            volume(engine, f"chess-{number}", "chess")
        volume(engine, "go-data", "go")
        engine.labelled_image("chess-db:1", project("chess"))
        engine.labelled_image("tb__hanoi__client:1", project("hanoi"))
        volume(engine, "hanoi-data", "hanoi")
        (hint,) = said(program)
        found = re.fullmatch(r"(.*)local: 4 volumes and 2 images of 3 owned projects are not judged.*", hint)
        assert found, hint
        assert hint.endswith("docker compose -p chess down --volumes --rmi local")
        assert "not judged" not in program("check").err, "only --all asks for them"
        for one in (owned, client):
            engine.remove(one, force=True)
        (hint,) = said(program)
        assert "1 volume and 1 image of 1 owned project are" in hint, "the image that is left tells whose it is"
    finally:
        engine.remove_images()


def test_those_of_a_project_that_was_reaped_are_counted(any_engine: EngineClient, tmp_path: Path) -> None:
    engine, program = any_engine, Program(tmp_path, {"DOCKER_HOST": any_engine.host, **NO_DAYTONA})
    labels = {**project("chess"), **SERVICE, "terminal-bench": ""}
    engine.create("client", labels=labels, start=True, cmd=["true"])
    engine.wait_state("client", "exited")
    volume(engine, "chess-data", "chess")
    volume(engine, "foreign", "neighbour")
    assert program("--once", "--stopped").code == 0
    assert engine.ids() == []
    (hint,) = said(program)
    assert "local: 1 volume of 1 owned project is not judged" in hint


def test_one_kind_that_cannot_be_listed_hides_nothing_of_the_other(world: World, tmp_path: Path) -> None:
    world.labelled_image("tb__hanoi__client:1", project("hanoi"))
    world.faults.add(Fault(kind="status", status=500, method="GET", path="/volumes$"))
    program = Program(tmp_path, {"DOCKER_HOST": world.host, "REAPER_RETRY__TOTAL": "1s", **NO_DAYTONA})
    ended = program("check", "--all", "--json")
    assert ended.code == 5
    assert "its volumes could not be listed" in ended.document["endpoints"][0]["failure"]["message"]
    (hint,) = (hint for hint in ended.document["hints"] if "not judged" in hint)
    assert "local: 1 image of 1 owned project is not judged" in hint
