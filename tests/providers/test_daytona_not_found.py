"""A 404 by id is the end of a sandbox only where nothing shows it: the server's guard makes one of each of its errors."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from aiohttp import web

from reaper.core.model import Resource
from reaper.core.safety_net import AUTO_STOP, Timer
from reaper.errors import InvalidError, NotFoundError, ServerError, UnreadableError
from reaper.providers.daytona.client import DaytonaProvider
from tests.providers.lab import Lab, client, closing, direct, envelope, named, page, refused, server

pytestmark = pytest.mark.anyio

ASKS: dict[str, Callable[[DaytonaProvider, Resource], Awaitable[object]]] = {
    "inspect": lambda provider, resource: provider.inspect(resource),
    "evidence": lambda provider, resource: provider.evidence(resource, 10),
    "stop": lambda provider, resource: provider.stop(resource, timedelta(seconds=10)),
    "archive": lambda provider, resource: provider.archive(resource),
    "set_timer": lambda provider, resource: provider.set_timer(resource, Timer(AUTO_STOP, 600)),
    "delete": lambda provider, resource: provider.delete(resource),
}
NOT_FOUND = "status:404,path=/sandbox/,message=Sandbox with ID or name chess not found"


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("state", ["started", "stopped", "error", "creating"])
async def test_a_404_for_what_the_listing_shows_is_not_its_end(ask: str, state: str) -> None:
    async with Lab() as lab:
        row = lab.add("chess", state=state, stuck=True)
        lab.sim.faults.add(NOT_FOUND)
        says = f"not found .*404.* and the listing shows it as {state}"
        error = await refused(UnreadableError, lambda: ASKS[ask](lab.provider, lab.resource(row)), says, key=lab.key)
        assert error.retryable


@pytest.mark.parametrize("ask", ASKS)
async def test_a_404_for_what_is_being_destroyed_or_is_not_listed_is_its_end(ask: str) -> None:
    async with Lab() as lab:
        going = lab.add("going", state="started", desired="destroyed")
        lab.sim.faults.add(NOT_FOUND)
        for id_ in (going.id, "no-such-id"):
            await refused(NotFoundError, lambda id_=id_: ASKS[ask](lab.provider, named(id_)), key=lab.key)  # type: ignore[misc]


@pytest.mark.parametrize("ask", ASKS)
async def test_a_404_for_what_the_index_alone_still_shows_is_its_end(ask: str) -> None:
    """The index may have missed a deletion, and would show the sandbox for ever."""
    async with Lab() as lab:
        for number in range(3):
            lab.add(f"other-{number}")
        row = lab.add("ghost", state="stopped")
        del lab.org.rows[row.id]
        await refused(NotFoundError, lambda: ASKS[ask](lab.provider, lab.resource(row)), key=lab.key)


async def test_a_404_is_no_end_where_the_index_does_not_show_it_yet() -> None:
    def answer(request: web.Request) -> web.Response:
        if not request.path.endswith("/paginated"):
            return page() if request.path.endswith("/sandbox") else envelope(404, "Sandbox with ID or name x not found")
        return web.json_response({"items": [{"id": "x", "state": "started"}], "total": 1, "page": 1, "totalPages": 1})

    async with server(answer) as url, closing(client(url)) as reader:
        await refused(UnreadableError, lambda: reader.inspect(named("x")), "the listing shows it as started")


async def test_a_404_is_no_end_where_the_older_listing_knows_no_filter_and_has_more_than_a_page() -> None:
    def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/paginated"):
            return web.json_response({"items": [{"id": "y", "state": "started"}], "total": 2, "page": 1, "totalPages": 2})
        shown = page({"id": "x", "state": "started"})
        return shown if request.path.endswith("/sandbox") else envelope(404, "Sandbox with ID or name x not found")

    async with server(answer) as url, closing(client(url)) as reader:
        await refused(UnreadableError, lambda: reader.inspect(named("x")))


async def test_another_sandbox_whose_id_begins_alike_is_not_the_one_that_is_gone() -> None:
    async with Lab() as lab:
        lab.add("longer", id="chess-2")
        await refused(NotFoundError, lambda: lab.provider.inspect(named("chess")), key=lab.key)


async def test_a_404_is_no_end_while_the_listing_fails_or_is_not_daytonas() -> None:
    for status, kind in ((500, ServerError), (404, InvalidError)):

        def answer(request: web.Request, status: int = status) -> web.Response:
            return envelope(status if request.path.endswith("/sandbox") else 404, "Sandbox with ID or name x not found")

        async with server(answer) as url, closing(client(url)) as reader:
            await refused(kind, lambda: reader.inspect(named("x")))


async def test_after_an_accepted_deletion_a_404_needs_no_listing() -> None:
    """A sweep of thousands would list for each; and a listing lags by seconds."""
    async with Lab() as lab:
        row = lab.add("chess", state="archived")
        await lab.provider.delete(lab.resource(row))
        await refused(NotFoundError, lambda: lab.provider.inspect(lab.resource(row)), key=lab.key)
        assert lab.requests() == 2


async def test_a_refused_deletion_is_no_accepted_one() -> None:
    async with Lab() as lab:
        row = lab.add("chess")
        lab.sim.faults.add("status:409,method=DELETE,message=Sandbox state change in progress")
        with pytest.raises(Exception, match="in progress"):
            await lab.provider.delete(lab.resource(row))
        lab.sim.faults.add(NOT_FOUND)
        await refused(UnreadableError, lambda: lab.provider.inspect(lab.resource(row)), key=lab.key)


async def test_one_that_is_shown_as_destroyed_is_gone() -> None:
    """Evicted sandboxes stay retrievable by id for a day."""
    async with Lab() as lab:
        row = lab.add("evicted", extra={"state": "destroyed", "desiredState": "destroyed"})
        await refused(NotFoundError, lambda: lab.provider.inspect(lab.resource(row)), "is destroyed", key=lab.key)


async def test_what_is_called_as_one_that_is_gone_is_another_one() -> None:
    """A sandbox without a name of its own is called by its id, and so is the one that is made in its place."""
    async with Lab() as lab:
        first = lab.add()
        lab.org.change(first, state="destroyed")
        lab.add(first.id)
        await refused(
            NotFoundError, lambda: lab.provider.inspect(lab.resource(first)), "another one is called so", key=lab.key
        )


async def test_the_listing_is_asked_for_the_one_sandbox() -> None:
    asked: list[str] = []

    def answer(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        return page({"id": "x2", "state": "started"}) if request.path.endswith("/sandbox") else envelope(404, "not found")

    async with server(answer) as url, closing(client(url)) as reader:
        await refused(NotFoundError, lambda: reader.inspect(named("x")))
        paths = [path.partition("?")[0] for path in asked if path.endswith("&id=x")]
        assert [path.removeprefix("/api") for path in paths] == ["/sandbox/paginated", "/sandbox"]
        await reader.list(direct)
