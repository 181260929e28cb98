"""A Daytona organisation and a provider for it, odd servers, and what every error must not tell."""

import asyncio
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import pytest
from aiohttp import web

from reaper.core.model import Resource
from reaper.errors import ReaperError
from reaper.providers.base import Inventory
from reaper.providers.daytona.client import DaytonaProvider, DaytonaReader
from reaper.providers.daytona.sandboxes import sandbox
from reaper.providers.daytona.settings import DaytonaTable
from reaper.retry.budget import Budget
from reaper.simulator.daytona.model import Sandbox
from tests.simulator.daytona_client import World

T = TypeVar("T")
Error = TypeVar("Error", bound=ReaperError)

NAME = "rl-org"
KEY = "dtn_" + "5ec4e7" * 10


class TurnedLoop(asyncio.SelectorEventLoop):
    """Its clock can be turned forward; otherwise it passes as the real one does."""

    def __init__(self) -> None:
        self.turned = 0.0
        super().__init__()

    def time(self) -> float:
        return super().time() + self.turned


def turn_loop(seconds: float) -> None:
    """Turn the clock of the loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TurnedLoop)
    loop.turned += seconds


async def direct(what: str, function: Callable[[], Awaitable[T]]) -> T:
    """A call without retries: see ``providers.base.Call``."""
    return await function()


class Recorder:
    """A call that does something before each request.

    Args:
        before: is given the number of the request, from 1.

    Attributes:
        asked: what each request was for.
    """

    def __init__(self, before: Callable[[int], object] = lambda _: None) -> None:
        self.asked: list[str] = []
        self._before = before

    async def __call__(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        self.asked.append(what)
        self._before(len(self.asked))
        return await function()


class Observed(Budget):
    """A budget that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, int, float]] = []

    def observe(self, limit: int, remaining: int, reset: float, asked_at: float) -> None:
        assert asked_at <= asyncio.get_running_loop().time()
        self.told.append((limit, remaining, reset))
        super().observe(limit, remaining, reset, asked_at)


def client(url: str, key: str = KEY, kind: type[DaytonaReader] = DaytonaProvider, **table: Any) -> DaytonaReader:
    """A client of the organisation at ``url``."""
    return kind(DaytonaTable(name=NAME, api_url=url, **table), key, Observed(), Observed())


@asynccontextmanager
async def closing(reader: DaytonaReader) -> AsyncIterator[DaytonaReader]:
    """The client, closed at the end of the block."""
    try:
        yield reader
    finally:
        await reader.close()


class Lab(World):
    """A simulated organisation on a frozen clock, and a provider for it.

    Args:
        table: fields of [[daytona]].
    """

    def __init__(self, *args: Any, table: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.table = table or {}
        self._clients: list[DaytonaReader] = []

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        provider = self.client()
        assert isinstance(provider, DaytonaProvider)
        self.provider = provider
        return self

    async def __aexit__(self, *error: object) -> None:
        for each in self._clients:
            await each.close()
        await super().__aexit__(*error)

    def client(self, key: str | None = None, kind: type[DaytonaReader] = DaytonaProvider, **table: Any) -> DaytonaReader:
        """Another client, closed with the lab."""
        made = client(self.sim.daytona_url, key or self.key, kind, **{**self.table, **table})
        self._clients.append(made)
        return made

    async def listed(self) -> dict[str, Resource]:
        """What the provider lists, by name."""
        return by_name(await self.provider.list(direct))

    def resource(self, row: Sandbox | str) -> Resource:
        """The sandbox (or any id) as the provider's methods take it."""
        return named(row if isinstance(row, str) else row.id)

    def requests(self, method: str = "", route: str = "", status: int | None = None) -> int:
        """How many requests the server has met."""
        return self.sim.daytona.traffic.count(method, route, status)


def named(id_: str) -> Resource:
    """A sandbox of which nothing is known but the id, and that it outlives a stop."""
    return sandbox({"id": id_, "autoDeleteInterval": -1}, NAME)


def by_name(inventory: Inventory) -> dict[str, Resource]:
    found = {resource.name: resource for resource in inventory.resources}
    assert len(found) == len(inventory.resources)
    return found


@asynccontextmanager
async def server(
    handler: Callable[[web.Request], web.StreamResponse], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A server that answers every request with what ``handler`` makes; its URL."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.Request)
        return handler(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/api"
    finally:
        await runner.cleanup()


def page(*items: object, cursor: object = None, **headers: str) -> web.Response:
    """A page of the listing."""
    return web.json_response(
        {"items": items, "nextCursor": cursor}, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def envelope(status: int, message: object, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error as Daytona words it."""
    body = {"path": "/api/sandbox", "timestamp": "", "statusCode": status, "error": "Error", "message": message}
    return web.json_response(body, status=status, headers=headers)


async def refused(
    kind: type[Error], function: Callable[[], Awaitable[object]], match: str | None = None, *secrets: str, key: str = KEY
) -> Error:
    """Await ``function()``, which must raise exactly this error, and check that it tells neither key nor secrets."""
    with pytest.raises(kind, match=match) as caught:
        await function()
    assert type(caught.value) is kind
    check_secrets(caught.value, key, *secrets)
    return caught.value


def check_secrets(error: BaseException, *secrets: str) -> None:
    """No text of the error, or of what led to it, holds one of these."""
    for text in texts(error):
        for secret in secrets:
            assert secret not in text


def texts(error: BaseException) -> Iterator[str]:
    """All that anybody may print of an error."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    yield "".join(traceback.format_exception(error))
    while todo:
        each = todo.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            todo += [each.__cause__, each.__context__]
            yield from (str(each), repr(each), repr(each.__dict__))
