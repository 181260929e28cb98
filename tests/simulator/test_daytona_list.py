"""The list of facts/daytona.md: its pages, its filters, and what it loses."""

import base64
import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tests.simulator.daytona_client import START, World

pytestmark = pytest.mark.anyio
BY_CREATION = ("sort", "createdAt")


def _fill(world: World, number: int, **fields: Any) -> None:
    """Sandboxes that were created 1.000017 s apart, the oldest first."""
    step = timedelta(seconds=1, microseconds=17)
    for place in range(number):
        world.add(f"s{place:04d}", created=START - timedelta(hours=3) + place * step, **fields)


async def test_one_item_has_exactly_the_fields_of_the_real_server() -> None:
    async with World() as world:
        world.add("chess", created=START - timedelta(hours=1, microseconds=-123999))
        (item,) = await world.items()
        assert item == {
            "id": item["id"],
            "organizationId": world.org.id,
            "name": "chess",
            "target": "us",
            "runnerId": item["runnerId"],
            "sandboxClass": "container",
            "state": "started",
            "desiredState": "started",
            "snapshot": "daytonaio/sandbox:0.5.0-slim",
            "user": "daytona",
            "errorReason": None,
            "recoverable": False,
            "public": False,
            "cpu": 1,
            "gpu": 0,
            "memory": 1,
            "disk": 3,
            "labels": {},
            "backupState": "None",
            "autoStopInterval": 0,
            "autoArchiveInterval": 10080,
            "autoDeleteInterval": -1,
            "createdAt": "2026-11-21T11:00:00.123Z",
            "updatedAt": "2026-11-21T11:00:00.123Z",
            "lastActivityAt": "2026-11-21T11:00:00.123Z",
            "daemonVersion": None,
            "toolboxProxyUrl": item["toolboxProxyUrl"],
            "networkBlockAll": False,
            "spot": False,
            "autoPauseInterval": 0,
            "queueTimeout": None,
        }
        assert len(item["id"]) == 36
        assert item["toolboxProxyUrl"].startswith("http://")


async def test_pages_of_a_hundred_up_to_two_hundred() -> None:
    async with World() as world:
        _fill(world, 250)
        answer = await world.call("GET", "/sandbox")
        assert set(answer.body) == {"items", "nextCursor"}
        assert len(answer.body["items"]) == 100
        answer = await world.call("GET", "/sandbox", {"limit": "200", "cursor": answer.body["nextCursor"]})
        assert len(answer.body["items"]) == 150
        assert answer.body["nextCursor"] is None
        for limit in ("0", "201", "abc", "-1", "1.5", ""):
            answer = await world.call("GET", "/sandbox", {"limit": limit})
            assert (answer.status, answer.body["error"]) == (400, "Bad Request"), limit


async def test_cursors_are_base64_json_and_wrong_ones_are_distinguished() -> None:
    async with World() as world:
        _fill(world, 3)

        async def at(content: object) -> tuple[int, Any]:
            text = content if isinstance(content, str) else base64.b64encode(json.dumps(content).encode()).decode()
            answer = await world.call("GET", "/sandbox", {"cursor": text, "sort": "createdAt"})
            return answer.status, answer.body.get("items")

        answer = await world.call("GET", "/sandbox", {"limit": "1", "sort": "createdAt"})
        cursor = json.loads(base64.b64decode(answer.body["nextCursor"]))
        (item,) = answer.body["items"]
        assert cursor == {"sortValue": item["createdAt"], "id": item["id"]}
        assert (await at("%%%"))[0] == 400
        assert (await at(base64.b64encode(b"no json").decode()))[0] == 400
        odd: list[object] = [{"a": 1}, {}, [], 17, {"sortValue": 5, "id": "x"}, {"sortValue": "soon", "id": "x"}]
        odd += [{**cursor, "id": 5}, {**cursor, "sortValue": None}]
        for wrong in odd:
            assert await at(wrong) == (200, [])


async def test_unknown_parameters_are_ignored_without_a_word() -> None:
    async with World() as world:
        world.add("chess")
        assert await world.names(("colour", "red")) == {"chess"}


@pytest.mark.parametrize(
    "params",
    [("sort", "updatedAt"), ("sort", "state"), ("order", "up"), ("createdAtAfter", "yesterday")],
)
async def test_wrong_values_are_refused(params: tuple[str, str]) -> None:
    async with World() as world:
        assert (await world.call("GET", "/sandbox", [params])).status == 400


@pytest.mark.parametrize(
    ("sort", "order", "expected"),
    [
        ("lastActivityAt", "desc", "bac"),
        ("createdAt", "asc", "bca"),
        ("createdAt", "desc", "acb"),
    ],
)
async def test_sorting(sort: str, order: str, expected: str) -> None:
    async with World() as world:
        hour = timedelta(hours=1)
        world.add("a", cpu=2, memory=8, disk=9, created=START - 1 * hour, active=START - 1 * hour)
        world.add("b", cpu=4, memory=1, disk=3, created=START - 3 * hour, active=START)
        world.add("c", cpu=1, memory=4, disk=5, created=START - 2 * hour, active=START - 2 * hour)
        items = await world.items(("sort", sort), ("order", order))
        assert "".join(item["name"] for item in items) == expected
        walked = await world.walk(("sort", sort), ("order", order), ("limit", "1"))
        assert walked == [item["id"] for item in items]


async def test_the_default_order_loses_what_has_no_activity() -> None:
    async with World() as world:
        _fill(world, 957 - 96)
        for number in range(96):
            world.add(f"m{number}", no_activity=True, created=START - timedelta(hours=2))
        default = await world.walk()
        assert len(default) == len(set(default)) == 957 - 96
        assert len(await world.walk(("sort", "lastActivityAt"), ("order", "asc"))) >= 957 - 96
        assert len(set(await world.walk(BY_CREATION))) == 957


async def test_the_default_order_loses_what_is_used_during_the_walk() -> None:
    async with World() as world:
        _fill(world, 300)
        rows = sorted(world.org.rows.values(), key=lambda row: row.created)

        async def walk(*params: tuple[str, str]) -> list[str]:
            found: list[str] = []
            cursor: str | None = ""
            while cursor is not None:
                answer = await world.call("GET", "/sandbox", (*params, *((("cursor", cursor),) if cursor else ())))
                found += [item["id"] for item in answer.body["items"]]
                cursor = answer.body["nextCursor"]
                world.turn(15)
                world.org.touch(rows[0])  # the last one in the order, until it is used
                world.turn(15)
            return found

        found = await walk()
        assert len(found) == 299
        assert rows[0].id not in found
        assert rows[0].id in await walk(BY_CREATION)


async def test_createdat_asc_returns_some_rows_twice_and_desc_is_exact() -> None:
    async with World() as world:
        _fill(world, 500)
        for number in range(5):  # one millisecond
            world.add(f"same{number}", created=START - timedelta(hours=1, microseconds=-number * 100))
        up = await world.walk(BY_CREATION, ("order", "asc"))
        assert len(set(up)) == 505
        again = [own for own, times in Counter(up).items() if times > 1]
        assert 4 <= len(again) <= 12
        down = await world.walk(BY_CREATION, ("limit", "2"))
        assert len(down) == len(set(down)) == 505


async def test_what_was_created_since_is_listed_alone() -> None:
    async with World() as world:
        for number in range(3):
            world.add(f"s{number}", created=START - number * timedelta(hours=1))
        for since in ("2026-11-21T11:00:00.000Z", "2026-11-21T12:00:00+01:00"):
            assert await world.names(("createdAtAfter", since)) == {"s0", "s1"}
        async with world.session.get(  # a plus that was not encoded is a blank
            f"{world.sim.daytona_url}/sandbox?createdAtAfter=2026-11-21T12:00:00+01:00",
            headers={"Authorization": f"Bearer {world.key}"},
        ) as answer:
            assert answer.status == 400


async def test_the_deprecated_list() -> None:
    async with World() as world:
        _fill(world, 25)
        answer = await world.call("GET", "/sandbox/paginated", {"page": "3", "limit": "10"})
        assert {key: value for key, value in answer.body.items() if key != "items"} == {
            "total": 25,
            "page": 3,
            "totalPages": 3,
        }
        assert [item["name"] for item in answer.body["items"]] == [f"s{number:04d}" for number in (4, 3, 2, 1, 0)]
        for wrong in ({"page": "0"}, {"limit": "201"}, {"page": "x"}):
            assert (await world.call("GET", "/sandbox/paginated", wrong)).status == 400


async def test_a_page_of_many_costs_what_it_shows() -> None:
    """No sorting for each page: 4,000 rows, 20 pages, though a row changes its place before each."""
    async with World() as world:
        _fill(world, 4_000)
        rows = list(world.org.rows.values())
        looked = 0
        real = type(world.org.views.fresh).walk

        def walk(*arguments: Any, **options: Any) -> Any:
            nonlocal looked
            for row in real(*arguments, **options):
                looked += 1
                yield row

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(world.org.views.fresh), "walk", walk)
            cursor: str | None = ""
            for number in range(20):
                world.org.change(rows[number], cpu=2)
                answer = await world.call("GET", "/sandbox", {"limit": "200", "sort": "createdAt", "cursor": cursor or ""})
                cursor = answer.body["nextCursor"]
        assert cursor is None
        assert looked == 4_000 + 19  # each page looks one row further
