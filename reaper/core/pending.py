"""What is kept for a while only: what ends by itself soon, and what ``--all`` leaves. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from reaper.core.durations import human
from reaper.core.model import Decision, Reason
from reaper.core.wording import counted, is_or_are

SOON = timedelta(minutes=15)
_WHY = {
    Reason.CREATED_GRACE: "created and never started",
    Reason.GROUP_KEPT: "in a group with such a one",
    Reason.LABEL_NOT_DUE: "with a label that says until when",
    Reason.TOO_YOUNG: "nearly old enough",
}


class Pending(NamedTuple):
    """One that may go as soon as time has passed, if nothing else changes."""

    decision: Decision
    due_at: datetime


def pending(decisions: Iterable[Decision], grace: timedelta) -> list[Pending]:
    """The owned ones that only time keeps, and with a group all of it: those of one endpoint, on its clock.

    Args:
        decisions: all about one endpoint.
        grace: how long a network without containers is left alone.
    """
    owned = [(d, _group(d), _end(d, grace)) for d in decisions if d.owner is not None and not d.reap]
    groups: dict[object, datetime | None] = {}
    for decision, key, end in owned:
        if key is not None and decision.reason is not Reason.GROUP_KEPT:
            known = groups.get(key, end)
            groups[key] = None if end is None or known is None else max(end, known)
    found = []
    for decision, key, end in owned:
        if (last := groups.get(key, end)) is not None:
            found.append(Pending(decision, last))
    return found


def _group(decision: Decision) -> tuple[str, str] | None:
    """The name of its group: of two groups of one name, the later end counts."""
    resource = decision.resource
    return None if resource.group is None else (resource.endpoint, resource.group)


def _end(decision: Decision, grace: timedelta) -> datetime | None:
    if decision.due_at is not None:
        return decision.due_at
    leftover = decision.resource.group is not None and decision.resource.kind.joined  # of a project without containers
    if decision.reason is Reason.CREATED_GRACE and leftover and decision.resource.created_at is not None:
        remembered = decision.resource.remembered
        return remembered.free_at if remembered is not None else decision.resource.created_at + grace
    return None


def _in_words(decision: Decision) -> tuple[str, str]:
    """What it is, where that matters, and why it is kept."""
    if decision.reason is Reason.CREATED_GRACE and not decision.resource.kind.runs:
        return decision.resource.kind.value, " that may yet be used"
    return "", _WHY.get(decision.reason, decision.reason.value.replace("_", " "))


def in_words(found: Sequence[Pending], now: datetime) -> str:
    """The sentence that sums them up."""
    count = Counter(_in_words(each.decision) for each in found)
    last = max(each.due_at for each in found)
    subject = f"{counted(len(found), 'owned resource')} {is_or_are(len(found))}"
    parts = ((counted(number, noun) if noun else f"{number} ", why) for (noun, why), number in count.most_common())
    whole = ", ".join(map("".join, parts))
    return f"{subject} kept for {human(max(last - now, timedelta(seconds=1)))} more at most: {whole}"


def not_taken(decisions: Iterable[Decision]) -> str | None:
    """What is owned and ``--all`` does not take, and why; None when it takes everything."""
    left = (d for d in decisions if d.owner is not None and not d.reap and d.reason is not Reason.NO_POLICY)  # by a filter
    count = Counter(d.reason.value.replace("_", " ") for d in left)
    if not count:
        return None
    total = count.total()
    subject = f"{counted(total, 'owned resource')} {is_or_are(total)}"
    return f"{subject} kept in spite of --all: {', '.join(f'{number} {why}' for why, number in count.most_common())}"
