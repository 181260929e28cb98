"""``[[quota]]`` as people use it: reaper check says how full each is, and --once keeps to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daytona.lab import HARBOR, HOUR
from tests.daytona.server import Served
from tests.program.terminal import at_terminal
from tests.run import Program

FILE = """
[[policy]]
name = "never"
kinds = ["sandbox"]
older_than = "900d"
[[quota]]
name = "per-user"
kinds = ["sandbox"]
max_count = 2
per_label = "user"
{enforce}
[[quota]]
name = "org"
kinds = ["sandbox"]
max_cpu = 20
max_memory = "8GiB"
max_disk = "100GiB"
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Ada has one sandbox too many, of which two are idle; Bob has one."""
    with Served(tmp_path) as served:
        for name, age in (("ada-1", 30 * HOUR), ("ada-2", 20 * HOUR), ("ada-busy", HOUR)):
            served.add(name, age=age, labels={**HARBOR, "user": "ada"}, cpu=4, memory=4, disk=10)
        served.add("bob-1", age=40 * HOUR, labels={**HARBOR, "user": "bob"}, cpu=1, memory=1, disk=3)
        yield served


def program(served: Served, *, enforce: bool = False) -> Program:
    more = 'enforce = true\nidle_for = "8h"' if enforce else ""
    (served.folder / "reaper.toml").write_text(FILE.format(enforce=more))
    return served.program(REAPER_CONFIG=str(served.folder / "reaper.toml"))


def test_check_says_how_full_each_quota_is(served: Served) -> None:
    run = program(served)
    ended = run("check", "--only", "daytona")
    assert ended.code == 0
    assert [line for line in ended.out.splitlines() if "quota" in line] == [
        "default: quota org: 13 GiB of 8.0 GiB memory (162%, exceeded)",
        "default: quota per-user: user=ada has 3 of 2 sandboxes (150%, exceeded)",
        "default: quota org: 13 of 20 CPUs (65%)",
        "default: quota per-user: user=bob has 1 of 2 sandboxes (50%)",
        "default: quota org: 33 GiB of 100 GiB disk (33%)",
    ]
    quotas = run("check", "--only", "daytona", "--json").document["endpoints"][0]["quotas"]
    assert {(one["quota"], one["value"], one["resource"], one["used"], one["limit"]) for one in quotas} >= {
        ("per-user", "ada", "count", 3, 2),
        ("org", None, "cpu", 13, 20),
    }
    for columns in (60, 80, 200):
        seen = at_terminal(run, "check", "--only", "daytona", columns=columns)
        assert "quota per-user: user=ada has 3 of 2 sandboxes (150%, exceeded)" in seen.text


def test_only_an_enforced_quota_takes_what_no_policy_takes_and_the_oldest_first(served: Served) -> None:
    assert program(served)("--once", "--only", "daytona").code == 0
    assert served.left() == {"ada-1", "ada-2", "ada-busy", "bob-1"}
    run = program(served, enforce=True)
    ended = run("--once", "--only", "daytona", "--json")
    assert (ended.code, ended.outcomes()) == (0, {"ada-1": "deleted"})
    assert served.left() == {"ada-2", "ada-busy", "bob-1"}
    (act,) = run("history", "--json").document["acts"]
    assert (act["policy"], act["reason"]) == ("per-user", "idle_for")
    assert "quota per-user: user=ada has 3 of 2 sandboxes" in act["sentence"]
    assert run("history", "--policy", "per-user").code == 0


@pytest.mark.parametrize("options", [["--policy", "never"], ["--name", "bob*"], ["--stopped"]])
def test_a_sweep_of_a_choice_takes_nothing_besides_for_a_quota(served: Served, options: list[str]) -> None:
    run = program(served, enforce=True)
    assert run("--once", "--only", "daytona", *options).code == 0
    assert served.left() == {"ada-1", "ada-2", "ada-busy", "bob-1"}


def test_a_dry_run_says_what_would_go(served: Served) -> None:
    ended = program(served, enforce=True)("--once", "--dry-run", "--only", "daytona", "--json")
    assert ended.outcomes() == {"ada-1": "would_delete"}


def test_a_metric_says_how_full_the_fullest_is(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "reaper.prom"
    assert program(served)("--once", "--only", "daytona", "--metrics-textfile", str(file)).code == 0
    lines = [line for line in file.read_text().splitlines() if line.startswith("reaper_quota_used_ratio{")]
    found = {line.partition('quota="')[2].partition("}")[0]: float(line.rpartition(" ")[2]) for line in lines}
    assert found == {
        'per-user",resource="count"': 1.5,
        'org",resource="cpu"': 0.65,
        'org",resource="memory"': 1.625,
        'org",resource="disk"': 0.33,
    }
