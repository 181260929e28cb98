"""A full disk, a damaged file, one of the future: records are lost and counted, and nothing else happens."""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import anyio.to_thread
import pytest

from reaper.observers import journal_db
from reaper.observers.journal import Journal
from reaper.observers.journal_rows import gaps_left
from tests import needs
from tests.journal.lab import Lab, decision, report, result, sweep


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with needs.small_disk(tmp_path / "tiny", "256k") as folder:
        yield folder


def many(prefix: str, count: int = 300) -> list[str]:
    return [f"{prefix}-{i}" for i in range(count)]


def test_a_disk_that_is_full_from_the_start_costs_the_record_of_what_was_pending_only(tiny: Path) -> None:
    lab = Lab(tiny)
    ballast = tiny / "ballast"

    async def main(journal: Journal) -> None:
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(b"x" * 300_000)
        await journal.begin("local", "docker", [decision("a")])
        assert journal.degraded is not None
        assert len(lab.told) == 1
        ballast.unlink()  # what was deleted has made room
        journal.finished(report(result(decision("a"))))

    lab.run(main)
    assert lab.outcomes() == {"a": "deleted"}
    assert lab.recovered == ["it is written again; 0 sweeps with 0 deletions are not on record"]
    assert lab.rows("SELECT * FROM gap") == []


def test_a_disk_that_fills_up_costs_records_that_are_counted(tiny: Path) -> None:
    lab = Lab(tiny)
    ballast = tiny / "ballast"

    async def main(journal: Journal) -> None:
        await sweep(journal, report(result(decision("before"))))
        await journal.begin("gpu-1", "docker", [])
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(b"x" * 300_000)
        for prefix in ("lost", "lost-too"):
            await sweep(journal, report(*(result(decision(name)) for name in many(prefix))))
        await journal.begin("gpu-1", "docker", [])
        assert journal.degraded is not None
        assert journal.degraded in lab.told
        ballast.unlink()
        lab.clock.now += timedelta(minutes=10)
        await sweep(journal, report(result(decision("after"))))

    lab.run(main)
    assert lab.is_whole()
    assert lab.outcomes() == {"before": "deleted", "after": "deleted"}
    (gap,) = lab.rows("SELECT * FROM gap")
    assert (gap["sweeps"], gap["acts"]) == (2, 600)
    assert (gap["began_at"], gap["ended_at"]) == ("2026-11-21T12:00:00.000000Z", "2026-11-21T12:10:00.000000Z")
    assert "full" in gap["why"]
    assert len(lab.recovered) == 1


def _truncated(whole: bytes) -> bytes:
    return whole[: len(whole) // 2 // 4096 * 4096 + 100]


def _overwritten(whole: bytes) -> bytes:
    return whole[:4096] + b"\xa5" * (len(whole) - 4096)


DAMAGES: dict[str, bytes | Callable[[bytes], bytes]] = {
    "garbage": b"garbage " * 10_000,
    "truncated in the middle": _truncated,
    "overwritten in the middle": _overwritten,
    "another format": b"PK\x03\x04" + b"\0" * 5000,
    "one byte": b"\0",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_set_aside_and_a_new_one_begins(lab: Lab, damage: bytes | Callable[[bytes], bytes]) -> None:
    lab.sweep(*(result(decision(name)) for name in many("old")))
    damaged = damage if isinstance(damage, bytes) else damage(lab.file.read_bytes())
    lab.file.write_bytes(damaged)
    lab.sweep(result(decision("new")))
    assert lab.outcomes() == {"new": "deleted"}
    assert [file.name for file in lab.aside()] == ["journal.db.damaged-20261121T120000Z"]
    assert lab.aside()[0].read_bytes() == damaged
    assert len(lab.told) == 1
    assert "was damaged" in lab.told[0]
    assert "it is kept as journal.db.damaged-20261121T120000Z" in lab.told[0]
    assert lab.recovered == ["a new file is written"]  # what fires on the damage ends here


def test_a_file_that_is_set_aside_at_the_start_is_reported_as_mended_before_the_first_record(lab: Lab) -> None:
    lab.sweep(result(decision("old")))
    lab.file.write_bytes(b"garbage " * 10_000)

    async def main(journal: Journal) -> None:
        await anyio.to_thread.run_sync(mended.wait, 30)
        assert journal.degraded is None

    def recovered(problem: str) -> None:
        lab.recovered.append(problem)
        mended.set()

    mended = threading.Event()
    lab.run(main, recovered=recovered)
    assert (len(lab.told), lab.recovered) == (1, ["a new file is written"])


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another program writes to the journal, and does not end."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@pytest.mark.parametrize("within", [30.0, 0.2], ids=["it waits for the lock", "its time is up before"])
def test_a_journal_that_is_locked_for_the_life_of_a_sweep_leaves_its_gap_beside_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, within: float
) -> None:
    lab.sweep(result(decision("old")))
    monkeypatch.setattr(journal_db, "BUSY_SECONDS", 0.1 if within > 1 else 3.0)

    async def main(journal: Journal) -> None:
        await sweep(journal, report(*(result(decision(name)) for name in ("a", "b"))))
        await journal.close(timedelta(seconds=within))

    with locked(lab.file):
        lab.run(main, patience=timedelta(seconds=0.1))
        ((_, gap),) = gaps_left(lab.file)
    assert gap is not None
    assert (gap.sweeps, gap.acts) == (1, 2)
    assert "lock" in gap.why or "did not answer" in gap.why
    if within > 1:  # else the thread that waits would still write it, as that of an ended process would not
        lab.sweep(result(decision("after")))
        (row,) = lab.rows("SELECT * FROM gap")
        assert (row["sweeps"], row["acts"]) == (1, 2)
        assert list(gaps_left(lab.file)) == []


def test_a_host_without_a_thread_to_spare_costs_no_sweep_and_no_record(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(anyio.to_thread, "run_sync", no_thread)
    lab.sweep(result(decision("a")))
    assert lab.outcomes() == {"a": "deleted"}


def test_a_gap_that_cannot_be_read_is_dropped(lab: Lab) -> None:
    lab.sweep(result(decision("old")))
    Path(f"{lab.file}.gap-7").write_text('{"began_at": 5')
    lab.sweep(result(decision("new")))
    assert lab.rows("SELECT * FROM gap") == []
    assert list(gaps_left(lab.file)) == []


def test_an_empty_file_is_no_damage(lab: Lab) -> None:
    lab.file.parent.mkdir()
    lab.file.touch()
    lab.sweep(result(decision("new")))
    assert lab.outcomes() == {"new": "deleted"}
    assert (lab.told, lab.aside()) == ([], [])


def test_a_database_of_another_program_is_set_aside_whole(lab: Lab) -> None:
    lab.file.parent.mkdir()
    connection = sqlite3.connect(lab.file)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    lab.sweep(result(decision("new")))
    (aside,) = lab.aside()
    connection = sqlite3.connect(aside)
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    connection.close()


def test_damage_while_it_is_open_is_survived(lab: Lab) -> None:
    async def main(journal: Journal) -> None:
        await sweep(journal, report(*(result(decision(name)) for name in many("old"))))
        await journal.begin("gpu-1", "docker", [])
        lab.file.write_bytes(b"\xa5" * lab.file.stat().st_size)
        lab.file.with_name("journal.db-wal").write_bytes(b"")
        for name in ("b", "c"):
            await sweep(journal, report(result(decision(name))))

    lab.run(main)
    lab.sweep(result(decision("d")))
    assert lab.outcomes().keys() >= {"d"}
    assert 1 <= len(lab.aside()) <= 3
    assert lab.is_whole()


def test_a_disk_that_damages_file_after_file_is_not_filled_with_them(lab: Lab) -> None:
    async def main(journal: Journal) -> None:
        for _ in range(8):
            await sweep(journal, report(result(decision("a"))))
            await journal.begin("gpu-1", "docker", [])
            garbage = lab.file.with_name("garbage")
            garbage.write_bytes(b"garbage " * 1000)
            garbage.replace(lab.file)
            lab.file.with_name("journal.db-wal").unlink(missing_ok=True)  # it would mend the file
        await journal.begin("gpu-1", "docker", [])
        assert journal.degraded is not None

    lab.run(main)
    assert len([file for file in lab.aside() if not file.name.endswith(("-wal", "-shm"))]) == 3


def test_a_file_of_a_later_version_is_not_touched(lab: Lab) -> None:
    lab.sweep(result(decision("a")))
    connection = sqlite3.connect(lab.file)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    before = lab.file.read_bytes()
    lab.sweep(result(decision("b")))
    assert lab.file.read_bytes() == before
    assert lab.told == [
        f"it was written by a later version of reaper (its schema is 7, this one supports {len(journal_db.MIGRATIONS)})"
    ]
    assert lab.aside() == []


def test_a_file_of_an_earlier_version_is_migrated_and_keeps_what_it_has(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.sweep(result(decision("a")))
    steps = journal_db.MIGRATIONS
    monkeypatch.setattr(journal_db, "MIGRATIONS", (*steps, ("ALTER TABLE act ADD COLUMN x TEXT", "CREATE TABLE bad (")))
    lab.sweep(result(decision("b")))
    assert len(lab.told) == 1
    assert lab.rows("PRAGMA user_version") == [{"user_version": len(steps)}]
    assert "x" not in lab.rows()[0]
    monkeypatch.setattr(journal_db, "MIGRATIONS", (*steps, ("ALTER TABLE act ADD COLUMN x TEXT DEFAULT 'new'",)))
    lab.sweep(result(decision("c")))
    assert lab.rows("PRAGMA user_version") == [{"user_version": len(steps) + 1}]
    assert [(row["name"], row["x"]) for row in lab.rows()] == [("a", "new"), ("c", "new")]


def test_a_file_that_another_process_has_set_aside_is_left_at_once(lab: Lab) -> None:
    async def main(journal: Journal) -> None:
        await sweep(journal, report(result(decision("a"))))
        await journal.begin("gpu-1", "docker", [])
        lab.file.rename(lab.file.with_name("elsewhere"))
        await sweep(journal, report(result(decision("b"))))

    lab.run(main)
    assert lab.outcomes() == {"b": "deleted"}


def test_a_folder_that_cannot_be_made_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file is in the way")
    lab = Lab(tmp_path)

    async def main(journal: Journal) -> None:
        for _ in range(3):
            await sweep(journal, report(result(decision("a"))))

    lab.run(main)
    assert len(lab.told) == 1
    assert str(tmp_path / "state") in lab.told[0]


def test_a_fifo_in_its_place_is_reported_and_not_waited_for(lab: Lab) -> None:
    lab.file.parent.mkdir(exist_ok=True)
    os.mkfifo(lab.file)

    async def main(journal: Journal) -> None:
        await sweep(journal, report(result(decision("a"))))

    lab.run(main)
    assert len(lab.told) == 1
    assert "it is no regular file" in lab.told[0]


def hold(journal: Journal, hang: threading.Event) -> None:
    """Each write waits for the event."""
    write = journal._writer._write

    def hanging(job: object) -> None:
        hang.wait()
        write(job)  # type: ignore[arg-type]

    journal._writer._write = hanging  # type: ignore[method-assign]


def test_a_disk_that_hangs_delays_the_deletions_once_and_the_end_not_for_ever(lab: Lab) -> None:
    hang = threading.Event()

    async def main(journal: Journal) -> None:
        await journal.begin("gpu-1", "docker", [])
        hold(journal, hang)
        for name in ("a", "b"):
            await sweep(journal, report(result(decision(name))))
        assert journal.degraded == "the disk did not answer within 0.05 s"
        await journal.close(timedelta(seconds=0.05))
        hang.set()
        journal._writer.join()

    lab.run(main, patience=timedelta(seconds=0.05))
    assert lab.outcomes() == {"a": "deleted", "b": "deleted"}
    assert lab.told[0] == "the disk did not answer within 0.05 s"


def test_a_queue_that_only_grows_is_cut_off(lab: Lab) -> None:
    hang = threading.Event()

    async def main(journal: Journal) -> None:
        hold(journal, hang)
        for i in range(300):
            journal.finished(report(result(decision(f"c{i}"))))
        assert journal._writer.jobs.qsize() <= 256
        assert journal.degraded == "the disk does not keep up"
        hang.set()

    lab.run(main)
    assert len(lab.rows()) + lab.rows("SELECT sum(acts) AS n FROM gap")[0]["n"] == 300
