"""Sweeps here run in a loop in which time jumps, together with the simulated server that they ask over real HTTP."""

from typing import Any

import pytest

from tests.daytona.loop import JumpingLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": JumpingLoop}
