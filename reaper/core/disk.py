"""How full the disk of an endpoint is, and when that is too full. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reaper.core import sizes

BYTES, INODES = "bytes", "inodes"
"""What a disk may run out of."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a disk has of bytes or of inodes.

    Args:
        used: how much is in use.
        available: how much others than root may still use, as ``df`` counts.
    """

    used: int
    available: int

    @property
    def total(self) -> int:
        """What can be used at all."""
        return self.used + self.available

    @property
    def ratio(self) -> float:
        """The part that is in use: 1 on a full disk."""
        return self.used / self.total if self.total > 0 else 0.0


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """What one measurement has found.

    Args:
        where: what was measured, for people: the path of the data root.
        rooms: by ``BYTES`` and ``INODES``, as far as there is such a limit.
        problem: why it could not be measured, and what to do.
        file_system: the kernel's id of it; 0 where that is not known. Endpoints may share one.
    """

    where: str = ""
    rooms: Mapping[str, Room] = field(default_factory=dict)
    problem: str | None = None
    file_system: int = 0

    def words(self) -> str:
        """How full it is: "92% of bytes, 3% of inodes"."""
        return ", ".join(f"{percent(room.ratio)} of {sort}" for sort, room in self.rooms.items())


@dataclass(frozen=True, slots=True)
class Level:
    """How much may be in use: a part of the disk, or of its bytes a number."""

    part: float | None = None
    size: int | None = None

    def __str__(self) -> str:
        return percent(self.part) if self.part is not None else sizes.spell(self.size or 0)

    def of(self, room: Room) -> int:
        """The same as a number."""
        return int(self.part * room.total) if self.part is not None else self.size or 0


DEFAULT_HIGH, DEFAULT_LOW = Level(0.85), Level(0.75)
EXAMPLES = '"85%" or "900GB"'


def parse(text: str) -> Level:
    """The level that ``text`` names. Raises ValueError, with an example of what would be right."""
    if (number := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip(), re.ASCII)) is not None:
        if not 0 < float(number[1]) < 100:
            raise ValueError(f"{text!r} is not between 0% and 100%; write for example {EXAMPLES}")
        return Level(part=float(number[1]) / 100)
    try:
        size = sizes.parse(text)
    except ValueError:
        raise ValueError(f"{text!r} is no level; write for example {EXAMPLES}") from None
    if not size:
        raise ValueError(f"{text!r} is exceeded by every disk; write for example {EXAMPLES}")
    return Level(size=size)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From when on a disk is too full, and to where it is to be emptied.

    A number of bytes says nothing about inodes: of these the defaults hold then.
    """

    high: Level = DEFAULT_HIGH
    low: Level = DEFAULT_LOW

    @property
    def low_reaches_high(self) -> bool:
        """Whether that would leave nothing between the two."""
        return (self.low.part or self.low.size or 0) >= (self.high.part or self.high.size or 0)

    def exceeded(self, usage: DiskUsage) -> frozenset[str]:
        """Of what more than ``high`` is in use."""
        return frozenset(sort for sort, room in usage.rooms.items() if room.used > self._of(sort).high.of(room))

    def missing(self, usage: DiskUsage, sorts: Iterable[str]) -> dict[str, int]:
        """How much of these has to be freed until no more than ``low`` is in use; empty when that is reached."""
        over = {s: usage.rooms[s].used - self._of(s).low.of(usage.rooms[s]) for s in sorts if s in usage.rooms}
        return {sort: number for sort, number in over.items() if number > 0}

    def _of(self, sort: str) -> "Thresholds":
        return self if sort == BYTES or self.high.part is not None else Thresholds()


def percent(part: float) -> str:
    """A part of a whole: "85%", "99.5%"."""
    return f"{part * 100:.1f}".removesuffix(".0") + "%"
