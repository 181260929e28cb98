"""The platform's own timers as a net that survives this program: which sandboxes get an interval, and how long. Pure.

This is the one thing that is done to what is not reapable. So it is done only to what nothing but its age keeps, it never
shortens an interval, and none can run out sooner than a whole interval after it was set.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from reaper.core.model import Action, Decision, Reason, Resource, State

SAFETY_NET = "(safety net)"  # in place of a policy
AUTO_STOP, AUTO_DELETE = "auto-stop", "auto-delete"
_MINUTE = timedelta(minutes=1)
_ONLY_AGE = frozenset({Reason.TOO_YOUNG, Reason.NO_POLICY, Reason.NOT_DUE, Reason.GROUP_KEPT})
_KEEPS_ITSELF = "harbor.instance_id"
"""Runners that set this label set the timers themselves; where they are off, that was asked for (``--no-delete``)."""


@dataclass(frozen=True, slots=True)
class SafetyNet:
    """The intervals of owned sandboxes that have none; None leaves those without one as they are."""

    auto_stop: timedelta | None = None
    auto_delete: timedelta | None = None


class Timer(NamedTuple):
    """An interval that a sandbox is to get: of which timer, and how many minutes."""

    name: str
    minutes: int


def timers(net: SafetyNet, resource: Resource, now: datetime) -> tuple[Timer, ...]:
    """The intervals that it is to get, counted so that none runs out sooner than that after now.

    The platform counts both from the last activity, which may be long ago; a stop is one. An ephemeral sandbox is destroyed
    by its stop, so its one interval is as long as both together.
    """
    running, since = resource.state is State.RUNNING, resource.last_activity_at or resource.created_at
    if not running and resource.raw_state != "stopped":
        return ()
    if since is None or resource.lost_when_stopped is None:
        return ()
    idle = max(now - since, timedelta(0))
    wanted = {AUTO_STOP: net.auto_stop, AUTO_DELETE: net.auto_delete}
    if resource.lost_when_stopped:
        both = None if net.auto_stop is None or net.auto_delete is None else net.auto_stop + net.auto_delete
        wanted = {AUTO_STOP: both}
    return tuple(
        Timer(name, math.ceil((interval + (timedelta(0) if running and name == AUTO_DELETE else idle)) / _MINUTE))
        for name, interval in wanted.items()
        if interval is not None and name in resource.timers_off and (running or name == AUTO_DELETE)
    )


def is_kept_by_age(decisions: Iterable[Decision]) -> bool:
    """Whether nothing keeps any of these but that no policy takes it yet: a session gets intervals as a whole.

    A runner that sets the timers itself does so for its whole session, also where one of it does not say so.
    """
    return all(
        d.owner is not None and not d.reap and d.reason in _ONLY_AGE and _KEEPS_ITSELF not in (d.resource.labels or {})
        for d in decisions
    )


def _needed_groups(resources: Sequence[Resource]) -> frozenset[str]:
    """The sessions of which a member is what one from outside is linked to."""
    session = {resource.id: resource.group for resource in resources}
    found = {session.get(id_) for one in resources for id_ in one.uses if one.group is None or session.get(id_) != one.group}
    return frozenset(group for group in found if group is not None)


def candidates(net: SafetyNet, decisions: Sequence[Decision], now: datetime) -> list[Decision]:
    """The decisions about what is to get intervals, with that as their action.

    What others are linked to is left alone: it would take them with it. So is a session with a member to which one from
    outside is linked: that one keeps the whole session.
    """
    groups: dict[str, list[Decision]] = {}
    for decision in decisions:
        if decision.resource.group is not None:
            groups.setdefault(decision.resource.group, []).append(decision)
    used = frozenset[str]().union(*(decision.resource.uses for decision in decisions))
    needed = _needed_groups([decision.resource for decision in decisions])
    clear = {group for group, members in groups.items() if group not in needed and is_kept_by_age(members)}
    return [
        replace(decision, action=Action.SET_TIMER, policy=SAFETY_NET)
        for decision in decisions
        if (is_kept_by_age((decision,)) if decision.resource.group is None else decision.resource.group in clear)
        and decision.resource.id not in used
        and timers(net, decision.resource, now)
    ]
