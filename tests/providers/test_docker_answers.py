"""What engines, and proxies before them, may answer: redirects, refusals without a reason, HTML, too much."""

import gzip
import json
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial

import anyio
import pytest
from aiohttp import web

from reaper.errors import (
    DeniedError,
    InvalidError,
    NotFoundError,
    ProviderError,
    RateLimitedError,
    ServerError,
    UnreadableError,
)
from reaper.providers.docker import connection, events, use_record
from reaper.providers.docker.client import DockerProvider
from reaper.providers.docker.settings import DockerTable
from tests.core.make import STOPPED
from tests.providers.lab import NAME, direct, server

pytestmark = pytest.mark.anyio
ID = "c0ffee" + "0" * 58
CONTAINER = replace(STOPPED, endpoint=NAME, id=ID)
HTML = "<html><head><title>Sign in</title></head><body>secret intranet page</body></html>"
Answer = Callable[[web.Request], web.StreamResponse]


@asynccontextmanager
async def engine(answer: Answer) -> AsyncIterator[DockerProvider]:
    """A provider for an engine that tells its version and answers everything else so."""

    def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/version":
            return web.json_response({"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.24"})
        return answer(request)

    async with server(handle) as url:
        provider = DockerProvider(DockerTable(name=NAME, host=url.replace("http:", "tcp:").removesuffix("/api")))
        try:
            yield provider
        finally:
            await provider.close()


async def _events(provider: DockerProvider) -> None:
    async for _ in provider.deaths(lambda: None):
        pass


ASKS: dict[str, tuple[str, Callable[[DockerProvider], object]]] = {
    "list": ("GET /v1.41/containers/json", lambda p: p.list(direct)),
    "inspect": (f"GET /v1.41/containers/{ID[:12]}/json", lambda p: p.inspect(CONTAINER)),
    "stop": (f"POST /v1.41/containers/{ID[:12]}/stop", lambda p: p.stop(CONTAINER, timedelta(seconds=1))),
    "delete": (f"DELETE /v1.41/containers/{ID[:12]}", lambda p: p.delete(CONTAINER)),
    "events": ("GET /v1.41/events", _events),
}


async def refused(ask: str, answer: Answer) -> ProviderError:
    """The error that the answer becomes, which names the call."""
    request, make = ASKS[ask]
    async with engine(answer) as provider:
        with pytest.raises(ProviderError) as caught:
            await make(provider)  # type: ignore[misc]
    assert request in str(caught.value)
    assert "<" not in str(caught.value)
    assert ID not in str(caught.value)
    return caught.value


# Redirects


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 306, 307, 308])
@pytest.mark.parametrize("ask", ASKS)
async def test_a_redirect_is_named_and_not_followed(ask: str, status: int) -> None:
    asked: list[str] = []

    def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response([])

    async with server(elsewhere) as url:
        there = url.removesuffix("/api")
        location = there.replace("//", "//bench:hunter2@") + "/v1.41/containers/json?key=hunter2"

        def moved(request: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": location})

        error = await refused(ask, moved)
    assert isinstance(error, InvalidError)
    assert f"redirects to {there} ({status})" in str(error)
    assert "not followed" in str(error)
    assert "host of [[docker]]" in str(error)
    assert "hunter2" not in str(error)
    assert asked == []


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        (None, "an address that it does not give"),
        ("", "an address that it does not give"),
        ("http://[", "an address that it does not give"),
        ("http://other:port/", "an address that it does not give"),
        ("/login", "another path of its own"),
        ("//other/x", "http://other"),
        ("https://[::1]:2376/x", "https://[::1]:2376"),
    ],
)
async def test_where_an_odd_redirect_leads(location: str | None, shown: str) -> None:
    headers = {} if location is None else {"Location": location}
    error = await refused("list", lambda _: web.Response(status=307, headers=headers))
    assert f"redirects to {shown} (307)" in str(error)


async def test_a_stop_of_what_had_stopped_is_done_and_another_304_says_nothing() -> None:
    async with engine(lambda _: web.Response(status=304)) as provider:
        await provider.stop(CONTAINER, timedelta(seconds=1))
    assert isinstance(await refused("delete", lambda _: web.Response(status=304)), UnreadableError)


# Refusals

KINDS = {400: InvalidError, 401: DeniedError, 403: DeniedError, 404: InvalidError, 429: RateLimitedError, 502: ServerError}


@pytest.mark.parametrize("body", ["", HTML, "{", "[]", "{}", '{"message": ""}', '{"message": "<b>no</b>"}', "null"])
@pytest.mark.parametrize(("status", "kind"), KINDS.items())
@pytest.mark.parametrize("ask", ASKS)
async def test_a_refusal_without_a_reason_says_what_was_asked_and_what_to_do(
    ask: str, status: int, kind: type[ProviderError], body: str
) -> None:
    of_type = "text/html" if body is HTML else "application/json"
    error = await refused(ask, lambda _: web.Response(status=status, text=body, content_type=of_type))
    assert type(error) is kind
    assert f"was answered {status} without a reason; " in str(error)
    assert len(str(error).partition("; ")[2]) > 20, "a remedy"


async def test_an_engines_own_404_is_the_end_of_a_container_and_a_proxys_is_not() -> None:
    own = web.json_response({"message": f"No such container: {ID[:12]}"}, status=404)
    assert type(await refused("inspect", lambda _: own)) is NotFoundError
    page = web.Response(status=404, text="404 page not found\n")  # a Go program's answer for an unknown path
    assert type(await refused("inspect", lambda _: page)) is InvalidError


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
async def test_a_reason_in_another_encoding_costs_not_the_status(encoding: str) -> None:
    body = "<p>Zugriff verweigert für Sie</p>".encode(encoding)
    assert type(await refused("list", lambda _: web.Response(status=403, body=body))) is DeniedError


async def test_a_reason_stays_short_and_on_one_line() -> None:
    reason = {"message": "no\r\n\x1b[31mreally " + "x" * 100_000}
    error = await refused("list", lambda _: web.json_response(reason, status=500))
    assert "no [31mreally" in str(error)
    assert len(str(error)) < 700


# Too much


@pytest.mark.parametrize("ask", ["list", "inspect", "delete", "stop"])
@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_without_an_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch, ask: str, status: int) -> None:
    monkeypatch.setattr(connection, "LARGEST_ANSWER", 1 << 20)
    for body, encoding in ((b" " * (3 << 20), "identity"), (gzip.compress(b" " * (3 << 20)), "gzip")):
        answer = partial(web.Response, status=status, body=body, headers={"Content-Encoding": encoding})
        async with engine(lambda _: answer()) as provider:  # noqa: B023 - it ends before the next one
            with pytest.raises(UnreadableError, match="larger than 1 MiB"):
                await ASKS[ask][1](provider)  # type: ignore[misc]


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "identity"])
async def test_a_compressed_answer_is_read(encoding: str) -> None:
    rows = json.dumps([]).encode()
    packers: dict[str, Callable[[bytes], bytes]] = {"deflate": zlib.compress, "identity": bytes}
    body = packers.get(encoding, gzip.compress)(rows)
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    async with engine(lambda _: web.Response(body=body, headers=headers)) as provider:
        assert (await provider.list(direct)).resources == ()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b"no gzip", "gzip"), (gzip.compress(b" " * 5000)[:-9], "gzip"), (b"[]", "br"), (b"[]", "gzip, gzip")],
    ids=["no gzip", "cut off", "br", "twice"],
)
async def test_what_cannot_be_decompressed_is_unreadable(body: bytes, encoding: str) -> None:
    async with engine(lambda _: web.Response(body=body, headers={"Content-Encoding": encoding})) as provider:
        with pytest.raises(UnreadableError):
            await provider.list(direct)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("ask", ["list", "inspect"])
@pytest.mark.parametrize(
    "body", [DEEP, '{"Id": ' + DEEP + "}", '{"a":' * 100_000 + "1" + "}" * 100_000], ids=["list", "id", "object"]
)
async def test_a_deep_answer_is_unreadable_and_no_bug(ask: str, body: str) -> None:
    error = await refused(ask, lambda _: web.Response(text=body, content_type="application/json"))
    assert type(error) is UnreadableError


async def test_a_deep_refusal_is_one_without_a_reason() -> None:
    error = await refused("list", lambda _: web.Response(status=500, text=DEEP, content_type="application/json"))
    assert type(error) is ServerError


async def test_a_stream_of_uses_ends_when_it_is_silent_and_an_event_that_cannot_be_read_is_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "QUIET", 0.05)
    monkeypatch.setattr(events, "LONGEST", 4096)
    now = time.time_ns() - 3600 * use_record.NS
    actor = {"ID": "data", "Attributes": {}}
    event = json.dumps({"Type": "volume", "Action": "create", "Actor": actor, "timeNano": now}).encode()
    asked: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        yield event + b"\n\n" + event + b"\n"
        if len(asked) > 1:
            future = event.replace(str(now).encode(), str(now + 3 * 3600 * use_record.NS).encode())
            yield {2: b"{", 3: b"[" * 5000, 4: b'{"timeNano": 1}', 5: future, 6: b""}[len(asked)] + b"\n"
        await anyio.sleep(3600)

    def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.query["since"])
        return web.Response(body=body())

    async with engine(answer) as provider:
        record = provider._uses
        record.wanted.set()
        runs = []
        for _ in range(6):
            assert await provider.follow_uses()
            runs.append(record.run)
    assert asked[0] == "0.000000001"
    assert {since.partition(".")[0] for since in asked[1:]} == {str(now // use_record.NS - 1)}
    assert len(set(runs)) == 6  # that after the last gap, too: what it began with is not known any more


async def test_an_engine_where_nothing_happens_is_asked_anew_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET", 0.05)
    asked: list[str] = []
    enough = anyio.Event()

    async def cooldown() -> AsyncIterator[bytes]:
        yield b"\n"
        await anyio.sleep(3600)

    def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        if len(asked) >= 4:
            enough.set()
        return web.Response(body=cooldown())

    connected: list[None] = []
    async with engine(answer) as provider, anyio.create_task_group() as group:

        async def follow() -> None:
            async for _ in provider.deaths(lambda: connected.append(None)):
                raise AssertionError("nothing has died")
            raise AssertionError("it did not end")

        group.start_soon(follow)
        with anyio.fail_after(60):
            await enough.wait()
        group.cancel_scope.cancel()
    assert len(connected) == 1
