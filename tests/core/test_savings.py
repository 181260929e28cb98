"""What deletions were worth: the time that they avoided, what that cost, and the rules that they kept."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core import savings
from reaper.core.accounts import Footprint, LastLook, Saving
from reaper.core.conditions import Policy, evaluate
from reaper.core.decide import decide
from reaper.core.model import Decision, Kind, Outcome, Reason, Result, State, Verdict
from reaper.core.rules import KEEP_LABEL, Rules
from reaper.core.savings import (
    GIB,
    LEASE,
    LONGEST,
    OVERRIDE,
    Entry,
    Prices,
    Rates,
    Total,
    avoided_cost,
    freed_by,
    short_owner,
)
from tests.core.make import HOUR, IMAGE, NETWORK, NOW, RUNNING, SANDBOX, STOPPED, VOLUME, ago
from tests.core.strategies import World, worlds

CONTAINERS = frozenset({Kind.CONTAINER})
STOPPED_6H = Policy("stopped", CONTAINERS, stopped_for=6 * HOUR)
OLD = Policy("old", CONTAINERS, older_than=24 * HOUR)


def decided(resource: Any, policy: str | None = "stopped", **fields: Any) -> Decision:
    base = Decision(resource, Verdict.REAP, Reason.STOPPED_FOR, "garbage", policy=policy, owner="preset harbor, label x")
    return replace(base, **fields)


def entry(resource: Any = STOPPED, outcome: Outcome = Outcome.DELETED, **fields: Any) -> Entry:
    look = LastLook(NOW, resource.raw_state, acted=True)
    saved = decided(resource, saving=Saving(6 * HOUR, 2 * HOUR))
    return replace(Entry.of(Result(saved, outcome, freed=freed_by(resource, None), look=look)), **fields)


def saving(decision: Decision, policies: Iterable[Policy], now: datetime) -> Saving:
    return savings.saving(decision, [evaluate(decision.resource, policy, now) for policy in policies], now)


# -- time --------------------------------------------------------------------------------------------------------------


def test_it_would_have_gone_on_until_the_next_of_the_other_policies_takes_it() -> None:
    made = replace(STOPPED, created_at=ago(hours=20), started_at=ago(hours=20), stopped_at=ago(hours=7))
    assert saving(decided(made), (STOPPED_6H, OLD), NOW).avoided == 4 * HOUR


def test_where_no_other_policy_takes_it_it_is_a_day() -> None:
    elsewhere = replace(OLD, endpoints=frozenset({"gpu-1"}))
    for others in ((), (elsewhere,), (Policy("sandboxes", frozenset({Kind.SANDBOX}), older_than=HOUR),)):
        assert saving(decided(STOPPED), (STOPPED_6H, *others), NOW).avoided == timedelta(days=1)
    late = Policy("late", CONTAINERS, older_than=timedelta(days=30))
    assert saving(decided(STOPPED), (STOPPED_6H, late), NOW).avoided == timedelta(days=1)


def test_what_another_policy_takes_already_would_not_have_gone_on_at_all() -> None:
    assert saving(decided(STOPPED), (STOPPED_6H, OLD), NOW).avoided == timedelta(0)


def test_what_a_lease_or_a_label_takes_would_have_waited_for_the_first_policy() -> None:
    made = replace(RUNNING, created_at=ago(hours=1), started_at=ago(hours=1))
    assert saving(decided(made, policy=None), (STOPPED_6H, OLD), NOW).avoided == 23 * HOUR


def test_how_long_it_has_been_garbage_is_told_where_it_is_known() -> None:
    assert saving(decided(STOPPED, since=ago(hours=3)), (), NOW).waited == 3 * HOUR
    assert saving(decided(STOPPED), (), NOW).waited is None
    assert saving(decided(STOPPED, since=NOW + HOUR), (), NOW).waited == timedelta(0)


@given(worlds())
def test_of_any_world_it_is_between_nothing_and_a_day_and_another_policy_only_shortens_it(world: World) -> None:
    policies = world.rules.policies
    for decision in decide(world.resources, world.rules, world.leases, world.now):
        if not decision.reap:
            continue
        found = saving(decision, policies, world.now)
        assert timedelta(0) <= found.avoided <= LONGEST
        alone = saving(decision, [policy for policy in policies if policy.name == decision.policy], world.now)
        assert alone.avoided == LONGEST
        # Oracle: without its own policy and its lease, and at the moment that is said, another policy alone matches.
        others = tuple(policy for policy in policies if policy.name != decision.policy)
        if timedelta(0) < found.avoided < LONGEST:
            only = Rules(world.rules.scope, world.rules.protect, others)
            at = world.now + found.avoided
            (later,) = decide([replace(decision.resource, group=None, uses=frozenset())], only, (), at)
            before = decide([replace(decision.resource, group=None, uses=frozenset())], only, (), at - HOUR / 3600000)
            if later.policy is not None:
                assert before[0].policy is None


# -- money -------------------------------------------------------------------------------------------------------------

ORG = replace(SANDBOX, footprint=Footprint(4.0, 8 * GIB, 10 * GIB))
PER_PART = Prices("USD", Rates(container=1.0, cpu=0.1, memory=0.01, disk=0.001))
HOURLY: Mapping[str, tuple[Any, Prices, float | None]] = {
    "nothing has a price": (ORG, Prices(), None),
    "a running container": (RUNNING, PER_PART, 1.0),
    "one with limits": (replace(RUNNING, footprint=Footprint(2.0, GIB)), PER_PART, 1.21),
    "a stopped container": (STOPPED, PER_PART, 0.0),
    "of an endpoint": (RUNNING, Prices("USD", Rates(1.0), {"local": Rates(2.5)}), 2.5),
    "of another endpoint": (RUNNING, Prices("USD", Rates(1.0), {"gpu-1": Rates(2.5)}), 1.0),
    "a running sandbox": (ORG, PER_PART, 0.49),
    "a stopped sandbox has its disk": (replace(ORG, state=State.STOPPED, raw_state="stopped"), PER_PART, 0.01),
    "an archived one costs nothing": (replace(ORG, state=State.STOPPED, raw_state="archived"), PER_PART, 0.0),
    "a size": (ORG, Prices("USD", PER_PART.rates, sizes={(4.0, 8.0, 10.0): 0.7}), 0.7),
    "a size of what has stopped": (
        replace(ORG, state=State.STOPPED, raw_state="stopped"),
        Prices("USD", PER_PART.rates, sizes={(4.0, 8.0, 10.0): 0.7}),
        0.01,
    ),
    "another size": (ORG, Prices("USD", sizes={(1.0, 1.0, 3.0): 0.7}), None),
    "an unknown footprint": (SANDBOX, PER_PART, None),
    "an image": (replace(IMAGE, size=2 * GIB), PER_PART, 0.002),
    "a volume that was not measured": (VOLUME, PER_PART, None),
}


@pytest.mark.parametrize(("resource", "prices", "hourly"), HOURLY.values(), ids=HOURLY.keys())
def test_what_an_hour_costs(resource: Any, prices: Prices, hourly: float | None) -> None:
    found, cost = prices.hourly(entry(resource)), avoided_cost(entry(resource), prices)
    if hourly is None:
        assert found is cost is None
    else:
        assert found is not None
        assert cost is not None
        assert math.isclose(found, hourly)
        assert math.isclose(cost, 6 * hourly)


def test_only_what_was_deleted_has_saved_anything() -> None:
    for outcome in set(Outcome) - {Outcome.DELETED}:
        assert avoided_cost(entry(RUNNING, outcome), PER_PART) is None


FREED = {
    "container": (RUNNING, None),
    "network": (NETWORK, 0),
    "volume": (replace(VOLUME, size=7), 7),
    "image": (replace(IMAGE, size=9), 9),
    "sandbox": (ORG, 10 * GIB),
    "archived": (replace(ORG, raw_state="archived"), None),
}


@pytest.mark.parametrize(("resource", "size"), FREED.values(), ids=FREED.keys())
def test_what_a_deletion_frees(resource: Any, size: int | None) -> None:
    assert freed_by(resource, None) == size


def test_of_a_build_cache_the_endpoint_says_it() -> None:
    cache = replace(IMAGE, kind=Kind.BUILD_CACHE, size=100)
    assert freed_by(cache, 40) == 40
    assert freed_by(cache, None) is None


# -- the rules ---------------------------------------------------------------------------------------------------------

BROKEN: Mapping[str, tuple[dict[str, Any], str]] = {
    "it was started again": ({"look": LastLook(NOW, "running", "was started again")}, "was started again"),
    "no look": ({"look": None}, "no look"),
    "unowned": ({"owner": None}, "nothing owned it"),
    "no labels": ({"labels": None}, "its labels were not known"),
    "no age": ({"has_age": False}, "when it was made was not known"),
    "protected by its label": ({"labels": {KEEP_LABEL: ""}}, "reaper.keep"),
    "changing": ({"state": State.CHANGING}, "changing"),
    "unknown": ({"state": State.UNKNOWN}, "unknown"),
}


@pytest.mark.parametrize(("fields", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_what_was_touched_against_the_rules_is_found(fields: dict[str, Any], says: str) -> None:
    assert entry().violation is None
    assert says in (entry(**fields).violation or "")


@pytest.mark.parametrize("outcome", [Outcome.SKIPPED, Outcome.GONE, Outcome.ABANDONED, Outcome.FAILED])
def test_what_was_left_alone_breaks_no_rule_whatever_the_last_look_showed(outcome: Outcome) -> None:
    look = LastLook(NOW, "running", "was started again")
    assert entry(outcome=outcome, look=look, owner=None).violation is None
    asked = replace(look, acted=True)
    assert "was started again" in (entry(outcome=outcome, look=asked).violation or "")


def test_what_an_earlier_version_recorded_is_judged_by_what_it_has() -> None:
    assert entry(look=None, looks_recorded=False).violation is None
    assert entry(look=None, looks_recorded=False, owner=None).violation == "nothing owned it"
    total = Total()
    total.add(entry(look=None, looks_recorded=False), Prices())
    assert (total.violations, total.unrecorded) == (0, 1)


# -- sums --------------------------------------------------------------------------------------------------------------

OWNERS = {
    "preset harbor, label harbor.managed in its project": "harbor",
    "remembered: preset terminal-bench, image tb__*": "terminal-bench",
    "scope label team=rl on its project's containers": "label team=rl",
    "scope everything": "everything",
    "lease 7f3a": "(lease)",
    None: "-",
}


@pytest.mark.parametrize(("owner", "short"), OWNERS.items())
def test_an_owner_is_told_in_words_of_which_there_are_few(owner: str | None, short: str) -> None:
    assert short_owner(owner) == short


def test_what_no_policy_decided_is_told_as_in_the_metrics() -> None:
    assert entry(policy=None, reason=Reason.LEASE_ENDED.value).key[2] == LEASE
    assert entry(policy=None, reason=Reason.GROUP_REAPED.value, owner="lease 7f").key[2] == LEASE
    assert entry(policy=None, reason=Reason.TTL_ENDED.value).key[2] == OVERRIDE


ENTRIES = st.lists(
    st.builds(
        entry,
        st.sampled_from([RUNNING, STOPPED, ORG, SANDBOX, NETWORK, replace(VOLUME, size=7), IMAGE]),
        st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.WOULD_DELETE]),
        policy=st.sampled_from(["stopped", "old", None]),
        endpoint=st.sampled_from(["local", "gpu-1"]),
        owner=st.sampled_from(["preset harbor, label x", "lease 1", "lease 2"]),
        saving=st.builds(Saving, st.timedeltas(timedelta(0), LONGEST), st.none() | st.just(HOUR)) | st.none(),
    ),
    max_size=20,
)


@given(ENTRIES)
def test_the_rows_add_up_to_all_of_it(entries: list[Entry]) -> None:
    totals: dict[tuple[str, str, str], Total] = {}
    for one in entries:
        totals.setdefault(one.key, Total()).add(one, PER_PART)
    whole = Total()
    for total in totals.values():
        whole += total
    deleted = [one for one in entries if one.outcome is Outcome.DELETED]
    assert whole.leaks == len(deleted)
    assert whole.failures == sum(one.failed for one in entries)
    assert whole.skipped == sum(one.outcome is Outcome.SKIPPED for one in entries)
    assert whole.freed == sum(one.freed or 0 for one in deleted)
    assert whole.unmeasured == sum(one.freed is None for one in deleted)
    assert whole.violations == 0
    hours = [one.saving.avoided / HOUR for one in deleted if one.saving is not None and one.kind.runs]
    assert math.isclose(whole.hours, math.fsum(hours), abs_tol=1e-9)
    costs = [cost for one in deleted if (cost := avoided_cost(one, PER_PART)) is not None]
    assert math.isclose(whole.cost or 0.0, math.fsum(costs), abs_tol=1e-9)
    assert (whole.cost is None) == (not costs)
    assert {key[0] for key in totals} == {one.endpoint for one in entries}
