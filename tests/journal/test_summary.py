"""``reaper history --summary``: over what ``reaper --once`` has recorded, an old journal, and at terminals of any width."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reaper.core.accounts import Footprint, LastLook, Saving
from reaper.core.model import Outcome, State
from reaper.observers.journal_db import MIGRATIONS
from tests import schemas
from tests.daytona.server import Served
from tests.journal.lab import NOW, Lab, decision, report, result, sweep
from tests.program.terminal import at_terminal
from tests.run import Ended, Program

HERE = Path(__file__).parent
SCHEMA = json.loads((HERE.parents[1] / "reaper" / "schemas" / "history-summary.schema.json").read_text())
PRICED = {"REAPER_PRICES__CONTAINER_HOUR": "0.5", "REAPER_PRICES__CURRENCY": "EUR"}


def document(ended: Ended) -> dict[str, Any]:
    """The one document on stdout, which is as the schema says."""
    assert ended.code == 0, ended.err
    assert ended.out.count("\n") == 1
    errors = schemas.errors(ended.document, SCHEMA)
    assert errors == []
    found: dict[str, Any] = ended.document
    return found


def seen(name: str, outcome: Outcome = Outcome.DELETED, *, differs: str | None = None, **fields: Any) -> Any:
    """A result with all that is on record of one."""
    decided = decision(name, **{"raw_state": "running", "state": State.RUNNING, **fields})
    saved = replace(decided, saving=Saving(timedelta(hours=4), timedelta(hours=18)))
    return result(saved, outcome, look=LastLook(NOW, "running", differs, acted=outcome is Outcome.DELETED))


@pytest.fixture
def run(state: Path, lab: Lab) -> Program:
    """The program beside a journal of two endpoints, an hour apart."""

    async def main(journal: Any) -> None:
        await sweep(journal, report(seen("chess"), seen("go"), seen("shogi", Outcome.SKIPPED, differs="was started again")))
        lab.clock.now += timedelta(hours=1)
        elsewhere = seen("chess", Outcome.FAILED, endpoint="gpu-1")
        await sweep(journal, report(elsewhere, endpoint="gpu-1"))

    lab.run(main)
    return Program(state)


def test_the_schema_is_one() -> None:
    schemas.check(SCHEMA)


def test_it_adds_up_what_is_on_record(run: Program) -> None:
    found = document(run("history", "--summary", "--json", env=PRICED))
    assert found["currency"] == "EUR"
    gpu, local = found["rows"]
    assert (gpu["endpoint"], gpu["owner"], gpu["policy"]) == ("gpu-1", "harbor", "stopped-containers")
    assert (gpu["leaks"], gpu["failures"], gpu["cost"]) == (0, 1, None)
    assert local == {
        "endpoint": "local",
        "owner": "harbor",
        "policy": "stopped-containers",
        "leaks": 2,
        "hours": 8.0,
        "waited_hours": 36.0,
        "freed_bytes": 0,
        "unmeasured": 2,
        "cost": 4.0,
        "failures": 0,
        "skipped": 1,
        "violations": 0,
        "unrecorded": 0,
    }
    assert {key: found["total"][key] for key in ("leaks", "cost", "failures", "skipped")} == {
        "leaks": 2,
        "cost": 4.0,
        "failures": 1,
        "skipped": 1,
    }
    assert found["violations"] == []


def test_without_prices_there_is_no_money(run: Program) -> None:
    found = document(run("history", "--summary", "--json"))
    assert found["currency"] is found["total"]["cost"] is None
    assert run("history", "--summary").out == (
        "gpu-1\tharbor\tstopped-containers\t0\t0.0\t0\t-\t1\t0\t0\nlocal\tharbor\tstopped-containers\t2\t8.0\t0\t-\t0\t1\t0\n"
    )


def test_it_adds_up_what_is_asked_for(run: Program) -> None:
    def leaks(*options: str) -> list[tuple[str, int]]:
        return [(row["endpoint"], row["leaks"]) for row in document(run("history", "--summary", "--json", *options))["rows"]]

    assert leaks("--endpoint", "gpu-1") == [("gpu-1", 0)]
    assert leaks("--name", "chess") == [("gpu-1", 0), ("local", 1)]
    assert leaks("--since", "2026-11-21T12:30:00Z") == [("gpu-1", 0)]
    assert leaks("--until", "2026-11-21T12:30:00Z") == [("local", 2)]
    assert leaks("--outcome", "deleted") == [("local", 2)]
    ended = run("history", "--summary", "--limit", "3")
    assert (ended.code, ended.out) == (2, "")
    assert "a summary adds up all" in ended.err
    ended = run("--summary", "list")
    assert ended.code == 2


def test_what_was_touched_against_the_rules_is_named(run: Program, state: Path) -> None:
    with closing(sqlite3.connect(state / "journal.db", isolation_level=None)) as connection:
        connection.execute("UPDATE act SET looked_differs = 'was started again' WHERE name = 'go'")
    ended = run("history", "--summary", "--json")
    found = document(ended)
    assert found["total"]["violations"] == 1
    assert [(one["name"], one["why"]) for one in found["violations"]] == [
        ("go", "the last look before it showed that it was started again")
    ]
    plain = run("history", "--summary")
    assert plain.out.endswith("\t1\n")
    assert "against the rules: local/go (container) at 2026-11-21T12:00:00" in plain.err


WIDTHS = (60, 80, 200)


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("priced", [False, True], ids=["without prices", "with prices"])
def test_it_can_be_read_at_terminals_of_any_width(run: Program, columns: int, priced: bool) -> None:
    shown = at_terminal(run, "history", "--summary", columns=columns, env=PRICED if priced else {})
    assert shown.code == 0
    assert all(len(line) <= columns for line in shown.lines)
    joined = " ".join(" ".join(shown.lines).split())
    for word in ("gpu-1", "harbor", "stopped-containers", "local", "total", "8.0", "hours:", "violations:"):
        assert word in joined
    assert ("4.00 EUR" in joined) is priced


def test_where_nothing_is_recorded_it_says_so(tmp_path: Path) -> None:
    run = Program(tmp_path)
    assert document(run("history", "--summary", "--json"))["rows"] == []
    assert "nothing is recorded" in at_terminal(run, "history", "--summary").text


# -- an old journal ----------------------------------------------------------------------------------------------------


@pytest.fixture
def old(state: Path) -> Program:
    """The program beside a journal of schema 1, which the version before this one has written."""
    state.mkdir()
    with closing(sqlite3.connect(state / "journal.db")) as connection:
        connection.executescript((HERE / "schema-1.sql").read_text())
    return Program(state)


def test_a_journal_of_the_version_before_is_read_as_it_is(old: Program, state: Path) -> None:
    before = (state / "journal.db").read_bytes()
    acts = old("history", "--json").document["acts"]
    assert [(act["name"], act["outcome"]) for act in acts] == [
        ("shogi", "skipped"),
        ("chess-2", "gone"),
        ("go", "failed"),
        ("chess", "deleted"),
    ]
    assert {act["acted"] for act in acts} == {act["avoided"] for act in acts} == {None}
    total = document(old("history", "--summary", "--json", env=PRICED))["total"]
    assert (total["leaks"], total["failures"], total["skipped"]) == (1, 1, 1)
    assert (total["hours"], total["cost"], total["violations"], total["unrecorded"]) == (0, None, 0, 1)
    assert (state / "journal.db").read_bytes() == before


def test_it_is_brought_up_to_date_by_the_next_sweep_and_keeps_what_it_has(old: Program, lab: Lab) -> None:
    assert lab.rows("PRAGMA user_version") == [{"user_version": 1}]
    lab.sweep(seen("later"))
    assert lab.told == []
    assert lab.rows("PRAGMA user_version") == [{"user_version": len(MIGRATIONS)}]
    assert lab.is_whole()
    assert lab.outcomes() == {"chess": "deleted", "go": "failed", "chess-2": "gone", "shogi": "skipped", "later": "deleted"}
    total = document(old("history", "--summary", "--json"))["total"]
    assert (total["leaks"], total["hours"], total["unrecorded"], total["violations"]) == (2, 4.0, 1, 0)


# -- with --once -------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(served: Served) -> Served:
    served.believable()
    return served


def test_what_once_deletes_is_worth_what_the_server_said_that_it_had(served: Served) -> None:
    served.add("large", cpu=4, memory=8, disk=10)
    run = served.program()
    assert run("--once", "--only", "daytona").code == 0
    prices = {"REAPER_PRICES__CPU_HOUR": "0.05", "REAPER_PRICES__SIZES": '{"4x8x10" = 2.0}'}
    found = document(run("history", "--summary", "--json", "--since", "1h", env=prices))
    rows = {row["policy"]: row for row in found["rows"]}
    old = rows["old-sandboxes"]
    assert old["owner"] == "harbor"
    assert old["leaks"] == 3  # forgotten, ancient and large, each running, with no other policy for it: a day each
    assert old["hours"] == 72.0
    assert old["freed_bytes"] == (3 + 3 + 10) * 2**30
    assert old["cost"] == pytest.approx(24 * (0.05 + 0.05 + 2.0))
    stopped = rows["stopped-sandboxes"]
    assert stopped["leaks"] == 1
    assert stopped["hours"] == pytest.approx(4, abs=0.1)  # 20 hours old and idle: the other policy would take it at 24
    assert stopped["cost"] == 0
    assert found["total"]["violations"] == found["total"]["unmeasured"] == found["total"]["unrecorded"] == 0
    record = {act["name"]: act for act in run("history", "--json").document["acts"]}["large"]
    assert (record["cpu"], record["memory"], record["disk"]) == (4, 8 * 2**30, 10 * 2**30)
    assert (record["looked_state"], record["looked_differs"], record["acted"]) == ("started", None, 1)


def test_footprints_of_odd_rows_are_not_known(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.add("odd", extra={"cpu": "many", "memory": -1, "disk": None})
        run = served.program()
        assert run("--once", "--only", "daytona").code == 0
        (act,) = run("history", "--json").document["acts"]
        assert act["outcome"] == "deleted"
        assert (act["cpu"], act["memory"], act["disk"]) == (None, None, None)
        assert Footprint() == Footprint(None, None, None)
