"""A listing is stale when it arrives: what changed before its deletion survives."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from reaper.core.lease import Lease
from reaper.simulator.daytona.limits import Limit
from reaper.simulator.daytona.model import Sandbox, as_item, micros
from reaper.simulator.world import ABSENT
from reaper.sweep.runner import exit_code
from tests.daytona.lab import DAY, FRESH, HARBOR, HOUR, MINUTE, NOW, Lab, everything, outcomes, result

pytestmark = pytest.mark.anyio

Change = Callable[[Lab, Sandbox], Any]
CHANGES: dict[str, tuple[str, Change, str]] = {
    "is being started": ("stopped", lambda lab, row: lab.org.start(row, row.version), "was stopped and is starting now"),
    "was started again": (
        "stopped",
        lambda lab, row: lab.org.change(row, state="started", desired="started"),
        "was stopped and is started now",
    ),
    "was stopped": (
        "started",
        lambda lab, row: lab.org.change(row, state="stopped", desired="stopped"),
        "was started and is stopped now",
    ),
    "was stopped again": (
        "stopped",
        lambda lab, row: lab.org.change(row, active=micros(lab.clock.now())),
        "was stopped again",
    ),
    "is to be kept": (
        "started",
        lambda lab, row: lab.org.change(row, labels={**HARBOR, "reaper.keep": ""}),
        "has other labels now",
    ),
    "has no owner now": ("started", lambda lab, row: lab.org.change(row, labels={}), "has other labels now"),
    "got a run": ("started", lambda lab, row: lab.org.change(row, labels={**HARBOR, "run": "b"}), "has other labels now"),
    "lost its labels": ("started", lambda lab, row: lab.org.change(row, labels=None), "has other labels now"),
    "is being archived": (
        "stopped",
        lambda lab, row: lab.org.change(row, desired="archived"),
        "was stopped and is archiving now",
    ),
    "is being resized": (
        "started",
        lambda lab, row: lab.org.change(row, state="resizing"),
        "was started and is resizing now",
    ),
    "is deleted by another client": (
        "started",
        lambda lab, row: lab.org.delete(row, row.version),
        "was started and is destroying now",
    ),
    "failed": ("started", lambda lab, row: lab.org.change(row, state="error"), "was started and is error now"),
    "became strange": (
        "started",
        lambda lab, row: lab.org.change(row, extra={"state": "hibernating"}),
        "was started and is hibernating now",
    ),
    "cannot be read": (
        "started",
        lambda lab, row: lab.org.change(row, extra={"createdAt": ABSENT}),
        "it is to be kept now: the answer had no creation time",
    ),
}


@pytest.mark.parametrize(("state", "change", "says"), CHANGES.values(), ids=CHANGES.keys())
async def test_what_changed_when_the_last_page_was_served_survives(state: str, change: Change, says: str) -> None:
    async with Lab() as lab:
        rows = [lab.add(f"leftover-{i:02}", age=3 * DAY, auto_delete=-1, state=state) for i in range(25)]
        changed = rows[3]
        pages = 0

        def served() -> None:
            nonlocal pages
            pages += 1
            if pages == 3:
                change(lab, changed)

        lab.on("GET", "/sandbox?", served, times=3)
        report = await lab.sweep(everything(), table={"page_size": 10})
        assert outcomes(report).pop("leftover-03") == "skipped"
        assert says in result(report, "leftover-03").detail
        assert changed.id not in {call.path.rpartition("/")[2] for call in lab.asked("DELETE")}
        assert sorted(name for name, outcome in outcomes(report).items() if outcome == "deleted") == [
            f"leftover-{i:02}" for i in range(25) if i != 3
        ]
        assert exit_code(report) == 0


def indexed(row: Sandbox, **fields: Any) -> None:
    """Have the listing show other fields of it than GET by id: it reads an index, which has copies of its own."""
    row.item = json.dumps({**as_item(row, "http://127.0.0.1/toolbox"), **fields}).encode()


@pytest.mark.parametrize(
    "seen", [None, NOW - 9 * DAY, NOW - 7 * HOUR + timedelta(milliseconds=1)], ids=["none", "old", "cut"]
)
@pytest.mark.parametrize("state", ["stopped", "error"])
async def test_one_whose_stop_the_index_dates_otherwise_than_get_goes(state: str, seen: datetime | None) -> None:
    """The index may never agree: it would be skipped in each sweep, with the exit code 0, and stay for good."""
    async with Lab(behaviour=FRESH) as lab:
        row = lab.add("old", state=state, auto_delete=-1, age=10 * DAY, idle=7 * HOUR)
        indexed(row, lastActivityAt=seen and seen.isoformat(), updatedAt=(NOW - 8 * DAY).isoformat())
        report = await lab.sweep()
        assert outcomes(report) == {"old": "deleted"}


async def test_one_that_the_index_dates_too_early_is_judged_by_get() -> None:
    async with Lab(behaviour=FRESH) as lab:
        row = lab.add("young", state="stopped", auto_delete=-1, age=10 * DAY, idle=1 * HOUR)
        indexed(row, lastActivityAt=(NOW - 9 * DAY).isoformat())
        report = await lab.sweep()
        assert outcomes(report) == {"young": "skipped"}
        assert "is to be kept now" in result(report, "young").detail


@pytest.mark.parametrize("ago", [MINUTE, 0 * MINUTE])
async def test_one_that_was_stopped_again_as_it_was_listed_is_kept_by_any_policy(ago: timedelta) -> None:
    """Another client uses it, though the listing does not show that yet."""
    async with Lab(behaviour=FRESH) as lab:
        row = lab.add("used", state="stopped", auto_delete=-1, age=10 * DAY, idle=ago)
        indexed(row, lastActivityAt=(NOW - 9 * DAY).isoformat())
        report = await lab.sweep(everything())
        assert outcomes(report) == {"used": "skipped"}
        assert "was stopped again" in result(report, "used").detail


async def test_one_that_has_failed_and_is_written_to_is_kept_since_its_owner_may_recover_it() -> None:
    """Its state is error until it is recovered, and DELETE takes it."""
    async with Lab(behaviour=FRESH) as lab:
        row = lab.add("recovering", state="error", auto_delete=-1, age=10 * DAY, idle=7 * HOUR)
        lab.observer.on_decided = lambda: lab.org.change(row, desired="started")
        report = await lab.sweep()
        assert outcomes(report) == {"recovering": "skipped"}
        assert "was written to" in result(report, "recovering").detail
        assert lab.left() == {"recovering"}


async def test_one_that_was_used_meanwhile_is_kept_by_the_policy_that_would_have_taken_it() -> None:
    async with Lab() as lab:
        row = lab.add("busy")
        lab.observer.on_decided = lambda: lab.org.change(row, active=micros(lab.clock.now()))
        report = await lab.sweep()
        assert outcomes(report) == {"busy": "skipped"}
        assert "is to be kept now: created 2 d ago and idle for 0 s" in result(report, "busy").detail
        assert lab.left() == {"busy"}


async def test_what_changes_while_its_deletion_waits_for_the_rate_limit_survives() -> None:
    """Its first look is long past when its turn comes, so another one is taken."""
    async with Lab(behaviour=FRESH) as lab:
        lab.sim.daytona.set_limits(lab.first, lifecycle=Limit(1, 60))
        rows = {row.name: row for row in (lab.add(f"leftover-{i}", state="stopped", auto_delete=-1) for i in range(6))}

        def start_those_that_wait() -> None:
            for row in rows.values():
                if row.desired == "stopped":
                    lab.org.change(row, state="started", desired="started")

        lab.on("DELETE", "", start_those_that_wait)
        report = await lab.sweep(everything(), table={"max_rate_share": 1.0})
        found = sorted(outcomes(report).values())
        assert found == ["deleted", *["skipped"] * 5]
        assert len(lab.asked("DELETE")) == 1
        assert len(lab.left()) == 5


async def test_a_lease_that_is_taken_out_while_a_deletion_waits_keeps_the_sandbox() -> None:
    async with Lab(behaviour=FRESH) as lab:
        lab.sim.daytona.set_limits(lab.first, lifecycle=Limit(1, 60))
        ids = frozenset(lab.add(f"leftover-{i}").id for i in range(4))
        lab.on("DELETE", "", lambda: lab.leases.append(Lease("l-1", "harbor run", ids)))
        report = await lab.sweep(table={"max_rate_share": 1.0})
        assert sorted(outcomes(report).values()) == ["deleted", "skipped", "skipped", "skipped"]
        assert len(lab.left()) == 3


async def test_the_cached_look_of_a_moment_ago_is_the_window_that_remains() -> None:
    """GET may be ten seconds old, and DELETE refuses nothing: docs/safety.md names this window, and this is all of it."""
    async with Lab() as lab:
        row = lab.add("unlucky", state="stopped", auto_delete=-1)
        lab.on("GET", row.id, lambda: lab.org.change(row, state="started", desired="started"))
        report = await lab.sweep(everything())
        assert outcomes(report) == {"unlucky": "deleted"}


async def test_what_the_list_showed_counts_for_nothing_when_the_look_by_id_says_something_else() -> None:
    """The list said stopped for days; the look says that it runs, and is in use."""
    async with Lab() as lab:
        row = lab.add("flapping", state="stopped", auto_delete=-1)
        now = micros(lab.clock.now())
        lab.on("GET", "/sandbox?", lambda: lab.org.change(row, state="started", desired="started", active=now))
        report = await lab.sweep()
        assert outcomes(report) == {"flapping": "skipped"}
        lab.clock.advance(MINUTE)
        assert outcomes(await lab.sweep()) == {}
        assert lab.left() == {"flapping"}
