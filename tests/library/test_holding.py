"""``lease``: taken, kept alive, taken anew and given back, and never in the way of its block."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

import reaper
from reaper import CleanupError, LeaseRefusedError, lease, leaseapi, managed_docker_container
from reaper.leasedb import LeaseState
from reaper.library import holding, own
from tests.library.lab import Nothing, cancelled_at, names
from tests.library.service import Service, serving
from tests.simulator.docker_world import World

CLAIM = {"labels": ["org.testcontainers.session-id=abc"]}


class Told(list[str]):
    """What is told, and something to wait for it with."""

    def __init__(self) -> None:
        super().__init__()
        self.news = threading.Condition()

    def __call__(self, problem: str) -> None:
        with self.news:
            self.append(problem)
            self.news.notify_all()

    def until(self, part: str) -> None:
        with self.news:
            assert self.news.wait_for(lambda: any(part in one for one in self), 30), f"{part!r} not in {self}"


@pytest.fixture(autouse=True)
def soon(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat is due every 0.3 s: it is sent three times in that."""
    monkeypatch.setattr(leaseapi, "HEARTBEAT_DUE", timedelta(seconds=0.3))
    monkeypatch.setattr(holding, "AGAIN", 0.05)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "state") as found:
        yield found


def test_from_its_taking_to_its_end(service: Service) -> None:
    told = Told()
    with lease([CLAIM], url=service.url, on_trouble=told) as held:
        record = service.records()[held.id]
        assert (record.state, held.state, held.label) == (LeaseState.LIVE, "live", f"reaper.lease={held.id}")
        assert record.claims[0].selector.labels == tuple(CLAIM["labels"])
        for _ in range(3):
            assert service.heartbeats.acquire(timeout=30)
        assert own.held == {held.id}
    assert service.records()[held.id].state is LeaseState.RELEASED
    assert (told, own.held, held.state) == ([], set(), "released")


@pytest.mark.parametrize("run", [anyio.run, trio.run])
def test_under_every_loop(service: Service, run: Any) -> None:
    async def main() -> str:
        async with lease(url=service.url) as held:
            assert service.records()[held.id].state is LeaseState.LIVE
            assert await anyio.to_thread.run_sync(lambda: service.heartbeats.acquire(timeout=30))
        return held.id

    id_ = run(main)
    assert service.records()[id_].state is LeaseState.RELEASED


def test_the_block_raises(service: Service) -> None:
    with pytest.raises(KeyError), lease(name="mine", url=service.url):
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


def test_a_service_that_has_forgotten_it(tmp_path: Path) -> None:
    told = Told()
    with serving(tmp_path / "one") as service:
        port = service.port
        held = lease([CLAIM], url=service.url, on_trouble=told).__enter__()
        before = held.id
    told.until("does not answer")
    with serving(tmp_path / "two", port) as service:
        told.until("it has it again")
        assert service.records()[before].state is LeaseState.LIVE
        held.__exit__(None, None, None)
        assert service.records()[before].state is LeaseState.RELEASED


def test_a_lease_that_the_service_has_ended(service: Service) -> None:
    told = Told()
    with lease(name="first", url=service.url, on_trouble=told) as held:
        service.end("first")
        told.until("took its place")
        assert held.id != "first"
        assert own.held == {held.id}
        assert service.records()[held.id].state is LeaseState.LIVE
    assert {record.state for record in service.records().values()} == {LeaseState.RELEASED}


def test_what_is_refused_is_refused_at_once(tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LeaseRefusedError, match="need a token"), lease([{"names": ["*"]}], url=service.url):
        raise AssertionError
    odd: list[dict[str, list[str]]] = [{"label": ["a=b"]}, {}, {"labels": []}]
    for claim in odd:
        with pytest.raises(ValueError, match="a claim has some of"):
            lease([claim])
    with pytest.raises(ValueError, match="no http or https URL"):
        lease(url="localhost:9797")
    with serving(tmp_path / "guarded", token="s3cret") as guarded:
        with pytest.raises(CleanupError, match="token"), lease(url=guarded.url):
            raise AssertionError
        monkeypatch.setenv("REAPER_TOKEN", "s3cret")
        monkeypatch.setenv("REAPER_URL", guarded.url)
        with lease([{"names": ["mine-*"]}]) as held:
            assert guarded.records()[held.id].state is LeaseState.LIVE
    assert own.held == set()


@pytest.mark.anyio
async def test_cancelled_at_every_await(service: Service) -> None:
    point, reached = 0, True
    while reached:

        async def trial() -> str:
            async with lease(url=service.url) as held:
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
