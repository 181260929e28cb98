"""The disk of an endpoint in memory: what goes gives its bytes back, at once or late, and others fill it meanwhile."""

from collections.abc import Callable, Mapping, Sequence

import anyio

from reaper.core.disk import BYTES, INODES, DiskUsage, Room
from reaper.core.model import Kind, Resource
from reaper.providers.memory.world import MemoryWorld


class MemoryDisk:
    """Holds a world's resources by their sizes; make it a reader's ``meter``.

    Args:
        world: what is on it.
        size: bytes.
        inodes: None has no such limit; each resource takes as many as ``inodes_of`` says.
        others: bytes that other programs use; may be set again.
        late: seconds after which the bytes of what is gone come back.
        real: the bytes that a resource really takes; an image says more than what it does not share.
    """

    every, pause = 15.0, 0.0

    def __init__(
        self,
        world: MemoryWorld,
        size: int,
        *,
        inodes: int | None = None,
        others: int = 0,
        late: float = 0.0,
        real: Callable[[Resource], int] = lambda resource: resource.size or 0,
        inodes_of: Callable[[Resource], int] = lambda _: 1,
    ) -> None:
        self.world, self.size, self.inodes, self.others, self.late = world, size, inodes, others, late
        self.problem: str | None = None
        self._real, self._inodes_of = real, inodes_of
        self._there: dict[str, Resource] = {}
        self._coming: list[tuple[float, Resource]] = []

    async def usage(self) -> DiskUsage:
        """See ``DiskMeter``."""
        if self.problem is not None:
            return DiskUsage("memory", problem=self.problem)
        now = anyio.current_time()
        there = {held.resource.id: held.resource for held in self.world.held()}
        self._coming += [(now + self.late, gone) for id_, gone in self._there.items() if id_ not in there]
        self._coming = [(at, gone) for at, gone in self._coming if at > now]
        self._there = there
        taking = [*there.values(), *(gone for _, gone in self._coming)]
        used = self.others + sum(map(self._real, taking))
        rooms = {BYTES: Room(used, max(self.size - used, 0))}
        if self.inodes is not None:
            files = sum(map(self._inodes_of, taking))
            rooms[INODES] = Room(files, max(self.inodes - files, 0))
        return DiskUsage("memory", rooms)

    async def sizes(self, resources: Sequence[Resource]) -> Mapping[str, int]:
        """See ``DiskMeter``."""
        async with self.world.call("sizes"):
            return {one.id: one.size for one in resources if one.size is not None and one.kind is Kind.CONTAINER}
