"""``reaper history --summary``: what the deletions on record were worth, by endpoint, owner and policy."""

import json
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from reaper import __version__
from reaper.core import sizes
from reaper.core.savings import Prices, Total, money
from reaper.core.wording import counted
from reaper.observers import tables
from reaper.observers.journal_db import DamagedError
from reaper.observers.journal_rows import PENDING, entry, spell
from reaper.observers.log import one_line

FORMAT = 1
SHOWN_VIOLATIONS = 10

_READ = (
    "endpoint kind resource name labels state raw_state created_at owner policy reason decided_at outcome error"
    " freed cpu memory disk avoided waited acted looked_at looked_state looked_differs"
)
_COLUMNS = ("endpoint", "owner", "policy", "leaks", "hours", "freed", "saved", "failed", "skipped", "violations")
_NAMES = 3  # columns of text


@dataclass
class Summary:
    """The totals by endpoint, owner and policy, and what was touched against the rules, with why."""

    totals: dict[tuple[str, str, str], Total] = field(default_factory=dict)
    violations: list[dict[str, str]] = field(default_factory=list)

    @property
    def total(self) -> Total:
        """All of them together."""
        whole = Total()
        for total in self.totals.values():
            whole += total
        return whole

    def rows(self) -> list[tuple[tuple[str, str, str], Total]]:
        """In the order in which they are shown."""
        return sorted(self.totals.items())


def select(connection: sqlite3.Connection, conditions: str, values: Sequence[object], prices: Prices) -> Summary:
    """Add up what meets the conditions. Raises DamagedError for what cannot be read."""
    there = {row["name"] for row in connection.execute("PRAGMA table_info(act)")}
    columns = ", ".join(f"act.{name}" if name in there else f"NULL AS {name}" for name in _READ.split())
    query = f"SELECT {columns} FROM act WHERE {conditions} AND act.outcome != ? ORDER BY act.decided_at, act.id"  # noqa: S608
    found = Summary()
    for row in connection.execute(query, [*values, PENDING]):
        try:
            one = entry(row)
            found.totals.setdefault(one.key, Total()).add(one, prices)
            if (why := one.violation) is not None:
                told = {key: str(row[key]) for key in ("endpoint", "kind", "name", "decided_at", "outcome")}
                found.violations.append({**told, "id": str(row["resource"]), "why": why})
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError) as error:
            raise DamagedError(f"a record cannot be read: {error}") from None
    return found


def _figures(total: Total) -> dict[str, object]:
    """What the document says of one row."""
    return {
        "leaks": total.leaks,
        "hours": round(total.hours, 3),
        "waited_hours": round(total.waited, 3),
        "freed_bytes": total.freed,
        "unmeasured": total.unmeasured,
        "cost": None if total.cost is None else round(total.cost, 4),
        "failures": total.failures,
        "skipped": total.skipped,
        "violations": total.violations,
        "unrecorded": total.unrecorded,
    }


def document(found: Summary, prices: Prices, since: datetime | None, until: datetime | None, about: dict[str, Any]) -> str:
    """One JSON document; ``reaper/schemas/history-summary.schema.json`` is its schema.

    Args:
        found: what was added up.
        prices: by which.
        since: from when on; None for all that is on record.
        until: to when.
        about: the file, whether it is written, and the gaps in it.
    """
    rows = [{"endpoint": e, "owner": o, "policy": p, **_figures(total)} for (e, o, p), total in found.rows()]
    return json.dumps(
        {
            "format": FORMAT,
            "version": __version__,
            "command": "history --summary",
            **about,
            "since": None if since is None else spell(since),
            "until": None if until is None else spell(until),
            "currency": prices.currency if prices else None,
            "rows": rows,
            "total": _figures(found.total),
            "violations": found.violations,
        }
    )


def show(found: Summary, prices: Prices, span: str) -> None:
    """Print it: a table at a terminal, lines with tabs in a pipe. ``span`` says of which time it is."""
    if not sys.stdout.isatty():
        for key, total in found.rows():
            tables.line(*key, *_plain(total))
    elif not found.totals:
        tables.line(f"nothing is recorded {span}".rstrip())
    else:
        _draw(found, prices, span)
    for one in found.violations[:SHOWN_VIOLATIONS]:
        said = f"{one['endpoint']}/{one['name']} ({one['kind']}) at {one['decided_at']}: {one['why']}"
        sys.stderr.write(f"reaper: against the rules: {one_line(said)}\n")
    if (more := len(found.violations) - SHOWN_VIOLATIONS) > 0:
        sys.stderr.write(f"reaper: and {more} more; --json has them all\n")


def _plain(total: Total) -> tuple[str, ...]:
    """The numbers for programs: hours, bytes and money without units."""
    cost = "-" if total.cost is None else f"{total.cost:.2f}"
    numbers = (total.failures, total.skipped, total.violations)
    return str(total.leaks), f"{total.hours:.1f}", str(total.freed), cost, *map(str, numbers)


def _freed(total: Total) -> str:
    return "?" if total.unmeasured and not total.freed else sizes.human(total.freed)


def _cells(total: Total, prices: Prices) -> list[str]:
    numbers = (total.failures, total.skipped, total.violations)
    worth = [f"{total.leaks:,}", f"{total.hours:,.1f}", _freed(total)]
    return [*worth, money(total.cost, prices), *(f"{number:,}" for number in numbers)]


def _sentence(total: Total, prices: Prices) -> str:
    cost = f", {money(total.cost, prices)}" if total.cost is not None else ""
    kept = f"{total.failures:,} failed, {total.skipped:,} skipped, {total.violations:,} violations"
    return f"{counted(total.leaks, 'leak')}, {total.hours:,.1f} h, {_freed(total)} freed{cost}; {kept}"


def _notes(total: Total) -> list[str]:
    """What the numbers do not say."""
    notes = [
        "hours: containers and sandboxes would have gone on, until the next policy or for a day",
        "violations: what was touched although its last look on record, or its owner or labels, forbade it",
    ]
    if total.unmeasured:
        notes.insert(1, f"freed: of {total.unmeasured:,} it is not known; what containers write is never measured")
    if total.unrecorded:
        notes.append(f"{total.unrecorded:,} were recorded by an earlier version, without their last look")
    return notes


def _draw(found: Summary, prices: Prices, span: str) -> None:
    from rich.cells import cell_len  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.padding import Padding  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console, whole = Console(), found.total
    rows = [([one_line(name) for name in key], total) for key, total in found.rows()]
    cells = [[*names, *_cells(total, prices)] for names, total in rows]
    cells.append(["total", "", "", *_cells(whole, prices)])
    shown = [i for i, name in enumerate(_COLUMNS) if name != "saved" or prices]
    widths = [max(cell_len(row[i]) for row in (_COLUMNS, *cells)) for i in shown]
    title = Text(f"what was deleted {span}".rstrip(), "bold")
    if sum(widths) + 2 * (len(widths) - 1) <= console.width:
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for i in shown:
            table.add_column(_COLUMNS[i], no_wrap=True, justify="left" if i < _NAMES else "right")
        for row, total in zip(cells, [*(total for _, total in rows), whole], strict=True):
            table.add_row(*(Text(row[i], _style(i, total)) for i in shown), style="bold" if total is whole else "")
        console.print(table)
    else:
        console.print(title)
        for names, total in [*rows, (["total"], whole)]:
            console.print(Text(" / ".join(names), "bold" if total is whole else ""), overflow="fold")
            style = "bold red" if total.violations else "dim"
            console.print(Padding(Text(_sentence(total, prices), style), (0, 0, 0, 4)))
    for note in _notes(whole):
        console.print(Text(note, "dim"))


def _style(column: int, total: Total) -> str:
    name = _COLUMNS[column]
    if (name == "violations" and total.violations) or (name == "failed" and total.failures):
        return "bold red"
    return ""
