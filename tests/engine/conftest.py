"""What the engine tests run against: a proxy before the engine, Compose, and a registry."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devkit import compose
from devkit.engine import PrivateEngine
from devkit.faults import FaultProxy
from tests import needs
from tests.engine.lab import IMPATIENT
from tests.run import Program

ROOT = Path(__file__).parents[2]
PORT = 5000


@pytest.fixture
def proxy(engine: PrivateEngine) -> Iterator[FaultProxy]:
    """Stands between the program and the engine."""
    with FaultProxy(engine.socket) as proxy:
        yield proxy
        proxy.clear()


@pytest.fixture
def proxied(proxy: FaultProxy, tmp_path: Path) -> Program:
    """The program, with the private engine behind the proxy as its only endpoint; it retries after 50 ms."""
    return Program(tmp_path, {"DOCKER_HOST": proxy.host, **IMPATIENT})


@pytest.fixture
def compose_possible() -> None:
    """Skips the test, where docker-compose is not installed."""
    if reason := compose.available():
        needs.lacking(reason)


@pytest.fixture
def registry(engine: PrivateEngine) -> Iterator[str]:
    """A registry that the engine reaches; its address."""
    argv = engine.beside(sys.executable, "-m", "devkit.registry", str(PORT))
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield f"127.0.0.1:{PORT}"
        finally:
            process.kill()


@pytest.fixture
def clean(engine: PrivateEngine) -> Iterator[PrivateEngine]:
    """The engine, of which nothing is left afterwards, images included."""
    yield engine
    engine.clear()
    engine.remove_images()
