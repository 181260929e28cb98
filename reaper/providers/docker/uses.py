"""What was used on an engine since an earlier look, by the events that it still knows.

An engine keeps its last few hundred events, and none when it is started again. So they tell all that happened since an
earlier look only when the last event of that look is still among them; or, where there was none, when the engine has not
been started since: it makes its network "bridge" anew at each start.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from reaper.core.model import Kind
from reaper.errors import UnreadableError
from reaper.providers.abilities import Uses
from reaper.providers.answers import read_bounded
from reaper.providers.docker.connection import EngineConnection
from reaper.providers.parsing import text

MOST = 256  # events that an engine keeps (moby: daemon/events, eventsLimit)
LARGEST = 32 << 20  # bytes
_FIRST = 24 * 3600.0  # seconds that a first look goes back
_ROUNDED = 1e-6  # seconds: a float has no nanoseconds
_ARRIVES = frozenset({"pull", "tag", "load", "loadfromarchive", "import", "create", "build"})  # the fourth is Podman's
_IMAGE = _ARRIVES | {"push", "save"}
_VOLUME = frozenset({"create", "mount", "unmount"})
_NETWORK = frozenset({"create", "connect", "disconnect"})
_DELETED = {"image": ("delete", "remove"), "volume": ("destroy", "remove")}  # Podman says remove
_UNTOLD = frozenset({Kind.VOLUME, Kind.NETWORK})
_DIGITS = re.compile("[0-9a-f]{64}")

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
    # From a little before: Podman leaves out the last one itself, and writes those of images down a moment later.
    since = f"{float(before['at']) - 1.0 if before else now - _FIRST:.9f}"
    # Podman, asked until a time that is past, ends before it has told all; it keeps its events in a file, more than a few.
    end = {"stream": "false"} if connection.is_podman else {"until": f"{max(now, float(since) + _ROUNDED):.9f}"}
    events = await _events(connection, {"since": since, **end})
    last = max(events, key=lambda event: int(event["timeNano"]), default=None)
    at = _seconds(int(last["timeNano"])) if last is not None else str(before.get("at", f"{now:.9f}"))
    new = {"at": at, "event": _name(last) if last is not None else before.get("event"), "start": start}
    if before.get("event") is not None:
        known = next((number for number, event in enumerate(events, 1) if _name(event) == before["event"]), None)
        complete, events = known is not None, events[known or 0 :]  # it was told of that one already
    else:
        complete = bool(before) and start is not None and before.get("start") == start and len(events) < MOST
    untold = _untold(events) if connection.is_podman else frozenset()
    return Uses(frozenset(_used(events)), complete, json.dumps(new), dict(_deleted(events)), untold, _arrived(events))


def _untold(events: Iterable[Event]) -> frozenset[Kind]:
    """Podman tells of a new container neither its volumes nor its networks; and up to 4 of a load no more than the file."""
    kinds = set[Kind]()
    for event in events:
        match event.get("Type"), event.get("Action"):
            case "container", "create":
                kinds |= _UNTOLD
            case "image", "loadfromarchive" if text(_actor(event).get("ID")) is None:
                kinds.add(Kind.IMAGE)
    return frozenset(kinds)


def _parsed(mark: str | None) -> dict[str, Any]:
    with suppress(ValueError, TypeError):
        found = json.loads(mark or "")
        if isinstance(found, dict) and float(found["at"]) >= 0:
            return found
    return {}


async def _events(connection: EngineConnection, params: Mapping[str, str]) -> list[Event]:
    client = connection.client()
    found = []
    try:
        async with client._query("events", params=params) as answer:  # noqa: SLF001
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


def _attributes(event: Event) -> Mapping[str, Any]:
    attributes = _actor(event).get("Attributes")
    return attributes if isinstance(attributes, dict) else {}


def _used(events: Iterable[Event]) -> Iterable[str]:
    for event in events:
        action = str(event.get("Action"))
        found: tuple[object, ...] = ()
        match event.get("Type"):
            case "container":
                found = (_attributes(event).get("image"),)
            case "image" if action in _IMAGE:
                found = (_id(event), _attributes(event).get("name"))
            case "volume" if action in _VOLUME:
                found = (_id(event),)
            case "network" if action in _NETWORK:
                found = (_id(event),)
        yield from (name for value in found if (name := text(value)) is not None)


def _deleted(events: Iterable[Event]) -> Iterable[tuple[str, datetime]]:
    for event in events:
        if str(event.get("Action")) in _DELETED.get(str(event.get("Type")), ()) and (id_ := _id(event)) is not None:
            yield id_, _moment(event)


def _arrived(events: Iterable[Event]) -> dict[str, datetime]:
    """When images were pulled, loaded, tagged or built last, by the id or the reference that tells of it."""
    found: dict[str, datetime] = {}
    for event in events:
        if event.get("Type") == "image" and str(event.get("Action")) in _ARRIVES:
            at = _moment(event)
            for name in _names_of(event):
                found[name] = max(at, found.get(name, at))
    return found


def _names_of(image: Event) -> Iterable[str]:
    return (name for value in (_id(image), _attributes(image).get("name")) if (name := text(value)) is not None)


def _moment(event: Event) -> datetime:
    return datetime.fromtimestamp(int(event["timeNano"]) / 1e9, UTC)


def _id(event: Event) -> str | None:
    """The id as listings have it: Podman tells of a volume its name alone, and of an image's id the digits."""
    id_ = text(_actor(event).get("ID")) or text(_attributes(event).get("name"))
    return f"sha256:{id_}" if id_ is not None and event.get("Type") == "image" and _DIGITS.fullmatch(id_) else id_
