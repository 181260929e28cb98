"""Every byte arrives, both ways, however the messages are cut and framed."""

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from devkit.wire import Wire
from tests.proxy.lab import Client, chunked, cut, lab, run

PLACES = st.lists(st.integers(0, 1_000_000), max_size=6)
DATA = st.sampled_from([b"", b"x", b"\r\n\r\n", b"POST /containers/create HTTP/1.1\r\n\r\n", b"y" * 70_000, b"z" * 600_000])


@dataclass(frozen=True)
class Exchange:
    request: bytes
    answer: bytes
    there: bytes = b""  # what follows to the engine once the connection is a stream
    back: bytes = b""  # and what to the client
    upgraded: bool = False


@st.composite
def bodies(draw: st.DrawFn, *, none: bool) -> tuple[bytes, bytes]:
    """Fields and a body as they go over the wire."""
    sort = draw(st.sampled_from(["length", "chunks", *(["none"] if none else [])]))
    if sort == "none":
        return b"", b""
    if sort == "chunks":
        return b"Transfer-Encoding: chunked\r\n", draw(chunked())[0]
    data = draw(DATA)
    return b"Content-Length: %d\r\n" % len(data), data


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"DELETE"]))
    target = draw(st.sampled_from([b"/_ping", b"/v1.41/build?t=x", b"/exec/x/start", b"/containers/x/logs?follow=1"]))
    fields, body = draw(bodies(none=True))
    extra = draw(st.sampled_from([b"", b"Expect: 100-continue\r\n", b"Upgrade: tcp\r\nConnection: Upgrade\r\n"]))
    request = b"%s %s HTTP/1.1\r\nhOst: docker\r\n%s%s\r\n%s" % (method, target, extra, fields, body)
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 x\r\nA: b\r\n\r\n"]))
    if method == b"HEAD":
        return Exchange(request, interim + b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
    if draw(st.booleans()):
        status = draw(st.sampled_from([b"204 No Content", b"304 Not Modified"]))
        return Exchange(request, interim + b"HTTP/1.1 %s\r\n\r\n" % status)
    fields, body = draw(bodies(none=False))
    status = draw(st.sampled_from([b"200 OK", b"404 Not Found", b"409 Conflict"]))
    return Exchange(request, interim + b"HTTP/1.1 %s\r\nX: y\r\n%s\r\n%s" % (status, fields, body))


@st.composite
def conversations(draw: st.DrawFn) -> list[Exchange]:
    """Some exchanges, and perhaps one at the end that makes a stream of the connection."""
    found = draw(st.lists(exchanges(), min_size=1, max_size=4))
    ending = draw(st.sampled_from(["", "101 UPGRADED", "200 OK"]))
    if ending:
        request = b"POST /v1.41/containers/x/attach?stream=1 HTTP/1.1\r\nHost: docker\r\nUpgrade: tcp\r\n\r\n"
        answer = f"HTTP/1.1 {ending}\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n".encode()
        found.append(Exchange(request, answer, draw(DATA), draw(DATA), upgraded=True))
    return found


@settings(max_examples=100)
@given(conversations(), PLACES, PLACES, st.booleans())
def test_every_byte_arrives(conversation: list[Exchange], places: list[int], others: list[int], pipelined: bool) -> None:
    received = bytearray()

    async def engine(wire: Wire) -> None:
        for exchange in conversation:
            async for piece in wire.pieces(len(exchange.request)):
                received.extend(piece)
            for piece in cut(exchange.answer + exchange.back, others):
                await wire.send(piece)
        if exchange.upgraded:
            wire.end()
        async for piece in wire.rest():
            received.extend(piece)

    async def ask(client: Client, answered: asyncio.Semaphore) -> None:
        for one in conversation:
            await client.send_in(cut(one.request, places))
            if not pipelined:
                await answered.acquire()
            await client.send_in(cut(one.there, places))
        client.end()

    async def scene() -> None:
        async with lab() as made:
            made.conduct = engine
            client, answered = made.client(), asyncio.Semaphore(0)
            async with asyncio.TaskGroup() as group:
                group.create_task(ask(client, answered))
                for one in conversation:
                    assert await client.exactly(len(one.answer)) == one.answer
                    answered.release()
                assert await client.everything() == one.back
            client.close()
            await made.quiet()
        assert bytes(received) == b"".join(one.request + one.there for one in conversation)
        assert made.told == []

    run(scene())
