"""``lease``: taken, kept alive, taken anew and given back, and never in the way of its block."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

import reaper
from devkit.ports import free_port
from reaper import CleanupError, LeaseRefusedError, lease, managed_docker_container, paths
from reaper.leases import documents, peers
from reaper.leases.record import LeaseState, Liveness
from reaper.leases.served import WITHIN
from reaper.library import lease as holding
from reaper.library import lease as own
from reaper.library import lease_client
from tests.library.lab import Nothing, cancelled_at, names
from tests.library.service import ENDPOINTS, Service, serving
from tests.running.lab import until
from tests.simulator.docker_world import World

CLAIM = {"labels": ["org.testcontainers.session-id=abc"]}


class Told(list[str]):
    """The messages, and an event to wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self.news = threading.Condition()

    def __call__(self, problem: str) -> None:
        with self.news:
            self.append(problem)
            self.news.notify_all()

    def until(self, part: str) -> None:
        with self.news:
            assert self.news.wait_for(lambda: any(part in one for one in self), 60), f"{part!r} not in {self}"


@pytest.fixture(autouse=True)
def soon(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat is due every 0.3 s: it is sent three times in that."""
    monkeypatch.setattr(documents, "HEARTBEAT_DUE", timedelta(seconds=0.3))
    monkeypatch.setattr(holding, "SOON", 0.05)
    monkeypatch.setattr(holding, "AGAIN", 0.05)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "state") as found:
        yield found


@pytest.fixture(params=["heartbeats", "a connection"])
def url(request: pytest.FixtureRequest, service: Service) -> str:
    """Where the service is asked, in both ways in which a lease is kept."""
    return service.url if request.param == "heartbeats" else service.local_url


def test_an_open_connection_from_its_taking_to_its_end(service: Service) -> None:
    told = Told()
    with lease([CLAIM], url=service.local_url, on_trouble=told) as held:
        record = service.records()[held.id]
        assert (record.state, record.sort, held.state) == (LeaseState.LIVE, Liveness.CONNECTION, "live")
        assert record.holder.pid == os.getpid()
        assert record.holder.uid == os.geteuid()
        assert record.claims[0].selector.labels == tuple(CLAIM["labels"])
        assert held.endpoints == tuple(sorted(ENDPOINTS))
        assert own.held == {held.id}
    assert service.records()[held.id].state is LeaseState.RELEASED
    assert (told, own.held, held.state) == ([], set(), "released")
    assert not service.heartbeats.acquire(blocking=False)


def test_another_users_service_is_asked_where_root_alone_can_have_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Systemd runs it as a user of its own; in the folder of this user's session no other user's is asked."""
    monkeypatch.delenv("REAPER_URL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    monkeypatch.setattr(peers, "listener", lambda path: None if path.startswith("/var") else os.geteuid() + 1)
    assert peers.service_url() == "unix:///run/reaper/reaper.sock"
    monkeypatch.setattr(paths, "SHARED_RUNTIME", "/run/user/1/reaper/none")
    monkeypatch.setattr(peers, "listener", lambda path: os.geteuid() + 1 if "none" not in path else None)
    assert peers.service_url() == f"http://{paths.LISTEN}"


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a listener it is not, and a service that begins to listen later is found."""
    users, told = tmp_path / "users" / "reaper", Told()
    users.mkdir(parents=True)
    monkeypatch.delenv("REAPER_URL", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(users.parent))
    monkeypatch.setattr(paths, "SHARED_RUNTIME", str(tmp_path / "machine"))
    monkeypatch.setattr(paths, "LISTEN", f"127.0.0.1:{free_port()}")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(users / paths.SOCKET))
    assert peers.service_url() == f"http://{paths.LISTEN}"
    with lease(on_trouble=told) as held:
        assert held.state == "away"
        with serving(tmp_path / "machine") as machine:
            told.until("is live")
            assert machine.records()[held.id].sort is Liveness.CONNECTION
            with serving(tmp_path / "users" / "reaper") as user:
                assert peers.service_url() == user.local_url
                monkeypatch.setenv("REAPER_URL", machine.url)
                assert peers.service_url() == machine.url
            held.__exit__(None, None, None)
            assert machine.records()[held.id].state is LeaseState.RELEASED


def test_from_its_taking_to_its_end(service: Service) -> None:
    told = Told()
    with lease([CLAIM], url=service.url, on_trouble=told) as held:
        record = service.records()[held.id]
        assert (record.state, held.state, held.label) == (LeaseState.LIVE, "live", f"reaper.lease={held.id}")
        assert record.claims[0].selector.labels == tuple(CLAIM["labels"])
        for _ in range(3):
            assert service.heartbeats.acquire(timeout=60)
        assert own.held == {held.id}
    assert service.records()[held.id].state is LeaseState.RELEASED
    assert (told, own.held, held.state) == ([], set(), "released")


@pytest.mark.parametrize("run", [anyio.run, trio.run])
def test_under_every_loop(service: Service, url: str, run: Any) -> None:
    async def main() -> str:
        async with lease(url=url) as held:
            assert service.records()[held.id].state is LeaseState.LIVE
            if url == service.url:
                assert await anyio.to_thread.run_sync(lambda: service.heartbeats.acquire(timeout=60))
        return held.id

    id_ = run(main)
    assert service.records()[id_].state is LeaseState.RELEASED


def test_the_block_raises(service: Service, url: str) -> None:
    with pytest.raises(KeyError), lease(name="mine", url=url):
        raise KeyError
    assert service.records()["mine"].state is LeaseState.RELEASED


def test_no_service_is_no_obstacle_and_it_is_found_later(tmp_path: Path) -> None:
    with serving(tmp_path / "state") as before:
        port = before.port
    told = Told()
    with lease(url=f"http://127.0.0.1:{port}", on_trouble=told) as held:
        assert held.state == "away"
        assert "covers nothing yet" in told[0]
        with serving(tmp_path / "state", port) as service:
            told.until("is live")
            assert service.records()[held.id].state is LeaseState.LIVE
            assert len(told) == 2
    assert "could not be given back" in told[-1]
    with pytest.warns(RuntimeWarning, match="covers nothing yet"), lease(url=f"http://127.0.0.1:{port}"):
        pass


@pytest.mark.parametrize("by", ["heartbeats", "a connection"])
def test_a_service_that_has_forgotten_it(tmp_path: Path, by: str) -> None:
    told, path = Told(), tmp_path / "reaper.sock"
    with serving(tmp_path / "one", socket=path) as service:
        port = service.port
        held = lease([CLAIM], url=service.url if by == "heartbeats" else service.local_url, on_trouble=told).__enter__()
        before = held.id
    told.until("does not answer")
    with serving(tmp_path / "two", port, socket=path) as service:
        told.until("it has it again")
        assert service.records()[before].state is LeaseState.LIVE
        held.__exit__(None, None, None)
        assert service.records()[before].state is LeaseState.RELEASED


def test_a_service_that_comes_back_knows_who_holds_what(tmp_path: Path) -> None:
    told = Told()
    with serving(tmp_path / "state") as service:
        held = lease([CLAIM], url=service.local_url, on_trouble=told).__enter__()
        before = held.id
    told.until("does not answer")
    with serving(tmp_path / "state") as service:
        told.until("is live")
        assert service.until(before, LeaseState.LIVE).sort is Liveness.CONNECTION
        held.__exit__(None, None, None)
        assert {id_: record.state for id_, record in service.records().items()} == {before: LeaseState.RELEASED}
    assert len(told) == 2


def test_of_two_blocks_that_name_one_lease_the_last_one_gives_it_back(service: Service, url: str) -> None:
    with lease([CLAIM], name="nightly", url=url) as outer:
        with lease([CLAIM], name="nightly", url=url) as inner:
            assert inner.state == "live"
        assert (outer.state, inner.state) == ("live", "released")
        assert service.records()["nightly"].state is LeaseState.LIVE
        assert own.own_leases() == {"nightly"}
    assert {id_: record.state for id_, record in service.records().items()} == {"nightly": LeaseState.RELEASED}
    assert own.own_leases() == set()


def test_while_one_service_takes_anothers_place_a_holder_keeps_its_lease(tmp_path: Path) -> None:
    """The one that ends has let go of its socket already, and watches its leases still: what carries their labels lives."""
    told, living = Told(), {1}
    with serving(tmp_path / "state") as service:
        held = lease([CLAIM], url=service.local_url, on_trouble=told).__enter__()
        before = held.id
    told.until("does not answer")
    with serving(tmp_path / "state", watcher=2, lives=lambda token: token in living) as service:
        until(lambda: service.asked > 2, "it is not asked")
        living.clear()
        told.until("is live")
        assert held.id == before
        held.__exit__(None, None, None)
        assert {id_: record.state for id_, record in service.records().items()} == {before: LeaseState.RELEASED}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_failure_of_who_is_reported_ends_a_lease(tmp_path: Path) -> None:
    told = Told()

    def fails(problem: str) -> None:
        told(problem)
        raise KeyError(problem)

    with serving(tmp_path / "state") as service:
        held = lease(url=service.local_url, on_trouble=fails).__enter__()
    told.until("does not answer")
    with serving(tmp_path / "state") as service:
        told.until("is live")
        service.until(held.id, LeaseState.LIVE)
        assert held.state == "live"
        held.__exit__(None, None, None)
        assert service.records()[held.id].state is LeaseState.RELEASED


def test_a_block_that_ends_while_the_connection_is_made_anew(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    told, real, begun = Told(), lease_client.Service.take, threading.Event()
    with lease(url=service.local_url, on_trouble=told) as held:

        def take(self: lease_client.Service, body: Mapping[str, Any]) -> Any:
            found = real(self, body)
            begun.set()
            assert held._over.wait(60)
            return found

        monkeypatch.setattr(lease_client.Service, "take", take)
        assert held._line is not None
        held._line.end()
        assert begun.wait(60)
        before = time.monotonic()
    assert time.monotonic() - before < WITHIN
    assert service.records()[held.id].state is LeaseState.RELEASED
    assert told == []


def test_a_lease_that_the_service_has_ended(service: Service, url: str) -> None:
    told = Told()
    with lease(name="first", url=url, on_trouble=told) as held:
        service.end("first")
        told.until("took its place")
        assert held.id != "first"
        assert own.held == {held.id}
        assert service.records()[held.id].state is LeaseState.LIVE
    assert {record.state for record in service.records().values()} == {LeaseState.RELEASED}


def test_what_is_refused_is_refused_at_once(tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LeaseRefusedError, match="need a token"), lease([{"names": ["chess-*"]}], url=service.url):
        raise AssertionError
    odd: list[dict[str, list[str]]] = [{"label": ["a=b"]}, {}, {"labels": []}]
    for claim in odd:
        with pytest.raises(ValueError, match="a claim has some of"):
            lease([claim])
    for wrong in ("localhost:9797", "unix://reaper.sock", "unix:", "/run/reaper/reaper.sock"):
        with pytest.raises(ValueError, match="no http or https URL, and no socket's"):
            lease(url=wrong)
    with pytest.raises(ValueError, match="no header takes") as caught:
        lease(url=service.url, token="s3cret\nt0ken")
    assert "s3cret" not in str(caught.value)
    with serving(tmp_path / "guarded", token="s3cret") as guarded:
        with pytest.raises(CleanupError, match="token"), lease(url=guarded.url):
            raise AssertionError
        monkeypatch.setenv("REAPER_TOKEN", "s3cret\n")  # as from a file
        monkeypatch.setenv("REAPER_URL", guarded.url)
        with lease([{"names": ["mine-*"]}]) as held:
            assert guarded.records()[held.id].state is LeaseState.LIVE
    assert own.held == set()


@pytest.mark.anyio
async def test_cancelled_at_every_await(service: Service, url: str) -> None:
    point, reached = 0, True
    while reached:

        async def trial() -> str:
            async with lease(url=url) as held:
                await asyncio.sleep(0)
            return held.id

        with Nothing():
            ended, reached = await cancelled_at(point, trial)
        assert isinstance(ended, asyncio.CancelledError) if reached else isinstance(ended, str)
        assert {record.state for record in service.records().values()} <= {LeaseState.RELEASED}
        point += 1
    assert point > 2
    assert own.held == set()


def test_what_is_its_own_can_be_deleted_under_it(service: Service, world: World) -> None:
    with lease(url=service.url) as held:
        world.add("mine", state="running", labels={"reaper.lease": held.id})
        with managed_docker_container("mine"):
            pass
    assert names(world) == set()
    assert reaper.lease is lease
