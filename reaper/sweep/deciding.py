"""Deciding about what was listed, and looking more closely at whatever the decisions depend on until they can be trusted."""

from collections.abc import Callable, Sequence
from functools import partial

from reaper.core.decide import may_be_linked, needs_inspection, possible_owners
from reaper.core.layers import mark_inherited, unread_images
from reaper.core.model import Decision, Resource
from reaper.sweep.inspector import Inspector


async def decided(
    resources: list[Resource], decide: Callable[[Sequence[Resource]], list[Decision]], looker: Inspector
) -> list[Decision]:
    """The decisions about all of these, as they are after all inspections that are needed.

    Args:
        resources: what was listed.
        decide: makes the decisions.
        looker: makes the inspections.
    """
    resources = mark_inherited(resources)
    decisions = decide(resources)
    while wanted := needs_inspection(decisions) or unread_images(decisions):
        resources = mark_inherited(await looker.inspect(resources, wanted))
        decisions = decide(resources)
    while unknown := may_be_linked(decisions):
        resources = await looker.inspect_links(resources, unknown, partial(possible_owners, decisions=decisions))
        decisions = decide(resources)
    return decisions
