"""One listing answers for the sessions of all tasks that ask while it is fresh, and for none that ask later."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from reaper.core.identity import SESSION_LABEL
from reaper.errors import ServerError
from reaper.providers.base import Call
from reaper.simulator.daytona.model import Sandbox
from tests.providers.lab import Lab, Recorder, direct, refused, turn_loop
from tests.simulator.daytona_client import START

pytestmark = pytest.mark.anyio
SESSIONS = 10
PAGES = 3


def add(lab: Lab, name: str, session: str, age: int = 0) -> Sandbox:
    return lab.add(name, labels={SESSION_LABEL: session}, created=START - timedelta(hours=1, seconds=age))


def full() -> Lab:
    """Ten sessions of three sandboxes each, on three pages."""
    made = Lab(table={"page_size": 10})
    for number in range(3 * SESSIONS):
        add(made, f"c{number:02}", f"s{number % SESSIONS}", number)
    return made


async def members(lab: Lab, session: str, call: Call = direct) -> set[str]:
    """The names of the session's sandboxes, as some member of it asks."""
    rows = [row for row in lab.org.rows.values() if row.state != "destroyed"]
    there = [row for row in rows if (row.labels or {}).get(SESSION_LABEL) == session]
    asking = lab.resource(there[0].id if there else "some-id")
    found = await lab.provider.members(replace(asking, group=session), call)
    assert all(member.group == session for member in found)
    names = {member.name for member in found}
    assert len(names) == len(found)
    return names


def pages(lab: Lab) -> int:
    """How many pages of the listing were asked for."""
    return lab.requests("GET", "/sandbox")


async def test_many_tasks_share_one_listing() -> None:
    async with full() as lab:
        found = await asyncio.gather(*(members(lab, f"s{number % SESSIONS}") for number in range(40)))
        assert found == [{f"c{tens}{number % SESSIONS}" for tens in range(3)} for number in range(40)]
        assert pages(lab) == PAGES


async def test_a_new_member_is_seen_five_seconds_later() -> None:
    async with full() as lab:
        assert await members(lab, "s3") == {"c03", "c13", "c23"}
        add(lab, "new", "s3")
        turn_loop(4)
        assert await members(lab, "s3") == {"c03", "c13", "c23"}
        assert pages(lab) == PAGES
        turn_loop(1.1)
        assert await members(lab, "s3") == {"c03", "c13", "c23", "new"}
        assert pages(lab) > PAGES


async def test_a_member_that_is_gone_and_one_of_another_session_are_seen_no_longer() -> None:
    async with full() as lab:
        rows = {row.name: row for row in lab.org.rows.values()}
        await members(lab, "s3")
        lab.org.change(rows["c03"], state="destroyed")
        lab.org.change(rows["c13"], labels={SESSION_LABEL: "s4"})
        turn_loop(5.1)
        assert await members(lab, "s3") == {"c23"}
        assert await members(lab, "s4") == {"c04", "c13", "c14", "c24"}
        assert pages(lab) == 2 * PAGES


async def test_a_listing_that_lacks_who_asks_is_believed_where_that_is_gone() -> None:
    """It is asked for by its id; what a listing lacks that is there is tried in test_daytona_current."""
    async with full() as lab:
        lost = replace(lab.resource("lost"), group="s3")
        found = await asyncio.gather(*(lab.provider.members(lost, direct) for _ in range(40)))
        assert {member.name for one in found for member in one} == {"c03", "c13", "c23"}
        assert pages(lab) == PAGES + 40
        turn_loop(4)
        await lab.provider.members(lost, direct)
        assert pages(lab) == PAGES + 41


async def test_a_listing_that_took_long_answers_for_twice_as_long() -> None:
    async with full() as lab:
        slow = Recorder(lambda _: turn_loop(4))
        await members(lab, "s3", slow)  # 12 s, so it is fresh for 24
        turn_loop(23)
        await members(lab, "s3", slow)
        assert len(slow.asked) == PAGES
        turn_loop(2)
        await members(lab, "s3", slow)
        assert len(slow.asked) == 2 * PAGES


async def test_a_listing_that_fails_answers_for_no_session() -> None:
    async with full() as lab:
        lab.sim.faults.add("status:500,skip=1,times=2")
        await refused(ServerError, lambda: members(lab, "s3"), key=lab.key)
        assert await members(lab, "s3") == {"c03", "c13", "c23"}
        assert pages(lab) == 3 + PAGES


async def test_a_listing_that_fails_later_leaves_no_older_one_behind() -> None:
    async with full() as lab:
        await members(lab, "s3")
        turn_loop(5.1)
        lab.sim.faults.add("status:500")
        for _ in range(2):
            await refused(ServerError, lambda: members(lab, "s3"), key=lab.key)


async def test_a_task_that_is_cancelled_while_it_lists_leaves_the_others_to_list() -> None:
    async with full() as lab:
        lab.sim.faults.add("hang,times=1")
        first = asyncio.create_task(members(lab, "s3"), name="first")
        await reached(lambda: lab.sim.faults.rules()[0][2] == 1)
        others = [asyncio.create_task(members(lab, "s3"), name=f"other {number}") for number in range(5)]
        first.cancel()
        assert await asyncio.gather(*others) == 5 * [{"c03", "c13", "c23"}]
        assert first.cancelled()
        assert pages(lab) == PAGES  # the one that hangs still is not counted


async def reached(condition: Callable[[], bool]) -> None:
    """Let the others run until this is so."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


async def test_an_unknown_session_has_no_members() -> None:
    async with full() as lab:
        assert await members(lab, "s99") == set()


async def test_a_listing_of_all_is_always_a_new_one() -> None:
    async with full() as lab:
        await members(lab, "s3")
        add(lab, "new", "s3")
        assert "new" in await lab.listed()
