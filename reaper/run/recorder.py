"""Remembers what is made under the lease of a run where its labels do not prove that: an ended lease takes it by this alone.

The engine gives no label to anonymous volumes, and BuildKit none to the images that it builds. And an engine may forget the
image of a container: then the container's labels may have been the image's. So the containers that are made through the
proxy are inspected before its client hears of them, and what was made is written beside the leases: it outlives this
process, however that ends.
"""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from reaper.core.identity import PROJECT_LABEL
from reaper.core.scope import LEASE_LABEL
from reaper.errors import LeasesUnknownError, NotFoundError, ProviderError
from reaper.leases.containers import MadeContainers, forget
from reaper.leases.database import create
from reaper.leases.sources import NAME
from reaper.leases.store import REMEMBER, LeaseFile
from reaper.providers.base import call_once
from reaper.providers.docker.client import DockerReader
from reaper.providers.docker.made import made_with
from reaper.providers.docker.settings import DockerTable

WITHIN = 5.0  # seconds for what is asked about one container: its client waits for so long


class Recorder:
    """Records what is made on one engine under one lease. All methods run on one loop of asyncio.

    Args:
        engine: the one behind the proxy.
        lease: the lease's id.
        state: the state directory.
        say: hears what went wrong, in words.
    """

    def __init__(self, engine: DockerTable, lease: str, state: Path, say: Callable[[str], None]) -> None:
        self._reader = DockerReader(engine)
        self._lease, self._say = lease, say
        self._path = state / NAME
        self._images: frozenset[str] | None = None  # of Compose projects, when the lease began
        self._known: set[str] = set()
        self._containers = MadeContainers(state, lease)
        self._thread = ThreadPoolExecutor(1, "record what is made")
        self._file: LeaseFile | None = None
        self._said = False

    async def begin(self) -> None:
        """Note which images are there: none of these is made under the lease, though a build may tag it anew."""
        try:
            async with asyncio.timeout(WITHIN):
                await self._reader.identify(call_once)
                filters = json.dumps({"label": [PROJECT_LABEL]})
                rows = await self._reader.ask("images/json", filters=filters)
        except (ProviderError, TimeoutError):
            return  # then no image is known to be new; the command will hear of the engine by itself
        if isinstance(rows, list):
            self._images = frozenset(str(row.get("Id")) for row in rows if isinstance(row, dict))

    async def created(self, container: str) -> None:
        """Record what was made with this container."""
        try:
            async with asyncio.timeout(WITHIN):
                await self._record(container)
        except NotFoundError:
            pass  # it is gone already
        except (ProviderError, LeasesUnknownError, TimeoutError, OSError, ValueError, TypeError, AttributeError) as error:
            if not self._said:
                why = str(error) or f"no answer within {WITHIN:g} s"
                self._say(
                    f"what was made with container {container[:12]} could not be recorded: {why}; its anonymous volumes stay"
                    " if something removes it without them, an image that was built for it stays, and so does the container"
                    " itself if the engine forgets its image"
                )
            self._said = True

    async def _record(self, container: str) -> None:
        if self._reader.endpoint_id is None:
            await self._reader.identify(call_once)
        endpoint = self._reader.endpoint_id
        assert endpoint is not None  # identify raises otherwise
        found = await made_with(container, (LEASE_LABEL, self._lease), self._reader.ask, self._is_new)
        if found is None:
            return
        self._containers.add(endpoint, container)
        made = {(endpoint, id_) for id_ in found - self._known}
        if made:
            await asyncio.get_running_loop().run_in_executor(self._thread, partial(self._write, made))
            self._known |= found

    def _is_new(self, image: str) -> bool:
        """Whether it is an image that was not there when the lease began, and that is not recorded yet."""
        return self._images is not None and image not in self._images and image not in self._known

    def _write(self, made: set[tuple[str, str]]) -> None:
        if self._file is None:
            create(self._path)  # a service elsewhere may keep the lease
            self._file = LeaseFile(self._path)
        self._file.put_made(self._lease, made, datetime.now(UTC))

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()

    async def close(self) -> None:
        """Let go of the engine and of the file."""
        await self._reader.close()
        forget(self._path.parent, datetime.now(UTC) - 4 * REMEMBER)  # no service may use this directory
        self._thread.submit(self._close_file)
        self._thread.shutdown()
