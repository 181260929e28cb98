"""``explain`` tells what ``decide`` does."""

from dataclasses import replace

import pytest
from hypothesis import given

from reaper.core.decide import decide, explain
from reaper.core.finding import Finding
from reaper.core.lease import Lease
from reaper.core.model import Kind, Reason, Resource, State, Verdict
from tests.core.make import EVERYTHING, FOREIGN, NETWORK, NOW, OLD_24H, RUNNING, SANDBOX, STOPPED, STOPPED_1H, ago, rules
from tests.core.strategies import PROPERTY, World, worlds

BOTH = rules(STOPPED_1H, OLD_24H)


def told(resource: Resource, *others: Resource) -> list[Finding]:
    return explain(resource, [resource, *others], BOTH, [], NOW)


def ruling_of(findings: list[Finding]) -> Finding:
    """The first one with a verdict decides; but the group has the last word."""
    return findings[-1] if findings[-1].rule == "group" else next(one for one in findings if one.verdict is not None)


@PROPERTY
@given(worlds())
def test_what_is_explained_is_what_is_decided(world: World) -> None:
    for decision in world.decide():
        findings = explain(decision.resource, world.resources, world.rules, world.leases, world.now)
        ruling = ruling_of(findings)
        assert (ruling.verdict, ruling.reason) == (decision.verdict, decision.reason)
        assert (ruling.phrase, ruling.sentence) == (decision.phrase, decision.sentence)
        assert all(finding.sentence for finding in findings)
        assert all(finding.phrase for finding in findings if finding.verdict is not None)
        assert decision.phrase
        assert all((finding.verdict is None) == (finding.reason is None) for finding in findings)


@pytest.mark.parametrize("labels", [{}, {"reaper.keep": ""}])
def test_a_sandbox_whose_deletion_hangs_and_its_session_are_explained_as_they_are_decided(labels: dict[str, str]) -> None:
    mate = replace(SANDBOX, id="s2", group="s")
    hangs = replace(
        SANDBOX, group="s", state=State.CHANGING, raw_state="destroying", labels={"harbor.managed": "true", **labels}
    )
    for decision in decide([hangs, mate], rules(EVERYTHING), (), NOW):
        asked = hangs if decision.resource.id == hangs.id else mate
        ruling = ruling_of(explain(asked, [hangs, mate], rules(EVERYTHING), (), NOW))
        assert (ruling.verdict, ruling.sentence) == (decision.verdict, decision.sentence)


@PROPERTY
@given(worlds(links=False))
def test_the_group_is_named_only_where_there_is_one(world: World) -> None:
    for resource in world.resources:
        if resource.group is None and resource.kind is not Kind.NETWORK:
            findings = explain(resource, world.resources, world.rules, world.leases, world.now)
            assert "group" not in [finding.rule for finding in findings]


def test_every_rule_is_reported_in_order() -> None:
    assert [(finding.rule, finding.verdict) for finding in told(STOPPED)] == [
        ("readable", None),
        ("owned", None),
        ("system_container", None),
        ("protected", None),
        ("label override", None),
        ("lease", None),
        ("state", None),
        ("restart policy", None),
        ("created grace", None),
        ("label override", None),
        ("owner process", None),
        ("policy stopped-containers", Verdict.REAP),
        ("policy old-containers", Verdict.REAP),
    ]


def test_what_only_waits_is_reported_when_no_policy_matches() -> None:
    young = replace(RUNNING, created_at=ago(hours=1), started_at=ago(hours=1))
    last = told(young)[-1]
    assert last == Finding("policies", Verdict.KEEP, last.say, Reason.TOO_YOUNG, due_at=ago(hours=-23), brief=last.brief)
    assert last.sentence == "created 1 h ago, policy old-containers allows 24 h"
    assert last.phrase == "running, younger than 24 h"


def test_rules_after_the_one_that_decides_are_reported_too() -> None:
    findings = told(FOREIGN)
    assert [finding.rule for finding in findings if finding.verdict] == ["owned", "policy old-containers"]
    assert "policy stopped-containers" in [finding.rule for finding in findings]


def test_a_group_that_changes_the_matter_is_reported_at_the_end() -> None:
    young = replace(RUNNING, id="c2", name="young", group="chess", created_at=ago(hours=1), started_at=ago(hours=1))
    findings = told(replace(STOPPED, group="chess"), young)
    assert (findings[-1].rule, findings[-1].verdict, findings[-1].reason) == ("group", Verdict.KEEP, Reason.GROUP_KEPT)
    assert findings[-1].sentence == (
        "its project chess has young, which is kept: created 1 h ago, policy old-containers allows 24 h"
    )
    assert "group" not in [finding.rule for finding in told(young, replace(STOPPED, group="chess"))]


def test_what_uses_it_is_reported_at_the_end() -> None:
    user = replace(FOREIGN, uses=frozenset({"c1"}))
    last = told(STOPPED, user)[-1]
    assert (last.rule, last.reason, last.sentence) == ("group", Reason.IN_USE, "postgres, which is kept, uses it")


def test_a_network_is_explained_by_its_project() -> None:
    last = told(NETWORK, replace(STOPPED, group="chess"))[-1]
    assert (last.rule, last.verdict, last.reason) == ("group", Verdict.REAP, Reason.GROUP_REAPED)
    alone = replace(NETWORK, group=None, labels={"terminal-bench": ""})
    assert told(alone)[-1].sentence == "a network goes only with its project, and it has none"


def test_what_cannot_be_read_can_be_explained() -> None:
    broken = replace(STOPPED, created_at=None, labels={"reaper.lease": "x", "reaper.ttl": "2h"}, raw_state="created")
    assert explain(broken, [broken], rules(EVERYTHING, OLD_24H), [], NOW)[0].verdict is Verdict.KEEP
    bare = replace(STOPPED, labels=None, created_at=None)
    assert explain(bare, [bare], BOTH, [], NOW)[0].sentence == "the answer had no labels"


@PROPERTY
@given(worlds())
def test_a_sandbox_is_not_spoken_of_as_a_container(world: World) -> None:
    policies = {f"policy {policy.name}": "" for policy in world.rules.policies}
    for resource in (one for one in world.resources if one.kind is Kind.SANDBOX and one.restart_policy is None):
        for finding in explain(resource, world.resources, world.rules, world.leases, world.now):
            said = f"{finding.rule}: {finding.sentence} ({finding.phrase})"
            for name in policies:
                said = said.replace(name, "")
            assert "container" not in said
            assert "restart policy" not in said


def test_a_lease_that_lives_is_no_reason_to_go_further_down() -> None:
    leased = replace(RUNNING, labels={**(RUNNING.labels or {}), "reaper.lease": "run-1"})
    findings = explain(leased, [leased], BOTH, [Lease("run-1", "gpu-1")], NOW)
    assert [(f.rule, f.verdict) for f in findings if f.rule == "lease"] == [("lease", Verdict.KEEP), ("lease", None)]
