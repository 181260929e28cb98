"""The listings of volumes and images, which may fail where those of containers do not."""

import json
from collections.abc import Mapping, Sequence
from functools import partial

import anyio

from reaper.core.model import Kind, Resource
from reaper.errors import CallTimeoutError, ProviderError, UnreadableError
from reaper.providers.base import Also, Call
from reaper.providers.docker.connection import EngineConnection, checked_rows, hinting
from reaper.providers.parsing import Row, table

LISTED_WITHIN = 20.0  # seconds for the volumes, and for the images: a plugin that is dead keeps the engine waiting
SECOND_TRY_AFTER = 1.0

Filters = Mapping[str, Sequence[str]]
NO_FILTERS: Filters = {}


def is_wanted(found: Resource, label_keys: frozenset[str], also: Also) -> bool:
    """Whether a volume or an image is among those that a listing is asked for; so is a volume that lies on another one."""
    labelled = bool(label_keys & (found.labels or {}).keys()) or (found.kind is Kind.VOLUME and bool(found.uses))
    return labelled or found.kind in also.kinds or found.id in also.ids or (also.projects and found.group is not None)


async def rows_with(
    connection: EngineConnection,
    endpoint: str,
    kind: Kind,
    keys: Sequence[str | None],
    call: Call,
    *,
    intermediate: bool = False,
    filters: Filters = NO_FILTERS,
) -> Sequence[Row] | ProviderError:
    """The volumes or images with one of these labels (None: all), or why they cannot be listed: that stops nothing else.

    With ``intermediate``, those images as well that others were built on; ``filters`` are further ones for the engine.

    Their listing may fail alone, for a plugin that is dead or an image that is damaged: that says nothing of the engine,
    and must neither be tried as long as other calls are nor open the circuit breaker.
    """
    rows: list[Row] = []
    with anyio.move_on_after(LISTED_WITHIN):
        for key in keys:
            what, ask = (
                f"list {kind}s on {endpoint}",
                partial(_labelled_or_error, connection, kind, key, intermediate=intermediate, filters=filters),
            )
            found = await call(what, ask)
            if isinstance(found, ProviderError):
                await anyio.sleep(SECOND_TRY_AFTER)
                found = await call(what, ask)
            if isinstance(found, ProviderError):
                return found
            rows += found
        return rows
    return CallTimeoutError(f"no answer within {LISTED_WITHIN:g} s")


async def _labelled_or_error(
    connection: EngineConnection, kind: Kind, key: str | None, *, intermediate: bool, filters: Filters
) -> Sequence[Row] | ProviderError:
    try:
        return await _labelled(connection, kind, key, intermediate=intermediate, filters=filters)
    except ProviderError as error:
        return error


async def _labelled(
    connection: EngineConnection, kind: Kind, key: str | None, *, intermediate: bool, filters: Filters
) -> Sequence[Row]:
    """The volumes or images with this label, or all. The filter is an optimisation: what comes back is tested again."""
    filters = filters if key is None else {**filters, "label": [key]}
    params = {"filters": json.dumps(filters)} if filters else {}
    if intermediate:
        params["all"] = "1"
    # An engine that lists containers lists these, too.
    with hinting(
        "for the sake of leases, and of volumes that lie on others, GET /volumes and GET /images/json have to be let through"
    ):
        if kind is Kind.IMAGE:
            return checked_rows(await connection.ask("images/json", **params), "images")
        answer = table(await connection.ask("volumes", **params))
    if warnings := answer.get("Warnings"):  # a driver did not answer
        said = "; ".join(map(str, warnings)) if isinstance(warnings, list) else str(warnings)
        raise UnreadableError(f"the listing of volumes is not whole: {said}")
    volumes = answer.get("Volumes", "missing")
    return checked_rows([] if volumes is None else volumes, "volumes")
