"""The build cache of a simulated Docker engine, and what it measures of its disk."""

from typing import Any

from aiohttp import web

from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.filters import Filters
from reaper.simulator.docker.http import answer, route
from reaper.simulator.docker.json import volume
from reaper.simulator.docker.model import CacheRecord, RefusedError
from reaper.simulator.docker.text import NS, rfc3339

_UNITS = {"ns": 1, "us": 1000, "ms": 10**6, "s": NS, "m": 60 * NS, "h": 3600 * NS}


@route("GET", "/system/df")
async def _measure(engine: Engine, _: web.Request, __: str) -> web.Response:
    """This version measures everything, whatever type is asked for."""
    volumes = [
        volume(engine, found) | {"UsageData": {"RefCount": len(found.users), "Size": found.size}}
        for found in engine.volumes.values()
    ]
    return answer(
        {
            "LayersSize": sum(image.size for image in engine.images),
            "Images": [],
            "Containers": [],
            "Volumes": volumes,
            "BuildCache": [_listed(record) for record in engine.cache],
            "BuilderSize": sum(record.size for record in engine.cache),
        }
    )


@route("POST", "/build/prune")
async def _prune(engine: Engine, request: web.Request, _: str) -> web.Response:
    """The least recently used first, until no more than `keep-storage` is left."""
    filters = Filters(request.query.get("filters"), ("until", "unused-for", "id", "parent", "type", "inuse", "shared"))
    until = filters.get("until")
    if len(until) > 1:
        raise RefusedError(500, "filters expect only one value")
    limit = engine.time() - _span(until[0]) if until else engine.time()
    keep = int(request.query.get("keep-storage") or 0)
    gone, freed = [], 0
    for record in sorted(engine.cache, key=lambda one: one.used):
        left = sum(one.size for one in engine.cache)
        if record.in_use or record.shared or record.used > limit or (keep and left <= keep):
            continue
        engine.cache.remove(record)
        gone.append(record.id)
        freed += record.size
    engine.events.log("builder", "prune", "", {"reclaimed": str(freed)}, engine.tick())
    return answer({"CachesDeleted": gone or None, "SpaceReclaimed": freed})


def _listed(record: CacheRecord) -> dict[str, Any]:
    return {
        "ID": record.id,
        "Parent": "",
        "Type": "regular",
        "Description": "mount / from exec /bin/sh -c make",
        "InUse": record.in_use,
        "Shared": record.shared,
        "Size": record.size,
        "CreatedAt": rfc3339(record.created),
        "LastUsedAt": rfc3339(record.used),
        "UsageCount": 1,
    }


def _span(text: str) -> int:
    unit = text.lstrip("0123456789.")
    if unit not in _UNITS:
        raise RefusedError(500, f'time: unknown unit "{unit}" in duration "{text}"')
    return int(float(text.removesuffix(unit)) * _UNITS[unit])
