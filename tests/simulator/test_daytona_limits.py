"""Credentials, permissions, rate limits, maintenance and the envelope of errors, as in facts/daytona.md."""

import pytest

from reaper.simulator.daytona.limits import Limit
from tests.simulator.daytona_client import EXACT, World

pytestmark = pytest.mark.anyio
THROTTLED = "ThrottlerException: Too Many Requests"


async def test_the_envelope_of_every_error() -> None:
    async with World() as world:
        answer = await world.call("GET", "/sandbox/unknown", {"verbose": "true"})
        assert answer.body == {
            "path": "/api/sandbox/unknown?verbose=true",
            "timestamp": "2026-11-21T12:00:00.000Z",
            "statusCode": 404,
            "error": "Not Found",
            "message": "Sandbox with ID or name unknown not found",
        }
        for method, path in (("GET", "/nothing"), ("PATCH", "/sandbox")):
            answer = await world.call(method, path)
            assert (answer.status, answer.message) == (404, f"Cannot {method} /api{path}")


async def test_the_headers_tell_the_budget_of_the_group() -> None:
    async with World() as world:
        world.sim.daytona.set_limits("default", general=Limit(5, 10), lifecycle=Limit(2, 20))
        row = world.add("chess")
        first = await world.call("GET", "/sandbox")
        assert first.headers["X-RateLimit-Limit-authenticated"] == "5"
        assert first.headers["X-RateLimit-Remaining-authenticated"] == "4"
        assert first.headers["X-RateLimit-Reset-authenticated"] == "10"
        assert not [name for name in first.headers if name.endswith("lifecycle")]
        world.turn(3.5)
        assert (await world.get("unknown")).headers["X-RateLimit-Remaining-authenticated"] == "3"
        second = await world.get(row)
        assert second.headers["X-RateLimit-Remaining-authenticated"] == "2"
        assert second.headers["X-RateLimit-Reset-authenticated"] == "7"
        deleted = await world.delete(row)
        assert deleted.headers["X-RateLimit-Limit-sandbox-lifecycle"] == "2"
        assert deleted.headers["X-RateLimit-Remaining-sandbox-lifecycle"] == "1"
        assert deleted.headers["X-RateLimit-Reset-sandbox-lifecycle"] == "20"
        assert not [name for name in deleted.headers if name.endswith("authenticated")]
        world.turn(6.5)
        assert (await world.get(row)).headers["X-RateLimit-Remaining-authenticated"] == "4"


async def test_over_the_limit_the_group_is_blocked_for_a_whole_window() -> None:
    async with World() as world:
        world.sim.daytona.set_limits("default", general=Limit(3, 10), lifecycle=Limit(1, 20))
        row = world.add("chess")
        for _ in range(3):
            assert (await world.call("GET", "/sandbox")).status == 200
        world.turn(9)  # a second before the window would end
        over = await world.call("GET", "/sandbox")
        assert (over.status, over.message) == (429, THROTTLED)
        assert over.headers["Retry-After-authenticated"] == "10"
        assert not [name for name in over.headers if name.startswith("X-RateLimit") or name == "Retry-After"]
        assert (await world.delete(row)).status == 200  # the other group has its own budget
        over = await world.delete(row)
        assert (over.status, over.headers["Retry-After-sandbox-lifecycle"]) == (429, "20")
        world.turn(9.5)
        assert (await world.call("GET", "/sandbox")).headers["Retry-After-authenticated"] == "1"
        world.turn(0.8)  # Retry-After plus 0.3 s
        assert (await world.call("GET", "/sandbox")).status == 200


async def test_requests_made_while_blocked_count() -> None:
    async with World() as world:
        world.sim.daytona.set_limits("default", general=Limit(10, 10))

        async def ask() -> int:
            return (await world.call("GET", "/sandbox")).status

        assert [await ask() for _ in range(11)] == [200] * 10 + [429]
        for _ in range(200):  # every half second, for 100 s: never let in again
            world.turn(0.5)
            assert await ask() == 429
        world.turn(10.3)
        assert await ask() == 200


async def test_all_clients_and_keys_of_an_organisation_share_its_budget_and_no_other() -> None:
    async with World(EXACT, sandboxes={"a": 1, "b": 1}) as world:
        for name in "ab":
            world.sim.daytona.set_limits(name, general=Limit(2, 10))
        second = world.sim.daytona.add_key("a")
        assert (await world.call("GET", "/sandbox")).status == 200
        assert (await world.call("GET", "/sandbox", key=second)).status == 200
        assert (await world.call("GET", "/sandbox", key=second)).status == 429
        assert (await world.call("GET", "/sandbox")).status == 429
        assert (await world.call("GET", "/sandbox", key=world.sim.api_key("b"))).status == 200


async def test_a_wrong_key_costs_the_organisation_nothing() -> None:
    async with World() as world:
        world.sim.daytona.set_limits("default", general=Limit(2, 10))
        await world.call("GET", "/sandbox", key="wrong")
        assert (await world.call("GET", "/sandbox")).headers["X-RateLimit-Remaining-authenticated"] == "1"
