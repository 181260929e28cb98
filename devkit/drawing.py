"""Panels of a Grafana dashboard as HTML and SVG: as much of them as the picture in the README needs."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

WIDTH, ROW, GAP, HEAD = 1600, 38, 8, 58  # pixels; ROW is a step of Grafana's grid
TEXT, DIM, LINES, CARD, PAPER = "#d5d6dd", "#9092a0", "#2b2e36", "#181b1f", "#0f1014"
PALETTE = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
STYLE = f"""
* {{ box-sizing: border-box; margin: 0 }}
body {{ width: {WIDTH}px; background: {PAPER}; color: {TEXT}; font: 15px/1.3 "DejaVu Sans", sans-serif; position: relative }}
header {{ position: absolute; left: 16px; right: 16px; top: 14px; display: flex; gap: 14px; align-items: baseline }}
header b {{ font-size: 22px }} header span, header i {{ color: {DIM}; font-style: normal }} header i {{ margin-left: auto }}
section {{ position: absolute; background: {CARD}; border: 1px solid {LINES}; border-radius: 5px; overflow: hidden }}
h2 {{ font-size: 15px; font-weight: 600; padding: 8px 12px 0 }}
.tile {{ display: flex; justify-content: center; gap: 30px; text-align: center }}
.tile {{ position: absolute; left: 0; right: 0; bottom: 58px }}
.tile b {{ font-size: 46px; line-height: 1; font-weight: 600; white-space: nowrap }}
.tile small {{ display: block; color: {DIM} }}
.spark {{ position: absolute; left: 0; bottom: 0 }}
svg text {{ fill: {DIM}; font-size: 13px }}
.legend {{ display: flex; flex-wrap: wrap; gap: 2px 16px; color: {DIM}; font-size: 14px }}
.legend {{ position: absolute; left: 12px; right: 12px; bottom: 6px }}
.legend i {{ display: inline-block; width: 14px; height: 4px; margin-right: 6px; vertical-align: middle }}
table {{ width: 100%; border-collapse: collapse; margin-top: 4px }}
td, th {{ padding: 10px 12px; text-align: right; border-bottom: 1px solid {LINES}; white-space: nowrap }}
th {{ color: {PALETTE[0]}; font-weight: 500 }} td:first-child, th:first-child, .left {{ text-align: left }}
"""

Series = Mapping[str, Any]
Answers = Sequence[Sequence[Series]]
Panel = Mapping[str, Any]


def page(panels: Sequence[tuple[Panel, Answers]], start: float, stop: float) -> tuple[str, int]:
    """The document, and how high it is in pixels."""
    height = HEAD + max(p["gridPos"]["y"] + p["gridPos"]["h"] for p, _ in panels) * ROW + GAP
    hour = f"{_clock(start)} to {_clock(stop)} UTC"
    note = "drawn from Prometheus; not a screenshot of Grafana"
    head = f"<header><b>reaper / overview</b><span>{hour}</span><i>{note}</i></header>"
    body = "".join(_panel(panel, answers, start, stop) for panel, answers in panels)
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}body{{height:{height}px}}</style>{head}{body}", height


def _panel(panel: Panel, answers: Answers, start: float, stop: float) -> str:
    at = panel["gridPos"]
    x, y = at["x"] * WIDTH / 24 + GAP / 2, HEAD + at["y"] * ROW
    width, height = at["w"] * WIDTH / 24 - GAP, at["h"] * ROW - GAP
    draw = {"stat": _tile, "timeseries": _course, "table": _table, "state-timeline": _bands}[panel["type"]]
    inner = draw(panel, answers, (width, height), (start, stop))
    return (
        f'<section style="left:{x:.0f}px;top:{y:.0f}px;width:{width:.0f}px;height:{height:.0f}px">'
        f"<h2>{escape(panel['title'])}</h2>{inner}</section>"
    )


# -- numbers -----------------------------------------------------------------------------------------------------------


def said(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit, in Grafana's manner."""
    if unit == "percentunit":
        return f"{value * 100:.{1 if decimals is None else decimals}f}%"
    if unit == "cpm":
        return f"{_short(value, 1)} cpm"
    if unit == "s":
        for size, word in ((604800, "weeks"), (86400, "days"), (3600, "hours"), (60, "mins")):
            if abs(value) >= size:
                return f"{_short(value / size, 1)} {word}"
        return f"{_short(value, 1 if value >= 1 else 2)} s"
    return _short(value, decimals)


def _short(value: float, decimals: int | None) -> str:
    text = f"{value:.{2 if decimals is None else decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _values(series: Series) -> list[tuple[float, float]]:
    pairs = [(at, float(value)) for at, value in series["values"]]
    return [(at, value) for at, value in pairs if not math.isnan(value)]


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M}"


def _color(value: float, steps: Sequence[Mapping[str, Any]]) -> str:
    found = TEXT
    for step in steps:
        if step["value"] is None or value >= step["value"]:
            found = step["color"]
    return found


def _named(legend: str, metric: Mapping[str, str]) -> str:
    for label, value in metric.items():
        legend = legend.replace("{{" + label + "}}", value)
    return " ".join(part for part in legend.split() if not part.startswith("{{"))


def _fixed(panel: Panel) -> dict[str, dict[str, Any]]:
    """What the overrides say, by the name of the field."""
    overrides = panel["fieldConfig"].get("overrides") or []
    return {o["matcher"]["options"]: {p["id"]: p.get("value") for p in o["properties"]} for o in overrides}


# -- panels ------------------------------------------------------------------------------------------------------------


def _tile(panel: Panel, answers: Answers, size: tuple[float, float], _: object) -> str:
    defaults, fixed = panel["fieldConfig"]["defaults"], _fixed(panel)
    parts = []
    for target, found in zip(panel["targets"], answers, strict=True):
        values = _values(found[0]) if found else []
        if not values:
            parts.append(f'<div><b style="font-size:26px">{escape(defaults["noValue"])}</b></div>')
            continue
        name = target.get("legendFormat") or ""
        color = _color(values[-1][1], defaults["thresholds"]["steps"])
        color = fixed.get(name, {}).get("color", {}).get("fixedColor", color)
        told = said(values[-1][1], defaults["unit"], defaults.get("decimals"))
        label = f"<small>{escape(name)}</small>" if len(panel["targets"]) > 1 else ""
        parts.append(f'<div>{label}<b style="color:{color}">{escape(told)}</b></div>')
    spark = ""
    if panel["options"]["graphMode"] == "area" and answers[0]:
        spark = _spark(
            _values(answers[0][0]), size[0], 38, _color(_values(answers[0][0])[-1][1], defaults["thresholds"]["steps"])
        )
    return f'{spark}<div class="tile">{"".join(parts)}</div>'


def _spark(values: Sequence[tuple[float, float]], width: float, height: float, color: str) -> str:
    top, (first, last) = max(value for _, value in values) or 1, (values[0][0], values[-1][0])
    points = " ".join(
        f"{(at - first) / (last - first) * width:.1f},{height - value / top * (height - 3):.1f}" for at, value in values
    )
    return (
        f'<svg class="spark" width="{width:.0f}" height="{height}">'
        f'<polygon points="0,{height} {points} {width},{height}" fill="{color}" fill-opacity=".18"/>'
        f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/></svg>'
    )


def _course(panel: Panel, answers: Answers, size: tuple[float, float], span: tuple[float, float]) -> str:
    defaults, fixed = panel["fieldConfig"]["defaults"], _fixed(panel)
    custom = defaults.get("custom", {})
    stacked, bars = (custom.get("stacking") or {}).get("mode") == "normal", custom.get("drawStyle") == "bars"
    named = [
        (_named(target.get("legendFormat") or "", series["metric"]), dict(_values(series)))
        for target, found in zip(panel["targets"], answers, strict=True)
        for series in found
    ]
    named = [(name, values) for name, values in named if any(values.values())]
    times = sorted({at for _, values in named for at in values})
    heights = [sum(values.get(at, 0.0) for _, values in named) for at in times] if stacked else []
    top = (
        max([*heights, *(0.0 if stacked else value for _, values in named for value in values.values())], default=1.0) or 1.0
    )
    step, marks = _marks(top, defaults["unit"])
    top = step * marks
    lines = math.ceil(sum(42 + 8.4 * len(name) for name, _ in named) / (size[0] - 24))
    left, right, above, below = 78.0, size[0] - 16, 42.0, size[1] - 38 - 21 * max(1, lines)

    def x(at: float) -> float:
        return left + (at - span[0]) / (span[1] - span[0]) * (right - left)

    def y(value: float) -> float:
        return below - value / top * (below - above)

    parts = []
    for mark in range(marks + 1):
        at = y(mark * step)
        parts.append(f'<line x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" stroke="{LINES}"/>')
        told = said(mark * step, defaults["unit"]) if mark else "0"
        parts.append(f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(told)}</text>')
    for minute in range(0, 61, 10 if size[0] > 700 else 15):
        at = span[0] + 60 * minute
        anchor = "end" if minute == 60 else "middle"
        parts.append(f'<text x="{x(at):.1f}" y="{below + 18:.1f}" text-anchor="{anchor}">{_clock(at)}</text>')
    legend, base = [], dict.fromkeys(times, 0.0)
    for number, (name, values) in enumerate(named):
        color = fixed.get(name, {}).get("color", {}).get("fixedColor", PALETTE[number % len(PALETTE)])
        legend.append(f'<span><i style="background:{color}"></i>{escape(name)}</span>')
        if bars:
            wide = max(2.0, (right - left) / 240 - 1)
            for at, value in values.items():
                if value:
                    high, tall = y(base[at] + value), y(base[at]) - y(base[at] + value)
                    parts.append(
                        f'<rect x="{x(at) - wide / 2:.1f}" y="{high:.1f}" '
                        f'width="{wide:.1f}" height="{tall:.1f}" fill="{color}"/>'
                    )
        else:
            lower = [(x(at), y(base[at])) for at in times] if stacked else []
            upper = [(x(at), y((base[at] if stacked else 0.0) + value)) for at, value in sorted(values.items())]
            drawn = " ".join(f"{a:.1f},{b:.1f}" for a, b in upper)
            if stacked:
                back = " ".join(f"{a:.1f},{b:.1f}" for a, b in reversed(lower))
                parts.append(f'<polygon points="{drawn} {back}" fill="{color}" fill-opacity=".3"/>')
            parts.append(
                f'<polyline points="{drawn}" fill="none" stroke="{color}" stroke-width="2" stroke-linejoin="round"/>'
            )
        if stacked:
            base = {at: base[at] + values.get(at, 0.0) for at in times}
    return (
        f'<svg style="position:absolute;left:0;top:0" width="{size[0]:.0f}" height="{size[1]:.0f}">{"".join(parts)}</svg>'
        f'<div class="legend">{"".join(legend)}</div>'
    )


def _marks(top: float, unit: str) -> tuple[float, int]:
    """The distance between two marks of an axis, and how many it takes to reach ``top``."""
    nice = (1.0, 2.0, 2.5, 5.0, 10.0)
    if unit == "s" and top > 60:
        sizes = [60.0, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400]
    else:
        sizes = [n * 10.0**e for e in range(-4, 7) for n in nice]
    step = next((size for size in sizes if top / size <= 5), top)
    return step, max(1, math.ceil(top / step))


def _table(panel: Panel, answers: Answers, _size: object, _span: object) -> str:
    organize = next(t["options"] for t in panel["transformations"] if t["id"] == "organize")
    key = next(t["options"]["byField"] for t in panel["transformations"] if t["id"] == "joinByField")
    fixed = _fixed(panel)
    cells: dict[str, dict[str, Any]] = {}
    for target, found in zip(panel["targets"], answers, strict=True):
        column = organize["renameByName"].get(f"Value #{target['refId']}")
        for series in found:
            row = cells.setdefault(series["metric"][key], {})
            row.update(series["metric"])
            if column is not None:
                row[column] = float(series["values"][-1][1])
    head = "".join(f"<th{_left(column)}>{escape(column)}</th>" for column in fixed)
    body = "".join(
        "<tr>" + "".join(_cell(column, cells[name].get(column), fixed[column]) for column in fixed) + "</tr>"
        for name in sorted(cells)
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _left(column: str) -> str:
    return ' class="left"' if column in ("provider", "State", "Circuit") else ""


def _cell(column: str, value: object, look: Mapping[str, Any]) -> str:
    color, told = TEXT, "" if value is None else str(value)
    if isinstance(value, float):
        told = said(value, look["unit"], look.get("decimals"))
        if "thresholds" in look:
            color = _color(value, look["thresholds"]["steps"])
        for texts in look.get("mappings", []):
            if (text := texts["options"].get(_short(value, 0))) is not None:
                told, color = text["text"], text["color"]
    elif "links" in look:
        color = PALETTE[0]
    return f'<td{_left(column)} style="color:{color}">{escape(told)}</td>'


def _bands(panel: Panel, answers: Answers, size: tuple[float, float], span: tuple[float, float]) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    texts = defaults["mappings"][0]["options"]
    found = sorted(
        (_named(target.get("legendFormat") or "", series["metric"]), _values(series))
        for target, series_of in zip(panel["targets"], answers, strict=True)
        for series in series_of
    )
    if not found:
        return f'<div class="tile" style="bottom:50%"><b style="font-size:26px">{escape(defaults["noValue"])}</b></div>'
    left, right, above, below = 250.0, size[0] - 16, 44.0, size[1] - 34
    tall = min(44.0, (below - above) / len(found))
    wide = (right - left) / (span[1] - span[0])
    parts = []
    for number, (name, values) in enumerate(found):
        y = above + number * tall
        parts.append(f'<text x="{left - 10}" y="{y + tall / 2 + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<rect x="{left}" y="{y + 4:.1f}" width="{right - left}" height="{tall - 8:.1f}" fill="{LINES}" opacity=".45"/>'
        )
        for at, value in values:
            color = texts[_short(value, 0)]["color"]
            x = left + (at - span[0]) * wide
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 4:.1f}" width="{15 * wide + 0.4:.1f}" height="{tall - 8:.1f}" fill="{color}"/>'
            )
    for minute in range(0, 61, 15):
        at = left + 60 * minute * wide
        anchor = "end" if minute == 60 else "middle"
        parts.append(
            f'<text x="{at:.1f}" y="{below + 20:.1f}" text-anchor="{anchor}">{_clock(span[0] + 60 * minute)}</text>'
        )
    return f'<svg style="position:absolute;left:0;top:0" width="{size[0]:.0f}" height="{size[1]:.0f}">{"".join(parts)}</svg>'
