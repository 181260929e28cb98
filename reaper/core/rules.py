"""The rules, one after the other, for a single resource among those that were listed together. Pure."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property

from reaper.core.ages import age_base, as_aged, impossible_time
from reaper.core.conditions import (
    DEFAULT_STOP_TIMEOUT,
    SHORTEST_CREATED_GRACE,
    InvalidLabelError,
    Match,
    Policy,
    evaluate,
    override_end,
)
from reaper.core.durations import human, shifted
from reaper.core.finding import Finding, keep, of_other_kinds, passed, reap
from reaper.core.identity import PROJECT_LABEL, SESSION_LABEL, GroupKey, Groups
from reaper.core.lease import Lease
from reaper.core.lease_index import Leases
from reaper.core.lifecycle import created_grace, restart_policy, state
from reaper.core.model import TESTCONTAINERS_REAPER, Action, Decision, Kind, Reason, Resource, Verdict
from reaper.core.owner_process import NO_PROOFS, Orphan, OwnerProcesses, OwnerRule, Proofs
from reaper.core.owners import BY_CONTAINERS, Owners, Ownership
from reaper.core.ownership_rule import INHERITED, OwnershipRule
from reaper.core.scope import LEASE_LABEL, Protect, Scope, Selector, as_scope_reads
from reaper.core.unused import Users, distinguished, in_use, left_to_its_container, new, tagged_once
from reaper.core.wording import clipped

KEEP_LABEL = "reaper.keep"
NOT_ASKED_FOR = "this command asks for others"
AGGRESSIVE_AGE = timedelta(hours=8)  # above the longest trial


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that decides, apart from the resources, the leases and the time.

    Args:
        created_grace: how long a container that was not started yet is left alone; never under ten minutes.
        max_lease: how long a label ``reaper.lease`` protects when the lease is unknown here.
        stop_timeout: how long a running one gets to stop by itself that goes for another reason than a policy.
        owner_rules: how owners are found besides their own label.
        without_policy: what an ended lease or label may take by itself; None: nothing, where only policies were asked for.
    """

    scope: Scope = field(default_factory=Scope)
    protect: Protect = field(default_factory=Protect)
    policies: tuple[Policy, ...] = ()
    created_grace: timedelta = SHORTEST_CREATED_GRACE
    max_lease: timedelta = timedelta(hours=24)
    stop_timeout: timedelta = DEFAULT_STOP_TIMEOUT
    owner_rules: tuple[OwnerRule, ...] = ()
    without_policy: Selector | None = field(default_factory=Selector)

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds that policies name."""
        return frozenset(kind for policy in self.policies for kind in policy.kinds)

    @property
    def with_projects(self) -> frozenset[Kind]:
        """The kinds that go with the containers of their project by one of the policies."""
        of_containers = (policy for policy in self.policies if Kind.CONTAINER in policy.kinds)
        return frozenset(kind for policy in of_containers for kind in policy.with_project)


class Judge:
    """Judges single resources among those that were listed together."""

    def __init__(
        self,
        resources: Iterable[Resource],
        rules: Rules,
        leases: Iterable[Lease] | Leases,
        now: datetime,
        proofs: Proofs = NO_PROOFS,
    ) -> None:
        self.rules = rules
        self.now = now
        self.resources = tuple(resources)
        self.groups = Groups(self.resources)
        self.kinds = rules.kinds
        self._strongest_first = sorted(rules.policies, key=lambda policy: -policy.action.strength)
        owned_kinds = self.kinds | rules.with_projects
        self.owners = Owners(self.resources, rules.scope, self.groups, owned_kinds)
        self.users = Users(self.resources)
        self.leases = leases if isinstance(leases, Leases) else Leases(leases)
        self._ownership = OwnershipRule(self.owners, self.leases, rules.scope, owned_kinds)
        self.here = shifted(now, -self.leases.site.skew)
        self.grace = max(rules.created_grace, SHORTEST_CREATED_GRACE)
        self.processes = OwnerProcesses(
            self.resources, proofs, self.groups, self.owners.preset_of, now, run=self.owners.run_of
        )

    def findings(self, resource: Resource) -> Iterator[Finding]:
        """What every rule says, in order. The first one with a verdict decides."""
        lease = self._covering(resource)
        return self._findings(resource, self._owner(resource, lease), lease)

    def _covering(self, resource: Resource) -> Lease | None:
        """The lease that decides about it.

        The name of a group, by whatever label, claims what is in it while its lease lives; where several have that name,
        it takes nothing afterwards.
        """
        if self.leases.empty:
            return None
        seen = as_scope_reads(resource, self.rules.scope)  # with its own times: a claim depends on them
        lease = self.leases.covering(seen)
        if lease is None or lease.ending is None or not self.groups.several(resource):
            return lease
        inherited = None if seen.inherited is None else seen.inherited | {PROJECT_LABEL, SESSION_LABEL}
        return self.leases.covering(replace(seen, group=None, inherited=inherited))

    def _owner(self, resource: Resource, lease: Lease | None) -> Ownership | None:
        if (owner := self.owners.owner(resource)) is not None:
            return owner
        if lease is not None:
            return Ownership(f"lease {lease.id}")
        if not resource.kind.joined or self.leases.empty:
            return None
        return self._project_owners.get(self.groups.key(resource))

    @cached_property
    def _project_owners(self) -> dict[GroupKey | None, Ownership]:
        """By project whose its networks are where each container is owned, one of them at least by a lease alone."""
        owners: dict[GroupKey | None, Ownership | None] = {}
        for resource in self.resources:
            key = self.groups.key(resource)
            if key is not None and resource.kind.runs and owners.get(key, True):
                owner = self._owner(resource, self._covering(resource))
                owners[key] = owner and Ownership(f"{owner.by}{BY_CONTAINERS}")
        return {key: owner for key, owner in owners.items() if owner is not None}

    def _findings(self, resource: Resource, owner: Ownership | None, lease: Lease | None) -> Iterator[Finding]:
        if resource.excluded is not None:
            yield keep("endpoint", Reason.EXCLUDED, resource.excluded, lambda: f"it is {resource.excluded}")
        yield self._readable(resource)
        yield self._ownership.finding(resource, owner)
        yield self._system_container(resource, lease)
        yield self._protected(resource)
        yield self._override_to_stay(resource)
        yield self._leased(resource, lease)
        if not resource.kind.runs:
            yield from self._findings_of_unused(resource, lease)
            return
        yield state(resource)
        if lease is not None:
            yield self._lease_ended(resource, lease)
        if resource.kind is Kind.CONTAINER or resource.restart_policy is not None:
            yield restart_policy(resource, owner, self.rules.protect)
        yield self._due(resource, created_grace(self._seen(resource), self.grace, self.now))
        yield self._override_to_go(resource)
        yield self._owner_process(resource)
        yield from self._policies(resource)

    def _findings_of_unused(self, resource: Resource, lease: Lease | None) -> Iterator[Finding]:
        """What has no processes goes with its project, where that has containers; else a policy for its kind may take it."""
        if resource.kind is Kind.IMAGE:
            yield tagged_once(resource)
        if lease is not None:
            if resource.kind.opt_in:
                yield left_to_its_container(resource, self.users, self.leases)
            yield self._lease_ended(resource, lease)
        yield self._override_of_unused(resource)
        yield distinguished(resource, self.groups)
        if resource.kind not in self.kinds or self.groups.places(resource):
            return  # left to its group
        yield in_use(resource, self.users)
        yield self._due(resource, new(self._seen(resource), self.grace, self.now))
        if resource.kind is not Kind.IMAGE:  # an image's labels are said of its containers
            yield self._override_to_go(resource)
        yield from self._policies(resource)

    def _seen(self, resource: Resource) -> Resource:
        return as_scope_reads(as_aged(resource, self.leases.site), self.rules.scope)

    def matches(self, resource: Resource, policies: Iterable[Policy] | None = None) -> list[Match]:
        """Every policy, or these, evaluated for the resource, in the order of the configuration."""
        seen, policies = self._seen(resource), self.rules.policies if policies is None else policies
        return [evaluate(seen, policy, self.now, self._orphan(resource), self.here) for policy in policies]

    def _due(self, resource: Resource, grace: Finding) -> Finding:
        """The grace of a new one, due when something takes the resource then: a policy may want it to be older."""
        if (due_at := grace.due_at) is None:
            return grace
        ends = [
            at
            for match in self.matches(resource)
            if resource.kind in match.policy.kinds and (at := self.now if match.matched else match.at) is not None
        ]
        with suppress(InvalidLabelError):  # an earlier rule has kept it
            override = override_end(resource)
            ends += [override[1]] if override is not None else []
        return grace._replace(due_at=max(due_at, min(ends)) if ends else None)

    def _orphan(self, resource: Resource) -> Orphan:
        return self.processes.orphan(resource, age_base(resource))

    def _owner_process(self, resource: Resource) -> Finding:
        say = self._orphan(resource).say
        return Finding("owner process", None, lambda: say)

    def _readable(self, resource: Resource) -> Finding:
        rule = "readable"
        if resource.unreadable is not None:
            sentence = f"it could not be read: {resource.unreadable}"
            return keep(rule, Reason.UNREADABLE, f"unreadable: {resource.unreadable}", lambda: sentence)
        if resource.labels is None:
            return keep(rule, Reason.UNREADABLE, "unreadable: no labels", lambda: "the answer had no labels")
        if resource.created_at is None:
            return keep(rule, Reason.UNREADABLE, "unreadable: no creation time", lambda: "the answer had no creation time")
        if (odd := impossible_time(resource, self.now)) is not None:
            return keep(rule, Reason.UNREADABLE, "unreadable: impossible time", lambda: odd)
        return passed("readable", "everything that the rules need was in the answer")

    def _system_container(self, resource: Resource, lease: Lease | None) -> Finding:
        """A reaper of Testcontainers that was started under a lease is a part of that run; others serve any session."""
        own, rule = lease is not None and resource.own_labels.get(LEASE_LABEL) == lease.id, f"system_{resource.kind}"
        if own and resource.system_container == TESTCONTAINERS_REAPER:
            return Finding(rule, None, lambda: f"it is {resource.system_container}, and its own label names its lease")
        if (what := resource.system_container) is not None:
            return keep(rule, Reason.SYSTEM_CONTAINER, what, lambda: f"it is {what}")
        if resource.kind is Kind.SANDBOX:
            return passed(rule, "no system sandbox of the platform")
        return passed(rule, f"neither this program nor a system {resource.kind} of the host")

    def _protected(self, resource: Resource) -> Finding:
        if sign := self.rules.protect.selector.any_of(resource, resource.protecting_labels):
            return keep("protected", Reason.PROTECTED, f"protected by {sign}", lambda: f"[protect] has {sign}")
        return passed("protected", "nothing in [protect] matches it")

    def _override_to_stay(self, resource: Resource) -> Finding:
        if KEEP_LABEL in resource.protecting_labels:
            whose = "its" if KEEP_LABEL in (resource.labels or {}) else "its anonymous volume's"
            return keep(
                "label override", Reason.KEEP_LABEL, f"label {KEEP_LABEL}", lambda: f"{whose} label {KEEP_LABEL} says so"
            )
        try:
            override_end(resource)
        except InvalidLabelError as error:
            sentence = f"its label override cannot be read: {error}"
            return keep("label override", Reason.INVALID_LABEL, f"invalid label {error.label}", lambda: sentence)
        return passed("label override", "it carries no label override to stay")

    def _leased(self, resource: Resource, lease: Lease | None) -> Finding:
        if lease is not None and lease.ending is None:
            return keep("lease", Reason.LEASED, lease.brief(self.now), lambda: lease.fate(self.now))
        if lease is not None:
            return Finding("lease", None, lambda: lease.fate(self.now))
        lease_id = (resource.labels or {}).get(LEASE_LABEL)
        if lease_id is None:
            return passed("lease", "no lease covers it")
        known, name = self.leases.has(lease_id), clipped(lease_id)
        unknown = f"lease {name} {'was taken after it was made' if known else 'is not known here'}"
        phrase = f"lease {name} is {'newer' if known else 'unknown'}"
        if LEASE_LABEL not in resource.own_labels:
            phrase, unknown = f"{LEASE_LABEL} may be its image's", INHERITED
        base = age_base(self._seen(resource))
        if base is None:
            return keep("lease", Reason.LEASE_UNKNOWN, phrase, lambda: f"{unknown}, nor is its age")
        end = shifted(base, self.rules.max_lease)
        if end > self.now:
            sentence = f"{unknown} and may be another reaper's for {human(end - self.now)} more"
            return keep("lease", Reason.LEASE_UNKNOWN, phrase, lambda: sentence)
        return Finding("lease", None, lambda: f"{unknown}, and it is older than {human(self.rules.max_lease)}")

    def _lease_ended(self, resource: Resource, lease: Lease) -> Finding:
        """Its maker is dead: it is garbage at once, whatever its age."""
        if lease.ending is None:
            return Finding("lease", None, lambda: "it has not ended")  # its own rule has kept the resource
        if not self._is_asked_for(resource):
            return Finding("lease", None, lambda: f"{lease.fate(self.now)}, but {NOT_ASKED_FOR}")
        since = lease.ending.at
        return reap("lease", Reason.LEASE_ENDED, lease.brief(self.now), lambda: lease.fate(self.now), None, since=since)

    def _is_asked_for(self, resource: Resource) -> bool:
        asked_for = self.rules.without_policy
        return asked_for is not None and asked_for.all_of(self._seen(resource))

    def _override_to_go(self, resource: Resource) -> Finding:
        try:
            override = override_end(resource)
        except InvalidLabelError:
            override = None  # an earlier rule has kept it
        if override is None:
            return passed("label override", "it carries no label override to go")
        reason, end, said = override
        if end <= self.now:
            own = override_end(resource, as_scope_reads(resource, self.rules.scope).own_labels)
            if own is None:
                return Finding(
                    "label override", None, lambda: f"its own {said} has ended, but came with its image and takes nothing"
                )
            reason, ended, own_said = own
            phrase = f"{own_said} ended {human(self.now - ended)} ago"
            if not self._is_asked_for(resource):
                return Finding("label override", None, lambda: f"its own {phrase}, but {NOT_ASKED_FOR}")
            return reap("label override", reason, phrase, lambda: f"its own {phrase}", None, since=ended)
        phrase = f"{said} has {human(end - self.now)} left"
        sentence = f"its own {phrase}"
        if any(match.matched and match.policy.overrules for match in self.matches(resource)):
            return Finding("label override", None, lambda: f"{sentence}, which the operator overrules")
        return keep("label override", Reason.LABEL_NOT_DUE, phrase, lambda: sentence, due_at=end)

    def _override_of_unused(self, network: Resource) -> Finding:
        """A label override that is not due keeps a network and its project; one that is due takes nothing by itself."""
        finding = self._override_to_go(network)
        if finding.verdict is not Verdict.KEEP:
            return Finding(finding.rule, None, finding.say)
        if any(policy.overrules and policy.concerns(network) for policy in self.rules.policies):
            return Finding(finding.rule, None, lambda: f"{finding.sentence}, which the operator overrules")
        return finding

    def _policies(self, resource: Resource) -> Iterator[Finding]:
        matched, nearest = False, None
        seen, orphan = self._seen(resource), self._orphan(resource)
        for policy in self._strongest_first:  # one by one: the decision stops at the first that matches
            if resource.kind not in policy.kinds:
                yield of_other_kinds(policy.name, resource.kind)
                continue
            match = evaluate(seen, policy, self.now, orphan, self.here)
            rule = f"policy {policy.name}"
            if match.matched:
                matched = True
                yield reap(rule, match.reason, match.phrase, match.say, policy, since=match.at)
                continue
            yield Finding(rule, None, match.say)
            if match.at is not None and (nearest is None or nearest.at is None or match.at < nearest.at):
                nearest = match
        if matched:
            return
        if nearest is not None:
            yield keep("policies", Reason.TOO_YOUNG, nearest.phrase, nearest.say, due_at=nearest.at)
        else:
            none = "no policy matches"
            yield keep("policies", Reason.NO_POLICY, none, lambda: f"{none}: {self._why_none(resource)}")

    def _why_none(self, resource: Resource) -> str:
        concerned = [match.say() for match in self.matches(resource) if resource.kind in match.policy.kinds]
        return "; ".join(concerned[:2]) or f"there is none for a {resource.kind}"

    def decide(self, resource: Resource) -> Decision:
        """The decision about one resource by itself; a network that nothing keeps is left to its group."""
        lease = self._covering(resource)
        owner = self._owner(resource, lease)
        by = owner.by if owner and resource.excluded is None else None
        for finding in self._findings(resource, owner, lease):
            if finding.verdict is not None:
                break
        else:
            sentence = f"{resource.kind.article} goes only with its project, and it has none"
            return Decision(
                resource,
                Verdict.KEEP,
                Reason.GROUP_KEPT,
                sentence,
                owner=by,
                lease=lease.id if lease is not None else None,
                brief=f"{resource.kind} without a project",
            )
        assert finding.reason is not None
        unowned = finding.reason is Reason.NOT_OWNED
        return Decision(
            resource,
            finding.verdict,
            finding.reason,
            finding.say,
            policy=finding.policy.name if finding.policy else None,
            owner=by,
            since=finding.since,
            stop_timeout=finding.policy.stop_timeout if finding.policy else self.rules.stop_timeout,
            due_at=finding.due_at,
            would_match=unowned and any(match.matched for match in self.matches(resource)),
            by_image=owner is None and self._ownership.by_image(resource) is not None,
            lease=lease.id if lease is not None else None,
            brief=finding.brief,
            action=finding.policy.action if finding.policy else Action.DELETE,
        )
