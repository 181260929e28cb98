"""``reaper history`` as people run it, over journals made by ``reaper --once`` and over worse ones."""

import json
import signal
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reaper.cli.history import _KEYS, OUTCOMES
from reaper.core.model import Kind
from tests import schemas
from tests.daytona.server import Served
from tests.journal.lab import Lab, decision, report, result, sweep
from tests.program.terminal import at_terminal
from tests.program.wrapped import imported, patched, started
from tests.run import Ended, Program

SCHEMA = json.loads((Path(__file__).parents[2] / "reaper" / "schemas" / "history.schema.json").read_text())


def acts(ended: Ended) -> list[dict[str, Any]]:
    """What the one document on stdout has, which is as the schema says."""
    assert ended.code == 0, ended.err
    assert ended.out.count("\n") == 1
    errors = schemas.errors(ended.document, SCHEMA)
    assert errors == []
    found: list[dict[str, Any]] = ended.document["acts"]
    return found


def names(ended: Ended) -> list[str]:
    return [act["name"] for act in acts(ended)]


@pytest.fixture
def run(state: Path, lab: Lab) -> Program:
    """The program beside a journal with three sweeps, an hour apart."""

    async def main(journal: Any) -> None:
        for name, endpoint, outcome in (
            ("chess", "local", "deleted"),
            ("go", "gpu-1", "failed"),
            ("chess-2", "local", "gone"),
        ):
            done = result(decision(name, endpoint=endpoint))
            ends = type(done.outcome)(outcome)
            await sweep(journal, report(result(done.decision, ends), endpoint=endpoint))
            lab.clock.now += timedelta(hours=1)

    lab.run(main)
    return Program(state)


def files(state: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in state.iterdir()}


def test_the_schema_has_the_words_of_the_program() -> None:
    schemas.check(SCHEMA)
    act = SCHEMA["$defs"]["act"]
    assert act["required"] == list(act["properties"]) == _KEYS.split()
    assert act["properties"]["outcome"]["enum"] == list(OUTCOMES)
    assert act["properties"]["kind"]["enum"] == [kind.value for kind in Kind]


CHOICES = {
    "nothing": ([], ["chess-2", "go", "chess"]),
    "since": (["--since", "2026-11-21T13:00:00Z"], ["chess-2", "go"]),
    "since, in another zone": (["--since", "2026-11-21T15:00:00+01:00"], ["chess-2"]),
    "until": (["--until", "2026-11-21 13:00"], ["chess"]),
    "endpoint": (["--endpoint", "gpu-1"], ["go"]),
    "endpoints": (["--endpoint", "gpu-1", "--endpoint", "local"], ["chess-2", "go", "chess"]),
    "policy": (["--policy", "stopped-containers"], ["chess-2", "go", "chess"]),
    "another policy": (["--policy", "old-containers"], []),
    "a one-off policy": (["--policy=--all"], []),
    "outcomes": (["--outcome", "gone", "--outcome", "failed"], ["chess-2", "go"]),
    "name": (["--name", "chess*"], ["chess-2", "chess"]),
    "two of them": (["--name", "chess*", "--outcome", "deleted"], ["chess"]),
    "limit": (["--limit", "2"], ["chess-2", "go"]),
    "no limit": (["--limit", "none"], ["chess-2", "go", "chess"]),
}


@pytest.mark.parametrize(("options", "found"), CHOICES.values(), ids=CHOICES.keys())
def test_it_finds_what_is_asked_for(run: Program, options: list[str], found: list[str]) -> None:
    ended = run("history", "--json", *options)
    assert names(ended) == found
    assert ended.document["more"] is (options == ["--limit", "2"])


WRONG = {
    "time": (["--since", "yesterday"], ("--since", "'yesterday' is neither a duration nor a time", '"24h"')),
    "order": (["--since", "1h", "--until", "2h"], ("not before --until",)),
    "outcome": (["--outcome", "delete"], ("there is no outcome 'delete'", "did you mean 'deleted'?")),
    "endpoint": (["--endpoint", "gpu1"], ("has 'gpu1'", "did you mean 'gpu-1'?")),
    "policy": (["--policy", "stoped-containers"], ("did you mean 'stopped-containers'?",)),
    "glob": (["--name", "a["], ("--name", "opens a bracket")),
    "limit": (["--limit", "0"], ("'0' is no number", '"none"')),
    "another command's": (["--only", "local"], ("--only does not go with history",)),
}


@pytest.mark.parametrize(("options", "says"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_reported_with_the_cure(run: Program, options: list[str], says: tuple[str, ...]) -> None:
    ended = run("history", *options)
    assert (ended.code, ended.out) == (2, "")
    for part in says:
        assert part in ended.err


def test_options_of_a_sweep_before_it_are_reported(run: Program) -> None:
    ended = run("--all", "history")
    assert ended.code == 2
    assert "--all does not go with history" in ended.err


def test_a_pipe_gets_lines_with_tabs_and_a_terminal_a_table(run: Program, state: Path) -> None:
    before = files(state)
    ended = run("history", "--limit", "1")
    assert ended.out.split("\t") == [
        "2026-11-21 14:00:00",
        "gone",
        "local",
        "container",
        "chess-2",
        "id-chess-2",
        "stopped-containers",
        "stopped_for",
        "1",
        "stopped 2 d ago, policy stopped-containers allows 6 h\n",
    ]
    assert ended.err == "reaper: these are the newest 1; --limit none shows all\n"
    for columns in (80, 160):
        seen = at_terminal(run, "history", columns=columns)
        assert seen.code == 0
        assert all(len(line) <= columns for line in seen.lines)
        assert "chess-2" in seen.text
        assert "failed" in seen.text
    assert files(state) == before


def test_what_others_wrote_cannot_move_a_terminal(lab: Lab, state: Path) -> None:
    lab.sweep(result(decision("evil\x1b[2J\nname")))
    ended = Program(state)("history")
    assert "\x1b" not in ended.out
    assert ended.out.count("\n") == 1


def test_without_a_journal_there_is_nothing_and_nothing_is_made(tmp_path: Path) -> None:
    state = tmp_path / "state"
    run = Program(tmp_path, {"STATE_DIRECTORY": str(state)})
    ended = run("history")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"reaper: no journal at {state}/journal.db yet\n"
    assert acts(run("history", "--json")) == []
    assert not state.exists()


def test_a_journal_that_is_switched_off_is_reported(run: Program) -> None:
    ended = run("history", "--json", env={"REAPER_JOURNAL__ENABLED": "false"})
    assert "journal.enabled is false" in ended.err
    assert ended.document["enabled"] is False
    assert len(acts(ended)) == 3


def test_a_damaged_journal_is_reported_and_left_as_it_is(run: Program, state: Path) -> None:
    (state / "journal.db").write_bytes(b"garbage " * 1000)
    before = files(state)
    ended = run("history")
    assert (ended.code, ended.out) == (2, "")
    assert "journal.db: is damaged" in ended.err
    assert "the next sweep sets it aside" in ended.err
    assert files(state) == before


@pytest.mark.parametrize("version", [7])
def test_a_journal_of_a_later_version_is_reported(run: Program, state: Path, version: int) -> None:
    with closing(sqlite3.connect(state / "journal.db")) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    ended = run("history")
    assert ended.code == 2
    assert "written by a later version" in ended.err


def test_gaps_are_reported(run: Program, state: Path) -> None:
    with closing(sqlite3.connect(state / "journal.db", isolation_level=None)) as connection:
        row = ("2026-11-21T12:10:00.000000Z", "2026-11-21T12:20:00.000000Z", 2, 600, "database or disk is full")
        connection.execute("INSERT INTO gap VALUES (?, ?, ?, ?, ?)", row)
    ended = run("history", "--json")
    acts(ended)
    assert ended.document["gaps"][0]["acts"] == 600
    assert run("history", "--json", "--since", "2026-11-21T13:00:00Z").document["gaps"] == []
    told = run("history").err
    assert "2 sweeps with 600 deletions could not be recorded: database or disk is full" in told


# -- with --once -------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(served: Served) -> Served:
    served.believable()
    return served


def test_once_writes_what_it_did_and_the_others_write_nothing(served: Served, tmp_path: Path) -> None:
    run = served.program()
    for command in (["list"], ["check"], ["explain", "stopped"], ["--once", "--dry-run"]):
        run(*command, "--only", "daytona")
    assert not (tmp_path / "journal.db").exists()
    assert run("--once", "--only", "daytona", env={"REAPER_JOURNAL__ENABLED": "false"}).code == 0
    assert not (tmp_path / "journal.db").exists()
    served.add("later")
    assert run("--once", "--only", "daytona", "--policy", "old-sandboxes").code == 0
    (act,) = acts(run("history", "--json"))
    assert (act["name"], act["outcome"], act["policy"], act["endpoint"]) == ("later", "deleted", "old-sandboxes", "default")
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        assert connection.execute("SELECT due FROM sweep").fetchall() == [('["old-sandboxes"]',)]


def test_a_sweep_that_was_killed_is_finished_by_the_next_one_and_the_journal_says_so(served: Served) -> None:
    leftover = {f"leftover-{i:02}" for i in range(40)}
    for name in leftover:
        served.add(name)
    run = served.program()
    served.sim.faults.add("hang,method=DELETE,skip=3")  # so that it cannot end before it is killed
    with served.first_deletion() as seen, started(run, "--once", "--only", "daytona") as process:
        assert seen.wait(60)
        living = acts(run("history", "--json"))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert {act["detail"] for act in living} == {f"pid {process.pid} is deleting it"}
    pending = acts(run("history", "--json", "--limit", "none"))
    assert {act["name"] for act in pending} >= leftover
    assert {act["outcome"] for act in pending} == {"pending"}
    assert all(f"the process that was deleting it (pid {process.pid}) died" in act["detail"] for act in pending)
    served.sim.faults.clear()
    served.finish_destroying()
    assert run("--once", "--only", "daytona").code == 0
    assert not served.left() & leftover
    after: dict[str, list[str]] = {}
    for act in acts(run("history", "--json", "--limit", "none")):
        after.setdefault(act["name"], []).append(act["outcome"])
    for name in leftover:
        assert after[name] in (["gone"], ["deleted", "abandoned"], ["gone", "abandoned"], ["skipped", "abandoned"])


def test_a_journal_that_cannot_be_written_is_a_warning(served: Served, tmp_path: Path) -> None:
    (tmp_path / "journal.lock").mkdir()
    ended = served.program()("--once", "--only", "daytona", "--json")
    assert ended.code == 0
    assert "deleted" in ended.outcomes().values()
    (line,) = [line for line in ended.logs if line["event"] == "journal_failed"]
    assert line["level"] == "warning"
    assert str(tmp_path / "journal.db") in line["file"]


def test_even_a_bug_in_it_is_a_warning(served: Served) -> None:
    patch = "import reaper.observers.journal_rows as j\nj.spell = lambda at: 1 / 0\n"
    ended = patched(served.program(), patch, "--once", "--only", "daytona", "--json")
    assert ended.code == 0
    assert "deleted" in ended.outcomes().values()
    assert [line["problem"] for line in ended.logs if line["event"] == "journal_failed"] == ["division by zero"]


def test_only_those_who_need_it_import_sqlite(served: Served) -> None:
    run = served.program()
    assert "sqlite3" not in imported(run, "list", "--only", "daytona")
    assert "sqlite3" not in imported(run, "--once", "--dry-run", "--only", "daytona")
    modules = imported(run, "history", "--json")
    assert {"aiohttp", "rich", "structlog", "apscheduler"} & modules == set()
