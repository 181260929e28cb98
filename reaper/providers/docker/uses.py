"""What was used on an engine since an earlier look, by the events that it still knows.

An engine keeps its last few hundred events, and none when it is started again. So they tell all that happened since an
earlier look only when the last event of that look is still among them; or, where there was none, when the engine has not
been started since: it makes its network "bridge" anew at each start.
"""

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from reaper.errors import UnreadableError
from reaper.providers.abilities import Uses
from reaper.providers.answers import read_bounded
from reaper.providers.docker.connection import EngineConnection
from reaper.providers.parsing import text

MOST = 256  # events that an engine keeps (moby: daemon/events, eventsLimit)
LARGEST = 32 << 20  # bytes
_ROUNDED = 1e-6  # seconds: a float has no nanoseconds
_IMAGE = frozenset({"pull", "push", "tag", "load", "import", "save", "create", "build"})
_VOLUME = frozenset({"create", "mount", "unmount"})
_NETWORK = frozenset({"create", "connect", "disconnect"})

Event = Mapping[str, Any]


async def uses_since(connection: EngineConnection, mark: str | None, start: str | None, ahead: timedelta) -> Uses:
    """What was used since the look that ``mark`` stands for. Raises ProviderError.

    Args:
        connection: to the engine.
        mark: what this returned then.
        start: the id of the network "bridge" now, where there is one.
        ahead: of this host's clock the engine's is, at the most: it answers when its own has got there.
    """
    before = _parsed(mark)
    now = time.time() + ahead.total_seconds()
    since = str(before.get("at", "0")) if before else "0"
    events = await _events(connection, since, f"{max(now, float(since) + _ROUNDED):.9f}")
    last = max(events, key=lambda event: int(event["timeNano"]), default=None)
    at = _seconds(int(last["timeNano"])) if last is not None else since if before else f"{now:.9f}"
    new = {"at": at, "event": _name(last) if last is not None else before.get("event"), "start": start}
    if before.get("event") is not None:
        known = next((number for number, event in enumerate(events, 1) if _name(event) == before["event"]), None)
        complete, events = known is not None, events[known or 0 :]  # it was told of that one already
    else:
        complete = bool(before) and start is not None and before.get("start") == start and len(events) < MOST
    return Uses(frozenset(_used(events)), complete, json.dumps(new))


def _parsed(mark: str | None) -> dict[str, Any]:
    with suppress(ValueError, TypeError):
        found = json.loads(mark or "")
        if isinstance(found, dict) and float(found["at"]) >= 0:
            return found
    return {}


async def _events(connection: EngineConnection, since: str, until: str) -> list[Event]:
    client = connection.client()
    found = []
    try:
        async with client._query("events", params={"since": since, "until": until}) as answer:  # noqa: SLF001
            body = await read_bounded(answer, "GET /events", LARGEST)
        for line in body.splitlines():
            event = json.loads(line)
            int(event["timeNano"])
            found.append(event)
    except (ValueError, TypeError, KeyError) as error:
        raise UnreadableError(f"the events cannot be read: {error}") from error
    except Exception as error:  # noqa: BLE001
        connection.translate(error)
    return found


def _name(event: Event) -> list[str]:
    return [str(event["timeNano"]), str(event.get("Type")), str(event.get("Action")), str(_actor(event).get("ID"))]


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09}"


def _actor(event: Event) -> Mapping[str, Any]:
    actor = event.get("Actor")
    return actor if isinstance(actor, dict) else {}


def _used(events: Iterable[Event]) -> Iterable[str]:
    for event in events:
        actor, action = _actor(event), str(event.get("Action"))
        attributes = actor.get("Attributes")
        attributes = attributes if isinstance(attributes, dict) else {}
        found: tuple[object, ...] = ()
        match event.get("Type"):
            case "container":
                found = (attributes.get("image"),)
            case "image" if action in _IMAGE:
                found = (actor.get("ID"), attributes.get("name"))
            case "volume" if action in _VOLUME:
                found = (actor.get("ID"),)
            case "network" if action in _NETWORK:
                found = (actor.get("ID"),)
        yield from (name for value in found if (name := text(value)) is not None)
