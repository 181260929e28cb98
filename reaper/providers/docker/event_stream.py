"""Following an engine's stream of events: connected again after silence, with the errors translated."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import datetime

from reaper.core.model import Resource
from reaper.providers.docker import events
from reaper.providers.docker.connection import EngineConnection

CONNECT_WITHIN, QUIET = 30.0, 600.0  # seconds


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

    params = {"filters": events.FILTERS} | ({"since": f"{since.timestamp():.9f}"} if since else {})
    quiet = aiohttp.ClientTimeout(sock_connect=CONNECT_WITHIN, sock_read=QUIET)
    is_open = False
    try:
        async with client._query("events", params=params, timeout=quiet) as answer:  # noqa: SLF001
            try:
                is_open = True
                begun()
                async for container in events.deaths(answer.content.iter_any(), endpoint):
                    yield container
            finally:
                answer.close()  # aiodocker leaves it open
    except Exception as error:  # noqa: BLE001
        if not (is_open and isinstance(error, TimeoutError)):
            connection.translate(error)
        yield None
