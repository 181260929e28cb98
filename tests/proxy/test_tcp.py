"""Engines behind TCP, plain and with TLS on both sides."""

import asyncio
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.engine.tls import authority, certificate
from tests.proxy.lab import LABELS, OK, Client, Proxied, create, run
from tests.proxy.test_connections import UPGRADED
from tests.proxy.test_labels import ATTACH, PING

pytestmark = pytest.mark.anyio

BACK = b"0123456789abcdef" * 200_000


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs.tool("openssl", "openssl")
    folder = tmp_path_factory.mktemp("certificates")
    ca = authority(folder / "ca")
    certificate(ca, folder / "server", "serverAuth")
    certificate(ca, folder / "client", "clientAuth")
    certificate(authority(folder / "other-ca"), folder / "stranger", "clientAuth")
    return folder


class TcpEngine:
    """An engine that answers OK, labels included, and echoes the digest of a stream's input behind a long output.

    It blocks, in a thread for each connection, with Python's own sockets: another implementation than the proxy's.
    """

    def __init__(self, folder: Path | None) -> None:
        self._context: ssl.SSLContext | None = None
        if folder is not None:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
            self._context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.bodies: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        try:
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()
        except OSError:
            return

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                self._talk(self._context.wrap_socket(sock, server_side=True) if self._context else sock)
            except OSError:
                return

    def _talk(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as file:
            while line := file.readline():
                length = 0
                while (field := file.readline()) != b"\r\n":
                    if field.startswith(b"Content-Length:"):
                        length = int(field.split()[1])
                if b"/attach" in line:
                    sock.sendall(UPGRADED)
                    said = file.read()  # to the end of the client's half
                    sock.sendall(BACK + hashlib.sha256(said).digest())
                    return
                self.bodies.append(file.read(length))
                sock.sendall(OK)


@pytest.fixture(params=["plain", "tls"])
def tcp(request: pytest.FixtureRequest) -> Iterator[tuple[TcpEngine, Proxied]]:
    certificates = request.getfixturevalue("certificates") if request.param == "tls" else None
    engine = TcpEngine(certificates and certificates / "server")
    with Proxied(engine.host, **tls(certificates and certificates / "client")) as proxied:
        yield engine, proxied
        assert proxied.told == []
    engine.close()


def tls(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return {}
    return {"tls_ca": str(folder / "ca.pem"), "tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}


async def test_requests_and_a_stream_whose_input_ends_first(tcp: tuple[TcpEngine, Proxied]) -> None:
    engine, proxied = tcp
    data = bytes(range(256)) * 20_000
    client = Client(proxied.path)
    assert await client.ask(PING) == (200, b"OK")
    assert await client.ask(create("volumes", {"Name": "x"})) == (200, b"OK")
    assert [json.loads(body or b"null") for body in engine.bodies] == [None, {"Name": "x", "Labels": LABELS}]
    assert (await client.ask(ATTACH))[0] == 101
    async with asyncio.TaskGroup() as group:
        group.create_task(client.send(data)).add_done_callback(lambda _: client.end())
        assert await client.everything() == BACK + hashlib.sha256(data).digest()
    client.close()


@pytest.mark.parametrize("who", ["stranger", "no-certificate"])
def test_credentials_that_are_refused(certificates: Path, who: str) -> None:
    """With TLS 1.3 the server tells only after the handshake: the client then sees a connection that is closed."""
    engine = TcpEngine(certificates / "server")
    settings = tls(certificates / who) if who == "stranger" else {"tls_ca": str(certificates / "client" / "ca.pem")}

    async def scene() -> None:
        client = Client(proxied.path)
        await client.send(PING)
        answer = await client.everything()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 502 ")
        client.close()

    with Proxied(engine.host, **settings) as proxied:
        run(scene())
        assert engine.bodies == []
        if who == "stranger":  # it does not know the server's authority either
            assert "certificate verify failed" in proxied.told[0]
    engine.close()


def test_no_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    async def scene() -> None:
        client = Client(proxied.path)
        status, body = await client.ask(PING)
        assert status == 502
        assert f"tcp://127.0.0.1:{port}: Connection refused" in json.loads(body)["message"]
        client.close()

    with Proxied(f"tcp://127.0.0.1:{port}") as proxied:
        run(scene())
        assert len(proxied.told) == 1
