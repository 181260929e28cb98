"""Which of the decisions people want to see, in which order and with which columns: ``list``, ``check`` and ``explain``."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from reaper.core.ages import age_base
from reaper.core.durations import human
from reaper.core.model import Decision, EndpointReport, Reason, Report
from reaper.core.owners import in_a_word, would_own
from reaper.core.scope import Scope, Selector
from reaper.core.wording import counted
from reaper.errors import ConfigError
from reaper.providers import registry
from reaper.providers.fields import did_you_mean

VERDICTS = ("reap", "keep")
_LAST = datetime.max.replace(tzinfo=UTC)
_NONE = "-"


def owner(decision: Decision) -> str:
    """What owns it in a word or two: the preset, or the entry of [scope]."""
    return _NONE if decision.owner is None else in_a_word(decision.owner)


def verdict(decision: Decision) -> str:
    """The verdict, and what is to be done where that is not to delete it."""
    return decision.verdict.value if decision.deletes or not decision.reap else f"{decision.verdict} ({decision.action})"


def age(decision: Decision, now: datetime) -> str:
    """How old it is, in its largest unit."""
    base = age_base(decision.resource)
    return human(now - base, parts=1) if base is not None and base <= now else "?"


COLUMNS: Mapping[str, Callable[[Decision, datetime], str]] = {
    "verdict": lambda d, _: verdict(d),
    "endpoint": lambda d, _: d.resource.endpoint,
    "kind": lambda d, _: d.resource.kind.value,
    "name": lambda d, _: d.resource.name,
    "id": lambda d, _: d.resource.short_id,
    "owner": lambda d, _: owner(d),
    "state": lambda d, _: d.resource.raw_state,
    "age": age,
    "image": lambda d, _: d.resource.image or _NONE,
    "project": lambda d, _: d.resource.group or _NONE,
    "policy": lambda d, _: d.policy or _NONE,
    "preset": lambda d, _: d.preset or _NONE,
    "reason": lambda d, _: d.phrase,
}
UNOWNED_COLUMNS = ("endpoint", "kind", "name", "state", "age", "image", "project", "preset")
SORTS: Mapping[str, Callable[[Decision], str]] = {
    "verdict": lambda d: str(VERDICTS.index(d.verdict.value)),
    "name": lambda d: d.resource.name,
    "kind": lambda d: d.resource.kind.value,
    "owner": owner,
    "state": lambda d: d.resource.raw_state,
    "age": lambda d: (age_base(d.resource) or _LAST).isoformat(),
}


NOTHING_NAMED = Selector()


@dataclass(frozen=True, slots=True)
class View:
    """What is wanted: entries of one field are ORed, the fields are ANDed.

    Args:
        owners: globs; "-" for what is not owned.
        unowned: what nothing owns alone.
        matching: what the labels, names and images match that the command is narrowed to.
        sort: one of ``SORTS``; the usual order when None.
        limit: how many rows at most, of all endpoints together; None means all.
        columns: of ``COLUMNS``; the usual ones when empty.
    """

    verdicts: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    unowned: bool = False
    matching: Selector = NOTHING_NAMED
    sort: str | None = None
    limit: int | None = None
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, arguments: Namespace, matching: Selector) -> "View":
        """What the arguments ask for. Raises ConfigError."""
        states = tuple(getattr(arguments, "state", None) or ())
        known = registry.states()
        for state in states:
            if state not in known:
                raise ConfigError(f"{state!r} is no state", did_you_mean(state, known), "--state")
        limit = getattr(arguments, "limit", None)
        if limit not in (None, "none") and not (limit.isascii() and limit.isdigit() and int(limit)):
            raise ConfigError(f"{limit!r} is no number of rows", 'write for example 50, or "none" for all', "--limit")
        columns = tuple(filter(None, (getattr(arguments, "columns", None) or "").split(",")))
        for column in columns:
            if column not in COLUMNS:
                raise ConfigError(f"there is no column {column!r}", did_you_mean(column, COLUMNS), "--columns")
        unowned = getattr(arguments, "unowned", False)
        return cls(
            tuple(getattr(arguments, "verdict", None) or ()),
            states,
            tuple(getattr(arguments, "owner", None) or ()),
            unowned,
            matching if arguments.command == "list" else NOTHING_NAMED,
            getattr(arguments, "sort", None),
            None if limit in (None, "none") else int(limit),
            columns or (UNOWNED_COLUMNS if unowned else ()),
        )

    def wants(self, decision: Decision) -> bool:
        """Whether it is to be shown."""
        resource = decision.resource
        return (
            (not self.verdicts or decision.verdict.value in self.verdicts)
            and (not self.states or bool({resource.raw_state, resource.state.value} & set(self.states)))
            and (not self.unowned or decision.reason is Reason.NOT_OWNED)
            and (not self.owners or any(fnmatchcase(owner(decision), glob) for glob in self.owners))
            and self.matching.all_of(resource, resource.labels or {})
        )

    def only(self, report: Report) -> Report:
        """The report about what is to be shown alone."""
        if not (self.verdicts or self.states or self.owners or self.unowned or self.matching != NOTHING_NAMED):
            return report
        return filtered(report, self.wants)

    def rows(self, decisions: Sequence[Decision], shown: int) -> Sequence[Decision]:
        """Those that are shown, in order, when so many rows have been shown before."""
        ordered = sorted(decisions, key=SORTS[self.sort]) if self.sort is not None else decisions
        return ordered if self.limit is None else ordered[: max(self.limit - shown, 0)]


def filtered(report: Report, wanted: Callable[[Decision], bool]) -> Report:
    """The report about what is wanted alone."""
    endpoints = []
    for endpoint in report.endpoints:
        decisions = tuple(d for d in endpoint.decisions if wanted(d))
        results = tuple(r for r in endpoint.results if wanted(r.decision))
        endpoints.append(replace(endpoint, held=len(decisions), decisions=decisions, results=results))
    return replace(report, endpoints=tuple(endpoints))


def with_presets(report: EndpointReport, scope: Scope) -> EndpointReport:
    """The report with the presets that would own what nothing owns."""
    if all(decision.reason is not Reason.NOT_OWNED for decision in report.decisions):
        return report
    found = would_own([decision.resource for decision in report.decisions], scope)
    decisions = (
        replace(d, preset=found.get(d.resource.id)) if d.reason is Reason.NOT_OWNED else d for d in report.decisions
    )
    return replace(report, decisions=tuple(decisions))


def summary(report: Report) -> str:
    """What there is on all endpoints together."""
    decisions = [d for endpoint in report.endpoints for d in endpoint.decisions]
    reap, owned = sum(d.reap for d in decisions), sum(d.owner is not None for d in decisions)
    down = sum(endpoint.failure is not None for endpoint in report.endpoints)
    count = len(decisions)
    there = f"{counted(count, 'resource')} on {counted(len(report.endpoints), 'endpoint')}"
    failed = f"; {counted(down, 'endpoint')} could not be listed to the end" if down else ""
    return f"{there}: {reap:,} to reap, {count - reap:,} kept, {count - owned:,} of these not owned{failed}"
