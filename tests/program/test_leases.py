"""What others have leased, as one who runs the command meets it."""

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from reaper.leases.database import create
from reaper.leases.record import Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from tests.program.fakeengine import FakeEngine
from tests.program.terminal import at_terminal
from tests.run import Program

NOW = datetime.now(UTC)
LEASE = LeaseRecord(
    id="7f3a",
    sort=Liveness.PROCESS,
    holder=Holder("gpu-1", 4711, "8812", "harbor", "ada"),
    since=NOW - timedelta(hours=26),
    seen_at=NOW,
)
MINE = {"reaper.lease": "7f3a"}


def take(run: Program, record: LeaseRecord = LEASE) -> None:
    create(run.folder / NAME)
    file = LeaseFile(run.folder / NAME)
    file.put(record)
    file.close()


def test_what_a_living_run_holds_survives_whatever_its_age(run: Program, fake: FakeEngine) -> None:
    fake.add("old", ago="25h", labels=MINE)
    fake.add("leftover", ago="25h")
    take(run)
    ended = run("--once", "--aggressive", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"leftover": "deleted"}
    assert fake.names() == {"old"}
    (old,) = [r for r in ended.document["endpoints"][0]["resources"] if r["name"] == "old"]
    assert (old["reason"], old["sentence"]) == ("leased", "lease 7f3a of pid 4711 on gpu-1 is alive")


def test_what_a_dead_run_left_goes_at_once_and_is_on_record(run: Program, fake: FakeEngine) -> None:
    fake.add("young", "running", ago="1m", labels=MINE, image="debian", owned=False)
    fake.add("neighbour", "running", ago="1m", image="debian", owned=False)
    take(run, replace(LEASE, state=LeaseState.EXPIRED, ended_at=NOW, cause="killed"))
    ended = run("--once", "--json")
    assert ended.code == 0, ended.err
    assert ended.outcomes() == {"young": "deleted"}
    assert fake.names() == {"neighbour"}
    (act,) = run("history", "--json").document["acts"]
    assert (act["name"], act["reason"], act["owner"]) == ("young", "lease_ended", "lease 7f3a")
    assert act["sentence"].startswith("lease 7f3a of pid 4711 on gpu-1 ended ")
    assert act["sentence"].endswith(" ago (killed)")


def test_it_can_be_explained(run: Program, fake: FakeEngine) -> None:
    fake.add("held", ago="25h", labels=MINE)
    take(run)
    ended = run("explain", "held")
    assert ended.code == 0, ended.err
    assert "lease 7f3a of pid 4711 on gpu-1 is alive" in ended.out
    assert run("check").code == 0


def unreadable(run: Program) -> None:
    (run.folder / NAME).unlink()
    (run.folder / NAME).symlink_to("/proc/self/mem")


def truncated(run: Program) -> None:
    os.truncate(run.folder / NAME, 5000)


def emptied(run: Program) -> None:
    os.truncate(run.folder / NAME, 0)


@pytest.mark.parametrize("harm", [unreadable, truncated, emptied])
def test_nothing_goes_while_what_is_leased_is_unknown(run: Program, fake: FakeEngine, harm: object) -> None:
    fake.add("leftover", ago="25h")
    take(run)
    harm(run)  # type: ignore[operator]
    ended = run("--once", "--all", "--json")
    assert ended.code == 5
    assert fake.changes() == []
    failure = ended.document["endpoints"][0]["failure"]
    assert failure["error"] == "leases_unknown"
    assert f"the leases in {run.folder / NAME} cannot be read: " in failure["message"]


def test_nor_while_they_are_locked(run: Program, fake: FakeEngine) -> None:
    fake.add("leftover", ago="25h")
    take(run)
    with closing(sqlite3.connect(run.folder / NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        ended = run("--once", "--json")
    assert ended.code == 5
    assert fake.changes() == []
    assert "locked" in ended.err
    assert run("--once", "--json").outcomes() == {"leftover": "deleted"}


def test_a_cap_of_its_own_has_a_command_of_its_own(run: Program, fake: FakeEngine) -> None:
    for number in range(3):
        fake.add(f"m{number}", "running", ago="1m", labels=MINE)
    fake.add("leftover", ago="25h")
    take(run, replace(LEASE, state=LeaseState.RELEASED, ended_at=NOW, cause="released"))
    ended = run("--once", "--json", env={"REAPER_LIMITS__MAX_LEASE_DELETIONS": "2"})
    assert ended.code == 4
    assert fake.names() == {"m0", "m1", "m2"}
    (hint,) = ended.document["hints"]
    assert "3 leases have left would have gone, but max_lease_deletions = 2 allows 2" in hint
    assert hint.endswith("to go on: REAPER_LIMITS__MAX_LEASE_DELETIONS=3 reaper --once --json")


@pytest.mark.parametrize(
    ("words", "option"),
    [(("list", "--yes"), "--yes"), (("list", "--reason", "x"), "--reason"), (("show", "a", "--ended"), "--ended")],
)
def test_no_option_is_ignored(run: Program, words: tuple[str, ...], option: str) -> None:
    ended = run("leases", *words)
    assert (ended.code, ended.out) == (2, "")
    assert f"{option}: it does not go with leases {words[0]}" in ended.err


@pytest.mark.parametrize("columns", [80, 200])
def test_the_open_leases_are_a_table_at_a_terminal(run: Program, columns: int) -> None:
    assert at_terminal(run, "leases", "list").lines == ["no lease is open; --ended shows those that were"]
    ids = ("7f3a", "a-much-longer-name-of-a-lease")
    for id_ in ids:
        take(run, replace(LEASE, id=id_))
    header, *lines = at_terminal(run, "leases", "list", columns=columns).lines
    assert max(map(len, lines)) <= columns
    assert header.split()[:2] == ["state", "lease"], header
    at = header.index("lease")
    assert [line[at:].split()[0] for line in lines if line.startswith("live")] == list(ids)
    assert all(f"reaper.lease={id_}" in "".join(lines).replace(" ", "") for id_ in ids)
    assert run("leases", "list").out.splitlines()[0].split("\t")[0] == "7f3a", "lines for programs stay as they are"
