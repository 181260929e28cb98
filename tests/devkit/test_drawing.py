"""The picture is drawn from the dashboard's own panels, whatever their queries bring."""

import json
import re
import struct
from typing import Any

import pytest

from devkit.drawing import page, said
from devkit.picture import DASHBOARD, PICTURE, STEP, _firing, substituted

START = 1_795_255_200.0
STOP = START + 3600
PANELS: list[dict[str, Any]] = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def answers(panel: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """As Prometheus would answer: two series, one of them with a gap."""
    found = []
    for target in panel["targets"]:
        labels = {name: f"some-{name}" for name in re.findall(r"\w+", "endpoint provider outcome result alertname")}
        whole = [[START + STEP * i, str(i % 7)] for i in range(241)]
        series: list[dict[str, Any]] = [
            {"metric": labels, "values": whole},
            {"metric": {**labels, "endpoint": "<other>"}, "values": whole[:9]},
        ]
        if panel["type"] == "state-timeline":
            series = [{**one, "values": [[at, "1"] for at, _ in one["values"]]} for one in series]
        found.append([{**one, "values": one["values"][-1:]} for one in series] if target["instant"] else series)
    return found


def test_every_panel_of_the_overview_can_be_drawn() -> None:
    html, height = page([(panel, answers(panel)) for panel in PANELS], START, STOP)
    assert re.findall(r"<h2>(.*?)</h2>", html) == [panel["title"] for panel in PANELS]
    assert html.count("<section ") == len(PANELS)
    assert "not a screenshot of Grafana" in html
    assert "&lt;other&gt;" in html
    assert "<other>" not in html
    assert "nan" not in html
    assert height > 500


def test_panels_without_data_can_be_drawn_too() -> None:
    html, _ = page([(panel, [[] for _ in panel["targets"]]) for panel in PANELS], START, STOP)
    assert "nothing to delete" in html
    assert "nothing fires" in html


def test_no_variable_is_left_in_a_query() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            assert "$" not in substituted(target["expr"])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "none", "0"),
        (1111, "none", "1111"),
        (0.031, "percentunit", "3.1%"),
        (45, "s", "45 s"),
        (2700, "s", "45 mins"),
        (5400, "s", "1.5 hours"),
        (12, "cpm", "12 cpm"),
    ],
)
def test_a_value_is_said_with_its_unit(value: float, unit: str, text: str) -> None:
    assert said(value, unit) == text


def test_an_alert_fires_when_it_has_been_active_for_a_while() -> None:
    active = [START + STEP * i for i in (0, 1, 2, 3, 10, 11, 12, 13, 14)]
    assert [(at - START) / STEP for at in _firing(active, 3 * STEP)] == [3, 13, 14]
    assert list(_firing(active, 0)) == active


def test_the_picture_fits_into_a_readme() -> None:
    data = PICTURE.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert width == 1600
    assert height < 1300
    assert len(data) < 300_000
