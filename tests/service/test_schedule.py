"""When policies are due, and that a job does no more than say so."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.config.policies import PolicyTable
from reaper.core import durations
from reaper.service.scheduler import Schedule, Timing

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def policy(name: str = "p", **timing: Any) -> PolicyTable:
    return PolicyTable.model_validate({"name": name, "kinds": ["container"], "older_than": "1d", **timing})


@pytest.mark.parametrize(
    ("timing", "text"),
    [
        ({"every": "90s"}, "every 1m30s"),
        ({}, "every 10m"),
        ({"cron": "15 * * * *"}, "cron 15 * * * * (UTC)"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Berlin"}, "cron 0 3 * * * (Europe/Berlin)"),
        ({"under_pressure": True}, "under disk pressure"),
        ({"under_pressure": True, "every": "1h"}, "every 1h and under disk pressure"),
    ],
)
def test_a_timing_says_when(timing: dict[str, Any], text: str) -> None:
    assert str(Timing.of(policy(**timing))) == text


def test_what_runs_only_under_pressure_has_no_interval_to_be_late_by() -> None:
    assert Timing.of(policy(under_pressure=True)).interval(NOON) is None
    assert Timing.of(policy(under_pressure=True, every="1h")).interval(NOON) == 3600 * SECOND


def test_a_zone_has_its_own_midnight() -> None:
    trigger = Timing.of(policy(cron="0 0 * * *", timezone="Asia/Tokyo")).trigger(timedelta(0))
    assert trigger.get_next_fire_time(None, NOON) == datetime(2026, 11, 21, 15, 0, tzinfo=UTC)


def test_jitter_makes_a_run_late_by_a_part_of_it_and_never_early() -> None:
    trigger = Timing.of(policy(cron="15 * * * *")).trigger(5 * SECOND)
    late = [trigger.get_next_fire_time(None, NOON) - (NOON + timedelta(minutes=15)) for _ in range(200)]
    assert all(timedelta(0) <= each <= 5 * SECOND for each in late)
    assert max(late) - min(late) > SECOND


def test_a_short_interval_has_a_short_jitter() -> None:
    trigger = Timing.of(policy(every="2s")).trigger(5 * SECOND)
    late = [trigger.get_next_fire_time(NOON, NOON) - NOON for _ in range(200)]
    assert all(2 * SECOND <= each <= 2.2 * SECOND for each in late)


@pytest.mark.parametrize(
    ("timing", "longest"),
    [
        ({}, "10m"),
        ({"every": "90s"}, "1m30s"),
        ({"cron": "* * * * *"}, "1m"),
        ({"cron": "15 * * * *"}, "1h"),
        ({"cron": "0,20 * * * *"}, "40m"),
        ({"cron": "*/5 8-17 * * *"}, "14h5m"),
        ({"cron": "*/5 8-17 * * mon-fri"}, "2d14h5m"),
        ({"cron": "0 3 * * *"}, "1d"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Berlin"}, "1d1h"),  # in the night in which the clocks are put back
        ({"cron": "15 * * * *", "timezone": "Europe/Berlin"}, "1h"),
        ({"cron": "0 0 * * sun"}, "7d"),
        ({"cron": "30 1 1 * *"}, "31d"),
        ({"cron": "0 0 31 * *"}, "61d"),
        ({"cron": "0 0 1 1 *"}, "366d"),
        ({"cron": "0 0 29 2 *"}, f"{4 * 365 + 1}d"),
    ],
)
def test_the_interval_is_the_longest_time_between_two_runs(timing: dict[str, str], longest: str) -> None:
    assert Timing.of(policy(**timing)).interval(NOON) == durations.parse(longest)


def test_what_never_runs_has_no_interval() -> None:
    assert Timing.of(policy(cron="0 0 30 2 *")).interval(NOON) is None


@given(
    st.sets(st.integers(0, 59), min_size=1, max_size=4),
    st.sets(st.integers(0, 23), min_size=1, max_size=3),
    st.sets(st.integers(0, 6), min_size=1, max_size=3),
)
def test_the_interval_is_what_walking_from_run_to_run_finds(minutes: set[int], hours: set[int], days: set[int]) -> None:
    fields = (",".join(map(str, sorted(field))) for field in (minutes, hours, days))
    timing = Timing.of(policy(cron="{} {} * * {}".format(*fields)))
    trigger, runs = timing.trigger(timedelta(0)), [NOON]
    while runs[-1] < NOON + timedelta(days=15):
        runs.append(trigger.get_next_fire_time(runs[-1], runs[-1]))
    assert timing.interval(NOON) == max(later - earlier for earlier, later in pairwise(runs[1:]))


async def _running(*tables: PolicyTable) -> tuple[Schedule, asyncio.Queue[str]]:
    posted: asyncio.Queue[str] = asyncio.Queue()
    schedule = Schedule(posted.put_nowait, lambda: None, timedelta(0))
    schedule.start(tables)
    return schedule, posted


def test_what_is_due_is_posted() -> None:
    async def main() -> None:
        schedule, posted = await _running(policy("often", every="1s"), policy("seldom", every="1h"))
        try:
            assert [await posted.get(), await posted.get()] == ["often", "often"]
        finally:
            schedule.stop()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_reload_keeps_the_next_run_of_what_is_unchanged() -> None:
    async def main() -> None:
        schedule, _ = await _running(policy("same", every="1h"), policy("other", every="1h"), policy("gone", every="1h"))
        same, other = schedule.next_at("same"), schedule.next_at("other")
        assert same is not None
        assert other is not None
        schedule.apply([policy("same", every="1h"), policy("other", every="2h"), policy("new", every="3h")], timedelta(0))
        later = schedule.next_at("other")
        assert later is not None
        assert schedule.next_at("same") == same
        assert later > other + timedelta(minutes=59)
        assert schedule.next_at("new") is not None
        assert schedule.next_at("gone") is None
        schedule.stop()
        assert schedule.next_at("same") is None

    asyncio.run(main())


def test_one_that_begins_anew_plans_by_the_clock_of_now() -> None:
    async def main() -> None:
        schedule, _ = await _running(policy("p", every="1h"))
        first = schedule.next_at("p")
        schedule.restart([policy("p", every="1h")])
        second = schedule.next_at("p")
        schedule.stop()
        assert first is not None
        assert second is not None
        assert timedelta(0) <= second - first < timedelta(minutes=1)

    asyncio.run(main())
