"""A plain HTTP client of a simulated Daytona server, for the tests."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

import aiohttp
from multidict import CIMultiDictProxy

from reaper.simulator.clock import Clock
from reaper.simulator.daytona.model import Sandbox
from reaper.simulator.daytona.rules import Behaviour
from reaper.simulator.server import Simulator
from reaper.simulator.world import SandboxSpec

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
# Everything takes an exact time, and the list is up to date, so that a test turns on one harshness at a time.
EXACT = Behaviour(
    pickup=(1, 1),
    destroy=(8, 8),
    start=(4, 4),
    stop=(4, 4),
    archive=(6, 6),
    activity=(12, 12),
    get_cache=0,
    list_lag=0,
    race=0,
)


class Answer(NamedTuple):
    status: int
    body: Any
    headers: CIMultiDictProxy[str]

    @property
    def message(self) -> str:
        text: str = self.body["message"]
        return text


class World:
    """One organisation on a frozen clock, and a client of it. An async context manager."""

    def __init__(self, behaviour: Behaviour = EXACT, seed: int = 7, **options: Any) -> None:
        self.clock = Clock(START, rate=0)
        self.sim = Simulator(seed=seed, clock=self.clock, behaviour=behaviour, **options)
        first = next(iter(self.sim.daytona.keys.values())).organisation
        self.org = self.sim.organisation(first)
        self.key = self.sim.api_key(first)

    async def __aenter__(self) -> Self:
        await self.sim.__aenter__()
        self.session = aiohttp.ClientSession()
        # aiohttp repeats a request once, DELETE included, when the connection breaks; the tests want to see it break.
        self.session._retry_connection = False
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.sim.__aexit__(None, None, None)

    def add(self, name: str = "", **fields: Any) -> Sandbox:
        return self.org.add(SandboxSpec(name=name, **fields))

    def turn(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    async def call(
        self,
        method: str,
        path: str,
        params: Sequence[tuple[str, str]] | dict[str, str] | None = None,
        key: str | None = None,
    ) -> Answer:
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        async with self.session.request(method, self.sim.daytona_url + path, params=params, headers=headers) as answer:
            return Answer(answer.status, await answer.json(), answer.headers)

    async def get(self, row: Sandbox | str) -> Answer:
        return await self.call("GET", f"/sandbox/{row if isinstance(row, str) else row.id}")

    async def delete(self, row: Sandbox | str) -> Answer:
        return await self.call("DELETE", f"/sandbox/{row if isinstance(row, str) else row.id}")

    async def stop(self, row: Sandbox) -> Answer:
        return await self.call("POST", f"/sandbox/{row.id}/stop")

    async def items(self, *params: tuple[str, str]) -> list[dict[str, Any]]:
        answer = await self.call("GET", "/sandbox", params)
        assert answer.status == 200, answer
        items: list[dict[str, Any]] = answer.body["items"]
        return items

    async def names(self, *params: tuple[str, str]) -> set[str]:
        return {item["name"] for item in await self.items(*params)}

    async def walk(self, *params: tuple[str, str]) -> list[str]:
        """The ids of all pages, as they come."""
        found: list[str] = []
        cursor = None
        while True:
            more = () if cursor is None else (("cursor", cursor),)
            answer = await self.call("GET", "/sandbox", (*params, *more))
            assert answer.status == 200, answer
            found += [item["id"] for item in answer.body["items"]]
            cursor = answer.body["nextCursor"]
            if cursor is None:
                return found
