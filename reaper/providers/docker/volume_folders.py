"""Volumes that are mounted from the folders of others: what has one of them uses the other as well, and no engine knows it.

``docker volume create --opt o=bind --opt device=/var/lib/docker/volumes/NAME/_data``: only the listing of volumes shows it.
That may fail where the one of containers does not: an engine before Docker 23 waits for a server of NFS that is dead.
"""

from collections.abc import Mapping, Sequence

from reaper.core.lease import ANONYMOUS
from reaper.core.model import Kind
from reaper.errors import ProviderError
from reaper.providers.base import Call
from reaper.providers.docker.connection import EngineConnection
from reaper.providers.docker.containers import mounted_volumes
from reaper.providers.docker.labelled import rows_with
from reaper.providers.docker.links import Below
from reaper.providers.docker.volumes_images import volumes_below
from reaper.providers.parsing import Row, text

# Of a driver that is a plugin none lies in the engine's own folder, and one that is dead would hold up the listing.
_FILTERS = {"driver": ["local"], "dangling": ["false"]}


class VolumeFolders:
    """Knows which of the volumes that containers have are mounted from other volumes' folders.

    Args:
        endpoint: the engine's name.
        connection: to it.

    Attributes:
        problem: why it is not known, if so.
    """

    def __init__(self, endpoint: str, connection: EngineConnection) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._any_may_go = False
        self._asked_for: set[str] = set()
        self._below: Below = {}
        self.problem: str | None = None

    async def read_anew(self, containers: Sequence[Row], call: Call, *, volumes: bool) -> Below:
        """The names of the volumes below each, at the beginning of a sweep; None where they are not known.

        Args:
            containers: rows of the listing of containers.
            call: makes each request.
            volumes: whether volumes may go, and not only the anonymous ones that go with their containers.
        """
        self._any_may_go, self._asked_for, self._below, self.problem = volumes, set(), {}, None
        return await self.read(containers, call)

    async def read(self, containers: Sequence[Row], call: Call) -> Below:
        """The same for a later listing: the engine is asked again when containers have volumes that are new."""
        mounted = {name for row in containers for name in mounted_volumes(row)}
        may_go = self._any_may_go or any(ANONYMOUS.fullmatch(name) and mounted != {name} for name in mounted)
        if may_go and not mounted <= self._asked_for:
            self._asked_for = mounted
            rows = await rows_with(self._connection, self._endpoint, Kind.VOLUME, [None], call, filters=_FILTERS)
            if isinstance(rows, ProviderError):
                self._below, self.problem = None, str(rows)
                return None
            direct = {name: volumes_below(row) for row in rows if (name := text(row.get("Name"))) is not None}
            self._below = {name: below for name in direct if (below := _all_below(name, direct))}
        return self._below


def _all_below(name: str, direct: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The volumes below one, and those below these."""
    found, new = set[str](), {name}
    while new:
        new = {below for one in new for below in direct.get(one, ())} - found
        found |= new
    return frozenset(found - {name})
