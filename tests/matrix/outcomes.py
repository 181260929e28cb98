"""What came of each cell, as it is checked in: ``docs/reliability.md`` is generated from it.

REAPER_MATRIX=record REAPER_FLAVOURS=all python -m pytest tests/matrix tests/providers/test_contract.py

writes what comes out now; then python -m devkit.generate.
"""

import fcntl
import json
import os
from pathlib import Path

FILE = Path(__file__).with_name("outcomes.json")
RECORD = os.environ.get("REAPER_MATRIX") == "record"


def hold(table: str, row: str, column: str, came: str) -> None:
    """Hold what came of a cell against the file; or write it there."""
    if RECORD:
        write(table, row, column, came)
        return
    known = json.loads(FILE.read_text(encoding="utf-8")).get(table, {}).get(row, {}).get(column)
    assert came == known, (
        f"{row}, {column}: {came}, where {FILE.name} has {known}; REAPER_MATRIX=record REAPER_FLAVOURS=all writes it"
    )


def write(table: str, row: str, column: str, came: str) -> None:
    """Write what came of a cell to the file. Several processes do at once."""
    with FILE.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        found = json.loads(file.read() or "{}")
        found.setdefault(table, {}).setdefault(row, {})[column] = came
        file.seek(0)
        file.truncate()
        file.write(json.dumps(found, indent=1, sort_keys=True) + "\n")
