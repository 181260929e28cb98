"""The proxy's own socket, and where no engine answers behind it."""

import asyncio
import json
import os
import resource
import socket
import stat
from pathlib import Path

import pytest

from devkit.wire import Wire, read_head
from reaper.errors import ConfigError
from reaper.providers.docker.settings import DockerTable
from reaper.run.proxy import DockerProxy, server
from tests.proxy.lab import LABELS, create, lab, run, until
from tests.proxy.test_labels import PING

pytestmark = pytest.mark.anyio


async def test_no_engine() -> None:
    """The client hears of it in the engine's own form when it asks; the owner of the proxy hears of it once."""
    async with lab(engine=False) as made:
        for request, body in ((PING, True), (create("volumes", {}), True), (PING.replace(b"GET", b"HEAD"), False)):
            client = made.client()
            await client.send_in([request[:9], request[9:]])
            head = await read_head(client)
            assert head is not None
            assert head.words[1] == "502"
            answer = await client.everything()
            if body:
                why = json.loads(answer)["message"]
                assert why == f"no connection to the engine local at unix://{made.engine}: No such file or directory"
            else:
                assert answer == b""
            client.close()
        assert made.told == [why]
        await made.quiet()


async def test_an_engine_that_closes_at_once() -> None:
    async with lab() as made:

        async def engine(wire: Wire) -> None: ...

        made.conduct = engine
        client = made.client()
        assert await client.everything() == b""
        client.close()


async def test_many_at_once() -> None:
    async with lab() as made:

        async def one() -> None:
            client = made.client()
            for _ in range(3):
                assert await client.ask(PING) == (200, b"OK")
            client.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(one())
        await made.quiet()
        assert made.connections == 100
        assert made.told == []


def _dup(sock: socket.socket) -> int | None:
    try:
        return os.dup(sock.fileno())
    except OSError:
        return None


async def test_where_no_more_files_can_be_opened_a_connection_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_REST", 0.01)

    async with lab() as made:
        client = made.client()
        assert await client.ask(PING) == (200, b"OK")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        late = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno() + 1, hard))
        spare = list(iter(lambda: _dup(late), None))
        try:
            late.connect(str(made.path))
            await until(lambda: bool(made.told))
            assert await client.ask(PING) == (200, b"OK")  # others go on
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for file in spare:
                os.close(file)
        wire = Wire(late)
        await wire.send(PING)
        assert await wire.until(b"OK") == b"HTTP/1.1 200 OK"
        wire.close()
        client.close()
        assert set(made.told) == {"a connection to the proxy has to wait: Too many open files"}


async def test_closing_cuts_what_is_open() -> None:
    async with lab() as made:
        client, half = made.client(), made.client()
        assert await client.ask(PING) == (200, b"OK")
        await half.send(PING[:10])
        closing = asyncio.create_task(made.proxy.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        assert not made.path.exists()
        assert await client.everything() == b""
        assert await half.everything() == b""
        with pytest.raises(FileNotFoundError):
            made.client()
        made.path.touch()
        await made.proxy.close()
        assert made.path.exists()  # it is another's by now
        made.path.unlink()
        client.close()
        half.close()


async def test_only_its_user_may_connect(tmp_path: Path) -> None:
    proxy = DockerProxy(DockerTable(name="local"), LABELS, print)
    path = tmp_path / "docker.sock"
    await proxy.start(path)
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        await proxy.close()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("taken", "Address already in use"),
        ("no/where", "No such file or directory"),
        ("x" * 200, "too long"),
    ],
)
def test_where_it_cannot_listen(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "taken").touch()
    proxy = DockerProxy(DockerTable(name="local"), LABELS, print)
    with pytest.raises(ConfigError, match=why):
        run(proxy.start(tmp_path / name))
    run(proxy.close())
    assert (tmp_path / "taken").exists()


def test_tls_files_that_cannot_be_used(tmp_path: Path) -> None:
    engine = DockerTable(name="gpu", host="tcp://127.0.0.1:1", tls_ca=str(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match="TLS files"):
        run(DockerProxy(engine, LABELS, print).start(tmp_path / "docker.sock"))
