"""The model over fixed seeds: the short version of ``make soak``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model import script

ROOT = Path(__file__).parents[2]
SEEDS = 12  # in each mode


def model(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the order of its sets is fixed."""
    command = [sys.executable, "-m", "tests.model", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


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
