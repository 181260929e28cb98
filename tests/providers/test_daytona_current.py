"""What an organisation holds now is read in parts at the same time where one listing takes too long, and misses nothing."""

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reaper.core.model import Resource
from reaper.providers.base import Call
from reaper.providers.daytona.current import LEAST, PARTS, SLOW, Current
from reaper.providers.daytona.sandboxes import sandbox
from tests.daytona.loop import JumpingLoop
from tests.providers.lab import direct

pytestmark = pytest.mark.anyio

FIRST = datetime(2026, 11, 21, 12, tzinfo=UTC)
PAGE, TAKES = 50, 2.0
MANY = 2 * PARTS * LEAST


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": JumpingLoop}


class Organisation:
    """Lists its sandboxes by the time of creation, several of which have the same one; each page takes its time."""

    def __init__(self, count: int = MANY, *, knows_filters: bool = True) -> None:
        self.rows = [
            {
                "id": f"id-{number}",
                "name": f"trial-{number}",
                "state": "stopped",
                "labels": {"harbor.managed": "true", "harbor.session_id": f"session-{number % 10}"},
                "createdAt": f"{(FIRST + timedelta(seconds=number // 7)).isoformat()[:-6]}.000Z",
            }
            for number in range(count)
        ]
        self.knows_filters = knows_filters
        self.pages = self.at_once = self.most = self.asked = 0
        self.current = Current(
            "rl-org", self._ask, self._read, self._never, self._state, add=self._add, add_newest=self._add_newest
        )

    async def _ask(self, filters: Mapping[str, str], cursor: str) -> dict[str, Any]:
        self.pages, self.at_once = self.pages + 1, self.at_once + 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(TAKES)
        self.at_once -= 1
        after, before = (filters.get(name) for name in ("createdAtAfter", "createdAtBefore"))
        rows = self.rows
        if self.knows_filters:
            rows = [
                row for row in rows if (not after or _at(row) >= _time(after)) and (not before or _at(row) <= _time(before))
            ]
        start = int(cursor or 0)
        following = str(start + PAGE) if len(rows) > start + PAGE else None
        return {"items": rows[start : start + PAGE], "nextCursor": following}

    async def _read(self, rows: Sequence[object], found: dict[str, Resource]) -> None:
        found |= {one.id: one for one in (sandbox(row, "rl-org") for row in rows)}

    async def _never(self, resource: Resource) -> Resource:
        raise AssertionError(resource)

    async def _add(self, found: dict[str, Resource], call: Call) -> None:
        """It lacks nothing."""

    async def _add_newest(self, found: dict[str, Resource], listed: AbstractSet[str], call: Call) -> None:
        """Likewise."""

    async def _state(self, id_: str) -> str | None:
        self.asked += 1
        return next((str(row["state"]) for row in self.rows if row["id"] == id_), None)

    def resource(self, number: int) -> Resource:
        return sandbox(self.rows[number], "rl-org")

    async def members(self, number: int) -> tuple[set[str], float]:
        """The names in its session, and how long that took."""
        clock = asyncio.get_running_loop().time
        began = clock()
        found = await self.current.members(self.resource(number), direct)
        return {one.name for one in found}, clock() - began


def _at(row: Mapping[str, Any]) -> datetime:
    return _time(row["createdAt"])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def session(number: int, count: int = MANY) -> set[str]:
    return {f"trial-{other}" for other in range(number % 10, count, 10)}


@pytest.mark.parametrize("seconds", [SLOW + 1, SLOW - 1], ids=["slow", "quick"])
async def test_where_the_listing_was_slow_it_is_read_in_parts_at_the_same_time(seconds: float) -> None:
    org = Organisation()
    org.current.listed([org.resource(number) for number in range(MANY)], seconds)
    found, took = await org.members(3)
    assert found == session(3)
    in_turn = TAKES * MANY / PAGE
    assert (org.most, took < in_turn / 4) == ((PARTS, True) if seconds > SLOW else (1, False))


async def test_a_server_that_does_not_know_the_filters_is_asked_for_everything_once_more() -> None:
    org = Organisation(knows_filters=False)
    org.current.listed([org.resource(number) for number in range(MANY)], SLOW + 1)
    assert (await org.members(3))[0] == session(3)
    pages = org.pages
    await asyncio.sleep(1000)
    assert (await org.members(4))[0] == session(4)
    assert org.pages - pages == MANY / PAGE  # from then on page by page


async def test_few_are_read_one_page_after_the_other_however_slow_that_is() -> None:
    count = PARTS * LEAST - 1
    org = Organisation(count)
    org.current.listed([org.resource(number) for number in range(count)], SLOW + 1)
    assert (await org.members(3))[0] == session(3, count)
    assert org.most == 1


async def test_what_is_gone_needs_no_new_view_and_what_the_view_lacks_does() -> None:
    org = Organisation()
    gone, hidden = org.resource(3), org.rows[14]
    everything = [org.resource(number) for number in range(MANY)]
    org.rows = [row for row in org.rows if row["id"] not in (gone.id, hidden["id"])]
    org.current.listed(everything, 1.0)
    assert {one.name for one in await org.current.members(gone, direct)} == session(3) - {gone.name}
    pages = org.pages
    assert (org.asked, pages) == (1, MANY / PAGE)
    org.rows.append(hidden)
    assert hidden["name"] in {one.name for one in await org.current.members(sandbox(hidden, "rl-org"), direct)}
    assert (org.asked, org.pages) == (2, 2 * pages)
