"""A server of the Ryuk protocol over real sockets, with a book in a file and windows that pass quickly."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Sockets need real time, and the service runs on asyncio."""
    return "asyncio"
