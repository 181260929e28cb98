"""The server over real HTTP: what it answers, to whom, and that it never holds the loop or hangs."""

import asyncio
import errno
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from reaper.errors import ConfigError
from reaper.leases.listening import explained
from reaper.service import page
from reaper.service.status import Status
from reaper.service.web import THREADS, WAITING, Web
from tests.web.world import HOUR, NOW, healthy, unconfigured

pytestmark = pytest.mark.anyio

PATHS = ("/", "/metrics", "/healthz", "/readyz")


def metrics(accept: str) -> tuple[bytes, str]:
    kind = "application/openmetrics-text" if "openmetrics" in accept else "text/plain"
    return b"reaper_up 1\n", f"{kind}; version=1.0.0; charset=utf-8"


@asynccontextmanager
async def serving(
    status: Status | None = None, render: Callable[[str], tuple[bytes, str]] = metrics, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[Web, aiohttp.ClientSession]]:
    web = Web(status or healthy(), render, clock=lambda: NOW)
    await web.start(host, 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{web.addresses[0][1]}") as session:
            yield web, session
    finally:
        await web.close()


async def get(session: aiohttp.ClientSession, path: str, method: str = "GET", **headers: str) -> tuple[int, str, Any]:
    async with session.request(method, path, headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_every_path_answers_and_says_what_it_is() -> None:
    async with serving() as (_, session):
        kinds = {path: (await get(session, path))[2]["Content-Type"] for path in PATHS}
        assert kinds == {
            "/": "text/html; charset=utf-8",
            "/metrics": "text/plain; version=1.0.0; charset=utf-8",
            "/healthz": "application/json; charset=utf-8",
            "/readyz": "application/json; charset=utf-8",
        }
        assert (await get(session, "/"))[1] == page.render(healthy(), NOW)
        assert "refresh" not in (await get(session, "/?refresh=off"))[1].split("<style>")[0]
        code, text, headers = await get(session, "/metrics", Accept="application/openmetrics-text")
        assert (code, text) == (200, "reaper_up 1\n")
        assert headers["Content-Type"].startswith("application/openmetrics-text")


async def test_health_and_readiness_are_reported_with_the_code_and_the_reasons() -> None:
    status = healthy()
    async with serving(status) as (_, session):
        for path in ("/healthz", "/readyz"):
            code, text, _ = await get(session, path)
            assert (code, json.loads(text)["status"]) == (200, "ok")
        status.draining = True
        assert (await get(session, "/healthz"))[0] == 200
        code, text, _ = await get(session, "/readyz")
        assert code == 503
        assert {"name": "not_draining", "ok": False, "detail": "shutting down"} in json.loads(text)["checks"]
        status.draining, status.beat_at = False, NOW - HOUR
        code, text, _ = await get(session, "/healthz")
        assert (code, json.loads(text)["status"]) == (503, "failing")
        assert "the scheduler fired 1 h ago" in text


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/../etc/passwd", "/%00", "/metrics/"])
async def test_every_answer_has_the_headers_and_head_has_no_body(path: str) -> None:
    async with serving() as (_, session):
        code, text, headers = await get(session, path)
        assert code == (200 if path in PATHS else 404)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] == "reaper"
        assert re.fullmatch(
            r"default-src 'none'; style-src 'sha256-[\w+/=]{44}'; img-src data:; base-uri 'none'; form-action 'none'; "
            r"frame-ancestors 'none'",
            headers["Content-Security-Policy"],
        )
        head_code, nothing, head = await get(session, path, "HEAD")
        assert (head_code, nothing) == (code, "")
        assert head["Content-Length"] == str(len(text.encode()))
        assert head["Content-Type"] == headers["Content-Type"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_it_can_only_be_read(method: str) -> None:
    async with serving() as (_, session):
        for path in PATHS:
            code, text, headers = await get(session, path, method)
            assert (code, headers["Allow"]) == (405, "GET, HEAD")
            assert text == "This can only be read: GET or HEAD.\n"


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("LOCALHOST:9797", 200),
        ("127.0.0.1:1", 200),
        ("127.1.2.3", 200),
        ("[::1]:9797", 200),
        ("evil.example", 421),
        ("evil.example:9797", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("127.0.0.1:80:80", 421),
        ("evil@localhost", 421),
        ("10.0.0.1", 421),
        ("", 421),
    ],
)
async def test_on_the_loopback_it_answers_to_the_loopbacks_names_only(host: str, code: int) -> None:
    async with serving() as (_, session):
        for path in (*PATHS, "/nothing"):
            got, text, _ = await get(session, path, Host=host)
            assert got == (404 if code == 200 and path == "/nothing" else code)
            if code == 421:
                assert "reaper_up" not in text
                assert "answers to localhost" in text


async def test_elsewhere_it_answers_to_any_name() -> None:
    async with serving(host="0.0.0.0") as (_, session):
        assert (await get(session, "/healthz", Host="reaper.example"))[0] == 200


async def test_a_client_that_names_no_host_is_no_browser() -> None:
    async with serving() as (web, _):
        reader, writer = await asyncio.open_connection(*web.addresses[0])
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await reader.readline()
        writer.close()
        await writer.wait_closed()


# -- the address -------------------------------------------------------------------------------------------------------


async def refused(host: str, port: int) -> str:
    web = Web(healthy(), metrics, clock=lambda: NOW)
    with pytest.raises(ConfigError) as caught:
        await web.start(host, port)
    assert web.addresses == ()
    await web.close()
    assert caught.value.where == "[service] listen"
    assert caught.value.hint
    return caught.value.problem


async def test_a_port_that_is_taken_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert await refused("127.0.0.1", port) == f"127.0.0.1:{port} is taken"


async def test_an_unknown_host_is_reported() -> None:
    assert await refused("no-such-host.invalid", 9797) == "cannot resolve the host of no-such-host.invalid:9797"
    assert await refused(".", 9797) == "cannot resolve the host of .:9797"


async def test_an_address_of_another_machine_is_reported() -> None:
    assert await refused("192.0.2.1", 9797) == "this machine has no such address: 192.0.2.1:9797"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
async def test_a_missing_permission_is_reported(number: int) -> None:
    with pytest.raises(ConfigError, match=r"no permission to listen on \[::1\]:80"), explained("::1", 80, "here", "x:1"):
        raise OSError(number, "denied")


async def test_a_port_can_be_taken_again_at_once() -> None:
    async with serving() as (web, session):
        port = web.addresses[0][1]
        await get(session, "/healthz")
    again = Web(unconfigured(), metrics, clock=lambda: NOW)
    await again.start("127.0.0.1", port)
    assert again.addresses == (("127.0.0.1", port),)
    await again.close()
    await again.close()


# -- slow renderings ---------------------------------------------------------------------------------------------------


class Slow:
    """A rendering of the metrics that ends when it is let go."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.entered, self.go = asyncio.Event(), threading.Event()
        self.running = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, accept: str) -> tuple[bytes, str]:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.loop.call_soon_threadsafe(self.entered.set)
        assert self.go.wait(60)
        with self.lock:
            self.running -= 1
        return metrics(accept)


async def test_a_slow_rendering_delays_no_other_request() -> None:
    slow = Slow()
    async with serving(render=slow) as (_, session), asyncio.TaskGroup() as tasks:
        scrape = tasks.create_task(get(session, "/metrics"))
        await slow.entered.wait()
        for path in ("/healthz", "/readyz", "/"):
            assert (await get(session, path))[0] == 200
        assert not scrape.done()
        slow.go.set()
        assert (await scrape)[:2] == (200, "reaper_up 1\n")


async def test_many_scrapers_take_turns_and_too_many_are_sent_away() -> None:
    slow = Slow()
    async with serving(render=slow) as (web, session), asyncio.TaskGroup() as tasks:
        scrapes = [tasks.create_task(get(session, "/metrics")) for _ in range(THREADS + WAITING)]
        while web._rendering < THREADS + WAITING:  # noqa: ASYNC110 - the server has no event for how many wait
            await asyncio.sleep(0)
        code, text, headers = await get(session, "/metrics")
        assert (code, headers["Retry-After"]) == (503, "5"), text
        assert (await get(session, "/healthz"))[0] == 200
        slow.go.set()
        assert {(await scrape)[0] for scrape in scrapes} == {200}
        assert slow.most <= THREADS
        assert (await get(session, "/metrics"))[0] == 200


async def test_closing_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reaper.service.web.SHUTDOWN_TIMEOUT", 0.05)
    slow = Slow()
    web = Web(healthy(), slow, clock=lambda: NOW)
    await web.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{web.addresses[0][1]}") as session:
        scrape = asyncio.create_task(get(session, "/metrics"))
        await slow.entered.wait()
        await asyncio.wait_for(web.close(), 60)
        with pytest.raises(aiohttp.ClientError):
            await scrape
    assert web.addresses == ()
    assert slow.running == 1, "the rendering still hung when it was closed"
    slow.go.set()


async def test_a_rendering_that_fails_is_a_500_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: str) -> tuple[bytes, str]:
        raise ValueError("a bug")

    async with serving(render=broken) as (_, session):
        code, text, _ = await get(session, "/metrics")
        assert code == 500
        assert "a bug" not in text
        assert (await get(session, "/healthz"))[0] == 200
    assert "a bug" in caplog.text
