"""The organisation's rate limits: no 429 of our making, others' share left, and silence after one that others made."""

from datetime import timedelta

import pytest

from reaper.retry.retrier import RetryPolicy
from reaper.simulator.control import Call
from reaper.simulator.daytona.app import GENERAL, LIFECYCLE, LISTING
from reaper.simulator.daytona.limits import Limit
from reaper.sweep.runner import exit_code
from tests.daytona.lab import Lab, outcomes

pytestmark = pytest.mark.anyio

WINDOW = 10.0
ONCE = RetryPolicy(attempts=1, jitter=timedelta(0))


def in_windows(calls: list[Call], seconds: float = WINDOW) -> list[int]:
    """How many calls fell into each window of the server: one begins with the first call after the last has ended."""
    counts: list[int] = []
    ends = -1.0
    for call in calls:
        if call.at >= ends:
            ends = call.at + seconds
            counts.append(0)
        counts[-1] += 1
    return counts


def use_up(lab: Lab, group: str) -> None:
    """Another client of the organisation makes as many requests as it may, and one more."""
    throttler = lab.sim.daytona._homes[lab.first].throttlers[group]
    while throttler.hit() is None:
        pass


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
async def test_no_request_is_refused_and_others_keep_their_share(share: float) -> None:
    async with Lab() as lab:
        lab.sim.daytona.set_limits(lab.first, general=Limit(60, WINDOW), lifecycle=Limit(20, WINDOW))
        names = lab.leftovers(30)
        report = await lab.sweep(table={"max_rate_share": share, "confirm_within": "10m"})
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert lab.traffic.count(status=429) == 0
        assert max(in_windows(lab.asked("DELETE"))) <= 20 * share
        assert max(in_windows(lab.asked("GET"))) <= 60 * share
        assert lab.left() == set()


async def test_a_limit_of_one_request_is_kept() -> None:
    async with Lab() as lab:
        lab.sim.daytona.set_limits(lab.first, lifecycle=Limit(1, WINDOW))
        names = lab.leftovers(4)
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert in_windows(lab.asked("DELETE")) == [1, 1, 1, 1]
        assert lab.traffic.count(status=429) == 0


async def test_a_429_that_others_made_silences_every_deletion_for_the_whole_window_and_costs_no_attempt() -> None:
    async with Lab(retry=ONCE) as lab:
        lab.sim.daytona.set_limits(lab.first, lifecycle=Limit(40, WINDOW))
        names = lab.leftovers(60)
        lab.on("DELETE", "", lambda: use_up(lab, LIFECYCLE), times=1)
        report = await lab.sweep(table={"max_rate_share": 1.0})
        refused = [call for call in lab.asked("DELETE") if call.status == 429]
        assert 1 <= len(refused) <= 8
        assert refused[-1].at - refused[0].at < 0.1
        after = [call.at for call in lab.asked("DELETE") if call.at > refused[-1].at]
        assert min(after) >= refused[0].at + WINDOW
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert exit_code(report) == 0
        assert all(event.cooldown for _, event in lab.observer.retries)
        assert lab.left() == set()


async def test_a_429_while_looking_silences_every_look() -> None:
    async with Lab(retry=ONCE) as lab:
        lab.sim.daytona.set_limits(lab.first, general=Limit(100, WINDOW))
        names = lab.leftovers(30)
        lab.observer.on_decided = lambda: use_up(lab, GENERAL)
        report = await lab.sweep(table={"confirm_within": "5m"})
        refused = [call for call in lab.asked("GET") if call.status == 429]
        assert 1 <= len(refused) <= 8
        after = [call.at for call in lab.asked("GET") if call.at > refused[-1].at]
        assert min(after) >= refused[0].at + WINDOW
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert exit_code(report) == 0


async def test_a_plain_429_silences_everything() -> None:
    """It is of the address, not of one limit."""
    async with Lab(retry=ONCE) as lab:
        names = lab.leftovers(20)
        lab.sim.faults.add("status:429,method=DELETE,times=1,header=Retry-After:30")
        report = await lab.sweep(table={"confirm_within": "5m"})
        refused = next(call for call in lab.traffic.calls if call.status == 429)
        after = [call.at for call in lab.traffic.calls if call.at > refused.at + 0.1]
        assert min(after) >= refused.at + 30
        assert outcomes(report) == dict.fromkeys(names, "deleted")


async def test_the_listing_itself_waits_for_its_budget() -> None:
    async with Lab() as lab:
        lab.sim.daytona.set_limits(lab.first, general=Limit(4, WINDOW))
        lab.leftovers(50)
        report = await lab.sweep(table={"page_size": 5}, act=False)
        assert len(report.results) == 50
        assert lab.traffic.count(status=429) == 0
        assert max(in_windows(lab.asked("GET"))) <= 2


async def test_a_429_on_listings_that_others_made_silences_looking_for_its_window_alone() -> None:
    async with Lab(retry=ONCE) as lab:
        lab.sim.daytona.set_limits(lab.first, listing=Limit(20, WINDOW))
        names = lab.leftovers(30)
        lab.observer.on_decided = lambda: use_up(lab, LISTING)
        report = await lab.sweep(table={"confirm_within": "5m"})
        refused = [call for call in lab.asked("GET") if call.status == 429]
        assert len(refused) == 1
        after = [call.at for call in lab.asked("GET") if call.at > refused[-1].at]
        assert WINDOW <= min(after) - refused[0].at < WINDOW + 1
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert exit_code(report) == 0


async def test_grouped_deletions_under_a_used_up_window_are_no_time_outs() -> None:
    async with Lab(retry=RetryPolicy(jitter=timedelta(0), request_timeout=timedelta(seconds=10))) as lab:
        lab.sim.daytona.set_limits(lab.first, general=Limit(60, 60), lifecycle=Limit(20, 60))
        for i in range(60):
            lab.add(f"trial-{i:02}", labels={"harbor.managed": "true", "harbor.session_id": f"session-{i // 2}"})
        report = await lab.sweep(table={"confirm_within": "30m"})
        assert set(outcomes(report).values()) == {"deleted"}
        assert [event.error.label for _, event in lab.observer.retries] == []
        assert lab.left() == set()
