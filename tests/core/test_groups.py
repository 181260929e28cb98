"""A group is one unit, and what is in use stays."""

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.conditions import Policy
from reaper.core.lease import Lease
from reaper.core.model import Kind, Reason, Remembered, Resource, State
from reaper.core.rules import Rules
from reaper.core.scope import Scope, Selector
from tests.core.make import (
    ALL_KINDS,
    CONTAINERS,
    EVERYTHING,
    FOREIGN,
    HOUR,
    NETWORK,
    OLD_24H,
    RUNNING,
    SANDBOX,
    STOPPED,
    STOPPED_1H,
    ago,
    judged,
    rules,
)
from tests.core.strategies import PROPERTY, World, worlds

CLIENT = replace(STOPPED, group="chess")
SIDECAR = replace(
    RUNNING, id="c2", name="sidecar", group="chess", image="redis:7", labels={"com.docker.compose.project": "chess"}
)
GROUP = [CLIENT, SIDECAR, NETWORK]
BOTH = rules(STOPPED_1H, OLD_24H)
ORPHAN = replace(NETWORK, labels={"terminal-bench": ""})


def gone(resources: list[Resource], by: Rules = BOTH, *leases: Lease) -> set[str]:
    return {id_ for id_, decision in judged(resources, by, leases).items() if decision.reap}


@PROPERTY
@given(worlds(), st.booleans())
def test_all_members_of_a_group_go_or_none(world: World, every: bool) -> None:
    decisions = (world.ask((EVERYTHING,)) if every else world).decide()
    fates: dict[tuple[str, str | None], set[bool]] = {}
    for decision in decisions:
        if decision.resource.group is not None and decision.resource.kind in ALL_KINDS:
            fates.setdefault((decision.resource.endpoint, decision.resource.group), set()).add(decision.reap)
    assert all(len(fate) == 1 for fate in fates.values())
    for decision in decisions:
        if decision.resource.kind is Kind.NETWORK and decision.reap:
            assert decision.resource.group is not None
        if decision.reap and decision.resource.group is not None:
            assert fates.get((decision.resource.endpoint, decision.resource.group), {True}) == {True}


def test_the_members_may_match_different_policies() -> None:
    decisions = judged(GROUP, BOTH)
    assert (decisions["c1"].reason, decisions["c2"].reason) == (Reason.STOPPED_FOR, Reason.OLDER_THAN)
    assert decisions["n1"].reason is Reason.GROUP_REAPED
    assert decisions["n1"].sentence == "it goes with its project's containers"
    assert decisions["n1"].policy == "stopped-containers"


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (replace(SIDECAR, created_at=ago(hours=1), started_at=ago(hours=1)), Reason.TOO_YOUNG),
        (replace(SIDECAR, started_at=ago(hours=1)), Reason.TOO_YOUNG),
        (replace(SIDECAR, labels={"reaper.keep": ""}), Reason.PROTECTED),
        (replace(SIDECAR, labels={"reaper.ttl": "9d"}), Reason.LABEL_NOT_DUE),
        (replace(SIDECAR, labels={"reaper.ttl": "x"}), Reason.INVALID_LABEL),
        (replace(SIDECAR, state=State.CHANGING, raw_state="removing"), Reason.CHANGING),
        (replace(SIDECAR, state=State.UNKNOWN, raw_state="?"), Reason.UNKNOWN_STATE),
        (replace(SIDECAR, labels=None), Reason.UNREADABLE),
        (replace(SIDECAR, created_at=None), Reason.UNREADABLE),
        (replace(SIDECAR, unreadable="no id"), Reason.UNREADABLE),
        (replace(SIDECAR, system_container="this program"), Reason.SYSTEM_CONTAINER),
        (replace(SIDECAR, labels={"reaper.lease": "a"}), Reason.LEASED),
        (
            replace(SIDECAR, raw_state="created", state=State.STOPPED, created_at=ago(minutes=5), started_at=None),
            Reason.CREATED_GRACE,
        ),
    ],
)
def test_one_member_that_stays_keeps_all(spoilt: Resource, reason: Reason) -> None:
    by = Rules(policies=(STOPPED_1H, OLD_24H))
    decisions = judged([CLIENT, spoilt, NETWORK], by, [Lease("a", "other")])
    assert decisions["c2"].reason is reason
    for kept in ("c1", "n1"):
        assert decisions[kept].reason is Reason.GROUP_KEPT
        assert "sidecar, which is kept" in decisions[kept].sentence


def test_an_unowned_member_keeps_all() -> None:
    scope = Scope(presets=(), selector=Selector(labels=("team",)))
    mine = replace(CLIENT, labels={"team": "rl"})
    decisions = judged([mine, SIDECAR, replace(NETWORK, labels={"team": "rl"})], Rules(scope=scope, policies=(EVERYTHING,)))
    assert {id_: d.reason for id_, d in decisions.items()} == {
        "c1": Reason.GROUP_KEPT,
        "c2": Reason.NOT_OWNED,
        "n1": Reason.GROUP_KEPT,
    }


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"reaper.keep": ""}, Reason.PROTECTED),
        ({"reaper.ttl": "x"}, Reason.INVALID_LABEL),
        ({"reaper.lease": "a"}, Reason.LEASED),
    ],
)
def test_a_protected_network_keeps_its_project(labels: dict[str, str], reason: Reason) -> None:
    decisions = judged([CLIENT, replace(NETWORK, labels=labels)], BOTH, [Lease("a", "other")])
    assert (decisions["c1"].reason, decisions["n1"].reason) == (Reason.GROUP_KEPT, reason)


def test_a_network_that_overrides_to_stay_keeps_its_project() -> None:
    patient = replace(NETWORK, labels={"reaper.ttl": "30d"})
    decisions = judged([CLIENT, patient], BOTH)
    assert (decisions["c1"].reason, decisions["n1"].reason) == (Reason.GROUP_KEPT, Reason.LABEL_NOT_DUE)
    assert gone([CLIENT, patient], rules(EVERYTHING)) == {"c1", "n1"}
    assert gone([CLIENT, replace(NETWORK, labels={"reaper.ttl": "1s"})], BOTH) == {"c1", "n1"}


def test_a_lease_on_the_network_keeps_its_project() -> None:
    assert gone([CLIENT, NETWORK], BOTH, Lease("a", "other", frozenset({"n1"}))) == set()
    young = replace(NETWORK, created_at=ago(hours=1), labels={"reaper.lease": "elsewhere"})
    assert judged([CLIENT, young], BOTH)["n1"].reason is Reason.LEASE_UNKNOWN
    assert gone([CLIENT, young]) == set()


def test_a_network_belongs_to_the_owner_of_all_containers_of_its_project() -> None:
    by = Rules(scope=Scope(presets=(), selector=Selector(labels=("team",))), policies=(STOPPED_1H,))
    mine = replace(CLIENT, labels={"team": "rl"})
    assert gone([mine, replace(mine, id="c2"), NETWORK], by) == {"c1", "c2", "n1"}
    assert judged([mine, replace(CLIENT, id="c2"), NETWORK], by)["n1"].reason is Reason.NOT_OWNED
    assert judged([replace(CLIENT, id="c2"), mine, NETWORK], by)["n1"].reason is Reason.NOT_OWNED
    assert judged([NETWORK, replace(mine, group="another")], by)["n1"].reason is Reason.NOT_OWNED


def test_an_unreadable_network_stays_and_keeps_nothing() -> None:
    assert gone([CLIENT, replace(NETWORK, labels=None)]) == {"c1"}


def test_a_network_that_a_stranger_uses_stays() -> None:
    stranger = replace(FOREIGN, uses=frozenset({"n1"}))
    decisions = judged([*GROUP, stranger], BOTH)
    assert (decisions["c1"].reap, decisions["c2"].reap) == (True, True)
    assert decisions["n1"].reason is Reason.IN_USE
    assert decisions["n1"].sentence == "postgres, which is kept, uses it"


def test_use_on_another_endpoint_does_not_count() -> None:
    stranger = replace(FOREIGN, uses=frozenset({"n1", "c1"}), endpoint="gpu-1")
    assert gone([*GROUP, stranger]) == {"c1", "c2", "n1"}


def test_what_a_kept_container_uses_stays_with_its_whole_group() -> None:
    stranger = replace(FOREIGN, uses=frozenset({"c2"}))
    decisions = judged([*GROUP, stranger], BOTH)
    assert decisions["c2"].reason is Reason.IN_USE
    assert (decisions["c1"].reason, decisions["n1"].reason) == (Reason.GROUP_KEPT, Reason.GROUP_KEPT)


def test_keeping_goes_on_through_groups_and_uses() -> None:
    second = [replace(CLIENT, id="d1", group="b", uses=frozenset({"c1"})), replace(CLIENT, id="d2", group="b")]
    stranger = replace(FOREIGN, uses=frozenset({"d2"}))
    assert gone([*GROUP, *second]) == {"c1", "c2", "n1", "d1", "d2"}
    assert gone([*GROUP, *second, stranger]) == set()


def test_those_that_use_one_another_go_together() -> None:
    one = replace(STOPPED, uses=frozenset({"c2"}))
    other = replace(STOPPED, id="c2", uses=frozenset({"c1"}))
    assert gone([one, other]) == {"c1", "c2"}


def test_one_name_on_two_endpoints_is_two_groups() -> None:
    young = replace(CLIENT, id="c9", endpoint="gpu-1", stopped_at=ago(minutes=1))
    assert gone([CLIENT, young, NETWORK], rules(STOPPED_1H)) == {"c1", "n1"}


def test_a_harbor_session_of_sandboxes_is_a_group() -> None:
    one, other = replace(SANDBOX, group="s"), replace(SANDBOX, id="s2", group="s")
    by = rules(Policy("idle", frozenset({Kind.SANDBOX}), idle_for=2 * HOUR))
    assert gone([one, other], by) == {"s1", "s2"}
    assert gone([one, replace(other, last_activity_at=ago(hours=1))], by) == set()


@pytest.mark.parametrize(
    ("created", "free_at", "goes"),
    [
        (ago(minutes=9.9), None, False),
        (ago(minutes=10), None, True),
        (ago(days=3), ago(minutes=-1), False),
        (ago(days=3), ago(seconds=0), True),
        (ago(minutes=-1), ago(days=1), False),
    ],
)
def test_an_orphaned_network_goes_when_it_is_free(created: datetime, free_at: datetime | None, goes: bool) -> None:
    remembered = None if free_at is None else Remembered("preset harbor", free_at)
    decision = judged([replace(ORPHAN, created_at=created, remembered=remembered)], BOTH)["n1"]
    assert decision.reap is goes
    assert decision.reason is (Reason.GROUP_REAPED if goes else Reason.CREATED_GRACE)
    assert "its project" in decision.sentence


def test_an_orphaned_network_without_a_sign_is_kept_unless_remembered() -> None:
    assert judged([NETWORK], BOTH)["n1"].reason is Reason.NOT_OWNED
    assert gone([replace(NETWORK, remembered=Remembered("preset harbor", ago(hours=1)))]) == {"n1"}


def test_an_orphaned_network_needs_a_policy_for_containers_that_selects_it() -> None:
    sandboxes = Policy("sandboxes", frozenset({Kind.SANDBOX}), older_than=HOUR)
    elsewhere = Policy("elsewhere", CONTAINERS, older_than=HOUR, endpoints=frozenset({"gpu-1"}))
    named = Policy("named", CONTAINERS, older_than=HOUR, selectors=(Selector(names=("trial-*",)),))
    for policy in (sandboxes, elsewhere, named):
        assert judged([ORPHAN], rules(policy))["n1"].reason is Reason.NO_POLICY
    assert gone([replace(ORPHAN, name="trial-x")], rules(named)) == {"n1"}


def test_an_orphaned_network_that_is_used_or_protected_stays() -> None:
    assert gone([ORPHAN, replace(FOREIGN, uses=frozenset({"n1"}))]) == set()
    assert gone([replace(ORPHAN, labels={"terminal-bench": "", "reaper.keep": ""})]) == set()


def test_a_network_outside_a_project_stays() -> None:
    decision = judged([replace(ORPHAN, group=None)], rules(EVERYTHING))["n1"]
    assert decision.reason is Reason.GROUP_KEPT
    assert decision.sentence == "a network goes only with its project, and it has none"
