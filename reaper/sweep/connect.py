"""From tables of settings to endpoints: a client for life, with what its tasks share. Providers are imported as needed."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import anyio

from reaper.errors import ProviderError
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.docker.settings import DockerTable
from reaper.retry.budget import Budget
from reaper.retry.retrier import Retrier, RetryPolicy
from reaper.sweep.ownership import Memory
from reaper.sweep.ports import Endpoint

T = TypeVar("T")


def endpoints(
    engines: Iterable[DockerTable],
    organisations: Iterable[tuple[DaytonaTable, str]],
    retry: RetryPolicy,
    state: Path,
    *,
    act: bool,
) -> list[Endpoint]:
    """The endpoints; nothing is asked of them yet.

    Args:
        engines: the Docker engines.
        organisations: the Daytona organisations, each with its API key.
        retry: how often and how long a call is tried.
        state: the folder in which is remembered what is owned.
        act: False gives clients that have no method to change anything.
    """
    return [
        *(_engine(engine, retry, state, act=act) for engine in engines),
        *(_organisation(organisation, key, retry, state, act=act) for organisation, key in organisations),
    ]


def _engine(engine: DockerTable, retry: RetryPolicy, state: Path, *, act: bool) -> Endpoint:
    from reaper.providers.docker import client as docker  # noqa: PLC0415

    client = docker.DockerProvider if act else docker.DockerReader
    reader = client(engine, docker.detect_own_container())
    return Endpoint(reader, Retrier(retry), Memory(state, engine.host))


def _organisation(organisation: DaytonaTable, key: str, retry: RetryPolicy, state: Path, *, act: bool) -> Endpoint:
    from reaper.providers.daytona import client as daytona  # noqa: PLC0415
    from reaper.providers.daytona import links as daytona_links  # noqa: PLC0415

    client = daytona.DaytonaProvider if act else daytona.DaytonaReader
    reading = Budget(organisation.max_rate_share, cautious=True)
    changing = Budget(organisation.max_rate_share, cautious=True)
    links = daytona_links.Links(state, f"{organisation.api_url} {organisation.name}")
    reader = client(organisation, key, reading, changing, links)
    # Every sandbox carries its own signs of ownership, so nothing has to be remembered.
    return Endpoint(reader, Retrier(retry, reading=reading, changing=changing))


async def identify(endpoints: Iterable[Endpoint]) -> None:
    """Have each endpoint say which it is, with one try; one that does not answer stays unknown."""

    async def once(what: str, function: Callable[[], Awaitable[T]]) -> T:
        del what
        return await function()

    async def ask(endpoint: Endpoint) -> None:
        with suppress(ProviderError):
            await endpoint.reader.identify(once)

    async with anyio.create_task_group() as group:
        for endpoint in endpoints:
            group.start_soon(ask, endpoint, name=f"identify {endpoint.reader.endpoint}")
