"""A process that is killed in mid-sweep leaves the truth, and the next one that looks says what became of it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from reaper import liveness
from reaper.core.model import Outcome
from reaper.observers.journal import Journal
from tests.journal.lab import Lab, decision, report, result, sweep

_SWEEPER = """
import anyio, sys
from pathlib import Path
from tests.journal.lab import Lab, decision, report, result, sweep

async def main():
    journal = Lab(Path(sys.argv[1])).journal()
    await sweep(journal, report(result(decision("done"))))
    await journal.begin("local", "docker", [decision("there"), decision("not-there")])
    print("begun", flush=True)
    sys.stdin.read()

anyio.run(main)
"""


@contextmanager
def sweeper(lab: Lab) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun to delete two things, and is killed at the end of the block."""
    folder = str(lab.file.parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", _SWEEPER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


def test_what_a_killed_process_left_is_settled_by_the_next_listing(lab: Lab) -> None:
    with sweeper(lab) as process:
        pid = process.pid
    assert process.returncode == -9
    assert lab.is_whole()
    assert lab.outcomes() == {"done": "deleted", "there": "pending", "not-there": "pending"}
    lab.clock.now += timedelta(hours=1)
    lab.sweep(kept=[decision("there", reap=False), decision("other", reap=False)])
    assert lab.outcomes() == {"done": "deleted", "there": "abandoned", "not-there": "gone"}
    details = {row["name"]: row["detail"] for row in lab.rows()}
    died = f"the process that was deleting it (pid {pid}) died"
    assert details["there"] == f"{died}; it was still there at 2026-11-21 13:00:00 UTC"
    assert details["not-there"] == f"{died}; it was not there any more at 2026-11-21 13:00:00 UTC"
    assert [row["failure"] for row in lab.rows("SELECT failure FROM sweep ORDER BY id")] == [None, "died", None]
    assert lab.is_whole()


def test_the_listing_of_another_endpoint_says_nothing_of_it(lab: Lab) -> None:
    with sweeper(lab):
        pass

    async def main(journal: Journal) -> None:
        await sweep(journal, report(endpoint="gpu-1"))

    lab.run(main)
    assert lab.outcomes() == {"done": "deleted", "there": "pending", "not-there": "pending"}


def test_what_a_living_process_is_at_work_on_is_left_alone(lab: Lab) -> None:
    with sweeper(lab):
        lab.sweep(result(decision("mine")))
        assert lab.outcomes() == {"done": "deleted", "there": "pending", "not-there": "pending", "mine": "deleted"}
        assert lab.told == []


def test_a_sweep_of_this_process_that_never_reported_is_over_when_the_next_one_begins(lab: Lab) -> None:
    async def main(journal: Journal) -> None:
        await journal.begin("local", "docker", [decision("a"), decision("b")])
        await sweep(journal, report(result(decision("a"), Outcome.SKIPPED)))

    lab.run(main)
    rows = [(row["name"], row["outcome"], row["detail"].partition("; ")[0].partition(" (")[0]) for row in lab.rows()]
    assert rows == [
        ("a", "abandoned", "the sweep that was deleting it"),
        ("b", "gone", "the sweep that was deleting it"),
        ("a", "skipped", ""),
    ]


def test_a_lock_tells_the_living_from_the_dead(lab: Lab) -> None:
    lab.file.parent.mkdir()
    file = liveness.lock_file(lab.file)
    mine, other = liveness.Alive(file, liveness.new_token()), liveness.Alive(file, liveness.new_token())
    assert mine.lives(mine.token)
    assert mine.lives(other.token)
    assert liveness.lives(file, other.token)
    token = other.token
    other.close()
    assert not mine.lives(token)
    assert not liveness.lives(file, token)
    file.unlink()
    assert not mine.is_current()
    assert not liveness.lives(file, mine.token)
    mine.close()


_WRITER = """
import anyio, sys
from datetime import timedelta
from pathlib import Path
from tests.journal.lab import Lab, decision, report, result, sweep

async def main():
    lab = Lab(Path(sys.argv[1]))
    journal = lab.journal()
    for i in range(60):
        await sweep(journal, report(*(result(decision(f"{sys.argv[2]}-{i}-{j}")) for j in range(5))))
    await journal.close(timedelta(seconds=60))
    assert lab.told == [], lab.told

anyio.run(main)
"""


def test_two_processes_write_at_once(lab: Lab) -> None:
    folder = str(lab.file.parents[1])
    both = [subprocess.Popen([sys.executable, "-c", _WRITER, folder, name]) for name in ("a", "b")]
    assert [process.wait(60) for process in both] == [0, 0]
    assert lab.is_whole()
    assert lab.rows("SELECT count(*) AS n FROM act WHERE outcome = 'deleted'") == [{"n": 600}]
    assert lab.rows("SELECT count(*) AS n FROM sweep WHERE ended_at IS NOT NULL") == [{"n": 120}]
