"""When a machine at the other end of a connection was last heard of, on real sockets."""

import asyncio
import errno
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from reaper.leases.tcp_peer import TcpPeer

UNANSWERED = OSError(errno.ETIMEDOUT, "timed out")
NONE = timedelta(0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


async def test_an_answer_of_its_kernel_is_a_sign_of_life() -> None:
    served = asyncio.Queue[asyncio.StreamWriter]()
    async with await asyncio.start_server(lambda _, writer: served.put_nowait(writer), "127.0.0.1", 0) as server:
        _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer = await served.get()
        peer, began = TcpPeer(writer.transport), anyio.current_time()
        writer.write(b"\n")
        await writer.drain()
        peer.look()
        assert NONE <= peer.silent_for(UNANSWERED) <= timedelta(seconds=anyio.current_time() - began + 0.1)
        client.close()
        writer.close()


@pytest.mark.parametrize("error", [None, ConnectionResetError(errno.ECONNRESET, "reset"), ConnectionError("lost")])
async def test_one_that_ends_the_connection_itself_was_not_silent(error: OSError | None) -> None:
    served = asyncio.Queue[asyncio.StreamWriter]()
    async with await asyncio.start_server(lambda _, writer: served.put_nowait(writer), "127.0.0.1", 0) as server:
        _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer = await served.get()
        peer = TcpPeer(writer.transport)
        peer.look()
        assert peer.silent_for(error) == NONE
        client.close()
        writer.close()


async def test_a_process_of_this_machine_is_never_silent(tmp_path: Path) -> None:
    served = asyncio.Queue[asyncio.StreamWriter]()
    path = tmp_path / "s"
    async with await asyncio.start_unix_server(lambda _, writer: served.put_nowait(writer), path):
        _, client = await asyncio.open_unix_connection(path)
        writer = await served.get()
        peer = TcpPeer(writer.transport)
        peer.look()
        assert peer.silent_for(UNANSWERED) == TcpPeer(None).silent_for(UNANSWERED) == NONE
        client.close()
        writer.close()
