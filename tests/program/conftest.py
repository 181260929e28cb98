"""Fixtures for tests that run the program against a stand-in for an engine."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.program.fakeengine import FakeEngine
from tests.run import Program

# Retries as in life, but without the waiting.
QUICK = {"REAPER_RETRY__INITIAL_DELAY": "20ms", "REAPER_RETRY__JITTER": "0s", "REAPER_RETRY__MAX_DELAY": "50ms"}


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    """An empty stand-in."""
    with FakeEngine() as engine:
        yield engine


@pytest.fixture
def run(fake: FakeEngine, tmp_path: Path) -> Program:
    """The program, with the stand-in as its only endpoint and without long waits between attempts."""
    return Program(tmp_path, {"DOCKER_HOST": fake.host, **QUICK})


@pytest.fixture
def no_nohup() -> Iterator[None]:
    """The caller of the tests may ignore SIGHUP, which every process would inherit, and go on ignoring."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
