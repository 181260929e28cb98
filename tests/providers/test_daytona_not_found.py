"""A 404 by id is the end of a sandbox only where nothing shows it: the server's guard makes one of each of its errors."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from aiohttp import web

from reaper.core.model import Resource
from reaper.core.safety_net import AUTO_STOP, Timer
from reaper.errors import InvalidError, NotFoundError, ServerError, UnreadableError
from reaper.providers.daytona import database
from reaper.providers.daytona.client import DaytonaProvider
from reaper.simulator.daytona.model import Sandbox
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


def not_found(row: Sandbox) -> str:
    """Likewise for one sandbox alone."""
    return f"status:404,path=/sandbox/{row.id},message=Sandbox with ID or name {row.id} not found"


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


async def test_after_an_accepted_deletion_a_404_is_no_end_while_the_database_shows_the_sandbox() -> None:
    async with Lab() as lab:
        row = lab.add("chess", runner_dead=True)
        await lab.provider.delete(lab.resource(row))
        lab.sim.faults.add(not_found(row))
        assert await remainder(lab, row) == "it is still destroying"


async def test_what_could_not_be_destroyed_is_not_gone_although_nothing_shows_it() -> None:
    async with Lab() as lab:
        row = lab.add("chess", destroy_fails=True)
        await lab.provider.delete(lab.resource(row))
        lab.turn(60)
        assert await remainder(lab, row) == "the platform failed to destroy it, and hides it since then"
        assert await lab.listed() == {}


@pytest.mark.parametrize("state", ["error", "build_failed"])
async def test_the_server_hides_an_errored_one_that_is_deleted_and_does_no_more(state: str) -> None:
    async with Lab() as lab:
        row = lab.add("chess", state=state)
        await lab.provider.delete(lab.resource(row))
        assert await remainder(lab, row) is None
        assert lab.requests() == 2


async def test_one_listing_tells_of_all_whose_deletion_was_accepted_before_it() -> None:
    """A sweep deletes thousands."""
    async with Lab() as lab:
        lab.add("in-error", state="error", desired="destroyed")
        rows = [lab.add(f"chess-{number}", state="archived") for number in range(300)]
        await asyncio.gather(*(lab.provider.delete(lab.resource(row)) for row in rows))
        assert set(await asyncio.gather(*(remainder(lab, row) for row in rows))) == {None}
        assert lab.requests("GET", "/sandbox/paginated") <= 2


async def test_more_deletions_than_a_page_are_all_found() -> None:
    async with Lab(table={"page_size": 10}) as lab:
        rows = [lab.add(f"chess-{number}", runner_dead=True) for number in range(35)]
        await asyncio.gather(*(lab.provider.delete(lab.resource(row)) for row in rows))
        for row in rows:
            lab.sim.faults.add(not_found(row))
        assert set(await asyncio.gather(*(remainder(lab, row) for row in rows))) == {"it is still destroying"}


async def test_what_was_deleted_after_a_listing_is_in_none_yet() -> None:
    async with Lab() as lab:
        first, second = lab.add("first", state="archived"), lab.add("second", runner_dead=True)
        await lab.provider.delete(lab.resource(first))
        assert await remainder(lab, first) is None
        await lab.provider.delete(lab.resource(second))
        lab.sim.faults.add(not_found(second))
        assert await remainder(lab, second) == "it is still destroying"


@pytest.mark.parametrize(
    "fault",
    [
        *("status:404,message=Sandbox with ID or name paginated not found", "status:400", "status:401", "status:403"),
        *("status:429", "status:500", "garbage", "empty", "hang"),
    ],
)
async def test_where_the_older_listing_does_not_answer_a_404_after_an_accepted_deletion_is_believed(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "WITHIN", 0.05)
    async with Lab() as lab:
        rows = [lab.add(f"chess-{number}", runner_dead=True) for number in range(3)]
        for row in rows:
            await lab.provider.delete(lab.resource(row))
        lab.sim.faults.add(f"{fault},path=/sandbox/paginated")
        for row in rows:
            lab.sim.faults.add(not_found(row))
            assert await remainder(lab, row) is None
        assert lab.requests("GET", "/sandbox/paginated") <= 1


async def test_a_server_that_knows_no_filter_by_name_is_understood_as_far_as_its_page_goes() -> None:
    deleted = {"id": "x", "name": "DESTROYED_x_1", "state": "started", "desiredState": "destroyed"}
    others = [{"id": f"y{number}", "state": "started", "desiredState": "started"} for number in range(9)]

    def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/paginated"):
            return web.json_response({"items": [deleted, *others], "total": 900, "page": 1, "totalPages": 90})
        return web.json_response(deleted)

    async with server(answer) as url, closing(client(url)) as reader:
        assert isinstance(reader, DaytonaProvider)
        for id_ in ("x", "z"):
            await reader.delete(named(id_))
        assert await reader.remainder(named("x"), direct) == "it is still started"
        assert await reader.remainder(named("z"), direct) is None


async def remainder(lab: Lab, row: Sandbox) -> str | None:
    """What is left of one that GET by id does not find."""
    await refused(NotFoundError, lambda: lab.provider.inspect(lab.resource(row)), key=lab.key)
    return await lab.provider.remainder(lab.resource(row), direct)


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
