"""The kinds that are looked at only where something asks for them: what is listed of them, and what is decided about."""

from reaper.core.kinds import Kind
from reaper.core.lease_index import Leases
from reaper.core.model import Resource
from reaper.core.rules import Rules
from reaper.providers.base import Also, Inventory
from reaper.sweep.ports import Options

_ASKED_FOR = frozenset({Kind.NETWORK, Kind.VOLUME, Kind.IMAGE, Kind.BUILD_CACHE})


def asked_for(rules: Rules, leases: Leases, options: Options) -> Also:
    """What is to be listed besides containers, sandboxes and their projects' networks, and what leases know by labels."""
    opt_in = frozenset(kind for kind in rules.with_projects if kind.opt_in)
    measured = (policy for policy in rules.policies if policy.larger_than is not None)
    networks = frozenset() if leases.empty else frozenset({Kind.NETWORK})  # a claim by name may cover any of them
    return Also(
        leases.made,
        options.list_unjudged,
        (rules.kinds & _ASKED_FOR) | opt_in | (options.kinds & _ASKED_FOR) | networks,
        frozenset(kind for policy in measured for kind in policy.kinds),
    )


def watches_use(rules: Rules) -> bool:
    """Whether a rule depends on when something was used last, or on since when it has been there."""
    return Kind.IMAGE in rules.kinds or any(policy.unused_for is not None for policy in rules.policies)


def decided_about(
    inventory: Inventory, leases: Leases, rules: Rules, options: Options
) -> tuple[list[Resource], tuple[Resource, ...]]:
    """What of a listing is to be decided about, and the volumes and images of Compose projects that no rule judges."""
    whole = rules.kinds | options.kinds

    def is_judged(resource: Resource) -> bool:
        if resource.kind in whole or leases.concern(resource):
            return True
        if resource.kind is Kind.VOLUME and resource.uses:
            return True  # what it lies on stays with it
        return resource.kind in rules.with_projects and resource.group is not None

    found = [resource for resource in inventory.resources if is_judged(resource)]
    if not options.list_unjudged:
        return found, ()
    judged = {resource.identity for resource in found}
    return found, tuple(r for r in inventory.resources if r.identity not in judged and r.group is not None)
