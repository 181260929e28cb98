"""Leases that end although their holder goes on, and the cost of those that have ended."""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reaper.core.lease import Claim, Ending, Lease
from reaper.core.lease_index import Leases
from reaper.core.model import Kind, Resource, State
from reaper.core.scope import LEASE_LABEL, Selector
from reaper.core.site import Site
from reaper.errors import LeasesUnknownError
from reaper.leases import database, served, store
from reaper.leases.database import create
from reaper.leases.process import OwnLease
from reaper.leases.record import Holder, LeaseRecord, LeaseState, Liveness
from reaper.leases.served import FollowedLeases, RemoteLeases, ServedLeases
from reaper.leases.sources import NAME, KnownLeases, SharedLeases
from reaper.leases.store import LeaseFile
from reaper.library.lease import lease
from reaper.run.cleanup import of_lease
from tests.library.service import Service, serving
from tests.run import NO_DAYTONA, Program
from tests.running.lab import until

NOW = datetime.now(UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


def record(id_: str, *, ended: timedelta | None = None, **changes: Any) -> LeaseRecord:
    found = LeaseRecord(
        id=id_,
        sort=Liveness.HEARTBEAT,
        holder=Holder("gpu-1", 4711),
        since=NOW - 3 * HOUR,
        seen_at=NOW,
        endpoints=frozenset({"e"}),
        uptime=time.monotonic(),
    )
    if ended is not None:
        found = replace(found, state=LeaseState.RELEASED, ended_at=NOW - ended, seen_at=NOW - ended)
    return replace(found, **changes)


def container(name: str, age: timedelta, **labels: str) -> Resource:
    return Resource(
        provider="docker",
        endpoint="local",
        kind=Kind.CONTAINER,
        id=name,
        name=name,
        state=State.RUNNING,
        raw_state="running",
        created_at=NOW - age,
        labels=labels,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create(tmp_path / NAME)
    return tmp_path


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "service") as found:
        yield found


# -- the cost of history -----------------------------------------------------------------------------------------------


def test_of_those_that_have_ended_none_is_read_until_something_may_be_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = (Claim(Selector(names=("run-*",))),)
    LeaseFile(folder / NAME).put(*(record(f"old-{n}", ended=2 * HOUR, claims=claims) for n in range(500)), record("open"))
    read: list[str] = []

    def note(row: Any) -> LeaseRecord:
        read.append(row["id"])
        return database.from_row(row)

    monkeypatch.setattr(store, "from_row", note)
    leases = SharedLeases(folder)().on(Site("e"))
    assert leases.covering(container("other", HOUR)) is None
    assert read == ["open"]
    leases.covering(container("x", HOUR, **{LEASE_LABEL: "old-7"}))
    assert read == ["open", "old-7"]
    leases.covering(container("run-7", 2 * HOUR + SECOND))
    assert len(set(read)) == 501


@pytest.mark.parametrize("seed", range(10))
def test_what_is_read_late_decides_as_what_is_read_at_once(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    records = []
    for number in range(60):
        since = NOW - rng.randrange(1, 20_000) * SECOND
        ended = since + rng.randrange(1, 4000) * SECOND
        state = rng.choice((LeaseState.RELEASED, LeaseState.EXPIRED, LeaseState.LIVE))
        claim = rng.choice(((), (Claim(Selector(names=(f"n{rng.randrange(8)}-*",))),), (Claim(Selector(("team=rl",))),)))
        changes: dict[str, Any] = {"since": since, "claims": claim, "state": state}
        if state is not LeaseState.LIVE:
            changes |= {"ended_at": ended, "seen_at": ended - rng.randrange(90) * SECOND}
        records.append(record(f"l{number}", **changes))
    file = LeaseFile(folder / NAME)
    file.put(*records)
    late, at_once = file.leases().on(Site("e")), Leases([each.lease() for each in records], Site("e"))
    for number in range(200):
        labels = {"team": "rl"} if rng.random() < 0.5 else {}
        if rng.random() < 0.5:
            labels[LEASE_LABEL] = f"l{rng.randrange(70)}"
        there = replace(
            container(f"n{rng.randrange(8)}-{number}", rng.randrange(25_000) * SECOND, **labels), inherited=frozenset()
        )
        one, other = late.covering(there), at_once.covering(there)
        assert _fate(one) == _fate(other), there
    assert {each.id for each in late} == {each.id for each in records}
    assert len(late) == len(records)
    assert late.label_keys == at_once.label_keys


def _fate(found: Lease | None) -> bool | None:
    return None if found is None else found.ending is None


def test_runs_trim_the_file_without_a_service(folder: Path) -> None:
    LeaseFile(folder / NAME).put(record("old", ended=timedelta(days=8)), record("young", ended=timedelta(days=6)))
    own = OwnLease(folder, (), "true")
    assert {each.id for each in LeaseFile(folder / NAME).records()} == {"young", own.record.id}


# -- max_age -----------------------------------------------------------------------------------------------------------


def test_a_lease_is_too_old_by_both_clocks_only() -> None:
    old = record("a", max_age=HOUR, uptime=100.0)
    assert old.is_too_old(100.0 + 3600, NOW)
    assert not old.is_too_old(100.0 + 60, NOW), "the wall clock was set ahead"
    assert not replace(old, since=NOW).is_too_old(100.0 + 3600, NOW), "it was set back"
    assert not replace(old, max_age=None).is_too_old(1e9, NOW)
    assert old.is_too_old(200.0, NOW, timedelta(seconds=60))
    assert not replace(old, machine="other", boot="other").is_too_old(1e9, NOW), "another host's clocks say nothing here"


def test_a_hung_run_keeps_nothing_beyond_its_max_age(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnLease(folder, (), "true", max_age=HOUR)
    (known,) = SharedLeases(folder)()
    assert known.ending is None
    old = replace(own.record, since=NOW - 2 * HOUR, uptime=time.monotonic() - 7200)
    LeaseFile(folder / NAME).put(old)
    (known,) = SharedLeases(folder)()
    assert known.ending is not None
    assert known.ending.cause == "it was older than its max_age, 1 h"
    own.record = old
    own.keep()
    assert own.record.ended_by == "max_age"
    assert LeaseFile(folder / NAME).find(own.record.id) == own.record


def test_a_holder_of_the_service_does_not_get_back_what_has_become_too_old(service: Service) -> None:
    told: list[str] = []
    with lease(url=service.url, max_age=1, on_trouble=told.append) as held:
        found = service.until(held.id, LeaseState.EXPIRED)
        assert (found.ended_by, found.cause) == ("max_age", "it was older than its max_age, 1 s")
        held._every = 0.05
    assert [each.state for each in service.records().values()] == [LeaseState.EXPIRED]


def test_a_run_whose_state_directory_was_emptied_holds_its_lease_all_the_same(folder: Path) -> None:
    own = OwnLease(folder, (Claim(Selector(names=("chess-*",))),), "true", {"e"})
    for file in (*folder.iterdir(),):
        file.unlink()
    folder.rmdir()
    own.keep()
    (known,) = SharedLeases(folder)()
    assert known.ending is None
    assert known.covers(container("chess-1", SECOND), Site("e"))


# -- an operator's end -------------------------------------------------------------------------------------------------


def test_what_an_operator_has_ended_its_holder_does_not_revive(folder: Path) -> None:
    own = OwnLease(folder, (), "true")
    ended = Program(folder)("leases", "end", own.record.id, "--reason", "hangs since Friday", "--yes", "--json")
    assert ended.code == 0, ended.err
    said = ended.document["lease"]
    assert (said["state"], said["cause"]) == ("expired", "hangs since Friday")
    assert said["ended_by"]
    own._written_at = float("-inf")
    own.keep()
    assert own.record.cause == "hangs since Friday"
    written = LeaseFile(folder / NAME).find(own.record.id)
    assert written is not None
    assert (written.state, written.ended_by) == (LeaseState.EXPIRED, said["ended_by"])


@pytest.mark.parametrize("place", ["url", "local_url"])
def test_a_service_s_lease_ends_by_an_operator_and_its_holder_is_told(service: Service, tmp_path: Path, place: str) -> None:
    told: list[str] = []
    url = getattr(service, place)
    program = Program(tmp_path, {"REAPER_URL": url, "STATE_DIRECTORY": str(tmp_path / "own")})
    with lease(url=url, on_trouble=told.append) as held:
        held._every = 0.05
        (row,) = program("leases", "list", "--json").document["leases"]
        assert (row["id"], row["known_to"]) == (held.id, url)
        ended = program("leases", "end", held.id, "--reason", "hangs", "--yes")
        assert ended.code == 0, ended.err
        assert "hangs" in ended.out
        if place == "local_url":
            until(lambda: bool(told), "the holder is not told")
            assert "was ended by" in told[0]
            assert held.state == "refused"
    assert [each.cause for each in service.records().values()] == ["hangs"], "no other lease takes its place"


def test_a_run_takes_nothing_that_was_made_after_its_lease_was_ended(folder: Path) -> None:
    """Its names are free from then on, and may be another's, though its command goes on and is cleaned up after later."""
    claims = (Claim(Selector(names=("chess-*",))),)
    ended = record("run", ended=2 * HOUR, claims=claims, sort=Liveness.PROCESS, ended_by="root")
    LeaseFile(folder / NAME).put(ended)
    leases = KnownLeases(folder, ())
    (mine,) = of_lease("run", leases, Ending(NOW, "its command ended with 0"))()
    site = Site("e")
    assert mine.covers(container("chess-1", 2.5 * HOUR), site)
    assert not mine.covers(container("chess-2", HOUR), site)
    leases.close()


def test_what_is_wrong_with_an_end_is_said(folder: Path, tmp_path: Path) -> None:
    program = Program(folder)
    own = OwnLease(folder, (), "true")
    for arguments, problem in (
        (("end", "nothing", "--reason", "x", "--yes"), "lease nothing: no such lease is known to"),
        (("end", own.record.id, "--yes"), "an end needs its reason"),
        (("end", own.record.id, "--reason", "x"), "there is no terminal\n  give --yes"),
        (("show",), "it needs the ID of a lease"),
        (("list", "x"), "it lists all, and takes no ID"),
    ):
        ended = program("leases", *arguments)
        assert ended.code == 2, ended.err
        assert problem in ended.err
        assert "Traceback" not in ended.err
    assert program("leases", "show", own.record.id).out.startswith(f"lease:     {own.record.id}\nstate:     live\n")
    assert own.record.id in program("leases", "list").out


def test_an_end_is_refused_without_the_token(tmp_path: Path) -> None:
    with serving(tmp_path / "service", token="t0ken") as service, lease(url=service.url, token="t0ken", name="run") as held:
        env = {"REAPER_URL": service.url, "STATE_DIRECTORY": str(tmp_path / "own")}
        ended = Program(tmp_path, env)("leases", "end", held.id, "--reason", "x", "--yes")
        assert ended.code in (2, 5)
        assert "set REAPER_TOKEN to the token" in ended.err
        assert service.records()["run"].state is LeaseState.LIVE
        ended = Program(tmp_path, {**env, "REAPER_TOKEN": "t0ken"})("leases", "end", held.id, "--reason", "x", "--yes")
        assert ended.code == 0, ended.err
        assert service.records()["run"].ended_by.endswith("over TCP")


@pytest.mark.parametrize("words", [["leases", "list"], ["leases", "end", "x"], ["--once"], ["run", "--", "true"]])
def test_a_password_in_the_service_s_url_is_refused_and_not_shown(tmp_path: Path, words: list[str]) -> None:
    program = Program(tmp_path, {"REAPER_URL": "http://me:s3cret@127.0.0.1:9", **NO_DAYTONA})
    ended = program(*words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("reaper: REAPER_URL: it has a user or a password")
    assert "s3cret" not in ended.err
    with pytest.raises(ValueError, match="put its token into REAPER_TOKEN") as caught:
        lease(url="http://me:s3cret@127.0.0.1:9").__enter__()
    assert "s3cret" not in str(caught.value)


# -- the service at REAPER_URL -----------------------------------------------------------------------------------------


def test_a_service_elsewhere_protects_and_makes_nothing_garbage(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "THIS_PROCESS", SimpleNamespace(name="another"))
    remote, local = RemoteLeases(service.url, None), ServedLeases(str(service.socket))
    with lease(url=service.url, name="alive"):
        with lease(url=service.url, name="dead"):
            assert {each.id for each in remote()} == {"alive", "dead"}
        remote._at = local._at = float("-inf")
        assert {each.id for each in remote()} == {"alive"}
        assert remote().get("dead") is None
        assert not local().empty
        assert local().get("dead") is not None, "root's own service on this machine is believed, whenever it is asked"
        assert RemoteLeases(service.url, None)().get("dead") is None


def test_a_service_that_is_followed_is_known_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the daemon asks it."""
    monkeypatch.setattr(served, "FRESH", 0.05)
    monkeypatch.setattr(served, "THIS_PROCESS", SimpleNamespace(name="another"))
    with ExitStack() as stack:
        with serving(tmp_path / "service") as service:
            followed = FollowedLeases(RemoteLeases(service.url, None))
            stack.callback(followed.close)
            followed.wait(60)
            with lease(url=service.url, name="alive"):
                until(lambda: followed().get("alive") is not None, "it is not known")
            until(lambda: followed().get("alive") is None, "its end is not known")
        until(lambda: _unknown(followed), "what is unknown is taken for nothing")


def test_a_service_that_asks_itself_learns_nothing(service: Service) -> None:
    with lease(url=service.url, name="own"):
        assert [*RemoteLeases(service.url, None)()] == []


def _unknown(read: FollowedLeases) -> bool:
    try:
        read()
    except LeasesUnknownError:
        return True
    return False
