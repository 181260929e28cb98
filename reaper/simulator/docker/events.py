"""What happened in a simulated engine: its last 256 events, and streams of those to come."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from reaper.simulator.docker.filters import Filters
from reaper.simulator.docker.text import NS

KEPT = 256


class Stream:
    """The events to come, for one client."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def put(self, event: dict[str, Any] | None) -> None:
        """Add one; None ends the stream. From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def get(self) -> dict[str, Any] | None:
        """The next one; None at the end."""
        return await self._queue.get()


class Events:
    """All events of one engine."""

    def __init__(self) -> None:
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._streams: set[Stream] = set()

    def log(self, kind: str, action: str, ident: str, attributes: Mapping[str, str], now: int) -> None:
        """Tell what happened, at `now` (ns)."""
        event: dict[str, Any] = {}
        if kind in ("container", "image"):
            event["status"] = action
            if ident:
                event["id"] = ident
            if kind == "container" and "image" in attributes:
                event["from"] = attributes["image"]
        event |= {"Type": kind, "Action": action}
        event["Actor"] = {"ID": ident, "Attributes": dict(sorted(attributes.items()))}
        event |= {"scope": "local", "time": now // NS, "timeNano": now}
        self._kept.append(event)
        for stream in list(self._streams):
            stream.put(event)

    def since(self, since: int, until: int | None) -> list[dict[str, Any]]:
        """The kept ones between two times (ns)."""
        return [e for e in self._kept if e["timeNano"] >= since and (until is None or e["timeNano"] <= until)]

    def open(self) -> Stream:
        """A stream of what comes from now on; give it back to `close`."""
        stream = Stream(asyncio.get_running_loop())
        self._streams.add(stream)
        return stream

    def close(self, stream: Stream) -> None:
        """No more for this one."""
        self._streams.discard(stream)

    @property
    def listeners(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def end(self) -> None:
        """End all streams."""
        for stream in list(self._streams):
            stream.put(None)


def wanted(event: Mapping[str, Any], filters: Filters) -> bool:
    """Whether a client that asked for `filters` gets this event. The engine ignores unknown filters."""
    kind, action = event["Type"], event["Action"]
    return ("type" not in filters or kind in filters.get("type")) and (
        "event" not in filters or action in filters.get("event")
    )
