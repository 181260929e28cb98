"""With real sweeps of an endpoint in memory, on both event loops and on virtual time."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reaper.core.model import Decision, EndpointReport
from reaper.errors import ServerError
from reaper.observers.journal import Journal
from reaper.providers.memory import Rule
from reaper.sweep.sweep import Options, sweep
from tests.journal.lab import Lab
from tests.sweep.conftest import anyio_backend
from tests.sweep.lab import Lab as World
from tests.sweep.lab import running, stopped

__all__ = ["anyio_backend"]  # a fixture


async def swept(world: World, journal: Journal, **options: Any) -> EndpointReport:
    done = await sweep(
        [world.endpoint()],
        world.rules,
        Options(**options),
        clock=world.clock,
        observer=journal,
        ledger=journal,
        leases=lambda: tuple(world.leases),
        stop=world.stop,
    )
    return done.endpoints[0]


def said(report: EndpointReport) -> dict[str, tuple[str, int, str]]:
    return {r.decision.resource.name: (r.outcome.value, r.attempts, r.detail) for r in report.results}


@pytest.mark.anyio
async def test_the_journal_says_what_the_report_says(tmp_path: Path) -> None:
    world = World(stopped("a"), stopped("b"), stopped("c"), running("d"), running("young", hours=1))
    world.world.rules.append(Rule("delete", "b", error=ServerError("500")))
    world.world.rules.append(Rule("delete", "c", before=lambda: world.world.remove("c")))
    lab = Lab(tmp_path, clock=world.clock)
    journal = lab.journal()
    report = await swept(world, journal)
    await journal.close()
    rows = {row["name"]: (row["outcome"], row["attempts"], row["detail"]) for row in lab.rows()}
    assert rows == said(report)
    assert {name: row[0] for name, row in rows.items()} == {"a": "deleted", "b": "failed", "c": "gone", "d": "deleted"}
    ended = [row["ended_at"] for row in lab.rows() if row["name"] != "c"]
    assert all(at > row["decided_at"] for at, row in zip(ended, lab.rows(), strict=False))
    assert lab.told == []


@pytest.mark.anyio
async def test_nothing_goes_before_it_is_on_record(tmp_path: Path) -> None:
    world = World(*(stopped(f"c{i}") for i in range(20)))
    lab = Lab(tmp_path, clock=world.clock)
    seen: list[dict[str, str]] = []

    class Watching(Journal):
        async def begin(self, endpoint: str, provider: str, decisions: Sequence[Decision]) -> None:
            assert world.world.removals == []
            await super().begin(endpoint, provider, decisions)
            assert world.world.removals == []
            seen.append(lab.outcomes())

    journal = Watching(lab.file, keep_for=timedelta(days=90), max_megabytes=1, clock=world.clock, failed=lab.told.append)
    await swept(world, journal)
    await journal.close()
    assert seen == [{f"c{i}": "pending" for i in range(20)}]


@pytest.mark.anyio
@pytest.mark.parametrize("capped", ["left", "old"])
async def test_what_goes_beside_a_cap_is_on_record(tmp_path: Path, capped: str) -> None:
    """What leases have left and what policies take are counted by themselves: the one goes where the other may not."""
    world = World(*(stopped(f"old{i}") for i in range(2)), *(stopped(f"left{i}", hours=0) for i in range(2)))
    world.abandon("left0", "left1")
    world.world.rules.append(Rule("delete", "left1" if capped == "old" else "old1", error=ServerError("500")))
    lab = Lab(tmp_path, clock=world.clock)
    journal = lab.journal()
    most = {"left": {"max_lease_deletions": 1}, "old": {"max_deletions": 1}}[capped]
    report = await swept(world, journal, **most)
    await journal.close()
    assert report.cap is not None
    going = "old" if capped == "left" else "left"
    assert lab.outcomes() == {f"{going}0": "deleted", f"{going}1": "failed"}
    assert all(row["ended_at"] for row in lab.rows())


@pytest.mark.anyio
async def test_over_the_cap_and_cut_short(tmp_path: Path) -> None:
    world = World(*(stopped(f"c{i}") for i in range(5)))
    lab = Lab(tmp_path, clock=world.clock)
    journal = lab.journal()
    assert (await swept(world, journal, max_deletions=2)).cap is not None
    world.stop.request("SIGTERM", timedelta(0))
    await swept(world, journal)
    await journal.close()
    assert lab.rows() == []
    first, second = lab.rows("SELECT * FROM sweep ORDER BY id")
    assert first["cap"] == "5 would have gone, max_deletions = 2"
    assert second["failure"] == "interrupted"
