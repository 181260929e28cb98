"""The state directories of the program: how they are lost or damaged between sweeps, and what a dry run leaves of them."""

import json
import random
import shutil
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from reaper.core.model import Report
from reaper.observers.journal import NAME as JOURNAL
from reaper.observers.journal_rows import entry, spell
from reaper.observers.json_report import report_document
from tests import schemas

SCHEMA = Path(__file__).parents[2] / "reaper" / "schemas" / "report.schema.json"
VALIDATOR = schemas.validator(json.loads(SCHEMA.read_text()))
WAYS = ("gone", "gone", "empty", "half", "garbage", "later version", "folder")


def content(folder: Path) -> Mapping[str, bytes]:
    """What is remembered there: all but the leases, which the service writes all the time, and what never changes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(("leases", "links-")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def lose(folder: Path, rng: random.Random) -> str:
    """Have all that is remembered there lost in one way, which is returned; the leases stay."""
    way = rng.choice(WAYS)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("leases") or path.suffix == ".lock":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        elif way == "gone" or path.name.startswith(f"{JOURNAL}-"):
            path.unlink()
        elif path.name == JOURNAL:
            path.write_bytes(path.read_bytes()[: rng.choice((0, 100, 5000))])
        elif way == "folder":
            path.unlink()
            path.mkdir()
        else:
            was = path.read_bytes()
            later = was.replace(b'"version": ', b'"version": 9')
            damaged = {"empty": b"", "half": was[: len(was) // 2], "garbage": b"\0\xff{", "later version": later}
            path.write_bytes(damaged[way])
    return way


def repair(folder: Path) -> None:
    """Take away what keeps the program from writing there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and path.suffix == ".json":
            path.rmdir()


def wrong_document(report: Report, code: int) -> list[str]:
    """What is wrong with the JSON report of a sweep: all that was done stands in it."""
    document = json.loads(report_document(report, "once", code))
    wrong = [error.message for error in VALIDATOR.iter_errors(document)]
    for endpoint, shown in zip(report.endpoints, document["endpoints"], strict=True):
        said = {one["id"] for one in shown["resources"] if one["outcome"] is not None}
        done = {one.decision.resource.id for one in endpoint.results if one.look is not None and one.look.acted}
        wrong += [f"{endpoint.endpoint}: {sorted(done - said)} was acted on, and has no outcome"] if done - said else []
    return [f"the JSON report: {one}" for one in wrong]


def wrong_records(folder: Path, report: Report, began: datetime) -> list[str]:
    """What the journal says of the acts of a sweep, which began then, that is not as it was, or against the rules."""
    if not (folder / JOURNAL).exists():
        return []  # nothing was to go yet
    with sqlite3.connect(f"{(folder / JOURNAL).as_uri()}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute("SELECT * FROM act WHERE decided_at >= ? ORDER BY id", [spell(began)])
        rows = {(row["endpoint"], row["resource"]): row for row in found}
    connection.close()
    wrong = []
    for endpoint in report.endpoints:
        for result in endpoint.results:
            row = rows.get((endpoint.endpoint, result.decision.resource.id))
            name = f"{result.decision.resource.kind} {result.decision.resource.name} on {endpoint.endpoint}"
            if row is None:
                if result.look is not None and result.look.acted:
                    wrong.append(f"the journal has no record of {name}, which is {result.outcome}")
                continue
            if row["outcome"] != result.outcome.value:
                wrong.append(f"the journal says {row['outcome']} of {name}, which is {result.outcome}")
            if (why := entry(row).violation) is not None:
                wrong.append(f"the journal says that {name} was touched against the rules: {why}")
    return wrong
