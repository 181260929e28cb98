"""How much may be there at once, and what goes first when more is there. Pure: no I/O, no clock, no logging.

A quota never takes what a rule keeps: over it, what is reapable goes before its turn, and where it is enforced, what would
be reapable by one more policy: stopped or idle for long enough. All rules hold for both, groups included.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from reaper.core import sizes
from reaper.core.actions import ARCHIVED
from reaper.core.ages import is_leaving
from reaper.core.conditions import Policy
from reaper.core.decide import decide
from reaper.core.identity import group_name
from reaper.core.lease import Lease
from reaper.core.lease_index import Leases
from reaper.core.model import Action, Decision, EndpointReport, Kind, Reason, Resource, State
from reaper.core.owner_process import NO_PROOFS, Proofs
from reaper.core.rules import Rules

DEFAULT_IDLE_FOR = timedelta(hours=8)  # above the longest trial: what looks idle may be at work
COUNT, CPU, MEMORY, DISK = "count", "cpu", "memory", "disk"
MOST_OTHERS = 5  # so often others are taken in place of what stays after all: each time all is decided again
_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of something one endpoint may hold, or each value of a label on it.

    Args:
        limits: by measure; memory and disk in bytes.
        endpoints: names; empty means each one, by itself.
        label: the key by whose values it counts, each by itself; what lacks it is not counted. None counts all together.
        enforce: whether what nothing else takes goes as well when it is idle.
        idle_for: for how long at least that has stopped, or a sandbox shown no activity.
        yields_to: exclusive policies: what they select is for these alone.
    """

    name: str
    kinds: frozenset[Kind]
    limits: Mapping[str, float]
    endpoints: frozenset[str] = frozenset()
    label: str | None = None
    enforce: bool = False
    idle_for: timedelta = DEFAULT_IDLE_FOR
    yields_to: tuple[Policy, ...] = ()

    def scope_of(self, resource: Resource) -> str | None:
        """The value of the label that it counts for; empty where all count together, None where it does not count."""
        if resource.kind not in self.kinds or (self.endpoints and resource.endpoint not in self.endpoints):
            return None
        if is_leaving(resource) or resource.raw_state == ARCHIVED:
            return None  # an archived one takes nothing of what is limited
        return "" if self.label is None else resource.own_labels.get(self.label) or None

    def concerns(self, endpoint: str, kinds: Collection[Kind]) -> bool:
        """Whether it is for an endpoint that may hold these kinds."""
        return bool(self.kinds.intersection(kinds)) and (not self.endpoints or endpoint in self.endpoints)

    def policies(self) -> tuple[Policy, ...]:
        """What it would take when it is enforced: what has stopped, and sandboxes that show no activity, for long enough."""
        policy = Policy(self.name, self.kinds, endpoints=self.endpoints, yields_to=self.yields_to)
        stopped = replace(policy, stopped_for=self.idle_for)
        if Kind.SANDBOX not in self.kinds:
            return (stopped,)
        idle = replace(policy, kinds=frozenset({Kind.SANDBOX}), idle_for=self.idle_for)
        return stopped, idle


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a quota is, for one endpoint, value of its label and measure."""

    quota: Quota
    endpoint: str
    value: str
    measure: str
    used: float

    @property
    def limit(self) -> float:
        """How much may be there."""
        return self.quota.limits[self.measure]

    @property
    def share(self) -> float:
        """How full it is: 1 is full."""
        return self.used / self.limit if self.limit else float(self.used > 0)

    @property
    def exceeded(self) -> bool:
        """Whether more is there than may be."""
        return self.used > self.limit

    def __str__(self) -> str:
        """Such as "quota per-user: user=ada has 25 of 20 containers"."""
        whose = f"{self.quota.label}={self.value} has " if self.quota.label is not None else ""
        counted = " and ".join(sorted(kind.plural for kind in self.quota.kinds))
        what = {COUNT: counted, CPU: "CPUs"}.get(self.measure, self.measure)
        spell = partial(_spelt, self.measure)
        return f"quota {self.quota.name}: {whose}{spell(self.used)} of {spell(self.limit)} {what}"


def _spelt(measure: str, amount: float) -> str:
    return sizes.human(round(amount)) if measure in (MEMORY, DISK) else f"{amount:g}"


def _amount(resource: Resource, measure: str) -> float:
    """What it takes. CPU and memory are free when it has stopped; what its endpoint does not report counts nothing."""
    footprint, runs = resource.footprint, resource.state in (State.RUNNING, State.CHANGING, State.UNKNOWN)
    amounts = {COUNT: 1, CPU: footprint.cpu if runs else 0, MEMORY: footprint.memory if runs else 0, DISK: footprint.disk}
    return float(amounts[measure] or 0)


def usages(quotas: Iterable[Quota], endpoints: Iterable[str], resources: Sequence[Resource]) -> list[Usage]:
    """How full each quota is, for the endpoints that it is for; of one by label for each value that is there."""
    found = []
    for quota in quotas:
        used: dict[tuple[str, str, str], float] = {}
        if quota.label is None:
            names = [name for name in endpoints if not quota.endpoints or name in quota.endpoints]
            used = {(name, "", measure): 0.0 for name in names for measure in quota.limits}
        for resource in resources:
            if (value := quota.scope_of(resource)) is not None:
                for measure in quota.limits:
                    key = resource.endpoint, value, measure
                    used[key] = used.get(key, 0.0) + _amount(resource, measure)
        found += [Usage(quota, *key, amount) for key, amount in sorted(used.items())]
    return found


def usages_of(quotas: Iterable[Quota], report: EndpointReport, kinds: Collection[Kind]) -> list[Usage]:
    """How full each quota is after a sweep of an endpoint that may hold these kinds; nothing where it was not listed."""
    if not report.decisions and report.failure is not None:
        return []
    left = [decision.resource for decision in report.remaining]
    return usages([quota for quota in quotas if quota.concerns(report.endpoint, kinds)], [report.endpoint], left)


def fullest(quotas: Iterable[Quota], endpoint: str, resources: Sequence[Resource]) -> dict[tuple[str, str], float]:
    """How full the fullest value of each quota's label is on this endpoint, by the quota's name and measure."""
    quotas = list(quotas)
    found = {(quota.name, measure): 0.0 for quota in quotas for measure in quota.limits}
    for usage in usages(quotas, [endpoint], resources):
        key = usage.quota.name, usage.measure
        found[key] = max(found.get(key, 0.0), usage.share)
    return found


def decide_within(
    resources: Sequence[Resource],
    rules: Rules,
    leases: Iterable[Lease] | Leases,
    now: datetime,
    *,
    quotas: Sequence[Quota],
    due: Collection[str] | None = None,
    chosen: Collection[str] | None = None,
    proofs: Proofs = NO_PROOFS,
) -> list[Decision]:
    """What ``decide`` says, and what goes besides since a quota is exceeded, the oldest first and no more than it takes."""
    judge = partial(decide, leases=leases, now=now, proofs=proofs)
    decisions = judge(resources, rules, due=due, chosen=chosen)
    if not quotas or not (over := list(_exceeded(quotas, decisions))):
        return decisions
    if due is not None:
        decisions = _take(decisions, partial(judge, resources, rules), over)
    used: list[Quota] = []
    for quota in quotas:
        over = [usage for usage in _exceeded(quotas, decisions) if usage.quota is quota and quota.enforce]
        if over:  # no other quota's time lets something go for this one
            may = judge(resources, with_policies(rules, [quota]))
            used = [quota, *used]
            decisions = _take(decisions, partial(judge, resources, with_policies(rules, used)), over, may)
    return decisions


def with_policies(rules: Rules, quotas: Iterable[Quota]) -> Rules:
    """The rules by which what these quotas take is judged, and judged again just before it goes."""
    more = {quota.name: quota.policies() for quota in quotas if quota.enforce}
    return replace(rules, policies=(*rules.policies, *(policy for policies in more.values() for policy in policies)))


def in_force(rules: Rules, quotas: Iterable[Quota], going: Iterable[Decision]) -> Rules:
    """The rules with the policies of those quotas by which something goes."""
    names = {decision.policy for decision in going}
    used = [quota for quota in quotas if quota.name in names]
    return with_policies(rules, used) if used else rules


def _exceeded(quotas: Sequence[Quota], decisions: Sequence[Decision]) -> Iterator[Usage]:
    """What is over its limit when all that goes is gone."""
    left = [after for decision in decisions if (after := _after(decision)) is not None]
    return (usage for usage in usages(quotas, (), left) if usage.exceeded)


def _after(decision: Decision) -> Resource | None:
    """What is left of it when that is done; None when nothing is."""
    if not decision.reap:
        return decision.resource
    if decision.deletes:
        return None
    raw = ARCHIVED if decision.action is Action.ARCHIVE else "stopped"
    return replace(decision.resource, state=State.STOPPED, raw_state=raw)


_Unit = tuple[str, ...]


def _unit(resource: Resource) -> _Unit:
    """What goes together. Groups of one name do: a folder that was moved makes two of one."""
    return group_name(resource) or (resource.endpoint, "", resource.kind.value, resource.id)


def _take(
    decisions: list[Decision],
    judge: Callable[..., list[Decision]],
    over: Sequence[Usage],
    wider: list[Decision] | None = None,
) -> list[Decision]:
    """Take units from what more may go, the oldest first, until nothing is over any more or there are no more of them.

    Args:
        decisions: as they stand.
        judge: decides about the same resources when everything may go that some quota takes.
        over: what is exceeded.
        wider: what it decides when that alone may go which these quotas take; the same when None.
    """
    wider = judge() if wider is None else wider
    units: dict[_Unit, list[int]] = {}
    for i, decision in enumerate(decisions):
        units.setdefault(_unit(decision.resource), []).append(i)
    new = {i for i, one in enumerate(wider) if one.reap and not decisions[i].reap and _goes_or_follows(one)}
    free = {
        unit: [i for i in members if i in new]
        for unit, members in units.items()
        if any(i in new for i in members) and all(wider[i].reap or not _is_deciding(decisions[i]) for i in members)
    }
    order = sorted(free, key=lambda unit: (_oldest(decisions, units[unit]), unit))
    gains = {unit: [_gain(usage, [wider[i] for i in free[unit]]) for usage in over] for unit in order}
    taken, going, others = _as_many_as_it_takes(over, gains), decisions, MOST_OTHERS
    while taken:
        chosen = {decisions[i].resource.id for unit in taken for i in free[unit]}
        going = judge(chosen=chosen | {decision.resource.id for decision in decisions if decision.deletes})
        if not (kept := {unit for unit in taken if any(_is_missing(going[i]) for i in free[unit])}):
            break
        # What something uses that stays does so as well, and others may go in its place.
        gains, others = {unit: gain for unit, gain in gains.items() if unit not in kept}, others - 1
        without = {unit: usage for unit, usage in taken.items() if unit not in kept}
        taken = _as_many_as_it_takes(over, gains) if others >= 0 else without
    result = list(decisions)
    for unit, usage in taken.items():
        for i in (i for i in free[unit] if going[i].reap):
            # What others have let go is judged by their time as well, which may do more than this one lets it.
            result[i] = replace(wider[i], said=f"{wider[i].sentence}; {usage}", brief=f"quota {usage.quota.name} exceeded")
    return result


def _as_many_as_it_takes(over: Sequence[Usage], gains: Mapping[_Unit, Sequence[float]]) -> dict[_Unit, Usage]:
    """The first of these units, until nothing is over any more, and for what each goes; none of them could be left out.

    Args:
        over: what is exceeded.
        gains: what each unit gives back of that, the oldest unit first.
    """
    taken: dict[_Unit, Usage] = {}
    excess = [usage.used - usage.limit for usage in over]
    for unit, gain in gains.items():
        reason = next((usage for usage, left, back in zip(over, excess, gain, strict=True) if left > 0 and back > 0), None)
        if reason is not None:
            taken[unit] = reason
            excess = [left - back for left, back in zip(excess, gain, strict=True)]
    for unit in reversed(list(taken)):  # a later one may give back so much that an earlier one need not go
        without = [left + back for left, back in zip(excess, gains[unit], strict=True)]
        if all(left <= 0 for left, back in zip(without, gains[unit], strict=True) if back > 0):
            del taken[unit]
            excess = without
    return taken


def _goes_or_follows(decision: Decision) -> bool:
    """Whether a quota may take it: of volumes and images only what goes with its project, and would be left for good."""
    return not decision.resource.kind.opt_in or decision.reason is Reason.GROUP_REAPED


def _is_missing(decision: Decision) -> bool:
    """Whether its unit stays with it: a volume or an image that something else uses stays by itself."""
    return not decision.reap and not decision.resource.kind.opt_in


def _is_deciding(decision: Decision) -> bool:
    """Whether its unit goes only with it: what has no processes follows, and may stay for a reason of its own."""
    return decision.resource.kind.runs and not decision.reap


def _oldest(decisions: Sequence[Decision], members: Iterable[int]) -> datetime:
    return min((at for i in members if (at := decisions[i].resource.created_at) is not None), default=_LAST)


def _gain(usage: Usage, going: Iterable[Decision]) -> float:
    """What of it these give back."""
    return sum(_counted(usage, decision.resource) - _counted(usage, _after(decision)) for decision in going)


def _counted(usage: Usage, resource: Resource | None) -> float:
    if resource is None or resource.endpoint != usage.endpoint or usage.quota.scope_of(resource) != usage.value:
        return 0.0
    return _amount(resource, usage.measure)
