"""Listings for people: tables at a terminal, plain lines with tabs in a pipe.

rich is imported only where there is a terminal to draw on.
"""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from reaper.core.ages import is_stuck
from reaper.core.finding import Finding
from reaper.core.model import Decision, EndpointReport, Outcome, Reason, Report, State
from reaper.core.quota import Quota, usages_of
from reaper.core.wording import counted, is_or_are
from reaper.observers.log import cause, one_line
from reaper.observers.view import COLUMNS, View, age, owner, summary, verdict
from reaper.providers.registry import kinds_of
from reaper.sweep.reach import PARTLY
from reaper.sweep.result import BUG, CLOCK

SHOWN = 40  # rows of what went well, and of quotas, are listed one by one up to here, at a terminal

EVERYTHING = View()
MANY = 20  # of more endpoints than this a terminal is shown what is alike once, and those without a row as a sum
_TALLEST, _ROOMY = 3, 160  # lines of a row where its columns do not fit a terminal; columns where they do
_GAP = 2  # blanks between two columns
_SHORTEST_NAME, _LONGEST_OWNER = 40, 24  # columns for a name, and for an owner or a policy, where there are longer ones
_UNKNOWN_AGE = datetime.max.replace(tzinfo=UTC)
_COLUMNS = ("verdict", "kind", "name", "owner", "state", "age", "reason")

STYLES = {
    "reap": "bold red",
    "keep": "green",
    Outcome.DELETED: "green",
    Outcome.GONE: "green",
    Outcome.WOULD_DELETE: "yellow",
    Outcome.FAILED: "bold red",
    Outcome.ABANDONED: "red",
    Outcome.SKIPPED: "yellow",
    Outcome.STOPPED: "yellow",
    Outcome.ARCHIVED: "yellow",
    Outcome.TIMER_SET: "green",
}


def words(value: str) -> str:
    """An outcome or a reason for people."""
    return value.replace("_", " ")


def line(*fields: str) -> None:
    """Print fields with tabs between them, whatever others have written in them."""
    sys.stdout.write("\t".join(one_line(field) for field in fields) + "\n")


def note(text: str) -> None:
    """Print a sentence for people: in a pipe to stderr, so that stdout has nothing but rows."""
    if sys.stdout.isatty():
        line(text)
    else:
        sys.stderr.write(f"{one_line(text)}\n")


def listing(report: Report, view: View = EVERYTHING) -> None:
    """Print what the endpoints hold. In a pipe there is nothing but rows on stdout."""
    _rows(report, [(e, counted(e.held, "resource"), e.decisions) for e in report.endpoints], view)
    for sentence in all_facts(report):
        note(sentence)
    if sys.stdout.isatty() or len(report.endpoints) > 1:
        note(summary(report))
    hints(report)


def left_over(report: Report, left: Sequence[Decision], view: View = EVERYTHING) -> None:
    """Print what a check found left."""
    found = [(e, [d for d in left if d.resource.endpoint == e.endpoint]) for e in report.endpoints]
    _rows(report, [(endpoint, f"{len(mine)} left", mine) for endpoint, mine in found], view)
    for sentence in all_facts(report):
        line(sentence)
    if left:
        line(f"{counted(len(left), 'resource')} {is_or_are(len(left))} left")
    elif all(endpoint.failure is None for endpoint in report.endpoints):
        line("nothing reapable is left")
    hints(report)


def _rows(report: Report, found: Sequence[tuple[EndpointReport, str, Sequence[Decision]]], view: View) -> None:
    """Print the rows of each endpoint below its title, and how many more there are than were asked for."""
    terminal, shown, rowless = sys.stdout.isatty(), 0, 0
    for endpoint, title, decisions in found:
        if are_many(report) and (not decisions or (view.limit is not None and shown >= view.limit)):
            rowless += endpoint.failure is None
            continue
        now = report.started_at + endpoint.clock_skew
        shown += show_decisions(endpoint, title, decisions, now, view, terminal=terminal, shown=shown)
    if rowless:
        note(f"{counted(rowless, 'more endpoint')} without a row here")
    if more := sum(len(decisions) for _, _, decisions in found) - shown:
        note(f"... and {more:,} more: --limit none shows all")


def rows_left(above: Sequence[str], report: Report) -> int:
    """How many rows fit a terminal's screen with these lines above them, and the result below them."""
    columns, lines = shutil.get_terminal_size()
    sentences = (*above, *(f"hint: {hint}" for hint in report.hints))
    taken, tables = sum(1 + max(len(each) - 1, 0) // columns for each in sentences), len(report.endpoints)
    around = 6 * tables  # the title, two lines of heads, how many more there are, the result, and something else
    return max(0, (lines - 1 - taken - around) // ((_TALLEST if columns < _ROOMY else 1) * tables))


def hints(report: Report) -> None:
    """Print what the report suggests."""
    for hint in report.hints:
        note(f"hint: {hint}")


def quotas(quotas: Sequence[Quota], report: Report) -> None:
    """Print how full each quota is, the fullest first; of one by label the fullest values."""
    for endpoint in report.endpoints:
        found = sorted(usages_of(quotas, endpoint, kinds_of(endpoint.provider)), key=lambda usage: -usage.share)
        for usage in found[:SHOWN]:
            line(f"{endpoint.endpoint}: {usage} ({usage.share:.0%}{', exceeded' if usage.exceeded else ''})")
        if len(found) > SHOWN:
            line(f"{endpoint.endpoint}: {len(found) - SHOWN} more values of labels are less full")


_ATTENTION = frozenset(
    {Reason.UNREADABLE, Reason.INVALID_LABEL, Reason.UNKNOWN_STATE, Reason.LEASE_UNKNOWN, Reason.GROUP_UNCLEAR}
)


def _needs_attention(decision: Decision, now: datetime) -> bool:
    """Whether what is kept will not go by itself: it says too little, hangs in a transition, or has failed."""
    resource = decision.resource
    if decision.reason in _ATTENTION or (decision.reason is Reason.CHANGING and is_stuck(resource, now)):
        return True
    return resource.state is State.FAILED and decision.owner is not None


def _order(decision: Decision, now: datetime) -> tuple[bool, bool, bool, str, datetime, str]:
    """Reapable first, then what is kept and needs attention, then what is owned; by project, oldest first."""
    resource = decision.resource
    calm, age = not _needs_attention(decision, now), resource.created_at or _UNKNOWN_AGE
    return not decision.reap, calm, decision.owner is None, resource.group or "", age, resource.name


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: the first field has a style. ``sentence`` says more than the last, where there is room for it."""

    fields: tuple[str, ...]
    style: str
    sentence: str = ""


def row_of(word: str, decision: Decision, reason: str, now: datetime, style: str) -> Row:
    """The row of one resource."""
    resource = decision.resource
    about = (resource.kind.value, resource.name, owner(decision), resource.raw_state, age(decision, now))
    return Row((word, *about, reason), style)


def show_decisions(
    endpoint: EndpointReport,
    title: str,
    decisions: Sequence[Decision],
    now: datetime,
    view: View = EVERYTHING,
    *,
    terminal: bool,
    shown: int = 0,
) -> int:
    """Print them, and return how many rows that were; ``shown`` is how many were printed before."""
    some = view.rows(sorted(decisions, key=lambda decision: _order(decision, now)), shown)
    if view.columns:
        _chosen_columns(f"{endpoint.endpoint}: {title}", some, view.columns, now, terminal=terminal)
        return len(some)
    rows = [row_of(verdict(d), d, d.phrase, now, "dim" if d.owner is None else STYLES[d.verdict.value]) for d in some]
    show_rows(f"{endpoint.endpoint}: {title}", "verdict", rows, endpoint.endpoint, terminal=terminal)
    return len(some)


def _chosen_columns(
    title: str, decisions: Sequence[Decision], columns: Sequence[str], now: datetime, *, terminal: bool
) -> None:
    rows = [[one_line(COLUMNS[column](decision, now)) for column in columns] for decision in decisions]
    if not terminal:
        for row in rows:
            line(*row)
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def facts(endpoint: EndpointReport) -> list[str]:
    """What there is to say of an endpoint besides its resources, a sentence each; the worst is the last."""
    found = []
    if endpoint.disk is not None and endpoint.disk.rooms:
        found.append(f"{endpoint.endpoint}: disk ({endpoint.disk.where}): {endpoint.disk.words()} in use")
    found += [f"{endpoint.endpoint}: warning: {warning}" for warning in endpoint.warnings]
    if endpoint.failure is not None:
        what = {BUG: "a bug", CLOCK: "not judged", PARTLY: "the rest was swept, but"}.get(
            endpoint.failure.label, "could not be listed"
        )
        if endpoint.undecided and endpoint.failure.label == "interrupted":
            what = "was not looked at to the end"
        found.append(f"{endpoint.endpoint}: {what}: {endpoint.failure.message}")
    return found


def are_many(report: Report) -> bool:
    """Whether a terminal is shown so many endpoints that no one would read of each."""
    return sys.stdout.isatty() and len(report.endpoints) > MANY


def all_facts(report: Report) -> list[str]:
    """What there is to say of all endpoints; of many, what is alike in one sentence with the names of theirs."""
    found: dict[str, list[tuple[str, str]]] = {}
    for endpoint in report.endpoints:
        for sentence in facts(endpoint):
            text = sentence.removeprefix(f"{endpoint.endpoint}: ")
            key = cause(text, endpoint.endpoint) if are_many(report) else sentence
            found.setdefault(key, []).append((endpoint.endpoint, text))
    said = []
    for alike in found.values():
        (first, text), differ = alike[0], len({text for _, text in alike}) > 1
        said.append(f"{', '.join(name for name, _ in alike)}: {text}{f' (of {first})' if differ else ''}")
    return said


def show_rows(title: str, first: str, rows: Sequence[Row], endpoint: str, *, terminal: bool) -> None:
    """Print rows of resources: a table at a terminal, lines in a pipe. ``first`` names the first column."""
    if not terminal:
        for row in rows:
            line(row.fields[0], endpoint, *row.fields[1:])
        return
    draw(title, (first, *_COLUMNS[1:]), rows)


def draw(title: str, columns: Sequence[str], rows: Sequence[Row], called: str = "name") -> None:
    """A table at a terminal; without rows, its title. Where it is too narrow for columns, each row has two lines.

    Args:
        title: above it.
        columns: their headers; the last is the longest, as a reason is.
        rows: what stands in them.
        called: the column that names the row, which is the second.
    """
    if not rows:
        line(title)
        return
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.padding import Padding  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    at = {column: i for i, column in enumerate(columns)}
    name = at[called]
    bounds = {name: _SHORTEST_NAME, **{at[c]: _LONGEST_OWNER for c in ("owner", "policy") if c in at}}

    def width(cells: Sequence[Sequence[str]]) -> int:
        longest = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
        return sum(min(n, bounds.get(i, n)) for i, n in enumerate(longest)) + _GAP * (len(longest) - 1)

    console = Console()
    short = [[one_line(field) for field in row.fields] for row in rows]
    long = [[*cells[:-1], one_line(row.sentence) or cells[-1]] for cells, row in zip(short, rows, strict=True)]
    beside = next((cells for cells in (long, short) if width(cells) <= console.width), None)
    if beside is None:
        if title:
            console.print(title, style="bold", markup=False, highlight=False)
        indent = max(len(cells[0]) for cells in (columns, *short)) + _GAP
        for cells, style in ((columns, "dim"), *zip(short, (row.style for row in rows), strict=True)):
            first = Text.assemble((cells[0].ljust(indent), style), (cells[name], style if style == "dim" else ""))
            console.print(first, overflow="fold")
            between = ", ".join(cell for i, cell in enumerate(cells[1:-1], 1) if i != name and cell)
            console.print(Padding(Text(f"{between}: {cells[-1]}", "dim"), (0, 0, 0, indent)))
        return
    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    for column in columns:
        if column == called:  # people copy names: one that does not fit goes on in the next line
            table.add_column(column, overflow="fold")
        else:
            longest = _LONGEST_OWNER if column in ("owner", "policy") else None
            table.add_column(column, no_wrap=True, max_width=longest, justify="right" if column == "age" else "left")
    for row, cells in zip(rows, beside, strict=True):
        table.add_row(Text(cells[0], row.style), *map(Text, cells[1:]), style="dim" if row.style == "dim" else None)
    console.print(table)


_SENTENCE = 40  # columns that a rule's sentence needs beside its name; else it stands below it


def explanation(decision: Decision, findings: Sequence[Finding]) -> None:
    """Print every rule's word on one resource, in order, and the verdict; at a terminal in lines that fit it."""
    resource = decision.resource
    columns, longest = width(), max(len(finding.rule) for finding in findings)
    beside = columns is None or columns - longest - 11 >= _SENTENCE
    wrapped(f"{resource.endpoint}/{resource.name} ({resource.kind} {resource.short_id}, {resource.raw_state})", 4)
    decided = False
    for finding in findings:
        mark = "    "
        if finding.verdict is not None:
            mark = finding.verdict.value if not decided or finding.rule == "group" else f"({finding.verdict.value})"
            decided = True
        if not beside:
            line(f"  {mark:<6} {finding.rule}")
        rule = f"  {mark:<6} {finding.rule:<{longest}}  " if beside else " " * 11
        wrapped(f"{rule}{finding.sentence}", len(rule))
    wrapped(f"{verdict(decision)}: {decision.sentence}", 4)
    if decision.preset is not None:
        wrapped(f"hint: preset {decision.preset} would own it, if [scope] presets named that", 4)


def width() -> int | None:
    """How wide the terminal is; None in a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(text: str, indent: int) -> None:
    """Print a line, at a terminal in lines that fit it; a word, which people may copy, is never broken."""
    if (columns := width()) is None:
        line(text)
        return
    for part in textwrap.wrap(
        one_line(text), columns, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ):
        line(part)
