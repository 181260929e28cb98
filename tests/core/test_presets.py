"""What known runners leave behind is told apart from what is like it, by signs that were read from their packages."""

from dataclasses import replace

import pytest

from reaper.core.model import Kind, Reason, Resource
from reaper.core.owners import would_own
from reaper.core.presets import PRESETS
from reaper.core.rules import Rules
from reaper.core.scope import Scope, Selector
from tests.core.make import FOREIGN as POSTGRES
from tests.core.make import SANDBOX, judge_one

PROJECT, NUMBER = "com.docker.compose.project", "com.docker.compose.container-number"


def member(project: str, **fields: object) -> Resource:
    labels = {PROJECT: project, NUMBER: "1"}
    return replace(POSTGRES, labels=labels, group=project, **fields)  # type: ignore[arg-type]


def named(name: str, **fields: object) -> Resource:
    return replace(POSTGRES, name=name, **fields)  # type: ignore[arg-type]


def sandbox(labels: dict[str, str]) -> Resource:
    return replace(SANDBOX, labels=labels)


OWNED: dict[str, tuple[Resource, ...]] = {
    "swe-bench": (
        named("sweb.eval.django__django-11099.my-run"),
        named("c", image="swebench/sweb.eval.x86_64.astropy_1776_astropy-12907:latest"),
        named("c", image="sweb.env.py.x86_64.428468730904ff6b4232aa:latest"),
    ),
    "inspect-ai": (
        member("inspect-ctf-ia3bcde"),
        member("inspect-my_task-1-iq7zz2x"),
        member("inspect-swe-bench-ve-i9k2m4p"),
    ),
    "mini-swe-agent": (named("minisweagent-0a1b2c3d"),),
    "openhands": (named("openhands-runtime-7f6e"), named("openhands-sandbox-6fd0c39d-1")),
    "benchflow": (
        sandbox({"benchflow.managed": "1"}),
        sandbox({"benchflow.managed": "1:alice"}),
    ),
    "testcontainers": (named("c", labels={"org.testcontainers": "true", "org.testcontainers.session-id": "u-1"}),),
}
FOREIGN: dict[str, tuple[Resource, ...]] = {
    "swe-bench": (named("sweb.eval"), named("sweb.evaluation.1"), named("my.sweb.eval.a.b"), named("sweb.eval.one")),
    "inspect-ai": (
        *(member("inspect"), member("inspector-a-ia3bcde"), member("my-inspect-a-ia3bcde"), member("inspect-ia3bcde")),
        *(member("inspect-a-ia3bcd"), member("inspect-a-ia3bcdef"), member("inspect-important"), named("inspect-a-ia3bcde")),
        member("inspect-ctf-ia3bcde", inherited=None),
        replace(member("inspect-ctf-ia3bcde"), labels={PROJECT: "inspect-ctf-ia3bcde"}, group=None),
    ),
    "mini-swe-agent": (
        *(
            named("minisweagent"),
            named("minisweagent-backend1"),
            named("minisweagent-0a1b2c3d4"),
            named("my-minisweagent-0a1b2c3d"),
        ),
        named("minisweagent-0A1B2C3D"),
    ),
    "openhands": (
        named("openhands-app"),
        named("openhands-invariant-server"),
        named("openhands-runtime-"),
        named("openhands"),
    ),
    "benchflow": (
        sandbox({"benchflow.managed": "0"}),
        sandbox({"benchflow.managed": "10"}),
        sandbox({"benchflow": "1"}),
    ),
    "testcontainers": (
        named("c", labels={"org.testcontainers": "true"}),  # one that is to be found and used again has no session
        named("c", labels={"org.testcontainers.sessionid": "1"}),
    ),
}


def owner(resource: Resource, *presets: str) -> str | None:
    decision = judge_one(resource, Rules(scope=Scope(presets=presets, selector=Selector())))
    assert (decision.reason is Reason.NOT_OWNED) == (decision.owner is None)
    return decision.owner


@pytest.mark.parametrize(("preset", "resource"), [(p, r) for p, some in OWNED.items() for r in some])
def test_what_a_runner_leaves_is_owned_by_its_preset_alone(preset: str, resource: Resource) -> None:
    found = owner(resource, preset)
    assert found is not None
    assert found.startswith(f"preset {preset}, ")
    assert owner(resource, *(name for name in PRESETS if name != preset)) is None
    assert owner(resource, *Scope().presets) is None, "it is not among the defaults"
    assert would_own([resource], Scope()) == {resource.id: preset}


@pytest.mark.parametrize(("preset", "resource"), [(p, r) for p, some in FOREIGN.items() for r in some])
def test_what_is_like_it_is_not(preset: str, resource: Resource) -> None:
    assert owner(resource, preset) is None
    assert would_own([resource], Scope()) == {}


@pytest.mark.parametrize("preset", ["mini-swe-agent", "openhands", "swe-bench"])
def test_a_name_is_a_sign_on_containers_alone(preset: str) -> None:
    other = {"kind": Kind.NETWORK, "image": None}
    assert owner(replace(OWNED[preset][0], **other), preset) is None  # type: ignore[arg-type]
