"""The sections of the demo: each shows one part of what was found and done. They compute nothing that could be wrong."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from reaper.core.model import Decision, Kind, Outcome, Reason, Report, Resource, Result
from reaper.observers.tables import words
from reaper.observers.view import owner
from reaper.retry.retrier import FailedAttempt
from reaper.simulator.demo.screen import Screen
from reaper.simulator.demo.world import WARM
from reaper.sweep.ports import Observer

_NEXT = (
    ("reaper --once --dry-run", "what would go here; deletes nothing"),
    ("reaper list", "everything that it holds, with verdicts"),
    ("reaper explain NAME", "why it stays or goes, rule by rule"),
    ("reaper simulate --containers 500", "an engine to try policies on"),
)
_SHOWN = 2  # failed attempts of one kind that are shown one by one while they happen


@dataclass(frozen=True, slots=True)
class Facts:
    """What the sections speak of.

    Args:
        report: of the sweep.
        attempts: those that failed and were made again.
        requests: how many the servers met, by endpoint.
        reapable: how many a second listing found that should be gone.
        there: how many the simulator itself holds after all.
        proven: whether that is what it held before, less what is reported as deleted.
    """

    report: Report
    attempts: "Attempts"
    requests: Mapping[str, int]
    reapable: int = 0
    there: int = 0
    proven: bool = False


Section = Callable[[Screen, Facts], None]


def _where(resource: Resource) -> str:
    return f"{resource.endpoint}/{resource.name}"


def _took(seconds: float) -> str:
    return f"{seconds:.1f} s"


# -- before the sweep --------------------------------------------------------------------------------------------------


def inventory(screen: Screen, listed: Report) -> None:
    """What the endpoints hold, with verdicts: counts, and a few of those that are to go."""
    names = [endpoint.endpoint for endpoint in listed.endpoints]
    decisions = [decision for endpoint in listed.endpoints for decision in endpoint.decisions]
    screen.heading(
        "What is there, and what is to become of it",
        "An engine and two Daytona organisations on the morning after a killed run.",
    )
    groups: dict[tuple[bool, str, str], Counter[str]] = {}
    for decision in decisions:
        key = (not decision.reap, words(decision.reason.value), owner(decision))
        groups.setdefault(key, Counter())[decision.resource.endpoint] += 1
    ordered = sorted(groups.items(), key=lambda group: (group[0][0], -group[1].total(), group[0]))
    rows = [
        ("keep" if keep else "reap", reason, owner, *(str(counts[name]) for name in names), str(counts.total()))
        for (keep, reason, owner), counts in ordered
    ]
    held = [str(endpoint.held) for endpoint in listed.endpoints]
    heads = ("verdict", "reason", "owner", *(f">{name}" for name in names), ">all")
    screen.table(heads, rows, ("all", "", "", *held, str(len(decisions))))
    screen.gap()
    screen.examples([("reap", _where(d.resource), d.sentence) for d in _typical(decisions)])


def _typical(decisions: Sequence[Decision]) -> list[Decision]:
    """For each policy that takes something, the first that it takes."""
    found: dict[str, Decision] = {}
    for decision in decisions:
        if decision.reap and decision.policy is not None and decision.reason is not Reason.GROUP_REAPED:
            found.setdefault(decision.policy, decision)
    return list(found.values())


# -- while it runs -----------------------------------------------------------------------------------------------------


class Attempts(Observer):
    """Tells of what happens during the sweep as it happens, and counts the attempts that failed. An observer."""

    def __init__(self, screen: Screen, now: Callable[[], float]) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._counted: Counter[tuple[str, str]] = Counter()
        self._waiting: dict[str, set[str]] = {}
        self._screen = screen
        self._now = now
        self._began = now()

    def total(self, endpoint: str) -> int:
        """How many attempts of this endpoint failed and were made again."""
        return sum(number for (name, _), number in self.counts.items() if name == endpoint)

    def show(self, endpoint: str, text: str, style: str = "") -> None:
        """One line: when, where, what."""
        self._screen.say((f"{self._now() - self._began:4.1f} s  {endpoint:<9}  ", "dim"), (text, style))

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:
        """See ``sweep.Observer``."""
        self._waiting[endpoint] = {decision.resource.id for decision in decisions if decision.reap}
        self.show(endpoint, f"{len(decisions)} listed, {len(self._waiting[endpoint])} to reap")

    def retrying(self, endpoint: str, event: FailedAttempt) -> None:
        """See ``sweep.Observer``."""
        label = event.error.label
        self.counts[endpoint, label] += 1
        if self.counts[endpoint, label] > _SHOWN:
            return
        then = f"paused for {event.delay:.1f} s" if event.cooldown else f"again in {event.delay:.1f} s"
        self.show(endpoint, f"{words(label):<12}  {then:<16}  {event.what}", "yellow")

    def settled(self, endpoint: str, result: Result) -> None:
        """See ``sweep.Observer``."""
        resource = result.decision.resource
        if result.outcome in (Outcome.GONE, Outcome.SKIPPED):
            self._counted[endpoint, result.outcome] += 1
            if self._counted[endpoint, result.outcome] <= _SHOWN:
                self.show(endpoint, f"{result.outcome:<12}  {resource.name}: {result.detail}", "green")
        self._waiting[endpoint].discard(resource.id)
        if not self._waiting[endpoint]:
            self.show(endpoint, "all of it is settled")


# -- after it ----------------------------------------------------------------------------------------------------------


def outcomes(screen: Screen, facts: Facts) -> None:
    """The report: by endpoint and outcome, with time, requests and retries."""
    report, attempts = facts.report, facts.attempts
    screen.heading("What came of it")
    shown = [o for o in Outcome if report.count(o) or o in (Outcome.DELETED, Outcome.FAILED)]
    heads = ("endpoint", ">held", *(f">{words(o.value)}" for o in shown), ">kept", ">time", ">requests", ">retries")
    rows = [
        (
            endpoint.endpoint,
            str(endpoint.held),
            *(str(endpoint.count(outcome)) for outcome in shown),
            str(endpoint.held - len(endpoint.results)),
            _took(endpoint.seconds),
            str(facts.requests[endpoint.endpoint]),
            str(attempts.total(endpoint.endpoint)),
        )
        for endpoint in report.endpoints
    ]
    held = sum(endpoint.held for endpoint in report.endpoints)
    totals = [held, *(report.count(o) for o in shown), held - len(report.results)]
    last = [sum(facts.requests.values()), attempts.counts.total()]
    screen.table(heads, rows, ("all", *map(str, totals), _took(report.seconds), *map(str, last)))
    by_error: Counter[str] = Counter()
    for (_, label), number in attempts.counts.items():
        by_error[words(label)] += number
    failures = ", ".join(f"{number} {label}" for label, number in by_error.most_common())
    screen.gap()
    screen.say((f"retried: {failures}", "dim"))


def problems(screen: Screen, report: Report) -> None:
    """Why it ends here."""
    screen.gap()
    if report.interrupted:
        screen.say((f"It was ended early ({report.interrupted}).", "bold"))
        return
    for endpoint in report.endpoints:
        if endpoint.failure is not None:
            screen.say((f"{endpoint.endpoint}: {endpoint.failure.message}", "bold red"))
    failed = [result for result in report.results if result.outcome is Outcome.FAILED]
    for result in failed[:_SHOWN]:
        screen.say((f"{_where(result.decision.resource)}: {result.detail}", "bold red"))


def left_alone(screen: Screen, facts: Facts) -> None:
    """What was kept, by reason, each with an example in the program's own words."""
    report = facts.report
    kept = [d for endpoint in report.endpoints for d in endpoint.decisions if not d.reap]
    skipped = [result for result in report.results if result.outcome is Outcome.SKIPPED]
    screen.heading(
        "What was left alone, and why",
        "When in doubt it is kept: a leak can wait, a killed trial is lost.",
    )
    reasons = Counter(decision.reason for decision in kept)
    rows = [
        (f"{number:>4} {words(reason.value)}", _where(first.resource), first.sentence)
        for reason, number in reasons.most_common()
        for first in [_example(decision for decision in kept if decision.reason is reason)]
    ]
    if skipped:
        first = skipped[0]
        rows.append((f"{len(skipped):>4} skipped", _where(first.decision.resource), first.detail))
    screen.examples(rows)


def _example(decisions: Iterable[Decision]) -> Decision:
    """The first of them, of what is more than a network if there is such a one."""
    return min(decisions, key=lambda decision: decision.resource.kind is Kind.NETWORK)


def proof(screen: Screen, facts: Facts) -> None:
    """That it is true: a second listing, and the simulator's own record."""
    screen.heading("Is that true?")
    second = "nothing reapable is left" if not facts.reapable else f"reapable and left: {facts.reapable}"
    _answer(screen, not facts.reapable, f"a second listing: {second}")
    books = f"only what was deleted is gone, {facts.there} are left" if facts.proven else "they do not agree"
    _answer(screen, facts.proven, f"the simulator's own books: {books}")
    if facts.proven:
        _answer(screen, facts.proven, f"among them the {WARM} members of a warm pool, which no listing shows")


def _answer(screen: Screen, well: bool, text: str) -> None:  # noqa: FBT001 - it is the answer
    screen.say(("yes  ", "green") if well else ("no   ", "bold red"), text)


def commands(screen: Screen, facts: Facts) -> None:  # noqa: ARG001 - a section like the others
    """What to type next."""
    screen.heading("Now yours")
    width = max(len(command) for command, _ in _NEXT)
    for command, text in _NEXT:
        screen.say((f"{command:<{width}}", "bold"), (f"  {text}", "dim"))


def end(screen: Screen, seed: int, seconds: float) -> None:
    """The last line."""
    screen.say((f"The demo with seed {seed} took {_took(seconds)}; its servers and files are gone.", "dim"))


AFTER: tuple[Section, ...] = (left_alone, outcomes, proof, commands)  # the last three fit a screen of 24 lines
