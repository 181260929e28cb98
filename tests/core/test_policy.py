"""The conditions of the policies, and what their sentences say."""

from dataclasses import replace
from datetime import timedelta

import pytest

from reaper.core.conditions import Policy
from reaper.core.decide import decide, young_and_running
from reaper.core.lease import Lease
from reaper.core.model import Kind, Reason, Resource, State
from reaper.core.scope import Selector
from tests.core.make import (
    ALL_KINDS,
    CONTAINERS,
    EVERYTHING,
    FOREIGN,
    HOUR,
    MINUTE,
    NOW,
    OLD_24H,
    RUNNING,
    SANDBOX,
    STOPPED,
    STOPPED_1H,
    ago,
    judge_one,
    rules,
)

SANDBOXES = frozenset({Kind.SANDBOX})
OLD_AND_IDLE = Policy("old-sandboxes", SANDBOXES, older_than=24 * HOUR, idle_for=2 * HOUR)
OLD_AND_STOPPED = Policy("both", CONTAINERS, older_than=24 * HOUR, stopped_for=HOUR)
CREATED = replace(STOPPED, raw_state="created", started_at=None, stopped_at=None, created_at=ago(hours=2))


@pytest.mark.parametrize(
    ("resource", "policy", "reason", "sentence"),
    [
        (STOPPED, STOPPED_1H, Reason.STOPPED_FOR, "stopped 3 h ago, policy stopped-containers allows 1 h"),
        (CREATED, STOPPED_1H, Reason.STOPPED_FOR, "created 2 h ago and never started, policy stopped-containers allows 1 h"),
        (RUNNING, OLD_24H, Reason.OLDER_THAN, "created 3 d ago, policy old-containers allows 24 h"),
        (
            replace(RUNNING, started_at=ago(hours=30)),
            OLD_24H,
            Reason.OLDER_THAN,
            "last started 30 h ago, policy old-containers allows 24 h",
        ),
        (
            STOPPED,
            OLD_AND_STOPPED,
            Reason.OLDER_THAN,
            "created 3 d ago and stopped 3 h ago, policy both allows 24 h and 1 h",
        ),
        (
            SANDBOX,
            OLD_AND_IDLE,
            Reason.OLDER_THAN,
            "created 3 d ago and idle for 3 h, policy old-sandboxes allows 24 h and 2 h",
        ),
        (SANDBOX, Policy("idle", SANDBOXES, idle_for=HOUR), Reason.IDLE_FOR, "idle for 3 h, policy idle allows 1 h"),
        (STOPPED, Policy("x", CONTAINERS, states=frozenset({"exited"})), Reason.STATE, "its state is exited, policy x"),
        (RUNNING, EVERYTHING, Reason.ALL, "everything owned goes, policy all"),
    ],
)
def test_reaped_and_why(resource: Resource, policy: Policy, reason: Reason, sentence: str) -> None:
    decision = judge_one(resource, rules(policy))
    assert (decision.reap, decision.reason, decision.policy) == (True, reason, policy.name)
    assert decision.sentence == sentence
    assert decision.owner is not None


@pytest.mark.parametrize(
    ("resource", "policy", "reason", "sentence"),
    [
        (
            replace(STOPPED, stopped_at=ago(minutes=59)),
            STOPPED_1H,
            Reason.TOO_YOUNG,
            "stopped 59 min ago, policy stopped-containers allows 1 h",
        ),
        (replace(RUNNING, created_at=ago(hours=1)), STOPPED_1H, Reason.NO_POLICY, "running, not stopped"),
        (replace(STOPPED, stopped_at=None), STOPPED_1H, Reason.NO_POLICY, "stopped, but since when is unknown"),
        (replace(SANDBOX, last_activity_at=None), OLD_AND_IDLE, Reason.NO_POLICY, "of unknown activity"),
        (replace(SANDBOX, last_activity_at=ago(hours=1)), OLD_AND_IDLE, Reason.TOO_YOUNG, "idle for 1 h"),
        (replace(SANDBOX, created_at=ago(hours=23)), OLD_AND_IDLE, Reason.TOO_YOUNG, "created 23 h ago and idle for 3 h"),
        (RUNNING, OLD_AND_STOPPED, Reason.NO_POLICY, "running, not stopped"),
        (SANDBOX, OLD_24H, Reason.NO_POLICY, "no policy matches: there is none for a sandbox"),
        (
            RUNNING,
            replace(OLD_24H, endpoints=frozenset({"gpu-1"})),
            Reason.NO_POLICY,
            "policy old-containers is not for endpoint local",
        ),
        (
            RUNNING,
            replace(OLD_24H, selectors=(Selector(labels=("team",)),)),
            Reason.NO_POLICY,
            "policy old-containers does not select it",
        ),
        (RUNNING, replace(OLD_24H, states=frozenset({"exited"})), Reason.NO_POLICY, "is not for state running"),
    ],
)
def test_kept_and_why(resource: Resource, policy: Policy, reason: Reason, sentence: str) -> None:
    decision = judge_one(resource, rules(policy))
    assert (decision.reap, decision.reason, decision.policy) == (False, reason, None)
    assert sentence in decision.sentence


def test_without_any_policy_nothing_goes() -> None:
    assert judge_one(RUNNING, rules()).reason is Reason.NO_POLICY


def test_the_first_matching_policy_gives_the_reason() -> None:
    slow = replace(STOPPED_1H, name="slow", stopped_for=6 * HOUR)
    assert judge_one(STOPPED, rules(STOPPED_1H, OLD_24H)).policy == "stopped-containers"
    assert judge_one(STOPPED, rules(OLD_24H, STOPPED_1H)).policy == "old-containers"
    assert judge_one(STOPPED, rules(slow, STOPPED_1H)).policy == "stopped-containers"


def test_the_decision_takes_the_stop_timeout_and_the_time_from_its_policy() -> None:
    decision = judge_one(RUNNING, rules(STOPPED_1H, replace(OLD_24H, stop_timeout=3 * MINUTE)))
    assert decision.stop_timeout == 3 * MINUTE
    assert decision.since == ago(days=2)
    both = judge_one(STOPPED, rules(OLD_AND_STOPPED))
    assert both.since == ago(hours=2)  # when the last of its conditions was met


def test_what_is_too_young_says_when_that_ends() -> None:
    young = replace(RUNNING, created_at=ago(hours=23), started_at=ago(hours=23))
    soon = replace(OLD_24H, name="later", older_than=48 * HOUR)
    decision = judge_one(young, rules(soon, OLD_24H))
    assert decision.due_at == NOW + HOUR
    assert decision.sentence == "created 23 h ago, policy old-containers allows 24 h"
    assert judge_one(young, rules(soon, OLD_24H), now=NOW + HOUR).reap


def test_zero_is_a_limit_like_any_other() -> None:
    policy = Policy("now", CONTAINERS, stopped_for=timedelta(0))
    assert judge_one(replace(STOPPED, stopped_at=NOW), rules(policy)).reap
    assert not judge_one(RUNNING, rules(policy)).reap


@pytest.mark.parametrize(
    ("states", "matches"),
    [({"stopped"}, True), ({"exited"}, True), ({"running", "exited"}, True), ({"running"}, False), ({"created"}, False)],
)
def test_states_are_normalised_or_raw_names(states: set[str], matches: bool) -> None:
    assert judge_one(STOPPED, rules(replace(OLD_24H, states=frozenset(states)))).reap is matches


def test_failed_ones_count_as_stopped() -> None:
    dead = replace(STOPPED, state=State.FAILED, raw_state="dead")
    assert judge_one(dead, rules(STOPPED_1H)).reason is Reason.STOPPED_FOR


def test_archived_ones_are_kept_unless_named() -> None:
    archived = replace(SANDBOX, state=State.STOPPED, raw_state="archived", stopped_at=ago(days=2))
    for states in (frozenset[str](), frozenset({"stopped"})):
        decision = judge_one(archived, rules(Policy("old", SANDBOXES, stopped_for=HOUR, states=states)))
        assert decision.sentence == "no policy matches: policy old does not name the state archived"
    named = Policy("old", SANDBOXES, stopped_for=HOUR, states=frozenset({"archived"}))
    assert judge_one(archived, rules(named)).reap
    assert judge_one(archived, rules(EVERYTHING)).reap


def test_every_selector_must_match() -> None:
    by_name, by_label = Selector(names=("client",)), Selector(labels=("team",))
    policy = replace(OLD_24H, selectors=(by_name, by_label))
    assert not judge_one(RUNNING, rules(policy)).reap
    assert judge_one(replace(RUNNING, labels={"team": ""}), rules(policy)).reap
    assert not judge_one(RUNNING, rules(replace(EVERYTHING, selectors=(by_name, by_label)))).reap


def test_what_would_match_if_it_were_owned_is_reported() -> None:
    assert judge_one(FOREIGN, rules(OLD_24H)).would_match
    assert not judge_one(FOREIGN, rules(STOPPED_1H)).would_match
    assert not judge_one(replace(RUNNING, labels={"reaper.keep": ""}), rules(OLD_24H)).would_match
    assert judge_one(FOREIGN, rules(OLD_24H)).owner is None


def test_young_and_running_are_those_that_a_hint_is_about() -> None:
    young = replace(RUNNING, created_at=ago(hours=1), started_at=ago(hours=1))
    leased = replace(young, id="c2")
    stopped = replace(STOPPED, id="c3", stopped_at=ago(minutes=1), created_at=ago(hours=1), started_at=ago(hours=1))
    foreign = replace(FOREIGN, created_at=ago(hours=1), started_at=ago(hours=1))
    lease = Lease("a", "other", frozenset({"c2"}))
    found = decide([young, leased, stopped, foreign], rules(STOPPED_1H, OLD_24H), [lease], NOW)
    assert [decision.resource.id for decision in young_and_running(found)] == ["c1"]


def test_the_kinds_of_a_policy_are_its_own() -> None:
    assert judge_one(SANDBOX, rules(replace(OLD_24H, kinds=ALL_KINDS))).reap
    assert not judge_one(SANDBOX, rules(replace(EVERYTHING, kinds=CONTAINERS))).reap
