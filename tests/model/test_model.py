"""The model over fixed seeds: the short version of ``make soak``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model import script
from tests.model.mutants import OF_FEATURES
from tests.promise.mutants import IN_TIME, MUTANTS, OF_THE_HOST, RARE, Mutant
from tests.promise.test_mutants import BY_TESTS, mutate, program_text

ROOT = Path(__file__).parents[2]
SEEDS = 16  # in each mode; `make soak` runs as many as there is time for
# Of the other rules few runs of the model have a case: the worlds of tests/promise have many of each.
LIKELY = frozenset(
    {
        "what the scope does not match is not owned",
        "no labels in the answer means keep",
        "system containers stay",
        "[protect] keeps",
        "reaper.keep keeps",
        "a label override that cannot be read keeps",
        "a label override that is not due keeps",
        "a living lease keeps",
        "what is changing stays",
        "a preset's sign is an exact one",
        "policies select by name",
        "a project that another member has joined stays",
        "what something depends on by now stays",
        "a dry run changes nothing",
        "a cap is kept",
        "nothing is deleted while no lease can be read",
        "what is about to go is on record first",
        "a deletion is confirmed before it is reported",
        "a failure is no success",
        "an unknown lease keeps for a day",
        "a policy that stops deletes nothing",
        *(mutant.rule for mutant in OF_FEATURES),
        *(mutant.rule for mutant in OF_THE_HOST if mutant.rule not in {*BY_TESTS, "all owners of a group must be dead"}),
    }
)
CAUGHT = [mutant for mutant in (*MUTANTS, *RARE, *IN_TIME, *OF_FEATURES, *OF_THE_HOST) if mutant.rule in LIKELY]
# All of them take a long time: two that the first runs show in every run, all with ``make mutants``.
SOON = ("what has not been watched for long enough is not unused", "a failure is no success")
TRIED = [mutant for mutant in CAUGHT if os.environ.get("REAPER_MUTANTS") == "all" or mutant.rule in SOON]


def model(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the order of its sets is fixed."""
    command = [sys.executable, "-m", "tests.model", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.parametrize("mode", ["safety", "liveness"])
def test_the_rules_hold_whatever_fails_and_nothing_reapable_is_left_when_it_has_stopped(mode: str) -> None:
    done = model("search", "--mode", mode, "0", str(SEEDS - 1))
    assert done.returncode == 0, done.stdout + done.stderr
    ran = json.loads(done.stdout)
    assert ran["runs"] == SEEDS
    assert ran["deleted"] > 0
    assert ran["faults"]


def test_a_seed_replays_the_same_run() -> None:
    first, second = (model("play", "7", "--mode", "safety") for _ in range(2))
    assert first.stdout == second.stdout
    assert first.stdout.endswith("all is well\n")


def test_steps_stay_as_they_are_when_others_are_left_out() -> None:
    assert script.steps(3, "safety") == script.steps(3, "safety")
    assert script.steps(3, "safety") != script.steps(4, "safety")


@pytest.mark.timeout(920)
@pytest.mark.parametrize("mutant", TRIED, ids=lambda mutant: mutant.rule)
def test_a_rule_that_is_off_is_noticed(mutant: Mutant, tmp_path: Path) -> None:
    mutate(mutant, tmp_path)
    done = model("mutant", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("caught by "), done.stdout + done.stderr


@pytest.mark.parametrize("mutant", OF_FEATURES, ids=lambda mutant: mutant.rule)
def test_the_text_of_a_rule_is_where_its_mutant_changes_it(mutant: Mutant) -> None:
    assert program_text().count(mutant.text) == 1, f"mend the mutant: {mutant.text!r}"


def test_twenty_rules_and_more_are_tried() -> None:
    assert len(CAUGHT) == len(LIKELY) >= 20
