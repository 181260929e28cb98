"""Alerts, the cases in which they fire and in which they do not, and the runbook belong together."""

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from reaper.core.model import Outcome
from reaper.observers.instruments import KEPT
from reaper.sweep.result import SweepResult
from tests import needs
from tests.deploy.files import ALERTS, CASES, ROOT, RUNBOOK, SWARM_ALERTS, alert_names, metrics_in, rules
from tests.metrics.lab import table

SEVERITIES = {"critical", "warning", "info"}
EVERY = [*rules(), *rules(SWARM_ALERTS)]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = needs.tool("promtool", "prometheus")
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False)


def sections() -> dict[str, str]:
    """The runbook's sections about alerts: the text of each by its anchor."""
    parts = re.split(r'^<a id="(\w+)"></a>\n', RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(ALERTS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    """Each case has the rules of its own alert only: promtool evaluates all that it is given in each minute of each case."""
    whole, given, files = yaml.safe_load(CASES.read_text()), yaml.safe_load(ALERTS.read_text()), list[str]()
    left = len(whole["tests"])
    for alert in alert_names():
        groups = [
            {**group, "rules": [rule for rule in group["rules"] if rule["alert"] == alert]} for group in given["groups"]
        ]
        (tmp_path / f"{alert}.yml").write_text(yaml.safe_dump({"groups": groups}))
        cases = [case for case in whole["tests"] if case["name"].startswith(f"{alert}: ")]
        file = tmp_path / f"{alert}.test.yml"
        file.write_text(yaml.safe_dump({**whole, "rule_files": [f"{alert}.yml"], "tests": cases}))
        files.append(str(file))
        left -= len(cases)
    assert left == 0, "each case is tried"
    done = promtool("test", "rules", *files)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_lacks_a_firing_and_a_quiet_case() -> None:
    fires, quiet = Counter[str](), Counter[str]()
    severities: set[tuple[str, str]] = set()
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        about = {check["alertname"] for check in case["alert_rule_test"]}
        assert len(about) == 1, case["name"]
        assert case["name"].startswith(f"{min(about)}: "), case["name"]
        for check in case["alert_rule_test"]:
            (fires if check["exp_alerts"] else quiet)[check["alertname"]] += 1
            severities |= {(check["alertname"], alert["exp_labels"]["severity"]) for alert in check["exp_alerts"]}
    assert set(fires) == set(quiet) == alert_names()
    assert severities == {(rule["alert"], rule["labels"]["severity"]) for rule in rules()}


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    found = sections()
    assert set(found) == {rule["alert"] for rule in EVERY}
    for name, text in found.items():
        assert text.startswith(f"### {name}\n"), name
        for word in ("**At stake:**", "**Look:**", "**Do:**", "**Ignore it when**"):
            assert word in text, (name, word)
        told = set(re.findall(r"^(critical|warning|info) · ", text, re.MULTILINE))
        assert told == {rule["labels"]["severity"] for rule in EVERY if rule["alert"] == name}, name


def test_the_runbook_links_to_what_there_is() -> None:
    text = RUNBOOK.read_text()
    assert {*re.findall(r"\]\(#(\w+)\)", text)} <= alert_names()
    for path in re.findall(r"\]\(([^#)]+)\)", text):
        assert (RUNBOOK.parent / path).exists(), path


def test_the_runbook_asks_for_metrics_that_there_are() -> None:
    known = set(table((ROOT / "docs/metrics.md").read_text()))
    asked = {name for name in metrics_in(RUNBOOK.read_text()) if name.startswith("reaper_")}
    assert asked <= known


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: f"{rule['alert']} {rule['labels']['severity']}")
def test_an_alert_says_what_is_needed(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"Reaper[A-Z]\w+", rule["alert"])
    assert rule["labels"]["severity"] in SEVERITIES
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    assert told["runbook_url"] == f"deploy/RUNBOOK.md#{rule['alert']}"
    assert not told["summary"].endswith(".")
    assert len(told["summary"]) < 90
    assert told["description"].endswith(".")
    # A label that the expression aggregates away would be an empty place in the text.
    assert "<no value>" not in told["description"]


def test_label_values_in_the_rules_are_values_that_there_are() -> None:
    """A misspelt outcome would be an alert that never fires."""
    known = {
        "outcome": {outcome.value for outcome in Outcome},
        "result": {result.value for result in SweepResult},
        "reason": {reason.value for reason in KEPT},
    }
    for rule in rules():
        for label, values in re.findall(r'\b(outcome|result|reason)!?=~?"([^"]+)"', rule["expr"]):
            assert set(values.split("|")) <= known[label], rule["alert"]


def test_everything_is_known_by_its_name() -> None:
    known = set(table((ROOT / "docs/metrics.md").read_text())) | {"up", "process_start_time_seconds"}
    for rule in EVERY:
        assert metrics_in(rule["expr"]) <= known, rule["alert"]
