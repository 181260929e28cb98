"""The engine's events: what has died just now. Hints only; the listing stays the truth."""

import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reaper.core.identity import compose_project
from reaper.core.model import Kind, Resource, State
from reaper.providers.docker.connection import EngineConnection, SilentError

if TYPE_CHECKING:
    import aiohttp

_DEATHS = ("die", "died")  # Podman 4 says died
FILTERS = json.dumps({"type": ["container"], "event": list(_DEATHS)})
QUIET = 600.0  # seconds
LONGEST = 16 << 20  # bytes of one event: labels may be long, and each of them stands in it
_HEAD, _TAIL = 4096, 512  # bytes of an event that is passed over: its id stands at its beginning, its time at its end
_WHO = re.compile(rb'"Actor":\{"ID":"([0-9a-f]+)"')
_WHEN = re.compile(rb'"timeNano":(\d+)\}\s*$')


def event_stream(connection: EngineConnection, **params: str) -> "AbstractAsyncContextManager[aiohttp.ClientResponse]":
    """The events from now on, or ``since`` a time: the engine remembers the last few hundred."""
    return connection.stream("events", quiet=QUIET, **params)


async def followed_deaths(
    connection: EngineConnection, endpoint: str, connected: Callable[[], None], since: datetime | None
) -> AsyncIterator[Resource]:
    """The containers that die, from now on or ``since`` a time.

    Ends when the engine closes the stream; one that is silent is asked anew. Raises ``ProviderError`` when it cannot be
    followed.
    """
    is_connected = False
    while True:
        begin = {"since": f"{since.timestamp():.9f}"} if since else {}
        try:
            async with event_stream(connection, filters=FILTERS, **begin) as answer:
                if not is_connected:
                    is_connected = True
                    connected()
                async for container in deaths(answer.content.iter_any(), endpoint):
                    since = container.stopped_at
                    yield container
        except SilentError:
            continue
        return


async def lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[tuple[bytes, bytes]]:
    """The lines that are not empty, each with nothing; of one that is longer than ``LONGEST`` its end, and its beginning."""
    rest, head = bytearray(), b""
    async for chunk in chunks:
        begin = 0
        while (end := chunk.find(b"\n", begin)) >= 0:
            rest += chunk[begin:end]
            begin = end + 1
            if rest:
                yield bytes(rest), head
            rest, head = bytearray(), b""
        rest += chunk[begin:]
        if len(rest) > LONGEST:
            head = head or bytes(rest[:_HEAD])
            del rest[:-_TAIL]


async def deaths(chunks: AsyncIterable[bytes], endpoint: str) -> AsyncIterator[Resource]:
    """The containers that died, as far as the events name them. What cannot be read is passed over.

    Of an event that is longer than ``LONGEST`` only the id and the time are read, so that it is not asked for again.
    """
    async for line, head in lines(chunks):
        with suppress(ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, RecursionError):
            found = _passed_over(head, line, endpoint) if head else death(json.loads(line), endpoint)
            if found is not None:
                yield found


def _passed_over(head: bytes, tail: bytes, endpoint: str) -> Resource | None:
    """A death of which no more is known than what stands at both ends of its event."""
    who, when = _WHO.search(head), _WHEN.search(tail)
    if who is None or when is None:
        return None
    actor: dict[str, object] = {"ID": who[1].decode(), "Attributes": {}}
    return death({"Type": "container", "Action": "die", "Actor": actor, "timeNano": when[1].decode()}, endpoint)


def death(event: dict[str, object], endpoint: str) -> Resource | None:
    """The container of an event "die"; None for another event. Raises what a malformed one raises."""
    actor = event["Actor"]
    if event.get("Type") != "container" or event.get("Action") not in _DEATHS or not isinstance(actor, dict):
        return None
    attributes = actor["Attributes"]
    # The attributes are the labels, and a few more that the engine adds: a selector may take one of those for a label.
    labels = {str(key): str(value) for key, value in attributes.items()}
    at = datetime.fromtimestamp(float(str(event["timeNano"])) / 1e9, UTC)
    return Resource(
        provider="docker",
        endpoint=endpoint,
        kind=Kind.CONTAINER,
        id=str(actor["ID"]),
        name=str(attributes.get("name") or actor["ID"]),
        state=State.STOPPED,
        raw_state="exited",
        created_at=None,
        stopped_at=at,
        labels=labels,
        image=str(attributes["image"]) if attributes.get("image") else None,
        group=compose_project(labels, frozenset()),
        inspected=False,
    )
