"""A pod of Podman is one unit with all that is in it, and goes last."""

from dataclasses import replace

import pytest

from reaper.core.model import Kind, Reason, Remembered, Resource, State
from reaper.core.rules import Rules
from reaper.core.scope import Scope, Selector
from tests.core.make import FOREIGN, NETWORK, OLD_24H, RUNNING, STOPPED, STOPPED_1H, ago, judged, rules

OWNED = {"terminal-bench": "yes"}
GROUP = "trial@0123456789ab"
A = replace(STOPPED, id="a", name="a", image="alpine", labels=OWNED, group=GROUP, in_pod=True, uses=frozenset({"p1"}))
B = replace(A, id="b", name="b")
LIVING = replace(RUNNING, id="r", name="r", image="alpine", labels=OWNED, group=GROUP, in_pod=True, uses=A.uses)
POD = replace(
    NETWORK, kind=Kind.POD, id="p1", name="trial", state=State.RUNNING, raw_state="occupied", group=GROUP, in_pod=True
)
EMPTY = replace(POD, labels=OWNED, state=State.STOPPED, raw_state="empty")


def reaped(*resources: Resource, by: Rules | None = None) -> set[str]:
    return {id_ for id_, decision in judged(resources, by or rules(STOPPED_1H)).items() if decision.reap}


def test_it_goes_with_all_that_is_in_it() -> None:
    assert reaped(A, B, POD) == {"a", "b", "p1"}
    assert judged([A, POD], rules(STOPPED_1H))["p1"].sentence == "it goes with its pod's containers"


@pytest.mark.parametrize(
    "member",
    [
        LIVING,
        replace(B, labels={}),
        replace(B, labels={**OWNED, "reaper.keep": ""}),
        replace(B, created_at=ago(minutes=5), started_at=ago(minutes=4), stopped_at=ago(minutes=3)),
        replace(B, unreadable="an odd time"),
        replace(B, state=State.CHANGING, raw_state="stopping"),
    ],
)
def test_one_that_is_kept_keeps_all(member: Resource) -> None:
    assert reaped(A, member, POD) == set()


@pytest.mark.parametrize(
    "pod",
    [
        replace(POD, labels={"reaper.keep": ""}),
        replace(POD, system_container="a container of the systemd unit trial-pod.service"),
        replace(POD, labels={"reaper.lease": "unknown"}, created_at=ago(hours=3)),
        replace(POD, labels=None),
        replace(POD, created_at=None),
    ],
)
def test_a_pod_that_is_kept_keeps_all_that_is_in_it(pod: Resource) -> None:
    assert reaped(A, pod) == set()


def test_what_one_container_says_of_its_runner_owns_no_other_one_of_the_pod() -> None:
    assert reaped(replace(A, image="tb__chess__client", labels={}), replace(B, labels={}), POD) == set()


def test_an_empty_pod_goes_when_it_is_owned_by_itself_and_no_longer_new() -> None:
    for by in (rules(STOPPED_1H), rules(OLD_24H)):
        assert reaped(EMPTY, by=by) == {"p1"}
        assert reaped(replace(EMPTY, labels={}), by=by) == set()
        assert reaped(replace(EMPTY, created_at=ago(minutes=5)), by=by) == set()
    named = Rules(scope=Scope(selector=Selector(names=("trial*",))), policies=(STOPPED_1H,))
    assert reaped(replace(EMPTY, labels={}), by=named) == {"p1"}


def test_an_empty_pod_whose_containers_have_just_gone_may_get_others() -> None:
    was = Remembered("preset terminal-bench, label terminal-bench", ago(minutes=-5), POD.created_at, "")
    decision = judged([replace(EMPTY, labels={}, remembered=was)], rules(STOPPED_1H))["p1"]
    assert (decision.reap, decision.reason) == (False, Reason.CREATED_GRACE)


def test_a_pod_is_none_of_another_one_and_of_no_project_that_has_its_name() -> None:
    project = replace(FOREIGN, id="f", labels={**OWNED, "com.docker.compose.project": "trial"}, group="trial")
    other = replace(LIVING, id="o", name="o", group="trial@ba9876543210", uses=frozenset({"p2"}))
    second = replace(POD, id="p2", group=other.group)
    assert reaped(A, POD, project, other, second) == {"a", "p1"}
