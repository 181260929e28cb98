"""Caps, concurrency, clocks, and whose turn it is."""

import math
from dataclasses import replace
from datetime import timedelta

import pytest

from reaper.core.lease import Ending, Lease
from reaper.core.model import Outcome, Reason
from reaper.core.rules import Rules
from reaper.providers.base import Limits
from reaper.providers.memory import Held, Rule
from tests.sweep.lab import HOUR, MINUTE, NOW, OLD, SECOND, STOPPED, Lab, counts, many, network, outcomes, running, stopped

pytestmark = pytest.mark.anyio

# -- caps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "limit", "allowed"),
    [
        ({"max_deletions": 9}, "max_deletions = 9", 9),
        ({"max_deletions": 0}, "max_deletions = 0", 0),
        ({"max_fraction": 0.49}, "max_fraction = 0.49 of 20", 9),
        ({"max_deletions": 9, "max_fraction": 0.1}, "max_fraction = 0.1 of 20", 2),
        ({"max_deletions": 2, "max_fraction": 0.49}, "max_deletions = 2", 2),
    ],
)
async def test_more_than_the_cap_deletes_nothing(options: dict[str, float], limit: str, allowed: int) -> None:
    lab = Lab(*many(10), *[running(f"r{i}", hours=1) for i in range(10)])
    report = await lab.sweep(**options)
    cap = report.endpoints[0].cap
    assert cap is not None
    assert (cap.wanted, cap.allowed, cap.held, cap.limit) == (10, allowed, 20, limit)
    assert counts(report) == {Outcome.ABANDONED: 10}
    assert {call.method for call in lab.world.calls} == {"list", "inspect"}
    assert len(lab.left()) == 20


async def test_the_network_of_what_a_lease_has_left_counts_for_leases() -> None:
    """Else a policy that takes too much would keep a run from cleaning up."""
    things = (stopped("a", group="p"), stopped("b", group="p"), network("net", "p"), stopped("other"))
    for most_of_leases, outcome in ((3, "deleted"), (2, "abandoned")):
        lab = Lab(*things)
        lab.abandon("a", "b")
        found = await lab.outcomes(max_deletions=0, max_lease_deletions=most_of_leases)
        assert found == {"other": "abandoned", **dict.fromkeys(("a", "b", "net"), outcome)}
    lab = Lab(*things)
    lab.abandon("a")
    found = await lab.outcomes(max_deletions=0)
    assert set(found.values()) == {"abandoned"}, "one of the project goes by a policy"


async def test_what_a_cap_holds_back_keeps_what_it_uses_and_the_project_of_that() -> None:
    """All of that is of an ended lease, which another cap is for."""
    user = replace(stopped("user"), uses=frozenset({"id-host"}))
    lab = Lab(user, stopped("host", group="p"), stopped("mate", group="p"), stopped("alone"))
    lab.abandon("host", "mate", "alone")
    assert await lab.outcomes(max_deletions=0) == {
        "user": "abandoned",
        "host": "abandoned",
        "mate": "abandoned",
        "alone": "deleted",
    }


@pytest.mark.parametrize("options", [{}, {"max_deletions": 10}, {"max_fraction": 0.5}, {"max_fraction": 1.0}])
async def test_up_to_the_cap_all_goes(options: dict[str, float]) -> None:
    lab = Lab(*many(10), *[running(f"r{i}", hours=1) for i in range(10)])
    report = await lab.sweep(**options)
    assert report.endpoints[0].cap is None
    assert counts(report) == {Outcome.DELETED: 10}


async def test_networks_count() -> None:
    lab = Lab(stopped("a", group="p"), network("net", "p"))
    report = await lab.sweep(max_deletions=1)
    assert report.endpoints[0].cap is not None


async def test_the_cap_of_one_endpoint_is_no_matter_of_another() -> None:
    full, other = Lab(*many(10), name="full"), Lab(*many(2), name="other")
    report = await full.sweep(other, max_deletions=5)
    assert [endpoint.cap is not None for endpoint in report.endpoints] == [True, False]
    assert len(full.left()) == 10
    assert not other.left()


async def test_a_dry_run_tells_of_the_cap() -> None:
    lab = Lab(*many(10))
    report = await lab.sweep(act=False, max_deletions=5)
    assert report.endpoints[0].cap is not None
    assert counts(report) == {Outcome.WOULD_DELETE: 10}


async def test_what_was_gone_by_the_inspection_does_not_count() -> None:
    lab = Lab(*many(6))
    lab.world.rules.append(Rule("inspect", "c0003", calls={1}, before=lambda: lab.world.remove("c0003")))
    assert counts(await lab.sweep(max_deletions=5)) == {Outcome.DELETED: 5}


# -- concurrency -------------------------------------------------------------------------------------------------------


async def test_no_more_calls_under_way_than_allowed() -> None:
    lab = Lab(
        *many(300),
        *[Held(running(f"r{i}"), stop_seconds=5) for i in range(40)],
        limits=Limits(reads=16, removals=8, stops=30),
    )
    report = await lab.sweep()
    assert counts(report) == {Outcome.DELETED: 340}
    assert 16 <= lab.world.most["inspect"] <= 16 + 10, "ten had to wait for their stop, each of which looks once more"
    assert lab.world.most["delete"] == 8
    assert lab.world.most["stop"] == 30
    assert lab.world.most["list"] == 1


async def test_all_are_stopped_at_once_and_removed_a_few_at_a_time() -> None:
    lab = Lab(*[Held(running(f"r{i}"), stop_seconds=math.inf) for i in range(120)])
    report = await lab.sweep()
    assert counts(report) == {Outcome.DELETED: 120}
    assert lab.world.most["stop"] == 120
    assert lab.world.most["delete"] <= 8
    assert report.seconds < 12  # one grace for all of them, not one for each


async def test_the_members_of_a_project_are_stopped_at_once() -> None:
    lab = Lab(*[Held(running(f"r{i}", group="p"), stop_seconds=6) for i in range(10)])
    assert (await lab.sweep()).seconds == pytest.approx(6, abs=0.5)


async def test_what_is_to_be_stopped_does_not_hold_up_what_is_not() -> None:
    lab = Lab(*[Held(running(f"r{i}"), stop_seconds=9) for i in range(20)], *many(100))
    done = []
    lab.world.rules.append(Rule("delete", "c0099", after=lambda: done.append(lab.world.now() - NOW)))
    await lab.sweep()
    assert done[0] < 2 * SECOND


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [HOUR, -HOUR, 61 * SECOND, -61 * SECOND])
async def test_ages_are_corrected_for_a_clock_that_is_off(skew: timedelta) -> None:
    """The engine's own times are on its own clock: by that clock one is just due, and the other is not yet."""
    due, young = NOW + skew - HOUR - 5 * SECOND, NOW + skew - HOUR + 50 * SECOND
    lab = Lab(
        stopped("due", created_at=due - HOUR, started_at=due - HOUR, stopped_at=due),
        stopped("young", created_at=young - HOUR, started_at=young - HOUR, stopped_at=young),
        skew=skew,
    )
    report = await lab.sweep()
    assert outcomes(report) == {"due": "deleted"}
    (endpoint,) = report.endpoints
    assert endpoint.clock_skew == skew
    assert len(endpoint.warnings) == 1
    assert "clock differs" in endpoint.warnings[0]


@pytest.mark.parametrize("skew", [HOUR + SECOND, -HOUR - SECOND, timedelta(days=9000), timedelta(days=-9000)])
@pytest.mark.parametrize("everything", [False, True])
async def test_nothing_is_judged_by_age_where_the_clocks_differ_by_more_than_an_hour(
    skew: timedelta, everything: bool
) -> None:
    """The header may be that of a proxy whose clock was never set: what it corrects would be wrong by as much."""
    young = running("young", hours=0, labels={"reaper.ttl": "30m"})
    lab = Lab(stopped("old", hours=9), young, running("left", hours=0, labels={"reaper.lease": "7f3a"}), skew=skew)
    lab.leases = [Lease("7f3a", "pid 1", since=NOW - HOUR, ending=Ending(NOW, "killed"))]
    report = await lab.sweep(inspect_everything=everything)
    assert outcomes(report) == {}
    assert lab.left() == {"old", "young", "left"}
    (endpoint,) = report.endpoints
    assert endpoint.failure is not None
    assert endpoint.failure.label == "clock"
    assert "no age can be told there" in endpoint.failure.message
    assert {decision.reason for decision in endpoint.decisions} == {Reason.UNREADABLE}


@pytest.mark.parametrize("skew", [MINUTE, -MINUTE, timedelta(0)])
async def test_a_clock_within_a_minute_is_taken_for_right(skew: timedelta) -> None:
    lab = Lab(stopped("due", hours=1 + 1 / 3600), stopped("young", hours=1 - 1 / 3600), skew=skew)
    report = await lab.sweep()
    assert outcomes(report) == {"due": "deleted"}
    assert report.endpoints[0].clock_skew == timedelta(0)
    assert not report.endpoints[0].warnings


# -- due policies ------------------------------------------------------------------------------------------------------


async def test_only_the_units_of_due_policies_go() -> None:
    lab = Lab(stopped("old"), running("long"), running("client", group="p"), stopped("side", group="p"))
    assert await lab.outcomes(due=frozenset({"old"})) == {"long": "deleted", "client": "deleted", "side": "deleted"}
    assert await lab.outcomes(due=frozenset({"stopped"})) == {"old": "deleted"}


async def test_a_second_look_judges_by_all_policies() -> None:
    """A stopped one that is older than a day: not the due policy is the first that matches it."""
    lab = Lab(stopped("both", hours=30))
    assert await lab.outcomes(due=frozenset({"old"})) == {"both": "deleted"}


async def test_nothing_is_due() -> None:
    lab = Lab(stopped("old"), running("long"))
    assert await lab.outcomes(due=frozenset()) == {}
    assert not lab.world.removals


async def test_the_stop_time_out_of_the_policy_is_the_grace() -> None:
    rules = Rules(policies=(STOPPED, replace(OLD, stop_timeout=90 * SECOND)))
    lab = Lab(Held(running("deaf"), stop_seconds=math.inf), rules=rules)
    report = await lab.sweep()
    assert outcomes(report) == {"deaf": "deleted"}
    assert report.seconds == pytest.approx(90, abs=0.2)
    assert len(lab.world.made("stop")) == 1


async def test_a_slow_endpoint_is_not_asked_again_about_what_waits_for_its_deletion() -> None:
    """More units under way than end in the time for which a look is good would each be looked at once more."""
    count = 400
    lab = Lab(*(Held(one, removal_seconds=0.4) for one in many(count)), limits=Limits(reads=16, removals=8))
    assert counts(await lab.sweep(max_deletions=None)) == {Outcome.DELETED: count}
    assert len(lab.world.made("inspect")) < 2.4 * count
