"""Faults where something else than a plain deletion is at stake: policies that stop or archive, evidence, further kinds.

What the rules say of each: a policy that stops deletes nothing, and reports what has stopped as that; what fails of the
evidence is a warning, and what goes is the same. Of networks, volumes and images no more is believed than of containers.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.matrix import outcomes
from tests.matrix.bench import LONGEST, NOW, PASSING, Bench
from tests.matrix.faults import (
    ARCHIVE,
    CONFIRM,
    DAYTONA,
    DELETION,
    DOCKER,
    EVENTS,
    EVIDENCE,
    FAULTS,
    LIST,
    LOG,
    RECHECK,
    STOP,
)
from tests.matrix.other_worlds import EvidencedContainers, EvidencedSandboxes, HaltedSandboxes, OtherKinds, StoppedContainers
from tests.matrix.test_calls import PAUSE, came
from tests.matrix.worlds import World

pytestmark = pytest.mark.anyio

ORDERS = (
    "connection reset before the request is read",
    "connection reset after it was done, without an answer",
    "no answer (time-out)",
    "500",
    "403 in mid-sweep",
    "HTML in place of JSON",
)
READS = ("500", "unknown states", "rows without labels", "rows without an id")
OF_KINDS = ("500", "malformed JSON", "rows without labels", "rows without an id", "every second row is lost")
OF_LOGS = ("connection reset before the request is read", "no answer (time-out)", "500")
SAVED = (*OF_LOGS, "a byte a second", "403 in mid-sweep", "malformed JSON", "rows without an id")


@dataclass(frozen=True)
class Column:
    """Some calls of one world.

    Args:
        name: in an operator's words.
        provider: it.
        world: a new one for each cell.
        faults: by call, which of them are tried.
        tables: of the configuration.
    """

    name: str
    provider: str
    world: Callable[[], Any]
    faults: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, Any] = field(default_factory=dict)


SAVING = {"evidence": {"logs": 50, "inspect": True}}
COLUMNS = (
    Column(
        "stop of containers",
        DOCKER,
        StoppedContainers,
        {STOP: (*ORDERS, "409: another conflict"), RECHECK: READS, CONFIRM: READS},
    ),
    Column(
        "stop of sandboxes",
        DAYTONA,
        lambda: HaltedSandboxes("stop"),
        {STOP: (*ORDERS, "409: a state change is in progress"), CONFIRM: READS},
    ),
    Column(
        "archiving of sandboxes",
        DAYTONA,
        lambda: HaltedSandboxes("archive"),
        {ARCHIVE: (*ORDERS, "409: a state change is in progress"), CONFIRM: READS},
    ),
    Column("evidence of containers", DOCKER, EvidencedContainers, {EVIDENCE: SAVED, LOG: OF_LOGS}, SAVING),
    Column("evidence of sandboxes", DAYTONA, EvidencedSandboxes, {EVIDENCE: SAVED[1:-1]}, SAVING),
    Column(
        "networks, volumes, images",
        DOCKER,
        OtherKinds,
        {LIST: OF_KINDS, RECHECK: OF_KINDS[:-1], DELETION: ("500",), EVENTS: ("500", "malformed JSON")},
    ),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
CELLS = [
    pytest.param(column, call, fault, id=f"{column.name}-{call}-{fault}")
    for column in COLUMNS
    for call, names in column.faults.items()
    for fault in names
]


async def tried(column: Column, call: str, fault: str, times: int | None) -> str:
    """A sweep with the fault, and the next one without it."""
    world: World = column.world()
    tables = {"policy": world.policies, **column.tables}  # type: ignore[attr-defined]
    async with Bench(world, call, BY_NAME[fault].strikes(column.provider, call), times, **tables) as bench:
        swept = await bench.sweep()
        assert bench.struck, ("the call was never made", swept.story)
        if call in (EVIDENCE, LOG):
            warned = any("evidence" in warning for warning in swept.endpoint.warnings)
            assert (came(swept), warned) == ("all 0", True), swept.story
        await bench.end()
        await asyncio.sleep(PAUSE.total_seconds())
        again = await bench.sweep()
        assert not world.go & again.after, again.story
        assert again.code == 0, again.story
        assert bench.clock.now() - NOW < LONGEST + PAUSE, "it took so long that what must live has become old"
        return came(swept)


@pytest.mark.parametrize(("column", "call", "fault"), CELLS)
async def test_a_fault_at_a_call(column: Column, call: str, fault: str) -> None:
    # Evidence is asked for once: a fault that passes costs that of the first ones, one that lasts costs all.
    passing = "" if call in (EVIDENCE, LOG) else f"{await tried(column, call, fault, PASSING)}, "
    lasting = await tried(column, call, fault, None)
    outcomes.hold("others", fault, f"{column.name}: {call}", f"{passing}{lasting}")


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
async def test_without_a_fault_all_is_done_and_nothing_else(column: Column) -> None:
    world = column.world()
    async with Bench(world, "", None, None, policy=world.policies, **column.tables) as bench:
        swept = await bench.sweep()
        assert (came(swept), swept.after) == ("all 0", set(world.live)), swept.story
        assert not [warning for warning in swept.endpoint.warnings if "evidence" in warning]
