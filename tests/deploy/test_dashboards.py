"""The dashboards are what their generator makes, and what Grafana and those who look at it can do with."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from devkit.generate.panels import OUTCOMES, RESULTS, STATES
from reaper.core.model import Outcome, State
from reaper.sweep.result import SweepResult
from tests.deploy.files import DASHBOARDS, ROOT, alert_names, dashboard, metrics_in, panels, queries, rules, variables
from tests.metrics.lab import table

UNITS = {"none", "s", "percentunit", "cpm", "bytes", "bool"}
UNSHOWN: dict[str, str] = {}
"""Metrics that stand in no panel and no alert, each with the reason."""

every_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


@every_dashboard
def test_the_builder_s_own_model_reads_all_of_it(path: Path) -> None:
    """What is unknown to it would be missing from what it has read; only defaults may come in addition."""
    register_default_plugins()
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard(path))))
    assert list(_lost(dashboard(path), read)) == []


def _lost(there: Any, read: Any, at: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(read, dict):
        for key, value in there.items():
            yield from _lost(value, read.get(key), f"{at}/{key}")
    elif isinstance(there, list) and isinstance(read, list) and len(there) == len(read):
        for number, (one, other) in enumerate(zip(there, read, strict=True)):
            yield from _lost(one, other, f"{at}/{number}")
    elif there != read:
        yield f"{at}: {there!r} is read as {read!r}"


def test_each_has_a_name_for_good() -> None:
    found = [dashboard(path) for path in DASHBOARDS]
    assert [one["uid"] for one in found] == ["reaper-overview", "reaper-endpoint"]
    assert len({one["title"] for one in found}) == 2
    assert all("id" not in one for one in found)  # a database's number, of another Grafana
    assert {one["schemaVersion"] for one in found} == {41}


@every_dashboard
def test_panels_are_numbered_and_lie_side_by_side(path: Path) -> None:
    every = dashboard(path)["panels"]
    assert [panel["id"] for panel in every] == list(range(1, len(every) + 1))
    places = [(panel["title"], panel["gridPos"]) for panel in every]
    for title, at in places:
        assert at["x"] >= 0, title
        assert at["x"] + at["w"] <= 24, title
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one, other)
    for y in {at["y"] for _, at in places}:
        assert sum(at["w"] for _, at in places if at["y"] == y) == 24


@every_dashboard
def test_every_panel_says_what_it_shows(path: Path) -> None:
    titles = [panel["title"] for panel in panels(path)]
    assert len(titles) == len(set(titles))
    for panel in panels(path):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters)) > 0
        if panel["type"] == "stat":
            assert len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) >= 1
        if panel["type"] == "timeseries":
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@every_dashboard
def test_every_query_asks_the_chosen_prometheus(path: Path) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert [v["type"] for v in variables(path) if v["name"] == "datasource"] == ["datasource"]
    for panel in panels(path):
        assert panel["datasource"] == chosen, panel["title"]
        assert all(target["datasource"] == chosen for target in panel["targets"]), panel["title"]
    assert all(v["datasource"] == chosen for v in variables(path) if v["type"] == "query")


@every_dashboard
def test_every_variable_is_used_and_every_one_used_is_there(path: Path) -> None:
    text = json.dumps([[target["expr"] for _, target in queries(path)], [v.get("query") for v in variables(path)]])
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__range"}
    assert used == {v["name"] for v in variables(path)} - {"datasource"}
    # Steps vary with the width of a window: a fixed range would miss samples, or count them twice.
    assert not re.search(r"\[\d+[smh]\]", text)


@every_dashboard
def test_links_lead_somewhere(path: Path) -> None:
    uids = {dashboard(one)["uid"] for one in DASHBOARDS}
    found = dashboard(path)
    text = json.dumps(found)
    assert set(re.findall(r"/d/([\w-]+)", text)) == uids - {found["uid"]}
    assert set(re.findall(r"RUNBOOK\.md#(\w+)", text)) <= alert_names()
    assert "deploy/RUNBOOK.md" in {link["url"] for link in found["links"]}


def test_every_alert_about_an_endpoint_is_linked_from_a_panel() -> None:
    text = "".join(path.read_text() for path in DASHBOARDS)
    linked = set(re.findall(r"RUNBOOK\.md#(\w+)", text))
    # Of these nothing is on a dashboard that could be clicked: there are no series, or they are not the service's.
    assert alert_names() - linked == {"ReaperAbsent", "ReaperDown", "ReaperOnceFailed", "ReaperOnceSilent"}


def test_colours_are_given_to_all_that_there_is() -> None:
    assert set(OUTCOMES) == {outcome.value for outcome in Outcome} - {"would_delete"}
    assert set(RESULTS) == {result.value for result in SweepResult}
    assert set(STATES) == {state.value for state in State}
    for colors in (OUTCOMES, RESULTS, STATES):
        assert len(set(colors.values())) == len(colors)


def _tables() -> list[dict[str, Any]]:
    return [panel for path in DASHBOARDS for panel in panels(path) if panel["type"] == "table"]


@pytest.mark.parametrize("panel", _tables(), ids=lambda panel: panel["title"])
def test_the_columns_of_a_table_are_filled_by_its_queries(panel: dict[str, Any]) -> None:
    join, organize = (step["options"] for step in panel["transformations"])
    columns = [override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]]
    labels = {label for target in panel["targets"] for label in re.findall(r"by \(([\w, ]+)\)", target["expr"])[:1]}
    by_label = {label.strip() for many in labels for label in many.split(",")} & set(columns)
    assert set(columns) == set(organize["renameByName"].values()) | by_label
    assert columns[0] == join["byField"]
    assert all(target["format"] == "table" and target["instant"] for target in panel["targets"])


def test_every_metric_is_shown_or_watched() -> None:
    documented = set(table((ROOT / "docs/metrics.md").read_text()))
    expressions = [target["expr"] for path in DASHBOARDS for _, target in queries(path)] + [rule["expr"] for rule in rules()]
    named = {re.sub(r"_bucket$", "", name) for expression in expressions for name in metrics_in(expression)}
    assert documented - named == set(UNSHOWN)
    assert {name for name in named if name.startswith("reaper_")} <= documented
