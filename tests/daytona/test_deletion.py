"""Deleted means confirmed: what became of a deletion that was accepted, refused, lost or never finished."""

import asyncio

import anyio
import pytest

from reaper.core.model import Report
from reaper.retry.retrier import RetryPolicy
from reaper.simulator.daytona.rules import Behaviour
from reaper.sweep.runner import exit_code
from tests.daytona.lab import DAY, FRESH, HOUR, SECOND, Lab, everything, outcomes, reasons, result, warnings

pytestmark = pytest.mark.anyio


async def test_accepted_deletions_are_deleted_when_a_look_by_id_finds_nothing() -> None:
    async with Lab(behaviour=Behaviour(destroy=(1, 16))) as lab:
        names = lab.leftovers(20)
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert lab.left() == set()
        for call in lab.asked("DELETE"):
            assert [look.status for look in lab.asked("GET", call.path)][-1] == 404
        assert 1 < report.seconds < 45
        assert exit_code(report) == 0


async def test_a_deletion_that_never_ends_has_failed_and_is_left_alone_afterwards() -> None:
    async with Lab() as lab:
        row = lab.add("stuck", runner_dead=True)
        names = lab.leftovers(3)
        report = await lab.sweep(table={"confirm_within": "45s"})
        assert outcomes(report) == {"stuck": "failed", **dict.fromkeys(names, "deleted")}
        assert result(report, "stuck").detail == "the endpoint accepted its deletion, but it is still destroying"
        assert result(report, "stuck").error == "unconfirmed"
        assert exit_code(report) == 3
        assert 45 <= report.seconds < 60
        before = len(lab.asked("DELETE"))

        again = await lab.sweep(everything())
        assert list(reasons(again).values()) == ["changing"]
        assert warnings(again) == ""
        lab.clock.advance(2 * HOUR)
        again = await lab.sweep(everything())
        assert exit_code(again) == 0
        assert "1 sandbox stuck, which the platform's API cannot delete: DESTROYED_stuck_" in warnings(again)
        assert "(destroying for 2 h)" in warnings(again)
        assert len(lab.asked("DELETE")) == before
        assert row.id in lab.org.rows


async def test_a_deletion_whose_destruction_fails_has_failed_although_the_server_hides_it_by_then() -> None:
    async with Lab() as lab:
        lab.add("kept-by-its-host", destroy_fails=True)
        names = lab.leftovers(30)
        report = await lab.sweep(table={"confirm_within": "45s"})
        assert outcomes(report) == {"kept-by-its-host": "failed", **dict.fromkeys(names, "deleted")}
        said = result(report, "kept-by-its-host")
        hidden = "the platform failed to destroy it, and hides it since then"
        assert said.detail == f"the endpoint accepted its deletion, but {hidden}"
        assert said.error == "unconfirmed"
        assert exit_code(report) == 3
        assert lab.left() == set()
        assert report.seconds < 60
        assert list((await lab.sweep(everything())).endpoints[0].decisions) == []


@pytest.mark.parametrize(("state", "outcome"), [("started", "failed"), ("error", "deleted")])
async def test_so_has_one_to_whose_deletion_no_answer_came(state: str, outcome: str) -> None:
    """One that was in an error is hidden at once, and none is destroyed then."""
    async with Lab() as lab:
        lab.add("lost", state=state, destroy_fails=True)
        lab.sim.faults.add("reset,after,method=DELETE,times=1")
        report = await lab.sweep(table={"confirm_within": "45s"})
        assert outcomes(report) == {"lost": outcome}


async def test_so_has_an_ephemeral_one_that_is_stopped_since_its_deletion_is_denied() -> None:
    async with Lab() as lab:
        lab.add("ephemeral", destroy_fails=True)
        lab.add("other")
        report = await lab.sweep(
            key=lab.sim.daytona.add_key(lab.first, ("write:sandboxes",)), table={"confirm_within": "45s"}
        )
        assert outcomes(report) == {"ephemeral": "failed", "other": "deleted"}


async def test_a_404_by_which_the_server_means_its_own_failure_confirms_no_deletion() -> None:
    async with Lab() as lab:
        row = lab.add("stuck", runner_dead=True)
        names = lab.leftovers(30)
        lab.on(
            "DELETE", row.id, lambda: lab.sim.faults.add(f"status:404,method=GET,path=/sandbox/{row.id},message=not found")
        )
        report = await lab.sweep(table={"confirm_within": "45s"})
        assert outcomes(report) == {"stuck": "failed", **dict.fromkeys(names, "deleted")}
        assert exit_code(report) == 3


@pytest.mark.parametrize("count", [40, 300])
async def test_few_listings_confirm_many_deletions(count: int) -> None:
    async with Lab(behaviour=Behaviour(destroy=(1, 16))) as lab:
        names = lab.leftovers(count)
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert len(lab.asked("GET", "/sandbox/paginated?page=1&limit=200&name=DESTROYED_")) <= 20


async def test_an_inconsistent_row_fails_and_hinders_no_other() -> None:
    async with Lab() as lab:
        row = lab.add("inconsistent", inconsistent=True)
        names = lab.leftovers(30)
        report = await lab.sweep()
        assert outcomes(report) == {"inconsistent": "failed", **dict.fromkeys(names, "deleted")}
        assert "500: An unexpected error occurred." in result(report, "inconsistent").detail
        assert exit_code(report) == 3
        assert lab.left() == {"inconsistent"}
        assert len(lab.asked("DELETE", row.id)) <= 8


async def test_a_deletion_whose_answer_was_lost_takes_no_other_one_that_is_called_so_by_now() -> None:
    """The server takes an id that it does not find for a name, and one that is made again is called as the first one was."""
    async with Lab(
        behaviour=Behaviour(pickup=(0, 0), destroy=(0, 0), get_cache=0, list_lag=0),
        retry=RetryPolicy(initial_delay=SECOND / 10, jitter=0 * SECOND),
    ) as lab:
        row = lab.add("", age=3 * DAY)
        lab.on("DELETE", row.id, lambda: lab.add(row.id, age=0 * DAY))
        lab.sim.faults.add("reset,after,method=DELETE,times=1")
        report = await lab.sweep()
        assert outcomes(report) == {row.id: "deleted"}
        assert lab.left() == {row.id}


@pytest.mark.parametrize(
    ("state", "passing"),
    [("stopped", "starting"), ("archived", "restoring"), ("paused", "resuming"), ("started", "resizing")],
)
async def test_what_another_client_changes_after_a_deletion_was_lost_is_not_taken_for_that(state: str, passing: str) -> None:
    """It is in transition, as what is being destroyed, and when that ends DELETE would take it."""
    async with Lab(behaviour=FRESH) as lab:
        row = lab.add("used", state=state, auto_delete=-1, age=9 * DAY)

        def begin() -> None:
            lab.org.change(row, state=passing, desired="started")
            lab.on("GET", row.id, lambda: lab.org.change(row, state="started", desired="started"))

        lab.on("DELETE", row.id, begin)
        lab.sim.faults.add("reset,method=DELETE,times=1")
        report = await lab.sweep(everything())
        assert lab.left() == {"used"}
        assert outcomes(report) == {"used": "skipped"}
        assert f"was {state} and is {passing} now" in result(report, "used").detail


async def test_what_another_client_deletes_at_the_same_moment_is_gone() -> None:
    async with Lab() as lab:
        row = lab.add("contested")
        lab.on("GET", row.id, lambda: lab.org.delete(row, row.version))
        report = await lab.sweep()
        assert [call.status for call in lab.asked("DELETE")] == [409]
        assert outcomes(report) == {"contested": "gone"}
        assert exit_code(report) == 0


async def test_what_another_client_deletes_and_never_ends_has_failed() -> None:
    async with Lab() as lab:
        row = lab.add("contested", runner_dead=True)
        lab.on("GET", row.id, lambda: lab.org.delete(row, row.version))
        report = await lab.sweep()
        assert outcomes(report) == {"contested": "failed"}
        assert result(report, "contested").error == "in_progress"
        assert exit_code(report) == 3


async def test_two_reapers_delete_everything_once_and_neither_fails() -> None:
    async with Lab() as lab:
        names = lab.leftovers(60)
        reports: list[Report] = []

        async def reaper() -> None:
            reports.append(await lab.sweep())

        async with anyio.create_task_group() as group:
            group.start_soon(reaper)
            group.start_soon(reaper)
        assert lab.left() == set()
        assert [exit_code(report) for report in reports] == [0, 0]
        for report in reports:
            assert set(outcomes(report).values()) <= {"deleted", "gone", "skipped"}
        deleted = [n for report in reports for n, outcome in outcomes(report).items() if outcome == "deleted"]
        assert sorted(deleted) == sorted(names)
        assert sum(call.status == 200 for call in lab.asked("DELETE")) == 60


async def test_maintenance_in_the_middle_fails_what_it_meets_and_says_so() -> None:
    async with Lab() as lab:
        names = lab.leftovers(40)
        lab.on("DELETE", "", lambda: setattr(lab.sim.daytona, "maintenance", True))
        report = await lab.sweep()
        assert outcomes(report).keys() == names
        assert "deleted" not in outcomes(report).values()
        assert exit_code(report) == 3
        assert any("under maintenance" in each.detail for each in report.results)
        assert len(lab.traffic.calls) < 400


@pytest.mark.parametrize("state", ["started", "archived", "error"])
@pytest.mark.parametrize("fault", ["reset,after", "truncate", "hang,after", "status:502,after", "garbage,after"])
async def test_our_own_deletion_whose_answer_was_lost_is_ours(fault: str, state: str) -> None:
    async with Lab(behaviour=FRESH) as lab:
        lab.add("lost", state=state)
        lab.sim.faults.add(f"{fault},method=DELETE,times=1")
        report = await lab.sweep(everything())
        assert outcomes(report) == {"lost": "deleted"}
        assert lab.left() == set()


async def test_a_deletion_that_was_refused_and_is_then_found_gone_is_another_client_s() -> None:
    async with Lab(behaviour=FRESH) as lab:
        row = lab.add("theirs", state="archived")
        lab.sim.faults.add("status:429,method=DELETE,times=1,header=Retry-After-sandbox-lifecycle:5")
        lab.on("DELETE", "", lambda: lab.org.delete(row, row.version))
        report = await lab.sweep(everything())
        assert outcomes(report) == {"theirs": "gone"}


async def test_one_that_is_being_deleted_since_a_moment_ago_is_not_called_stuck() -> None:
    async with Lab(behaviour=FRESH) as lab:
        lab.add("slow", runner_dead=True, idle=43 * HOUR)
        await lab.sweep(table={"confirm_within": "10s"})
        again = await lab.sweep()
        assert reasons(again) == {next(iter(lab.left())): "changing"}
        assert "stuck" not in warnings(again)


async def test_a_short_outage_costs_seconds_and_calls_nothing_failed_that_is_gone() -> None:
    async with Lab() as lab:
        names = lab.leftovers(60)

        def outage() -> None:
            lab.sim.daytona.maintenance = True
            asyncio.get_running_loop().call_later(6, end)

        def end() -> None:
            lab.sim.daytona.maintenance = False

        lab.on("DELETE", "", outage)
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert report.seconds < 60
        assert lab.left() == set()


async def test_what_could_not_be_inspected_is_not_called_failed_before_it_is_inspected() -> None:
    async with Lab() as lab:
        names = lab.leftovers(5)
        deleted = 0

        def outage() -> None:
            nonlocal deleted
            deleted += 1
            if deleted == 5:
                lab.sim.faults.add("status:503,method=GET")
                asyncio.get_running_loop().call_later(14, lab.sim.faults.clear)

        lab.on("DELETE", "", outage, times=5)
        report = await lab.sweep(table={"confirm_within": "10s"})
        assert outcomes(report) == dict.fromkeys(names, "deleted")
