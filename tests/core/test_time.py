"""What was reapable stays so while nothing else happens than that time passes, or that something stops."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.ages import age_base, stop_base
from reaper.core.conditions import Policy
from reaper.core.decide import decide, explain, may_be_linked
from reaper.core.inventory_warnings import inventory_warnings
from reaper.core.lease import Claim, Ending, Lease
from reaper.core.lease_index import Leases
from reaper.core.model import Kind, Reason, Resource, State
from reaper.core.site import Jump, Site
from tests.core.make import (
    EVERYTHING,
    HOUR,
    MINUTE,
    NETWORK,
    NOW,
    OLD_24H,
    RUNNING,
    SANDBOX,
    STOPPED,
    STOPPED_1H,
    ago,
    judge_one,
    judged,
    rules,
)
from tests.core.strategies import PROPERTY, SPANS, Key, World, key, worlds

LATER = st.sampled_from(SPANS[1:])
CHOSEN = st.sets(st.integers(0, 30))


def reaped(world: World) -> set[Key]:
    return {key(decision.resource) for decision in world.decide() if decision.reap}


def stop(resource: Resource, at: datetime) -> Resource:
    """The same a moment after it was stopped. What is restarting is the known exception: its age counts anew."""
    if resource.state is not State.RUNNING or resource.raw_state == "restarting":
        return resource
    raw = "stopped" if resource.kind is Kind.SANDBOX else "exited"
    return replace(resource, state=State.STOPPED, raw_state=raw, stopped_at=at)


@PROPERTY
@given(worlds(), LATER, st.booleans())
def test_time_alone_keeps_nothing(world: World, later: timedelta, every: bool) -> None:
    before = world.ask((EVERYTHING,)) if every else world
    assert reaped(before) <= reaped(replace(before, now=NOW + later))


@PROPERTY
@given(worlds(), LATER, st.sampled_from((timedelta(0), MINUTE)), CHOSEN)
def test_a_stop_makes_nothing_younger(world: World, later: timedelta, since: timedelta, chosen: set[int]) -> None:
    before = world.ask(tuple(policy for policy in world.rules.policies if not policy.states))
    at = NOW + later
    stopped = tuple(stop(one, at) if i in chosen else one for i, one in enumerate(before.resources))
    assert reaped(before) <= reaped(replace(before, resources=stopped, now=at + since))


def test_older_than_counts_from_the_last_start() -> None:
    assert judge_one(replace(RUNNING, started_at=ago(hours=23)), rules(OLD_24H)).reason is Reason.TOO_YOUNG
    assert judge_one(replace(RUNNING, started_at=ago(hours=24)), rules(OLD_24H)).reason is Reason.OLDER_THAN


def test_older_than_counts_from_creation_where_the_start_is_said_to_be_earlier() -> None:
    odd = replace(RUNNING, created_at=ago(hours=1), started_at=ago(days=9))
    assert not judge_one(odd, rules(OLD_24H)).reap


def test_older_than_counts_from_creation_while_it_is_restarting() -> None:
    restarting = replace(RUNNING, raw_state="restarting", started_at=ago(seconds=5))
    assert judge_one(restarting, rules(OLD_24H)).reap
    # The documented exception: once it has stopped, its last start counts again.
    assert not judge_one(replace(STOPPED, started_at=ago(seconds=5), stopped_at=NOW), rules(OLD_24H)).reap


def test_a_stop_does_not_count_for_older_than() -> None:
    assert age_base(replace(STOPPED, stopped_at=NOW)) == age_base(RUNNING) == ago(days=3)


@pytest.mark.parametrize(
    ("resource", "base"),
    [
        (STOPPED, ago(hours=3)),
        (replace(STOPPED, state=State.FAILED, raw_state="dead"), ago(hours=3)),
        (RUNNING, None),
        (replace(RUNNING, stopped_at=ago(days=1)), None),
        (replace(STOPPED, stopped_at=None), None),
        (replace(STOPPED, stopped_at=ago(seconds=3603), started_at=ago(hours=1)), ago(hours=1)),
        (replace(STOPPED, stopped_at=ago(days=9), started_at=ago(hours=1)), None),
        (replace(STOPPED, raw_state="created", started_at=None, stopped_at=None), ago(days=3)),
        (replace(STOPPED, stopped_at=None, started_at=None, inspected=False), ago(days=3)),
        (replace(STOPPED, state=State.CHANGING, raw_state="removing"), None),
    ],
)
def test_stopped_for_counts_from_the_stop(resource: Resource, base: datetime | None) -> None:
    assert stop_base(resource) == base


@pytest.mark.parametrize("grace", [timedelta(0), 10 * MINUTE])
def test_the_grace_of_a_created_container_is_never_under_ten_minutes(grace: timedelta) -> None:
    by = replace(rules(EVERYTHING), created_grace=grace)
    created = replace(STOPPED, raw_state="created", started_at=None, stopped_at=None)
    assert judge_one(replace(created, created_at=ago(minutes=9.9)), by).reason is Reason.CREATED_GRACE
    assert judge_one(replace(created, created_at=ago(minutes=10)), by).reason is Reason.ALL


def test_the_grace_of_a_created_container_can_be_longer() -> None:
    created = replace(STOPPED, raw_state="created", started_at=None, stopped_at=None, created_at=ago(minutes=59))
    by = replace(rules(EVERYTHING), created_grace=HOUR)
    decision = judge_one(created, by)
    assert decision.reason is Reason.CREATED_GRACE
    assert decision.due_at == NOW + MINUTE
    assert judge_one(created, by, now=NOW + MINUTE).reap


def test_times_in_the_future_keep() -> None:
    early = replace(RUNNING, created_at=NOW + MINUTE, started_at=NOW + MINUTE)
    policy = Policy("any-age", frozenset({Kind.CONTAINER}), older_than=timedelta(0))
    assert judged([early], rules(policy))["c1"].reason is Reason.TOO_YOUNG


# Times that cannot be

FIELDS = ("created_at", "started_at", "stopped_at", "last_activity_at")
IMPOSSIBLE = (
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(1970, 1, 1, 0, 0, 9, tzinfo=UTC),
    datetime(2012, 12, 31, tzinfo=UTC),
    NOW + 25 * HOUR,
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
)


@pytest.mark.parametrize("time", IMPOSSIBLE)
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("one", [RUNNING, STOPPED, SANDBOX, NETWORK])
def test_a_time_that_cannot_be_keeps_it_and_costs_nothing_else(one: Resource, field: str, time: datetime) -> None:
    odd = replace(one, id="odd", labels={**(one.labels or {}), "reaper.ttl": "100d"}, **{field: time})  # type: ignore[arg-type]
    by = rules(OLD_24H, STOPPED_1H, EVERYTHING)
    for lease in ((), (Lease("l", "me", frozenset({"odd"}), ending=Ending(NOW, "killed")),)):
        found = judged([odd, replace(STOPPED, id="other")], by, lease)
        assert found["odd"].reason is Reason.UNREADABLE
        assert "a clock was wrong" in found["odd"].sentence
        assert found["other"].reap
        assert [finding.sentence for finding in explain(odd, [odd], by, lease, NOW)]  # each rule can be told


def test_a_time_that_cannot_be_does_not_hinder_the_question_who_may_be_linked() -> None:
    kept = replace(SANDBOX, id="odd", created_at=IMPOSSIBLE[-1], links_known=False)
    going = replace(SANDBOX, id="going")
    decisions = judged([kept, going], rules(EVERYTHING))
    assert [one.id for one in may_be_linked(decisions.values())] == ["odd"]


def test_what_such_a_time_keeps_is_named() -> None:
    odd = replace(RUNNING, started_at=IMPOSSIBLE[1])
    assert inventory_warnings([judge_one(odd, rules(OLD_24H))], 0, NOW) == [
        "1 resource could not be read, and is kept: client"
    ]


def test_what_is_dated_in_the_future_is_named() -> None:
    ahead = replace(RUNNING, created_at=NOW + 2 * HOUR, started_at=None)
    (text,) = inventory_warnings([judge_one(ahead, rules(OLD_24H)), judge_one(RUNNING, rules(OLD_24H))], 0, NOW)
    assert text == "1 resource is dated in the future (a clock was wrong), and is kept until its age is known: client"


@pytest.mark.parametrize("time", IMPOSSIBLE)
def test_odd_times_of_a_lease_cost_nothing_else(time: datetime) -> None:
    lease = Lease("l", "me", claims=(Claim(projects=("p",)),), since=time, ending=Ending(time, "killed"))
    for skew in (timedelta(0), timedelta(days=36500), -timedelta(days=36500)):
        assert judge_one(STOPPED, rules(STOPPED_1H), (lease.on_clock(skew),)).reap


@pytest.mark.parametrize(
    ("jumps", "age"),
    [
        ([], 25),
        ([(1, 20)], 5),  # so many hours ago it was seen that so many had passed
        ([(1, 20), (2, 1)], 4),
        ([(24.5, 20)], 25),  # it was created since
        ([(26, 20)], 25),
        ([(2, 90), (1, -90)], 25),  # set by mistake, and set right
        ([(1, -90)], 25),
    ],
)
@pytest.mark.parametrize("skew", [timedelta(0), HOUR / 2, -HOUR / 2])
def test_time_in_which_its_host_slept_makes_nothing_older(
    jumps: list[tuple[float, float]], age: float, skew: timedelta
) -> None:
    created = ago(hours=25) + skew
    seen = tuple(Jump(ago(hours=hours), by * HOUR) for hours, by in sorted(jumps, reverse=True))
    leases = Leases((), Site("local", skew, skew, skew, seen))
    trial = replace(RUNNING, created_at=created, started_at=created)
    for older_than, goes in ((age + 0.1, False), (age - 0.1, True)):
        policy = Policy("old", frozenset({Kind.CONTAINER}), older_than=older_than * HOUR)
        (decision,) = decide([trial], rules(policy), leases, NOW + skew)
        assert decision.reap is goes
        assert decision.resource is trial
