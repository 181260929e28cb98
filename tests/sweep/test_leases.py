"""Sweeps among runs that are alive, dead, and unknown."""

from dataclasses import replace
from datetime import timedelta

import pytest

from reaper.core.lease import Claim, Ending, Lease
from reaper.core.model import Outcome, Resource
from reaper.core.rules import Rules
from reaper.core.scope import Selector
from reaper.providers.memory import Rule
from tests.sweep.lab import FOREIGN, HOUR, MINUTE, NOW, Lab, counts, many, network, running, stopped

pytestmark = pytest.mark.anyio
RUN = Lease("7f3a", "pid 4711 on gpu-1", since=NOW - HOUR, ending=Ending(NOW, "killed"))


async def test_what_a_dead_run_left_goes_whatever_no_policy_says() -> None:
    mine = [running(f"m{n}", hours=0, image=FOREIGN, labels={"reaper.lease": "7f3a"}) for n in range(3)]
    lab = Lab(*mine, running("neighbour", hours=0, image=FOREIGN), rules=Rules())
    lab.leases = [RUN]
    assert counts(await lab.sweep()) == {Outcome.DELETED: 3}
    assert lab.left() == {"neighbour"}


async def test_its_network_goes_with_it_and_one_that_others_use_stays() -> None:
    label = {"reaper.lease": "7f3a"}
    net, used = (replace(network(name, ""), group=None, labels=label, created_at=NOW) for name in ("net", "used"))
    mine = running("mine", hours=0, image=FOREIGN, labels=label, uses=frozenset({net.id, used.id}))
    other = running("other", hours=0, image=FOREIGN, uses=frozenset({used.id}))
    lab = Lab(mine, other, net, used, rules=Rules())
    lab.leases = [RUN]
    await lab.sweep()
    assert lab.left() == {"other", "used"}


async def test_nothing_goes_while_what_is_leased_is_unknown() -> None:
    lab, other = Lab(*many(3)), Lab(*many(2), name="other")
    lab.leases_unknown = True
    report = await lab.sweep(other)
    assert {endpoint.failure and endpoint.failure.label for endpoint in report.endpoints} == {"leases_unknown"}
    assert "it is cut off" in str(report.endpoints[0].failure)
    assert len(lab.left() | other.left()) == 3 == len(lab.left())
    assert lab.world.removals == other.world.removals == []


async def test_what_has_not_gone_by_then_stays_when_the_leases_cannot_be_read_any_more() -> None:
    lab = Lab(stopped("a"))

    def lose() -> None:
        lab.leases_unknown = True

    lab.world.rules.append(Rule("inspect", "a", calls={2}, after=lose))
    report = await lab.sweep()
    (result,) = report.endpoints[0].results
    assert (result.outcome, result.error) == (Outcome.FAILED, "leases_unknown")
    assert "it is cut off" in result.detail
    assert lab.left() == {"a"}
    assert lab.world.removals == []


async def test_leases_have_a_cap_of_their_own() -> None:
    lab = Lab(*many(5), *[running(f"m{n}", hours=0, labels={"reaper.lease": "7f3a"}) for n in range(4)])
    lab.leases = [RUN]
    report = await lab.sweep(max_deletions=5, max_lease_deletions=3)
    cap = report.endpoints[0].cap
    assert cap is not None
    assert (cap.wanted, cap.allowed, cap.limit, cap.of_leases) == (4, 3, "max_lease_deletions = 3", True)
    assert counts(report) == {Outcome.DELETED: 5, Outcome.ABANDONED: 4}
    report = await lab.sweep(max_deletions=0, max_lease_deletions=4)
    assert counts(report) == {Outcome.DELETED: 4}


async def test_the_cap_of_the_policies_is_no_matter_of_leases() -> None:
    lab = Lab(*many(5), *[running(f"m{n}", hours=0, labels={"reaper.lease": "7f3a"}) for n in range(4)])
    lab.leases = [RUN]
    report = await lab.sweep(max_deletions=4, max_lease_deletions=4)
    cap = report.endpoints[0].cap
    assert cap is not None
    assert (cap.wanted, cap.limit, cap.of_leases) == (5, "max_deletions = 4", False)
    assert counts(report) == {Outcome.DELETED: 4, Outcome.ABANDONED: 5}


async def test_a_project_of_which_a_cap_keeps_a_part_is_kept() -> None:
    mine = replace(running("mine", hours=0, labels={"reaper.lease": "7f3a"}), group="p")
    lab = Lab(mine, stopped("old", group="p"), *many(3))
    lab.leases = [RUN]
    report = await lab.sweep(max_deletions=3, max_lease_deletions=10)
    assert counts(report) == {Outcome.ABANDONED: 5}
    assert lab.world.removals == []


@pytest.mark.parametrize("skew", [timedelta(0), HOUR, -HOUR])
async def test_whether_it_was_made_under_a_lease_is_reported_by_the_endpoint_s_clock(skew: timedelta) -> None:
    def made(name: str, ago: timedelta) -> Resource:
        at = NOW + skew - ago
        return replace(running(name, hours=0, image=FOREIGN), created_at=at, started_at=at)

    lab = Lab(made("before", 2 * HOUR), made("under", 30 * MINUTE), rules=Rules(), skew=skew)
    lab.leases = [replace(RUN, since=NOW - HOUR, claims=(Claim(Selector(images=(FOREIGN,))),))]
    await lab.sweep()
    assert lab.left() == {"before"}
