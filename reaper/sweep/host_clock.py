"""When the clock of this host jumped: it slept, or was set. No age counts that time, since nothing has gone on in it.

The kernel has a clock that neither sleeps nor can be set. How far the other one is ahead of it is remembered in the state
directory from sweep to sweep; by how much that has changed meanwhile is a jump.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reaper import host
from reaper.core.durations import human
from reaper.core.site import Jump
from reaper.files import EndpointFile

SMALLEST = 60.0  # seconds: clocks are set by less than this all the time
DRIFT = 1.0  # seconds after which it is remembered anew how far the clock is ahead
KEPT = timedelta(days=90)  # for which a jump is remembered
MOST = 100  # jumps: each is looked at for each time of each resource
_VERSION = 1


@dataclass(frozen=True)
class _Known:
    """What the file says.

    Args:
        boot: in which boot that was.
        ahead: how far the clock that can be set was ahead of the one that cannot, in seconds.
        jumps: so far.
    """

    boot: str = ""
    ahead: float = 0.0
    jumps: tuple[Jump, ...] = ()


class HostClock:
    """The jumps of this host's clock, and a small file. A file that cannot be used is no memory, never an error.

    Args:
        folder: the state directory; it is made when there is something to write.
        wall: the clock that can be set, in seconds since 1970.
        awake: the one that cannot, and stands still while the host sleeps.
        boot: which boot of the host this is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        wall: Callable[[], float] = time.time,
        awake: Callable[[], float] = time.monotonic,
        boot: Callable[[], str] = host.boot_id,
    ) -> None:
        self._stored = EndpointFile(folder, "clock", host.here(), _VERSION)
        self.file = self._stored.path
        self._wall, self._awake, self._boot = wall, awake, boot
        self._unwritten: _Known | None = None

    def look(self, warnings: list[str], *, learn: bool) -> tuple[Jump, ...]:
        """The jumps that are known by now.

        Args:
            warnings: a new jump is said there, and why it could not be remembered.
            learn: whether to remember it.
        """
        known = self._unwritten or self._stored.read(_known) or _Known()
        now, boot = self._wall(), self._boot()
        ahead = now - self._awake()
        at = datetime.fromtimestamp(now, UTC)
        jumps = tuple(jump for jump in known.jumps if at - jump.at < KEPT)
        by = ahead - known.ahead
        if boot and boot == known.boot and abs(by) > SMALLEST:
            jumps = _no_more((*jumps, Jump(at, timedelta(seconds=round(by)))))
            did = "slept, or its clock was set forward, for" if by > 0 else "had its clock set back by"
            warnings.append(f"this host {did} {human(abs(jumps[-1].by))} since the last sweep: no age counts that")
        learnt = _Known(boot, ahead, jumps)
        if learn and (boot != known.boot or abs(by) > DRIFT or jumps != known.jumps):
            problem = self._stored.write("how long this host slept", _fields(learnt))
            self._unwritten = learnt if problem is not None else None
            warnings += [problem] if problem is not None and jumps else []
        return jumps


def _no_more(jumps: tuple[Jump, ...]) -> tuple[Jump, ...]:
    """These, or the two oldest as one: what is as old as that has slept through both."""
    if len(jumps) <= MOST:
        return jumps
    first, second, *others = jumps
    return Jump(second.at, first.by + second.by), *others


def _known(content: Mapping[str, Any]) -> _Known:
    jumps = (Jump(datetime.fromtimestamp(float(at), UTC), timedelta(seconds=float(by))) for at, by in content["jumps"])
    return _Known(str(content["boot"]), float(content["ahead"]), tuple(jumps))


def _fields(known: _Known) -> dict[str, object]:
    jumps = [(jump.at.timestamp(), jump.by.total_seconds()) for jump in known.jumps]
    return {"boot": known.boot, "ahead": known.ahead, "jumps": jumps}
