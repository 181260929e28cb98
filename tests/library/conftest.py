"""Fixtures of the library's tests: a simulated engine and a simulated organisation that the environment points at."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reaper.library import access, by_id
from reaper.simulator.docker.model import Behaviour, Container
from tests.daytona.server import Served
from tests.simulator.docker_world import DAY, World


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the caller's configuration leaks in, and the pause between two tries is short; the state directory."""
    callers = "DAYTONA_API_KEY", "DAYTONA_API_URL", "DAYTONA_TARGET", "DOCKER_HOST", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR"
    for name in (*callers, "REAPER_CONFIG", "REAPER_LEASE", "REAPER_URL", "REAPER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / ".docker"))
    monkeypatch.chdir(tmp_path)
    soon = timedelta(milliseconds=10)
    quick = replace(access.RETRY, initial_delay=soon, max_delay=soon, jitter=soon, request_timeout=timedelta(seconds=1))
    monkeypatch.setattr(access, "RETRY", quick)
    monkeypatch.setattr(by_id, "PAUSE", 0.01)
    return tmp_path


class Obeying(World):
    """Its containers end when they are told to: ten seconds are not waited for each of them."""

    def add(self, name: str, age: timedelta = DAY, **wanted: Any) -> Container:
        return super().add(name, age, **{"behaviour": Behaviour(), **wanted})


@pytest.fixture
def world(alone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with Obeying() as engine:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{engine.socket}")
        yield engine


@pytest.fixture
def served(alone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with Served(alone) as server:
        for name, value in server.sim.environment().items():
            if name.startswith("DAYTONA"):
                monkeypatch.setenv(name, value)
        yield server
