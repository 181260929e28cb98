"""Credentials, permissions, rate limits, maintenance and the envelope of errors, as in facts/daytona.md."""

import pytest

from reaper.simulator.daytona.limits import Limit
from tests.simulator.daytona_client import EXACT, World

pytestmark = pytest.mark.anyio


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
