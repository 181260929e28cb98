"""What a sweep did, for people: a row for each resource in a pipe; at a terminal what is alike is counted.

The result comes last, where it is seen.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain

from reaper.core.kinds import Action
from reaper.core.model import Decision, EndpointReport, Outcome, Report, Result
from reaper.core.wording import counted
from reaper.observers.hints import command_name
from reaper.observers.log import cause
from reaper.observers.tables import (
    SHOWN,
    STYLES,
    all_facts,
    are_many,
    facts,
    hints,
    line,
    row_of,
    show_decisions,
    show_rows,
    words,
    wrapped,
)

_ALIKE = 5  # of one cause: each has its row up to here
_EXAMPLES = 3
_DONE = {Action.STOP: Outcome.STOPPED, Action.ARCHIVE: Outcome.ARCHIVED, Action.SET_TIMER: Outcome.TIMER_SET}
_PLACES = {outcome: place for place, outcome in enumerate(Outcome)}


def report(report: Report, *, recorded: bool, listing: str, most: int = SHOWN) -> None:
    """Print what a sweep did.

    Args:
        report: of the sweep.
        recorded: whether the journal has each deletion.
        listing: the command that lists what would go.
        most: how many rows of what went well, or would go, a terminal is shown of each endpoint.
    """
    terminal = sys.stdout.isatty()
    calm = [endpoint for endpoint in report.endpoints if _is_calm(endpoint)] if are_many(report) else []
    names = {endpoint.endpoint for endpoint in calm}
    shown = [endpoint for endpoint in report.endpoints if endpoint.endpoint not in names]
    below = [_rows(e, report.started_at + e.clock_skew, listing, most, terminal=terminal) for e in shown]
    for sentence in chain.from_iterable(below):
        wrapped(sentence, 4)
    if not are_many(report):
        for endpoint in shown:
            for sentence in (*_counts(endpoint, foreign=_foreign([endpoint])), *facts(endpoint)):
                line(sentence)
    else:
        counts = (_counts(endpoint, foreign=_foreign([endpoint])) for endpoint in shown)
        for sentence in (*chain.from_iterable(counts), *all_facts(report)):
            wrapped(sentence, 4)
        done = _counted(replace(report, endpoints=tuple(calm))) or "nothing to delete"
        kept = sum(endpoint.held - len(endpoint.results) for endpoint in calm)
        line(f"{len(calm)} endpoints without trouble: {done}, {kept} kept{_foreign(calm)}")
    if terminal and len(report.endpoints) > 1:
        line(f"all {len(report.endpoints)} endpoints: {_in_all(report)}, in {report.seconds:.1f} s")
    hints(report)
    if terminal and recorded and report.results:
        since = report.started_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        line(f"each of them, with its reason: {command_name()} history --since {since}")


def leaked_resources(report: Report, kept: Sequence[Decision]) -> None:
    """Print what a run had left and what became of it, and what of it is kept."""
    terminal = sys.stdout.isatty()
    for endpoint in report.endpoints:
        now = report.started_at + endpoint.clock_skew
        for sentence in _rows(endpoint, now, "", SHOWN, terminal=terminal):
            wrapped(sentence, 4)
        if endpoint.results or endpoint.failure is not None:
            for sentence in _counts(endpoint):
                line(sentence)
        if mine := [d for d in kept if d.resource.endpoint == endpoint.endpoint]:
            show_decisions(endpoint, "left where it is", mine, now, terminal=terminal)
        for sentence in facts(endpoint):
            line(sentence)
    hints(report)


def _is_calm(endpoint: EndpointReport) -> bool:
    """Whether there is nothing to say of it but numbers."""
    well = all(map(_went_well, endpoint.results))
    return endpoint.failure is None and endpoint.cap is None and well and not endpoint.undecided


def _outcome(result: Result) -> str:
    """What came of it, for people; of a dry run what would."""
    would = result.outcome is Outcome.WOULD_DELETE
    return f"would {words(result.decision.action)}" if would else words(result.outcome.value)


def _went_well(result: Result) -> bool:
    done = _DONE.get(result.decision.action)
    return result.outcome.removed or result.outcome in (Outcome.WOULD_DELETE, done)


def _cause(result: Result) -> tuple[Outcome, str]:
    resource = result.decision.resource
    return result.outcome, cause(_detail(result), resource.id, resource.short_id, resource.name)


def _detail(result: Result) -> str:
    return result.detail or result.decision.phrase


def _rows(endpoint: EndpointReport, now: datetime, listing: str, most: int, *, terminal: bool) -> list[str]:
    """Print the rows of the results, and return what is to be said below them of those that have none."""
    results = sorted(
        endpoint.results, key=lambda r: (r.outcome is Outcome.DELETED, r.outcome.value, r.decision.resource.name)
    )
    below: list[str] = []
    if terminal:
        well = [result for result in results if _went_well(result)]
        others: dict[tuple[Outcome, str], list[Result]] = {}
        for result in results:
            if not _went_well(result):
                others.setdefault(_cause(result), []).append(result)
        results = [r for alike in others.values() if len(alike) <= _ALIKE for r in alike] + well[:most]
        many = sorted((alike for alike in others.values() if len(alike) > _ALIKE), key=len, reverse=True)
        below = [_in_one(endpoint.endpoint, alike) for alike in many]
        if hidden := len(well) - most:
            what = f"would go: {listing}" if well and well[-1].outcome is Outcome.WOULD_DELETE else "deleted"
            below += [f"{endpoint.endpoint}: {hidden}{' more' if most else ''} {what}"] if hidden > 0 else []
    rows = [row_of(_outcome(r), r.decision, _detail(r), now, STYLES[r.outcome]) for r in results]
    if rows:
        show_rows(endpoint.endpoint, "outcome", rows, endpoint.endpoint, terminal=terminal)
    return below


def _in_one(endpoint: str, alike: Sequence[Result]) -> str:
    """Many results of one cause in a sentence, with the first ones by name."""
    first, more = alike[0], len(alike) - _EXAMPLES
    names = ", ".join(result.decision.resource.name for result in alike[:_EXAMPLES])
    return f"{endpoint}: {len(alike)} {words(first.outcome.value)}: {_detail(first)}: {names} and {more} more"


def _counted(report: Report | EndpointReport) -> str:
    found = Counter(map(_outcome, sorted(report.results, key=lambda r: _PLACES[r.outcome])))
    return ", ".join(f"{n} {word}" for word, n in found.items())


def _in_all(report: Report) -> str:
    """What was done on all endpoints together, and on how many of them less is known than was asked for."""
    down = sum(endpoint.failure is not None for endpoint in report.endpoints)
    done = _counted(report) or ("nothing to delete" if down < len(report.endpoints) else "nothing was deleted")
    return f"{done}, {counted(down, 'endpoint')} could not be listed to the end" if down else done


def _foreign(endpoints: Iterable[EndpointReport]) -> str:
    """How many of what is kept nothing owns, if any: those are kept whatever the policies say."""
    number = sum(d.owner is None and not d.reap for endpoint in endpoints for d in endpoint.decisions)
    return f", {number} of these not owned" if number else ""


def _counts(endpoint: EndpointReport, foreign: str = "") -> list[str]:
    """How many of what, and in which time."""
    counts, undecided = _counted(endpoint), endpoint.undecided
    kept = endpoint.held - sum(r.decision.action is not Action.SET_TIMER for r in endpoint.results) - undecided
    took = f"in {endpoint.seconds:.1f} s"
    if undecided:
        said = [counts, f"{kept} kept{foreign}" if kept > 0 else "", f"{undecided} not decided about"]
        return [f"{endpoint.endpoint}: {', '.join(part for part in said if part)}, {took}"]
    if endpoint.failure is None or endpoint.held:
        return [f"{endpoint.endpoint}: {counts or 'nothing to delete'}, {max(kept, 0)} kept{foreign}, {took}"]
    return []
