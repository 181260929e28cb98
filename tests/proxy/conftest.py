"""The proxy runs on asyncio, in real time."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
