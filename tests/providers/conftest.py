"""The provider tests run on asyncio, on a loop whose clock can be turned, and know of no proxy."""

import os
from typing import Any

import pytest

from tests.providers.lab import TurnedLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": TurnedLoop}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the caller's proxies leaks in."""
    for name in tuple(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
