"""A sweep that is cut short: what began is finished, the rest is abandoned, and the report is true."""

from datetime import timedelta

import anyio
import pytest

from reaper.core.model import Outcome
from reaper.errors import DeniedError, ServerError
from reaper.providers.base import Limits
from reaper.providers.memory import Held, Rule
from reaper.retry.retrier import RetryPolicy
from reaper.sweep.endpoint_sweep import LAST_LOOK
from reaper.sweep.sweep import DRAIN
from tests.sweep.lab import Lab, counts, later, many, network, outcomes, running, stopped

pytestmark = pytest.mark.anyio

SLOW = Limits(removals=2)
LONGEST_DRAIN = (DRAIN + LAST_LOOK).total_seconds()


def slow(count: int, seconds: float = 1) -> list[Held]:
    return [Held(resource, removal_seconds=seconds) for resource in many(count)]


async def stop_after(lab: Lab, seconds: float, drain: timedelta = DRAIN) -> None:
    await later(seconds, lambda: lab.stop.request("SIGTERM", drain))


async def test_what_began_is_finished_and_the_rest_is_abandoned() -> None:
    lab = Lab(*slow(20), limits=SLOW)
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, lab, 2.5)
        report = await lab.sweep()
    assert report.interrupted == "SIGTERM"
    assert counts(report) == {Outcome.DELETED: 6, Outcome.ABANDONED: 14}
    assert len(lab.left()) == 14
    assert len(lab.world.made("delete")) == 6  # nothing new began
    assert report.seconds < 4
    assert report.endpoints[0].failure is None


async def test_a_drain_that_is_exceeded_is_cut() -> None:
    lab = Lab(*slow(2, seconds=1), *[Held(stopped(f"z{i}"), removal_seconds=25) for i in range(2)])
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, lab, 3)
        report = await lab.sweep()
    assert outcomes(report) == {"c0000": "deleted", "c0001": "deleted", "z0": "abandoned", "z1": "abandoned"}
    assert report.seconds == pytest.approx(13, abs=0.1)


async def test_a_project_that_began_is_finished() -> None:
    lab = Lab(
        Held(running("client", group="p"), stop_seconds=3),
        stopped("side", group="p"),
        network("net", "p"),
        *slow(9),
        limits=SLOW,
    )
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, lab, 0.5)
        report = await lab.sweep()
    done = outcomes(report)
    assert (done["client"], done["side"], done["net"]) == ("deleted", "deleted", "deleted")
    assert counts(report)[Outcome.ABANDONED] == 7


async def test_no_drain_at_all() -> None:
    lab = Lab(*slow(20), limits=SLOW)
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, lab, 2.5, timedelta(0))
        report = await lab.sweep()
    assert counts(report) == {Outcome.DELETED: 4, Outcome.ABANDONED: 16}
    assert report.seconds < 2.6


@pytest.mark.parametrize("method", ["list", "inspect"])
async def test_a_stop_while_it_is_looked_at_ends_at_once(method: str) -> None:
    lab = Lab(stopped("old"))
    lab.world.rules.append(Rule(method, hang=True))
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, lab, 5)
        report = await lab.sweep()
    assert report.seconds == pytest.approx(5)
    assert report.interrupted == "SIGTERM"
    assert not report.results
    assert report.endpoints[0].failure is not None
    assert report.endpoints[0].failure.label == "interrupted"


async def test_a_stop_before_it_began() -> None:
    lab = Lab(*many(3))
    lab.stop.request("SIGINT")
    report = await lab.sweep()
    assert report.interrupted == "SIGINT"
    assert len(lab.left()) == 3
    assert report.seconds < 0.1


async def test_only_the_first_request_counts() -> None:
    lab = Lab(*slow(20), limits=SLOW)
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, lab, 1.5)
        group.start_soon(later, 2, lambda: lab.stop.request("again", timedelta(0)))
        report = await lab.sweep()
    assert report.interrupted == "SIGTERM"
    assert counts(report)[Outcome.DELETED] == 4


async def test_a_stop_when_all_is_done_is_only_told() -> None:
    lab = Lab(stopped("old"))
    report = await lab.sweep()
    lab.stop.request("SIGTERM")
    assert report.interrupted is None


async def test_a_stop_ends_the_backing_off() -> None:
    lab = Lab(stopped("old"), stopped("bad"))
    lab.world.rules.append(Rule("delete", "bad", error=ServerError("500", retry_after=300)))
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, lab, 1)
        report = await lab.sweep()
    assert outcomes(report)["old"] == "deleted"
    assert outcomes(report)["bad"] in ("abandoned", "failed")
    assert report.seconds <= 1 + LONGEST_DRAIN


async def test_a_stop_allows_no_second_round() -> None:
    lab = Lab(*many(30), *slow(5, seconds=4), limits=SLOW)
    lab.world.rules.append(Rule("delete", error=ServerError("500")))
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, lab, 1)
        report = await lab.sweep()
    assert report.seconds <= 1 + LONGEST_DRAIN
    assert not lab.world.removals


async def test_a_stop_in_the_second_round_begins_nothing_new() -> None:
    lab = Lab(*many(19), limits=SLOW, retry=RetryPolicy(attempts=1))
    lab.world.rules += [
        Rule("delete", calls=range(1, 20), error=ServerError("500")),
        Rule("delete", calls={24}, before=lambda: lab.stop.request("SIGTERM")),
        Rule("delete", calls=range(20, 99), seconds=3),
    ]
    report = await lab.sweep()
    assert len(lab.world.made("delete")) <= 25
    assert counts(report)[Outcome.DELETED] >= 5
    assert counts(report)[Outcome.ABANDONED] >= 13


async def test_what_was_deleted_is_confirmed_by_a_last_look_within_its_time() -> None:
    lab = Lab(*slow(20), limits=SLOW)
    lab.world.rules.append(Rule("list", calls={2}, hang=True))
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, lab, 2.5, timedelta(0))
        report = await lab.sweep()
    assert counts(report) == {Outcome.FAILED: 4, Outcome.ABANDONED: 16}
    assert report.seconds == pytest.approx(2.5 + LAST_LOOK.total_seconds(), abs=0.1)


@pytest.mark.parametrize("when", [0.5, 5])
async def test_a_stop_while_the_last_listing_hangs_ends_it_in_time(when: float) -> None:
    """Whether the stop came before the last listing began or while it was under way."""
    lab = Lab(stopped("old"), Held(stopped("slow"), removal_seconds=2))
    lab.world.rules.append(Rule("list", calls=range(2, 99), hang=True))
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, lab, when)
        report = await lab.sweep()
    assert report.seconds <= when + LONGEST_DRAIN + 0.1
    assert counts(report) == {Outcome.FAILED: 2}


async def test_those_who_wait_are_abandoned_without_being_looked_at() -> None:
    """A thousand inspections would keep those that began from ending in time."""
    lab = Lab(*slow(200, seconds=5), limits=Limits(reads=1, removals=1), latency=1)
    async with anyio.create_task_group() as group:
        group.start_soon(stop_after, lab, 216)  # all have been inspected once, some twice
        report = await lab.sweep()
    began = len(lab.world.made("delete"))
    assert counts(report)[Outcome.DELETED] >= 1
    assert len(lab.world.made("inspect")) < 220
    assert counts(report)[Outcome.ABANDONED] == 200 - began


# -- fail fast ---------------------------------------------------------------------------------------------------------


async def test_fail_fast_abandons_the_rest() -> None:
    lab = Lab(stopped("a"), *slow(20), limits=SLOW)
    lab.world.rules.append(Rule("inspect", "a", calls=range(2, 9), seconds=0.1, error=DeniedError("403")))
    report = await lab.sweep(fail_fast=True)
    assert outcomes(report)["a"] == "failed"
    assert counts(report) == {Outcome.FAILED: 1, Outcome.DELETED: 2, Outcome.ABANDONED: 18}
    assert report.interrupted is None


async def test_without_it_the_others_go_on() -> None:
    lab = Lab(stopped("a"), *slow(20), limits=SLOW)
    lab.world.rules.append(Rule("delete", "a", error=DeniedError("403")))
    assert counts(await lab.sweep()) == {Outcome.FAILED: 1, Outcome.DELETED: 20}


async def test_fail_fast_holds_for_other_endpoints_too() -> None:
    lab = Lab(stopped("a"), name="one")
    lab.world.rules.append(Rule("delete", error=DeniedError("403")))
    other = Lab(*slow(10), name="two", limits=SLOW)
    report = await lab.sweep(other, fail_fast=True)
    assert counts(report) == {Outcome.FAILED: 1, Outcome.DELETED: 2, Outcome.ABANDONED: 8}


async def test_fail_fast_when_an_endpoint_cannot_be_listed() -> None:
    lab = Lab(stopped("a"), name="one")
    lab.world.rules.append(Rule("list", error=DeniedError("403")))
    other = Lab(*slow(20), name="two", limits=SLOW, latency=1)
    report = await lab.sweep(other, fail_fast=True)
    assert counts(report) == {Outcome.ABANDONED: 20}
    assert not other.world.removals


async def test_fail_fast_when_one_cannot_be_inspected() -> None:
    lab = Lab(*many(5), stopped("bad"))
    lab.world.rules.append(Rule("inspect", "bad", error=DeniedError("403")))
    report = await lab.sweep(fail_fast=True)
    assert outcomes(report)["bad"] == "failed"
    assert counts(report) == {Outcome.FAILED: 1, Outcome.ABANDONED: 5}


async def test_fail_fast_does_not_wait_for_those_who_wait() -> None:
    lab = Lab(*slow(500), limits=Limits(reads=4, removals=2), latency=0.5)
    lab.world.rules.append(Rule("inspect", calls={510}, error=DeniedError("403")))
    report = await lab.sweep(fail_fast=True)
    assert counts(report)[Outcome.FAILED] == 1
    assert len(lab.world.made("inspect")) <= 500 + 10 + 4
