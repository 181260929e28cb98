"""Counts what sweeps and the service do, for Prometheus. ``docs/metrics.md`` says what each metric means."""

import math
import time
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from reaper import files
from reaper.core.ages import is_stuck
from reaper.core.disk import DiskUsage
from reaper.core.model import Action, Decision, EndpointReport, Kind, Outcome, Reason, Report
from reaper.core.quota import Quota, fullest
from reaper.core.savings import NO_PRICES, Entry, Prices, avoided_cost, avoided_hours
from reaper.observers.exposition import Tidy
from reaper.observers.instruments import (
    DECIDERS,
    EVIDENCE,
    KEPT,
    UNDECIDED,
    Instruments,
    Labelled,
    Reach,
    Series,
    decider,
    leaks,
    reclaimed,
    states_of,
)
from reaper.providers.registry import kinds_of
from reaper.retry.retrier import FailedAttempt
from reaper.sweep.ports import Observer
from reaper.sweep.reach import PARTLY
from reaper.sweep.result import BUG, SweepResult, sweep_result


class Metrics(Observer):
    """An observer of sweeps that counts; the service sets the rest. Everything but ``render`` belongs to the loop.

    Args:
        registry: holds the metrics; one of its own by default.
        dry_run: nothing is deleted, so nothing is counted: only the gauges are set.
        clock: seconds since 1970, for the ages that grow between sweeps.
        process: also export this process: its start, memory, processor time and open files, as every exporter does.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        dry_run: bool = False,
        clock: Callable[[], float] = time.time,
        process: bool = False,
    ) -> None:
        self.registry = registry or CollectorRegistry()
        if process:
            ProcessCollector(registry=self.registry)
        shown = Tidy(self.registry)
        self.render, self.write_textfile = shown.render, shown.write_textfile
        self._dry_run = dry_run
        self._rehearses = False
        self._prices = NO_PRICES
        self._quotas: Sequence[Quota] = ()
        self._clock = clock
        self._providers: dict[str, str] = {}
        self._reach: dict[tuple[str, str], list[Kind]] = {}  # by policy and endpoint
        self._there: dict[Series, None] = {}
        self._since: dict[str, dict[str, float]] = {}  # by endpoint and id: from when on, by this host's clock
        self._oldest: dict[tuple[str, ...], float] = {}
        self._i = Instruments(self.registry)
        self._i.reload.set(1)
        self._i.reloaded_at.set(clock())

    # -- which series there are ----------------------------------------------------------------------------------------

    def configure(
        self,
        endpoints: Mapping[str, str],
        policies: Reach,
        events: Collection[str] = (),
        intervals: Mapping[str, timedelta] | None = None,
        *,
        prices: Prices = NO_PRICES,
        actions: Mapping[str, Action] | None = None,
        quotas: Sequence[Quota] = (),
    ) -> None:
        """These are in force from now on: their series exist, and those of what has gone do not. What stays keeps its value.

        Args:
            endpoints: the provider of each, by name.
            policies: the kinds and the endpoints that each is for, by name (``reach`` makes it from the rules).
            events: the endpoints whose events are to be followed.
            intervals: how long it is at the most between two runs of a policy, by name; none where there is no schedule.
            prices: what turns the time that deletions avoid into money.
            actions: of the policies that do not delete, by name.
            quotas: how much may be there at once.
        """
        self._prices, self._quotas = prices, quotas
        self._providers = dict(endpoints)
        self._reach = {
            (policy, name): taken
            for policy, (kinds, names) in policies.items()
            for name in names
            if name in endpoints and (taken := reclaimed(kinds, endpoints[name]))
        }
        waits = self._waits(intervals or {})
        series = self._i.series(self._providers, self._reach, events, waits, quotas, actions=actions or {})
        wanted = dict.fromkeys(series)
        for metric, labels in self._there.keys() - wanted.keys():
            metric.remove(*labels)
        for metric, labels in wanted:
            if (metric, labels) not in self._there:
                self._begin(metric, labels)
        self._there = wanted
        for labels, wait in waits.items():
            self._i.interval.labels(*labels).set(wait.total_seconds())
        self._since = {name: since for name, since in self._since.items() if name in endpoints}
        self._oldest = {key: since for key, since in self._oldest.items() if (self._i.oldest_seconds, key) in wanted}

    def forget(self, endpoint: str) -> None:
        """What the last sweep of an endpoint has counted goes, where that has left the configuration meanwhile."""
        if endpoint not in self._providers:
            for metric, labels in [key for key in self._there if endpoint in key[1][1:2]]:
                metric.remove(*labels)
                del self._there[metric, labels]

    def _waits(self, intervals: Mapping[str, timedelta]) -> dict[tuple[str, ...], timedelta]:
        """How long what is reapable waits for a sweep at the most, by labels. What no policy decides waits for any sweep."""
        found: dict[tuple[str, ...], timedelta] = {}
        for policy, name in self._reach:
            if (interval := intervals.get(policy)) is not None:
                where = (self._providers[name], name)
                found[*where, policy] = interval
                for decider in DECIDERS:
                    found[*where, decider] = min(interval, found.get((*where, decider), interval))
        return found

    def _begin(self, metric: Labelled, labels: tuple[str, ...]) -> None:
        metric.labels(*labels)  # is there from now on
        if metric is self._i.up:
            self._i.up.labels(*labels).set(math.nan)
        elif metric is self._i.oldest_seconds:
            self._i.oldest_seconds.labels(*labels).set_function(partial(self._age, labels))

    def _count(self, metric: Counter, labels: tuple[str, ...], number: float = 1) -> None:
        """Count an event, even one of what a reload took out of force while it happened; the next one drops its series."""
        if not self._dry_run:
            self._there[metric, labels] = None
            metric.labels(*labels).inc(number)

    def _timing(self, metric: Histogram, provider: str) -> Histogram:
        self._there[metric, (provider,)] = None
        return metric.labels(provider)

    def _set(self, metric: Gauge, endpoint: str, value: float, *labels: str) -> None:
        """Set a level. What is not in force has none: it would never be updated again."""
        key = (self._providers.get(endpoint, ""), endpoint, *labels)
        if (metric, key) in self._there:
            metric.labels(*key).set(value)

    # -- an observer of sweeps -----------------------------------------------------------------------------------------

    def retrying(self, endpoint: str, event: FailedAttempt) -> None:
        """See ``sweep.Observer``."""
        if (provider := self._providers.get(endpoint)) is not None:
            self._count(self._i.retries, (provider, endpoint, event.error.label))

    def finished(self, report: EndpointReport) -> None:
        """See ``sweep.Observer``. Its results are counted, and its levels are what there is until the next sweep."""
        name, now = report.endpoint, self._clock()
        interrupted = report.failure is not None and report.failure.label in (BUG, "interrupted")
        if not interrupted:
            self.endpoint_up(name, up=report.failure is None or report.failure.label == PARTLY)
        if report.decisions or report.failure is None:
            self._set(self._i.skew, name, report.clock_skew.total_seconds())
            there = report.remaining
            self.decided(name, there)
            self._age_of_leak(name, there, report.clock_skew, now)
            moment = datetime.fromtimestamp(now, UTC) + report.clock_skew
            stuck = sum(d.reason is Reason.CHANGING and is_stuck(d.resource, moment) for d in there)
            self._set(self._i.stuck, name, stuck)
        if report.cap is not None and not self._rehearses:
            self._count(self._i.cap_hits, (report.provider, name))
        self._count_results(report, now)
        if self._rehearses:
            self._show_rehearsed(report)

    def _show_rehearsed(self, report: EndpointReport) -> None:
        mine = (r.decision for r in report.results if r.outcome is Outcome.WOULD_DELETE and r.decision.reap)
        would = Tally(map(decider, mine))
        if (provider := self._providers.get(report.endpoint)) is not None:
            for policy in self._policies_of(report.endpoint):
                labels = (provider, report.endpoint, policy)
                self._there[self._i.would_delete, labels] = None
                self._i.would_delete.labels(*labels).set(would[policy])

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:
        """See ``sweep.Observer``."""
        states: Tally[tuple[str, ...]] = Tally()
        reasons: Tally[str] = Tally()
        leak: Tally[str] = Tally()
        for decision in decisions:
            states[decision.resource.kind.value, decision.resource.state.value] += 1
            if leaks(decision):
                leak[decider(decision)] += 1
            else:
                reasons[decision.reason.value] += 1
        for kind in kinds_of(self._providers.get(endpoint, "")):
            for state in states_of(kind):
                self._set(self._i.resources, endpoint, states[kind.value, state.value], kind.value, state.value)
        for reason in KEPT:
            self._set(self._i.kept, endpoint, reasons[reason.value], reason.value)
        for policy in self._policies_of(endpoint):
            self._set(self._i.reapable, endpoint, leak[policy], policy)
        for labels, share in fullest(self._quotas, endpoint, [d.resource for d in decisions]).items():
            self._set(self._i.quota_used, endpoint, share, *labels)

    def _age_of_leak(self, endpoint: str, decisions: Iterable[Decision], skew: timedelta, now: float) -> None:
        """Remember since when the leak is there. Where that is unknown, it is since when it was seen first."""
        before, since, oldest = self._since.get(endpoint, {}), {}, dict[str, float]()
        for decision in filter(leaks, decisions):
            at = before.get(decision.resource.id, now)
            if decision.since is not None:
                at = (decision.since - skew).timestamp()
            since[decision.resource.id] = at
            policy = decider(decision)
            oldest[policy] = min(at, oldest.get(policy, at))
        if (provider := self._providers.get(endpoint)) is not None:
            self._since[endpoint] = since
            for policy in self._policies_of(endpoint):
                at = oldest.get(policy, math.inf)  # what a rehearsal leaves there is no leak that grows too old
                self._oldest[provider, endpoint, policy] = math.inf if self._rehearses else at

    def _age(self, key: tuple[str, ...]) -> float:
        """Is called while rendering, in whatever thread that is."""
        return max(0.0, self._clock() - self._oldest.get(key, math.inf))

    def _policies_of(self, endpoint: str) -> list[str]:
        return [*DECIDERS, *(policy for policy, name in self._reach if name == endpoint)]

    def _count_results(self, report: EndpointReport, now: float) -> None:
        if self._dry_run:
            return
        where = (report.provider, report.endpoint)
        taken = self._timing(self._i.deletion_seconds, report.provider)
        delay = self._timing(self._i.delay_seconds, report.provider)
        for result in report.results:
            if result.outcome is Outcome.WOULD_DELETE:
                continue
            decision = result.decision
            policy = decider(decision) if decision.reap else decision.policy or UNDECIDED
            self._count_worth(Entry.of(result), (*where, policy))
            if decision.action is not Action.DELETE:
                kind, action = decision.resource.kind.value, decision.action.value
                self._count(self._i.actions, (*where, kind, policy, action, result.outcome.value))
                continue
            self._count(self._i.deletions, (*where, decision.resource.kind.value, policy, result.outcome.value))
            if result.evidence is not None:
                self._count(self._i.evidence, (*where, EVIDENCE[not result.evidence]))
            if result.outcome is Outcome.DELETED:
                taken.observe(result.seconds)
                if decision.since is not None:
                    delay.observe(max(0.0, now - (decision.since - report.clock_skew).timestamp()))
        self._time_leases(report, now)

    def _count_worth(self, entry: Entry, labels: tuple[str, ...]) -> None:
        if entry.violation is not None:
            self._count(self._i.violations, labels)
        if entry.outcome is Outcome.DELETED:
            self._count(self._i.reclaimed, labels, entry.freed or 0)
            self._count(self._i.avoided_seconds, labels, avoided_hours(entry) * 3600)
            self._count(self._i.avoided_cost, labels, avoided_cost(entry, self._prices) or 0)

    def _time_leases(self, report: EndpointReport, now: float) -> None:
        """How long it took to take what leases had left, of those of which nothing is left."""
        left, ends = {decision.lease for decision in report.remaining}, {}
        for result in report.results:
            lease, since = result.decision.lease, result.decision.since
            if result.outcome.removed and lease is not None and lease not in left and since is not None:
                ends[lease] = (since - report.clock_skew).timestamp()
        for end in ends.values():
            self._timing(self._i.lease_seconds, report.provider).observe(max(0.0, now - end))

    # -- set by the service --------------------------------------------------------------------------------------------

    def ended(self, report: Report, due: Collection[str] | None, at: datetime) -> None:
        """A sweep has ended: ``swept`` for each endpoint, and ``succeeded`` for each policy that was ``due`` (None: all)."""
        for one in report.endpoints:
            result = sweep_result(one, report.interrupted)
            self.swept(one.endpoint, one.provider, result, one.seconds)
            if result is SweepResult.SUCCESS:
                for policy, name in self._reach:
                    if name == one.endpoint and (due is None or policy in due):
                        self.succeeded(policy, name, at)

    def swept(self, endpoint: str, provider: str, result: str, seconds: float) -> None:
        """The sweep of an endpoint has ended; ``result`` is a ``SweepResult``."""
        self._count(self._i.sweeps, (provider, endpoint, SweepResult(result).value))
        if not self._dry_run:
            self._timing(self._i.sweep_seconds, provider).observe(seconds)
            self._set(self._i.last_sweep, endpoint, self._clock())
            self._set(self._i.last_sweep_seconds, endpoint, seconds)

    def succeeded(self, policy: str, endpoint: str, at: datetime) -> None:
        """A sweep for this policy has ended, and nothing failed there."""
        if not self._dry_run:
            self._set(self._i.last_success, endpoint, at.timestamp(), policy)

    def endpoint_up(self, endpoint: str, up: bool) -> None:  # noqa: FBT001 - the value itself
        """Whether the last look at it went well."""
        self._set(self._i.up, endpoint, up)

    def breaker(self, endpoint: str, open: bool) -> None:  # noqa: A002, FBT001 - the value itself
        """Whether its circuit breaker is open."""
        self._set(self._i.breaker, endpoint, open)

    def events(self, endpoint: str, connected: bool) -> None:  # noqa: FBT001 - the value itself
        """Whether its events are followed now."""
        if (provider := self._providers.get(endpoint)) is not None:
            for metric in (self._i.events, self._i.events_lost):
                metric.labels(provider, endpoint)
                self._there[metric, (provider, endpoint)] = None
            self._i.events.labels(provider, endpoint).set(connected)

    def events_lost(self, endpoint: str) -> None:
        """The stream of its events has ended."""
        if (provider := self._providers.get(endpoint)) is not None:
            self._count(self._i.events_lost, (provider, endpoint))

    def disk(self, endpoint: str, usage: DiskUsage, *, pressed: bool, unrelieved: bool) -> None:
        """How full its disk is, whether that is too full, and whether nothing more may be deleted there."""
        if (provider := self._providers.get(endpoint)) is None:
            return
        where = (provider, endpoint)
        levels: dict[tuple[Gauge, tuple[str, ...]], float] = {
            (self._i.disk_pressure, where): pressed,
            (self._i.disk_unrelieved, where): unrelieved and not self._rehearses,
            (self._i.disk_unknown, where): usage.problem is not None,
        }
        levels |= {(self._i.disk_used, (*where, sort)): room.ratio for sort, room in usage.rooms.items()}
        for (metric, labels), level in levels.items():
            self._there[metric, labels] = None
            metric.labels(*labels).set(level)

    def rehearse(self, on: bool) -> None:  # noqa: FBT001 - the value itself
        """Whether the service deletes nothing: what it would delete has a level then, and is no leak that it has left."""
        self._rehearses = on
        self._i.dry_run.set(on)

    def reloaded(self, ok: bool, at: datetime) -> None:  # noqa: FBT001 - the value itself
        """The configuration has been read again, and was accepted or not."""
        self._i.reload.set(ok)
        if ok:
            self._i.reloaded_at.set(at.timestamp())

    def journal_failed(self) -> None:
        """Something could not be written to the journal."""
        self._i.journal_errors.inc()
        self._i.journal_degraded.set(1)

    def journal_ok(self) -> None:
        """The journal is written, again."""
        self._i.journal_degraded.set(0)

    def leases(self, states: Mapping[str, int], oldest: float = 0.0) -> None:
        """How many leases stand how, and for how many seconds the oldest open one has."""
        self._i.oldest_lease_seconds.set(oldest)
        for state, number in states.items():
            self._i.leases.labels(state).set(number)

    def leases_unknown(self, unknown: bool) -> None:  # noqa: FBT001 - the value itself
        """Whether what is leased is unknown."""
        self._i.leases_unknown.set(unknown)

    def ryuk_refused(self) -> None:
        """A line of the Ryuk protocol got no ACK."""
        self._i.ryuk_refused.inc()

    # -- who reads it --------------------------------------------------------------------------------------------------

    def recall(self, path: Path) -> None:
        """Take over when the policies succeeded last from a file that an earlier process wrote, if there is one."""
        try:
            families = list(text_string_to_metric_families(files.read_text(path)))
        except (OSError, ValueError):
            return
        for sample in (sample for family in families for sample in family.samples):
            if sample.name == "reaper_last_success_timestamp_seconds":
                endpoint, policy = (sample.labels.get(key, "") for key in ("endpoint", "policy"))
                self._set(self._i.last_success, endpoint, sample.value, policy)
