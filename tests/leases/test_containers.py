"""The record of the containers that were seen to be made under a lease."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reaper.core.lease import Ending, Lease
from reaper.core.lease_index import Leases
from reaper.leases.containers import FOLDER, MadeContainers, forget
from reaper.leases.database import create
from reaper.leases.history import LazyIndex
from reaper.leases.record import LeaseState
from reaper.leases.served import ServedLeases
from reaper.leases.sources import NAME, KnownLeases
from reaper.leases.store import LeaseFile
from tests.leases.test_leasedb import ENDED, HOUR, NOW, RECORD

CONTAINER = ("engine-1", "ef" * 32)


def recorded(state: Path) -> set[str]:
    return {path.name for path in (state / FOLDER).iterdir()}


def made(state: Path, lease: str = RECORD.id) -> MadeContainers:
    found = MadeContainers(state, lease)
    found.add(*CONTAINER)
    return found


def test_what_was_added_is_found_and_nothing_else(tmp_path: Path) -> None:
    found = MadeContainers(tmp_path / "state", "l1")
    assert CONTAINER not in found
    found.add(*CONTAINER)
    assert CONTAINER in found
    assert ("engine-2", CONTAINER[1]) not in found
    assert ("engine-1", CONTAINER[1][:12]) not in found
    found.add("engine-1", "aa" * 32)
    assert all(("engine-1", id_) in found for id_ in (CONTAINER[1], "aa" * 32))
    assert CONTAINER not in MadeContainers(tmp_path / "state", "l2")
    (tmp_path / "state" / FOLDER / "l1").rename(tmp_path / "state" / FOLDER / "l2")
    assert CONTAINER not in MadeContainers(tmp_path / "state", "l2"), "a line names its lease"
    path = tmp_path / "state" / FOLDER / "l2"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize("lease", ["../leases", "", ".", "a/b", "x" * 200])
def test_a_lease_whose_name_is_no_file_s_has_no_record(tmp_path: Path, lease: str) -> None:
    assert CONTAINER not in made(tmp_path, lease)
    assert not list(tmp_path.rglob("*"))


def put_in_place(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "writable by all": lambda path: path.chmod(0o666),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "no text": lambda path: path.write_bytes(b"\xff\n" + path.read_bytes()),
    "a folder": lambda path: put_in_place(path, Path.mkdir),
    "a pipe": lambda path: put_in_place(path, os.mkfifo),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_trusted_proves_nothing(tmp_path: Path, damage: str) -> None:
    found = made(tmp_path)
    assert CONTAINER in found
    DAMAGES[damage](tmp_path / FOLDER / RECORD.id)
    assert CONTAINER not in found


def test_a_line_that_was_cut_off_spoils_the_next_one_alone(tmp_path: Path) -> None:
    found = MadeContainers(tmp_path, "l1")
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "l1").write_text("l1 engine-1 ab")
    found.add(*CONTAINER)
    assert CONTAINER not in found
    found.add(*CONTAINER)
    assert CONTAINER in found


def test_leases_of_the_file_have_theirs(tmp_path: Path) -> None:
    create(tmp_path / NAME)
    file = LeaseFile(tmp_path / NAME)
    file.put(RECORD, ENDED)
    before = file.leases().get(RECORD.id)
    made(tmp_path)
    file.put(replace(RECORD, state=LeaseState.EXPIRED, ended_at=NOW, cause="killed"))
    for lease in (before, *(one.leases().get(RECORD.id) for one in (file, LeaseFile(tmp_path / NAME)))):
        assert lease is not None
        assert CONTAINER in lease.containers
    other = file.leases().get(ENDED.id)
    assert other is not None
    assert CONTAINER not in other.containers
    assert file.leases().made == frozenset(), "no listing has to look for them"


def test_a_record_is_forgotten_with_its_lease(tmp_path: Path) -> None:
    create(tmp_path / NAME)
    file = LeaseFile(tmp_path / NAME)
    file.put(ENDED, RECORD)
    for id_ in (ENDED.id, RECORD.id, "elsewhere", "new"):
        made(tmp_path, id_)
        if id_ != "new":
            os.utime(tmp_path / FOLDER / id_, (0, 0))
    file.forget(NOW + HOUR)
    assert {RECORD.id} <= recorded(tmp_path) <= {RECORD.id, "new"}, "a lease that has not ended keeps it, however old"
    forget(tmp_path, NOW + timedelta(days=36500))
    assert recorded(tmp_path) == set()


def test_a_lease_that_a_service_elsewhere_keeps_has_those_that_were_recorded_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease("l1", "pid 1", since=NOW, ending=Ending(NOW, "killed"))
    served = ServedLeases("/nowhere", tmp_path)
    index = LazyIndex(served)
    for each in (lease, replace(lease, id="l2")):
        index.put(each)
    monkeypatch.setattr(ServedLeases, "all_ended", lambda _: ())
    monkeypatch.setattr(ServedLeases, "__call__", lambda _: Leases(index))
    known = KnownLeases(tmp_path, (), served)
    assert CONTAINER not in next(iter(known())).containers
    made(tmp_path, "l1")
    found = {each.id: each for each in known()}
    assert {id_ for id_, each in found.items() if CONTAINER in each.containers} == {"l1"}
    known.close()
