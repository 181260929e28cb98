"""What is read of the files below deploy/ in more than one test."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ALERTS, CASES = ROOT / "deploy/prometheus/alerts.yml", ROOT / "deploy/prometheus/alerts.test.yml"
SWARM_ALERTS = ROOT / "deploy/swarm/alerts.yml"
RUNBOOK = ROOT / "deploy/RUNBOOK.md"
DASHBOARDS = (ROOT / "deploy/grafana/reaper.json", ROOT / "deploy/grafana/reaper-endpoint.json")

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(r"(?<![\w$])(?:reaper_\w+|process_\w+|up|ALERTS)\b")
_SELECTOR = re.compile(rf"{_NAME.pattern}(?:\{{[^}}]*\}})?")


def rules(file: Path = ALERTS) -> list[dict[str, Any]]:
    """Every alert of a file."""
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alert_names() -> set[str]:
    return {rule["alert"] for rule in rules()}


def dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels that show something: no headings."""
    return [panel for panel in dashboard(path)["panels"] if panel["type"] != "row"]


def variables(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard(path)["templating"]["list"]
    return found


def queries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every query with the title of its panel."""
    for panel in panels(path):
        for target in panel["targets"]:
            yield panel["title"], target


def metrics_in(expression: str) -> set[str]:
    """The names of the metrics that a query selects."""
    return set(_NAME.findall(_STRING.sub('""', expression)))


def selectors_in(expression: str) -> set[str]:
    """Each metric of a query with what it is narrowed by."""
    return {match[0] for match in _SELECTOR.finditer(expression)}
