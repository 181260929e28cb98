"""Results for people: tables and a progress bar at a terminal, plain lines with tabs in a pipe.

rich is imported only where there is a terminal to draw on.
"""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from reaper.core.finding import Finding
from reaper.core.inventory_warnings import is_stuck
from reaper.core.model import Decision, EndpointReport, Outcome, Reason, Report, Result, State
from reaper.core.quota import Quota, usages_of
from reaper.observers.log import one_line
from reaper.observers.view import COLUMNS, View, age, owner, summary, verdict
from reaper.providers.registry import kinds_of
from reaper.sweep.endpoint_sweep import BUG, CLOCK, PARTLY
from reaper.sweep.ports import Quiet
from reaper.sweep.sweep import Observer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

SHOWN = 40  # successful deletions are listed one by one up to here, at a terminal

EVERYTHING = View()
_GAP = 2  # blanks between two columns
_SHORTEST_NAME, _LONGEST_OWNER = 40, 24  # columns for a name, and for an owner or a policy, where there are longer ones
_UNKNOWN_AGE = datetime.max.replace(tzinfo=UTC)
_COLUMNS = ("verdict", "name", "owner", "state", "age", "reason")

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
}


def words(value: str) -> str:
    """An outcome or a reason for people."""
    return value.replace("_", " ")


def _outcome(result: Result) -> str:
    """What came of it, for people; of a dry run what would."""
    would = result.outcome is Outcome.WOULD_DELETE
    return f"would {result.decision.action}" if would else words(result.outcome.value)


def line(*fields: str) -> None:
    """Print fields with tabs between them, whatever others have written in them."""
    sys.stdout.write("\t".join(one_line(field) for field in fields) + "\n")


def report(report: Report, command: str, left: Sequence[Decision] | None, view: View = EVERYTHING) -> None:
    """Print what a sweep did, a listing found or a check found left (``left``)."""
    terminal = sys.stdout.isatty()
    shown = there = 0
    for endpoint in report.endpoints:
        now = report.started_at + endpoint.clock_skew
        if command == "list":
            there += len(endpoint.decisions)
            title = f"{endpoint.held} resources"
            shown += _decisions(endpoint, title, endpoint.decisions, now, view, terminal=terminal, shown=shown)
        elif command == "check":
            mine = [d for d in left or () if d.resource.endpoint == endpoint.endpoint]
            there += len(mine)
            shown += _decisions(endpoint, f"{len(mine)} left", mine, now, view, terminal=terminal, shown=shown)
        else:
            _outcomes(endpoint, now, terminal=terminal)
        if endpoint.disk is not None and endpoint.disk.rooms:
            line(f"{endpoint.endpoint}: disk ({endpoint.disk.where}): {endpoint.disk.words()} in use")
        _problems(endpoint)
    if there > shown:
        line(f"... and {there - shown:,} more: --limit none shows all")
    if command == "list" and (terminal or len(report.endpoints) > 1):
        line(summary(report))
    if command == "check":
        total = len(left or ())
        if total:
            line(f"{total} resource{' is' if total == 1 else 's are'} left")
        elif all(endpoint.failure is None for endpoint in report.endpoints):
            line("nothing reapable is left")
    for hint in report.hints:
        line(f"hint: {hint}")


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

    fields: tuple[str, str, str, str, str, str]
    style: str
    kind: str = ""
    sentence: str = ""


def _row(word: str, decision: Decision, reason: str, now: datetime, style: str) -> Row:
    resource = decision.resource
    fields = (word, resource.name, owner(decision), resource.raw_state, age(decision, now), reason)
    return Row(fields, style, resource.kind.value)


def _decisions(
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
    rows = [_row(verdict(d), d, d.phrase, now, "dim" if d.owner is None else STYLES[d.verdict.value]) for d in some]
    _table(terminal, f"{endpoint.endpoint}: {title}", _COLUMNS, rows, endpoint.endpoint)
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

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def _outcomes(endpoint: EndpointReport, now: datetime, *, terminal: bool) -> None:
    results = sorted(
        endpoint.results, key=lambda r: (r.outcome is Outcome.DELETED, r.outcome.value, r.decision.resource.name)
    )
    hidden = 0
    if terminal:
        well = [r for r in results if r.outcome.removed]
        hidden = max(0, len(well) - SHOWN)
        if hidden:
            results = [r for r in results if not r.outcome.removed] + well[:SHOWN]
    rows = [_row(_outcome(r), r.decision, r.detail or r.decision.phrase, now, STYLES[r.outcome]) for r in results]
    if rows:
        _table(terminal, endpoint.endpoint, ("outcome", *_COLUMNS[1:]), rows, endpoint.endpoint)
    if hidden:
        line(f"... and {hidden} more deleted")
    counts = ", ".join(f"{n} {words(o.value)}" for o in Outcome if (n := endpoint.count(o)))
    undecided = endpoint.undecided
    kept = endpoint.held - len(endpoint.results) - undecided
    if undecided:
        said = [counts, f"{kept} kept" if kept > 0 else "", f"{undecided} not decided about"]
        line(f"{endpoint.endpoint}: {', '.join(part for part in said if part)}, in {endpoint.seconds:.1f} s")
    elif endpoint.failure is None or endpoint.held:
        line(f"{endpoint.endpoint}: {counts or 'nothing to delete'}, {max(kept, 0)} kept, in {endpoint.seconds:.1f} s")


def leaked_resources(report: Report, kept: Sequence[Decision]) -> None:
    """Print what a run had left and what became of it, and what of it is kept."""
    terminal = sys.stdout.isatty()
    for endpoint in report.endpoints:
        now = report.started_at + endpoint.clock_skew
        if endpoint.results or endpoint.failure is not None:
            _outcomes(endpoint, now, terminal=terminal)
        if mine := [d for d in kept if d.resource.endpoint == endpoint.endpoint]:
            _decisions(endpoint, "left where it is", mine, now, terminal=terminal)
        _problems(endpoint)
    for hint in report.hints:
        line(f"hint: {hint}")


def _problems(endpoint: EndpointReport) -> None:
    for warning in endpoint.warnings:
        line(f"{endpoint.endpoint}: warning: {warning}")
    if endpoint.failure is not None:
        what = {BUG: "a bug", CLOCK: "not judged", PARTLY: "the rest was swept, but"}.get(
            endpoint.failure.label, "could not be listed"
        )
        if endpoint.undecided and endpoint.failure.label == "interrupted":
            what = "was not looked at to the end"
        line(f"{endpoint.endpoint}: {what}: {endpoint.failure.message}")


def _table(terminal: bool, title: str, columns: Sequence[str], rows: Sequence[Row], endpoint: str) -> None:  # noqa: FBT001
    if not terminal:
        for row in rows:
            line(row.fields[0], endpoint, row.kind, *row.fields[1:])
        return
    draw(title, columns, rows)


def draw(title: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """A table at a terminal; without rows, its title. Where it is too narrow for columns, each row has two lines."""
    if not rows:
        line(title)
        return
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.padding import Padding  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    def width(cells: Sequence[Sequence[str]]) -> int:
        longest = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
        longest[1:3] = min(longest[1], _SHORTEST_NAME), min(longest[2], _LONGEST_OWNER)
        return sum(longest) + _GAP * (len(longest) - 1)

    console = Console()
    short = [[one_line(field) for field in row.fields] for row in rows]
    long = [[*cells[:5], one_line(row.sentence) or cells[5]] for cells, row in zip(short, rows, strict=True)]
    beside = next((cells for cells in (long, short) if width(cells) <= console.width), None)
    if beside is None:
        console.print(title, style="bold", markup=False, highlight=False)
        indent = max(len(cells[0]) for cells in (columns, *short)) + _GAP
        for cells, style in ((columns, "dim"), *zip(short, (row.style for row in rows), strict=True)):
            console.print(
                Text.assemble((cells[0].ljust(indent), style), (cells[1], style if style == "dim" else "")), overflow="fold"
            )
            console.print(Padding(Text(f"{', '.join(cells[2:5])}: {cells[5]}", "dim"), (0, 0, 0, indent)))
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        if column == "name":  # people copy names: one that does not fit goes on in the next line
            table.add_column(column, overflow="fold")
        else:
            longest = _LONGEST_OWNER if column in ("owner", "policy") else None
            table.add_column(column, no_wrap=True, max_width=longest, justify="right" if column == "age" else "left")
    for row, cells in zip(rows, beside, strict=True):
        table.add_row(Text(cells[0], row.style), *map(Text, cells[1:]), style="dim" if row.style == "dim" else None)
    console.print(table)


def explanation(decision: Decision, findings: Sequence[Finding]) -> None:
    """Print every rule's word on one resource, in order, and the verdict."""
    resource = decision.resource
    line(f"{resource.endpoint}/{resource.name} ({resource.kind} {resource.short_id}, {resource.raw_state})")
    decided = False
    width = max(len(finding.rule) for finding in findings)
    for finding in findings:
        mark = "    "
        if finding.verdict is not None:
            mark = finding.verdict.value if not decided or finding.rule == "group" else f"({finding.verdict.value})"
            decided = True
        line(f"  {mark:<6} {finding.rule:<{width}}  {finding.sentence}")
    line(f"{verdict(decision)}: {decision.sentence}")


class ProgressBar(Quiet):
    """A bar that counts the deletions. An observer of the sweep, and a context manager.

    Args:
        console: where it is drawn; on stderr when None.
    """

    def __init__(self, console: "Console | None" = None) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._total = 0
        self._done: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console or Console(stderr=True),
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task("listing", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:  # noqa: ARG002
        """See ``sweep.Observer``."""
        self._total += sum(decision.reap for decision in decisions)
        self._show("deleting")

    def settled(self, endpoint: str, result: Result) -> None:
        """See ``sweep.Observer``."""
        self._done.add((endpoint, result.decision.resource.id))
        self._show("deleting")

    def _show(self, what: str) -> None:
        if self._progress is not None and self._total:
            self._progress.update(self._task, description=what, total=self._total, completed=len(self._done))


def progress(observers: list[Observer], *, act: bool, console: "Console | None" = None) -> AbstractContextManager[object]:
    """A progress bar while deleting, for a person at a terminal only: on stderr, or on ``console``."""
    terminal = sys.stderr.isatty() if console is None else console.is_terminal
    if not (act and terminal):
        return nullcontext()

    bar = ProgressBar(console)
    observers.append(bar)
    return bar
