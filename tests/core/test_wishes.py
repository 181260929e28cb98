"""What a resource says of itself in its labels."""

from dataclasses import replace

import pytest

from reaper.core.conditions import Policy
from reaper.core.model import Decision, Reason
from reaper.core.scope import Protect, Selector
from tests.core.make import (
    CONTAINERS,
    EVERYTHING,
    FOREIGN,
    HOUR,
    NOW,
    OLD_24H,
    RUNNING,
    SANDBOX,
    STOPPED_1H,
    ago,
    judge_one,
    rules,
)

PAST, FUTURE = "2026-11-21T10:00:00Z", "2026-11-21T14:00:00Z"


def wished(*policies: Policy, **labels: str) -> Decision:
    """The verdict on a container of three days with these label overrides."""
    found = {f"reaper.{name}": value for name, value in labels.items()}
    return judge_one(replace(RUNNING, labels=found), rules(*policies))


@pytest.mark.parametrize("value", ["", "true", "false"])
@pytest.mark.parametrize("policy", [OLD_24H, EVERYTHING])
def test_keep_keeps_whatever_its_value(policy: Policy, value: str) -> None:
    assert wished(policy, keep=value).reason is Reason.PROTECTED
    by = replace(rules(policy), protect=Protect(Selector()))  # the label override needs no [protect]
    assert judge_one(replace(RUNNING, labels={"reaper.keep": value}), by).reason is Reason.KEEP_LABEL


@pytest.mark.parametrize(
    ("labels", "reason", "sentence"),
    [
        ({"ttl": "2h"}, Reason.TTL_ENDED, "its own reaper.ttl of 2h ended 2 d 22 h ago"),
        ({"ttl": "0"}, Reason.TTL_ENDED, "its own reaper.ttl of 0 ended 3 d ago"),
        ({"ttl": "3d"}, Reason.TTL_ENDED, "its own reaper.ttl of 3d ended 0 s ago"),
        ({"expires": PAST}, Reason.EXPIRED, f"its own reaper.expires at {PAST} ended 2 h ago"),
        ({"expires": "2026-11-21T12:00:00+02:00"}, Reason.EXPIRED, "at 2026-11-21T12:00:00+02:00 ended 2 h ago"),
        ({"ttl": "1h", "expires": PAST}, Reason.EXPIRED, f"its own reaper.expires at {PAST} ended 2 h ago"),
        ({"ttl": "71h", "expires": PAST}, Reason.TTL_ENDED, "its own reaper.ttl of 71h ended 1 h ago"),
    ],
)
def test_a_override_that_is_due_needs_no_policy(labels: dict[str, str], reason: Reason, sentence: str) -> None:
    decision = wished(**labels)
    assert (decision.reap, decision.reason, decision.policy) == (True, reason, None)
    assert decision.sentence.endswith(sentence)


@pytest.mark.parametrize(
    ("labels", "left"),
    [
        ({"ttl": "4d"}, "24 h"),
        ({"expires": FUTURE}, "2 h"),
        ({"ttl": "1h", "expires": FUTURE}, "2 h"),
        ({"ttl": "73h", "expires": PAST}, "1 h"),
    ],
)
def test_a_override_that_is_not_due_holds_against_ordinary_policies(labels: dict[str, str], left: str) -> None:
    decision = wished(OLD_24H, **labels)
    assert decision.reason is Reason.LABEL_NOT_DUE
    assert decision.sentence.endswith(f" has {left} left")
    assert decision.due_at is not None
    assert decision.due_at > NOW
    assert wished(EVERYTHING, **labels).reason is Reason.ALL


def test_a_narrowed_all_overrules_only_the_overrides_of_what_it_selects() -> None:
    narrowed = replace(EVERYTHING, selectors=(Selector(names=("another",)),))
    assert wished(narrowed, OLD_24H, ttl="4d").reason is Reason.LABEL_NOT_DUE
    assert wished(replace(EVERYTHING, kinds=frozenset()), OLD_24H, ttl="4d").reason is Reason.LABEL_NOT_DUE


def test_a_override_is_due_before_the_policies_are_asked() -> None:
    assert wished(OLD_24H, ttl="2h").reason is Reason.TTL_ENDED


def test_ttl_counts_from_creation_not_from_the_start() -> None:
    restarted = replace(RUNNING, started_at=ago(minutes=1), labels={"reaper.ttl": "2h"})
    assert judge_one(restarted, rules()).since == ago(days=3) + 2 * HOUR


def test_a_running_sandbox_can_override_too() -> None:
    sandbox = replace(SANDBOX, labels={"harbor.managed": "true", "reaper.ttl": "2h"})
    assert judge_one(sandbox, rules()).reason is Reason.TTL_ENDED


@pytest.mark.parametrize("policy", [OLD_24H, EVERYTHING])
@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({"ttl": "soon"}, "reaper.ttl: 'soon' is not a duration; write for example"),
        ({"ttl": ""}, "reaper.ttl: '' is not a duration"),
        ({"ttl": "-2h"}, "reaper.ttl: '-2h'"),
        ({"ttl": "90"}, "reaper.ttl: '90'"),
        ({"ttl": "x" * 1_000_000}, "x...' is not a duration"),
        ({"expires": "x" * 1_000_000}, "reaper.expires: "),
        ({"ttl": "9999999w"}, "reaper.ttl: '9999999w' is longer than a hundred years"),
        ({"expires": "tomorrow"}, "reaper.expires: Invalid isoformat string: 'tomorrow'"),
        ({"expires": ""}, "reaper.expires: "),
        ({"expires": "2026-11-21"}, "reaper.expires: '2026-11-21' has no time zone; write for example 2026-"),
        ({"expires": "2026-11-21T06:00:00"}, "has no time zone"),
        ({"expires": "2026-11-31T06:00:00Z"}, "reaper.expires: "),
        ({"expires": "9999-12-31T23:59:59-10:00"}, "reaper.expires: "),
        ({"ttl": "2h", "expires": "tomorrow"}, "reaper.expires: "),
        ({"ttl": "soon", "expires": PAST}, "reaper.ttl: "),
    ],
)
def test_a_override_that_cannot_be_read_keeps(policy: Policy, labels: dict[str, str], named: str) -> None:
    decision = wished(policy, **labels)
    assert decision.reason is Reason.INVALID_LABEL
    assert named in decision.sentence
    assert len(decision.sentence) < 500


@pytest.mark.parametrize(
    "labels", [{"reaper.ttl": "1s"}, {"reaper.expires": PAST}, {"reaper.ttl": "1s", "reaper.expires": PAST}]
)
def test_the_override_of_what_is_not_owned_is_not_granted(labels: dict[str, str]) -> None:
    assert judge_one(replace(FOREIGN, labels=labels), rules(EVERYTHING)).reason is Reason.NOT_OWNED


def test_a_override_to_go_does_not_beat_protections() -> None:
    assert wished(keep="", ttl="1s").reason is Reason.PROTECTED
    young = replace(RUNNING, raw_state="created", created_at=ago(minutes=5), labels={"reaper.ttl": "1s"})
    assert judge_one(young, rules()).reason is Reason.CREATED_GRACE


def test_similar_labels_are_no_overrides() -> None:
    assert wished(STOPPED_1H, Keep="", TTL="1s").reason is Reason.NO_POLICY
    assert STOPPED_1H.kinds == CONTAINERS
