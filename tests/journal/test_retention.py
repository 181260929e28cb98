"""What is too old or too much goes, the oldest first, and the file with it."""

import itertools
import time
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import anyio.lowlevel

from reaper.observers.journal import Journal
from tests.journal.lab import Lab, decision, report, result, sweep


def _wal(lab: Lab) -> int:
    wal = Path(f"{lab.file}-wal")
    return wal.stat().st_size if wal.exists() else 0


def test_what_is_too_old_goes(lab: Lab) -> None:
    lab.sweep(result(decision("old")))
    lab.clock.now += timedelta(days=60)
    lab.sweep(result(decision("middle")))
    lab.clock.now += timedelta(days=31)
    lab.sweep(result(decision("new")))
    assert lab.outcomes() == {"middle": "deleted", "new": "deleted"}
    assert len(lab.rows("SELECT id FROM sweep")) == 2


async def tidied(journal: Journal, at: datetime) -> None:
    """Wait until it has looked for what is too old: that is put off while anything else waits."""
    deadline = time.monotonic() + 60
    while journal._writer._trimmed_at != at:
        assert time.monotonic() < deadline
        await anyio.lowlevel.checkpoint()


def test_it_is_looked_for_once_an_hour_while_the_process_runs(lab: Lab) -> None:
    async def main(journal: Journal) -> None:
        await sweep(journal, report(result(decision("old"))))
        await journal.begin("gpu-1", "docker", [])
        await tidied(journal, lab.clock.now)
        lab.clock.now += timedelta(minutes=50)
        await sweep(journal, report(result(decision("b"))))
        await journal.begin("gpu-1", "docker", [])
        assert lab.outcomes() == {"old": "deleted", "b": "deleted"}
        lab.clock.now += timedelta(minutes=11)
        await sweep(journal, report(result(decision("c"))))

    lab.run(main, keep_for=timedelta(minutes=30))
    assert lab.outcomes() == {"b": "deleted", "c": "deleted"}


def test_fifty_thousand_rows_stay_within_the_size_and_the_newest_are_kept(lab: Lab) -> None:
    biggest, number = 0, itertools.count()

    async def main(journal: Journal) -> None:
        nonlocal biggest
        for _ in range(100):
            lab.clock.now += timedelta(minutes=10)
            await sweep(journal, report(*(result(decision(f"c{next(number)}")) for _ in range(500))))
            await journal.begin("gpu-1", "docker", [])
            biggest = max(biggest, lab.file.stat().st_size, _wal(lab))

    lab.run(main, max_megabytes=3)
    assert biggest < 9_000_000
    assert lab.file.stat().st_size < 4_000_000
    kept = sorted(int(row["name"][1:]) for row in lab.rows())
    assert kept[-1] == 49_999
    assert kept == list(range(kept[0], 50_000))
    assert len(kept) > 1000
    assert lab.is_whole()
    assert lab.told == []


def test_a_file_that_was_allowed_to_be_larger_shrinks(lab: Lab) -> None:
    lab.sweep(*(result(decision(f"c{i}")) for i in range(5000)))
    for i in range(10):
        lab.sweep(result(decision(f"late-{i}")))
    before = lab.file.stat().st_size
    for _ in range(5):
        lab.sweep(max_megabytes=1)
    assert before > 2_000_000
    assert lab.file.stat().st_size < 1_200_000
    assert lab.outcomes().keys() >= {f"late-{i}" for i in range(10)}
