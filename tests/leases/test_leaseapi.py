"""Leases over HTTP: who may do what, and the messages to clients."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from reaper.leases.documents import LONGEST
from reaper.leases.http_api import PATH, LeaseApi, lease_app
from reaper.leases.record import Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from reaper.leases.watcher import LeaseBook
from reaper.providers.memory import VirtualClock
from tests.library.service import Quiet
from tests.sweep.lab import NOW

HOLDER = {"host": "gpu-1", "pid": 4711, "command": "harbor run", "user": "ada"}
TOKEN = "s3cret"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
CLAIMABLE = ("org.testcontainers.*", "run")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


class Client:
    """Asks, and gives status and body."""

    def __init__(self, session: aiohttp.ClientSession, file: LeaseFile, book: LeaseBook) -> None:
        self.session, self.file, self.book = session, file, book
        self.transports: list[Any] = []  # the server's ends of the connections

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        async with self.session.request(method, path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def take(self, *claims: dict[str, list[str]], **more: Any) -> tuple[int, Any]:
        return await self.ask("POST", "/leases", {"holder": HOLDER, "claims": list(claims), **more})

    def hold(self, name: str) -> "aiohttp.client._RequestContextManager":
        """An answer without an end."""
        return self.session.post("/leases", json={"holder": HOLDER, "id": name, "hold": True})

    async def let_one_expire(self) -> None:
        """As long as one is waited for that is not there any more."""
        async with self.hold("sentinel") as answer:
            answer.close()
        await self.until("sentinel", LeaseState.EXPIRED)

    async def until(self, name: str, state: LeaseState) -> None:
        with anyio.fail_after(60):
            while self.records()[name].state is not state:  # noqa: ASYNC110 - another process's file
                await anyio.sleep(0.05)

    def records(self) -> dict[str, LeaseRecord]:
        return {record.id: record for record in self.file.records()}


@asynccontextmanager
async def serving(
    folder: Path, *, token: str | None = None, local: bool = True, watcher: int = 1, lives: bool | None = None
) -> AsyncIterator[Client]:
    file = LeaseFile(folder / NAME)
    second = timedelta(seconds=1)
    book = LeaseBook(file, VirtualClock(NOW), Quiet(), token=watcher, lives=lambda _: lives, connection=second)
    book.open()
    api = LeaseApi(book, token=token, claimable=CLAIMABLE)

    transports = list[Any]()

    @web.middleware
    async def noted(request: web.Request, handler: Handler) -> web.StreamResponse:
        transports.append(request.transport)
        return await handler(request)

    app = web.Application(middlewares=[noted])
    app.add_subapp(PATH, lease_app(lambda: api, local=lambda: local))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with (
            anyio.create_task_group() as group,
            aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session,
        ):
            group.start_soon(book.run)
            client = Client(session, LeaseFile(file.file), book)
            client.transports = transports
            yield client
            group.cancel_scope.cancel()
    finally:
        await runner.cleanup()


async def test_a_holder_whose_machine_answers_no_more_lived_until_its_last_answer(tmp_path: Path) -> None:
    """The kernel breaks such a connection a quarter of an hour later."""
    lost = list[tuple[str, timedelta]]()
    async with serving(tmp_path) as client:
        client.book.lost = lambda id_, silent_for=timedelta(0): lost.append((id_, silent_for))  # type: ignore[method-assign]
        for name, error in (("gone", OSError(errno.ETIMEDOUT, "timed out")), ("killed", None)):
            async with client.hold(name) as answer:
                await answer.content.readline()
                (transport,) = (t for t in client.transports if not t.is_closing())
                transport._force_close(error)
                with anyio.fail_after(60):
                    while not lost or lost[-1][0] != name:  # noqa: ASYNC110 - nothing tells
                        await anyio.sleep(0.01)
    assert [id_ for id_, _ in lost] == ["gone", "killed"]
    assert lost[0][1] > timedelta(0) == lost[1][1]


async def test_a_lease_from_its_taking_to_its_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        status, lease = await client.take({"labels": ["org.testcontainers.session-id=abc"]})
        assert status == 201
        id_ = lease["id"]
        assert lease["label"] == f"reaper.lease={id_}"
        assert (lease["state"], lease["holder"], lease["heartbeat_seconds"]) == ("live", HOLDER, 60)
        assert lease["claims"] == [
            {"labels": ["org.testcontainers.session-id=abc"], "names": [], "images": [], "projects": []}
        ]
        assert client.records()[id_].state is LeaseState.LIVE
        status, again = await client.ask("PUT", f"/leases/{id_}")
        assert (status, again["id"], again["claims"]) == (200, id_, lease["claims"])
        status, listed = await client.ask("GET", "/leases")
        assert [one["id"] for one in listed["leases"]] == [id_]
        status, ended = await client.ask("DELETE", f"/leases/{id_}")
        assert (status, ended["state"], ended["cause"]) == (200, "released", "released")
        assert client.records()[id_].state is LeaseState.RELEASED
        for method in ("PUT", "DELETE"):
            status, gone = await client.ask(method, f"/leases/{id_}")
            assert (status, gone["error"]) == (
                404,
                f"no lease {id_} is open here; what it covered is not covered any more",
            )


async def test_one_that_is_asked_for_twice_is_one(tmp_path: Path) -> None:
    """The answer to a POST may be lost."""
    async with serving(tmp_path) as client:
        assert (await client.take(id="mine"))[0] == 201
        assert (await client.take(id="mine"))[0] == 200
        status, other = await client.take({"labels": ["run=x"]}, id="mine")
        assert (status, other["error"]) == (409, "lease mine is there already, and is another one")
        await client.ask("DELETE", "/leases/mine")
        status, dead = await client.take(id="mine")
        assert (status, dead["error"]) == (409, "lease mine has ended, or is another reaper's; take another id")
        assert len(client.records()) == 1


REFUSED = {
    "names": ({"names": ["chess-*"]}, "claims by name, image or project need a token"),
    "images": ({"images": ["tb__*"]}, "need a token"),
    "projects": ({"projects": ["p"]}, "need a token"),
    "a label without a value": ({"labels": ["run"]}, "claimed with its value"),
    "an empty value": ({"labels": ["run="]}, "claimed with its value"),
    "a glob": ({"labels": ["run=*"]}, "without globs"),
    "a set": ({"labels": ["run=[ab]"]}, "without globs"),
    "another's label": ({"labels": ["run=x", "team=rl"]}, "label 'team': [leases] claimable does not have this key"),
    "Compose's": ({"labels": ["com.docker.compose.project=p"]}, "claimable does not have"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_without_a_token_little_can_be_claimed(tmp_path: Path, name: str) -> None:
    claim, problem = REFUSED[name]
    async with serving(tmp_path) as client:
        status, refused = await client.take(claim)
        assert status == 403
        assert problem in refused["error"]
        assert client.records() == {}
    async with serving(tmp_path, token=TOKEN) as client:
        assert (await client.ask("POST", "/leases", {"holder": HOLDER, "claims": [claim]}, **BEARER))[0] == 201


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}])
@pytest.mark.parametrize("local", [True, False])
async def test_where_there_is_a_token_nothing_goes_without_it(tmp_path: Path, headers: dict[str, str], local: bool) -> None:
    async with serving(tmp_path, token=TOKEN, local=local) as client:
        for method, path in (("GET", "/leases"), ("POST", "/leases"), ("PUT", "/leases/x"), ("DELETE", "/leases/x")):
            status, refused = await client.ask(method, path, {"holder": HOLDER}, **headers)
            assert status == 401
            assert TOKEN not in json.dumps(refused)
        assert (await client.ask("GET", "/leases", **BEARER))[0] == 200


async def test_an_address_that_others_reach_needs_a_token(tmp_path: Path) -> None:
    async with serving(tmp_path, local=False) as client:
        status, refused = await client.take()
        assert status == 403
        assert "token_file or token_env" in refused["error"]


BAD = {
    "no holder": ({}, "holder: Field required"),
    "an unknown key": ({"holder": HOLDER, "label": "x"}, "label: Extra inputs are not permitted"),
    "no host": ({"holder": {"pid": 1}}, "holder.host: Field required"),
    "a pid that is none": ({"holder": {"host": "a", "pid": "1"}}, "holder.pid: Input should be a valid integer"),
    "an id with a slash": ({"holder": HOLDER, "id": "a/b"}, "id: String should match pattern"),
    "a claim of nothing": ({"holder": HOLDER, "claims": [{}]}, "an empty claim claims nothing"),
    "labels that are no list": ({"holder": HOLDER, "claims": [{"labels": "run=x"}]}, "claims.0.labels: "),
    "an empty label": ({"holder": HOLDER, "claims": [{"labels": [""]}]}, "claims.0.labels.0: "),
    "too many claims": ({"holder": HOLDER, "claims": [{"labels": ["run=x"]}] * 101}, "claims: "),
    "no object": ([], "Input should be an object"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_named(tmp_path: Path, name: str) -> None:
    body, problem = BAD[name]
    async with serving(tmp_path) as client:
        status, refused = await client.ask("POST", "/leases", body)
        assert status == 400
        assert refused["error"].startswith(problem)
        assert client.records() == {}


async def test_what_is_no_lease_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        async with client.session.post("/leases", data=b"holder=x", headers={"Content-Type": "text/plain"}) as answer:
            assert answer.status == 415
        kind = {"Content-Type": "application/json"}
        async with client.session.post("/leases", data=b"{" * (LONGEST + 1), headers=kind) as answer:
            assert answer.status == 413
        async with client.session.post("/leases", data=b"{", headers=kind) as answer:
            assert answer.status == 400
        assert (await client.ask("PATCH", "/leases"))[0] == 405
        assert (await client.ask("POST", "/leases/x", {}))[0] == 405
        assert client.records() == {}


async def test_while_the_file_cannot_be_used_no_client_gets_a_lease(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        client.file.file.write_bytes(b"")
        status, refused = await client.take()
        assert status == 503
        assert "cannot be read: " in refused["error"]
        assert (await client.ask("GET", "/leases"))[0] == 503


async def test_others_leases_are_listed_and_not_touched(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        client.book.take(Liveness.PROCESS, Holder("gpu-1", 5), token=77, name="process")
        assert [one["id"] for one in (await client.ask("GET", "/leases"))[1]["leases"]] == ["process"]
        assert (await client.ask("DELETE", "/leases/process"))[0] == 404


async def test_of_a_lease_that_another_process_watches_no_holder_hears_that_it_has_ended(tmp_path: Path) -> None:
    """Of two services on a state directory, as when one takes the other's place."""
    async with serving(tmp_path) as first:
        assert (await first.take(id="mine"))[0] == 201
        async with serving(tmp_path, watcher=2, lives=True) as second:
            body = {"holder": HOLDER, "id": "mine"}
            for method, path in (("POST", "/leases"), ("PUT", "/leases/mine"), ("DELETE", "/leases/mine")):
                status, refused = await second.ask(method, path, body if method == "POST" else None)
                problem = "lease mine is watched by another process that shares the state directory; ask again"
                assert (status, refused["error"]) == (503, problem)
            status, refused = await second.ask("POST", "/leases", {**body, "holder": {**HOLDER, "pid": 4712}})
            assert (status, refused["error"]) == (409, "lease mine has ended, or is another reaper's; take another id")
        assert first.records()["mine"].state is LeaseState.LIVE


async def test_an_open_connection_is_a_lease_until_it_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        async with client.hold("mine") as answer:
            assert answer.status == 201
            lease = json.loads(await answer.content.readline())
            assert (lease["id"], lease["state"], lease["heartbeat_seconds"]) == ("mine", "live", None)
            assert client.records()["mine"].sort is Liveness.CONNECTION
            await client.let_one_expire()
            assert client.records()["mine"].state is LeaseState.LIVE
            answer.close()
        await client.until("mine", LeaseState.EXPIRED)
        assert client.records()["mine"].cause == "its connection was gone for 1 s"


async def test_two_connections_are_one_lease_and_the_last_one_ends_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        async with client.hold("mine") as first:
            async with client.hold("mine") as second:
                assert (first.status, second.status) == (201, 200)
                second.close()
            await client.let_one_expire()
            assert client.records()["mine"].state is LeaseState.LIVE
            first.close()
        await client.until("mine", LeaseState.EXPIRED)


async def test_who_comes_back_in_time_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        async with client.hold("mine") as first:
            first.close()
        await client.until("mine", LeaseState.RECONNECTING)
        async with client.hold("mine") as second:
            assert second.status == 200
            await client.until("mine", LeaseState.LIVE)
            assert (await client.take(id="mine"))[0] == 409, "a connection is no heartbeat"
            second.close()


async def test_a_heartbeat_is_no_connection(tmp_path: Path) -> None:
    """Else a lease that is held by one would never end when that is gone."""
    async with serving(tmp_path) as client:
        async with client.hold("mine") as answer:
            assert (await client.ask("PUT", "/leases/mine"))[0] == 200
            answer.close()
        await client.until("mine", LeaseState.RECONNECTING)
        assert (await client.ask("PUT", "/leases/mine"))[1]["state"] == "reconnecting"
        await client.until("mine", LeaseState.EXPIRED)


async def test_one_that_is_given_back_ends_the_answer(tmp_path: Path) -> None:
    async with serving(tmp_path) as client, client.hold("mine") as answer:
        assert (await client.ask("DELETE", "/leases/mine"))[0] == 200
        with anyio.fail_after(60):
            assert len((await answer.read()).splitlines()) == 1
        assert client.records()["mine"].state is LeaseState.RELEASED


ODD = {
    "a huge pid": (json.dumps({"holder": {"host": "a", "pid": 10**30}}), 400),
    "a pid beyond 64 bits of SQLite": (json.dumps({"holder": {"host": "a", "pid": 2**63}}), 400),
    "a number of 50,000 digits": ('{"holder": {"host": "a", "pid": ' + "9" * 50_000 + "}}", 400),
    "infinity": ('{"holder": {"host": "a", "pid": Infinity}}', 400),
    "deep lists": ("[" * 30_000, 400),
    "deep claims": ('{"holder": {"host": "a"}, "claims": ' + "[" * 20_000 + "]" * 20_000 + "}", 400),
    "half a character": ('{"holder": {"host": "\\ud800"}}', 400),
    "no UTF-8": ('{"holder": {"host": "\xff"}}', 400),
    "what a terminal obeys": (json.dumps({"holder": {"host": "a\x1b[2J"}}), 400),
    "a null character": (json.dumps({"holder": {"host": "a", "command": "\0"}}), 400),
    "a long host": (json.dumps({"holder": {"host": "a" * 2000}}), 400),
    "many claims": (json.dumps({"holder": {"host": "a"}, "claims": [{"labels": ["run=x"]}] * 100}), 400),
    "many labels": (json.dumps({"holder": {"host": "a"}, "claims": [{"labels": ["run=x"] * 100}]}), 400),
    "the same key twice": ('{"holder": {"host": "a"}, "holder": 5}', 400),
}


@pytest.mark.parametrize("name", ODD)
async def test_no_body_is_an_error_of_the_service(tmp_path: Path, name: str) -> None:
    body, expected = ODD[name]
    async with serving(tmp_path) as client:
        headers = {"Content-Type": "application/json"}
        async with client.session.post("/leases", data=body.encode("latin-1"), headers=headers) as answer:
            assert answer.status == expected
            assert (await answer.json())["error"].isprintable()
        assert client.records() == {}


async def test_what_is_no_compressed_body_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        headers = {"Content-Type": "application/json", "Content-Encoding": "deflate"}
        async with client.session.post("/leases", data=b"no deflate", headers=headers) as answer:
            assert answer.status == 400


@pytest.mark.parametrize(
    "query", ["after=x", "after=-5", "after=" + "9" * 400, "edition=%00", "after=%ff", "edition=" + "e" * 4000]
)
async def test_no_query_is_an_error_of_the_service(tmp_path: Path, query: str) -> None:
    async with serving(tmp_path) as client:
        await client.take(id="mine")
        status, listed = await client.ask("GET", f"/leases?{query}")
        assert (status, [one["id"] for one in listed["leases"]]) == (200, ["mine"])


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e300", "x", ""])
async def test_how_long_ago_it_was_over_is_a_number_of_seconds(tmp_path: Path, seconds: str) -> None:
    async with serving(tmp_path) as client:
        await client.take(id="mine")
        assert (await client.ask("DELETE", f"/leases/mine?over_for={seconds}"))[0] == 400
        assert client.records()["mine"].state is LeaseState.LIVE


async def test_a_token_of_odd_bytes_is_a_wrong_one(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as client:
        url = client.session._base_url
        assert url is not None
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"GET /leases HTTP/1.0\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
        assert b" 401 " in await reader.readline()
        writer.close()


async def test_what_has_changed_since_is_listed(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        for number in range(450):
            client.book.take(Liveness.CONNECTION, Holder("gpu-1"), name=f"run-{number}")
        _, everything = await client.ask("GET", "/leases")
        assert len(everything["leases"]) == 450
        since = f"edition={everything['edition']}&after={everything['seq']}"
        assert (await client.ask("GET", f"/leases?{since}"))[1] == {**everything, "leases": []}
        await client.ask("DELETE", "/leases/run-7")
        assert [one["id"] for one in (await client.ask("GET", f"/leases?{since}"))[1]["leases"]] == ["run-7"]
        assert len((await client.ask("GET", "/leases?edition=another&after=9"))[1]["leases"]) == 450
