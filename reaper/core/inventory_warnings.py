"""What people should know of an inventory although nothing failed: rows that say too little, sandboxes that hang. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from reaper.core.ages import is_stuck, state_base
from reaper.core.durations import human, shifted
from reaper.core.model import Decision, Reason, Resource
from reaper.core.wording import counted, is_or_are

AHEAD = timedelta(minutes=1)
_SHOWN = 3
_DELETABLE = frozenset({"archiving", "pending_build"})  # Daytona deletes what is in these transitions, and in no other


def inventory_warnings(decisions: Iterable[Decision], unreadable_rows: int, now: datetime) -> list[str]:
    """The sentences about one endpoint's inventory.

    Args:
        decisions: about everything that was listed.
        unreadable_rows: how many rows of the listing had not even an id.
        now: aware UTC, on the endpoint's clock.
    """
    decisions = tuple(decisions)
    found = []
    if unreadable_rows:
        found.append(f"{counted(unreadable_rows, 'row')} of the listing could not be read at all, and what they are is kept")
    if odd := [d.resource for d in decisions if d.reason is Reason.UNREADABLE]:
        found.append(f"{counted(len(odd), 'resource')} could not be read, and {_kept(odd)}: {_names(odd)}")
    latest = shifted(now, AHEAD)
    ahead = [
        d.resource for d in decisions if _is_ahead(d.resource, latest) and not d.reap and d.reason is not Reason.UNREADABLE
    ]
    if ahead:
        are = is_or_are(len(ahead))
        text = f"{counted(len(ahead), 'resource')} {are} dated in the future (a clock was wrong)"
        found.append(f"{text}, and {are} kept until its age is known: {_names(ahead)}")
    if unknown := [d.resource for d in decisions if d.reason is Reason.UNKNOWN_STATE]:
        states = sorted({resource.raw_state for resource in unknown})
        text = f"{counted(len(unknown), 'resource')} in a state not known here ({', '.join(states)})"
        found.append(f"{text}, which {_kept(unknown)}: {_names(unknown)}")
    stuck = [d.resource for d in decisions if d.reason is Reason.CHANGING and is_stuck(d.resource, now)]
    found += _stuck([r for r in stuck if r.raw_state not in _DELETABLE], "which the platform's API cannot delete", now)
    found += _stuck([r for r in stuck if r.raw_state in _DELETABLE], "which is kept, and the platform's API can delete", now)
    return found


def _stuck(resources: Sequence[Resource], what: str, now: datetime) -> list[str]:
    """The sentence about those of one sort, if there are any."""
    if not resources:
        return []
    text = ", ".join(f"{r.name} ({r.raw_state} for {human(now - state_base(r))})" for r in resources[:_SHOWN])
    more = f" and {len(resources) - _SHOWN} more" if len(resources) > _SHOWN else ""
    return [f"{counted(len(resources), 'sandbox')} stuck, {what}: {text}{more}"]


def _is_ahead(resource: Resource, latest: datetime) -> bool:
    """Whether it was made or started later than a small difference between two clocks explains."""
    created, started = resource.created_at, resource.started_at
    return (created is not None and created > latest) or (started is not None and started > latest)


def without_timers(decisions: Iterable[Decision]) -> list[str]:
    """For each of the platform's own timers how many owned sandboxes have it off: only this program would end those."""
    by_timer: dict[str, list[Resource]] = {}
    for decision in decisions:
        for timer in decision.resource.timers_off if decision.owner is not None else ():
            by_timer.setdefault(timer, []).append(decision.resource)
    return [
        f"{counted(len(found), 'owned sandbox')} with {timer} off, so only this program ends "
        f"{'it' if len(found) == 1 else 'them'}; the platform's interval would do it while this program does not run: "
        f"{_names(found)}"
        for timer, found in sorted(by_timer.items(), reverse=True)
    ]


def not_owned(decisions: Iterable[Decision]) -> str | None:
    """That some match and are not owned, if so: nothing takes those, whatever is asked for."""
    unowned = sum(decision.would_match for decision in decisions)
    if not unowned:
        return None
    return f"{unowned} {'matches but is' if unowned == 1 else 'match but are'} not owned; add them to [scope]"


def owned_by_image(decisions: Iterable[Decision]) -> str | None:
    """How many would be owned if the labels of their images counted, if some would.

    Of some that is not known: Docker's containerd store forgets an image whose tag was built anew, also of containers.
    """
    found = [d.resource for d in decisions if d.by_image]
    parts = []
    for some, why in (
        ([resource for resource in found if resource.inherited], "from its image alone"),
        ([resource for resource in found if resource.inherited is None], "maybe from its image, which cannot be read"),
    ):
        if some:
            have = f"{counted(len(some), 'resource')} {'has' if len(some) == 1 else 'have'}"
            text = f"{have} a label that [scope] requires, {why}, and {is_or_are(len(some))} not owned"
            parts.append(f"{text} ({_names(some)})")
    return f"{'; '.join(parts)}; to own such: image_labels = true in [scope]" if parts else None


def _kept(resources: Sequence[Resource]) -> str:
    return f"{is_or_are(len(resources))} kept"


def _names(resources: Sequence[Resource]) -> str:
    more = f" and {len(resources) - _SHOWN} more" if len(resources) > _SHOWN else ""
    return ", ".join(resource.name for resource in resources[:_SHOWN]) + more
