"""From tables of settings to endpoints: a client for life, with what its tasks share. Providers are imported as needed."""

from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import anyio

from reaper.errors import ProviderError
from reaper.host import machine_id
from reaper.providers.base import call_once
from reaper.providers.registration import EndpointSpec
from reaper.retry.retrier import Retrier, RetryPolicy
from reaper.sweep.host_clock import HostClock
from reaper.sweep.owner_proofs import OwnerProofs
from reaper.sweep.ownership import Memory
from reaper.sweep.ports import Endpoint
from reaper.sweep.usage import LastUse


def endpoints(specs: Iterable[EndpointSpec], retry: RetryPolicy, state: Path, *, act: bool) -> list[Endpoint]:
    """The endpoints; nothing is asked of them yet.

    Args:
        specs: what is to be swept, with the secrets.
        retry: how often and how long a call is tried.
        state: the folder in which is remembered what is owned.
        act: False gives clients that have no method to change anything.
    """
    return [_endpoint(spec, retry, state, act=act) for spec in specs]


def _endpoint(spec: EndpointSpec, retry: RetryPolicy, state: Path, *, act: bool) -> Endpoint:
    made, is_local = spec.registration.connect(spec.table, spec.secret, state, act=act), _is_local(spec.address)
    name = made.remembered_as
    if name is not None and is_local:  # each host that shares the state directory has another engine there
        name = f"{name} on {machine_id()}"
    memory = Memory(state, name) if name is not None else None
    last_use = LastUse(state, name) if name is not None else None
    owners = OwnerProofs(
        state,
        name or f"{spec.provider} {spec.name} {spec.address}",
        is_local=is_local,
        socket=spec.address.removeprefix("unix://") if spec.address.startswith("unix://") else None,
    )
    retrier = Retrier(retry, reading=made.reading, changing=made.changing)
    clock = HostClock(state) if name is not None and is_local else None
    return Endpoint(made.reader, retrier, memory, last_use, owners, clock)


def _is_local(address: str) -> bool:
    """Whether it is this host's own."""
    host = urlsplit(address).hostname
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return host is not None and ip_address(host).is_loopback
    except ValueError:
        return False


def ids(endpoints: Iterable[Endpoint]) -> frozenset[str]:
    """The ids of those that have said which they are."""
    return frozenset(id_ for endpoint in endpoints if (id_ := endpoint.reader.endpoint_id) is not None)


async def identify(endpoints: Iterable[Endpoint]) -> None:
    """Have each endpoint say which it is, with one try; one that does not answer stays unknown."""

    async def ask(endpoint: Endpoint) -> None:
        with suppress(ProviderError):
            await endpoint.reader.identify(call_once)

    async with anyio.create_task_group() as group:
        for endpoint in endpoints:
            group.start_soon(ask, endpoint, name=f"identify {endpoint.reader.endpoint}")
