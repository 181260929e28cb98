"""The provider tests run on asyncio, on a loop whose clock can be turned, and know of no proxy."""

import os
from collections.abc import Generator
from typing import Any

import pytest

from tests.matrix import outcomes
from tests.providers.lab import TurnedLoop

CONTRACT = "contract"
_failed: set[tuple[str, str]] = set()


def row(test: str) -> str:
    """What a test is called in the table of the contract."""
    return test.removeprefix("test_").replace("_", " ")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Records what comes of each part of the contract on each engine, where that is asked for."""
    report = yield
    if outcomes.RECORD and item.path.stem == "test_contract" and isinstance(item, pytest.Function):
        flavour = getattr(item, "callspec", None) and item.callspec.params.get("flavour")
        if flavour and (report.when == "call" or report.failed):
            cell = row(item.originalname), str(flavour)
            if report.failed:
                _failed.add(cell)
            if not report.skipped:
                outcomes.write(CONTRACT, *cell, "failed" if cell in _failed else "passed")
    return report


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": TurnedLoop}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the caller's proxies leaks in."""
    for name in tuple(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
