"""A machine with the processes that a test gives it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reaper.core.owner_process import OwnerLabel
from reaper.sweep.processes import Presence, Seen
from tests.core.make import NOW

HERE, ELSEWHERE, INSIDE = "a" * 32, "b" * 32, "c" * 32
THIS_BOOT, LAST_BOOT = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
TICKS = os.sysconf("SC_CLK_TCK")
ABSENT = Seen(Presence.ABSENT)


@dataclass
class FakeMachine:
    """Started 5 hours before NOW; its processes have their start in clock ticks."""

    processes: dict[int, Seen] = field(default_factory=dict)
    namespaces: dict[str, dict[int, Seen]] = field(default_factory=dict)
    id: str = HERE
    whole_id: str = HERE
    boot: str = THIS_BOOT
    lines: dict[int, tuple[str, int]] = field(default_factory=dict)
    refused: str | None = None
    moved: timedelta = timedelta(0)
    unreadable: bool = False

    def booted_at(self) -> datetime:
        return NOW - timedelta(hours=5) + self.moved

    def seen(self, pid: int) -> Seen:
        return self.processes.get(pid, ABSENT)

    def inside(self, machine: str, pid: int) -> Seen | None:
        namespace = self.namespaces.get(machine)
        return None if namespace is None else namespace.get(pid, ABSENT)

    def names(self) -> frozenset[str]:
        return frozenset({"gpu-1", HERE})

    def not_of(self, path: str | None) -> str | None:  # noqa: ARG002
        return self.refused

    def commands(self) -> Iterable[tuple[int, str, int]]:
        if self.unreadable:
            raise OSError(24, "Too many open files")
        return [(pid, line, start) for pid, (line, start) in self.lines.items()]

    def run(self, pid: int, line: str, *, ago: timedelta) -> None:
        """Have a process with this command line that was started that long before NOW."""
        self.lines[pid] = line, int((timedelta(hours=5) - ago).total_seconds() * TICKS)

    def start(self, pid: int, start: int) -> None:
        self.processes[pid] = Seen(Presence.HERE, start)

    def end(self, pid: int) -> None:
        del self.processes[pid]


def label(pid: int = 4711, start: int = 1000, host: str = HERE, boot: str = THIS_BOOT) -> str:
    return str(OwnerLabel(host, boot, pid, start))
