"""The metrics themselves: their names, labels, buckets and series. ``metrics`` says when they change.

Counters are for events and gauges for levels, and every series exists from the start: an alert cannot see a counter that
appears with its first failure. No label holds an id, so the number of series follows from the configuration alone.
"""

import platform
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from reaper import __version__
from reaper.core.conditions import Policy
from reaper.core.model import Action, Decision, Kind, Outcome, Reason, State
from reaper.core.quota import Quota
from reaper.core.safety_net import SAFETY_NET
from reaper.core.savings import LEASE, OVERRIDE
from reaper.errors import ProviderError
from reaper.providers.registry import kinds_of
from reaper.sweep.result import SweepResult

UNDECIDED = "(none)"  # for a policy where there is none: it could not be inspected, so nothing decided

DECIDERS = (OVERRIDE, LEASE)

DELETION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
SWEEP_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
DELAY_BUCKETS = (1, 10, 60, 300, 600, 900, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 24 * 3600, 48 * 3600)

COUNTED = tuple(outcome for outcome in Outcome if outcome not in (Outcome.WOULD_DELETE, Outcome.ARCHIVED, Outcome.TIMER_SET))
TIMED = {Kind.SANDBOX: (Outcome.TIMER_SET, Outcome.GONE, Outcome.FAILED, Outcome.SKIPPED, Outcome.ABANDONED)}
DONE = tuple(outcome for outcome in Outcome if outcome not in (Outcome.WOULD_DELETE, Outcome.DELETED, Outcome.TIMER_SET))
EVIDENCE = ("saved", "failed")
# What is reapable and waits for its policy's turn is part of the leak, and is counted there.
# Among the reasons, those to keep follow those to reap.
_FIRST_KEPT = tuple(Reason).index(Reason.GROUP_REAPED) + 1
KEPT = tuple(reason for reason in tuple(Reason)[_FIRST_KEPT:] if reason is not Reason.NOT_DUE)

Labelled = Counter | Gauge | Histogram
Series = tuple[Labelled, tuple[str, ...]]


def decider(decision: Decision) -> str:
    """What decided that it goes, as the label ``policy`` has it."""
    return decision.policy or (LEASE if decision.lease is not None else OVERRIDE)


def leaks(decision: Decision) -> bool:
    """Whether it is garbage that should go, in this sweep or in the next one that is due."""
    return decision.reap or decision.reason is Reason.NOT_DUE


def states_of(kind: Kind) -> Collection[State]:
    """In which states one of this kind may be. Volumes and images have none; they count as stopped."""
    return (State.STOPPED,) if kind.opt_in else tuple(State)


def _retryable(error: type[ProviderError] = ProviderError) -> set[str]:
    """The labels of all errors after which a call is tried again."""
    return {error.label for _ in range(error.retryable)}.union(*(_retryable(one) for one in error.__subclasses__()))


class Instruments:
    """All metrics on one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        seconds, timer = partial(gauge, unit="seconds"), partial(Histogram, registry=registry, unit="seconds")
        where, by_provider = ("provider", "endpoint"), ("provider",)
        by_policy = (*where, "policy")
        self.deletions = counter(
            "reaper_deletions_total",
            "What sweeps decided to delete, by what became of it.",
            (*where, "kind", "policy", "outcome"),
        )
        self.actions = counter(
            "reaper_actions_total",
            "What sweeps decided to stop, to archive or to give a timer of the platform, by what became of it.",
            (*where, "kind", "policy", "action", "outcome"),
        )
        self.evidence = counter(
            "reaper_evidence_total",
            "Containers and sandboxes whose evidence was to be saved before their deletion, by whether it was.",
            (*where, "result"),
        )
        self.retries = counter(
            "reaper_retries_total",
            "Attempts that failed and were followed by another, by the class of the error.",
            (*where, "error"),
        )
        self.sweeps = counter("reaper_sweeps_total", "Sweeps of an endpoint by how they ended.", (*where, "result"))
        self.cap_hits = counter(
            "reaper_cap_hits_total", "Sweeps that deleted nothing, since the deletion cap forbade it.", where
        )
        self.sweep_seconds = timer(
            "reaper_sweep_duration_seconds", "How long a sweep of an endpoint took.", by_provider, buckets=SWEEP_BUCKETS
        )
        self.deletion_seconds = timer(
            "reaper_deletion_duration_seconds",
            "How long a confirmed deletion took, from the final re-check on.",
            by_provider,
            buckets=DELETION_BUCKETS,
        )
        self.delay_seconds = timer(
            "reaper_reap_delay_seconds",
            "From when a resource became reapable to when it was confirmed to be gone, where the former is known.",
            by_provider,
            buckets=DELAY_BUCKETS,
        )
        self.lease_seconds = timer(
            "reaper_lease_cleanup_seconds",
            "From the end of a lease to when the last of what it had left on an endpoint was confirmed to be gone.",
            by_provider,
            buckets=DELAY_BUCKETS,
        )
        self.reclaimed = counter(
            "reaper_reclaimed_bytes_total",
            "Bytes that confirmed deletions gave back, where that is known: of images, volumes that were measured, build "
            "caches and the disks of sandboxes.",
            by_policy,
            unit="bytes",
        )
        self.avoided_seconds = counter(
            "reaper_avoided_seconds_total",
            "For how long the deleted containers and sandboxes would have gone on: each until the next of the other "
            "policies would have taken it, and a day at the most.",
            by_policy,
            unit="seconds",
        )
        self.avoided_cost = counter(
            "reaper_avoided_cost_total", "What that time would have cost, by [prices] and in its currency.", by_policy
        )
        self.violations = counter(
            "reaper_violations_total",
            "What was deleted or stopped against the rules by what is on record about it, such as its last look; every "
            "one of them is a bug of this program.",
            by_policy,
        )
        self.resources = gauge(
            "reaper_resources", "What the endpoint held when it was last listed, owned or not.", (*where, "kind", "state")
        )
        self.kept = gauge(
            "reaper_kept_resources",
            "What is kept, by the reason; all of reaper_resources that is not reapable.",
            (*where, "reason"),
        )
        self.reapable = gauge(
            "reaper_reapable_resources",
            "The leak: what is garbage and still there, be it due in this sweep or not.",
            by_policy,
        )
        self.dry_run = gauge("reaper_dry_run", "1 while the service deletes nothing ([service] dry_run), else 0.")
        self.would_delete = gauge(
            "reaper_would_delete_resources",
            "What the last sweep would have deleted; only in a service that deletes nothing.",
            by_policy,
        )
        self.oldest_seconds = seconds(
            "reaper_oldest_reapable_seconds",
            "For how long the oldest of the leak has been reapable; 0 where there is none. It grows between sweeps.",
            by_policy,
        )
        self.quota_used = gauge(
            "reaper_quota_used_ratio",
            "How full a quota is: 1 is full, and more is exceeded. Of one by label that of the fullest value.",
            (*where, "quota", "resource"),
        )
        self.stuck = gauge(
            "reaper_stuck_resources",
            "Sandboxes that have been in transition for over an hour, which the platform's API cannot delete.",
            where,
        )
        self.up = gauge(
            "reaper_endpoint_up",
            "1 if the last sweep could list it and confirm what it did, else 0; NaN before the first one.",
            where,
        )
        self.breaker = gauge(
            "reaper_circuit_breaker_open",
            "1 if the last sweep ended with calls held back, since call after call failed (one is tried "
            "every five seconds) or the credentials were refused.",
            where,
        )
        self.skew = seconds(
            "reaper_clock_skew_seconds",
            "The endpoint's clock minus this host's; 0 where it is no more than a minute.",
            where,
        )
        self.disk_used = gauge(
            "reaper_disk_used_ratio",
            "The part of the disk that is in use, of bytes and of inodes; only where a policy runs under pressure.",
            (*where, "resource"),
        )
        self.disk_pressure = gauge(
            "reaper_disk_pressure", "1 while more of the disk is in use than [disk] high allows; only as above.", where
        )
        self.disk_unrelieved = gauge(
            "reaper_disk_unrelieved",
            "1 since a sweep under pressure could not bring the disk down to [disk] low, for nothing more may be deleted.",
            where,
        )
        self.disk_unknown = gauge("reaper_disk_unknown", "1 while the disk cannot be measured; only as above.", where)
        self.events = gauge(
            "reaper_events_connected", "1 while the endpoint's events are followed; only where they are wanted.", where
        )
        self.events_lost = counter(
            "reaper_events_lost_total", "How often the stream of events ended; only where they are wanted.", where
        )
        self.last_success = seconds(
            "reaper_last_success_timestamp_seconds",
            "When the last sweep ended in which this policy was due and nothing failed on the endpoint; 0 for never.",
            by_policy,
        )
        self.interval = seconds(
            "reaper_policy_interval_seconds",
            "The longest time between two runs of the policy by its schedule; only in the service, since "
            "nothing else has a schedule.",
            by_policy,
        )
        self.last_sweep = seconds(
            "reaper_last_sweep_timestamp_seconds",
            "When the last sweep of the endpoint ended, however it ended; 0 for never.",
            where,
        )
        self.last_sweep_seconds = seconds("reaper_last_sweep_duration_seconds", "How long that sweep took.", where)
        self.leases = gauge(
            "reaper_leases",
            "Leases by how they stand: live, reconnecting (its holder has not been heard of for a moment), "
            "expired, released; ended ones are remembered for a week.",
            ("state",),
        )
        self.oldest_lease_seconds = seconds(
            "reaper_oldest_lease_seconds", "How old the oldest lease is that has not ended; 0 where there is none."
        )
        self.leases_unknown = gauge(
            "reaper_leases_unknown",
            "1 while the leases cannot be read or written: none is granted, and unread nothing is deleted.",
        )
        self.ryuk_refused = counter(
            "reaper_ryuk_lines_refused_total",
            "Lines of Ryuk's clients that got no ACK: they could not be understood, were not allowed or "
            "could not be stored.",
        )
        self.reload = gauge(
            "reaper_config_last_reload_successful",
            "1 if the last reload of the configuration was accepted, or there was none.",
        )
        self.reloaded_at = seconds(
            "reaper_config_last_reload_success_timestamp_seconds", "When the configuration in force was loaded."
        )
        self.journal_errors = counter("reaper_journal_errors_total", "Failed attempts to write the journal.")
        self.journal_degraded = gauge("reaper_journal_degraded", "1 while the journal is not being written.")
        Info("reaper_build", "The version of this program and of its Python; always 1.", registry=registry).info(
            {"version": __version__, "python": platform.python_version()}
        )

    @property
    def worth(self) -> tuple[Labelled, ...]:
        """What tells what the deletions were worth, and that they kept the rules."""
        return self.reclaimed, self.avoided_seconds, self.avoided_cost, self.violations

    def series(
        self,
        providers: Mapping[str, str],
        policies: Mapping[tuple[str, str], Collection[Kind]],
        events: Collection[str],
        intervals: Collection[tuple[str, ...]] = (),
        quotas: Collection[Quota] = (),
        *,
        actions: Mapping[str, Action] = MappingProxyType({}),
    ) -> Iterator[Series]:
        """Every series that there has to be.

        Args:
            providers: by name of the endpoint.
            policies: what each takes, by policy and endpoint.
            events: the endpoints whose events are to be followed.
            intervals: the labels of those that follow a schedule.
            quotas: how much may be there at once.
            actions: of the policies that do not delete.
        """
        yield from ((self.interval, labels) for labels in intervals)
        for provider in set(providers.values()):
            for histogram in (self.sweep_seconds, self.deletion_seconds, self.delay_seconds, self.lease_seconds):
                yield histogram, (provider,)
        for name, provider in providers.items():
            where = (provider, name)
            for metric in (
                self.cap_hits,
                self.stuck,
                self.up,
                self.breaker,
                self.skew,
                self.last_sweep,
                self.last_sweep_seconds,
            ):
                yield metric, where
            yield from ((self.evidence, (*where, result)) for result in EVIDENCE)
            yield from ((self.retries, (*where, error)) for error in _retryable())
            yield from ((self.sweeps, (*where, result.value)) for result in SweepResult)
            yield from ((self.kept, (*where, reason.value)) for reason in KEPT)
            concerned = [quota for quota in quotas if quota.concerns(name, kinds_of(provider))]
            yield from ((self.quota_used, (*where, quota.name, measure)) for quota in concerned for measure in quota.limits)
            for kind in kinds_of(provider):
                yield from ((self.resources, (*where, kind.value, state.value)) for state in states_of(kind))
                for by in (LEASE,) if kind.opt_in else DECIDERS:
                    yield from ((self.deletions, (*where, kind.value, by, outcome.value)) for outcome in COUNTED)
                yield self.deletions, (*where, kind.value, UNDECIDED, Outcome.FAILED.value)
                timed = (*where, kind.value, SAFETY_NET, Action.SET_TIMER.value)
                yield from ((self.actions, (*timed, outcome.value)) for outcome in TIMED.get(kind, ()))
            yield self.violations, (*where, SAFETY_NET)
            for by in DECIDERS:
                yield from ((metric, (*where, by)) for metric in (self.reapable, self.oldest_seconds, *self.worth))
            if name in events:
                yield from ((metric, where) for metric in (self.events, self.events_lost))
        for (policy, name), kinds in policies.items():
            where = (providers[name], name)
            yield from ((metric, (*where, policy)) for metric in (self.reapable, self.oldest_seconds, self.last_success))
            yield from ((metric, (*where, policy)) for metric in self.worth)
            for kind in kinds:
                yield from ((self.deletions, (*where, kind.value, policy, outcome.value)) for outcome in COUNTED)
                if (action := actions.get(policy)) is not None:
                    labels = (*where, kind.value, policy, action.value)
                    yield from ((self.actions, (*labels, outcome.value)) for outcome in DONE)


def actions(policies: Iterable[Policy]) -> Mapping[str, Action]:
    """The actions of those of them that do not delete, by name."""
    return {policy.name: policy.action for policy in policies if policy.action is not Action.DELETE}


Reach = Mapping[str, tuple[Collection[Kind], Collection[str]]]
"""The kinds that each policy is for, and the names of its endpoints."""


def reach(endpoints: Iterable[str], policies: Iterable[Policy]) -> Reach:
    """What each of the policies is for, as ``Metrics.configure`` takes it."""
    names = tuple(endpoints)
    return {p.name: (_taken(p), tuple(n for n in names if not p.endpoints or n in p.endpoints)) for p in policies}


def _taken(policy: Policy) -> Collection[Kind]:
    """The kinds that it may take, by itself and with projects; pods and networks go with containers: see ``reclaimed``."""
    along = policy.with_project if Kind.CONTAINER in policy.kinds else ()
    return policy.kinds | {kind for kind in along if not kind.joined}


def reclaimed(kinds: Collection[Kind], provider: str) -> list[Kind]:
    """What a policy for ``kinds`` can take there: what they have joined goes with containers."""
    return [k for k in kinds_of(provider) if k in kinds or (k.joined and Kind.CONTAINER in kinds)]
