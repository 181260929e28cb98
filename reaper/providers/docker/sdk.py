"""aiodocker's client, which speaks no later version of the API than this program knows.

An engine keeps to what a version of the API promises, and drops fields and parameters from one version to the next. Docker
announces so of the build cache in ``GET /system/df`` (1.53), without which there would seem to be none, and of
``keep-storage`` in ``POST /build/prune`` (1.52), without which a prune would leave nothing.

It is imported when a client is made: it brings aiodocker, and that asyncio.
"""

import aiodocker

from reaper.providers.docker.volumes_images import api_version

NEWEST = "1.51"
"""The latest version with which this program has been tried (Docker 28.5)."""


def spoken(latest: str, oldest: str) -> str:
    """The version to speak with an engine: its latest one, or this program's where that is earlier and the engine takes it.

    Args:
        latest: that the engine has.
        oldest: that the engine still takes.
    """
    known = min(latest, NEWEST, key=api_version)
    return max(known, oldest, key=api_version)


class Client(aiodocker.Docker):
    """See the module.

    Attributes:
        is_version_stale: whether another version of the engine may answer now: it was upgraded, or replaced.
    """

    is_version_stale = False

    async def _check_version(self) -> None:
        if self.api_version == "auto" or self.is_version_stale:
            told = await self._query_json("version", versioned_api=False)
            self.api_version = f"v{spoken(str(told['ApiVersion']), str(told.get('MinAPIVersion')))}"
            self.is_version_stale = False
