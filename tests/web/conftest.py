"""These tests speak real HTTP, so they run on asyncio and in real time."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
