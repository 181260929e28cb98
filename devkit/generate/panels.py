"""What the dashboards are made of: panels, queries, variables and links in one style, by Grafana's own builder library.

Colours are Okabe's and Ito's, which people tell apart whatever colours they see; red and green never mean opposites.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common as style
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

BLUE, SKY, GREEN, YELLOW, ORANGE, RED, PINK, GREY, VIOLET = (
    "#0072B2", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7", "#8C8C8C", "#7A5195",
)  # fmt: skip
GOOD, ODD, BAD = SKY, ORANGE, RED

OUTCOMES = {
    "deleted": GREEN, "gone": SKY, "archived": BLUE, "stopped": YELLOW, "skipped": GREY, "abandoned": PINK, "failed": RED,
    "timer_set": VIOLET,
}  # fmt: skip
RESULTS = {
    "success": GREEN, "failures": ORANGE, "capped": YELLOW, "leases_unknown": SKY, "unlisted": RED, "timeout": PINK,
    "interrupted": GREY, "internal_error": BLUE,
}  # fmt: skip
STATES = {"running": GREEN, "stopped": SKY, "changing": YELLOW, "failed": RED, "unknown": PINK}

RUNBOOK = "deploy/RUNBOOK.md"
"""Relative to the repository, whose address the operator puts in its place: in the alerts and here alike."""
OVERVIEW, ENDPOINT = "reaper-overview", "reaper-endpoint"

PROMETHEUS = model.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Args:
        expr: PromQL, with Grafana's variables.
        legend: what the series are called; ``{{label}}`` is the value of a label.
        now: ask for the present value only.
        name: of the column that it fills in a table; with none, only its labels are shown.
    """

    expr: str
    legend: str = ""
    now: bool = False
    name: str = ""

    def build(self, number: int, *, table: bool = False) -> prometheus.Dataquery:
        """The target of a panel, with a letter for each number."""
        made = prometheus.Dataquery().expr(self.expr).ref_id(chr(ord("A") + number)).datasource(PROMETHEUS)
        made = made.instant() if self.now or table else made.range()
        if table:
            return made.format(PromQueryFormat.TABLE)
        return made.legend_format(self.legend)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        unit: Grafana's name of it.
        steps: from which value on which colour; colours the text.
        mappings: texts in the place of values.
        link: an address with Grafana's variables, and what it is called.
    """

    name: str
    unit: str = "none"
    steps: Mapping[float | None, str] = field(default_factory=dict)
    mappings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    link: tuple[str, str] | None = None
    width: int | None = None
    decimals: int | None = None

    def overrides(self) -> list[model.DynamicConfigValue]:
        """What is particular to it, as Grafana wants it."""
        found: dict[str, Any] = {"unit": self.unit}
        if self.decimals is not None:
            found["decimals"] = self.decimals
        if self.steps:
            found["thresholds"] = thresholds(self.steps).build()
        if self.steps or self.mappings:
            found["custom.cellOptions"] = {"type": "color-text"}
        if self.mappings:
            found["mappings"] = [mapping(self.mappings)]
        if self.link is not None:
            title, url = self.link
            found["links"] = [{"title": title, "url": url}]
        if self.width is not None:
            found["custom.width"] = self.width
        return [model.DynamicConfigValue(id_val=key, value=value) for key, value in found.items()]


def thresholds(steps: Mapping[float | None, str]) -> dashboard.ThresholdsConfig:
    """From which value on which colour; None is the lowest."""
    made = [model.Threshold(value=value, color=color) for value, color in steps.items()]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


def mapping(texts: Mapping[str, tuple[str, str]]) -> model.ValueMap:
    """Text and colour in the place of a value."""
    options = {value: model.ValueMappingResult(text=text, color=color) for value, (text, color) in texts.items()}
    return model.ValueMap(options=options)


def runbook(alert: str) -> dashboard.DashboardLink:
    """The section of the runbook about an alert."""
    return dashboard.DashboardLink(f"Runbook: {alert}").type(model.DashboardLinkType.LINK).url(f"{RUNBOOK}#{alert}")


def _common(panel: Any, title: str, why: str, alerts: Sequence[str]) -> Any:
    return panel.title(title).description(why).datasource(PROMETHEUS).links([runbook(alert) for alert in alerts])


def tile(
    title: str,
    why: str,
    *queries: Query,
    unit: str = "none",
    steps: Mapping[float | None, str] = MappingProxyType({None: GOOD}),
    alerts: Sequence[str] = (),
    mappings: Mapping[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
    empty: str = "no data",
    graph: bool = False,
) -> stat.Panel:
    """A number to be read from afar; several queries are several numbers.

    Args:
        title: stands above.
        why: what it means, for the one who asks.
        queries: of the numbers.
        unit: Grafana's name of it.
        steps: from which value on which colour.
        alerts: whose sections of the runbook it links to.
        mappings: texts and colours in the place of values.
        decimals: so many, at the most; Grafana decides without.
        empty: what stands there when there is nothing.
        graph: a little course of it below the number.
    """
    made: stat.Panel = _common(stat.Panel(), title, why, alerts)
    made = (
        made.unit(unit)
        .thresholds(thresholds(steps))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .mappings([mapping(mappings)] if mappings else [])
        .no_value(empty)
        .color_mode(style.BigValueColorMode.VALUE)
        .graph_mode(style.BigValueGraphMode.AREA if graph else style.BigValueGraphMode.NONE)
        .justify_mode(style.BigValueJustifyMode.CENTER)
        .text_mode(style.BigValueTextMode.VALUE_AND_NAME if len(queries) > 1 else style.BigValueTextMode.VALUE)
        .orientation(style.VizOrientation.VERTICAL if len(queries) > 1 else style.VizOrientation.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    )
    if decimals is not None:
        made = made.decimals(decimals)
    for number, query in enumerate(queries):
        made = made.with_target(query.build(number))
    return made


def course(
    title: str,
    why: str,
    *queries: Query,
    unit: str = "none",
    colors: Mapping[str, str] | None = None,
    alerts: Sequence[str] = (),
    stacked: bool = False,
    bars: bool = False,
    line: float | None = None,
    floor: float | None = 0,
) -> timeseries.Panel:
    """The course of something over time.

    Args:
        title: stands above.
        why: what it means, for the one who asks.
        queries: of the series.
        unit: Grafana's name of it.
        alerts: whose sections of the runbook it links to.
        colors: of the series with these names.
        stacked: the series add up.
        bars: for what happens in bursts.
        line: a threshold, drawn across.
        floor: where the axis begins; None where values may lie below 0.
    """
    made: timeseries.Panel = _common(timeseries.Panel(), title, why, alerts)
    made = (
        made.unit(unit)
        .draw_style(style.GraphDrawStyle.BARS if bars else style.GraphDrawStyle.LINE)
        .line_width(0 if bars else 2)
        .fill_opacity(80 if bars else 25 if stacked else 0)
        .show_points(style.VisibilityMode.NEVER)
        # What is known only now and then, such as how long deletions took, is one line and not many points.
        .span_nulls(not bars and not stacked)
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(
            common.VizLegendOptions()
            .display_mode(style.LegendDisplayMode.LIST)
            .placement(style.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(common.VizTooltipOptions().mode(style.TooltipDisplayMode.MULTI).sort(style.SortOrder.DESCENDING))
    )
    if floor is not None:
        made = made.min(floor)
    if stacked:
        made = made.stacking(common.StackingConfig().mode(style.StackingMode.NORMAL).group("A"))
    if line is not None:
        made = made.thresholds(thresholds({None: "transparent", line: BAD})).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(style.GraphThresholdsStyleMode.DASHED)
        )
    for name, color in (colors or {}).items():
        fixed = {"mode": "fixed", "fixedColor": color}
        made = made.override_by_name(name, [model.DynamicConfigValue(id_val="color", value=fixed)])
    for number, query in enumerate(queries):
        made = made.with_target(query.build(number))
    return made


def per_minute(title: str, why: str, query: Query, **options: Any) -> timeseries.Panel:
    """The course of what happens so often a minute, in bars that add up."""
    return course(title, why, query, unit="cpm", stacked=True, bars=True, **options)


def rows(
    title: str, why: str, *, key: str, queries: Sequence[Query], columns: Sequence[Column], alerts: Sequence[str] = ()
) -> table.Panel:
    """A table with a row for each value of a label.

    Args:
        title: stands above.
        why: what it means, for the one who asks.
        alerts: whose sections of the runbook it links to.
        key: the label.
        queries: each fills the column of its name. They share no label but the key, whose columns the join would number.
        columns: how they look, in their order; the first is the key's.
    """
    made: table.Panel = _common(table.Panel(), title, why, alerts)
    made = made.unit("none").cell_height(style.TableCellHeight.SM).show_header(True)
    for number, query in enumerate(queries):
        made = made.with_target(query.build(number, table=True))
    letters = {f"Value #{chr(ord('A') + number)}": query.name for number, query in enumerate(queries)}
    dropped = [
        "Time",
        *(f"Time {i + 1}" for i in range(len(queries))),
        *(value for value, name in letters.items() if not name),
    ]
    renamed = {value: name for value, name in letters.items() if name}
    order = {column.name: number for number, column in enumerate(columns)}
    made = made.with_transformation(
        model.DataTransformerConfig(id_val="joinByField", options={"byField": key, "mode": "outer"})
    ).with_transformation(
        model.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": dict.fromkeys(dropped, True),
                "includeByName": {},
                # Labels that are columns of their own have the place of their own name.
                "indexByName": {**order, **{value: order[name] for value, name in renamed.items()}},
                "renameByName": renamed,
            },
        )
    )
    for column in columns:
        made = made.override_by_name(column.name, column.overrides())
    return made


def bands(title: str, why: str, *queries: Query, texts: Mapping[str, tuple[str, str]], empty: str) -> statetimeline.Panel:
    """Since when something is so, a band for each series.

    Args:
        title: stands above.
        why: what it means, for the one who asks.
        queries: of the series.
        texts: what the values are called, and their colours.
        empty: what stands there when there is nothing.
    """
    made: statetimeline.Panel = _common(statetimeline.Panel(), title, why, ())
    made = (
        made.unit("none")
        .mappings([mapping(texts)])
        .no_value(empty)
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .thresholds(thresholds({None: GREY}))
        .show_value(style.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(80)
        .legend(
            common.VizLegendOptions()
            .display_mode(style.LegendDisplayMode.LIST)
            .placement(style.LegendPlacement.BOTTOM)
            .show_legend(False)
            .calcs([])
        )
    )
    for number, query in enumerate(queries):
        made = made.with_target(query.build(number))
    return made


def datasource() -> dashboard.DatasourceVariable:
    """Which Prometheus is asked."""
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def labels_of(name: str, label: str, query: str, *, several: bool = True, hidden: bool = False) -> dashboard.QueryVariable:
    """A choice among the values that a label has.

    Args:
        name: what queries call it.
        label: what stands before the choice.
        query: ``label_values(...)``.
        several: several may be chosen, or all of them.
        hidden: it follows from another choice, and is not shown.
    """
    made = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query({"query": query, "refId": f"variable-{name}"})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .hide(model.VariableHide.HIDE_VARIABLE if hidden else model.VariableHide.DONT_HIDE)
    )
    if several:
        all_of_them = model.VariableOption(text=["All"], value=["$__all"], selected=True)
        # ".+" would do as well, and be shorter to read in a query than the names of fifty engines.
        made = made.multi(True).include_all(True).all_value(".*").current(all_of_them)
    return made


def board(title: str, uid: str, why: str, other: tuple[str, str]) -> dashboard.Dashboard:
    """An empty dashboard with a way to the other one and to the runbook.

    Args:
        title: stands above all.
        uid: its address, for good.
        why: what it is for.
        other: title and uid of the other one.
    """
    there = (
        dashboard.DashboardLink(other[0])
        .type(model.DashboardLinkType.LINK)
        # Not with all variables: where several endpoints are chosen, the dashboard of one would know none of them.
        .url(f"/d/{other[1]}?var-datasource=${{datasource}}")
        .icon("dashboard")
        .keep_time(True)
    )
    book = dashboard.DashboardLink("Runbook").type(model.DashboardLinkType.LINK).url(RUNBOOK).icon("doc").target_blank(True)
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(why)
        .tags(["reaper"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .editable()
        .links([there, book])
    )


class Layout:
    """Puts panels side by side and below each other, and numbers them."""

    def __init__(self, made: dashboard.Dashboard) -> None:
        self.made = made
        self._number = 0
        self._y = 0

    def section(self, title: str) -> None:
        """A heading across."""
        self._number += 1
        self.made.with_row(dashboard.Row(title).id(self._number).grid_pos(model.GridPos(x=0, y=self._y, w=24, h=1)))
        self._y += 1

    def line(self, height: int, widths: Sequence[int], *panels: Any) -> None:
        """Panels of one height, side by side; the widths are of the 24 columns that there are."""
        x = 0
        for width, panel in zip(widths, panels, strict=True):
            self._number += 1
            panel.id(self._number).grid_pos(model.GridPos(x=x, y=self._y, w=width, h=height))
            self.made.with_panel(panel)
            x += width
        assert x == 24, f"the line at {self._y} is {x} wide"
        self._y += height
