"""Fixtures for the tests of metrics."""

import pytest

from tests.metrics.lab import Bench, promtool
from tests.program.conftest import fake, run

__all__ = ["bench", "fake", "promtool", "run"]


@pytest.fixture
def bench() -> Bench:
    """Metrics of two endpoints and three policies; nothing has been swept yet."""
    return Bench()
