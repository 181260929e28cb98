"""The build cache of an engine, and how large its volumes are: what ``GET /system/df`` tells of one type.

Engines before Docker 23 measure everything at once, which takes a large host minutes: they are asked seldom, and not long.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence

import anyio

from reaper.core import sizes
from reaper.core.accounts import Prune, Pruned
from reaper.core.model import Kind, Resource, State
from reaper.core.wording import counted
from reaper.errors import CallTimeoutError, NotFoundError, UnreadableError
from reaper.providers.docker.connection import EngineConnection
from reaper.providers.docker.containers import readable_moment
from reaper.providers.docker.volumes_images import api_version
from reaper.providers.parsing import Row, table, text

CACHE, CACHE_ID = "build-cache", "/build-cache"  # no volume can have such a name
OF_ONE_TYPE = (1, 42)
"""The version of the API since which ``type`` chooses what is measured (Docker 23)."""
MEASURED_WITHIN = 20.0  # seconds
SELDOM = 3600.0  # seconds between two measurements by an engine that measures everything


class Disk:
    """Measures what one engine holds, and prunes its build cache.

    Args:
        endpoint: the engine's name.
        connection: to it.
    """

    def __init__(self, endpoint: str, connection: EngineConnection) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._everything: tuple[float, Row] | None = None

    async def build_cache(self) -> Resource | None:
        """The build cache as one resource; None where there is none. Raises ProviderError."""
        if self._connection.is_podman:
            return None  # what it keeps are images, and to measure all else fails for one volume that cannot be read
        records = _rows((await self._measured(CACHE)).get("BuildCache"), "the build cache")
        return build_cache(records, self._endpoint)

    async def inspect(self) -> Resource:
        """The same. Raises NotFoundError where there is none."""
        if (cache := await self.build_cache()) is None:
            raise NotFoundError("the build cache is empty")
        return cache

    async def volume_sizes(self) -> Mapping[str, int]:
        """The sizes of the volumes by name, as far as they are known. Raises ProviderError."""
        rows = _rows((await self._measured("volume")).get("Volumes"), "the volumes")
        found = {text(row.get("Name")): table(row.get("UsageData")).get("Size") for row in rows}
        return {name: size for name, size in found.items() if name is not None and isinstance(size, int) and size >= 0}

    async def prune(self, prune: Prune) -> Pruned:
        """Prune the build cache; returns what came of it. Raises ProviderError, NotFoundError when nothing could go."""
        filters = {} if prune.unused_for is None else {"until": [f"{math.ceil(prune.unused_for.total_seconds())}s"]}
        keep = {} if prune.keep is None else {"keep-storage": str(prune.keep)}
        answer = table(await self._connection.request("POST", "build/prune", filters=json.dumps(filters), **keep))
        deleted, freed = answer.get("CachesDeleted"), answer.get("SpaceReclaimed")
        self._everything = None
        if not deleted:
            raise NotFoundError("nothing of the build cache could be pruned")
        count = len(deleted) if isinstance(deleted, list) else 0
        freed = freed if isinstance(freed, int) and freed >= 0 else None
        size = "an unknown size" if freed is None else sizes.human(freed)
        return Pruned(f"{counted(count, 'record')} pruned, {size} freed", freed)

    async def _measured(self, what: str) -> Row:
        one_type = api_version(self._connection.client().api_version) >= OF_ONE_TYPE
        if not one_type and self._everything is not None and time.monotonic() - self._everything[0] < SELDOM:
            return self._everything[1]
        answer: object = None
        with anyio.move_on_after(MEASURED_WITHIN) as scope:
            answer = await self._connection.ask("system/df", **({"type": what} if one_type else {}))
        if scope.cancelled_caught:
            raise CallTimeoutError(f"GET /system/df was not answered within {MEASURED_WITHIN:g} s")
        found = table(answer)
        if not one_type:
            self._everything = time.monotonic(), found
        return found


def build_cache(records: Sequence[Row], endpoint: str) -> Resource | None:
    """The records of a build cache as one resource; None when there are none.

    What counts is what may be pruned: neither what is in use nor what images share, whose bytes no pruning gives back.
    """
    if not records:
        return None
    free = [row for row in records if row.get("InUse") is False and row.get("Shared") is False]
    last = [readable_moment(row.get("LastUsedAt")) or readable_moment(row.get("CreatedAt")) for row in free]
    used = [at for at in last if at is not None]
    made = [at for row in records if (at := readable_moment(row.get("CreatedAt"))) is not None]
    own = [size for row in records if row.get("Shared") is False and isinstance(size := row.get("Size"), int)]
    return Resource(
        provider="docker",
        endpoint=endpoint,
        kind=Kind.BUILD_CACHE,
        id=CACHE_ID,
        name=CACHE,
        state=State.STOPPED,
        raw_state="present",
        created_at=min(made, default=None),
        labels={},
        size=sum(own) if free else None,
        last_used_at=min(used, default=None) if len(used) == len(free) else None,
    )


def _rows(value: object, what: str) -> Sequence[Row]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UnreadableError(f"the measurement of {what} is no list of objects")
    return value
