"""Policies that stop or archive: which action wins, what matches none, and what groups get."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaper.core.conditions import Policy
from reaper.core.decide import decide, explain, needs_inspection
from reaper.core.identity import place
from reaper.core.model import Action, Kind, Reason, Remembered, Resource, State
from tests.core import strategies as worlds
from tests.core.make import CONTAINERS, HOUR, NETWORK, NOW, RUNNING, SANDBOX, STOPPED, ago, judge_one, judged, rules

SANDBOXES = frozenset({Kind.SANDBOX})
STOP = Policy("stop-idle", SANDBOXES, idle_for=2 * HOUR, action=Action.STOP)
ARCHIVE = Policy("archive", SANDBOXES, stopped_for=24 * HOUR, action=Action.ARCHIVE)
DELETE = Policy("delete", SANDBOXES, older_than=7 * 24 * HOUR, states=frozenset({"started", "stopped", "archived"}))
STOP_OLD = Policy("stop-old", CONTAINERS, older_than=24 * HOUR, action=Action.STOP)
CHAIN = rules(STOP, ARCHIVE, DELETE)


def halted(since: float, **fields: Any) -> Resource:
    at = ago(hours=since)
    return replace(SANDBOX, state=State.STOPPED, raw_state="stopped", stopped_at=at, last_activity_at=at, **fields)


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        (replace(SANDBOX, last_activity_at=ago(hours=1)), None),
        (SANDBOX, Action.STOP),
        (halted(3), None),
        (halted(25), Action.ARCHIVE),
        (replace(halted(30), raw_state="archived"), None),
        (replace(SANDBOX, created_at=ago(days=8)), Action.DELETE),
        (halted(3, created_at=ago(days=8)), Action.DELETE),
        (replace(halted(30, created_at=ago(days=8)), raw_state="archived"), Action.DELETE),
    ],
)
def test_a_chain_of_policies_stops_then_archives_then_deletes(resource: Resource, expected: Action | None) -> None:
    decision = judge_one(resource, CHAIN)
    assert (decision.action if decision.reap else None) == expected


def test_the_strongest_action_wins_whatever_the_order_of_the_policies() -> None:
    old = replace(SANDBOX, created_at=ago(days=8))
    for policies in ((STOP, DELETE), (DELETE, STOP)):
        decision = judge_one(old, rules(*policies))
        assert (decision.policy, decision.action) == ("delete", Action.DELETE)


def test_explain_says_what_is_to_be_done_and_why_a_stopped_one_matches_no_stop() -> None:
    resource = halted(3)
    findings = explain(resource, [resource], CHAIN, (), NOW)
    said = {finding.rule: finding.sentence for finding in findings}
    assert said["policy stop-idle"] == "policy stop-idle is to stop it, but it is stopped already"


@pytest.mark.parametrize("lost", [True, None])
def test_what_a_stop_destroys_or_may_destroy_is_neither_stopped_nor_archived(lost: bool | None) -> None:
    archive = replace(ARCHIVE, stopped_for=None, older_than=HOUR)
    assert not judge_one(replace(SANDBOX, lost_when_stopped=lost), rules(STOP, archive)).reap
    assert not judge_one(halted(48, lost_when_stopped=lost), rules(STOP, archive)).reap
    assert not judge_one(replace(RUNNING, lost_when_stopped=lost), rules(STOP_OLD)).reap


@pytest.mark.parametrize("raw", ["error", "paused"])
def test_what_the_platform_cannot_archive_matches_no_archiving(raw: str) -> None:
    state = State.FAILED if raw == "error" else State.STOPPED
    assert not judge_one(replace(halted(48), raw_state=raw, state=state), rules(ARCHIVE)).reap


def test_only_a_due_policy_acts_and_with_no_more_than_its_own_action() -> None:
    old = replace(SANDBOX, created_at=ago(days=8))
    by_due = {due: decide([old], CHAIN, (), NOW, {due})[0] for due in ("stop-idle", "archive", "delete")}
    assert (by_due["stop-idle"].action, by_due["stop-idle"].policy) == (Action.STOP, "stop-idle")
    assert by_due["archive"].reason is Reason.NOT_DUE
    assert by_due["delete"].action is Action.DELETE


# -- groups ------------------------------------------------------------------------------------------------------------

MAIN = replace(RUNNING, id="m", name="main", group="chess")
INIT = replace(STOPPED, id="i", name="init", group="chess")
STOPPED_1H = Policy("stopped", CONTAINERS, stopped_for=HOUR)


def test_a_project_gets_the_weakest_action_that_all_members_allow_and_keeps_its_network() -> None:
    decisions = judged([MAIN, INIT, NETWORK], rules(STOP_OLD, STOPPED_1H))
    assert [(d.reap, d.action) for id_, d in decisions.items() if id_ != "n1"] == [(True, Action.STOP)] * 2
    assert not decisions["n1"].reap
    assert "only to be stopped" in decisions["n1"].sentence


def test_a_member_that_stopped_long_ago_keeps_no_project_from_being_stopped() -> None:
    decisions = judged([MAIN, INIT], rules(STOP_OLD))
    assert all(d.reap and d.action is Action.STOP for d in decisions.values())


def test_a_young_member_keeps_the_project_running_although_it_has_stopped() -> None:
    young = replace(INIT, created_at=ago(hours=1), started_at=ago(hours=1), stopped_at=ago(minutes=5))
    assert not any(d.reap for d in judged([MAIN, young], rules(STOP_OLD)).values())


def test_a_protected_member_keeps_the_project_running() -> None:
    kept = replace(INIT, labels={"reaper.keep": ""})
    assert not any(d.reap for d in judged([MAIN, kept], rules(STOP_OLD)).values())


def test_one_member_that_a_stop_would_destroy_keeps_the_whole_project() -> None:
    removed = replace(MAIN, id="r", name="run", lost_when_stopped=True)
    assert not any(d.reap for d in judged([MAIN, removed], rules(STOP_OLD)).values())


def test_a_member_on_which_a_stop_of_the_project_depends_is_inspected() -> None:
    listed = replace(INIT, started_at=None, stopped_at=None, inspected=False)
    decisions = decide([MAIN, listed], rules(STOP_OLD), (), NOW)
    assert listed in needs_inspection(decisions)


def test_what_is_only_stopped_keeps_what_it_uses() -> None:
    user = replace(RUNNING, id="u", name="user", uses=frozenset({"d"}))
    used = replace(RUNNING, id="d", name="used", created_at=ago(days=9), started_at=ago(days=9))
    delete = Policy("delete", CONTAINERS, older_than=5 * 24 * HOUR)
    decisions = judged([user, used], rules(STOP_OLD, delete))
    assert decisions["u"].action is Action.STOP
    assert decisions["d"].reason is Reason.IN_USE


def test_the_network_of_a_project_that_is_only_stopped_stays_when_its_deletion_is_not_due() -> None:
    delete = Policy("delete", CONTAINERS, older_than=48 * HOUR)
    decisions = decide([MAIN, NETWORK], rules(STOP_OLD, delete), (), NOW, {"stop-old"})
    assert [(d.reap, d.action) for d in decisions] == [(True, Action.STOP), (False, Action.DELETE)]
    assert [d.reap for d in decide([MAIN, NETWORK], rules(STOP_OLD, delete), (), NOW, {"delete"})] == [True, True]


def test_a_policy_that_stops_takes_no_network_that_a_project_has_left() -> None:
    left = replace(NETWORK, remembered=Remembered("preset harbor", ago(days=1)))
    assert judge_one(left, rules(replace(STOP_OLD, action=Action.DELETE))).reap
    assert not judge_one(left, rules(STOP_OLD)).reap


# -- promises over generated worlds ------------------------------------------------------------------------------------


@settings(worlds.PROPERTY, max_examples=300)
@given(world=worlds.worlds_with_actions(), data=st.data())
def test_an_action_never_exceeds_what_the_policies_say(world: worlds.World, data: st.DataObject) -> None:
    names = [policy.name for policy in world.rules.policies]
    due = data.draw(st.none() | st.lists(st.sampled_from(names), unique=True)) if names else None
    deleting = tuple(policy for policy in world.rules.policies if policy.action is Action.DELETE)
    as_if = {worlds.key(d.resource): d for d in world.ask(deleting).decide()}
    whatever = {
        worlds.key(d.resource): d
        for d in world.ask(tuple(replace(p, action=Action.DELETE) for p in world.rules.policies)).decide()
    }
    decisions = world.decide(due)
    for decision in decisions:
        resource, at = decision.resource, worlds.key(decision.resource)
        if not decision.reap:
            continue
        if decision.action is Action.DELETE:
            assert as_if[at].reap  # without the policies that only stop or archive
            continue
        assert resource.kind.runs
        stays = resource.state in (State.STOPPED, State.FAILED)
        assert stays or (resource.state is State.RUNNING and resource.lost_when_stopped is False)
        if decision.action is Action.ARCHIVE and resource.raw_state != "archived":
            assert resource.raw_state in ("started", "stopped")
            assert resource.lost_when_stopped is False
        archived = any(r.raw_state == "archived" for r in world.resources if r.group == resource.group)
        assert whatever[at].reap or archived  # what keeps something from being deleted keeps it as it is
    groups: dict[object, set[tuple[bool, Action]]] = {}
    for decision in decisions:
        if decision.resource.kind.runs and decision.resource.group is not None and not decision.resource.alone:
            key = (decision.resource.endpoint, decision.resource.group, place(decision.resource))
            groups.setdefault(key, set()).add((decision.reap, decision.action if decision.reap else Action.DELETE))
    assert all(len(found) == 1 for found in groups.values())
