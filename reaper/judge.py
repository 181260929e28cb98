"""The rules, one after the other, for a single resource among those that were listed together. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from reaper.conditions import Match, Policy, age_base, hold, wish_end
from reaper.durations import human
from reaper.model import Decision, Kind, Lease, Reason, Resource, State, Verdict
from reaper.scope import Owners, Ownership, Protect, Scope

KEEP_LABEL = "reaper.keep"
LEASE_LABEL = "reaper.lease"
SHORTEST_CREATED_GRACE = timedelta(minutes=10)
AGGRESSIVE_AGE = timedelta(hours=8)  # above the longest trial


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that decides, apart from the resources, the leases and the time.

    Args:
        created_grace: how long a container that nobody has started yet is left alone; never under ten minutes.
        max_lease: how long a label ``reaper.lease`` protects when nobody here knows the lease.
    """

    scope: Scope = field(default_factory=Scope)
    protect: Protect = field(default_factory=Protect)
    policies: tuple[Policy, ...] = ()
    created_grace: timedelta = SHORTEST_CREATED_GRACE
    max_lease: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says of one resource.

    Args:
        rule: the rule's name, as ``reaper explain`` prints it.
        verdict: None when the rule leaves the matter to the next one.
    """

    rule: str
    verdict: Verdict | None
    sentence: str
    reason: Reason | None = None
    policy: Policy | None = None
    since: datetime | None = None
    due_at: datetime | None = None


def _keep(rule: str, reason: Reason, sentence: str, due_at: datetime | None = None) -> Finding:
    return Finding(rule, Verdict.KEEP, sentence, reason, due_at=due_at)


def _reap(rule: str, reason: Reason, sentence: str, policy: Policy | None, since: datetime | None) -> Finding:
    return Finding(rule, Verdict.REAP, sentence, reason, policy, since)


class Judge:
    """Judges single resources among those that were listed together."""

    def __init__(self, resources: Iterable[Resource], rules: Rules, leases: Iterable[Lease], now: datetime) -> None:
        self.rules = rules
        self.now = now
        self.owners = Owners(resources, rules.scope)
        self.leases = {lease.id: lease for lease in leases}
        self.leased = {id_: lease for lease in self.leases.values() for id_ in lease.resources}
        self.grace = max(rules.created_grace, SHORTEST_CREATED_GRACE)

    def findings(self, resource: Resource) -> Iterator[Finding]:
        """What every rule says, in order. The first one with a verdict decides."""
        owner = self.owners.owner(resource)
        yield self._readable(resource)
        yield self._owned(owner)
        yield self._machinery(resource)
        yield self._protected(resource)
        yield self._wish_to_stay(resource)
        yield self._leased(resource)
        if resource.kind is Kind.NETWORK:
            yield self._network_wish(resource)
            return  # it goes with its project's containers, and no policy judges it
        yield self._state(resource)
        yield self._restart_policy(resource, owner)
        yield self._grace(resource)
        yield self._wish_to_go(resource)
        yield from self._policies(resource)

    def matches(self, resource: Resource) -> list[Match]:
        """Every policy held against the resource, in the order of the configuration."""
        return [hold(resource, policy, self.now) for policy in self.rules.policies]

    def _readable(self, resource: Resource) -> Finding:
        rule = "readable"
        if resource.unreadable is not None:
            return _keep(rule, Reason.UNREADABLE, f"it could not be read: {resource.unreadable}")
        if resource.labels is None:
            return _keep(rule, Reason.UNREADABLE, "the answer had no labels")
        if resource.created_at is None:
            return _keep(rule, Reason.UNREADABLE, "the answer had no creation time")
        return Finding(rule, None, "everything that the rules need was in the answer")

    def _owned(self, owner: Ownership | None) -> Finding:
        if owner is None:
            return _keep("owned", Reason.NOT_OWNED, "nothing in [scope] matches it")
        return Finding("owned", None, f"owned: {owner.by}")

    def _machinery(self, resource: Resource) -> Finding:
        if resource.machinery is not None:
            return _keep("machinery", Reason.MACHINERY, f"it is {resource.machinery}")
        return Finding("machinery", None, "neither this program nor the host's machinery")

    def _protected(self, resource: Resource) -> Finding:
        if sign := self.rules.protect.selector.any_of(resource):
            return _keep("protected", Reason.PROTECTED, f"[protect] has {sign}")
        return Finding("protected", None, "nothing in [protect] matches it")

    def _wish_to_stay(self, resource: Resource) -> Finding:
        if KEEP_LABEL in (resource.labels or {}):
            return _keep("wish", Reason.WISH_KEEP, f"its label {KEEP_LABEL} says so")
        try:
            wish_end(resource)
        except ValueError as error:
            return _keep("wish", Reason.WISH_UNREADABLE, f"its wish cannot be read: {error}")
        return Finding("wish", None, "it carries no wish to stay")

    def _leased(self, resource: Resource) -> Finding:
        lease_id = (resource.labels or {}).get(LEASE_LABEL)
        lease = self.leased.get(resource.id) or self.leases.get(lease_id or "")
        if lease is not None:
            return _keep("lease", Reason.LEASED, f"lease {lease.id} of {lease.owner} is alive")
        if lease_id is None:
            return Finding("lease", None, "no lease covers it")
        base = age_base(resource)
        if base is None:
            return _keep("lease", Reason.LEASE_UNKNOWN, f"lease {lease_id} is not known here, nor is its age")
        end = base + self.rules.max_lease
        if end > self.now:
            sentence = f"lease {lease_id} is not known here and may be another reaper's for {human(end - self.now)} more"
            return _keep("lease", Reason.LEASE_UNKNOWN, sentence)
        sentence = f"lease {lease_id} is not known here, and it is older than {human(self.rules.max_lease)}"
        return Finding("lease", None, sentence)

    def _state(self, resource: Resource) -> Finding:
        if resource.state is State.CHANGING and not resource.inspected:
            # After a removal that failed, Docker's listing says removing for ever while the inspection says dead.
            return Finding("state", None, f"it is listed as {resource.raw_state}, which only an inspection can tell")
        if resource.state is State.CHANGING:
            return _keep("state", Reason.CHANGING, f"it is {resource.raw_state}: wait")
        if resource.state is State.UNKNOWN:
            return _keep("state", Reason.UNKNOWN_STATE, f"its state {resource.raw_state!r} is not known here")
        return Finding("state", None, f"its state is {resource.raw_state}")

    def _restart_policy(self, resource: Resource, owner: Ownership | None) -> Finding:
        rule = "restart policy"
        name = resource.restart_policy
        if name not in self.rules.protect.restart_policies:
            return Finding(rule, None, f"its restart policy is {name or 'not known yet'}")
        if owner is not None and owner.preset:
            return Finding(rule, None, f"its restart policy is {name}, but {owner.by} owns it")
        return _keep(rule, Reason.RESTART_POLICY, f"its restart policy {name} says that somebody wants it up")

    def _grace(self, resource: Resource) -> Finding:
        rule = "created grace"
        if not resource.never_started or resource.created_at is None:
            return Finding(rule, None, "it has been started")
        end = resource.created_at + self.grace
        fact = f"created {human(self.now - resource.created_at)} ago and never started"
        if end > self.now:
            sentence = f"{fact}; within {human(self.grace)} a runner may be about to start it"
            return _keep(rule, Reason.CREATED_GRACE, sentence, due_at=end)
        return Finding(rule, None, fact)

    def _wish_to_go(self, resource: Resource) -> Finding:
        try:
            wish = wish_end(resource)
        except ValueError:
            wish = None  # an earlier rule has kept it
        if wish is None:
            return Finding("wish", None, "it carries no wish to go")
        reason, end, said = wish
        if end <= self.now:
            return _reap("wish", reason, f"{said} ended {human(self.now - end)} ago", None, end)
        sentence = f"{said} has {human(end - self.now)} left"
        if any(match.matched and match.policy.every_resource for match in self.matches(resource)):
            return Finding("wish", None, f"{sentence}, which the operator overrules")
        return _keep("wish", Reason.WISH_NOT_DUE, sentence, due_at=end)

    def _network_wish(self, network: Resource) -> Finding:
        """A wish that is not due keeps a network, and with it its project; one that is due takes nothing by itself."""
        finding = self._wish_to_go(network)
        if finding.verdict is not Verdict.KEEP:
            return Finding(finding.rule, None, finding.sentence)
        if any(policy.every_resource and policy.concerns(network) for policy in self.rules.policies):
            return Finding(finding.rule, None, f"{finding.sentence}, which the operator overrules")
        return finding

    def _policies(self, resource: Resource) -> Iterator[Finding]:
        matches = []
        for policy in self.rules.policies:  # one by one: whoever decides stops at the first that matches
            held = hold(resource, policy, self.now)
            matches.append(held)
            rule = f"policy {policy.name}"
            if held.matched:
                yield _reap(rule, held.reason, held.sentence, policy, held.at)
            else:
                yield Finding(rule, None, held.sentence)
        if any(held.matched for held in matches):
            return
        waiting = [match for match in matches if not match.matched and match.at is not None]
        if waiting:
            nearest = min(waiting, key=lambda match: match.at or self.now)
            yield _keep("policies", Reason.TOO_YOUNG, nearest.sentence, due_at=nearest.at)
        else:
            concerned = [match.sentence for match in matches if resource.kind in match.policy.kinds]
            why = "; ".join(concerned[:2]) or f"there is none for a {resource.kind}"
            yield _keep("policies", Reason.NO_POLICY, f"no policy matches: {why}")

    def decide(self, resource: Resource) -> Decision:
        """The decision about one resource by itself; a network that nothing keeps is left to its group."""
        owner = self.owners.owner(resource)
        final = next((finding for finding in self.findings(resource) if finding.verdict is not None), None)
        if final is None:
            sentence = "a network goes only with its project, and it has none"  # ``groups`` has another if it has one
            return Decision(resource, Verdict.KEEP, Reason.GROUP_KEPT, sentence, owner=owner.by if owner else None)
        assert final.verdict is not None
        assert final.reason is not None
        unowned = final.reason is Reason.NOT_OWNED
        decision = Decision(
            resource,
            final.verdict,
            final.reason,
            final.sentence,
            policy=final.policy.name if final.policy else None,
            owner=owner.by if owner else None,
            since=final.since,
            due_at=final.due_at,
            would_match=unowned and any(match.matched for match in self.matches(resource)),
        )
        return replace(decision, stop_timeout=final.policy.stop_timeout) if final.policy else decision
