"""The disk that an engine's data are on: looked at where the engine runs on this host, else by what it says of itself."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from reaper.core.disk import BYTES, INODES, DiskUsage, Room
from reaper.core.model import Resource
from reaper.errors import CallTimeoutError, ProviderError
from reaper.providers.docker.address import unix_path
from reaper.providers.docker.connection import EngineConnection
from reaper.providers.docker.settings import DockerTable
from reaper.providers.parsing import Row, rows, table, text

OFTEN, SELDOM = 15.0, 3600.0  # seconds between two measurements: of a file system, and by the engine
BETWEEN = 60.0  # seconds between two measurements by the engine while something is deleted
ANSWER_WITHIN = 20.0  # seconds for a measurement by the engine
LOOK_WITHIN = 5.0  # seconds for a file system, which may be one that hangs, and for one container
SIZES_WITHIN = 15.0  # seconds for all containers together
ROOT_FOR = 600.0  # seconds for which the data root is taken to be the same
AT_ONCE = 2  # measurements of containers
_ELSEWHERE = "run reaper on that host, or set data_root or disk_size in its [[docker]] table"
_MOUNT = "mount the engine's data root into this container at the same path, read-only (--volume {path}:{path}:ro,rslave)"
_OF_CONTAINERS = ("/.dockerenv", "/run/.containerenv")


@dataclass(frozen=True, slots=True)
class _Root:
    """Where the data are, or why they cannot be looked at."""

    path: str | None
    problem: str = ""


class DataRoot:
    """Measures the disk of one engine.

    Args:
        engine: where it is.
        connection: to it.
    """

    def __init__(self, engine: DockerTable, connection: EngineConnection) -> None:
        self._engine = engine
        self._connection = connection
        self._root: tuple[float, _Root] | None = None
        self._asks_engine = unix_path(engine) is None and engine.data_root is None

    @property
    def every(self) -> float:
        """See ``DiskMeter``."""
        return SELDOM if self._asks_engine else OFTEN

    @property
    def pause(self) -> float:
        """See ``DiskMeter``."""
        return BETWEEN if self._asks_engine else 0.0

    async def usage(self) -> DiskUsage:
        """See ``DiskMeter``."""
        try:
            root = await self._where()
            self._asks_engine = root.path is None and self._engine.disk_size is not None
            if root.path is not None:
                return await _of_file_system(root.path)
            if self._engine.disk_size is None:
                return DiskUsage(problem=root.problem)
            return DiskUsage("what the engine counts", {BYTES: await self._counted(self._engine.disk_size)})
        except ProviderError as error:
            return DiskUsage(problem=f"the disk of the engine cannot be measured: {error}")

    async def sizes(self, resources: Sequence[Resource]) -> Mapping[str, int]:
        """See ``DiskMeter``. One by one: a listing with sizes measures all that there is, and blocks the engine."""
        found: dict[str, int] = {}
        waiting = list(reversed(resources))

        async def measure() -> None:
            while waiting:
                one = waiting.pop()
                with anyio.move_on_after(LOOK_WITHIN):
                    try:
                        size = table(await self._connection.ask(f"containers/{one.id}/json", size="1")).get("SizeRw")
                    except ProviderError:
                        continue
                    if isinstance(size, int) and size >= 0:
                        found[one.id] = size

        with anyio.move_on_after(SIZES_WITHIN):
            async with anyio.create_task_group() as group:
                for number in range(AT_ONCE):
                    group.start_soon(measure, name=f"measure containers {number}")
        return found

    async def _where(self) -> _Root:
        if self._engine.data_root is not None:  # looked at anew each time: it may be mounted later
            return await _in_time(lambda: _looked_at(self._engine.data_root or "", contained=False))
        if unix_path(self._engine) is None:
            where = f"the engine is reached at {self._engine.host}"
            return _Root(None, f"{where}, so its disk is not looked at: {_ELSEWHERE}")
        if self._root is not None and time.monotonic() - self._root[0] < ROOT_FOR:
            return self._root[1]
        info = await self._asked("info")
        root = await _in_time(lambda: _seen_here(info))
        self._root = time.monotonic(), root
        return root

    async def _asked(self, path: str) -> Row:
        """What the engine answers in time. Raises ProviderError."""
        with anyio.move_on_after(ANSWER_WITHIN):
            return table(await self._connection.ask(path))
        raise CallTimeoutError(f"GET /{path} was not answered within {ANSWER_WITHIN:g} s")

    async def _counted(self, size: int) -> Room:
        """What the engine says that its images, containers, volumes and build cache take. Raises ProviderError."""
        found = await self._asked("system/df")
        used = _number(found.get("LayersSize"))
        used += sum(_number(row.get("SizeRw")) for row in rows(found.get("Containers")))
        used += sum(_number(table(row.get("UsageData")).get("Size")) for row in rows(found.get("Volumes")))
        used += sum(_number(row.get("Size")) for row in rows(found.get("BuildCache")) if row.get("Shared") is False)
        return Room(used, max(size - used, 0))


async def _in_time(look: Callable[[], _Root]) -> _Root:
    """What a look at a file system shows, which may be one that hangs."""
    with anyio.move_on_after(LOOK_WITHIN):
        return await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
    return _Root(None, f"the file system of the engine's data did not answer within {LOOK_WITHIN:g} s: mend it")


def _is_contained() -> bool:
    return any(Path(file).exists() for file in _OF_CONTAINERS) or "KUBERNETES_SERVICE_HOST" in os.environ


def _seen_here(info: Row) -> _Root:
    """The data root by what the engine says of itself, where that is this host's and not another one's of the same name."""
    path, kernel, name = (text(info.get(key)) for key in ("DockerRootDir", "KernelVersion", "Name"))
    here = os.uname()
    contained = name != here.nodename and _is_contained()  # an engine in this very container has its name
    if path is None or not path.startswith("/"):
        return _Root(None, f"the engine does not say where its data are: {_ELSEWHERE}")
    if kernel != here.release:
        return _Root(None, f"the engine's kernel ({kernel}) is not this host's ({here.release}): {_ELSEWHERE}")
    if not contained and name != here.nodename:
        return _Root(None, f"the engine runs on {name}, and this is {here.nodename}: {_ELSEWHERE}")
    return _looked_at(path, contained=contained)


def _looked_at(path: str, *, contained: bool) -> _Root:
    """The path, where it is there and is not merely a folder of this container's own."""
    try:
        own = Path(path).stat().st_dev == Path("/").stat().st_dev and contained
    except OSError as error:
        why = f"{path}, where the engine's data are, cannot be looked at here ({error.strerror})"
        return _Root(None, f"{why}: {_MOUNT.format(path=path) if contained else _ELSEWHERE}")
    if own:
        return _Root(None, f"{path} is this container's own folder and not the engine's: {_MOUNT.format(path=path)}")
    return _Root(path)


async def _of_file_system(path: str) -> DiskUsage:
    with anyio.move_on_after(LOOK_WITHIN):
        try:
            seen = await anyio.to_thread.run_sync(os.statvfs, path, abandon_on_cancel=True)
        except OSError as error:
            return DiskUsage(path, problem=f"{path} cannot be measured: {error.strerror}; is it still mounted?")
        block = seen.f_frsize or seen.f_bsize
        rooms = {BYTES: Room((seen.f_blocks - seen.f_bfree) * block, seen.f_bavail * block)}
        if seen.f_files:  # btrfs has no such limit
            rooms[INODES] = Room(seen.f_files - seen.f_ffree, seen.f_favail)
        return DiskUsage(path, rooms, file_system=seen.f_fsid)
    return DiskUsage(path, problem=f"{path} cannot be measured: its file system does not answer within {LOOK_WITHIN:g} s")


def _number(value: object) -> int:
    return max(value, 0) if isinstance(value, int) else 0
