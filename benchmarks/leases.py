"""The cost of ended leases for decisions: they are kept for a week, and there may be thousands."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.measure import Run, Series
from reaper.core.decide import decide
from reaper.core.lease import Claim
from reaper.core.model import Kind, Resource, State
from reaper.core.rules import Rules
from reaper.core.scope import Selector
from reaper.core.site import Site
from reaper.leases.database import create
from reaper.leases.record import Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.sources import NAME, SharedLeases
from reaper.leases.store import LeaseFile

ENDED = (0, 2000, 20_000)
DECIDED = 1000
_ENDPOINT = "engine"
_HOUR = timedelta(hours=1)


class EndedLeases:
    """Files of leases, all of which have ended, and claimed by name what was made while they lived.

    Args:
        folder: an empty directory.
        say: is told what is measured.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        folder.mkdir()
        self._folder, self._say = folder, say

    def measured(self, runs: int) -> dict[str, Series]:
        """Milliseconds for one look at the file after a change, and seconds for a decision about 1,000 containers.

        By number: "look-2000" and "decide-2000". "start-2000" is the first look of a process, in milliseconds, "list-2000" a
        listing of the open leases by a service's book, "cold-2000" that first look with the decision, in seconds, about
        containers that were made when none of the leases lived.
        """
        found = {f"{what}-{number}": Series() for what in ("look", "decide", "start", "list", "cold") for number in ENDED}
        now = datetime.now(UTC)
        later = [_container(number, now - _HOUR / 2) for number in range(DECIDED)]
        containers = [_container(number, now - 2 * _HOUR) for number in range(DECIDED)]
        for number in ENDED:
            self._say(f"leases: {number:,} that have ended")
            folder = self._folder / str(number)
            create(folder / NAME)
            file, leases = LeaseFile(folder / NAME), SharedLeases(folder)
            file.put(*(_record(each, now) for each in range(number)))
            leases()
            for run in range(runs):
                file.put(replace(_record(0, now), id=f"another-{run}", state=LeaseState.LIVE, ended_at=None))
                began = time.perf_counter()
                known = leases()
                looked = time.perf_counter()
                decide(containers, Rules(), known.on(Site(_ENDPOINT)), now)
                decided = time.perf_counter() - looked
                found[f"look-{number}"].runs.append(Run(looked - began, 0.0, 0.0, figure=1000 * (looked - began)))
                found[f"decide-{number}"].runs.append(Run(decided, 0.0, 0.0))
            for _ in range(runs):
                first, asked = SharedLeases(folder), LeaseFile(folder / NAME)
                began = time.perf_counter()
                known = first()
                started = time.perf_counter() - began
                decide(later, Rules(), known.on(Site(_ENDPOINT)), now)
                cold = time.perf_counter() - began
                asked.open()
                began = time.perf_counter()
                asked.open(), asked.states()
                listed = time.perf_counter() - began
                found[f"start-{number}"].runs.append(Run(started, 0.0, 0.0, figure=1000 * started))
                found[f"list-{number}"].runs.append(Run(listed, 0.0, 0.0, figure=1000 * listed))
                found[f"cold-{number}"].runs.append(Run(cold, 0.0, 0.0))
                first.close()
                asked.close()
            leases.close()
            file.close()
        return found


def _record(number: int, now: datetime) -> LeaseRecord:
    return LeaseRecord(
        id=f"run-{number}",
        sort=Liveness.HEARTBEAT,
        holder=Holder("gpu-1", 4711),
        since=now - 3 * _HOUR,
        seen_at=now - _HOUR,
        claims=(Claim(Selector(names=(f"run-{number}-*",))),),
        endpoints=frozenset({_ENDPOINT}),
        state=LeaseState.RELEASED,
        ended_at=now - _HOUR,
    )


def _container(number: int, made: datetime) -> Resource:
    return Resource(
        provider="docker",
        endpoint="local",
        kind=Kind.CONTAINER,
        id=f"{number:064x}",
        name=f"trial-{number}",
        state=State.RUNNING,
        raw_state="running",
        created_at=made,
        labels={"team": "rl", "trial": str(number)},
    )
