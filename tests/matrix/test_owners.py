"""Faults of this host while a sweep looks whether owners are dead, or saves evidence. What is not proven keeps.

Each strikes once from the listing on, and once after the decision, just before what was decided is done.
"""

import asyncio
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reaper.observers import evidence
from reaper.sweep.processes import Presence, Seen
from tests.matrix import outcomes
from tests.matrix.bench import Bench
from tests.matrix.faults import DOCKER, PROVIDERS
from tests.matrix.other_worlds import (
    LATER,
    LIVING,
    RUNNER,
    ContainersOfARunner,
    EvidencedContainers,
    EvidencedSandboxes,
    OwnedContainers,
    OwnedSandboxes,
    machine,
)
from tests.matrix.test_calls import PAUSE, came
from tests.owners.machine import FakeMachine

pytestmark = pytest.mark.anyio

RUNNERS = [{"name": "bench", "processes": ["*/bin/bench run*"]}]
FOUND, ACTED = "from the listing on", "from the decision on"
Fault = Callable[[Bench, FakeMachine], object]


def hides(_: Bench, host: FakeMachine) -> None:
    """What lives as well: nothing can be told from it."""
    for pid in (LIVING, LATER):
        host.processes[pid] = Seen(Presence.HIDDEN, why="/proc hides it")


def loses_its_id(_: Bench, host: FakeMachine) -> None:
    host.id = host.whole_id = ""


def loses_its_boot(_: Bench, host: FakeMachine) -> None:
    host.boot = ""


def moves_away(_: Bench, host: FakeMachine) -> None:
    """The host's id is another one: as in a container without the host's namespace."""
    host.id = host.whole_id = "d" * 32


OF_LABELS: dict[str, Fault] = {
    "/proc hides the processes": hides,
    "the host has no id": loses_its_id,
    "the boot's id cannot be read": loses_its_boot,
    "the PID namespace is another one": moves_away,
}


def cannot_see(_: Bench, host: FakeMachine) -> None:
    host.refused = "/proc is mounted with hidepid=2, and hides the processes of others"


def cannot_be_read(_: Bench, host: FakeMachine) -> None:
    host.unreadable = True


def forgets(bench: Bench, _: FakeMachine) -> None:
    """What earlier sweeps have remembered is gone."""
    for file in _memory(bench):
        file.unlink()


def is_garbled(bench: Bench, _: FakeMachine) -> None:
    for file in _memory(bench):
        file.write_bytes(b"\0" * file.stat().st_size)


def _memory(bench: Bench) -> list[Path]:
    found = [file for file in bench.state.rglob("*owners*") if file.is_file()]
    assert found, list(bench.state.rglob("*"))
    return found


OF_PROCESSES: dict[str, Fault] = {
    "/proc hides the processes": cannot_see,
    "the processes cannot be read": cannot_be_read,
    "the memory of owners is lost": forgets,
    "the memory of owners cannot be read": is_garbled,
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", OF_LABELS)
async def test_an_owner_that_is_not_proven_to_be_dead_keeps_what_its_label_is_on(fault: str, provider: str) -> None:
    cells = []
    for stage in (FOUND, ACTED):
        world, host = OwnedContainers() if provider == DOCKER else OwnedSandboxes(), machine()
        async with Bench(world, "", None, None, machine=host, policy=world.policies) as bench:
            cells.append(f"{stage}: {await swept_with(OF_LABELS[fault], stage, bench, host)}")
    outcomes.hold("host", f"owners by label: {fault}", provider, ", ".join(cells))


@pytest.mark.parametrize("fault", OF_PROCESSES)
async def test_a_runner_that_is_not_proven_to_be_dead_keeps_what_it_may_have_made(fault: str) -> None:
    cells = []
    for stage in (FOUND, ACTED):
        world, host = ContainersOfARunner(), machine()
        host.run(1, RUNNER, ago=timedelta(hours=4))
        async with Bench(world, "", None, None, machine=host, policy=world.policies, owner=RUNNERS) as bench:
            assert came(await bench.sweep()) == "none 0"
            host.lines.clear()
            assert came(await bench.sweep()) == "none 0"  # from now on it counts
            await asyncio.sleep(timedelta(minutes=11).total_seconds())
            cells.append(f"{stage}: {await swept_with(OF_PROCESSES[fault], stage, bench, host)}")
    outcomes.hold("host", f"owners by process: {fault}", DOCKER, ", ".join(cells))


async def swept_with(fault: Fault, stage: str, bench: Bench, host: FakeMachine) -> str:
    """What a sweep came to; then it is over, and the next ones do the rest."""
    if stage == FOUND:
        fault(bench, host)
    else:
        bench.before_acting = lambda: fault(bench, host)
    known = dict(vars(machine()))
    swept = await bench.sweep()
    if fault not in (forgets, is_garbled) or stage == FOUND:
        # What cannot be checked is proven by nothing: not even by what was known of it a moment before.
        assert came(swept) in ("none 0", "some 0"), swept.story
    bench.before_acting = None
    vars(host).update(known)
    if fault in (forgets, is_garbled):  # it has to be learned anew that there are such processes
        host.run(2, RUNNER, ago=timedelta(minutes=-1))
        await bench.sweep()
        host.lines.clear()
        await bench.sweep()
    await asyncio.sleep(PAUSE.total_seconds())
    again = await bench.sweep()
    assert not bench.world.go & again.after, again.story
    assert again.code == 0, again.story
    return came(swept)


# -- evidence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", ["the disk is full", "the folder cannot be made", "an error of the program"])
async def test_evidence_that_cannot_be_saved_keeps_nothing(
    fault: str, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world: Any = EvidencedContainers() if provider == DOCKER else EvidencedSandboxes()
    saving = {"logs": 50, "inspect": True}
    async with Bench(world, "", None, None, policy=world.policies, evidence=saving) as bench:
        if fault == "the disk is full":
            monkeypatch.setattr(evidence, "LEAST_FREE", shutil.disk_usage(bench.state).total)
        elif fault == "the folder cannot be made":
            (bench.state / evidence.FOLDER).write_text("")
        else:
            monkeypatch.setattr(evidence, "write_text", lambda *_: dict[str, str]()["secret"])
        swept = await bench.sweep()
        assert came(swept) == "all 0", swept.story
        (warning,) = [warning for warning in swept.endpoint.warnings if "evidence" in warning]
        assert "secret" not in warning
        assert "was not saved" in warning
    outcomes.hold("host", f"evidence: {fault}", provider, f"{came(swept)}, a warning")
