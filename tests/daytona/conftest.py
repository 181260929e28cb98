"""Sweeps here run in a loop in which time jumps, together with the simulated server that they ask over real HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest
import stamina.instrumentation

from tests.daytona.loop import JumpingLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": JumpingLoop}


@pytest.fixture(autouse=True, scope="session")
def quiet_stamina() -> Iterator[None]:
    """Stamina's own line about each retry would fill the output of a failing test."""
    stamina.instrumentation.set_on_retry_hooks(())
    yield
    stamina.instrumentation.set_on_retry_hooks(None)
