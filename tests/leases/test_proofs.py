"""What makes a lease end for those who read it: proofs made on this host and boot, and the word of this user or root."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reaper import host
from reaper.core.lease import IN_FLIGHT, Claim
from reaper.core.scope import Selector
from reaper.errors import LeasesUnknownError
from reaper.leases.database import create
from reaper.leases.peers import Peer
from reaper.leases.process import OwnLease
from reaper.leases.record import Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.served import ServedLeases
from reaper.leases.sources import NAME, KnownLeases, SharedLeases
from reaper.leases.store import LeaseFile
from reaper.liveness import Alive, lock_file
from tests import needs
from tests.leases.others import NOBODY

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
EVERYTHING = Claim(Selector(names=("*",)))


def record(**changes: Any) -> LeaseRecord:
    """Of a process whose lock is free, and which is not seen here."""
    here = LeaseRecord(
        id="run", sort=Liveness.PROCESS, holder=Holder("gpu-1", 4711), since=NOW - HOUR, seen_at=NOW - HOUR, token=7
    )
    return replace(here, **changes)


def read(folder: Path, found: LeaseRecord) -> tuple[bool, bool]:
    """Whether the lease is taken for ended, and whether nothing here can tell."""
    create(folder / NAME)
    file = LeaseFile(folder / NAME)
    file.put(found)
    Alive(lock_file(folder / NAME), 1).close()
    leases = SharedLeases(folder)
    (lease,) = leases()
    leases.close()
    return lease.ending is not None, lease.unproven


BOOTED = host.booted_at()
PLACES: dict[str, tuple[dict[str, Any], tuple[bool, bool]]] = {
    "this kernel": ({}, (True, False)),
    "another host": ({"machine": "other", "boot": "other"}, (False, True)),
    "another host of the same name": (
        {"machine": "other", "boot": "other", "holder": Holder(os.uname().nodename, 1)},
        (False, True),
    ),
    "an earlier boot of this one": ({"boot": "other", "seen_at": BOOTED - HOUR}, (True, False)),
    "a copy of this machine, seen since this one was started": ({"boot": "other", "seen_at": BOOTED + HOUR}, (False, True)),
    "unknown": ({"machine": "", "boot": "", "seen_at": BOOTED - HOUR}, (False, True)),
    "a machine without an id": ({"machine": "", "boot": "other", "seen_at": BOOTED - HOUR}, (False, True)),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_holder_is_dead_only_if_that_is_proved_here(tmp_path: Path, name: str) -> None:
    """Locks do not cross hosts: over NFS or sshfs another host's living run looks like one that was killed."""
    changes, told = PLACES[name]
    assert read(tmp_path, record(**changes)) == told


def test_a_machine_without_an_id_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "machine_id", lambda: "")
    here = Holder(os.uname().nodename, 1)
    assert read(tmp_path, record(machine="", boot="other", seen_at=BOOTED - HOUR, holder=here)) == (True, False)
    assert read(tmp_path, record(machine="", boot="other", seen_at=BOOTED - HOUR)) == (False, True)


def test_what_was_made_after_the_last_sign_of_life_is_not_a_killed_run_s(tmp_path: Path) -> None:
    """It may have been dead for hours when it is checked, and others have made things of the same names since."""
    create(tmp_path / NAME)
    LeaseFile(tmp_path / NAME).put(record(seen_at=NOW - HOUR / 2))
    Alive(lock_file(tmp_path / NAME), 1).close()
    (lease,) = SharedLeases(tmp_path)()
    assert lease.ending is not None
    assert lease.ending.last == NOW - HOUR / 2 + IN_FLIGHT
    assert lease.ending.at >= NOW


def test_a_run_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnLease(tmp_path, (), "true", {"engine-1"})
    before = own.record.seen_at
    own.keep()
    assert own.record.seen_at == before, "not with each look"
    monkeypatch.setattr("reaper.leases.process.WRITE_EVERY", 0.0)
    own.keep()
    (written,) = LeaseFile(tmp_path / NAME).open()
    assert written.seen_at == own.record.seen_at > before
    assert (written.endpoints, written.boot) == (frozenset({"engine-1"}), host.boot_id())


@contextmanager
def service(path: Path, *leases: dict[str, Any]) -> Iterator[None]:
    """A server that answers as a service does."""
    text = json.dumps({"leases": leases, "edition": "e", "seq": 1}).encode()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    if connection.recv(4096):
                        head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(text)}\r\n\r\n"
                        connection.sendall(head.encode() + text)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def row(id_: str, *, ended: bool) -> dict[str, Any]:
    at = NOW.isoformat() if ended else None
    return {
        "id": id_,
        "holder": {"host": "gpu-1", "pid": 1},
        "claims": [EVERYTHING.fields()],
        "granted_for": ["engine-1"],
        "since": (NOW - HOUR).isoformat(),
        "ended_at": at,
        "claims_until": at,
        "cause": "released",
    }


@pytest.mark.parametrize(("uid", "believed"), [(0, True), (os.geteuid(), True), (65533, False), (65534, False)])
def test_another_users_service_may_protect_and_makes_nothing_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, believed: bool
) -> None:
    path = tmp_path / "sock"
    monkeypatch.setattr(Peer, "of", lambda _: Peer(1, uid, 0))
    with service(path, row("alive", ended=False), row("dead", ended=True)):
        for read_leases in (ServedLeases(str(path)), KnownLeases(tmp_path / "state", [str(path)])):
            found = {lease.id: lease.ending is not None for lease in read_leases()}
            assert found == ({"alive": False, "dead": True} if believed else {"alive": False})


@pytest.mark.parametrize("others", [True, False])
def test_what_a_dead_service_of_another_user_knew_is_not_in_this_state_directory(tmp_path: Path, others: bool) -> None:
    """As of root's service that restarts, of which any user's run may hold a lease, who has leases of his own as well."""
    needs.root("only root can be other users")
    create(tmp_path / NAME)
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
    os.chown(path if others else tmp_path / NAME, NOBODY, NOBODY)
    os.chown(tmp_path / NAME if others else path, 0 if others else NOBODY, 0)
    leases = KnownLeases(tmp_path, [str(path)])
    if others:
        with pytest.raises(LeasesUnknownError, match="does not answer, so what its leases keep is unknown"):
            leases()
    else:
        assert leases().empty
    leases.close()


@pytest.mark.parametrize("odd", [{"since": "2026-11-21T00:00:00"}, {"since": None}, {"granted_for": 5}, {"holder": []}])
def test_what_cannot_be_read_of_a_service_s_leases_is_an_error(tmp_path: Path, odd: dict[str, Any]) -> None:
    path = tmp_path / "sock"
    with service(path, {**row("run", ended=False), **odd}), pytest.raises(LeasesUnknownError, match="cannot be read"):
        ServedLeases(str(path))()


def test_a_released_lease_ended_when_its_holder_says(tmp_path: Path) -> None:
    create(tmp_path / NAME)
    released = record(state=LeaseState.RELEASED, ended_at=NOW - HOUR / 2, seen_at=NOW)
    LeaseFile(tmp_path / NAME).put(released)
    (lease,) = SharedLeases(tmp_path)()
    assert lease.ending is not None
    assert lease.ending.last == NOW - HOUR / 2, "nothing of it is on its way any more"
