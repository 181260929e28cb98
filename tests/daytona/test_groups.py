"""Sandboxes that belong together: a Harbor session, linked ones, forks."""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reaper.core.conditions import Policy
from reaper.core.lease import Ending, Lease
from reaper.core.model import Action, Kind
from reaper.core.rules import Rules
from reaper.simulator.daytona.limits import Limit
from reaper.simulator.daytona.model import Sandbox, as_sandbox, micros
from reaper.sweep.runner import exit_code
from tests.daytona.lab import DAY, FRESH, HARBOR, HOUR, MINUTE, NOW, Lab, everything, outcomes, reasons, result, rules

pytestmark = pytest.mark.anyio


def write(folder: Path, content: str) -> None:
    (file,) = folder.glob("links-*.json")
    file.write_text(content, encoding="utf-8")


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


PROTECTED: dict[str, dict[str, Any]] = {
    "young": {"age": HOUR},
    "protected": {"labels": in_session("chess__abc", **{"reaper.keep": ""})},
    "unowned": {"labels": {"harbor.session_id": "chess__abc"}},
    "unreadable": {"extra": {"createdAt": "?"}},
    "changing": {"state": "starting", "stuck": True},
    "archived": {"state": "archived"},
}


@pytest.mark.parametrize("fields", PROTECTED.values(), ids=PROTECTED.keys())
async def test_one_member_that_is_kept_keeps_its_session(fields: dict[str, Any]) -> None:
    async with Lab() as lab:
        for i in range(3):
            lab.add(f"chess-{i}", labels=in_session("chess__abc"))
        lab.add("worker", **{"labels": in_session("chess__abc"), **fields})
        lab.add("go", labels=in_session("go__xyz"))
        report = await lab.sweep()
        assert outcomes(report) == {"go": "deleted"}
        assert {why for name, why in reasons(report).items() if name.startswith("chess")} == {"group_kept"}
        assert lab.left() == {"chess-0", "chess-1", "chess-2", "worker"}


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


@pytest.mark.parametrize("where", ["another runner", "archived owner", "archived follower"])
async def test_where_they_run_does_not_say_who_is_linked_to_whom(where: str) -> None:
    async with Lab() as lab:
        state = "archived" if where == "archived owner" else "started"
        owner = lab.add("owner", age=3 * DAY, runner="runner-1", state=state, auto_delete=-1)
        follower: dict[str, Any] = {"runner": "runner-2"} if where == "another runner" else {}
        lab.add("follower", age=HOUR, linked=owner.id, **follower)
        report = await lab.sweep(everything(rules(protect={"names": ["follower"]})))
        assert outcomes(report) == {}
        assert reasons(report)["owner"] == "in_use"
        assert lab.left() == {"owner", "follower"}


async def test_what_is_linked_after_the_listing_keeps_its_owner() -> None:
    async with Lab(behaviour=FRESH) as lab:
        owner = lab.add("owner", age=3 * DAY)
        lab.add("by-itself", age=3 * DAY)
        lab.observer.on_decided = lambda: lab.add("late", age=0 * HOUR, linked=owner.id)
        report = await lab.sweep()
        assert outcomes(report) == {"owner": "skipped", "by-itself": "deleted"}
        assert "late, which is kept, uses it" in result(report, "owner").detail
        assert lab.left() == {"owner", "late"}


async def test_what_is_linked_while_the_owner_waits_for_its_rate_limit_keeps_it() -> None:
    async with Lab(behaviour=FRESH) as lab:
        lab.sim.daytona.set_limits(lab.first, lifecycle=Limit(1, 60))
        owners = [lab.add(f"owner-{i}", age=(3 + i) * DAY) for i in range(4)]

        def link_to_those_that_wait() -> None:
            for owner in owners:
                if owner.desired == "started":
                    lab.add(f"late-{owner.name}", age=0 * HOUR, linked=owner.id)

        lab.on("DELETE", "", link_to_those_that_wait)
        report = await lab.sweep(table={"max_rate_share": 1.0})
        assert sorted(outcomes(report).values()) == ["deleted", "skipped", "skipped", "skipped"]
        assert len(lab.left()) == 6


async def test_an_owner_fails_when_what_was_created_meanwhile_cannot_be_looked_at() -> None:
    async with Lab(behaviour=FRESH) as lab:
        lab.add("owner", age=3 * DAY)

        def create() -> None:
            late = lab.add("late", age=0 * HOUR)
            lab.sim.faults.add(f"status:500,method=GET,path={late.id}")

        lab.observer.on_decided = create
        report = await lab.sweep()
        assert outcomes(report) == {"owner": "failed"}
        assert lab.asked("DELETE") == []


@pytest.mark.parametrize("session", [None, "chess__abc"])
async def test_a_linked_one_that_is_reapable_and_then_used_again_keeps_its_owner(session: str | None) -> None:
    labels = HARBOR if session is None else in_session(session)
    async with Lab(behaviour=FRESH) as lab:
        owner = lab.add("owner", age=4 * DAY, labels=labels)
        follower = lab.add("follower", age=3 * DAY, linked=owner.id, labels=labels)
        others = lab.leftovers(80)

        def use() -> None:
            lab.org.change(follower, active=micros(lab.clock.now()))

        lab.observer.on_decided = use
        report = await lab.sweep()
        found = outcomes(report)
        assert (found.pop("owner"), found.pop("follower")) == ("skipped", "skipped")
        assert found == dict.fromkeys(others, "deleted")
        assert lab.left() == {"owner", "follower"}


async def test_a_linked_one_whose_deletion_fails_keeps_its_owner() -> None:
    async with Lab() as lab:
        owner = lab.add("owner", age=4 * DAY)
        follower = lab.add("follower", age=3 * DAY, linked=owner.id, inconsistent=True)
        report = await lab.sweep()
        assert outcomes(report) == {"owner": "skipped", "follower": "failed"}
        assert "follower, which is linked to it and would go with it, stays" in result(report, "owner").detail
        assert not follower.hidden


@pytest.mark.parametrize("readable", [True, False])
async def test_a_linked_one_that_a_cap_holds_back_keeps_its_owner_and_the_session_of_that(readable: bool) -> None:
    """The lease of the owner has ended, which another cap is for."""
    async with Lab(behaviour=FRESH) as lab:
        owner = lab.add("owner", age=3 * DAY, labels=in_session("chess"))
        ended = [owner, lab.add("mate", age=3 * DAY, labels=in_session("chess")), lab.add("alone", age=4 * DAY)]
        lab.leases.append(Lease("lease-0", "pid 4711", frozenset(row.id for row in ended), ending=Ending(NOW, "killed")))
        follower = lab.add("follower", age=2 * DAY, linked=owner.id)
        lab.add("other", age=2 * DAY)
        if not readable:
            lab.sim.faults.add(f"status:500,method=GET,path={follower.id}")
        report = await lab.sweep(max_deletions=1)
        held_back = {"owner", "mate", "follower", "other"} | (set() if readable else {"alone"})
        assert lab.left() == held_back
        assert {name for name, outcome in outcomes(report).items() if outcome == "abandoned"} == held_back
        assert report.endpoints[0].cap is not None


async def test_one_that_is_reapable_and_cannot_be_looked_at_keeps_what_it_may_be_linked_to() -> None:
    async with Lab() as lab:
        lab.add("older", age=4 * DAY)
        unsure = lab.add("unsure", age=3 * DAY)
        lab.add("newer", age=2 * DAY)
        lab.sim.faults.add(f"status:500,method=GET,path={unsure.id}")
        report = await lab.sweep()
        assert outcomes(report) == {"older": "skipped", "unsure": "failed", "newer": "deleted"}
        assert "unsure, which may be linked to it and would go with it, stays" in result(report, "older").detail


@pytest.mark.parametrize("times", [4, 8, 12, 16], ids=lambda times: f"{times}-requests-fail")
async def test_one_that_could_not_be_looked_at_for_a_while_keeps_nothing_in_the_end(times: int) -> None:
    async with Lab() as lab:
        names = [lab.add(f"older-{i}", age=(4 + i) * DAY).name for i in range(10)]
        unsure = lab.add("unsure", age=3 * DAY)
        lab.sim.faults.add(f"status:500,method=GET,path={unsure.id},times={times}")
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys([*names, "unsure"], "deleted"), result(report, "unsure").detail


async def test_what_has_told_its_links_before_is_waited_for_by_none() -> None:
    async with Lab() as lab:
        lab.add("older", age=4 * DAY)
        lab.sim.faults.add("status:403,method=DELETE", "status:403,method=POST")
        newer = lab.add("newer", age=3 * DAY)
        await lab.sweep()
        lab.sim.faults.clear()
        lab.sim.faults.add(f"status:500,method=GET,path={newer.id}")
        assert outcomes(await lab.sweep()) == {"older": "deleted", "newer": "failed"}


@pytest.mark.parametrize("action", [Action.STOP, Action.ARCHIVE])
async def test_a_linked_one_that_is_not_to_be_deleted_keeps_its_owner_from_the_plan_on(action: Action) -> None:
    kinds = frozenset({Kind.SANDBOX})
    by = Rules(policies=(Policy("old", kinds, older_than=3 * DAY), Policy("halt", kinds, older_than=DAY, action=action)))
    async with Lab() as lab:
        owner = lab.add("owner", age=4 * DAY)
        lab.add("follower", age=2 * DAY, linked=owner.id, auto_delete=-1)
        for act in (False, True):
            report = await lab.sweep(by, act=act)
            assert reasons(report)["owner"] == "in_use"
            assert outcomes(report).keys() == {"follower"}
        assert lab.left() == {"owner", "follower"}


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "created-since"])
async def test_a_living_one_that_the_server_does_not_find_for_a_moment_keeps_its_owner(listed: bool) -> None:
    """Its guard answers 404 to every error of its own look-up, a connection to the database that it did not get for one."""
    async with Lab(behaviour=FRESH) as lab:
        owner = lab.add("owner", age=4 * DAY)
        lab.observer.on_decided = lambda: listed or lab.add("follower", id="follower", age=0 * DAY, linked=owner.id)
        if listed:
            lab.add("follower", id="follower", age=HOUR, linked=owner.id)
        lab.sim.faults.add("status:404,method=GET,path=/sandbox/follower,message=Sandbox with ID or name follower not found")
        await lab.sweep()
        assert lab.left() == {"owner", "follower"}


@pytest.mark.parametrize("ahead", [10 * MINUTE, HOUR, 400 * DAY])
async def test_one_that_is_dated_after_the_listing_hides_none_that_was_created_since(ahead: timedelta) -> None:
    """Another server of the organisation, whose clock is wrong, dated it."""
    async with Lab(behaviour=FRESH) as lab:
        owner = lab.add("owner", age=4 * DAY)
        lab.add("ahead", age=-ahead)
        lab.observer.on_decided = lambda: lab.add("follower", age=0 * DAY, linked=owner.id)
        await lab.sweep()
        assert lab.left() == {"owner", "ahead", "follower"}


async def test_links_that_a_round_has_shown_hold_in_the_next_one() -> None:
    async with Lab(behaviour=FRESH) as lab:
        owner = lab.add("owner", age=4 * DAY)
        follower = lab.add("follower", age=3 * DAY, linked=owner.id)
        lab.observer.on_decided = lambda: lab.org.change(follower, active=micros(lab.clock.now()))
        lab.sim.faults.add(f"status:500,method=GET,path={owner.id},times=4")
        report = await lab.sweep()
        assert outcomes(report) == {"owner": "skipped", "follower": "skipped"}
        assert lab.left() == {"owner", "follower"}


async def test_two_that_claim_to_be_linked_to_each_other_end_the_sweep_all_the_same() -> None:
    async with Lab() as lab:
        one = lab.add("one", age=4 * DAY)
        lab.add("two", age=3 * DAY, linked=one.id)
        one.linked = next(row.id for row in lab.org.rows.values() if row.name == "two")
        report = await lab.sweep()
        assert outcomes(report).keys() == {"one", "two"}


@pytest.mark.parametrize(
    "how", ["older listing", "built from a Dockerfile", "without it", "rows that tell less", "odd answer"]
)
async def test_the_links_of_many_are_read_from_the_older_listing_where_it_tells_them(how: str) -> None:
    async with Lab(behaviour=FRESH) as lab:
        owner = lab.add("owner", age=9 * DAY)
        lab.add("follower", age=HOUR, linked=owner.id)
        made = {"snapshot": None} if how == "built from a Dockerfile" else {}
        for i in range(300):
            lab.add(f"living-{i}", age=HOUR, **made)
        lab.add("leftover", age=3 * DAY)
        if how == "without it":
            lab.sim.faults.add("status:404,path=/sandbox/paginated,message=Sandbox with ID or name paginated not found")
        if how == "odd answer":
            lab.sim.faults.add("garbage,path=/sandbox/paginated")
        if how == "rows that tell less":
            lab._patch.setattr("reaper.simulator.daytona.app.as_sandbox", less_in_rows(as_sandbox))
        assert outcomes(await lab.sweep()) == {"leftover": "deleted"}
        assert lab.left() >= {"owner", "follower"}
        asked = [call for call in lab.asked("GET") if "?" not in call.path]
        assert (len(asked) <= 20) is (how in ("older listing", "built from a Dockerfile"))


def less_in_rows(whole: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The answers of a server whose older listing does not tell of links, as GET by id does."""

    def shown(row: Sandbox, proxy: str, **options: Any) -> dict[str, Any]:
        answer = whole(row, proxy, **options)
        if sys._getframe(1).f_code.co_name != "_dumped":
            answer = {key: value for key, value in answer.items() if key not in ("linkedSandboxId", "env")}
        return answer

    return shown


async def test_links_cost_a_few_requests_a_deletion_however_many_live() -> None:
    """Each is asked for once, whatever that takes; from then on none is asked again."""
    async with Lab() as lab:
        lab.sim.faults.add("status:404,path=/sandbox/paginated,message=Sandbox with ID or name paginated not found")
        owner = lab.add("owner", age=9 * DAY)
        lab.add("follower", age=HOUR, linked=owner.id)
        for i in range(300):
            lab.add(f"living-{i}", age=HOUR)
        lab.add("first", age=3 * DAY)
        assert outcomes(await lab.sweep()) == {"first": "deleted"}
        lab.add("second", age=3 * DAY)
        lab.traffic.clear()
        assert outcomes(await lab.sweep()) == {"second": "deleted"}
        asked = [call for call in lab.asked("GET") if "/sandbox?" not in call.path]
        assert len(asked) <= 9, "those that were created since, and the looks at what goes"
        assert len(lab.asked("GET", "/sandbox?")) <= 6
        assert "owner" in lab.left()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', '{"version": 1, "linked": 7}', "[" * 9999])
async def test_a_file_of_links_that_cannot_be_read_is_none(content: str) -> None:
    async with Lab() as lab:
        owner = lab.add("owner", age=9 * DAY)
        lab.add("follower", age=HOUR, linked=owner.id)
        await lab.sweep()
        write(Path(lab.folder.name), content)
        assert outcomes(await lab.sweep()) == {}
        assert lab.left() == {"owner", "follower"}


def replace_by_fifo(folder: Path) -> None:
    (file,) = (file for file in folder.iterdir() if file.is_file())
    file.unlink()
    os.mkfifo(file)


async def test_a_fifo_in_place_of_the_file_of_links_is_not_waited_for() -> None:
    async with Lab() as lab:
        lab.add("owner", age=9 * DAY)
        await lab.sweep()
        replace_by_fifo(Path(lab.folder.name))
        lab.add("another", age=9 * DAY)
        assert outcomes(await lab.sweep()) == {"another": "deleted"}


# -- targets -----------------------------------------------------------------------------------------------------------


async def test_a_member_in_another_target_keeps_its_session() -> None:
    async with Lab() as lab:
        lab.add("here", labels=in_session("chess__abc"), target="us")
        lab.add("there", labels=in_session("chess__abc"), target="eu", idle=0 * HOUR)
        lab.add("alone", target="us")
        lab.add("elsewhere", target="eu")
        report = await lab.sweep(everything(), table={"target": "us"})
        assert outcomes(report) == {"alone": "deleted"}
        assert reasons(report) == {"here": "group_kept", "there": "excluded", "alone": "all", "elsewhere": "excluded"}
        assert report.endpoints[0].held == 2
        assert lab.left() == {"here", "there", "elsewhere"}


async def test_one_in_another_target_that_joins_in_between_keeps_the_session() -> None:
    async with Lab(behaviour=FRESH) as lab:
        lab.add("here", labels=in_session("chess__abc"), target="us")
        lab.observer.on_decided = lambda: lab.add("late", labels=in_session("chess__abc"), target="eu", age=0 * HOUR)
        assert outcomes(await lab.sweep(table={"target": "us"})) == {"here": "skipped"}


async def test_a_linked_one_in_another_target_keeps_its_owner() -> None:
    async with Lab() as lab:
        owner = lab.add("owner", target="us", age=3 * DAY)
        lab.add("follower", target="eu", linked=owner.id)
        assert outcomes(await lab.sweep(table={"target": "us"})) == {}


async def test_links_are_kept_from_link_to_link() -> None:
    async with Lab() as lab:
        first = lab.add("first", age=5 * DAY)
        second = lab.add("second", age=4 * DAY, linked=first.id)
        lab.add("third", age=HOUR, linked=second.id)
        report = await lab.sweep()
        assert outcomes(report) == {}
        assert lab.left() == {"first", "second", "third"}


async def test_an_owner_is_kept_when_its_links_are_unknown() -> None:
    async with Lab() as lab:
        lab.add("owner", age=3 * DAY, runner="runner-1")
        unsure = lab.add("unsure", age=HOUR, runner="runner-1")
        lab.add("elsewhere", age=3 * DAY, runner="runner-2")
        lab.add("newer", age=3 * DAY, runner="runner-1", active=lab.clock.now() - DAY)
        lab.sim.faults.add(f"status:500,method=GET,path={unsure.id}")
        report = await lab.sweep()
        assert outcomes(report) == dict.fromkeys(("owner", "elsewhere", "newer"), "failed"), (
            "no look by id has shown anything"
        )
        assert reasons(report)["owner"] == reasons(report)["elsewhere"] == "in_use"
        assert lab.asked("DELETE") == []


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
        assert refused <= 6


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


# -- a member whose deletion hangs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"state": "destroying"}, {"state": "started"}, {"state": "paused"}])
async def test_a_member_whose_deletion_hangs_for_an_hour_keeps_its_session_no_more(fields: dict[str, Any]) -> None:
    """Its host is dead, and nothing will ever end it."""
    async with Lab() as lab:
        names = {f"member-{number}" for number in range(3)}
        for name in names:
            lab.add(name, labels=in_session("s"))
        lab.add("hangs", desired="destroyed", runner_dead=True, labels=in_session("s"), **fields)
        assert outcomes(await lab.sweep()) == dict.fromkeys(names, "deleted")
        assert lab.left() == {"hangs"}


async def test_a_member_that_is_being_deleted_keeps_its_session_for_an_hour() -> None:
    async with Lab() as lab:
        lab.add("member", labels=in_session("s"))
        lab.add("going", state="destroying", desired="destroyed", runner_dead=True, labels=in_session("s"), idle=MINUTE)
        assert outcomes(await lab.sweep()) == {}
        lab.clock.advance(HOUR)
        assert outcomes(await lab.sweep()) == {"member": "deleted"}


async def test_a_follower_whose_deletion_hangs_for_an_hour_keeps_its_owner_no_more() -> None:
    async with Lab() as lab:
        owner = lab.add("owner")
        lab.add("hangs", state="destroying", desired="destroyed", runner_dead=True, linked=owner.id)
        assert outcomes(await lab.sweep()) == {"owner": "deleted"}
        assert lab.left() == {"hangs"}


async def test_what_else_keeps_a_session_keeps_it_beside_a_member_whose_deletion_hangs() -> None:
    async with Lab() as lab:
        lab.add("member", labels=in_session("s"))
        lab.add("alive", age=HOUR, labels=in_session("s"))
        lab.add("hangs", state="destroying", desired="destroyed", runner_dead=True, labels=in_session("s"))
        assert outcomes(await lab.sweep()) == {}
        assert lab.left() == {"member", "alive", "hangs"}


async def test_a_protected_member_keeps_its_session_although_its_deletion_hangs() -> None:
    async with Lab() as lab:
        lab.add("member", labels=in_session("s"))
        kept = in_session("s", **{"reaper.keep": "true"})
        lab.add("hangs", state="destroying", desired="destroyed", runner_dead=True, labels=kept)
        assert outcomes(await lab.sweep()) == {}
