"""What was reapable stays so while nothing else happens than that time passes, or that something stops."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.conditions import Policy, age_base, stop_base
from reaper.model import Kind, Reason, Resource, State
from tests.core.make import EVERYTHING, HOUR, MINUTE, NOW, OLD_24H, RUNNING, STOPPED, ago, judge_one, judged, rules
from tests.core.oracle import Key, key
from tests.core.strategies import PROPERTY, SPANS, World, worlds

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
        (replace(STOPPED, stopped_at=ago(days=9), started_at=ago(hours=1)), ago(hours=1)),
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
