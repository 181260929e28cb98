"""What was used on an engine since an earlier look, by the events that it still knows.

An engine keeps its last few hundred events, and none when it is started again. So they tell all that happened since an
earlier look only when the last event of that look is still among them; or, where there was none, when the engine has not
been started since: it makes its network "bridge" anew at each start, unless it keeps containers alive meanwhile
(live-restore). A record that was kept meanwhile knows for longer.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from reaper.core.model import Kind
from reaper.errors import ProviderError, UnreadableError
from reaper.providers.abilities import Uses
from reaper.providers.answers import read_bounded
from reaper.providers.docker.connection import EngineConnection
from reaper.providers.docker.use_events import Event, actor_of, arrived, deleted, name_of, seconds, used
from reaper.providers.docker.use_record import NS, UseRecord
from reaper.providers.parsing import table, text

MOST = 256  # events that an engine keeps (moby: daemon/events, eventsLimit)
LARGEST = 32 << 20  # bytes
_FIRST = 24 * 3600.0  # seconds that a first look goes back
_ROUNDED = 1e-6  # seconds: a float has no nanoseconds
_UNTOLD = frozenset({Kind.VOLUME, Kind.NETWORK})


async def uses_since(
    connection: EngineConnection, mark: str | None, start: str | None, ahead: timedelta, record: UseRecord
) -> Uses:
    """What was used since the look that ``mark`` stands for. Raises ProviderError.

    Args:
        connection: to the engine.
        mark: what this returned then.
        start: the id of the network "bridge" now, where there is one.
        ahead: of this host's clock the engine's is, at the most: it answers when its own has got there.
        record: knows for longer than the engine, where a stream of its events is followed.
    """
    before = _parsed(mark)
    now = time.time() + ahead.total_seconds()
    # From a little before: Podman leaves out the last one itself, and writes those of images down a moment later.
    since = f"{float(before['at']) - 1.0 if before else now - _FIRST:.9f}"
    # Podman, asked until a time that is past, ends before it has told all; it keeps its events in a file, more than a few.
    end = {"stream": "false"} if connection.is_podman else {"until": f"{max(now, float(since) + _ROUNDED):.9f}"}
    events = await _events(connection, {"since": since, **end})
    last = max(events, key=lambda event: int(event["timeNano"]), default=None)
    at = seconds(int(last["timeNano"])) if last is not None else str(before.get("at", f"{now:.9f}"))
    new = {"at": at, "event": name_of(last) if last is not None else before.get("event"), "start": start}
    if last is not None:
        new["run"] = record.run
    remembered = events
    if before.get("event") is not None:
        known = next((number for number, event in enumerate(events, 1) if name_of(event) == before["event"]), None)
        complete, events = known is not None, events[known or 0 :]  # it was told of that one already
    else:
        same_start = bool(before) and start is not None and before.get("start") == start
        complete = same_start and len(events) < MOST and not await _may_keep_bridge(connection)
    if not complete and before.get("run") is not None and not connection.is_podman:
        found = record.joined(before["run"], round(float(before["at"]) * NS), remembered)
        if found is not None:
            return replace(found, mark=json.dumps(new))
    untold = _untold(events) if connection.is_podman else frozenset()
    return Uses(frozenset(used(events)), complete, json.dumps(new), dict(deleted(events)), untold, arrived(events))


async def _may_keep_bridge(connection: EngineConnection) -> bool:
    """Whether the engine may have its network "bridge" from before its start, as it has while containers live on.

    Of a container that had lived on then, and has ended since, the end would have been told.
    """
    try:
        info = table(await connection.ask("info"))
    except ProviderError:
        return True
    alive = info.get("ContainersRunning"), info.get("ContainersPaused")
    return info.get("LiveRestoreEnabled") is not False and alive != (0, 0)


def _untold(events: Iterable[Event]) -> frozenset[Kind]:
    """Podman tells of a new container neither its volumes nor its networks; and up to 4 of a load no more than the file."""
    kinds = set[Kind]()
    for event in events:
        match event.get("Type"), event.get("Action"):
            case "container", "create":
                kinds |= _UNTOLD
            case "image", "loadfromarchive" if text(actor_of(event).get("ID")) is None:
                kinds.add(Kind.IMAGE)
    return frozenset(kinds)


def _parsed(mark: str | None) -> dict[str, Any]:
    with suppress(ValueError, TypeError):
        found = json.loads(mark or "")
        if isinstance(found, dict) and 0 <= float(found["at"]) < math.inf:
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
