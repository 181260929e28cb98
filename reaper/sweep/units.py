"""From decisions to the units that they are carried out by: what stands alone, and what lives and dies together."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from reaper.core.accounts import Prune
from reaper.core.identity import Groups
from reaper.core.model import Action, Decision, Kind, Reason, Remembered, Resource
from reaper.core.rules import Rules
from reaper.sweep.context import Context
from reaper.sweep.stopping_unit import StoppingUnit
from reaper.sweep.unit import Unit


def make_units(context: Context, decisions: Iterable[Decision]) -> list[Unit]:
    """The decisions to reap, one unit for each group and for each resource that stands alone; networks come last.

    The volumes of a group are a unit of their own, and so are its images: others than the group's containers may use them,
    so they wait for their stage.
    """
    units: dict[tuple[str, ...], list[Decision]] = {}
    context.lying_on = _lying_on(decisions := list(decisions))
    going = [decision for decision in decisions if decision.reap]
    groups = Groups(decision.resource for decision in going)
    below, rules = _below_others(going), context.rules(())
    for decision in going:
        resource = decision.resource
        what = resource.kind.value if resource.kind.opt_in else "group"
        follows = not resource.kind.opt_in or decision.reason in (Reason.GROUP_REAPED, Reason.LEASE_ENDED)
        group = groups.key(resource) if follows else None
        key = (what, *group) if group is not None else (resource.kind.value, below.get(resource.id, resource.id))
        units.setdefault(key, []).append(_with_prune(_owned_for_good(decision, context.now()), rules))
    return [_unit(context, sorted(unit, key=lambda d: d.resource.kind.stage)) for unit in units.values()]


def _unit(context: Context, decisions: list[Decision]) -> Unit:
    return (Unit if decisions[0].action is Action.DELETE else StoppingUnit)(context, decisions)


def _lying_on(going: Iterable[Decision]) -> dict[str, list[Resource]]:
    found: dict[str, list[Resource]] = {}
    for volume in (decision.resource for decision in going if decision.resource.kind is Kind.VOLUME):
        for used in volume.uses:
            found.setdefault(used, []).append(volume)
    return found


def _below_others(going: Iterable[Decision]) -> dict[str, str]:
    """By the id of each image that goes with those that were built on it, and by theirs, what they have in common."""
    images = {decision.resource.id: decision for decision in going if decision.resource.kind is Kind.IMAGE}
    found: dict[str, str] = {}

    def common(id_: str) -> str:
        while found.get(id_, id_) != id_:
            id_ = found[id_]
        return id_

    for id_, decision in images.items():
        for parent in decision.resource.uses:
            if parent in images and images[parent].reason is Reason.GROUP_REAPED and not images[parent].resource.tags:
                found[common(parent)] = common(id_)
    return {id_: common(id_) for id_ in images}


def _with_prune(decision: Decision, rules: Rules) -> Decision:
    """The decision about a build cache with what its policy says is to go."""
    if decision.resource.kind is not Kind.BUILD_CACHE:
        return decision
    policy = next(policy for policy in rules.policies if policy.name == decision.policy)
    prune = Prune(policy.unused_for, policy.larger_than)
    return replace(decision, resource=replace(decision.resource, prune=prune))


def _owned_for_good(decision: Decision, now: datetime) -> Decision:
    """The member that marks a project as owned may go first: the others stay owned without it."""
    resource, remembered = decision.resource, decision.resource.remembered
    stands_alone = resource.group is None and resource.kind is not Kind.IMAGE
    if decision.owner is None or stands_alone:
        return decision
    remembered = remembered or Remembered(decision.owner, now)
    if resource.kind.opt_in and decision.reason is Reason.GROUP_REAPED:  # it is looked at again when its containers are gone
        remembered = replace(remembered, free_at=now, policy=decision.policy)
    return replace(decision, resource=replace(resource, remembered=remembered))
