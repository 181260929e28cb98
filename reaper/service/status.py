"""State of a running service: for the status page, the health checks and the metrics. No I/O in here.

``Status`` is one more observer of the sweeps; the service sets the rest. It holds no more than it has to show, so
that it does not grow with time.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from reaper.core.decide import young_and_running
from reaper.core.disk import DiskUsage
from reaper.core.model import Decision, EndpointReport, Outcome, Reason
from reaper.core.savings import NO_PRICES, Entry, Prices, Total
from reaper.sweep.ports import Observer

SHOWN_REAPABLE, SHOWN_DELETIONS, SHOWN_LEASES = 100, 50, 50


@dataclass(frozen=True, slots=True)
class Reapable:
    """One resource that was reapable at the last look and has not gone since.

    Args:
        since: from when on it was reapable, where that is known.
    """

    id: str
    name: str
    kind: str
    policy: str | None
    sentence: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Deletion:
    """One result of a sweep that acted, as the page shows it.

    Args:
        evidence_of: the id by which ``reaper history --show`` prints its evidence, where some was saved.
    """

    at: datetime
    endpoint: str
    kind: str
    name: str
    policy: str | None
    sentence: str
    outcome: Outcome
    detail: str
    evidence_of: str | None = None


@dataclass(slots=True)
class EndpointStatus:
    """What is known about one endpoint.

    Args:
        up: whether the last look at it went well; None before the first one.
        listed_at: the last complete listing.
        error: why the last sweep failed.
        failing_since: the first of the failures in a row.
        next_try_at: until when it is left alone after a failure.
        held: how many resources it holds, by the normalised state in ``states``.
        reapable: how many of them are reapable now; ``shown`` has the first of them.
        oldest: since when the oldest of them is reapable.
        cap: what the deletion cap refused in the last sweep, for people.
        breaker_open: whether the last sweep stopped asking it because call after call failed.
        events: whether its events are followed now; None where it has none or they are not wanted.
        events_error: why they are not followed.
        suspect_since: when they were lost, while it has not been listed since; it may be down.
        young: how many that are owned run, and are kept for no other reason than their age.
        sweeping_since: set while it is being swept.
        disk: how full its disk is, where a policy runs under pressure; ``pressed`` whether that is too full, and
            ``in_the_way`` what is said where nothing more may be deleted.
    """

    name: str
    provider: str
    up: bool | None = None
    listed_at: datetime | None = None
    error: str | None = None
    failing_since: datetime | None = None
    next_try_at: datetime | None = None
    held: int = 0
    states: Mapping[str, int] = field(default_factory=dict)
    reapable: int = 0
    shown: tuple[Reapable, ...] = ()
    oldest: datetime | None = None
    clock_skew: timedelta = timedelta(0)
    cap: str | None = None
    breaker_open: bool = False
    events: bool | None = None
    events_error: str | None = None
    suspect_since: datetime | None = None
    young: int = 0
    sweeping_since: datetime | None = None
    disk: DiskUsage | None = None
    pressed: bool = False
    in_the_way: str | None = None


@dataclass(slots=True)
class PolicyStatus:
    """What is known about one policy.

    Args:
        schedule: for people: "every 10m", "cron 15 * * * * (UTC)".
        endpoints: the names of those that it is for.
        next_at: when it is due next.
        last_at: by endpoint, when the last sweep ended in which it was due.
        last_success_at: by endpoint, when the last one ended that failed nowhere.
        takes: for people: what it takes, and under which conditions.
    """

    name: str
    schedule: str
    endpoints: tuple[str, ...]
    next_at: datetime | None = None
    last_at: dict[str, datetime] = field(default_factory=dict)
    last_success_at: dict[str, datetime] = field(default_factory=dict)
    takes: str = ""


@dataclass(frozen=True, slots=True)
class OpenLease:
    """One lease that keeps what it covers.

    Args:
        holder: who holds it, for people; ``command`` is what that runs, and ``user`` whose it is.
        covers: for people: what it claims besides what carries its label.
        waiting: whether its holder has not been heard of for a moment.
    """

    id: str
    holder: str
    user: str
    command: str
    covers: tuple[str, ...]
    since: datetime
    waiting: bool


@dataclass
class Status(Observer):
    """Everything.

    Args:
        clock: returns the time (aware UTC).
        config_file: the file in force; None when the defaults are.
        reload_error: why the last reload was refused; None after one that was not.
        draining: whether the service is on its way out.
        dry_run: whether it deletes nothing.
        leases: the open ones, the oldest first, no more than are shown, and ``leases_open`` how many there are; None where
            no leases can be taken. ``leases_error`` is why they cannot be read or written.
        worth: what the deletions since its start were worth, by endpoint, owner and policy, at these ``prices``.
        beat_at: when the scheduler last fired its heartbeat, and ``loop_at`` when the event loop last came round.
    """

    version: str
    started_at: datetime
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    config_file: str | None = None
    loaded_at: datetime | None = None
    reload_error: str | None = None
    draining: bool = False
    dry_run: bool = False
    beat_at: datetime | None = None
    loop_at: datetime | None = None
    journal_error: str | None = None
    leases: tuple[OpenLease, ...] | None = None
    leases_open: int = 0
    leases_error: str | None = None
    endpoints: dict[str, EndpointStatus] = field(default_factory=dict)
    policies: dict[str, PolicyStatus] = field(default_factory=dict)
    deletions: deque[Deletion] = field(default_factory=lambda: deque(maxlen=SHOWN_DELETIONS))
    prices: Prices = NO_PRICES
    worth: dict[tuple[str, str, str], Total] = field(default_factory=dict)

    def configure(
        self,
        endpoints: Mapping[str, str],
        policies: Mapping[str, tuple[str, Sequence[str]]],
        takes: Mapping[str, str] | None = None,
    ) -> None:
        """These are what there is from now on; what is known of those that stay is kept.

        Args:
            endpoints: the provider of each, by name.
            policies: the schedule of each for people, and the endpoints that it is for, by name.
            takes: what each takes, for people, by its name.
        """
        self.endpoints = {n: self.endpoints.get(n) or EndpointStatus(n, provider) for n, provider in endpoints.items()}
        before, self.policies = self.policies, {}
        for name, (schedule, names) in policies.items():
            old = before.get(name)
            self.policies[name] = PolicyStatus(
                name,
                schedule,
                tuple(names),
                last_at={n: at for n, at in old.last_at.items() if n in names} if old else {},
                last_success_at={n: at for n, at in old.last_success_at.items() if n in names} if old else {},
                takes=(takes or {}).get(name, ""),
            )

    def snapshot(self) -> "Status":
        """A copy that stands still, for what reads it in another thread. Costs microseconds an endpoint."""
        return replace(
            self,
            endpoints={name: replace(endpoint) for name, endpoint in self.endpoints.items()},
            policies={
                name: replace(policy, last_at=dict(policy.last_at), last_success_at=dict(policy.last_success_at))
                for name, policy in self.policies.items()
            },
            deletions=deque(self.deletions, maxlen=SHOWN_DELETIONS),
            worth={key: replace(total) for key, total in self.worth.items()},
        )

    # -- an observer of sweeps -----------------------------------------------------------------------------------------

    def listed(self, endpoint: str, held: int) -> None:
        """See ``sweep.Observer``."""
        if (shown := self.endpoints.get(endpoint)) is not None:  # it may have left the configuration meanwhile
            shown.held = held
            shown.up, shown.listed_at = True, self.clock()

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:
        """See ``sweep.Observer``."""
        if (shown := self.endpoints.get(endpoint)) is None:
            return
        shown.held = len(decisions)
        shown.states = Counter(decision.resource.state.value for decision in decisions)
        # What no policy of that sweep was due for is garbage all the same.
        reapable = [decision for decision in decisions if decision.reap or decision.reason is Reason.NOT_DUE]
        shown.reapable = len(reapable)
        shown.young = len(young_and_running(decisions))
        shown.oldest = min((d.since for d in reapable if d.since is not None), default=None)
        shown.shown = tuple(
            Reapable(d.resource.id, d.resource.name, d.resource.kind.value, d.policy, d.sentence, d.since)
            for d in reapable[:SHOWN_REAPABLE]
        )

    def finished(self, report: EndpointReport) -> None:
        """See ``sweep.Observer``."""
        endpoint = self.endpoints.get(report.endpoint)
        if endpoint is None:
            return
        endpoint.clock_skew = report.clock_skew
        if report.decisions:
            self.decided(report.endpoint, report.remaining)

    def remember(self, at: datetime, report: EndpointReport) -> None:
        """Show the results of a sweep, with all that it did under pressure, the newest first."""
        if (shown := self.endpoints.get(report.endpoint)) is not None:
            shown.cap = f"{report.cap.wanted} would have gone, {report.cap.limit}" if report.cap else None
        for result in report.results:
            if result.outcome in (Outcome.WOULD_DELETE, Outcome.ABANDONED):
                continue
            decision, resource, entry = result.decision, result.decision.resource, Entry.of(result)
            self.worth.setdefault(entry.key, Total()).add(entry, self.prices)
            self.deletions.appendleft(
                Deletion(
                    at,
                    report.endpoint,
                    resource.kind.value,
                    resource.name,
                    decision.policy,
                    decision.sentence,
                    result.outcome,
                    result.detail,
                    resource.short_id if result.evidence else None,
                )
            )
