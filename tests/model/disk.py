"""The disks of engines, in worlds that have policies which run only while those are too full."""

import random
from collections.abc import Mapping, Sequence

from reaper.core.disk import BYTES, DiskUsage, Room
from reaper.core.model import Resource
from tests.model.world import DockerPlace

GIB = 1 << 30
HIGH, LOW = 0.85, 0.75


class Meter:
    """Measures the disk of an engine, on which each container, volume and image takes up a GiB.

    Args:
        place: the engine.
        rng: when it cannot be measured.
    """

    every, pause = 30.0, 0.0

    def __init__(self, place: DockerPlace, rng: random.Random) -> None:
        self._place, self._random = place, rng

    async def usage(self) -> DiskUsage:
        """See ``DiskMeter``. What goes under pressure goes after a measurement that has shown it, and before its end."""
        if self._random.random() < 0.1:
            return DiskUsage("/data", problem="the disk does not answer")
        engine, size = self._place.engine, self._place.disk
        engine.settle()
        used = min(len(engine.containers) + len(engine.volumes) + len(list(engine.images)), size)
        if used > HIGH * size:
            self._place.pressed = True
        elif used <= LOW * size:
            self._place.pressed = False
        return DiskUsage("/data", {BYTES: Room(used * GIB, (size - used) * GIB)})

    async def sizes(self, resources: Sequence[Resource]) -> Mapping[str, int]:
        """See ``DiskMeter``."""
        return {resource.id: GIB for resource in resources}
