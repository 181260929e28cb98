"""Over a quota what is reapable goes before its turn, and where it is enforced what is idle; nothing that a rule keeps."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.accounts import Footprint
from reaper.core.conditions import Policy
from reaper.core.decide import decide
from reaper.core.identity import group_name
from reaper.core.lease import Ending, Lease
from reaper.core.lease_index import Leases
from reaper.core.model import Action, Decision, Kind, Reason, Resource, State
from reaper.core.narrowing import Window
from reaper.core.quota import COUNT, CPU, DISK, MEMORY, Quota, decide_within, fullest, in_force, usages, with_policies
from reaper.core.rules import KEEP_LABEL, Rules
from reaper.core.scope import Scope, Selector
from tests.core.make import HOUR, NETWORK, NOW, RUNNING, SANDBOX, STOPPED, ago
from tests.core.strategies import World, worlds, worlds_with_actions

CONTAINERS, SANDBOXES = frozenset({Kind.CONTAINER}), frozenset({Kind.SANDBOX})
SOON = Policy("soon", CONTAINERS, stopped_for=HOUR)
LATE = Policy("late", CONTAINERS, older_than=24 * HOUR)
RULES = Rules(policies=(SOON, LATE))
GIB = 2**30


def quota(limit: float, measure: str = COUNT, kinds: frozenset[Kind] = CONTAINERS, **fields: Any) -> Quota:
    return replace(Quota("mine", kinds, {measure: limit}), **fields)


def stopped(name: str, hours: float, user: str | None = None, **fields: Any) -> Resource:
    """Made and stopped so many hours ago."""
    at = ago(hours=hours)
    labels = {} if user is None else {"user": user}
    times = {"created_at": at, "started_at": at, "stopped_at": at}
    return replace(STOPPED, **{"id": name, "name": name, "labels": labels, **times, **fields})


def going(
    found: Sequence[Resource], quotas: Sequence[Quota], due: set[str] | None = None, rules: Rules = RULES, leases: Any = ()
) -> dict[str, Decision]:
    decisions = decide_within(found, rules, Leases(leases), NOW, quotas=quotas, due=due)
    return {d.resource.name: d for d in decisions if d.reap}


# -- what is reapable goes first ---------------------------------------------------------------------------------------


def test_within_its_quota_each_policy_waits_for_its_turn() -> None:
    found = [stopped("a", 2), stopped("b", 3)]
    assert not going(found, [quota(2)], {"late"})
    assert set(going(found, [quota(0)], {"soon"})) == {"a", "b"}


def test_over_it_the_oldest_of_what_is_reapable_goes_and_no_more_than_it_takes() -> None:
    found = [stopped("a", 2), stopped("b", 4), stopped("c", 3), stopped("young", 0.5)]
    assert set(going(found, [quota(3)], {"late"})) == {"b"}
    assert set(going(found, [quota(2)], {"late"})) == {"b", "c"}
    assert set(going(found, [quota(0)], {"late"})) == {"a", "b", "c"}
    why = going(found, [quota(3)], {"late"})["b"].sentence
    assert why.endswith("; quota mine: 4 of 3 containers")


def test_what_need_not_go_beside_a_younger_one_that_gives_back_more_stays() -> None:
    def box(name: str, hours: float, memory: int) -> Resource:
        made = replace(SANDBOX, id=name, name=name, footprint=Footprint(1.0, memory * GIB, 0))
        return replace(made, created_at=ago(hours=hours), last_activity_at=ago(hours=hours))

    found = [box("old", 20, 3), box("small", 15, 1), box("large", 10, 4), box("young", 1, 1)]
    limit = quota(2 * GIB, MEMORY, SANDBOXES, name="mine", enforce=True, idle_for=8 * HOUR)
    assert set(going(found, [limit], rules=Rules(policies=()))) == {"old", "large"}
    limit = replace(limit, limits={MEMORY: 1.0 * GIB})
    assert set(going(found, [limit], rules=Rules(policies=()))) == {"old", "small", "large"}
    limit = replace(limit, limits={MEMORY: 5.0 * GIB})  # "old" and "small" are enough
    assert set(going(found, [limit], rules=Rules(policies=()))) == {"old", "small"}


def test_in_place_of_what_stays_after_all_another_one_goes() -> None:
    user = stopped("user", 2, uses=frozenset({"used"}), user=None)
    found = [stopped("used", 9), user, stopped("other", 5), stopped("last", 3)]
    assert set(going(found, [quota(3)], {"late"})) == {"other"}


def test_what_goes_anyway_counts_first() -> None:
    found = [stopped("old", 30), stopped("a", 2), stopped("b", 3)]
    assert set(going(found, [quota(2)], {"late"})) == {"old"}
    assert set(going(found, [quota(1)], {"late"})) == {"old", "b"}


def test_each_value_of_a_label_counts_by_itself_and_what_lacks_it_not_at_all() -> None:
    found = [stopped("a1", 2, "ada"), stopped("a2", 3, "ada"), stopped("b1", 9, "bob"), stopped("none", 10)]
    assert set(going(found, [quota(1, label="user")], {"late"})) == {"a2"}
    used = usages([quota(1, label="user")], ["local"], found)
    assert [(one.value, one.used, one.exceeded) for one in used] == [("ada", 2, True), ("bob", 1, False)]
    assert fullest([quota(1, label="user")], "local", found) == {("mine", COUNT): 2}


def test_a_label_of_its_image_makes_it_no_user_s() -> None:
    found = [stopped("a", 2, "ada", inherited=frozenset({"user"})), stopped("b", 3, "ada")]
    assert not going(found, [quota(1, label="user")], {"late"})


def test_each_endpoint_counts_by_itself_and_others_not_at_all() -> None:
    found = [stopped("a", 2), stopped("b", 3, endpoint="gpu-1"), stopped("c", 4, endpoint="gpu-1")]
    assert set(going(found, [quota(1)], {"late"})) == {"c"}
    assert not going(found, [quota(1, endpoints=frozenset({"local"}))], {"late"})


def test_a_project_goes_as_one_or_not_at_all() -> None:
    whole = [stopped("a", 5, group="p"), stopped("b", 2, group="p"), replace(NETWORK, group="p")]
    assert set(going([*whole, stopped("c", 3)], [quota(2)], {"late"})) == {"a", "b", NETWORK.name}
    living = [stopped("a", 5, group="p"), replace(RUNNING, id="b", name="b", group="p", created_at=ago(hours=1))]
    living[1] = replace(living[1], started_at=ago(hours=1))
    assert set(going([*living, stopped("c", 3)], [quota(1)], {"late"})) == {"c"}


def test_what_something_uses_that_stays_does_not_go() -> None:
    user = replace(RUNNING, id="u", name="u", uses=frozenset({"a"}), created_at=ago(hours=1), started_at=ago(hours=1))
    assert not going([stopped("a", 5), user], [quota(0)], {"late"})


def test_of_two_projects_of_one_name_none_goes_while_something_that_stays_uses_the_other() -> None:
    labels = {f"com.docker.compose.{key}": "p" for key in ("project", "container-number")}
    folders = [{**labels, "com.docker.compose.project.working_dir": folder} for folder in ("/a", "/b")]
    found = [stopped(f"c{number}", 5, group="p", labels=folder) for number, folder in enumerate(folders)]
    assert set(going(found, [quota(0)], {"late"})) == {"c0", "c1"}
    user = replace(RUNNING, id="u", name="u", uses=frozenset({"c0"}), created_at=ago(hours=1), started_at=ago(hours=1))
    assert set(going([*found, user, stopped("other", 3)], [quota(0)], {"late"})) == {"other"}


def test_what_is_on_its_way_out_or_archived_is_not_counted() -> None:
    leaving = stopped("gone", 9, state=State.CHANGING, raw_state="removing")
    assert not going([leaving, stopped("a", 2)], [quota(1)], {"late"})
    archived = replace(SANDBOX, state=State.STOPPED, raw_state="archived", footprint=Footprint(1, GIB, GIB))
    doomed = replace(SANDBOX, state=State.CHANGING, raw_state="started, to be destroyed", footprint=Footprint(1, GIB, GIB))
    limits = {COUNT: 1.0, CPU: 1.0, MEMORY: 1.0, DISK: 1.0}
    used = usages([Quota("q", SANDBOXES, limits)], ["rl-org"], [archived, doomed])
    assert {one.measure: one.used for one in used} == dict.fromkeys(limits, 0)


def test_of_sandboxes_what_the_server_reports_is_added_up() -> None:
    on = replace(SANDBOX, footprint=Footprint(4.0, 8 * GIB, 10 * GIB))
    off = replace(on, id="off", state=State.STOPPED, raw_state="stopped")
    unknown = replace(on, id="unknown", footprint=Footprint())
    limits = {COUNT: 3.0, CPU: 4.0, MEMORY: 4.0 * GIB, DISK: 40.0 * GIB}
    used = usages([Quota("org", SANDBOXES, limits)], ["rl-org"], [on, off, unknown])
    assert {one.measure: (one.used, one.share) for one in used} == {
        COUNT: (3, 1),
        CPU: (4, 1),
        MEMORY: (8 * GIB, 2),
        DISK: (20 * GIB, 0.5),
    }
    assert str(next(one for one in used if one.measure == MEMORY)) == "quota org: 8.0 GiB of 4.0 GiB memory"


def test_a_quota_that_nothing_counts_for_is_empty() -> None:
    (used,) = usages([quota(0)], ["local"], [])
    assert (used.share, used.exceeded) == (0, False)
    assert usages([quota(0, label="user")], ["local"], []) == []
    assert usages([quota(0, endpoints=frozenset({"gpu-1"}))], ["local"], []) == []


# -- enforced ----------------------------------------------------------------------------------------------------------

NEVER = Rules(policies=(Policy("never", CONTAINERS | SANDBOXES, older_than=timedelta(days=900)),))
ENFORCED = quota(1, enforce=True, idle_for=2 * HOUR)


def test_where_it_is_enforced_the_oldest_idle_goes_and_no_more_than_it_takes() -> None:
    found = [stopped("a", 3), stopped("b", 5), stopped("c", 4), stopped("fresh", 1)]
    assert set(going(found, [ENFORCED], rules=NEVER)) == {"a", "b", "c"}
    assert set(going(found, [replace(ENFORCED, limits={COUNT: 3.0})], rules=NEVER)) == {"b"}
    assert not going(found, [replace(ENFORCED, enforce=False)], rules=NEVER)
    taken = going(found, [replace(ENFORCED, limits={COUNT: 3.0})], {"never"}, NEVER)["b"]
    assert (taken.policy, taken.reason) == ("mine", Reason.STOPPED_FOR)


KEPT: dict[str, Resource] = {
    "it runs": replace(RUNNING, id="x", name="x"),
    "it stopped lately": stopped("x", 1),
    "it is protected": stopped("x", 9, labels={KEEP_LABEL: ""}),
    "its lease is alive": stopped("x", 9, labels={"reaper.lease": "live"}),
    "nothing owns it": stopped("x", 9, image="postgres:16"),
    "its restart policy": stopped("x", 9, image="mine", labels={"team": "rl"}, restart_policy="always"),
    "its label gives it time": stopped("x", 9, labels={"reaper.ttl": "5d"}),
    "it is unreadable": stopped("x", 9, unreadable="odd"),
    "it is the machinery's": stopped("x", 9, system_container="a Kubernetes pod"),
    "it is changing": stopped("x", 9, state=State.CHANGING, raw_state="restoring"),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_a_rule_keeps_stays_however_far_the_quota_is_exceeded(what: str) -> None:
    rules = replace(NEVER, scope=Scope(("terminal-bench",), Selector(labels=("team",))))
    leases = (Lease("live", "run"), Lease("dead", "run", ending=Ending(NOW, "killed")))
    found = [KEPT[what], stopped("other", 3)]
    assert set(going(found, [replace(ENFORCED, limits={COUNT: 0.0})], rules=rules, leases=leases)) == {"other"}


def test_sandboxes_without_activity_are_idle_and_those_at_work_are_not() -> None:
    idle = replace(SANDBOX, id="idle", name="idle", last_activity_at=ago(hours=3))
    busy = replace(SANDBOX, id="busy", name="busy", last_activity_at=ago(hours=1))
    enforced = quota(0, kinds=SANDBOXES, enforce=True, idle_for=2 * HOUR)
    assert set(going([idle, busy], [enforced], rules=NEVER)) == {"idle"}


def test_what_an_exclusive_policy_selects_is_left_to_it() -> None:
    bob = Policy("bob", CONTAINERS, older_than=96 * HOUR, selectors=(Selector(labels=("user=bob",)),))
    found = [stopped("a", 3, "ada"), stopped("b", 5, "bob")]
    rules = replace(NEVER, policies=(*(replace(policy, yields_to=(bob,)) for policy in NEVER.policies), bob))
    assert set(going(found, [replace(ENFORCED, limits={COUNT: 0.0}, yields_to=(bob,))], rules=rules)) == {"a"}


def test_no_policy_s_window_is_opened_by_a_quota() -> None:
    nightly = Policy("nightly", CONTAINERS, every_resource=True, window=Window(time(2), time(5), UTC, "UTC"))
    found = [stopped("a", 3), replace(RUNNING, id="r", name="r")]
    rules = Rules(policies=(nightly,))
    assert not going(found, [quota(0)], {"other"}, rules)
    assert not going(found, [quota(0)], None, rules)


def test_by_what_it_took_it_is_judged_again_and_by_no_other_quota() -> None:
    found = [stopped("a", 3), stopped("b", 5)]
    decisions = decide_within(found, NEVER, Leases(), NOW, quotas=[ENFORCED])
    other = replace(ENFORCED, name="other")
    wider = in_force(NEVER, [ENFORCED, other], decisions)
    assert {policy.name for policy in wider.policies} == {"never", "mine"}
    assert [d.resource.name for d in decide([found[1]], wider, (), NOW) if d.reap] == ["b"]
    assert in_force(NEVER, [ENFORCED, other], []) is NEVER


def test_no_quota_takes_what_is_idle_for_another_one() -> None:
    """Both are exceeded, and what counts for the patient one alone has stopped for as long as the other one wants."""
    soon = replace(ENFORCED, name="soon", label="user", limits={COUNT: 0.0})
    patient = replace(ENFORCED, name="patient", limits={COUNT: 0.0}, idle_for=8 * HOUR)
    found = [stopped("hers", 3, "ada"), stopped("unlabelled", 3), stopped("old", 9)]
    for quotas in ([soon, patient], [patient, soon]):
        taken = going(found, quotas, rules=NEVER)
        assert {name: decision.policy for name, decision in taken.items()} == {"hers": "soon", "old": "patient"}


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_what_a_quota_would_only_stop_is_not_deleted_by_the_time_of_another_one(order: slice) -> None:
    """Of a session one has been idle for as long as both want; the other one for one of them alone, and is to be stopped."""
    stop = Policy("stop", SANDBOXES, older_than=HOUR, action=Action.STOP, selectors=(Selector(names=("young",)),))

    def box(name: str, idle: float, group: str | None = None, user: str | None = None) -> Resource:
        labels = {"harbor.managed": "true", **({"user": user} if user else {})}
        made = replace(SANDBOX, id=name, name=name, group=group, labels=labels, footprint=Footprint(1.0, 0, 0))
        return replace(made, created_at=ago(hours=20), last_activity_at=ago(hours=idle))

    soon = quota(1, kinds=SANDBOXES, name="soon", label="user", enforce=True, idle_for=2 * HOUR)
    patient = quota(2, CPU, SANDBOXES, name="patient", enforce=True, idle_for=8 * HOUR)
    found = [box("hers", 3, user="ada"), box("at work", 1, user="ada"), box("old", 9, "s"), box("young", 3, "s")]
    taken = going(found, [soon, patient][order], rules=Rules(policies=(stop,)))
    assert {name: (one.action, one.policy) for name, one in taken.items()} == {
        "hers": (Action.DELETE, "soon"),
        "old": (Action.STOP, "patient"),
        "young": (Action.STOP, "stop"),
    }


QUOTAS = st.lists(
    st.builds(
        Quota,
        st.sampled_from(["q1", "q2"]),
        st.sampled_from([CONTAINERS, SANDBOXES, CONTAINERS | SANDBOXES]),
        st.builds(lambda limit: {COUNT: float(limit)}, st.integers(0, 3)),
        label=st.sampled_from([None, None, "bench", "team"]),
        enforce=st.booleans(),
        idle_for=st.sampled_from([timedelta(minutes=10), HOUR, 8 * HOUR]),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda one: one.name,
)


@given(worlds(), QUOTAS, st.booleans())
def test_of_any_world_no_more_goes_than_with_every_policy_due_and_the_quota_for_one(
    world: World, quotas: list[Quota], due: bool
) -> None:
    names = {world.rules.policies[0].name} if due else None
    plain = decide(world.resources, world.rules, world.leases, world.now, names)
    within = decide_within(world.resources, world.rules, world.leases, world.now, quotas=quotas, due=names)
    extra = tuple(policy for one in quotas if one.enforce for policy in one.policies())
    widest = replace(world.rules, policies=(*world.rules.policies, *extra))
    every = decide(world.resources, widest, world.leases, world.now)
    kept_uses = {(d.resource.endpoint, id_) for d in within if not d.reap for id_ in d.resource.uses}
    of_rules = decide(world.resources, world.rules, world.leases, world.now)
    by_quota = [
        (one, decide(world.resources, with_policies(world.rules, [one]), world.leases, world.now))
        for one in quotas
        if one.enforce
    ]
    over = {
        (usage.quota.name, usage.endpoint, usage.value)
        for usage in usages(quotas, (), [d.resource for d in plain if not d.reap])
        if usage.exceeded
    }

    def is_over(quota: Quota, decision: Decision) -> bool:
        name = group_name(decision.resource)
        unit = [d for d in plain if name is not None and group_name(d.resource) == name] or [decision]
        return any((quota.name, d.resource.endpoint, quota.scope_of(d.resource)) in over for d in unit)

    for i, (before, now, most, most_of_rules) in enumerate(zip(plain, within, every, of_rules, strict=True)):
        assert now.reap or not before.reap  # nothing that goes without quotas stays for them
        if now.reap and not before.reap:
            assert most.reap  # it would go if the quota were a policy like others, with all that keeps something
            assert most_of_rules.reap or any(d[i].reap and is_over(one, now) for one, d in by_quota), (
                "of that one is too much"
            )
            assert now.owner is not None or now.lease is not None
            assert (now.resource.endpoint, now.resource.id) not in kept_uses
            if (name := group_name(now.resource)) is not None:
                mates = [d for d in within if group_name(d.resource) == name and d.resource.kind.runs]
                assert all(mate.reap for mate in mates)
    for one, left in ((q, [d.resource for d in within if not d.reap]) for q in quotas):
        before_it = {(u.endpoint, u.value): u.used for u in usages([one], (), [d.resource for d in plain if not d.reap])}
        for usage in usages([one], (), left):
            assert usage.used <= before_it[usage.endpoint, usage.value]
    if not any(u.exceeded for u in usages(quotas, (), [d.resource for d in plain if not d.reap])):
        assert [d.reap for d in within] == [d.reap for d in plain]


CPU_QUOTAS = st.lists(
    st.builds(
        Quota,
        st.sampled_from(["q1", "q2", "q3"]),
        st.just(SANDBOXES),
        st.builds(lambda measure, limit: {measure: float(limit)}, st.sampled_from([COUNT, CPU, CPU]), st.integers(0, 3)),
        label=st.sampled_from([None, None, "harbor.managed", "team"]),
        enforce=st.sampled_from([True, True, False]),
        idle_for=st.sampled_from([timedelta(minutes=10), HOUR, 8 * HOUR]),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda one: one.name,
)


@given(worlds_with_actions(), CPU_QUOTAS, st.booleans())
def test_no_quota_does_more_than_the_rules_and_its_own_time_let_it(world: World, quotas: list[Quota], due: bool) -> None:
    boxes = tuple(replace(r, footprint=Footprint(1.0, GIB, GIB)) for r in world.resources if r.kind is Kind.SANDBOX)
    world = replace(world, resources=boxes)
    names = {world.rules.policies[0].name} if due else None
    plain = decide(world.resources, world.rules, world.leases, world.now, names)
    within = decide_within(world.resources, world.rules, world.leases, world.now, quotas=quotas, due=names)
    each = [decide(world.resources, with_policies(world.rules, [one]), world.leases, world.now) for one in quotas]
    for i, (before, now) in enumerate(zip(plain, within, strict=True)):
        if before.reap:
            assert (now.reap, now.action) == (True, before.action)
        elif now.reap:
            assert now.action in {by[i].action for by in each if by[i].reap}
