"""The table of the contract in ``docs/reliability.md`` has what the contract's tests have come to, and nothing else."""

import inspect
import json

import pytest

from tests.matrix import outcomes
from tests.providers import test_contract
from tests.providers.conftest import CONTRACT, row


def test_each_part_of_the_contract_holds_on_each_engine() -> None:
    cells = json.loads(outcomes.FILE.read_text(encoding="utf-8"))[CONTRACT]
    engines = next(mark for mark in test_contract.pytestmark if mark.name == "engines").args
    tests = {
        name: function
        for name, function in inspect.getmembers(test_contract, inspect.isfunction)
        if name.startswith("test_") and "side" in inspect.signature(function).parameters
    }
    expected = {row(name): dict.fromkeys(engines, "passed") for name in tests}
    if cells != expected:
        pytest.fail("REAPER_MATRIX=record REAPER_FLAVOURS=all pytest tests/providers/test_contract.py records it anew")
