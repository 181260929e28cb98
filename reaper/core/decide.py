"""When a resource is garbage. Pure: no I/O, no clock, no logging; time comes in as an argument.

``decide`` judges everything that an endpoint holds; ``explain`` lists the rules one after the other; and
``needs_inspection`` says what must be looked at more closely before a decision can be trusted. The rules for one
resource stand in ``judge``, the conditions of a policy in ``conditions``, and what groups add in ``groups``.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from reaper.core.ages import hangs_in_deletion
from reaper.core.durations import shifted
from reaper.core.finding import Finding
from reaper.core.groups import Units
from reaper.core.lease import Lease
from reaper.core.lease_index import Leases
from reaper.core.model import Decision, Kind, Reason, Resource, State
from reaper.core.owner_process import NO_PROOFS, OWNER_LABEL, Fate, Proofs
from reaper.core.rules import Judge, Rules

CLOCKS_DIFFER = timedelta(minutes=1)


def decide(
    resources: Sequence[Resource],
    rules: Rules,
    leases: Iterable[Lease] | Leases,
    now: datetime,
    due: Collection[str] | None = None,
    *,
    chosen: Collection[str] | None = None,
    proofs: Proofs = NO_PROOFS,
) -> list[Decision]:
    """Decide about everything that one listing returned.

    Args:
        resources: all that the endpoints hold, unowned things included: groups are judged as a whole.
        rules: scope, protection and policies.
        leases: the living ones, and those that have ended.
        now: aware UTC, on the endpoint's clock.
        due: the policies on whose behalf this pass acts; None means all of them. All policies judge, but a unit is only
            reaped when one that matches is due.
        chosen: ids of what may go in this round; None means all.
        proofs: what this host has found out about owner processes.

    Returns:
        one decision for each resource, in the same order.
    """
    judge = Judge(resources, rules, leases, now, proofs)
    decisions = [_apart(judge.decide(resource), now) for resource in resources]
    if not any(decision.reap or not decision.resource.kind.runs for decision in decisions):
        return decisions  # groups keep what was to go, and take networks, volumes and images
    units = Units(judge, decisions)
    units.settle()
    if due is not None:
        units.keep_what_is_not_due(due)
    if chosen is not None:
        units.postpone_all_but(chosen)
    return units.decisions


def _apart(decision: Decision, now: datetime) -> Decision:
    """One that only its hanging deletion keeps stands alone: it would keep its session, and its owner, for good."""
    resource = decision.resource
    if decision.reason is not Reason.CHANGING or not hangs_in_deletion(resource, now):
        return decision
    return replace(decision, resource=replace(resource, group=None, uses=frozenset()))


def needs_inspection(decisions: Iterable[Decision]) -> list[Resource]:
    """What must be inspected before these decisions can be trusted; decide again with what came of it.

    Those whose image is not known yet come first, since the image may own a whole project and its labels may be the
    container's own or not; then those that are reaped by what the listing alone says, or would be if it were due.
    """
    unseen = [decision for decision in decisions if not decision.resource.inspected]
    unresolved = [d.resource for d in unseen if _image_matters(d) and not d.resource.unreadable]
    return unresolved or [d.resource for d in unseen if d.reap or d.reason is Reason.NOT_DUE]


def _image_matters(decision: Decision) -> bool:
    """Whether more must be known of its image: its name, or which labels came with it."""
    resource = decision.resource
    names_owner = OWNER_LABEL in (resource.labels or {})
    unknown = resource.inherited is None and (decision.by_image or resource.group is not None or names_owner)
    return resource.image_unresolved or unknown


def may_be_linked(decisions: Iterable[Decision]) -> list[Resource]:
    """What stays and may go with something that is reaped, while its links are not inspected.

    A container may live in another's PID or IPC namespace, and Docker's listing does not show it. Daytona deletes a
    sandbox's linked ones with it, and its listing does not show the links. Where they run says nothing: an archived
    one runs nowhere, and a restored one elsewhere. What is only to be stopped or archived stays, and a deletion takes it.
    """
    decisions = tuple(decisions)
    reaped, deleted = _oldest(d for d in decisions if d.reap), _oldest(d for d in decisions if d.deletes)
    found = []
    for decision in decisions:
        resource = decision.resource
        oldest = (deleted if decision.reap else reaped).get(resource.endpoint)
        if not decision.deletes and not resource.links_known and oldest is not None and _may_be_linked(resource, oldest):
            found.append(resource)
    return found


def _oldest(decisions: Iterable[Decision]) -> dict[str, Resource]:
    """The oldest of the resources that run, by their endpoint."""
    oldest: dict[str, Resource] = {}
    for resource in (decision.resource for decision in decisions if decision.resource.kind.runs):
        if resource.endpoint not in oldest or _after(oldest[resource.endpoint], resource):
            oldest[resource.endpoint] = resource
    return oldest


def possible_owners(resource: Resource, decisions: Iterable[Decision]) -> frozenset[str]:
    """The ids of what is reaped that the resource may be linked to."""
    endpoint = resource.endpoint
    reaped = (d.resource for d in decisions if d.reap and d.resource.kind.runs and d.resource.endpoint == endpoint)
    return frozenset(owner.id for owner in reaped if owner is not resource and _may_be_linked(resource, owner))


def _may_be_linked(resource: Resource, owner: Resource) -> bool:
    """What is linked to another one was created after it, as far as the clocks of the platform's servers agree."""
    if resource.kind is not Kind.SANDBOX or resource.created_at is None or owner.created_at is None:
        return True  # clocks of engines are set back, and a container may name one that is made later
    return owner.created_at <= shifted(resource.created_at, CLOCKS_DIFFER)


def _after(one: Resource, other: Resource) -> bool:
    """Whether it was surely created after the other."""
    return one.created_at is not None and other.created_at is not None and one.created_at > other.created_at


def explain(
    resource: Resource,
    resources: Sequence[Resource],
    rules: Rules,
    leases: Iterable[Lease] | Leases,
    now: datetime,
    *,
    proofs: Proofs = NO_PROOFS,
) -> list[Finding]:
    """What every rule says of one of ``resources``, in order, and at the end what became of it as part of its group."""
    leases = leases if isinstance(leases, Leases) else Leases(leases)  # with the endpoint that they are asked about
    judge = Judge(resources, rules, leases, now, proofs)
    findings = list(judge.findings(resource))
    alone = judge.decide(resource)
    number = next(number for number, one in enumerate(resources) if one is resource)
    together = decide(resources, rules, leases, now, proofs=proofs)[number]  # whose resource may stand apart by now
    same = (together.verdict, together.reason, together.action) == (alone.verdict, alone.reason, alone.action)
    if not same or not any(f.verdict for f in findings):
        findings.append(Finding("group", together.verdict, lambda: together.sentence, together.reason, brief=together.brief))
    return findings


def young_and_running(decisions: Iterable[Decision]) -> list[Decision]:
    """The owned, running resources that are kept for no other reason than that they are young.

    A killed run leaves its containers running and young, and no age threshold sees them.
    """
    return [d for d in decisions if d.reason is Reason.TOO_YOUNG and d.resource.state is State.RUNNING and d.owner]


def of_living_owners(decisions: Sequence[Decision], rules: Rules, now: datetime, proofs: Proofs) -> list[Decision]:
    """Those of ``young_and_running`` of which an owner is known to be alive.

    Args:
        decisions: all about one endpoint.
        rules: the settings.
        now: on the endpoint's clock.
        proofs: what this host has found out about owner processes.
    """
    young = young_and_running(decisions)
    if not young or proofs is NO_PROOFS:
        return []
    owners = Judge([decision.resource for decision in decisions], rules, Leases(()), now, proofs).processes
    return [d for d in young if any(owner.fate is Fate.ALIVE for owner in owners.of(d.resource))]
