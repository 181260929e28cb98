"""Creations through the socket carry the label, however their request comes; nothing gets by without it."""

import json
from typing import Any

import pytest

from devkit.wire import Wire, read_head
from reaper.run.proxy import relay
from tests.proxy.lab import LABELS, OK, Lab, create, lab

pytestmark = pytest.mark.anyio

ATTACH = b"POST /containers/x/attach HTTP/1.1\r\nHost: docker\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"


def bodies(made: Lab) -> list[Any]:
    return [json.loads(body) if body else None for _, body in made.requests]


@pytest.mark.parametrize("kind", ["containers", "networks", "volumes"])
async def test_it_is_labelled(kind: str) -> None:
    async with lab() as made:
        client = made.client()
        assert await client.ask(create(kind, {"Name": "x", "Labels": {"a": "b"}})) == (200, b"OK")
        assert await client.ask(create(kind, {"Name": "y", "labels": None})) == (200, b"OK")
        mine = {"Name": "z", "Labels": {"reaper.lease": "mine"}}
        assert await client.ask(create(kind, mine)) == (200, b"OK")
        assert bodies(made) == [
            {"Name": "x", "Labels": {**LABELS, "a": "b"}},
            {"Name": "y", "labels": LABELS},
            mine,
        ]
        client.close()


async def test_in_chunks() -> None:
    async with lab() as made:
        client = made.client()
        head = b"POST /volumes/create?x=y HTTP/1.1\r\nhost: docker\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
        await client.send_in([head, b'2\r\n{"\r', b'\n5;a=b\r\nA":1}\r\n0\r\nT: t\r', b"\n\r\n" + PING])
        assert [await client.answer(), await client.answer()] == [(200, b"OK")] * 2
        (got, body), _ = made.requests
        assert json.loads(body) == {"A": 1, "Labels": LABELS}
        assert got == b"POST /volumes/create?x=y HTTP/1.1\r\nhost: docker\r\nX: y\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.close()


async def test_a_client_that_waits_to_be_told_to_go_on() -> None:
    async with lab() as made:
        client = made.client()
        raw = create("networks", {"Name": "x"}, head=b"Expect: 100-continue\r\n")
        end = raw.index(b"\r\n\r\n") + 4
        await client.send(raw[:end])
        assert (await client.answer())[0] == 100
        assert made.requests == []
        assert await client.ask(raw[end:]) == (200, b"OK")
        assert bodies(made) == [{"Name": "x", "Labels": LABELS}]
        assert b"Expect" not in made.requests[0][0]
        client.close()


async def test_one_after_the_other_in_one_piece() -> None:
    async with lab() as made:
        client = made.client()
        await client.send(create("volumes", {"Name": "a"}) + PING + create("volumes", {"Name": "b"}) + PING)
        assert [await client.answer() for _ in range(4)] == [(200, b"OK")] * 4
        assert bodies(made) == [{"Name": "a", "Labels": LABELS}, None, {"Name": "b", "Labels": LABELS}, None]
        assert made.connections == 1
        client.close()


@pytest.mark.parametrize("body", [b"not JSON", b"[]", b'{"Labels":["a"]}', b""])
async def test_what_the_engine_will_refuse_it_gets_as_it_is(body: bytes) -> None:
    async with lab() as made:
        client = made.client()
        raw = create("containers", body)
        assert await client.ask(raw) == (200, b"OK")
        assert b"".join(made.requests[0]) == raw
        client.close()


async def test_lines_that_end_without_a_carriage_return() -> None:
    """The engine reads them."""
    async with lab() as made:
        client = made.client()
        await client.send(b"POST /volumes/create HTTP/1.1\nHost: docker\nContent-Length: 2\n\n{}")

        async def engine(wire: Wire) -> None:
            made.requests.append((await wire.until(b"\r\n\r\n"), b""))
            await wire.send(OK)

        made.conduct = engine
        assert await client.answer() == (200, b"OK")
        assert made.requests[0][0].endswith(
            b"Content-Length: %d\r\n\r\n" % len(json.dumps({"Labels": LABELS}).replace(": {", ":{"))
        )
        client.close()


@pytest.mark.parametrize("refused", [b"409 Conflict", b"404 Not Found", b"500 x"])
async def test_after_a_refused_upgrade_the_connection_goes_on(refused: bytes) -> None:
    async with lab() as made:

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await wire.send(b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\n{}" % refused)
            await made.serves(wire)

        made.conduct = engine
        client = made.client()
        assert (await client.ask(ATTACH))[1] == b"{}"
        assert await client.ask(create("volumes", {"Name": "x"})) == (200, b"OK")
        assert bodies(made) == [None, {"Name": "x", "Labels": LABELS}]
        client.close()


async def test_a_stream_is_left_alone() -> None:
    """What looks like a creation there is a client's data."""
    async with lab() as made:
        raw = create("volumes", {"Name": "x"})

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await wire.send(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            async for piece in wire.pieces(len(raw)):
                await wire.send(piece)

        made.conduct = engine
        client = made.client()
        assert (await client.ask(ATTACH))[0] == 101
        await client.send(raw)
        assert await client.exactly(len(raw)) == raw
        client.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\nlines", b"garbage\r\n\r\n"])
async def test_behind_an_answer_without_an_end_nothing_passes(answer: bytes) -> None:
    """Of an ordinary request it is the last one on a connection; and who sends garbage is not to be trusted."""
    async with lab() as made:

        async def engine(wire: Wire) -> None:
            await made.take(wire)
            await wire.send(answer)
            assert await read_head(wire) is None
            made.requests.append((b"the end", b""))

        made.conduct = engine
        client = made.client()
        await client.send(b"GET /containers/x/logs HTTP/1.1\r\n\r\n")
        assert await client.exactly(len(answer)) == answer
        await client.send(create("volumes", {"Name": "x"}))
        client.end()
        assert await client.everything() == b""
        assert [head for head, _ in made.requests[1:]] == [b"the end"]
        client.close()
        assert [why for why in made.told if "cannot be read" in why] == made.told
        assert len(made.told) == (answer[:1] == b"g")


async def test_what_is_refused_in_the_middle_of_an_answer_gets_no_second_one() -> None:
    async with lab() as made:
        begins = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegins"

        async def engine(wire: Wire) -> None:
            await read_head(wire)
            await wire.send(begins)
            await wire.gone()

        made.conduct = engine
        client = made.client()
        await client.send(b"POST /build HTTP/1.1\r\nHost: docker\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert await client.exactly(len(begins)) == begins
        await client.send(b"no chunk\r\n")
        assert await client.everything() == b""
        assert made.told == ["a request was refused (400): a chunk's length is no number"]
        client.close()


async def test_behind_what_was_not_asked_for_nothing_passes() -> None:
    async with lab() as made:

        async def engine(wire: Wire) -> None:
            await wire.send(OK)
            await made.serves(wire)

        made.conduct = engine
        client = made.client()
        assert await client.answer() == (200, b"OK")
        await client.send_in([create("volumes", {"Name": "x"})])
        client.end()
        assert await client.everything() == b""
        assert made.requests == []
        assert made.told == ["the engine sent what cannot be read: an answer to nothing that was asked"]
        client.close()


@pytest.mark.parametrize(
    ("raw", "status", "why"),
    [
        (b"PRI * HTTP/2.0\r\n\r\n", 400, "no request of HTTP/1.1"),
        (b"POST /volumes/create HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", 400, "no request"),
        (b"POST /volumes/create HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400, "Content-Length"),
        (b"POST /volumes/create HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "Transfer-Encoding"),
        (b"POST /volumes/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, "chunk"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 1_100_000, 400, "a head of more than"),
        (create("volumes", b'{"A":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), 400, "nested too deeply"),
        (create("volumes", b'{"A":"' + b"a" * 2000 + b'"}'), 413, "more than 0 MiB"),
    ],
)
async def test_what_is_refused_here(raw: bytes, status: int, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if status == 413:
        monkeypatch.setattr(relay, "MAX_BODY", 1000)

    async with lab() as made:
        client = made.client()
        await client.send(raw)
        assert (await client.answer())[0] == status
        assert await client.everything() == b""
        assert made.requests == []
        assert why in made.told[0]
        client.close()
