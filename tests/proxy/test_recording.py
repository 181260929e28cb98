"""The proxy tells of each container before its client hears of it, and changes no byte of the answer."""

import asyncio
import json

import pytest

from devkit.wire import Wire
from reaper.run.proxy.labels import created_id
from tests.proxy.lab import OK, Client, Lab, lab, until

pytestmark = pytest.mark.anyio

ID = "ab" * 32
BODY = json.dumps({"Id": ID, "Warnings": []}).encode()
FIELDS = b"Content-Type: application/json\r\n"
CREATE = b"POST /v1.41/containers/create HTTP/1.1\r\nHost: docker\r\nContent-Length: 2\r\n\r\n{}"
PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"
WHOLE = b"HTTP/1.1 201 Created\r\n%sContent-Length: %d\r\n\r\n%s" % (FIELDS, len(BODY), BODY)
CHUNKED = b"HTTP/1.1 201 Created\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (FIELDS, len(BODY), BODY)
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n" + WHOLE


def answering(made: Lab, *answers: bytes, piece: int = 1_000_000) -> None:
    """Let the engine give these answers, each in pieces, and close the connection after the last one."""

    async def conduct(wire: Wire) -> None:
        for answer in answers:
            if await made.take(wire) is None:
                return
            for start in range(0, len(answer), piece):
                await wire.send(answer[start : start + piece])
                await asyncio.sleep(0)

    made.conduct = conduct


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED, INTERIM], ids=["whole", "chunked", "interim"])
@pytest.mark.parametrize("piece", [1_000_000, 7, 1])
async def test_the_client_hears_of_a_container_when_it_is_known_here(answer: bytes, piece: int) -> None:
    async with lab() as made:
        answering(made, answer, OK, piece=piece)
        known = asyncio.Event()

        async def wait() -> None:
            await known.wait()

        made.recording = wait
        client = Client(made.path)
        await client.send(CREATE + PING)  # what follows waits as it does without
        await until(lambda: made.created == [ID])
        assert len(made.requests) == 1
        heard = asyncio.create_task(client.everything())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not heard.done()
        known.set()
        assert await heard == answer + OK
        client.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 201 Created\r\nContent-Length: 8\r\n\r\n{"Id":1}',
        b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nwords",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 201 Created\r\n\r\n" + BODY,  # whose end only that of the connection tells
        b"no HTTP at all\r\n\r\n",
        WHOLE[:-5],  # the engine dies
        b"HTTP/1.1 201 Created\r\nContent-Length: 2000000\r\n\r\n" + b" " * 2_000_000,
    ],
)
async def test_any_other_answer_passes_as_it_is(answer: bytes) -> None:
    async with lab() as made:
        answering(made, answer)
        client = Client(made.path)
        await client.send(CREATE)
        assert await client.everything() == answer
        assert made.created == []
        client.close()


async def test_nothing_but_a_container_is_reported_of() -> None:
    async with lab() as made:
        answering(made, WHOLE, WHOLE)
        client = Client(made.path)
        await client.send(CREATE.replace(b"containers", b"networks") + CREATE.replace(b"containers", b"volumes"))
        assert await client.everything() == WHOLE + WHOLE
        assert made.created == []
        client.close()


async def test_a_client_that_has_gone_stops_no_recording_and_the_proxy_s_end_does() -> None:
    async with lab() as made:
        answering(made, WHOLE, OK)
        done = list[str]()

        async def wait() -> None:
            try:
                await made.quiet()
                done.append("recorded")
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                done.append("ended")
                raise

        made.recording = wait
        client = Client(made.path)
        await client.send(CREATE)
        await until(lambda: made.created == [ID])
        client.close()
        await until(lambda: done == ["recorded"])
    assert done == ["recorded", "ended"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"Id": null}', b'{"Id": "../x"}', b"[" * 100_000])
def test_what_is_no_id_is_none(body: bytes) -> None:
    assert created_id(body) is None
