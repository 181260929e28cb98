"""What a Daytona server, and proxies before it, may answer: refusals without a reason, HTML, redirects, too much."""

import gzip
import json
import zlib
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from reaper.errors import (
    CredentialsError,
    DeniedError,
    InProgressError,
    InvalidError,
    ProviderError,
    RateLimitedError,
    ServerError,
    UnreadableError,
)
from reaper.providers.daytona import http
from reaper.providers.daytona.client import DaytonaProvider, DaytonaReader
from tests.providers.lab import KEY, client, closing, direct, named, page, server

pytestmark = pytest.mark.anyio
HTML = "<html><head><title>Sign in</title></head><body>secret intranet page</body></html>"
Answer = Callable[[web.Request], web.StreamResponse]


async def _delete(reader: DaytonaReader) -> None:
    assert isinstance(reader, DaytonaProvider)
    await reader.delete(named("some-id"))


ASKS: dict[str, tuple[str, Callable[[DaytonaReader], Awaitable[object]]]] = {
    "list": ("GET /sandbox", lambda reader: reader.list(direct)),
    "inspect": ("GET /sandbox/some-id", lambda reader: reader.inspect(named("some-id"))),
    "delete": ("DELETE /sandbox/some-id", _delete),
}


async def refused(ask: str, answer: Answer) -> ProviderError:
    """The error that the answer becomes, which names the call."""
    request, make = ASKS[ask]
    async with server(answer) as url, closing(client(url)) as reader:
        with pytest.raises(ProviderError) as caught:
            await make(reader)
    assert request in str(caught.value)
    assert "<" not in str(caught.value)
    assert KEY not in str(caught.value)
    return caught.value


KINDS = {
    400: InvalidError,
    401: CredentialsError,
    403: DeniedError,
    404: InvalidError,
    409: InProgressError,
    429: RateLimitedError,
    502: ServerError,
}


@pytest.mark.parametrize("body", ["", HTML, "{", "[]", "{}", '{"message": ""}', '{"message": "<b>no</b>"}', "null"])
@pytest.mark.parametrize(("status", "kind"), KINDS.items())
@pytest.mark.parametrize("ask", ASKS)
async def test_a_refusal_without_a_reason_says_what_was_asked_and_what_to_do(
    ask: str, status: int, kind: type[ProviderError], body: str
) -> None:
    of_type = "text/html" if body is HTML else "application/json"
    error = await refused(ask, lambda _: web.Response(status=status, text=body, content_type=of_type))
    assert type(error) is kind
    assert str(status) in str(error)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 306, 307, 308])
@pytest.mark.parametrize("ask", ASKS)
async def test_no_redirect_is_followed_whatever_its_status(ask: str, status: int) -> None:
    asked: list[str] = []

    def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return page()

    async with server(elsewhere) as url:
        location = url.replace("//", "//bench:hunter2@") + "/sandbox?key=hunter2"
        error = await refused(ask, lambda _: web.Response(status=status, headers={"Location": location}))
    assert isinstance(error, InvalidError)
    assert "hunter2" not in str(error)
    assert asked == []


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
@pytest.mark.parametrize("ask", ASKS)
async def test_an_answer_without_an_end_is_not_read_to_it(
    monkeypatch: pytest.MonkeyPatch, ask: str, encoding: str, status: int
) -> None:
    monkeypatch.setattr(http, "LARGEST_ANSWER", 1 << 20)
    large = b" " * (3 << 20)
    body = {"identity": large, "gzip": gzip.compress(large), "deflate": zlib.compress(large)}[encoding]
    error = await refused(ask, lambda _: web.Response(status=status, body=body, headers={"Content-Encoding": encoding}))
    assert type(error) is UnreadableError
    assert "is larger than 1 MiB" in str(error)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
async def test_a_compressed_answer_is_read(encoding: str) -> None:
    rows = json.dumps({"items": [{"id": "one"}]}).encode()
    body = {"identity": rows, "gzip": gzip.compress(rows), "deflate": zlib.compress(rows)}[encoding]
    answer = web.Response(body=body, headers={"Content-Encoding": encoding, "Content-Type": "application/json"})
    async with server(lambda _: answer) as url, closing(client(url)) as reader:
        assert [resource.id for resource in (await reader.list(direct)).resources] == ["one"]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b"no gzip", "gzip"), (gzip.compress(b" " * 5000)[:-9], "gzip"), (b"{}", "br"), (b"{}", "gzip, gzip")],
    ids=["no gzip", "cut off", "br", "twice"],
)
async def test_what_cannot_be_decompressed_is_unreadable(body: bytes, encoding: str) -> None:
    error = await refused("list", lambda _: web.Response(body=body, headers={"Content-Encoding": encoding}))
    assert type(error) is UnreadableError


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("ask", ["list", "inspect"])
@pytest.mark.parametrize(
    "body", [DEEP, '{"items": ' + DEEP + "}", '{"a":' * 100_000 + "1" + "}" * 100_000], ids=["list", "items", "object"]
)
async def test_a_deep_answer_is_unreadable_and_no_bug(ask: str, body: str) -> None:
    assert type(await refused(ask, lambda _: web.Response(text=body, content_type="application/json"))) is UnreadableError


async def test_a_deep_refusal_is_one_without_a_reason() -> None:
    assert type(await refused("list", lambda _: web.Response(status=500, text=DEEP))) is ServerError


async def test_a_server_that_lists_without_pages_is_said_to_be_too_old() -> None:
    async with server(lambda _: web.json_response([{"id": "x", "state": "started"}])) as url, closing(client(url)) as reader:
        with pytest.raises(InvalidError, match="lists without pages, as servers before release"):
            await reader.list(direct)
