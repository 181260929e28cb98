"""Sandboxes that belong together: a Harbor session, linked ones, forks."""

from typing import Any

import pytest

from reaper.conduct import exit_code
from tests.daytona.lab import DAY, FRESH, HARBOR, HOUR, Lab, everything, outcomes, reasons, result

pytestmark = pytest.mark.anyio


def in_session(session: str, **more: str) -> dict[str, str]:
    return {**HARBOR, "harbor.session_id": session, **more}


# -- sessions ----------------------------------------------------------------------------------------------------------


async def test_a_session_whose_members_are_all_reapable_goes_whole() -> None:
    async with Lab() as lab:
        for i in range(3):
            lab.add(f"chess-{i}", labels=in_session("chess__abc"), age=(2 + i) * DAY)
        lab.add("stopped", labels=in_session("chess__abc"), state="stopped", auto_delete=-1)
        report = await lab.sweep()
        assert set(outcomes(report).values()) == {"deleted"}
        assert len(report.results) == 4
        assert lab.left() == set()


KEEPERS: dict[str, dict[str, Any]] = {
    "young": {"age": HOUR},
    "protected": {"labels": in_session("chess__abc", **{"reaper.keep": ""})},
    "unowned": {"labels": {"harbor.session_id": "chess__abc"}},
    "unreadable": {"extra": {"createdAt": "?"}},
    "changing": {"state": "starting", "stuck": True},
    "archived": {"state": "archived"},
}


@pytest.mark.parametrize("fields", KEEPERS.values(), ids=KEEPERS.keys())
async def test_one_member_that_is_kept_keeps_its_session(fields: dict[str, Any]) -> None:
    async with Lab() as lab:
        for i in range(3):
            lab.add(f"chess-{i}", labels=in_session("chess__abc"))
        lab.add("keeper", **{"labels": in_session("chess__abc"), **fields})
        lab.add("go", labels=in_session("go__xyz"))
        report = await lab.sweep()
        assert outcomes(report) == {"go": "deleted"}
        assert {why for name, why in reasons(report).items() if name.startswith("chess")} == {"group_kept"}
        assert lab.left() == {"chess-0", "chess-1", "chess-2", "keeper"}


async def test_one_that_joins_in_between_keeps_the_session() -> None:
    async with Lab(behaviour=FRESH) as lab:
        for i in range(3):
            lab.add(f"chess-{i}", labels=in_session("chess__abc"))
        lab.add("go", labels=in_session("go__xyz"))
        lab.observer.on_decided = lambda: lab.add("late", labels=in_session("chess__abc"), age=0 * HOUR)
        report = await lab.sweep(everything())
        assert outcomes(report) == {"chess-0": "skipped", "chess-1": "skipped", "chess-2": "skipped", "go": "deleted"}
        assert "late joined its session chess__abc" in result(report, "chess-0").detail
        assert lab.left() == {"chess-0", "chess-1", "chess-2", "late"}
        assert exit_code(report) == 0


async def test_an_unowned_one_that_is_relabelled_into_the_session_keeps_it() -> None:
    async with Lab(behaviour=FRESH) as lab:
        lab.add("chess", labels=in_session("chess__abc"))
        other = lab.add("other", labels={})
        lab.observer.on_decided = lambda: lab.org.change(other, labels={"harbor.session_id": "chess__abc"})
        report = await lab.sweep(everything())
        assert outcomes(report) == {"chess": "skipped"}
        assert lab.left() == {"chess", "other"}


async def test_one_member_that_changed_keeps_the_session() -> None:
    async with Lab(behaviour=FRESH) as lab:
        rows = [lab.add(f"chess-{i}", labels=in_session("c"), state="stopped", auto_delete=-1) for i in range(3)]
        lab.observer.on_decided = lambda: lab.org.start(rows[2], rows[2].version)
        report = await lab.sweep()
        assert set(outcomes(report).values()) == {"skipped"}
        assert "chess-2 of its session was stopped and is starting now" in result(report, "chess-0").detail
        assert lab.asked("DELETE") == []


async def test_a_session_that_lost_a_member_is_left_to_the_next_sweep() -> None:
    async with Lab(behaviour=FRESH) as lab:
        rows = [lab.add(f"chess-{i}", labels=in_session("c"), state="stopped", auto_delete=-1) for i in range(3)]
        lab.observer.on_decided = lambda: lab.org.change(rows[1], state="destroyed")
        report = await lab.sweep()
        assert outcomes(report) == {"chess-0": "skipped", "chess-1": "gone", "chess-2": "skipped"}
        lab.observer.on_decided = lambda: None
        assert outcomes(await lab.sweep()) == {"chess-0": "deleted", "chess-2": "deleted"}


async def test_a_hundred_sessions_cost_few_listings() -> None:
    async with Lab() as lab:
        for i in range(300):
            lab.add(f"trial-{i:03}", labels=in_session(f"session-{i // 3}"))
        report = await lab.sweep()
        assert {*outcomes(report).values()} == {"deleted"}
        assert lab.left() == set()
        listings = [call for call in lab.asked("GET", "/sandbox?") if "cursor" not in call.path]
        assert len(listings) < 25


# -- linked ------------------------------------------------------------------------------------------------------------


async def test_linked_ones_go_with_their_owner() -> None:
    async with Lab() as lab:
        owner = lab.add("owner", age=3 * DAY)
        lab.add("linked-1", linked=owner.id)
        lab.add("linked-2", linked=owner.id)
        report = await lab.sweep()
        assert outcomes(report).keys() == {"owner", "linked-1", "linked-2"}
        assert set(outcomes(report).values()) <= {"deleted", "gone"}
        assert outcomes(report)["owner"] == "deleted"
        assert exit_code(report) == 0
        assert lab.left() == set()


LINKED: dict[str, dict[str, Any]] = {
    "young": {"age": HOUR},
    "unowned": {"labels": {}},
    "protected": {"labels": {**HARBOR, "reaper.keep": ""}},
    "unreadable": {"labels": None},
    "in an unknown state": {"extra": {"state": "hibernating"}},
    "archived": {"state": "archived"},
}


@pytest.mark.parametrize("fields", LINKED.values(), ids=LINKED.keys())
async def test_a_linked_one_that_is_kept_keeps_its_owner(fields: dict[str, Any]) -> None:
    async with Lab() as lab:
        owner = lab.add("owner", age=3 * DAY)
        lab.add("linked", linked=owner.id, **fields)
        lab.add("by-itself", age=3 * DAY)
        report = await lab.sweep()
        assert outcomes(report) == {"by-itself": "deleted"}
        assert reasons(report)["owner"] == "in_use"
        assert lab.left() == {"owner", "linked"}


async def test_links_are_kept_from_link_to_link() -> None:
    async with Lab() as lab:
        first = lab.add("first", age=5 * DAY)
        second = lab.add("second", age=4 * DAY, linked=first.id)
        lab.add("third", age=HOUR, linked=second.id)
        report = await lab.sweep()
        assert outcomes(report) == {}
        assert lab.left() == {"first", "second", "third"}


async def test_an_owner_is_kept_when_nobody_can_tell_what_is_linked_to_it() -> None:
    async with Lab() as lab:
        owner = lab.add("owner", age=3 * DAY, runner="runner-1")
        unsure = lab.add("unsure", age=HOUR, runner="runner-1")
        lab.add("elsewhere", age=3 * DAY, runner="runner-2")
        lab.sim.faults.add(f"status:500,method=GET,path={unsure.id}")
        report = await lab.sweep()
        assert outcomes(report) == {"elsewhere": "deleted"}
        assert lab.left() == {"owner", "unsure"}
        assert lab.asked("DELETE", owner.id) == []


# -- forks -------------------------------------------------------------------------------------------------------------


async def test_forks_go_before_their_parents_three_levels_deep_in_one_sweep() -> None:
    async with Lab() as lab:
        parent = None
        for generation in range(4):
            parent = lab.add(f"generation-{generation}", age=(9 - generation) * DAY, parent=parent and parent.id)
        root = next(row for row in lab.org.rows.values() if row.name == "generation-0")
        lab.add("twin", age=3 * DAY, parent=root.id)
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys([*(f"generation-{i}" for i in range(4)), "twin"], "deleted")
        assert exit_code(report) == 0
        assert lab.left() == set()
        refused = sum(call.status == 400 for call in lab.asked("DELETE"))
        assert 1 <= refused <= 6


async def test_a_fork_that_is_kept_keeps_its_parent_as_the_server_says() -> None:
    async with Lab() as lab:
        parent = lab.add("parent")
        lab.add("fork", age=HOUR, parent=parent.id)
        names = lab.leftovers(3)
        report = await lab.sweep()
        assert outcomes(report) == {"parent": "skipped", **dict.fromkeys(names, "deleted")}
        assert "Cannot delete sandbox which has active fork children" in result(report, "parent").detail
        assert exit_code(report) == 0
        assert lab.left() == {"parent", "fork"}
        assert len(lab.asked("DELETE", parent.id)) <= 3


async def test_a_parent_waits_for_a_fork_that_takes_its_time() -> None:
    async with Lab() as lab:
        parent = lab.add("parent", age=5 * DAY)
        lab.add("fork", parent=parent.id, state="stopped", auto_delete=-1)
        report = await lab.sweep(table={"concurrency": 1})
        assert outcomes(report) == {"parent": "deleted", "fork": "deleted"}
        assert lab.left() == set()
