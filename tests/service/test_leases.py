"""Leases that the running service takes: over HTTP, across its restarts and its death."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from reaper.liveness import lives, lock_file
from tests import needs
from tests.program.conftest import fake
from tests.program.fakeengine import FakeEngine
from tests.run import Program
from tests.service.daemon import QUICK, SELDOM, Daemon, acts

__all__ = ["fake"]  # a fixture
NO_EVENTS = "docker_events = false"
HOLDER = {"host": "gpu-1", "pid": 4711, "command": "harbor run", "user": "ada"}


@pytest.fixture
def program(fake: FakeEngine, tmp_path: Path) -> Program:
    return Program(tmp_path, {"DOCKER_HOST": fake.host})


def serving(daemon: Daemon) -> Daemon:
    """The same, when it has opened its book of leases."""
    daemon.wait("service_started")
    daemon.until(lambda: daemon.send("GET", "/leases")[0] != 503, "book of leases")
    return daemon


def make(fake: FakeEngine, name: str) -> None:
    """As a run does that holds its lease: what is older than the lease has its label from elsewhere."""
    with fake.lock:  # held for each request
        container = fake.add(name, "running", labels={"reaper.lease": "run-1"}, owned=False)
        container.created = container.started = datetime.now(UTC)


def take(daemon: Daemon, name: str) -> None:
    status, lease = serving(daemon).send("POST", "/leases", {"holder": HOLDER, "id": name})
    assert (status, lease["state"]) == (201, "live")


def test_what_is_leased_stays_and_goes_with_its_lease(program: Program, fake: FakeEngine) -> None:
    fake.add("neighbour", "running", ago="1m", owned=False)
    with Daemon(program, QUICK, NO_EVENTS).start() as daemon:
        take(daemon, "run-1")
        fake.add("old", "running", ago="25h", labels={"reaper.lease": "run-1"})
        for name in ("mine", "young"):
            make(fake, name)
        daemon.wait("sweep_finished", times=2)
        assert fake.names() == {"old", "mine", "young", "neighbour"}
        assert daemon.metric("reaper_kept_resources", reason="leased") == 3
        daemon.until(lambda: daemon.metric("reaper_leases", state="live") == 1, "lease in the metrics")
        assert daemon.send("DELETE", "/leases/run-1")[0] == 200
        daemon.until(lambda: fake.names() == {"neighbour"}, "deletion")
        daemon.wait("deleted", name="young")
        daemon.until(lambda: daemon.metric("reaper_deletions_total", policy="(lease)", outcome="deleted") == 2, "count")
        assert daemon.stop() == 0
    told = {row["name"]: row["sentence"] for row in acts(program, reason="lease_ended", outcome="deleted")}
    assert told.keys() == {"mine", "young"}
    assert all("lease run-1 of pid 4711 on gpu-1 ended " in sentence for sentence in told.values())
    assert all(sentence.endswith("(released)") for sentence in told.values())


def test_an_ended_lease_waits_for_no_policy(program: Program, fake: FakeEngine) -> None:
    with Daemon(program, SELDOM, NO_EVENTS).start() as daemon:
        take(daemon, "run-1")
        make(fake, "young")
        daemon.wait("sweep_finished")
        daemon.send("DELETE", "/leases/run-1")
        daemon.wait("deleted", name="young")
        assert list(daemon.wait("sweep_finished", times=2)["due"]) == []


def test_a_service_that_cannot_read_its_leases_deletes_nothing_and_says_so(program: Program, fake: FakeEngine) -> None:
    fake.add("leftover", ago="25h")
    with Daemon(program, QUICK, NO_EVENTS).start() as daemon:
        take(daemon, "run-1")
        daemon.wait("deleted", name="leftover")
        content = (program.folder / NAME).read_bytes()
        os.truncate(program.folder / NAME, 0)
        fake.add("later", ago="25h")
        daemon.wait("leases_unknown")
        told = daemon.wait("endpoint_failed", times=2)
        assert str(program.folder / NAME) in told["error"]
        assert fake.names() == {"later"}
        assert daemon.metric("reaper_leases_unknown") == 1
        assert daemon.metric("reaper_endpoint_up") == 1, "it could be listed"
        assert daemon.metric("reaper_sweeps_total", result="leases_unknown") >= 2
        assert daemon.send("PUT", "/leases/run-1")[0] in (200, 503)
        (program.folder / NAME).write_bytes(content)
        daemon.wait("deleted", name="later")
        daemon.until(lambda: daemon.metric("reaper_leases_unknown") == 0, "recovery")


def test_a_service_on_a_full_disk_grants_no_lease_and_goes_on_deleting(fake: FakeEngine, tmp_path: Path) -> None:
    with needs.small_disk(tmp_path / "small", "1m") as folder:
        program = Program(folder, {"DOCKER_HOST": fake.host})
        with Daemon(program, QUICK, NO_EVENTS).start() as daemon:
            take(daemon, "run-1")
            assert daemon.stop() == 0
        daemon = Daemon(program, QUICK, NO_EVENTS)
        with pytest.raises(OSError, match="No space"):
            (folder / "ballast").write_bytes(b"x" * 2_000_000)
        with daemon.start():
            told = daemon.wait("leases_unknown")
            assert told["problem"] == f"the leases in {folder / NAME} cannot be written: database or disk is full"
            fake.add("leftover", ago="25h")
            fake.add("old", "running", ago="25h", labels={"reaper.lease": "run-1"})
            daemon.wait("deleted", name="leftover")
            daemon.wait("sweep_finished", times=len(list(daemon.events("sweep_finished"))) + 2)
            assert fake.names() == {"old"}
            assert daemon.send("POST", "/leases", {"holder": HOLDER, "id": "run-2"})[0] == 503
            assert daemon.stop() == 0
        history = program("history")
        assert (history.code, "make room on its file system" in history.err) == (2, True)


def test_a_lock_file_that_is_removed_makes_no_holder_s_watcher_dead(program: Program, fake: FakeEngine) -> None:
    """Another process would take its leases over, and end them when none of the holders speaks to that one."""
    with Daemon(program, SELDOM, NO_EVENTS).start() as daemon:
        take(daemon, "run-1")
        lock, file = lock_file(program.folder / NAME), LeaseFile(program.folder / NAME)
        record = file.find("run-1")
        file.close()
        assert record is not None
        assert record.token is not None
        token = record.token
        assert lives(lock, token)
        lock.unlink()
        lock.touch()  # as the next reader does
        daemon.until(lambda: lives(lock, token), "lock")


def test_none_is_taken_from_elsewhere_without_a_token(program: Program, fake: FakeEngine) -> None:
    token = program.folder / "token"
    token.write_text("s3cret\n")
    rest = f'{SELDOM}\n[leases]\ntoken_file = "{token}"\n'
    with Daemon(program, rest, NO_EVENTS).start() as daemon:
        assert serving(daemon).send("GET", "/leases")[0] == 401
        assert daemon.send("GET", "/leases", Authorization="Bearer s3cret")[0] == 200
        assert daemon.get("/metrics")[0] == 200
        assert "s3cret" not in str(daemon.lines)


def test_a_token_that_is_not_there_is_reported_at_once(program: Program) -> None:
    daemon = Daemon(program, f'{SELDOM}\n[leases]\ntoken_env = "NO_SUCH"\n', NO_EVENTS)
    ended = program("--config", str(daemon.file))
    assert ended.code == 2
    assert "NO_SUCH is not set" in ended.err


def test_where_they_are_not_wanted_there_are_none(program: Program) -> None:
    with Daemon(program, f"{SELDOM}\n[leases]\nenabled = false\n", NO_EVENTS).start() as daemon:
        daemon.wait("service_started")
        assert daemon.get("/leases")[0] == 404
    assert not (program.folder / NAME).exists()
