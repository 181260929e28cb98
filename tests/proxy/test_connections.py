"""Streams, half-closes, slow readers, and peers that go away."""

import asyncio
import json
import socket
from contextlib import suppress

import pytest

from devkit.wire import Wire, read_head
from reaper.run.proxy import relay
from tests.proxy.lab import LABELS, OK, create, lab, until
from tests.proxy.test_labels import ATTACH, PING

pytestmark = pytest.mark.anyio

UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
HIJACKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"


@pytest.mark.parametrize("answer", [UPGRADED, HIJACKED])
async def test_the_end_of_stdin_arrives_while_output_still_comes(answer: bytes) -> None:
    async with lab() as made:

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await wire.send(answer)
            said = b"".join([piece async for piece in wire.rest()])  # until the client ends its half
            for _ in range(3):
                await wire.send(said)

        made.conduct = engine
        client = made.client()
        await client.send(ATTACH)
        assert await client.exactly(len(answer)) == answer
        await client.send(b"input")
        client.end()
        assert await client.everything() == b"input" * 3
        client.close()


async def test_the_end_of_output_arrives_while_input_still_goes() -> None:
    async with lab() as made:
        heard: list[bytes] = []

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await wire.send(UPGRADED + b"out")
            wire.end()
            heard.extend([piece async for piece in wire.rest()])

        made.conduct = engine
        client = made.client()
        await client.send(ATTACH)
        assert await client.everything() == UPGRADED + b"out"
        await client.send_in([b"in", b"put"])
        client.end()
        client.close()
        await until(lambda: bool(heard))
        assert b"".join(heard) == b"input"


async def test_input_that_did_not_wait_for_the_answer() -> None:
    async with lab() as made:

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await wire.send(UPGRADED)
            assert b"".join([piece async for piece in wire.rest()]) == b"early and late"
            await wire.send(b"heard")

        made.conduct = engine
        client = made.client()
        await client.send(ATTACH + b"early ")
        assert await client.exactly(len(UPGRADED)) == UPGRADED
        await client.send(b"and late")
        client.end()
        assert await client.everything() == b"heard"
        client.close()


async def flood(sock: socket.socket, data: bytes = b"x" * 65536) -> int:
    """Send until the other end does not read any more: no byte goes for many turns of all others."""
    sent = idle = 0
    while idle < 200:
        try:
            sent += sock.send(data[sent % len(data) :])
            idle = 0
        except BlockingIOError:
            idle += 1
            await asyncio.sleep(0)
    return sent


async def test_a_slow_reader_fills_no_memory() -> None:
    """Either way there are the kernel's buffers and one piece."""
    async with lab() as made:
        sent: list[int] = []
        go_on = asyncio.Event()

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await wire.send(HIJACKED)
            sent.append(await flood(wire._sock))
            await go_on.wait()

        made.conduct = engine
        client = made.client()
        await client.send(ATTACH)
        assert await client.exactly(len(HIJACKED)) == HIJACKED
        await until(lambda: bool(sent))
        there = await flood(client.sock)  # the engine does not read either
        assert sent[0] < 2_000_000
        assert there < 2_000_000
        go_on.set()
        client.end()
        assert len(await client.everything()) == sent[0]
        client.close()


async def test_requests_that_are_not_their_turn_fill_no_memory() -> None:
    async with lab() as made:
        go_on = asyncio.Event()

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await go_on.wait()
            await wire.send(OK)
            await made.serves(wire)

        made.conduct = engine
        client = made.client()
        await client.send(PING)
        await until(lambda: len(made.requests) == 1)
        many = PING * 50_000
        sent = await flood(client.sock, many)
        assert sent < 2_000_000
        go_on.set()
        async with asyncio.TaskGroup() as group:
            rest = -sent % len(PING)  # of the last one
            group.create_task(client.send(many[sent % len(PING) :][:rest]))
            for _ in range(1 + (sent + rest) // len(PING)):
                assert await client.answer() == (200, b"OK")
        client.close()


async def test_who_reads_no_more_is_not_sent_to() -> None:
    """The engine sees that the pipe is broken, while what the client says still arrives."""
    async with lab() as made:
        heard: list[bytes] = []
        broken = asyncio.Event()

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await wire.send(HIJACKED)
            await sends_until_broken(wire)
            broken.set()
            heard.append(b"".join([piece async for piece in wire.rest()]))

        made.conduct = engine
        client = made.client()
        await client.send(ATTACH)
        assert await client.exactly(len(HIJACKED)) == HIJACKED
        client.sock.shutdown(socket.SHUT_RD)
        await broken.wait()
        await client.send(b"still there")
        client.end()
        await until(lambda: bool(heard))
        assert heard == [b"still there"]
        client.close()


async def sends_until_broken(wire: Wire) -> None:
    with suppress(BrokenPipeError):
        while True:
            await wire.send(b"x")
            await asyncio.sleep(0)


async def test_a_client_that_closes_while_its_input_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine has its time to take what is still there; then it sees that the client is gone."""
    monkeypatch.setattr(relay, "LINGER", 0.05)

    async with lab() as made:
        flooded, broken = asyncio.Event(), asyncio.Event()

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await wire.send(HIJACKED)
            await flooded.wait()
            await sends_until_broken(wire)
            broken.set()

        made.conduct = engine
        client = made.client()
        await client.send(ATTACH)
        assert await client.exactly(len(HIJACKED)) == HIJACKED
        await flood(client.sock)
        client.close()
        flooded.set()
        await broken.wait()
        await made.quiet()


async def test_who_goes_away_in_the_middle_of_a_log_is_not_followed_any_more() -> None:
    async with lab() as made:
        gone = asyncio.Event()

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nline\n\r\n")
            assert await read_head(wire) is None
            gone.set()

        made.conduct = engine
        client = made.client()
        await client.send(b"GET /containers/x/logs?follow=1 HTTP/1.1\r\nHost: docker\r\n\r\n")
        await client.until(b"line\n")
        client.close()
        await gone.wait()
        await made.quiet()


async def test_an_engine_that_dies_in_the_middle_of_an_answer() -> None:
    async with lab() as made:
        partly = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await wire.send(partly)

        made.conduct = engine
        client = made.client()
        await client.send(PING)
        assert await client.everything() == partly
        with pytest.raises(BrokenPipeError):  # it is gone in both directions
            await client.send(PING)
        client.close()


async def test_an_answer_before_the_end_of_an_upload_arrives() -> None:
    """The engine refuses and closes; what it said is not lost with the bytes that cannot be sent any more."""
    async with lab() as made:
        answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nno x"

        async def engine(wire: Wire) -> None:
            await read_head(wire)
            await wire.fill()
            await wire.send(answer)

        made.conduct = engine
        client = made.client()
        await client.send(b"PUT /containers/x/archive HTTP/1.1\r\nHost: docker\r\nContent-Length: 100000000\r\n\r\n")
        with pytest.raises(BrokenPipeError):
            await client.send(b"x" * 100_000_000)
        assert await client.everything() == answer
        client.close()


async def test_an_answer_before_the_end_of_an_upload_on_a_connection_that_goes_on() -> None:
    async with lab() as made:

        async def engine(wire: Wire) -> None:
            await read_head(wire)
            await wire.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            assert await wire.until(b"the end") == b"a body to the end"
            await made.serves(wire)

        made.conduct = engine
        client = made.client()
        await client.send(b"PUT /containers/x/archive HTTP/1.1\r\nHost: docker\r\nContent-Length: 17\r\n\r\na body")
        assert (await client.answer())[0] == 404
        assert await client.ask(b" to the end" + create("volumes", {})) == (200, b"OK")
        assert [json.loads(body) for _, body in made.requests] == [{"Labels": LABELS}]
        client.close()
