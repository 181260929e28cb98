"""A TLS server before an engine's unix socket that asks for a client certificate, and the certificates, made by openssl."""

import asyncio
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.providers.proxying import copy

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def authority(folder: Path) -> Path:
    """Make an authority in ``folder``: ca.pem and ca-key.pem."""
    folder.mkdir()
    usage = ("-addext", "keyUsage=critical,keyCertSign")
    out = ("-keyout", folder / "ca-key.pem", "-out", folder / "ca.pem")
    _openssl("req", "-x509", *_KEY, *out, "-subj", "/CN=authority", "-days", "2", *usage)
    return folder


def certificate(ca: Path, folder: Path, usage: str, address: str = "127.0.0.1") -> Path:
    """Make what DOCKER_CERT_PATH has: ca.pem, cert.pem and key.pem; ``usage`` is serverAuth or clientAuth."""
    folder.mkdir()
    request, extensions = folder / "request.pem", folder / "extensions"
    extensions.write_text(
        f"subjectAltName=IP:{address}\nextendedKeyUsage={usage}\nauthorityKeyIdentifier=keyid\nbasicConstraints=CA:FALSE\n"
    )
    _openssl("req", *_KEY, "-keyout", folder / "key.pem", "-out", request, "-subj", f"/CN={usage}")
    signed_by = ("-CA", ca / "ca.pem", "-CAkey", ca / "ca-key.pem", "-CAcreateserial", "-days", "2")
    _openssl("x509", "-req", "-in", request, *signed_by, "-extfile", extensions, "-out", folder / "cert.pem")
    (folder / "ca.pem").write_bytes((ca / "ca.pem").read_bytes())
    return folder


class TlsServer:
    """Listens on a free port of 127.0.0.1 within its block, and passes what authenticated clients send to the engine.

    Args:
        upstream: the engine's unix socket.
        folder: its certificate, as ``certificate`` makes it; clients must have one of the same authority.
    """

    def __init__(self, upstream: str, folder: Path) -> None:
        self.port = 0
        self.accepted = 0
        self._upstream = upstream
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
        self._context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tls-server", daemon=True)
        self._stop: asyncio.Event | None = None

    @property
    def host(self) -> str:
        """As DOCKER_HOST has it."""
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(60)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    def _run(self) -> None:
        # A client without a good certificate ends in an error without a reader; that is what is tested.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        async with server:
            await self._stop.wait()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
                with suppress(asyncio.CancelledError, OSError):
                    await task

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        engine_reader, engine_writer = await asyncio.open_unix_connection(self._upstream)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(copy(reader, engine_writer), name="to the engine")
                group.create_task(copy(engine_reader, writer), name="to the client")
        except* OSError:
            pass
        finally:
            for each in (writer, engine_writer):
                each.transport.abort()
