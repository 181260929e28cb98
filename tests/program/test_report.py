"""The report of a sweep at a terminal: what is alike is counted, and the result, and what is to be done, are seen last."""

import io
import re
import shlex
from dataclasses import replace

import pytest
from rich.console import Console

from reaper.core.model import Decision, Reason, Verdict
from reaper.observers.progress import ProgressBar
from tests.core.make import RUNNING
from tests.program.fakeengine import FakeEngine
from tests.program.terminal import Seen, at_terminal
from tests.run import Program

FAILING = (500, 'driver "overlay2" failed to remove root filesystem')


def height(seen: Seen, columns: int) -> int:
    """How many lines of the terminal it takes, but for the bar that is gone at the end."""
    return sum(max(1, -(-len(line) // columns)) for line in seen.lines if "\u2501" not in line)


# -- a failing engine --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_failures_of_one_cause_are_counted_with_examples(run: Program, fake: FakeEngine, columns: int) -> None:
    for i in range(40):
        fake.add(f"{'abcdefghijklmnopqrst'[i % 20] * (1 + i // 20)}-chess", refusal=FAILING)
    (run.folder / "reaper.toml").write_text("[journal]\n")
    seen = at_terminal(run, "--once", columns=columns, where="both")
    assert seen.code == 3
    assert len(re.findall(r"attempt_failed", seen.text)) == 1, "all have one cause"
    text = " ".join(seen.text.split())
    counts = [int(number) for number in re.findall(r"local: (\d+) failed: ", text)]
    rows = [line for line in seen.lines if line.startswith("failed ")]
    assert sum(counts) + len(rows) == 40
    assert len(rows) <= 5
    assert 'the engine answered 500: driver "overlay2" failed to remove root filesystem' in text
    assert re.search(r"\w+-chess, \w+-chess, \w+-chess and \d+ more", text)
    assert "local: 40 failed, 0 kept" in text


def test_every_failure_is_there_in_a_pipe_and_in_the_journal(run: Program, fake: FakeEngine) -> None:
    for i in range(20):
        fake.add(f"chess-{i}", refusal=FAILING)
    ended = run("--once")
    assert ended.code == 3
    assert len([line for line in ended.out.splitlines() if line.startswith("failed\t")]) == 20
    assert len([log for log in ended.logs if log["event"] == "attempt_failed"]) >= 20
    assert len(run("history", "--outcome", "failed").out.splitlines()) == 20


def test_the_result_and_the_way_to_each_deletion_come_last(run: Program, fake: FakeEngine) -> None:
    for i in range(60):
        fake.add(f"chess-{i}")
    seen = at_terminal(run, "--once", where="both")
    assert seen.lines[-2].startswith("local: 60 deleted, 0 kept, in ")
    pointer = seen.lines[-1]
    command = shlex.split(pointer[pointer.index(": reaper ") + 2 :])[1:]
    assert command[:2] == ["history", "--since"]
    assert len(run(*command).out.splitlines()) == 60
    assert "history" not in at_terminal(run, "--once").text, "nothing was deleted this time"
    assert "history" not in run("--once").out


def test_a_bar_has_no_total_until_it_is_the_last_word() -> None:
    def decided(endpoint: str, *names: str) -> None:
        reaped = [replace(RUNNING, id=name, endpoint=endpoint) for name in names]
        bar.decided(endpoint, [Decision(one, Verdict.REAP, Reason.ALL, "") for one in reaped])

    with ProgressBar(2, Console(file=io.StringIO(), force_terminal=True)) as bar:
        assert bar._progress is not None
        (task,) = bar._progress.tasks
        decided("a", "one", "two")
        assert (task.total, task.description, task.fields["beside"]) == (None, "deleting", "listing 1 endpoint")
        decided("b", "three")
        assert (task.total, task.fields["beside"]) == (3, "")
        decided("a", "one")  # another pass over it
        assert task.total == 3


# -- the first sweep ---------------------------------------------------------------------------------------------------


def leftovers(fake: FakeEngine) -> None:
    for i in range(30):
        fake.add(f"chess-{i}", project=f"trial-{i}")
    fake.add("sweb.eval.astropy__astropy-12907.run-1", owned=False)
    fake.add("billing-db", "running", ago="90d", owned=False)


@pytest.mark.parametrize("columns", [60, 80])
def test_the_first_screen_says_what_is_owned_and_how_to_change_that(run: Program, fake: FakeEngine, columns: int) -> None:
    leftovers(fake)
    seen = at_terminal(run, "--once", "--dry-run", columns=columns, rows=24, where="both")
    assert seen.code == 0
    assert height(seen, columns) < 24
    text = " ".join(seen.text.split())
    for part in (
        "There is no configuration file",
        f"found local, Docker at {fake.host}: 32 resources",
        "owned 30 by terminal-bench",
        "not owned 1 with the signs of swe-bench, 1 that no preset recognises",
        "reaper init ",
        "reaper list --unowned ",
        "local: 30 would delete, 2 kept",
        "would go: reaper list --verdict reap",
    ):
        assert part in text
    assert not fake.changes()


def test_what_the_first_screen_suggests_does_what_it_says(run: Program, fake: FakeEngine) -> None:
    leftovers(fake)
    seen = at_terminal(run, "--once", "--dry-run")
    (line,) = [line for line in seen.lines if "REAPER_SCOPE__PRESETS" in line]
    variable, _, command = line.strip().partition(" ")
    assert command == "reaper --once --dry-run"
    name, _, presets = variable.partition("=")
    assert "31 would delete" in run("--once", "--dry-run", env={name: presets}).out
    listed = run("list", "--verdict", "reap").out.splitlines()
    assert len(listed) == 30


def test_only_a_person_without_a_configuration_is_introduced(run: Program, fake: FakeEngine) -> None:
    leftovers(fake)
    assert "configuration file" not in run("--once", "--dry-run").out
    assert at_terminal(run, "--once", "--dry-run", "--json").raw.startswith('{"format": 1, ')
    assert "configuration file" not in at_terminal(run, "list").text
    (run.folder / "reaper.toml").write_text("[journal]\n")
    assert "configuration file" not in at_terminal(run, "--once", "--dry-run").text


def test_the_list_of_what_would_go_is_narrowed_as_the_dry_run_was(run: Program, fake: FakeEngine) -> None:
    for i in range(30):
        fake.add(f"chess-{i}", "running", ago="1h")
    seen = at_terminal(run, "--once", "--dry-run", "--all", "--name", "chess-1*", "--max-deletions=50", rows=24)
    (line,) = [line for line in seen.lines if "would go" in line]
    command = shlex.split(line[line.index(": reaper ") + 2 :])[1:]
    assert command == ["list", "--verdict", "reap", "--all", "--name", "chess-1*"]
    assert len(run(*command).out.splitlines()) == 11
