"""What Daytona's JSON says, as resources. Tolerant: one odd row is unreadable and kept, and spoils nothing else.

The few fields that count are read from the raw JSON: the SDK and the generated client fail a whole list for one row with
null labels, an unknown state or a field that the server does not send yet.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache

from reaper.core.accounts import Footprint
from reaper.core.identity import SESSION_LABEL
from reaper.core.model import ANY_ACTION, Action, Kind, Resource, State
from reaper.core.safety_net import AUTO_DELETE, AUTO_STOP
from reaper.providers.daytona.states import STATES
from reaper.providers.parsing import Row, labels, moment, text

# An id goes into the path of a request.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
GIB = 2**30
MOST = 1e9  # of CPUs or GiB: what is more is no number that a server means; nor is NaN
_ON_ITS_WAY_OUT = frozenset({"destroying", "destroyed"})
_SETTLED = frozenset({"started", "stopped", "paused", "archived"})
# By what the server works towards: what may have been asked for. An order to archive begins with one to stop.
_ASKED_FOR: Mapping[str, frozenset[Action]] = {
    "destroyed": frozenset({Action.DELETE}),
    "stopped": frozenset({Action.STOP, Action.ARCHIVE}),
    "archived": frozenset({Action.ARCHIVE}),
}
# One object each for all of thousands.
_NO_LINK: frozenset[str] = frozenset()
_TIMERS_OFF = {
    (False, False): (),
    (True, False): (AUTO_STOP,),
    (False, True): (AUTO_DELETE,),
    (True, True): (AUTO_STOP, AUTO_DELETE),
}


def _state(row: Row) -> tuple[str, State]:
    """The state, raw and mapped. What the server works towards counts, too: filters and caches show what was before.

    Whatever that is, also a word that is not known here: what is settled and is to be something else is about to change.
    """
    raw, wanted = text(row.get("state")) or "", row.get("desiredState")
    state = STATES.get(raw, State.UNKNOWN)
    if wanted in (None, "", raw) or (state is State.CHANGING and (wanted != "destroyed" or raw in _ON_ITS_WAY_OUT)):
        return raw, state
    if wanted == "destroyed" or raw in _SETTLED:
        return f"{raw}, to be {text(wanted) or 'unknown'}", State.CHANGING
    return raw, state


def _changed_by(row: Row, state: State) -> frozenset[Action]:
    """See ``Resource``. What is being started again, or resized, is so at the wish of another client."""
    if state is not State.CHANGING:
        return ANY_ACTION
    if is_being_destroyed(row):
        return _ASKED_FOR["destroyed"]
    wanted = "stopped" if row.get("state") == "stopping" else text(row.get("desiredState"))
    return ANY_ACTION if wanted is None else _ASKED_FOR.get(wanted, frozenset())


def is_being_destroyed(row: Row) -> bool:
    """Whether it is on its way out, or gone."""
    return text(row.get("desiredState")) == "destroyed" or text(row.get("state")) in _ON_ITS_WAY_OUT


def id_of(row: object) -> str:
    """The id of a row; empty where it has none that a request could name."""
    id_ = (text(row.get("id")) or "") if isinstance(row, dict) else ""
    return id_ if _ID.fullmatch(id_) else ""


def _minutes(row: Row, key: str) -> int | None:
    interval = row.get(key)
    return interval if isinstance(interval, int) and not isinstance(interval, bool) else None


@lru_cache(maxsize=256)
def _auto_stop(minutes: int | None) -> timedelta | None:
    """How long the server lets it run without activity: 0 for ever; None when the row does not say."""
    return None if minutes is None or not 0 <= minutes <= MOST else timedelta(minutes=minutes)


def _times(row: Row) -> tuple[list[datetime | None], str | None]:
    """When it was created, updated and last active, as far as that can be read, and what is wrong with the first odd one."""
    times: list[datetime | None] = []
    odd = None
    for key in ("createdAt", "updatedAt", "lastActivityAt"):
        try:
            times.append(moment(row.get(key)))
        except ValueError as error:
            times.append(None)
            odd = odd or f"{key}: {error}"
    return times, odd


def _amount(value: object) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MOST
    return float(value) if number else None  # type: ignore[arg-type]  # a number by now


@lru_cache(maxsize=256)
def _footprint(cpu: float | None, memory: float | None, disk: float | None) -> Footprint:
    """What it was given: the server counts memory and disk in GiB. One object for the thousands of the same size."""
    return Footprint(cpu, None if memory is None else round(memory * GIB), None if disk is None else round(disk * GIB))


def sandbox(
    row: object, endpoint: str, links: Mapping[str, frozenset[str]] | None = None, target: str | None = None
) -> Resource:
    """One sandbox. One without an id that a request could name is unreadable. Raises ValueError for what is no object.

    Args:
        row: an item of the list, or the answer of GET by id, which alone shows links.
        endpoint: the organisation's name.
        links: for an item of the list: what is linked to what, as far as earlier answers of GET have shown.
        target: the only target that the endpoint is about, where it is limited to one.
    """
    if not isinstance(row, dict):
        raise ValueError("a sandbox that is no object")  # noqa: TRY004 - one error for all that is odd in an answer
    id_ = id_of(row)
    unreadable = None if id_ else "its row has no id that a request could name"
    try:
        created, updated, active = (
            moment(row.get("createdAt")),
            moment(row.get("updatedAt")),
            moment(row.get("lastActivityAt")),
        )
    except ValueError:
        (created, updated, active), odd = _times(row)
        unreadable = unreadable or odd
    raw_state, state = _state(row)
    # Without an activity the latest of what is known: any write of the server moves updatedAt. So does the order to recover
    # one that has failed, which shows in nothing else until its runner has done it.
    latest = active or updated
    if state is State.FAILED and updated is not None and (latest is None or latest < updated):
        latest = updated
    if created is not None and (latest is None or latest < created):
        latest = created
    stop, delete = _minutes(row, "autoStopInterval"), _minutes(row, "autoDeleteInterval")
    place = text(row.get("target"))
    excluded = None
    if target is not None and place != target:
        excluded = f"in target {place or 'unknown'}, and the endpoint is limited to {target}"
    found = labels(row.get("labels"))
    linked = text(row.get("linkedSandboxId"))
    # Deleting the one that it is linked to deletes it too: while it is kept, so is that one.
    uses = frozenset((linked,)) if linked else links.get(id_, _NO_LINK) if links else _NO_LINK
    return Resource(
        provider="daytona",
        endpoint=endpoint,
        kind=Kind.SANDBOX,
        id=id_,
        name=text(row.get("name")) or id_ or "without an id",
        state=state,
        raw_state=raw_state,
        created_at=created,
        # Every change of state is an activity, so the last one of a stopped sandbox is its stop.
        stopped_at=latest if state in (State.STOPPED, State.FAILED) else None,
        last_activity_at=latest,
        updated_at=updated,
        labels=found,
        image=text(row.get("snapshot")),
        group=(found or {}).get(SESSION_LABEL) or None,
        uses=uses,
        links_known=links is None or id_ in links or bool(uses) or not id_,  # one without an id cannot be asked
        host=text(row.get("runnerId")),
        footprint=_footprint(_amount(row.get("cpu")), _amount(row.get("memory")), _amount(row.get("disk"))),
        lost_when_stopped=None if delete is None else delete == 0,  # an ephemeral one
        auto_stop=_auto_stop(stop) if active is not None else None,
        changed_by=_changed_by(row, state),
        timers_off=_TIMERS_OFF[
            stop == 0 and not row.get("autoPauseInterval") and row.get("state") == "started",
            delete is not None and delete < 0,
        ],  # of auto-stop and auto-pause only one can be on
        system_container="an unclaimed member of a warm pool" if text(row.get("warmPoolId")) else None,
        unreadable=unreadable,
        excluded=excluded,
    )
