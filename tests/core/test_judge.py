"""The rules that keep a single resource whatever the policies say."""

from dataclasses import replace
from datetime import timedelta

import pytest

from reaper.core.conditions import Policy
from reaper.core.lease import Lease
from reaper.core.model import Reason, Remembered, Resource, State
from reaper.core.rules import Rules
from reaper.core.scope import Protect, Scope, Selector
from tests.core.make import EVERYTHING, FOREIGN, HOUR, NETWORK, NOW, OLD_24H, RUNNING, STOPPED, ago, judge_one, judged, rules

OWNS_ALL = Rules(scope=Scope(everything=True), policies=(EVERYTHING,))


@pytest.mark.parametrize(
    ("resource", "reason", "sentence"),
    [
        (FOREIGN, Reason.NOT_OWNED, "nothing in [scope] matches it"),
        (replace(RUNNING, labels=None), Reason.UNREADABLE, "the answer had no labels"),
        (replace(RUNNING, created_at=None), Reason.UNREADABLE, "the answer had no creation time"),
        (replace(RUNNING, unreadable="no id"), Reason.UNREADABLE, "it could not be read: no id"),
        (replace(RUNNING, system_container="a Kubernetes pod"), Reason.SYSTEM_CONTAINER, "it is a Kubernetes pod"),
        (replace(RUNNING, labels={"reaper.keep": ""}), Reason.PROTECTED, "[protect] has label reaper.keep"),
        (replace(RUNNING, state=State.CHANGING, raw_state="removing"), Reason.CHANGING, "it is being removed: wait"),
        (replace(RUNNING, state=State.UNKNOWN, raw_state="odd"), Reason.UNKNOWN_STATE, "its state 'odd' is not known here"),
        (
            replace(STOPPED, raw_state="created", started_at=None, created_at=ago(minutes=5)),
            Reason.CREATED_GRACE,
            "created 5 min ago and never started; within 10 min a runner may be about to start it",
        ),
    ],
)
def test_not_even_all_reaps_it(resource: Resource, reason: Reason, sentence: str) -> None:
    decision = judge_one(resource, rules(EVERYTHING))
    assert (decision.reap, decision.reason, decision.sentence) == (False, reason, sentence)


@pytest.mark.parametrize(
    "resource", [FOREIGN, replace(FOREIGN, restart_policy="on-failure"), replace(FOREIGN, restart_policy=None)]
)
def test_everything_owns_what_is_left(resource: Resource) -> None:
    assert judge_one(resource, OWNS_ALL).reap


@pytest.mark.parametrize("name", ["always", "unless-stopped"])
def test_a_restart_policy_means_that_it_should_run(name: str) -> None:
    decision = judge_one(replace(FOREIGN, restart_policy=name), OWNS_ALL)
    assert decision.reason is Reason.RESTART_POLICY
    assert decision.sentence == f"its restart policy {name} means that it should run"
    mine = Rules(scope=Scope(selector=Selector(names=("postgres",))), policies=(EVERYTHING,))
    assert judge_one(replace(FOREIGN, restart_policy=name), mine).reason is Reason.RESTART_POLICY


def test_a_restart_policy_does_not_protect_what_a_preset_owns() -> None:
    always = replace(RUNNING, restart_policy="always")
    assert judge_one(always, rules(OLD_24H)).reap
    sidecar = replace(FOREIGN, group="chess", restart_policy="always")
    assert all(d.reap for d in judged([replace(RUNNING, group="chess"), sidecar], rules(OLD_24H)).values())
    remembered = replace(sidecar, remembered=Remembered("preset terminal-bench, image tb__*__client in its project", NOW))
    assert judge_one(remembered, rules(OLD_24H)).reap


def test_the_restart_policies_that_protect_can_be_chosen() -> None:
    by = replace(OWNS_ALL, protect=Protect(restart_policies=("on-failure",)))
    assert judge_one(replace(FOREIGN, restart_policy="always"), by).reap
    assert not judge_one(replace(FOREIGN, restart_policy="on-failure"), by).reap


@pytest.mark.parametrize("policy", [OLD_24H, EVERYTHING])
def test_a_lease_keeps_what_it_names_and_what_names_it(policy: Policy) -> None:
    by = rules(policy)
    named = replace(RUNNING, labels={"reaper.lease": "a"})
    alive = Lease("a", "pid 4711")
    assert judge_one(named, by, [alive]).sentence == "lease a of pid 4711 is alive"
    assert judge_one(RUNNING, by, [Lease("b", "pid 1", frozenset({"c1"}))]).reason is Reason.LEASED
    assert judge_one(RUNNING, by, [alive]).reap


def test_an_unknown_lease_keeps_for_a_while_after_the_last_start() -> None:
    claimed = replace(RUNNING, started_at=ago(hours=23), labels={"reaper.lease": "elsewhere"})
    decision = judge_one(claimed, rules(EVERYTHING), [Lease("a", "pid 1")])
    assert decision.reason is Reason.LEASE_UNKNOWN
    assert decision.sentence == "lease elsewhere is not known here and may be another reaper's for 1 h more"
    assert judge_one(claimed, rules(EVERYTHING), now=NOW + HOUR).reap
    short = replace(rules(EVERYTHING), max_lease=timedelta(hours=2))
    assert judge_one(claimed, short).reap


def test_a_lease_does_not_make_owned() -> None:
    assert judge_one(replace(FOREIGN, labels={"reaper.lease": "a"}), rules(EVERYTHING)).reason is Reason.NOT_OWNED


def test_protections_of_a_network_are_its_own() -> None:
    network = replace(NETWORK, labels={"terminal-bench": ""}, system_container="a Swarm network")
    assert judge_one(network, rules(EVERYTHING)).reason is Reason.SYSTEM_CONTAINER


def test_unowned_is_said_before_protected() -> None:
    assert judge_one(replace(FOREIGN, labels={"reaper.keep": ""}), rules(EVERYTHING)).reason is Reason.NOT_OWNED
