"""Volumes that are mounted from the folders of others: what has one of them uses the other as well, and no engine knows it.

``docker volume create --opt o=bind --opt device=/var/lib/docker/volumes/NAME/_data``: only the listing of volumes shows it.
"""

import json
from collections.abc import Mapping, Sequence

from reaper.core.lease import ANONYMOUS
from reaper.providers.base import Call
from reaper.providers.docker.connection import EngineConnection, checked_rows, hinting
from reaper.providers.docker.containers import mounted_volumes
from reaper.providers.docker.volumes_images import volumes_below
from reaper.providers.parsing import Row, table, text

# Of a driver that is a plugin none lies in the engine's own folder, and one that is dead would hold up the listing.
_FILTERS = json.dumps({"driver": ["local"], "dangling": ["false"]})


class VolumeFolders:
    """Knows which of the volumes that containers have are mounted from other volumes' folders.

    Args:
        endpoint: the engine's name.
        connection: to it.
    """

    def __init__(self, endpoint: str, connection: EngineConnection) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._any_may_go = False
        self._asked_for: set[str] = set()
        self._below: Mapping[str, frozenset[str]] = {}

    async def read_anew(self, containers: Sequence[Row], call: Call, *, volumes: bool) -> Mapping[str, frozenset[str]]:
        """The names of the volumes below each, at the beginning of a sweep. Raises ProviderError.

        Args:
            containers: rows of the listing of containers.
            call: makes each request.
            volumes: whether volumes may go, and not only the anonymous ones that go with their containers.
        """
        self._any_may_go, self._asked_for, self._below = volumes, set(), {}
        return await self.read(containers, call)

    async def read(self, containers: Sequence[Row], call: Call) -> Mapping[str, frozenset[str]]:
        """The same for a later listing: the engine is asked again when containers have volumes that are new."""
        mounted = {name for row in containers for name in mounted_volumes(row)}
        may_go = self._any_may_go or any(ANONYMOUS.fullmatch(name) and mounted != {name} for name in mounted)
        if may_go and not mounted <= self._asked_for:
            rows = await call(f"list volumes on {self._endpoint}", self._list)
            direct = {name: volumes_below(row) for row in rows if (name := text(row.get("Name"))) is not None}
            self._below = {name: below for name in direct if (below := _all_below(name, direct))}
            self._asked_for = mounted
        return self._below

    async def _list(self) -> Sequence[Row]:
        with hinting("GET /volumes has to be let through: it shows which volumes are mounted from the folders of others"):
            answer = table(await self._connection.ask("volumes", filters=_FILTERS))
        volumes = answer.get("Volumes", "missing")
        return checked_rows([] if volumes is None else volumes, "volumes")


def _all_below(name: str, direct: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The volumes below one, and those below these."""
    found, new = set[str](), {name}
    while new:
        new = {below for one in new for below in direct.get(one, ())} - found
        found |= new
    return frozenset(found - {name})
