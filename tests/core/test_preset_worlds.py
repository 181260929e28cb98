"""What releases of runners leave is told apart from what is like it: alone, and on one engine that all of them share."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from reaper.config.presets import PresetTable
from reaper.core.conditions import Policy
from reaper.core.model import Kind, Remembered, Resource
from reaper.core.owners import Owners, would_own
from reaper.core.presets import PRESETS, Preset
from reaper.core.rules import Judge, Rules
from reaper.core.scope import Scope
from tests.core.make import NOW
from tests.core.preset_worlds import WORLDS, World

UNUSED = Policy("unused", frozenset({Kind.NETWORK, Kind.VOLUME, Kind.IMAGE}), unused_for=timedelta(hours=1))
DEFAULTS = Scope().presets
ALL = [(world, resource) for world in WORLDS for resource in (*world.owned, *world.foreign)]


def owners(resources: Sequence[Resource], presets: Sequence[str], *own: Preset) -> dict[str, str | None]:
    """By name and kind the preset that owns each."""
    judge = Judge(resources, Rules(Scope(tuple(presets), own_presets=own), policies=(UNUSED,)), (), NOW)
    decided = ((resource, judge.decide(resource).owner) for resource in resources)
    return {r.id: None if by is None else by.removeprefix("preset ").partition(",")[0] for r, by in decided}


def _id(world: World) -> str:
    return f"{world.preset}: {world.what}"


def test_there_are_worlds_of_every_preset() -> None:
    assert len(WORLDS) >= 30
    assert {world.preset for world in WORLDS} == set(PRESETS)
    assert all(world.source and world.owned and world.foreign for world in WORLDS)


@pytest.mark.parametrize("world", WORLDS, ids=_id)
def test_the_preset_owns_what_its_runner_makes_and_nothing_else(world: World) -> None:
    found = owners((*world.owned, *world.foreign), [world.preset])
    assert {r.name: found[r.id] for r in world.owned} == {r.name: world.preset for r in world.owned}
    assert {r.name: found[r.id] for r in world.foreign} == {r.name: None for r in world.foreign}


def test_on_a_shared_engine_each_owns_its_own_whatever_others_are_in_force() -> None:
    found = owners([resource for _, resource in ALL], tuple(PRESETS))
    wrong = {
        f"{_id(world)}: {resource.name}": found[resource.id]
        for world, resource in ALL
        if found[resource.id] != (world.preset if resource in world.owned else None)
    }
    assert wrong == {}


@pytest.mark.parametrize("world", WORLDS, ids=_id)
def test_without_its_preset_nothing_owns_it_and_the_preset_is_named(world: World) -> None:
    resources = (*world.owned, *world.foreign)
    others = tuple(name for name in DEFAULTS if name != world.preset)
    assert set(owners(resources, others).values()) == {None}
    named = would_own(resources, Scope(others))
    assert named == {resource.id: world.preset for resource in world.owned}


# -- a preset that is written in a file --------------------------------------------------------------------------------

HEX, WORD = "[0-9a-f]", "[a-z0-9]"
WRITTEN: dict[str, dict[str, object]] = {
    "swe-bench": {
        "names": ["sweb.eval.?*.?*"],
        "images": ["swebench/sweb.eval.*", "sweb.eval.*", "sweb.env.*"],
        "built_images": ["swebench/sweb.eval.*", "sweb.eval.*", "sweb.env.*"],
    },
    "inspect-ai": {"projects": [f"inspect-{'?' * length}-i{WORD * 6}" for length in range(1, 13)]},
    "mini-swe-agent": {"names": [f"minisweagent-{HEX * 8}"]},
    "openhands": {"names": ["openhands-runtime-?*", "openhands-sandbox-?*", f"oh-agent-server-{'[0-9A-Za-z]' * 22}"]},
    "benchflow": {
        "labels": ["benchflow.managed=1", "benchflow.managed=1:*", "benchflow.owned=true"],
        "config_files": list(PRESETS["benchflow"].config_files),
    },
    "testcontainers": {"labels": ["org.testcontainers.session-id"]},
    "harbor": {
        "labels": ["harbor.managed=true"],
        "images": ["hb__*"],
        "built_images": ["hb__*"],
        "config_files": list(PRESETS["harbor"].config_files),
        "keepalive": "harbor.instance_id",
    },
}
"""The same signs as a team would write them; Harbor's without the names that it gives to what is left without containers."""


def written(name: str) -> Preset:
    return PresetTable.model_validate({"name": f"my-{name}", **WRITTEN[name]}).preset()


@pytest.mark.parametrize("world", [world for world in WORLDS if world.preset in WRITTEN], ids=_id)
def test_a_preset_of_a_file_owns_what_the_built_in_one_with_the_same_signs_owns(world: World) -> None:
    resources = (*world.owned, *world.foreign)
    kept = [r for r in resources if not (world.preset == "harbor" and "without its containers" in world.what)]
    built_in, own = owners(kept, [world.preset]), owners(kept, [f"my-{world.preset}"], written(world.preset))
    assert own == {id_: None if by is None else f"my-{by}" for id_, by in built_in.items()}


def test_a_preset_of_a_file_is_switched_by_its_name() -> None:
    preset = replace(written("mini-swe-agent"), name="mine")
    world = next(world for world in WORLDS if world.preset == "mini-swe-agent")
    assert set(owners(world.owned, ["harbor"], preset).values()) == {None}
    assert set(owners(world.owned, ["mine"], preset).values()) == {"mine"}
    assert set(would_own(world.owned, Scope((), own_presets=(preset,))).values()) == {"mini-swe-agent"}


def test_what_was_remembered_of_a_preset_is_forgotten_when_its_signs_change() -> None:
    """A preset that owned too much is mended in the file: what it no longer says is owned no longer."""
    wide = PresetTable(name="mine", labels=("team",), projects=("web-*",), volume_projects=("web-*",)).preset()
    narrow = PresetTable(name="mine", labels=("team=rl",), projects=("web-trial-*",)).preset()
    template = next(r for world in WORLDS for r in world.owned if r.kind is Kind.NETWORK)
    for said in ("label team", "project web-*", "name of its project", "label team on its project's containers"):
        lost = replace(
            template, name="web-1_default", group="web-1", labels={}, remembered=Remembered(f"preset mine, {said}", NOW)
        )
        for preset, is_owned in ((wide, True), (narrow, False)):
            scope = Scope(("mine",), own_presets=(preset,))
            assert (Owners([lost], scope).owner(lost) is not None) is is_owned, said
