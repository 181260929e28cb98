"""The ways to Daytona's server: proxies, private authorities, redirects, broken connections; and what no error tells."""

import ssl
from base64 import b64encode
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from reaper.errors import ConfigError, InvalidError, UnavailableError, UnreadableError
from reaper.simulator.faults import Fault
from tests.engine.tls import authority, certificate
from tests.providers.lab import KEY, NAME, Lab, by_name, client, closing, direct, page, refused, server
from tests.providers.proxying import proxying

pytestmark = pytest.mark.anyio

PASSWORD = "hunter2-s3cr3t"
CREDENTIALS = b64encode(f"bench:{PASSWORD}".encode()).decode()
ROW = {"id": "one", "name": "one", "state": "started"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's certificate of a private authority, and that of another one's."""
    folder = tmp_path_factory.mktemp("certificates")
    certificate(authority(folder / "ca"), folder / "server", "serverAuth")
    authority(folder / "other")
    return folder


def context(certificates: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificates / "server/cert.pem", certificates / "server/key.pem")
    return tls


class Guarded:
    """Answers with one sandbox when the key is right, and remembers the headers."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []

    def __call__(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        return page(ROW)


# Proxies


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    guarded = Guarded()
    async with server(guarded) as url, proxying() as proxy:
        monkeypatch.setenv(variable, f"http://{proxy.url}")
        async with closing(client(url)) as reader:
            assert by_name(await reader.list(direct)).keys() == {"one"}
        (asked,) = proxy.asked
        assert asked.startswith(f"GET {url}/sandbox?")
        assert "Proxy-Authorization" not in proxy.heads[0]


async def test_a_proxy_without_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(Guarded()) as url, proxying() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        async with closing(client(url)) as reader:
            await reader.list(direct)
        assert len(proxy.asked) == 1


@pytest.mark.parametrize("exempt", ["127.0.0.1", "example.com,127.0.0.1", "*"])
async def test_hosts_of_no_proxy_are_asked_directly(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    async with server(Guarded()) as url, proxying() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.url}")
        monkeypatch.setenv("NO_PROXY", exempt)
        async with closing(client(url)) as reader:
            assert by_name(await reader.list(direct)).keys() == {"one"}
        assert proxy.asked == []


async def test_a_proxy_gets_its_credentials_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(Guarded()) as url, proxying() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://bench:{PASSWORD}@{proxy.url}")
        async with closing(client(url)) as reader:
            for _ in range(2):
                await reader.list(direct)
        assert f"Proxy-Authorization: Basic {CREDENTIALS}\r\n" in proxy.heads[0]


async def test_a_tunnel_tells_the_proxy_its_password_and_not_the_key(
    monkeypatch: pytest.MonkeyPatch, certificates: Path
) -> None:
    guarded = Guarded()
    async with server(guarded, context(certificates)) as url, proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://bench:{PASSWORD}@{proxy.url}")
        async with closing(client(url, ca_file=str(certificates / "ca/ca.pem"))) as reader:
            for _ in range(2):
                assert by_name(await reader.list(direct)).keys() == {"one"}
        assert proxy.asked == [f"CONNECT {url.removeprefix('https://').removesuffix('/api')}"]
        assert f"Proxy-Authorization: Basic {CREDENTIALS}\r\n" in proxy.heads[0]
        assert KEY not in proxy.heads[0]
        assert all("Proxy-Authorization" not in headers for headers in guarded.headers)


async def test_a_tunnel_without_credentials_does_not_tell_the_proxy_the_key(
    monkeypatch: pytest.MonkeyPatch, certificates: Path
) -> None:
    async with server(Guarded(), context(certificates)) as url, proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.url}")
        async with closing(client(url, ca_file=str(certificates / "ca/ca.pem"))) as reader:
            assert by_name(await reader.list(direct)).keys() == {"one"}
        (head,) = proxy.heads
        assert KEY not in head
        assert "authorization" not in head.lower()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_keeps_its_password(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://bench:{PASSWORD}@127.0.0.1:1")
    async with closing(client(f"{scheme}://daytona.example/api")) as reader:
        why = "the proxy 127.0.0.1:1: connection refused; check HTTPS_PROXY"
        error = await refused(UnavailableError, lambda: reader.list(direct), why, PASSWORD, CREDENTIALS)
        assert error.retryable


async def test_a_proxy_that_refuses_a_tunnel_keeps_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxying() as proxy:
        proxy.refuses = "407 Proxy Authentication Required"
        monkeypatch.setenv("HTTPS_PROXY", f"http://bench:{PASSWORD}@{proxy.url}")
        async with closing(client("https://daytona.example/api")) as reader:
            await refused(UnavailableError, lambda: reader.list(direct), "proxy answered 407", PASSWORD, CREDENTIALS)


@pytest.mark.parametrize(
    "proxy",
    [f"socks5://bench:{PASSWORD}@127.0.0.1:1080", f"http://bench:{PASSWORD}@proxy:port", f"http://bench:{PASSWORD}@"],
)
async def test_a_proxy_that_cannot_be_used_is_an_error_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    async with closing(client("https://daytona.example/api")) as reader:
        await refused(ConfigError, lambda: reader.list(direct), "HTTPS_PROXY", PASSWORD)


# TLS


async def test_a_private_authority_is_believed_where_it_is_named(certificates: Path) -> None:
    file = str(certificates / "ca/ca.pem")
    async with server(Guarded(), context(certificates)) as url, closing(client(url, ca_file=file)) as reader:
        assert by_name(await reader.list(direct)).keys() == {"one"}


@pytest.mark.parametrize("named", [None, "other/ca.pem"])
async def test_a_private_authority_is_not_believed_otherwise(certificates: Path, named: str | None) -> None:
    guarded = Guarded()
    async with server(guarded, context(certificates)) as url:
        file = None if named is None else str(certificates / named)
        async with closing(client(url, ca_file=file)) as reader:
            await refused(UnavailableError, lambda: reader.list(direct), "(?i)certificate")
    assert guarded.headers == []


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff\xfe"])
async def test_a_ca_file_that_cannot_be_read_is_an_error_of_the_configuration(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    async with closing(client("https://daytona.example/api", ca_file=str(file))) as reader:
        await refused(ConfigError, lambda: reader.list(direct), "ca.pem")


# Other servers


async def test_a_redirect_is_named_and_not_followed() -> None:
    guarded = Guarded()
    async with server(guarded) as elsewhere:
        there = elsewhere.removesuffix("/api")

        def moved(request: web.Request) -> web.Response:
            return web.Response(status=308, headers={"Location": f"{there}/api/sandbox?key={KEY}"})

        async with server(moved) as url, closing(client(url)) as reader:
            await refused(
                InvalidError,
                lambda: reader.list(direct),
                rf"redirects to {there} \(308\), which is not followed; .* api_url of endpoint {NAME}",
            )
    assert guarded.headers == []


@pytest.mark.parametrize("location", [None, "", "/login", "//", "http://["])
async def test_an_odd_redirect(location: str | None) -> None:
    def moved(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={} if location is None else {"Location": location})

    async with server(moved) as url, closing(client(url)) as reader:
        await refused(InvalidError, lambda: reader.list(direct), "redirects")


async def test_a_wrong_api_url_says_what_is_wrong() -> None:
    """Outside of its API the server answers with the dashboard, whatever is asked; a wrong path in it is a 404."""
    for url, kind, says in (("", UnreadableError, "a web page"), ("/api/v1", InvalidError, "no Daytona API")):
        async with Lab() as lab, closing(client(lab.sim.daytona_url.removesuffix("/api") + url, lab.key)) as reader:
            await refused(kind, partial(reader.list, direct), f"{says}.*ends in /api", key=lab.key)


async def test_what_answers_with_html_is_no_daytona_api() -> None:
    async with Lab() as lab:
        lab.sim.faults.add("garbage")
        error = await refused(UnreadableError, lambda: lab.provider.list(direct), "no JSON", key=lab.key)
        assert error.retryable


async def test_what_speaks_no_http_at_all() -> None:
    async with proxying() as proxy:
        proxy.refuses = f"\r\nSSH-2.0-OpenSSH {PASSWORD}"
        async with closing(client(f"http://{proxy.url}/api")) as reader:
            await refused(UnreadableError, lambda: reader.list(direct), "no HTTP")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/api", "https://127.0.0.1:1/api", "http://daytona.invalid/api"])
async def test_a_server_that_is_not_there(url: str) -> None:
    async with closing(client(url)) as reader:
        await refused(UnavailableError, lambda: reader.list(direct), "the connection to")


# Broken connections: nothing is asked again but by the caller, who counts and reports it


@pytest.mark.parametrize("kind", ["reset", "truncate"])
@pytest.mark.parametrize("act", ["list", "inspect", "stop", "delete"])
async def test_a_broken_connection_is_not_tried_again_in_secret(kind: str, act: str) -> None:
    async with Lab() as lab:
        row = lab.add("chess")
        await lab.provider.list(direct)  # so that there is a connection, which may have grown stale
        before = lab.requests()
        lab.sim.faults.add(Fault.parse(f"{kind},after"))
        error = await refused(UnavailableError, lambda: do(lab, act, row.id), key=lab.key)
        assert error.retryable
        assert lab.requests() == before + 1
        assert row.desired == {"stop": "stopped", "delete": "destroyed"}.get(act, "started")


async def do(lab: Lab, act: str, id_: str) -> object:
    resource = lab.resource(id_)
    match act:
        case "list":
            return await lab.provider.list(direct)
        case "inspect":
            return await lab.provider.inspect(resource)
        case "stop":
            await lab.provider.stop(resource, timedelta(seconds=10))
        case _:
            await lab.provider.delete(resource)
    return None
