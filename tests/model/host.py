"""This host's processes: those that labels ``reaper.owner`` name, and the runners whose command line ``[[owner]]`` knows."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from reaper.simulator.clock import Clock
from reaper.sweep.processes import Presence, Seen
from tests.owners.machine import ELSEWHERE, HERE, INSIDE, LAST_BOOT, THIS_BOOT, TICKS, FakeMachine
from tests.promise import truth

RUNNERS = ("*/bin/bench run*",)
HIDDEN = 9
# What proves nothing here: another host's, another PID namespace's, one that /proc hides, and what is no label.
UNPROVEN = (
    f"{ELSEWHERE}/{LAST_BOOT}/77/5",
    f"{INSIDE}/{THIS_BOOT}/77/5",
    f"{HERE}/{THIS_BOOT}/{HIDDEN}/5",
    f"{ELSEWHERE}/{THIS_BOOT}/78/5",
    "77",
)
OF_LAST_BOOT = f"{HERE}/{LAST_BOOT}/77/5"


@dataclass
class Process:
    """One that owns something, or has made it.

    Attributes:
        label: by which it is named; empty of a runner.
        ended: when it ended.
        noticed: when a sweep that nothing disturbed was shown that it had ended.
        tells: whether the host shows since when it has ended: another process has its number.
    """

    pid: int
    began: datetime
    label: str = ""
    ended: datetime | None = None
    noticed: datetime | None = None
    tells: bool = False


class _Machine(FakeMachine):
    """Other hosts may use what is no unix socket of this one."""

    def not_of(self, path: str | None) -> str | None:
        return None if path else "the engine is not on a unix socket of this host"


class Host:
    """The host that the program runs on.

    Attributes:
        machine: what the program sees of it.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.machine = _Machine(processes={HIDDEN: Seen(Presence.HIDDEN, why="/proc hides it")})
        self.processes: list[Process] = []

    def _ticks(self) -> int:
        return int((self.clock.now() - self.machine.booted_at()).total_seconds() * TICKS)

    def start(self) -> Process:
        """A process begins that will write itself on labels."""
        pid, start = 100 + len(self.processes), self._ticks()
        self.machine.start(pid, start)
        found = Process(pid, self.clock.now(), f"{HERE}/{THIS_BOOT}/{pid}/{start}")
        self.processes.append(found)
        return found

    def run(self) -> None:
        """A runner begins."""
        found = Process(100 + len(self.processes), self.clock.now())
        self.machine.run(found.pid, "/usr/bin/bench run --all", ago=truth.NOW - found.began)
        self.processes.append(found)

    def end(self, process: Process, rng: random.Random) -> None:
        """It ends; it may stay as a zombie, or another process may get its number at once."""
        process.ended = self.clock.now()
        if not process.label:
            del self.machine.lines[process.pid]
            return
        left = rng.choice(("nothing", "zombie", "another"))
        if left == "nothing":
            self.machine.end(process.pid)
        elif left == "another":
            self.machine.start(process.pid, self._ticks() + 1)
            process.tells = True
        else:
            seen = self.machine.processes[process.pid]
            self.machine.processes[process.pid] = Seen(Presence.HERE, seen.start, ended=True)

    def living(self) -> Sequence[Process]:
        """Those that live."""
        return [process for process in self.processes if process.ended is None]

    def labels(self, rng: random.Random) -> Mapping[str, str]:
        """What something may say of its owner."""
        named = [process.label for process in self.processes if process.label]
        return {"reaper.owner": rng.choice((*named * 3, *UNPROVEN, OF_LAST_BOOT))}

    def dead(self, *, local: bool) -> Mapping[str, datetime]:
        """By label, since when its process is dead, where that is proven: another boot may have been another host's."""
        found = {one.label: one.ended for one in self.processes if one.label and one.ended is not None}
        return found | ({OF_LAST_BOOT: self.machine.booted_at()} if local else {})

    def notice(self) -> None:
        """A sweep that nothing disturbed has ended: it knows from now on at the latest who is dead."""
        for process in self.processes:
            if process.ended is not None and process.noticed is None:
                process.noticed = self.clock.now()

    def forget(self) -> None:
        """The program has lost what it knew."""
        for process in self.processes:
            process.noticed = None

    def surely(self, dead: Mapping[str, datetime], skew: timedelta) -> Mapping[str, datetime]:
        """These, each since it was noticed where nothing shows since when; ``skew`` is what their clock is ahead."""
        silent = {one.label: one.noticed for one in self.processes if one.label and not one.tells}
        noticed = {label: silent.get(label, since) for label, since in dead.items()}
        return {label: max(dead[label], since + skew) for label, since in noticed.items() if since is not None}

    def runners(self) -> Sequence[tuple[datetime, datetime | None]]:
        """When each runner began and ended."""
        return [(one.began, one.ended) for one in self.processes if not one.label]
