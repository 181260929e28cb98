"""What Daytona's JSON says, as resources. Tolerant: one odd row is unreadable and kept, and spoils nothing else.

The few fields that count are read from the raw JSON: the SDK and the generated client fail a whole list for one row with
null labels, an unknown state or a field that the server does not send yet.
"""

import re
from collections.abc import Mapping
from datetime import datetime

from reaper import states
from reaper.model import Kind, Resource, State
from reaper.providers.rows import labels, moment

Row = Mapping[str, object]

SESSION_LABEL = "harbor.session_id"
# An id goes into the path of a request.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_SETTLED = frozenset({"started", "stopped", "paused", "archived"})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _state(row: Row) -> tuple[str, State]:
    """The state, raw and mapped. What the server works towards counts, too: filters and caches show what was before."""
    raw, wanted = _text(row.get("state")) or "", _text(row.get("desiredState"))
    state = states.DAYTONA.get(raw, State.UNKNOWN)
    if state is State.CHANGING or wanted == raw:
        return raw, state
    if wanted == "destroyed" or (wanted in _SETTLED and raw in _SETTLED):
        return f"{raw}, to be {wanted}", State.CHANGING
    return raw, state


def sandbox(row: object, endpoint: str, links: Mapping[str, frozenset[str]] | None = None) -> Resource:
    """One sandbox. Raises ValueError when it has no id that a request could name.

    Args:
        row: an item of the list, or the answer of GET by id, which alone tells of links.
        endpoint: the organisation's name.
        links: for an item of the list: what is linked to what, as far as earlier answers of GET have told.
    """
    if not isinstance(row, dict) or not _ID.fullmatch(id_ := _text(row.get("id")) or ""):
        raise ValueError("a sandbox without id")
    times: dict[str, datetime | None] = {}
    unreadable = None
    for key in ("createdAt", "updatedAt", "lastActivityAt"):
        try:
            times[key] = moment(row.get(key))
        except (ValueError, OverflowError) as error:
            times[key], unreadable = None, f"{key}: {error}"
    created, active = times["createdAt"], times["lastActivityAt"]
    # Without an activity the latest of what is known: any write of the server moves updatedAt.
    latest = max((t for t in (created, active or times["updatedAt"]) if t is not None), default=None)
    raw_state, state = _state(row)
    found = labels(row.get("labels"))
    linked = _text(row.get("linkedSandboxId"))
    # Deleting the one that it is linked to deletes it too: while it is kept, so is that one.
    uses = frozenset((linked,)) if linked else links.get(id_, frozenset()) if links else frozenset()
    return Resource(
        provider="daytona",
        endpoint=endpoint,
        kind=Kind.SANDBOX,
        id=id_,
        name=_text(row.get("name")) or id_,
        state=state,
        raw_state=raw_state,
        created_at=created,
        # Every change of state is an activity, so the last one of a stopped sandbox is its stop.
        stopped_at=latest if state in (State.STOPPED, State.FAILED) else None,
        last_activity_at=latest,
        labels=found,
        image=_text(row.get("snapshot")),
        group=(found or {}).get(SESSION_LABEL) or None,
        uses=uses,
        links_known=links is None or id_ in links or bool(uses),
        host=_text(row.get("runnerId")),
        machinery="an unclaimed member of a warm pool" if _text(row.get("warmPoolId")) else None,
        unreadable=unreadable,
    )
