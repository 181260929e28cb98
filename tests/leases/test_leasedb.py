"""The file of leases: what is written is read, by others too, and what cannot be read is never taken for nothing."""

import os
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reaper import host
from reaper.core.lease import IN_FLIGHT, Claim, Ending
from reaper.core.scope import Selector
from reaper.core.site import Site
from reaper.errors import LeasesUnknownError
from reaper.leases import database
from reaper.leases.database import SMALLEST, create
from reaper.leases.record import Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from tests.sweep.lab import running

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
RECORD = LeaseRecord(
    id="7f3a",
    sort=Liveness.PROCESS,
    holder=Holder("gpu-1", 4711, "8812", "harbor run", "ada"),
    since=NOW - HOUR,
    seen_at=NOW,
    claims=(Claim(Selector(("run=x",), ("chess-*",), ("tb__*",)), ("p", "q")), Claim(projects=("ö",))),
    resources=frozenset({"c1", "c2"}),
    token=2**62,
)
ENDED = replace(RECORD, id="dead", state=LeaseState.EXPIRED, ended_at=NOW, cause="killed")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "state" / NAME
    create(file)
    return file


@pytest.fixture
def file(path: Path) -> LeaseFile:
    return LeaseFile(path)


def test_where_none_was_ever_taken_there_is_none_and_no_file_is_made(tmp_path: Path) -> None:
    assert LeaseFile(tmp_path / NAME).records() == ()
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_read_by_others(file: LeaseFile, path: Path) -> None:
    other = LeaseFile(path)
    assert other.records() == ()
    file.put(RECORD)
    file.put(ENDED)
    assert set(other.records()) == {RECORD, ENDED} == set(file.records())
    file.put(later := replace(RECORD, seen_at=NOW + HOUR, state=LeaseState.RECONNECTING))
    assert set(other.records()) == {later, ENDED}
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_the_rules_need_to_know(file: LeaseFile) -> None:
    file.put(RECORD)
    file.put(ENDED)
    file.put(replace(RECORD, id="back", state=LeaseState.RECONNECTING))
    found = {lease.id: lease for lease in file.leases()}
    assert found["7f3a"].owner == "pid 4711 on gpu-1"
    assert (found["7f3a"].claims, found["7f3a"].resources) == (RECORD.claims, RECORD.resources)
    assert found["7f3a"].ending is None
    assert found["back"].ending is None
    assert found["dead"].ending == Ending(NOW, "killed", NOW + IN_FLIGHT)


def test_those_that_ended_long_ago_are_forgotten(file: LeaseFile) -> None:
    for record in (RECORD, ENDED, replace(ENDED, id="old", ended_at=NOW - HOUR)):
        file.put(record)
    file.forget(NOW - HOUR / 2)
    assert [record.id for record in file.records()] == ["7f3a", "dead"]


def test_it_is_made_once_and_never_over_another(path: Path, file: LeaseFile) -> None:
    file.put(RECORD)
    create(path)
    assert LeaseFile(path).records() == (RECORD,)
    assert [entry.name for entry in path.parent.iterdir()] == [NAME]


def test_many_may_make_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / NAME

    def take(number: int) -> None:
        create(path)
        file = LeaseFile(path)
        file.put(replace(RECORD, id=str(number)))
        file.close()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {record.id for record in LeaseFile(path).records()} == {"0", "1", "2", "3"}


def empty(path: Path) -> None:
    path.write_bytes(b"")


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def cut(path: Path) -> None:
    os.truncate(path, SMALLEST + 100)


def scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = os.urandom(4096)
    path.write_bytes(content)


def replace_by_text(path: Path) -> None:
    path.write_text("nothing to see here\n" * 100)


def replace_by_another(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE lease (id TEXT)")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "content").write_bytes(bytes(SMALLEST))


def lead_nowhere(path: Path) -> None:
    """As a link does to a volume that is not mounted."""
    path.unlink()
    path.symlink_to(path.with_name("elsewhere"))


def from_the_future(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 4")


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def full_of_brackets(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE lease SET claims = ?", ("[" * 200_000,))
        connection.commit()


def unknown_word(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE lease SET state = 'asleep'")
        connection.commit()


DAMAGE = {
    "empty": empty,
    "a page short": shorten,
    "cut in the first page": cut,
    "scribbled over": scribble,
    "text": replace_by_text,
    "another database": replace_by_another,
    "a folder": replace_by_folder,
    "a FIFO": replace_by_fifo,
    "full of brackets": full_of_brackets,
    "a link to nowhere": lead_nowhere,
    "a later version": from_the_future,
    "an unknown state": unknown_word,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_cannot_be_read_is_an_error_and_stays_as_it_is(path: Path, file: LeaseFile, name: str) -> None:
    for number in range(50):
        file.put(replace(RECORD, id=str(number)))
    file.close()
    DAMAGE[name](path)
    before = path.read_bytes() if path.is_file() else None
    again = LeaseFile(path)
    for _ in range(2):
        with pytest.raises(LeasesUnknownError, match="cannot be read: ") as caught:
            again.records()
        assert str(path) in str(caught.value)
        if name not in ("an unknown state", "full of brackets"):
            with pytest.raises(LeasesUnknownError):
                again.put(RECORD)
    if before is not None and name not in ("an unknown state", "full of brackets"):
        assert path.read_bytes() == before


def test_one_that_is_replaced_while_it_is_open_is_noticed(path: Path, file: LeaseFile) -> None:
    file.put(RECORD)
    assert file.records() == (RECORD,)
    path.rename(path.with_suffix(".removed"))
    with pytest.raises(LeasesUnknownError, match="No such file"):
        file.records()
    path.write_bytes(b"")
    with pytest.raises(LeasesUnknownError, match="cut off"):
        file.records()


def test_one_that_is_locked_is_unknown_until_it_is_unlocked(path: Path, file: LeaseFile) -> None:
    file.put(RECORD)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LeasesUnknownError, match="locked"):
            LeaseFile(path).records()
        other.execute("ROLLBACK")
    assert LeaseFile(path).records() == (RECORD,)


def test_what_has_not_changed_is_not_read_again(path: Path, file: LeaseFile) -> None:
    file.put(RECORD)
    assert file.leases() is file.leases()
    mine = file.open()[0]
    LeaseFile(path).put(ENDED)
    assert len(file.leases()) == 2
    assert file.open()[0] is mine
    LeaseFile(path).forget(NOW + HOUR)
    assert [lease.id for lease in file.leases()] == [RECORD.id]


MADE = frozenset({("engine-1", "ab" * 32), ("engine-1", "sha256:" + "cd" * 32)})


def test_what_was_made_under_a_lease_is_read_by_others(file: LeaseFile, path: Path) -> None:
    other = LeaseFile(path)
    other.leases()
    file.put(RECORD)
    file.put_made(RECORD.id, MADE, NOW)
    file.put_made(RECORD.id, {("engine-2", "x")}, NOW)
    for one in (file, other, LeaseFile(path)):
        lease = one.leases().get(RECORD.id)
        assert lease is not None
        assert lease.made == MADE | {("engine-2", "x")}
    file.put(replace(RECORD, state=LeaseState.EXPIRED, ended_at=NOW, cause="killed"))
    ended = other.leases().get(RECORD.id)
    assert ended is not None
    assert ended.ending is not None
    assert ended.made == MADE | {("engine-2", "x")}


def test_what_was_made_under_a_lease_of_another_file_is_distinguished(file: LeaseFile, path: Path) -> None:
    file.put_made("elsewhere", MADE, NOW)
    file.put(RECORD)
    other = LeaseFile(path)
    assert other.leases().made == frozenset()
    assert other.made_elsewhere() == {"elsewhere": MADE}


def test_what_was_made_is_forgotten_with_its_lease(file: LeaseFile, path: Path) -> None:
    other = LeaseFile(path)
    file.put(ENDED, RECORD)
    for id_ in (ENDED.id, RECORD.id, "elsewhere"):
        file.put_made(id_, MADE, NOW - HOUR)
    assert other.leases().made == {id_ for _, id_ in MADE}
    file.forget(NOW + HOUR)
    with closing(sqlite3.connect(path)) as connection:
        left = {row[0] for row in connection.execute("SELECT lease FROM made")}
    assert left == {RECORD.id}, "a lease that has not ended keeps it, however old"
    assert other.leases().get(ENDED.id) is None
    assert other.leases().get(RECORD.id) is not None


def test_a_file_from_before_such_records_is_read_and_written(file: LeaseFile, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE made")
    file.put(RECORD)
    assert LeaseFile(path).leases().made == frozenset()
    file.forget(NOW - HOUR)
    file.put_made(RECORD.id, MADE, NOW)
    assert LeaseFile(path).leases().made == {id_ for _, id_ in MADE}


@pytest.mark.parametrize("is_open", [True, False], ids=["by one who had read it", "by another"])
def test_a_clock_that_is_set_back_lets_no_ended_lease_claim_what_is_made_afterwards(
    file: LeaseFile, path: Path, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    """Its end would be to come, and what others make until then would seem to have been made under it."""
    claims = (Claim(Selector(names=("chess-*",))),)
    file.put(replace(ENDED, state=LeaseState.RELEASED, claims=claims, endpoints=frozenset({"engine"})))
    site = Site("engine", timedelta(0), timedelta(0), timedelta(0))

    def taken(minutes_ago: int) -> bool:
        at = NOW - timedelta(minutes=minutes_ago)
        made = running("chess-1", created_at=at, started_at=at)
        found = (file if is_open else LeaseFile(path)).leases().on(site).covering(made)
        return found is not None

    assert [taken(50), taken(20)] == [True, True]
    booted = host.booted_at()
    monkeypatch.setattr(host, "booted_at", lambda: booted - HOUR / 2)
    assert [taken(50), taken(20)] == [True, False]
    monkeypatch.setattr(host, "booted_at", lambda: booted + HOUR)
    assert [taken(50), taken(20)] == [True, True], "set forward, it dates nothing back"


def test_a_file_without_the_clocks_of_the_ends_is_read_and_written(
    file: LeaseFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read also where it cannot be written, as on a full disk: else nothing would be deleted there."""
    file.put(ENDED)
    file.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE lease DROP COLUMN clock")
        connection.commit()
    with monkeypatch.context() as full:
        full.setattr(database, "_check", lambda connection: connection.execute("PRAGMA query_only = ON"))
        assert LeaseFile(path).records() == (ENDED,)
        with pytest.raises(LeasesUnknownError):
            LeaseFile(path).put(RECORD)
    assert LeaseFile(path).records() == (ENDED,)
    LeaseFile(path).put(RECORD)
    assert set(LeaseFile(path).records()) == {RECORD, ENDED}
