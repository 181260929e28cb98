"""Keys that are wrong, expire or may not delete; and organisations that hinder no other."""

import socket

import pytest

from reaper.providers.daytona.settings import DaytonaTable
from reaper.retry.retrier import RetryPolicy
from reaper.simulator.daytona.limits import Limit
from reaper.simulator.daytona.rules import Behaviour
from reaper.sweep.runner import exit_code
from tests.daytona.lab import HOUR, SECOND, Lab, everything, outcomes, result

pytestmark = pytest.mark.anyio

WRONG = "dtn_0000000000000000000000000000000000000000000000000000000000000000"


async def test_where_deleting_is_denied_started_ones_are_stopped_and_the_reason_is_reported() -> None:
    async with Lab() as lab:
        lab.add("started", auto_delete=-1)
        lab.add("ephemeral", auto_delete=0)
        lab.add("stopped", state="stopped", auto_delete=-1)
        lab.add("paused", state="paused", auto_delete=-1)
        lab.add("failed", state="error")
        report = await lab.sweep(key=lab.sim.daytona.add_key(lab.first, {"write:sandboxes"}))
        assert outcomes(report) == {
            "started": "stopped",
            "ephemeral": "deleted",
            "stopped": "failed",
            "paused": "failed",
            "failed": "failed",
        }
        detail = result(report, "started").detail
        assert detail.startswith("its deletion was denied (Access denied [DELETE /sandbox/")
        assert detail.endswith(": 403]); it is stopped now")
        assert "stopping it destroyed it" in result(report, "ephemeral").detail
        assert result(report, "stopped").detail.startswith("Access denied [DELETE /sandbox/")
        assert {each.error for each in report.results if each.outcome != "deleted"} == {"denied"}
        assert exit_code(report) == 3
        assert lab.left() == {"started", "stopped", "paused", "failed"}
        assert len(lab.asked("POST")) == 2
        assert len(lab.asked("DELETE")) == 5


async def test_where_deleting_is_denied_an_ephemeral_one_is_not_stopped_while_a_fork_of_it_lives() -> None:
    async with Lab() as lab:
        parent = lab.add("parent", auto_delete=0)
        lab.add("lives", auto_delete=0, age=HOUR, parent=parent.id)
        key = lab.sim.daytona.add_key(lab.first, {"write:sandboxes"})
        report = await lab.sweep(key=key)
        assert outcomes(report) == {"parent": "failed"}
        assert "of its forks" in result(report, "parent").detail
        assert lab.left() == {"parent", "lives"}
        assert not lab.asked("POST")


async def test_where_deleting_is_denied_an_ephemeral_one_with_more_forks_than_are_listed_is_not_stopped() -> None:
    """The server lists a hundred, in no order: those that could not be destroyed, for example."""
    async with Lab() as lab:
        parent = lab.add("parent", auto_delete=0)
        for number in range(100):
            lab.add(f"failed-{number}", state="error", desired="destroyed", parent=parent.id)
        lab.add("lives", auto_delete=0, age=HOUR, parent=parent.id)
        report = await lab.sweep(key=lab.sim.daytona.add_key(lab.first, {"write:sandboxes"}))
        assert outcomes(report) == {"parent": "failed"}
        assert "more forks than the server lists" in result(report, "parent").detail
        assert not lab.asked("POST")


async def test_where_deleting_is_denied_a_stop_whose_answer_was_lost_destroys_no_other_one_that_is_called_so_by_now() -> (
    None
):
    """The stop has destroyed an ephemeral one, and one that is made again is called as the first one was."""
    at_once = Behaviour(pickup=(0, 0), destroy=(0, 0), get_cache=0, list_lag=0)
    async with Lab(behaviour=at_once, retry=RetryPolicy(initial_delay=SECOND / 10, jitter=0 * SECOND)) as lab:
        row = lab.add("", auto_delete=0)
        lab.on("POST", row.id, lambda: lab.add(row.id, age=0 * HOUR, auto_delete=0))
        lab.sim.faults.add("reset,after,method=POST,times=1")
        report = await lab.sweep(key=lab.sim.daytona.add_key(lab.first, {"write:sandboxes"}))
        assert outcomes(report) == {row.id: "deleted"}
        assert lab.left() == {row.id}


@pytest.mark.parametrize(
    ("message", "outcome"),
    [("Cannot GET /api/sandbox/x/forks", "deleted"), ("Sandbox with ID or name x not found", "failed")],
)
async def test_a_server_that_knows_no_forks_has_none_and_one_that_fails_may_have_some(message: str, outcome: str) -> None:
    async with Lab() as lab:
        lab.add("ephemeral", auto_delete=0)
        lab.sim.daytona.faults.add(f"status:404,path=/forks,message={message}")
        report = await lab.sweep(key=lab.sim.daytona.add_key(lab.first, {"write:sandboxes"}))
        assert outcomes(report) == {"ephemeral": outcome}
        assert {call.status for call in lab.asked("GET", "/forks")} == {404}


async def test_a_key_that_may_only_read_changes_nothing_and_says_so() -> None:
    async with Lab() as lab:
        names = lab.leftovers(5)
        report = await lab.sweep(key=lab.sim.daytona.add_key(lab.first, ()))
        assert outcomes(report) == dict.fromkeys(names, "failed")
        assert {each.error for each in report.results} == {"denied"}
        assert lab.left() == names


async def test_a_server_that_cannot_tell_for_the_moment_whose_the_key_is_has_denied_nothing() -> None:
    """Its guard makes a 403 of every error of its own database and cache."""
    async with Lab() as lab:
        names = lab.leftovers(5)
        for method in ("GET", "DELETE"):
            lab.sim.faults.add(f"status:403,method={method},message=Invalid authentication context,times=2")
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert not lab.asked("POST")
        assert lab.traffic.count(status=403) == 4
        assert exit_code(report) == 0


async def test_a_server_that_never_knows_whose_the_key_is_ends_the_sweep() -> None:
    async with Lab() as lab:
        names = lab.leftovers(3)
        lab.sim.faults.add("status:403,message=Invalid authentication context")
        report = await lab.sweep()
        failure = report.endpoints[0].failure
        assert failure is not None
        assert "Invalid authentication context [GET /sandbox: 403]" in failure.message
        assert exit_code(report) == 5
        assert lab.left() == names


async def test_a_wrong_key_is_asked_with_once() -> None:
    async with Lab() as lab:
        names = lab.leftovers(30)
        report = await lab.sweep(key=WRONG)
        failure = report.endpoints[0].failure
        assert failure is not None
        assert failure.label == "credentials"
        assert "refuses the API key (Invalid credentials)" in failure.message
        assert WRONG not in failure.message
        assert [call.status for call in lab.traffic.calls] == [401]
        assert exit_code(report) == 5
        assert lab.left() == names


async def test_a_key_that_expires_in_mid_sweep_is_used_once_more_by_each_call_under_way() -> None:
    async with Lab() as lab:
        lab.leftovers(100)
        key = lab.sim.api_key(lab.first)
        lab.on("DELETE", "", lambda: setattr(lab.sim.daytona.keys[key], "expires", lab.clock.now()), times=1)
        report = await lab.sweep()
        refused = [call for call in lab.traffic.calls if call.status == 401]
        assert 1 <= len(refused) <= 8
        assert refused[-1].at - refused[0].at < 0.1
        assert lab.traffic.count(status=429) == 0
        failure = report.endpoints[0].failure
        assert failure is not None
        assert failure.label == "credentials"
        assert exit_code(report) == 5
        assert report.seconds < 1


async def test_a_key_that_expires_while_deletions_are_confirmed_leaves_them_unconfirmed() -> None:
    async with Lab() as lab:
        names = lab.leftovers(6)
        key = lab.sim.api_key(lab.first)
        lab.on("DELETE", "", lambda: None, times=5)
        seen = 0

        def last() -> None:
            nonlocal seen
            seen += 1
            if seen == 6:
                lab.sim.daytona.keys[key].expires = lab.clock.now()

        lab.on("DELETE", "", last, times=6)
        report = await lab.sweep()
        assert outcomes(report).keys() == names
        assert "deleted" not in outcomes(report).values()
        assert lab.traffic.count(status=429) == 0
        assert exit_code(report) == 5


async def test_an_address_that_is_blocked_for_wrong_keys_is_waited_for_with_a_good_one() -> None:
    async with Lab(wrong_keys=Limit(1, 20)) as lab:
        names = lab.leftovers(3)
        await lab.sweep(key=WRONG)
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert [call.status for call in lab.traffic.calls].count(429) == 1
        assert report.seconds > 20


async def test_an_organisation_is_swept_whole_whatever_befalls_three_others() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/api"
        async with Lab("well", "down", "wrong", "denied") as lab:
            for org in ("well", "wrong", "denied"):
                lab.leftovers(40, org)
            tables = [
                (lab.table("down", api_url=closed), lab.sim.api_key("down")),
                (lab.table("wrong"), WRONG),
                (lab.table("denied"), lab.sim.daytona.add_key("denied", ())),
                (lab.table("well"), lab.sim.api_key("well")),
            ]
            report = await lab.sweep(tables=tables)
            by_name = {endpoint.endpoint: endpoint for endpoint in report.endpoints}
            assert {r.outcome.value for r in by_name["well"].results} == {"deleted"}
            assert lab.left("well") == set()
            labels = {name: endpoint.failure and endpoint.failure.label for name, endpoint in by_name.items()}
            assert labels == {"down": "unavailable", "wrong": "credentials", "denied": None, "well": None}
            assert {r.outcome.value for r in by_name["denied"].results} == {"failed"}
            assert len(lab.left("denied")) == len(lab.left("wrong")) == 40
            down = by_name["down"].failure
            assert down is not None
            assert closed in down.message
            assert exit_code(report) == 5


async def test_two_organisations_of_one_server_are_not_confused() -> None:
    async with Lab("rl-org", "eval-org") as lab:
        lab.add("same-name", org="rl-org")
        lab.add("same-name", org="eval-org", labels={"team": "web"})
        tables: list[tuple[DaytonaTable, str]] = [(lab.table(o), lab.sim.api_key(o)) for o in ("rl-org", "eval-org")]
        report = await lab.sweep(everything(), tables=tables)
        assert [len(endpoint.results) for endpoint in report.endpoints] == [1, 0]
        assert lab.left("rl-org") == set()
        assert lab.left("eval-org") == {"same-name"}


async def test_fail_fast_ends_all_organisations_at_the_first_refusal() -> None:
    async with Lab("rl-org", "eval-org") as lab:
        lab.leftovers(200, "eval-org")
        tables = [(lab.table("rl-org"), WRONG), (lab.table("eval-org"), lab.sim.api_key("eval-org"))]
        report = await lab.sweep(tables=tables, fail_fast=True)
        assert exit_code(report) == 5
        assert lab.asked("DELETE") == []
        assert {r.outcome.value for r in report.results} == {"abandoned"}
