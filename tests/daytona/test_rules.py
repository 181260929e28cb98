"""What may go and what stays, whatever the policies say: the rules of safety for sandboxes."""

from datetime import timedelta
from typing import Any

import pytest

from reaper.core.decide import young_and_running
from reaper.core.lease import Lease
from reaper.retry.retrier import RetryPolicy
from reaper.simulator.world import ABSENT
from reaper.sweep.runner import exit_code
from tests.daytona.lab import DAY, HARBOR, HOUR, MINUTE, NOW, Lab, everything, outcomes, reasons, rules, warnings

pytestmark = pytest.mark.anyio

# Fields of an old, forgotten sandbox of Harbor's, and the reason that keeps it under the configured policies and --all.
ALWAYS_KEPT: dict[str, tuple[dict[str, Any], str]] = {
    "no-labels": ({"labels": {}}, "not_owned"),
    "other-labels": ({"labels": {"team": "web", "harbor.managed": "false"}}, "not_owned"),
    "null-labels": ({"labels": None}, "unreadable"),
    "absent-labels": ({"extra": {"labels": ABSENT}}, "unreadable"),
    "labels-of-numbers": ({"extra": {"labels": {"harbor.managed": True}}}, "unreadable"),
    "no-creation": ({"extra": {"createdAt": ABSENT}}, "unreadable"),
    "null-creation": ({"extra": {"createdAt": None}}, "unreadable"),
    "odd-creation": ({"extra": {"createdAt": "yesterday"}}, "unreadable"),
    "creation-without-zone": ({"extra": {"createdAt": "2026-11-01T00:00:00"}}, "unreadable"),
    "odd-activity": ({"extra": {"lastActivityAt": 17}}, "unreadable"),
    "unknown-state": ({"extra": {"state": "unknown"}}, "unknown_state"),
    "new-state": ({"extra": {"state": "hibernating", "desiredState": "hibernating"}}, "unknown_state"),
    "no-state": ({"extra": {"state": ABSENT}}, "unknown_state"),
    "keep": ({"labels": {**HARBOR, "reaper.keep": ""}}, "protected"),
    "override-unreadable": ({"labels": {**HARBOR, "reaper.ttl": "soon"}}, "invalid_label"),
    "expiry-unreadable": ({"labels": {**HARBOR, "reaper.expires": "2026-11-20T00:00:00"}}, "invalid_label"),
    "young-foreign-lease": ({"labels": {**HARBOR, "reaper.lease": "l-2"}, "age": 23 * HOUR}, "lease_unknown"),
    "leased": ({"labels": {**HARBOR, "reaper.lease": "l-1"}}, "leased"),
    "warm": ({"warm_pool": "pool-1", "extra": {"warmPoolId": "pool-1"}}, "system_container"),
    "creating": ({"state": "creating", "stuck": True}, "changing"),
    "starting": ({"state": "starting", "stuck": True}, "changing"),
    "stopping": ({"state": "stopping", "stuck": True}, "changing"),
    "destroying": ({"state": "destroying", "stuck": True}, "changing"),
    "resizing": ({"state": "resizing", "stuck": True}, "changing"),
    "to-be-destroyed": ({"desired": "destroyed", "stuck": True}, "changing"),
    "to-be-started": ({"state": "stopped", "desired": "started", "stuck": True}, "changing"),
}
KEPT_ALIVE: dict[str, Any] = {
    "labels": {**HARBOR, "harbor.instance_id": "i-1"},
    "age": 2 * HOUR,
    "idle": 31 * MINUTE,
    "extra": {"autoStopInterval": 15},
}
"""As Harbor 0.26 makes them, on a server that has not stopped it yet."""
# Kept by the configured policies, but not by --all.
KEPT_BY_POLICIES: dict[str, tuple[dict[str, Any], str]] = {
    "young": ({"age": 23 * HOUR}, "too_young"),
    "young-but-idle": ({"age": 8 * HOUR, "idle": 7 * HOUR}, "too_young"),
    "old-but-used": ({"age": 9 * DAY, "idle": HOUR}, "too_young"),
    "just-stopped": ({"state": "stopped", "age": 20 * HOUR, "idle": HOUR}, "too_young"),
    "just-failed": ({"state": "error", "age": 5 * HOUR, "idle": 5 * HOUR}, "too_young"),
    "archived": ({"state": "archived", "age": 30 * DAY}, "no_policy"),
    "kept-alive": ({**KEPT_ALIVE, "idle": 29 * MINUTE}, "too_young"),
    "no-delete": ({**KEPT_ALIVE, "extra": {"autoStopInterval": 0}}, "too_young"),
    "no-auto-stop": ({**KEPT_ALIVE, "extra": {"autoStopInterval": ABSENT}}, "too_young"),
    "odd-auto-stop": ({**KEPT_ALIVE, "extra": {"autoStopInterval": "soon"}}, "too_young"),
    "negative-auto-stop": ({**KEPT_ALIVE, "extra": {"autoStopInterval": -1}}, "too_young"),
    "longer-auto-stop": ({**KEPT_ALIVE, "extra": {"autoStopInterval": 60}}, "too_young"),
    "no-activity-known": ({**KEPT_ALIVE, "extra": {"autoStopInterval": 15, "lastActivityAt": None}}, "too_young"),
    "no-keepalive": ({**KEPT_ALIVE, "labels": HARBOR}, "too_young"),
    "ttl": ({"labels": {**HARBOR, "reaper.ttl": "3d"}}, "label_not_due"),
    "expires": ({"labels": {**HARBOR, "reaper.expires": "2026-11-22T00:00:00Z"}}, "label_not_due"),
}
REAPED: dict[str, tuple[dict[str, Any], str]] = {
    "runner-gone": (KEPT_ALIVE, "idle_for"),
    "forgotten": ({}, "older_than"),
    "no-activity": ({"no_activity": True, "updated": NOW - DAY}, "older_than"),
    "stopped": ({"state": "stopped", "age": 20 * HOUR, "idle": 7 * HOUR}, "stopped_for"),
    "paused": ({"state": "paused", "age": 20 * HOUR, "idle": 7 * HOUR}, "stopped_for"),
    "failed": ({"state": "error", "age": 20 * HOUR, "idle": 7 * HOUR}, "stopped_for"),
    "build-failed": ({"state": "build_failed", "age": 20 * HOUR, "idle": 7 * HOUR}, "stopped_for"),
    "odd-fields": ({"extra": {"quantum": {"qubits": 8}, "cpu": "many", "runnerId": None}}, "older_than"),
    "odd-toolbox": ({"labels": {**HARBOR, "code-toolbox-language": "cobol"}}, "older_than"),
    "ttl-over": ({"age": 3 * HOUR, "labels": {**HARBOR, "reaper.ttl": "2h"}}, "ttl_ended"),
    "expired": ({"age": HOUR, "labels": {**HARBOR, "reaper.expires": "2026-11-21T11:59:00Z"}}, "expired"),
    "old-foreign-lease": ({"labels": {**HARBOR, "reaper.lease": "l-2"}}, "older_than"),
}


def fill(lab: Lab, *tables: dict[str, tuple[dict[str, Any], str]]) -> dict[str, str]:
    """Put these there; the reasons that are expected, by name."""
    lab.leases.append(Lease("l-1", "harbor run", frozenset()))
    for table in tables:
        for name, (fields, _) in table.items():
            lab.add(name, **fields)
    return {name: reason for table in tables for name, (_, reason) in table.items()}


async def test_each_sandbox_is_kept_or_reaped_for_the_reason_that_the_rules_give() -> None:
    async with Lab() as lab:
        expected = fill(lab, ALWAYS_KEPT, KEPT_BY_POLICIES, REAPED)
        # The list hides an unclaimed member of a warm pool; a server that shows it must not change anything.
        lab.org.rows[next(row.id for row in lab.org.rows.values() if row.name == "warm")].warm_pool = None
        report = await lab.sweep()
        assert reasons(report) == expected
        assert outcomes(report) == dict.fromkeys(REAPED, "deleted")
        assert lab.left() >= ALWAYS_KEPT.keys() | KEPT_BY_POLICIES.keys()
        assert not lab.left() & REAPED.keys()


async def test_all_takes_what_the_policies_left_and_nothing_that_the_rules_keep() -> None:
    async with Lab() as lab:
        expected = fill(lab, ALWAYS_KEPT, KEPT_BY_POLICIES, REAPED)
        lab.org.rows[next(row.id for row in lab.org.rows.values() if row.name == "warm")].warm_pool = None
        report = await lab.sweep(everything())
        assert outcomes(report) == dict.fromkeys(KEPT_BY_POLICIES | REAPED, "deleted")
        assert {name: why for name, why in reasons(report).items() if name in ALWAYS_KEPT} == {
            name: why for name, why in expected.items() if name in ALWAYS_KEPT
        }
        assert lab.left() >= ALWAYS_KEPT.keys()


async def test_a_dry_run_asks_for_nothing_but_lists() -> None:
    async with Lab() as lab:
        expected = fill(lab, ALWAYS_KEPT, KEPT_BY_POLICIES, REAPED)
        before = lab.left()
        report = await lab.sweep(act=False)
        assert outcomes(report) == dict.fromkeys(REAPED, "would_delete")
        assert {call.method for call in lab.traffic.calls} == {"GET"}
        assert lab.left() == before
        assert len(reasons(report)) >= len(expected) - 1


async def test_a_member_of_a_warm_pool_is_kept_when_only_its_inspection_says_so() -> None:
    async with Lab() as lab:
        row = lab.add("claimed-back")
        lab.observer.on_decided = lambda: lab.org.change(row, extra={"warmPoolId": "pool-1"})
        report = await lab.sweep()
        assert outcomes(report) == {"claimed-back": "skipped"}
        assert lab.left() == {"claimed-back"}


async def test_what_cannot_be_read_is_reported() -> None:
    async with Lab() as lab:
        fill(lab, {name: ALWAYS_KEPT[name] for name in ("null-labels", "no-creation", "unknown-state", "new-state")})
        report = await lab.sweep()
        told = warnings(report)
        assert "2 resources could not be read, and are kept: " in told
        assert "null-labels" in told
        assert "no-creation" in told
        assert "2 resources in a state not known here (hibernating, unknown), which are kept: " in told


async def test_rows_without_an_id_are_counted_and_spoil_nothing() -> None:
    async with Lab() as lab:
        lab.add("nameless", extra={"id": ABSENT})
        lab.add("sly", extra={"id": "../../snapshots/1"})
        names = lab.leftovers(3)
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert "2 resources could not be read, and are kept" in warnings(report)
        assert lab.left() == {"nameless", "sly"}


async def test_one_in_an_error_that_is_being_recovered_stays() -> None:
    """Its runner is at work on it, and its state and its activity do not show that; the order to do so is a write."""
    async with Lab() as lab:
        now = lab.clock.now()
        lab.add("recovering", state="error", desired="started", recoverable=True, age=3 * DAY, updated=now - 10 * MINUTE)
        lab.add("left", state="error", desired="started", recoverable=True, age=3 * DAY)
        report = await lab.sweep()
        assert outcomes(report) == {"left": "deleted"}
        assert lab.left() == {"recovering"}


async def test_what_has_been_changing_for_over_an_hour_is_called_stuck() -> None:
    async with Lab() as lab:
        lab.add("stuck", state="stopping", stuck=True, age=3 * DAY, idle=26 * HOUR)
        lab.add("on-its-way", state="stopping", stuck=True, age=3 * DAY, idle=59 * MINUTE)
        report = await lab.sweep()
        assert reasons(report) == {"stuck": "changing", "on-its-way": "changing"}
        assert list(report.endpoints[0].warnings) == [
            "1 sandbox stuck, which the platform's API cannot delete: stuck (stopping for 26 h)"
        ]


@pytest.mark.parametrize("state", ["archiving", "pending_build"])
async def test_of_what_is_stuck_that_can_be_deleted_all_the_same_is_said_that_it_can(state: str) -> None:
    """The server refuses a deletion in every other transition: see the table of facts."""
    async with Lab() as lab:
        lab.add("stuck", state=state, stuck=True, age=3 * DAY, idle=26 * HOUR)
        report = await lab.sweep()
        assert list(report.endpoints[0].warnings) == [
            f"1 sandbox stuck, which is kept, and the platform's API can delete: stuck ({state} for 26 h)"
        ]


async def test_of_what_is_stuck_in_its_deletion_is_not_said_that_it_can_be_deleted() -> None:
    async with Lab() as lab:
        lab.add("stuck", state="archiving", desired="destroyed", stuck=True, age=3 * DAY, idle=26 * HOUR)
        report = await lab.sweep()
        assert list(report.endpoints[0].warnings) == [
            "1 sandbox stuck, which the platform's API cannot delete: stuck (archiving, to be destroyed for 26 h)"
        ]


async def test_young_running_ones_are_what_the_hint_counts() -> None:
    async with Lab() as lab:
        lab.add("trial-1", age=HOUR)
        lab.add("trial-2", age=20 * HOUR, idle=10 * HOUR)
        lab.add("stopped", state="stopped", age=HOUR)
        lab.add("foreign", labels={}, age=HOUR)
        report = await lab.sweep()
        young = young_and_running(report.endpoints[0].decisions)
        assert {decision.resource.name for decision in young} == {"trial-1", "trial-2"}
        assert report.results == ()


async def test_an_archived_sandbox_goes_when_a_policy_names_archived() -> None:
    async with Lab() as lab:
        lab.add("archived", state="archived", age=30 * DAY)
        policy = {"name": "attic", "kinds": ["sandbox"], "states": ["archived"], "older_than": "7d"}
        report = await lab.sweep(rules(policy=[policy]))
        assert outcomes(report) == {"archived": "deleted"}
        assert lab.left() == set()


async def test_only_the_target_that_is_named_is_swept() -> None:
    async with Lab() as lab:
        lab.add("here", target="us")
        lab.add("there", target="eu")
        report = await lab.sweep(everything(), table={"target": "us"})
        assert outcomes(report) == {"here": "deleted"}
        assert report.endpoints[0].held == 1
        assert lab.left() == {"there"}


async def test_a_target_is_named_as_people_name_the_region_whose_id_the_sandboxes_show() -> None:
    """A region of an organisation's own runners is made as "lab", and its id is "lab_x7Yq": the server takes either."""
    async with Lab() as lab:
        lab.org.regions["lab_x7Yq"] = "lab"
        lab.add("here", target="lab_x7Yq")
        lab.add("there", target="us")
        report = await lab.sweep(everything(), table={"target": "lab"})
        assert outcomes(report) == {"here": "deleted"}
        assert report.endpoints[0].held == 1
        assert lab.left() == {"there"}
        assert len(lab.asked("GET", "/regions")) == 1


async def test_a_target_is_the_organisations_own_region_where_a_shared_one_has_its_name_as_id() -> None:
    """The server makes a sandbox for "us" in the region of that name, and the organisation's own come first."""
    async with Lab() as lab:
        lab.org.regions = {"us_x7Yq": "us", **lab.org.regions}
        lab.add("here", target="us_x7Yq")
        lab.add("shared", target="us")
        report = await lab.sweep(everything(), table={"target": "us"})
        assert outcomes(report) == {"here": "deleted"}
        assert lab.left() == {"shared"}


async def test_a_target_whose_region_the_server_does_not_name_any_more_is_an_id() -> None:
    async with Lab() as lab:
        del lab.org.regions["us"]
        lab.add("here", target="us")
        lab.add("there", target="eu")
        report = await lab.sweep(everything(), table={"target": "us"})
        assert outcomes(report) == {"here": "deleted"}


async def test_a_target_that_the_organisation_does_not_have_is_an_error() -> None:
    """Nothing is in it, so nothing would ever go, and the exit code would be 0."""
    async with Lab() as lab:
        lab.add("here", target="us")
        report = await lab.sweep(everything(), table={"target": "US"})
        failure = report.endpoints[0].failure
        assert failure is not None
        assert "target US, and the organisation has no region of that name or id: it has eu, us" in failure.message
        assert exit_code(report) == 5
        assert lab.left() == {"here"}


@pytest.mark.parametrize("refusal", [404, 403], ids=["unknown", "denied"])
async def test_a_target_is_an_id_where_the_server_does_not_tell_of_its_regions(refusal: int) -> None:
    async with Lab() as lab:
        lab.sim.faults.add(f"status:{refusal},path=/regions,message=Cannot GET /api/regions")
        lab.add("here", target="us")
        report = await lab.sweep(everything(), table={"target": "eu"})
        assert reasons(report) == {"here": "excluded"}
        assert exit_code(report) == 0


async def test_an_empty_target_is_asked_about_once() -> None:
    async with Lab() as lab:
        lab.add("there", target="us")
        for _ in range(2):
            assert exit_code(await lab.sweep(everything(), table={"target": "eu"})) == 0
        assert len(lab.asked("GET", "/regions")) == 2  # by each of two clients
        assert lab.left() == {"there"}


async def test_pages_are_followed_to_the_end_and_no_row_is_taken_twice() -> None:
    async with Lab() as lab:
        names = lab.leftovers(57)
        report = await lab.sweep(table={"page_size": 10})
        assert outcomes(report) == dict.fromkeys(names, "deleted")
        assert report.endpoints[0].held == 57
        deletions = [call.path for call in lab.asked("DELETE")]
        assert len(deletions) == len(set(deletions)) == 57
        assert all(c.path.count("sort=createdAt") == c.path.count("order=asc") == 1 for c in lab.asked("GET", "/sandbox?"))


@pytest.mark.parametrize("fault", ["garbage", "truncate", "reset", "status:500", "status:503"])
async def test_a_page_that_never_comes_whole_ends_the_sweep_before_the_first_deletion(fault: str) -> None:
    async with Lab() as lab:
        names = lab.leftovers(30)
        lab.sim.faults.add(f"{fault},method=GET,path=/sandbox$,skip=2")
        report = await lab.sweep(table={"page_size": 10})
        failure = report.endpoints[0].failure
        assert failure is not None
        assert report.results == ()
        assert lab.asked("DELETE") == []
        assert lab.left() == names


@pytest.mark.parametrize(
    "fault", ["huge", "deep", "empty:502", "empty:404", "garbage:401", "status:307,header=Location:http://127.0.0.1:1/"]
)
@pytest.mark.parametrize("where", ["/sandbox$", "/sandbox/", "DELETE"])
async def test_an_answer_that_makes_no_sense_deletes_nothing_and_is_no_bug(fault: str, where: str) -> None:
    async with Lab(retry=RetryPolicy(attempts=2, jitter=timedelta(0))) as lab:
        names = lab.leftovers(2)
        lab.sim.faults.add(f"{fault},method=DELETE" if where == "DELETE" else f"{fault},method=GET,path={where}")
        report = await lab.sweep(table={"confirm_within": "5s"})
        told = " ".join([*(e.failure.message for e in report.endpoints if e.failure), *(r.detail for r in report.results)])
        assert "/sandbox" in told
        assert "<" not in told
        assert exit_code(report) in (3, 5)
        assert lab.left() == names
