"""Which resources are orphaned, and what keeps them all the same."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.conditions import Policy
from reaper.core.decide import decide, explain
from reaper.core.lease import Lease
from reaper.core.model import Decision, Kind, Reason, Resource, State
from reaper.core.owner_process import OWNER_LABEL, Fate, Key, Matched, OwnerProcess, OwnerRule, Proofs
from reaper.core.presets import PRESETS
from reaper.core.rules import Rules
from reaper.core.scope import Protect, Scope, Selector
from tests.core.make import HOUR, MINUTE, NOW, RUNNING, SANDBOX, ago
from tests.core.strategies import PROPERTY, worlds

RUNS = frozenset({Kind.CONTAINER, Kind.SANDBOX})
ORPHANED = Policy("orphaned", RUNS, orphaned_for=10 * MINUTE)
OLD = Policy("old", RUNS, older_than=24 * HOUR)
RULES = Rules(policies=(ORPHANED, OLD))
DEAD = OwnerProcess("its owner, process 1,", Fate.DEAD, "there is no such process", ago(minutes=30))
ALIVE = OwnerProcess("its owner, process 2,", Fate.ALIVE, "it runs")
UNPROVEN = OwnerProcess("its owner, process 3,", Fate.UNPROVEN, "it is on another host")
PROOFS = Proofs({(OWNER_LABEL, "dead"): DEAD, (OWNER_LABEL, "alive"): ALIVE, (OWNER_LABEL, "unproven"): UNPROVEN})
PROJECT = {"com.docker.compose.project": "chess", "com.docker.compose.container-number": "1"}


def box(owner: str | None, id_: str = "c1", labels: Mapping[str, str] | None = None, **fields: Any) -> Resource:
    """Young, running, and owned by a preset."""
    of_owner = {} if owner is None else {OWNER_LABEL: owner}
    young = {"created_at": ago(hours=1), "started_at": ago(hours=1)}
    return replace(RUNNING, id=id_, name=id_, labels={**of_owner, **(labels or {})}, **{**young, **fields})


def decided(*resources: Resource, rules: Rules = RULES, leases: tuple[Lease, ...] = (), proofs: Proofs = PROOFS) -> Decision:
    return decide(resources, rules, leases, NOW, proofs=proofs)[0]


def said(*resources: Resource) -> str:
    """What is said of the first one's owners."""
    findings = explain(resources[0], resources, RULES, (), NOW, proofs=PROOFS)
    return next(finding.sentence for finding in findings if finding.rule == "owner process")


def test_what_is_young_and_running_goes_when_its_owner_is_dead() -> None:
    decision = decided(box("dead"))
    assert (decision.reap, decision.reason, decision.policy) == (True, Reason.ORPHANED, "orphaned")
    assert decision.since == ago(minutes=20)
    assert decision.phrase == "owner dead for 30 min > 10 min"
    assert decision.sentence == (
        "its owner, process 1, is dead: there is no such process; owner dead for 30 min, policy orphaned allows 10 min"
    )


@pytest.mark.parametrize("owner", ["alive", "unproven", "not looked at", None])
def test_what_has_no_owner_that_is_proven_to_be_dead_stays(owner: str | None) -> None:
    assert decided(box(owner)).reason is Reason.TOO_YOUNG


@pytest.mark.parametrize("owner", ["alive", "unproven", None])
def test_no_owner_keeps_anything_longer_than_the_other_policies_do(owner: str | None) -> None:
    decision = decided(box(owner, created_at=ago(hours=25), started_at=ago(hours=25)))
    assert (decision.reap, decision.policy) == (True, "old")


def test_a_sandbox_goes_as_a_container_does() -> None:
    young = replace(
        SANDBOX, created_at=ago(hours=1), started_at=None, labels={"harbor.managed": "true", OWNER_LABEL: "dead"}
    )
    assert decided(young).reason is Reason.ORPHANED


@pytest.mark.parametrize(
    "fields", [{"created_at": ago(minutes=9), "started_at": ago(minutes=9)}, {"started_at": ago(minutes=9)}]
)
def test_it_counts_from_creation_and_last_start_at_the_earliest(fields: dict[str, Any]) -> None:
    decision = decided(box("dead", **fields))
    assert (decision.reason, decision.due_at) == (Reason.TOO_YOUNG, NOW + MINUTE)
    assert decision.phrase == "owner dead for 9 min < 10 min"


def test_one_that_is_dead_since_this_very_look_has_its_time_before_it() -> None:
    proofs = Proofs({(OWNER_LABEL, "dead"): replace(DEAD, since=None)})
    assert decided(box("dead"), proofs=proofs).due_at == NOW + 10 * MINUTE


def test_a_label_that_came_with_the_image_proves_nothing() -> None:
    for image_labels in (False, True):
        rules = replace(RULES, scope=Scope(image_labels=image_labels))
        assert decided(box("dead", inherited=frozenset({OWNER_LABEL})), rules=rules).reason is Reason.TOO_YOUNG
    decision = decided(box("dead", inherited=None))
    assert decision.reason is Reason.TOO_YOUNG
    assert "may be its image's" in said(box("dead", inherited=None))


KEPT = {
    "it is not owned": (box("dead", image="postgres:16"), RULES, Reason.NOT_OWNED),
    "it is protected": (
        box("dead"),
        replace(RULES, protect=Protect(Selector(names=("c*",)))),
        Reason.PROTECTED,
    ),
    "reaper.keep": (box("dead", labels={"reaper.keep": ""}), RULES, Reason.PROTECTED),
    "a lease that lives": (box("dead", labels={"reaper.lease": "x"}), RULES, Reason.LEASED),
    "a lease that is not known": (box("dead", labels={"reaper.lease": "y"}), RULES, Reason.LEASE_UNKNOWN),
    "reaper.ttl": (box("dead", labels={"reaper.ttl": "2h"}), RULES, Reason.LABEL_NOT_DUE),
    "it is about to be started": (
        box("dead", state=State.STOPPED, raw_state="created", created_at=ago(minutes=5), started_at=None),
        RULES,
        Reason.CREATED_GRACE,
    ),
    "it is changing": (box("dead", state=State.CHANGING, raw_state="removing"), RULES, Reason.CHANGING),
}


@pytest.mark.parametrize(("resource", "rules", "reason"), KEPT.values(), ids=KEPT.keys())
def test_a_dead_owner_overrules_no_protection(resource: Resource, rules: Rules, reason: Reason) -> None:
    assert decided(resource, rules=rules, leases=(Lease("x", "pid 1"),)).reason is reason


def test_a_restart_policy_keeps_what_no_preset_owns() -> None:
    resource = box("dead", image="worker", labels={"team": "rl"}, restart_policy="always")
    rules = replace(RULES, scope=Scope(selector=Selector(labels=("team=rl",))))
    assert decided(resource, rules=rules).reason is Reason.RESTART_POLICY


def member(owner: str | None, id_: str, **fields: Any) -> Resource:
    return box(owner, id_, labels=PROJECT, group="chess", **fields)


def test_a_project_goes_when_the_owners_of_all_its_members_are_dead() -> None:
    assert all(d.reap for d in decide([member("dead", "c1"), member("dead", "c2")], RULES, (), NOW, proofs=PROOFS))


@pytest.mark.parametrize("owner", ["alive", "unproven", None])
def test_one_member_that_is_not_orphaned_keeps_its_project(owner: str | None) -> None:
    assert not decided(member("dead", "c1"), member(owner, "c2")).reap


@pytest.mark.parametrize("owner", ["alive", "unproven"])
def test_an_owner_that_is_not_dead_keeps_the_others_of_its_project_although_its_own_container_may_go(owner: str) -> None:
    old = member(owner, "c2", created_at=ago(hours=30), started_at=ago(hours=30))
    assert decided(old).reap
    decision = decided(member("dead", "c1"), old)
    assert not decision.reap
    assert said(member("dead", "c1"), old).startswith("the owner of c2 of its project is not dead: ")


def test_another_group_has_no_say() -> None:
    assert decided(
        member("dead", "c1"), box("alive", "c2", labels={**PROJECT, "com.docker.compose.project": "go"}, group="go")
    ).reap


@PROPERTY
@given(worlds(), st.data())
def test_nothing_goes_for_a_dead_owner_that_would_not_go_for_its_age_as_well(world: Any, data: st.DataObject) -> None:
    """With the owners dead or not, what is orphaned at most joins what goes when everything owned goes."""
    owners = [None, "dead", "alive", "unproven"]
    labelled = [
        replace(r, labels={**r.labels, OWNER_LABEL: owner}) if r.labels is not None and owner is not None else r
        for r in world.resources
        for owner in [data.draw(st.sampled_from(owners))]
    ]
    policy = Policy("orphaned", RUNS, orphaned_for=timedelta(minutes=10))
    rules = replace(world.rules, policies=(*world.rules.policies, policy))
    proofs = Proofs({key: replace(o, since=world.now - HOUR) if o.since else o for key, o in PROOFS.named.items()})
    before = {d.resource.id: d for d in decide(labelled, world.rules, world.leases, world.now)}
    for decision in decide(labelled, rules, world.leases, world.now, proofs=proofs):
        earlier = before[decision.resource.id]
        if decision.reap and not earlier.reap and decision.resource.kind.runs:
            assert earlier.reason in (Reason.TOO_YOUNG, Reason.NO_POLICY, Reason.GROUP_KEPT, Reason.IN_USE), earlier.sentence
            if decision.reason is Reason.ORPHANED:
                own = decision.resource.own_labels.get(OWNER_LABEL)
                assert own == "dead"
                assert decision.owner is not None
                mates = [r for r in labelled if r.group is not None and r.group == decision.resource.group]
                same = [
                    r
                    for r in mates
                    if r.labels
                    and (r.labels.get("com.docker.compose.project.working_dir"), r.kind)
                    == (
                        (decision.resource.labels or {}).get("com.docker.compose.project.working_dir"),
                        decision.resource.kind,
                    )
                ]
                assert all(
                    (r.own_labels.get(OWNER_LABEL) or "dead") == "dead"
                    for r in same
                    if r.endpoint == decision.resource.endpoint
                )


# -- [[owner]] ---------------------------------------------------------------------------------------------------------

SESSIONS = OwnerRule(name="acme", pid_label="acme.pid", session_label="acme.run")
RUNNERS = OwnerRule(name="harbor", presets=frozenset({"terminal-bench"}), processes=("*/bin/tb run*",))


def of_session(run: str, pid: str | None = None, id_: str = "c1") -> Resource:
    return box(None, id_, labels={"acme.run": run} | ({} if pid is None else {"acme.pid": pid}))


@pytest.mark.parametrize(
    ("owners", "goes"),
    [(("dead",), True), (("dead", "dead"), True), (("alive",), False), (("dead", "unproven"), False), ((), False)],
)
def test_what_has_a_session_has_the_owners_of_all_of_it(owners: tuple[str, ...], goes: bool) -> None:
    named: dict[Key, OwnerProcess] = {
        ("acme", pid, "", ""): owner for pid, owner in (("dead", DEAD), ("alive", ALIVE), ("unproven", UNPROVEN))
    }
    others = [of_session("x", pid, f"o{number}") for number, pid in enumerate(owners)]
    another = of_session("y", "alive" if goes else "dead", "z1")
    decision = decided(of_session("x"), *others, another, proofs=Proofs(named, rules=(SESSIONS,)))
    assert decision.reap is goes


def test_what_a_preset_owns_is_orphaned_when_no_process_is_older() -> None:
    at = ago(hours=1)
    for oldest, goes in ((None, True), (at + MINUTE, True), (at + timedelta(seconds=1), False), (at - MINUTE, False)):
        matched = Matched(oldest, "process 5", ("tb run",), {"c1": ago(minutes=30)})
        resource = box(None, group="chess-1-of-1-2026-11-21__11-00-00")
        decision = decided(resource, proofs=Proofs(matched={"harbor": matched}, rules=(RUNNERS,)))
        assert decision.reap is goes, oldest


@pytest.mark.parametrize(
    ("project", "command", "goes"),
    [
        ("chess-1-of-1-2026-11-20__09-30-00", "tb run -d core", True),
        ("chess-1-of-1-2026-11-20__09-30-00", "tb runs resume --run-id 2026-11-20__09-30-00", False),
        ("chess-1-of-1-2026-11-20__09-30-00", "python nightly.py", True),
        ("chess-1-of-1-nightly", "tb run -d core", False),
        ("chess", "tb run -d core", False),
        (None, "tb run -d core", False),
    ],
)
def test_a_younger_runner_keeps_what_it_may_have_taken_over(project: str | None, command: str, goes: bool) -> None:
    """Compose's ``up`` uses a project of the same name as it is: a resumed run lives in what the killed one has made."""
    matched = Matched(ago(minutes=30), "process 5", ("another", command), {"c1": ago(minutes=30)})
    decision = decided(box(None, group=project), proofs=Proofs(matched={"harbor": matched}, rules=(RUNNERS,)))
    assert decision.reap is goes


@pytest.mark.parametrize(
    ("preset", "name", "run"),
    [
        ("harbor", "chess__Ab3dEf7", None),
        ("harbor", "chess__ab3def7", "chess__ab3def7"),
        ("harbor", "chess__ab3def7__env", "chess__ab3def7"),
        ("harbor", "chess__ab3def7__verifier__x-1", "chess__ab3def7"),
        ("inspect-ai", "inspect-chess-iab3def", "inspect-chess-iab3def"),
        ("mini-swe-agent", "minisweagent-0123abcd", "minisweagent-0123abcd"),
        ("swe-bench", "sweb.eval.django__django-1.nightly", None),
        ("openhands", "openhands-runtime-0123abcd", None),
    ],
)
def test_a_name_is_of_one_run_only_where_its_runner_makes_up_each(preset: str, name: str, run: str | None) -> None:
    assert PRESETS[preset].run_of(replace(RUNNING, name=name)) == run


def test_what_was_taken_over_is_orphaned_from_when_the_last_runner_was_dead() -> None:
    matched = {"harbor": Matched(since={"c1": ago(minutes=50)}, until=ago(minutes=4))}
    resource = box(None, created_at=ago(hours=1), started_at=ago(hours=1))
    assert decided(resource, proofs=Proofs(matched=matched, rules=(RUNNERS,))).reason is Reason.TOO_YOUNG
    of_one_run = replace(resource, group="chess-1-of-1-2026-11-20__09-30-00")
    assert decided(of_one_run, proofs=Proofs(matched=matched, rules=(RUNNERS,))).reason is Reason.ORPHANED


def test_it_is_orphaned_from_when_that_was_seen_first() -> None:
    matched = {"harbor": Matched(since={"c1": ago(minutes=4)})}
    assert decided(box(None), proofs=Proofs(matched=matched, rules=(RUNNERS,))).due_at == NOW + 6 * MINUTE


@pytest.mark.parametrize(
    ("rule", "matched"),
    [
        (RUNNERS, Matched(refused="it is not seen from here", since={"c1": ago(hours=1)})),
        (RUNNERS, Matched(since={"c1": ago(hours=1)}, until=ago(hours=5))),
        (RUNNERS, Matched(NOW, since={"c1": ago(hours=1)}, hidden=("c1",))),
        (replace(RUNNERS, presets=frozenset({"harbor"})), Matched(since={"c1": ago(hours=1)})),
        (replace(RUNNERS, endpoints=frozenset({"another"})), Matched(since={"c1": ago(hours=1)})),
    ],
    ids=["refused", "no such process lived", "none had lived", "another preset", "another endpoint"],
)
def test_processes_prove_nothing_elsewhere(rule: OwnerRule, matched: Matched) -> None:
    assert not decided(box(None), proofs=Proofs(matched={"harbor": matched}, rules=(rule,))).reap


def test_what_the_scope_owns_without_a_preset_belongs_to_no_runner() -> None:
    rules = replace(RULES, scope=Scope(selector=Selector(names=("c*",))))
    matched = {"harbor": Matched(since={"c1": ago(hours=1)})}
    resource = box(None, image="worker")
    assert not decided(
        resource, rules=rules, proofs=Proofs(matched=matched, rules=(replace(RUNNERS, presets=frozenset()),))
    ).reap
