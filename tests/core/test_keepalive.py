"""Sandboxes whose runner keeps them alive: there, and nowhere else, no activity means that the runner is gone."""

from dataclasses import replace
from datetime import timedelta

import pytest

from reaper.config.settings import Settings
from reaper.core.decide import decide, explain
from reaper.core.lease import Lease
from reaper.core.model import Decision, Reason, Resource, State
from reaper.core.rules import Rules
from tests.core.make import MINUTE, NOW, SANDBOX, ago, judge_one

DEFAULTS = Settings().rules()
LABELS = {"harbor.managed": "true", "harbor.session_id": "s", "harbor.instance_id": "i"}
# Harbor 0.26: it refreshes the activity each minute, and the platform stops after a quarter of an hour without any.
LEFT = replace(
    SANDBOX,
    labels=LABELS,
    group="s",
    created_at=ago(hours=2),
    last_activity_at=ago(minutes=31),
    auto_stop=15 * MINUTE,
)


def verdict(sandbox: Resource, rules: Rules = DEFAULTS) -> Decision:
    return judge_one(sandbox, rules)


def test_what_its_runner_kept_alive_goes_when_it_has_been_idle_for_half_an_hour() -> None:
    decision = verdict(LEFT)
    assert (decision.reap, decision.reason, decision.policy) == (True, Reason.IDLE_FOR, "idle-sandboxes")
    assert not verdict(replace(LEFT, last_activity_at=ago(minutes=29))).reap


WHY_NOT = {
    "no label of a keepalive": ({"labels": {"harbor.managed": "true"}}, "label harbor.instance_id"),
    "kept on purpose (--no-delete)": ({"auto_stop": timedelta(0)}, "auto-stop is off"),
    "no auto-stop in the answer, or no activity": ({"auto_stop": None}, "no auto-stop interval or no last activity"),
    "the platform waits for longer": ({"auto_stop": 31 * MINUTE}, "auto-stop waits for 31 min"),
    "stopped, perhaps by a person": (
        {"state": State.STOPPED, "raw_state": "stopped", "stopped_at": ago(minutes=31)},
        "state",
    ),
    "archived": ({"state": State.STOPPED, "raw_state": "archived", "stopped_at": ago(minutes=31)}, "state"),
    "its label came with its image": ({"inherited": frozenset({"harbor.instance_id"})}, "label harbor.instance_id"),
}


@pytest.mark.parametrize(("fields", "says"), WHY_NOT.values(), ids=WHY_NOT)
def test_all_others_stay_and_it_is_said_why(fields: dict[str, object], says: str) -> None:
    sandbox = replace(LEFT, last_activity_at=ago(minutes=31), **fields)  # type: ignore[arg-type]
    assert not verdict(sandbox).reap
    (finding,) = [f for f in explain(sandbox, [sandbox], DEFAULTS, (), NOW) if f.rule == "policy idle-sandboxes"]
    assert says in finding.sentence


def test_without_its_preset_nothing_is_kept_alive() -> None:
    rules = Settings.model_validate({"scope": {"presets": [], "labels": ["harbor.managed"]}}).rules()
    assert not verdict(LEFT, rules).reap


def test_a_preset_of_a_file_may_have_a_keepalive() -> None:
    tables = {
        "preset": [{"name": "acme", "labels": ["acme.run"], "keepalive": "acme.instance"}],
        "scope": {"presets": ["acme"]},
    }
    rules = Settings.model_validate(tables).rules()
    labels = {"acme.run": "7"}
    assert not verdict(replace(LEFT, labels=labels), rules).reap
    assert verdict(replace(LEFT, labels=labels | {"acme.instance": "x"}), rules).reap


def test_a_living_lease_and_labels_that_keep_come_first() -> None:
    lease = Lease("run-1", owner="pid 1", resources=frozenset({LEFT.id}), since=ago(hours=3))
    assert decide([LEFT], DEFAULTS, [lease], NOW)[0].reason is Reason.LEASED
    for label in ({"reaper.keep": ""}, {"reaper.ttl": "9h"}):
        assert not verdict(replace(LEFT, labels=LABELS | label)).reap


def test_one_that_is_alive_or_linked_to_it_keeps_it() -> None:
    """A session goes as one, and a sandbox that is linked to another one would go with that."""
    alive = replace(LEFT, id="s2", name="verifier", last_activity_at=ago(minutes=1))
    assert [decision.reap for decision in decide([LEFT, alive], DEFAULTS, (), NOW)] == [False, False]
    foreign = replace(SANDBOX, id="s3", labels={}, uses=frozenset({LEFT.id}), created_at=ago(hours=1))
    assert [decision.reap for decision in decide([LEFT, foreign], DEFAULTS, (), NOW)] == [False, False]
    linked = replace(LEFT, id="s4", group=None, labels={"harbor.managed": "true"}, uses=frozenset({LEFT.id}))
    assert [decision.reap for decision in decide([LEFT, linked], DEFAULTS, (), NOW)] == [False, False]


def test_the_ages_of_what_no_runner_keeps_alive_are_as_before() -> None:
    """Eight hours without a call are no sign of death: Harbor 0.25 refreshes nothing."""
    old = replace(LEFT, labels={"harbor.managed": "true"}, group=None, auto_stop=timedelta(0))
    assert not verdict(replace(old, created_at=ago(hours=9), last_activity_at=ago(hours=8))).reap
