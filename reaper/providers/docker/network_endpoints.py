"""Endpoints of containers that are gone, which an engine has kept on a network: they refuse the network's deletion for ever.

What is left is freed by the endpoint's name, which is its container's: it has no id on an engine. No living container is
meant by that. The listing and two inspections prove that there is none of that id or name, and as long as the endpoint is
there no other one of its name can join the network.
"""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from reaper.errors import ConflictError, NotFoundError
from reaper.providers.docker.calls import NAME
from reaper.providers.docker.links import networks_of
from reaper.providers.parsing import Row, table, text, texts

Ask = Callable[[str, str, str | None], Awaitable[object]]
Listing = Callable[[], Awaitable[Sequence[Row]]]

_ID = re.compile("[0-9a-f]{64}")
_UNBOUND = "ep-"  # before the endpoint's own id, where it is in no sandbox


@dataclass(frozen=True, slots=True)
class Stale:
    """An endpoint of a container that is not listed.

    Args:
        name: its own, which is its container's.
        container: the container's id, where it is given.
    """

    name: str
    container: str | None


def stale_endpoints(network: Row, containers: Sequence[Row]) -> tuple[Stale, ...]:
    """The endpoints on a network if none of them is a container's that there is; else none at all.

    Args:
        network: its inspection.
        containers: the whole listing of containers, from after that inspection.
    """
    ids, names = {text(row.get("Id")) for row in containers}, {name for row in containers for name in _names(row)}
    if None in ids or any(not _names(row) for row in containers) or network.get("Scope") != "local":
        return ()
    own = {text(network.get("Id")), text(network.get("Name"))}
    if None in own or any(own & _networks(row) for row in containers):
        return ()
    found = []
    for key, value in table(network.get("Containers")).items():
        name = text(table(value).get("Name"))
        container = key if _ID.fullmatch(key) else None
        if name is None or not re.fullmatch(NAME, name) or (container is None and not key.startswith(_UNBOUND)):
            return ()
        if key in ids or name in names or any(id_ is not None and id_.startswith(name) for id_ in ids):
            return ()
        found.append(Stale(name, container))
    return tuple(found)


async def proven_stale(network: Row, ask: Ask, listing: Listing) -> tuple[Stale, ...]:
    """The endpoints on a network, if the listing and the inspections prove that all of them are of containers that are gone.

    Args:
        network: its inspection.
        ask: makes a request: method, path, body. Raises ProviderError.
        listing: lists all containers.
    """
    if not network.get("Containers"):
        return ()
    found = stale_endpoints(network, await listing())
    for reference in (ref for one in found for ref in (one.container, one.name) if ref is not None):
        try:
            await ask("GET", f"containers/{reference}/json", None)
        except NotFoundError:
            continue
        return ()
    return found


async def delete_network(network_id: str, ask: Ask, listing: Listing) -> None:
    """Delete a network; where nothing but endpoints of containers that are gone refuses that, free it of them first.

    Args:
        network_id: of it.
        ask: as in ``proven_stale``.
        listing: as in ``proven_stale``.
    """
    try:
        await ask("DELETE", f"networks/{network_id}", None)
    except ConflictError:
        if not await freed(network_id, ask, listing):
            raise
        await ask("DELETE", f"networks/{network_id}", None)


async def freed(network_id: str, ask: Ask, listing: Listing) -> bool:
    """Free a network of what is left on it, if that is proven to be all that is on it; whether it was.

    Args:
        network_id: of a network that is to be deleted.
        ask: as in ``proven_stale``.
        listing: as in ``proven_stale``.
    """
    network = table(await ask("GET", f"networks/{network_id}", None))
    found = await proven_stale(network, ask, listing) if network.get("Id") == network_id else ()
    for one in found:
        with suppress(NotFoundError):  # the endpoint, which has gone meanwhile; the network is checked by its deletion
            await ask("POST", f"networks/{network_id}/disconnect", json.dumps({"Container": one.name, "Force": True}))
    return bool(found)


def _names(row: Row) -> list[str]:
    return [name.removeprefix("/") for name in texts(row.get("Names"))]


def _networks(row: Row) -> set[str | None]:
    """Ids of the networks of a listed container; of one that was never started, their names."""
    places = networks_of(row)
    return {text(table(place).get("NetworkID")) or name for name, place in places.items()}
