"""The engine's events: what has died just now. Hints only; the listing stays the truth."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime

from reaper.core.identity import compose_project
from reaper.core.model import Kind, Resource, State
from reaper.providers.docker.connection import EngineConnection

_DEATHS = ("die", "died")  # Podman 4 says died
FILTERS = json.dumps({"type": ["container"], "event": list(_DEATHS)})
CONNECT_WITHIN, QUIET = 30.0, 600.0  # seconds
LONGEST = 16 << 20  # bytes of one event: labels may be long, and each of them stands in it
_TAIL = 512  # bytes at the end of an event that is passed over: its time stands there
_WHO = re.compile(rb'"Actor":\{"ID":"([0-9a-f]+)"')
_WHEN = re.compile(rb'"timeNano":(\d+)\}\s*$')


async def followed_deaths(
    connection: EngineConnection, endpoint: str, connected: Callable[[], None], since: datetime | None
) -> AsyncIterator[Resource]:
    """The containers that die, from now on or ``since`` a time (the engine remembers the last few hundred events).

    Ends when the engine closes the stream. One that is silent for ten minutes is asked anew, since nothing tells whether
    it still lives. Raises ``ProviderError`` when it cannot be followed.
    """
    is_connected = False

    def begun() -> None:
        nonlocal is_connected
        if not is_connected:
            is_connected = True
            connected()

    while True:
        silent = False
        async with aclosing(_of_one_connection(connection, endpoint, begun, since)) as found:
            async for container in found:
                if container is None:
                    silent = True
                    break
                since = container.stopped_at
                yield container
        if not silent:
            return


async def _of_one_connection(
    connection: EngineConnection, endpoint: str, begun: Callable[[], None], since: datetime | None
) -> AsyncGenerator[Resource | None]:
    """The deaths of one connection; None at its end where it has been silent for too long."""
    client = connection.client()
    import aiohttp  # noqa: PLC0415

    params = {"filters": FILTERS} | ({"since": f"{since.timestamp():.9f}"} if since else {})
    quiet = aiohttp.ClientTimeout(sock_connect=CONNECT_WITHIN, sock_read=QUIET)
    is_open = False
    try:
        async with client._query("events", params=params, timeout=quiet) as answer:  # noqa: SLF001
            try:
                is_open = True
                begun()
                async for container in deaths(answer.content.iter_any(), endpoint):
                    yield container
            finally:
                answer.close()  # aiodocker leaves it open
    except Exception as error:  # noqa: BLE001
        if not (is_open and isinstance(error, TimeoutError)):
            connection.translate(error)
        yield None


async def deaths(chunks: AsyncIterable[bytes], endpoint: str) -> AsyncIterator[Resource]:
    """The containers that died, as far as the events name them. What cannot be read is passed over.

    Of an event that is longer than ``LONGEST`` only the id and the time are read, so that it is not asked for again.
    """
    rest, who = bytearray(), None
    async for chunk in chunks:
        begin = 0
        while (end := chunk.find(b"\n", begin)) >= 0:
            rest += chunk[begin:end]
            begin = end + 1
            with suppress(ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, RecursionError):
                found = death(json.loads(rest), endpoint) if who is None else _passed_over(who, bytes(rest), endpoint)
                if found is not None:
                    yield found
            rest, who = bytearray(), None
        rest += chunk[begin:]
        if len(rest) > LONGEST:
            who = who or rest[:LONGEST]
            del rest[:-_TAIL]


def _passed_over(head: bytes | bytearray, tail: bytes, endpoint: str) -> Resource | None:
    """A death of which no more is known than what stands at both ends of its event."""
    who, when = _WHO.search(head, 0, 4096), _WHEN.search(tail)
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
