"""What the events of an engine have told of uses, for longer than the engine itself remembers its events.

An engine keeps its last 256 events, and each `docker exec` and each health check makes three. A stream with a filter has one
of those, and may be followed for as long as it has no gap. It has one where the engine drops events of a reader that is too
slow, where the stream was interrupted for so long that the engine has forgotten what came last, and where the engine's clock
is set back. Then the record begins anew, and does not know what was used before.
"""

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from reaper.providers.abilities import Uses
from reaper.providers.docker.connection import EngineConnection, SilentError
from reaper.providers.docker.events import event_stream, lines
from reaper.providers.docker.use_events import ACTIONS, TYPES, Event, arrived, deleted, is_of_use, name_of, seconds, used

NS = 10**9
FILTERS = json.dumps({"type": sorted(TYPES), "event": sorted(ACTIONS)})
QUEUE = 900  # events that wait for this reader; an engine drops what comes when 1,024 do (moby: daemon/events, bufferSize)
DISORDER = 2 * NS  # an event's time is read before it is put in line
WRONG = 3600 * NS  # by so much a clock may be wrong
RECENT = 1024  # events by which the record and what the engine remembers are joined; the engine remembers 256
MANY = 20_000  # names of what was used


class UseRecord:
    """A record of the uses that a stream of events has told of.

    Attributes:
        wanted: set when uses are asked for.
    """

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self._gaps, self._id = 0, secrets.token_hex(8)
        self._start: int | None = None  # from here on it has all; all times are the engine's, in ns since 1970
        self._newest = 0
        self._is_connection_new = True
        self._recent: dict[str, None] = {}
        self._read_at: deque[int] = deque(maxlen=QUEUE)
        self._used: dict[str, int] = {}
        self._deleted: dict[str, int] = {}
        self._arrived: dict[str, int] = {}

    @property
    def run(self) -> str:
        """The name of the time without a gap that is under way."""
        return f"{self._id}-{self._gaps}"

    @property
    def since(self) -> int:
        """From when on a new connection has to tell what happened; 1 for all that the engine remembers."""
        return max(self._newest - NS, 1)

    def connected(self) -> None:
        """What is added from now on comes by a new connection, which begins a little before the last event that is known."""
        self._is_connection_new = True
        self._read_at.clear()

    def add(self, event: Event, now: int) -> None:
        """Add an event of a use, as it is read. Raises what a malformed one raises.

        Args:
            event: as the engine wrote it.
            now: on the engine's clock, or later.
        """
        at, name = int(event["timeNano"]), _key(event)
        if at > now + WRONG:  # else all that comes would be too old
            raise ValueError("the event is of the future")
        is_first, self._is_connection_new = self._is_connection_new, False
        # This one had happened before the one so many events ago was read: so many were waiting then, or more.
        was_queue_long = len(self._read_at) == QUEUE and at <= self._read_at[0]
        self._read_at.append(now)
        if name in self._recent:
            return
        is_unconnected = is_first and self._start is not None
        if was_queue_long or is_unconnected or at < self._newest - DISORDER:
            self.break_off(at)
        elif self._start is None:
            self._start = at
        self._newest = max(self._newest, at)
        self._recent[name] = None
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
        for names, found in (
            (dict.fromkeys(used([event]), at), self._used),
            (_times(deleted([event])), self._deleted),
            (_times(arrived([event]).items()), self._arrived),
        ):
            for each, when in names.items():
                found[each] = max(when, found.get(each, 0))
        if len(self._used) + len(self._deleted) + len(self._arrived) > MANY:
            times = sorted([*self._used.values(), *self._deleted.values(), *self._arrived.values()])
            self._forget(times[len(times) // 2] + 1)

    def break_off(self, at: int) -> None:
        """Begin anew, at this time: what happened before is not fully known."""
        self._gaps += 1
        self._start = at
        for found in (self._used, self._deleted, self._arrived, self._recent):
            found.clear()

    def _forget(self, before: int) -> None:
        self._start = max(self._start or 0, before)
        for name in ("_used", "_deleted", "_arrived"):
            setattr(self, name, {id_: at for id_, at in getattr(self, name).items() if at >= before})

    def joined(self, run: object, at: int, remembered: Sequence[Event]) -> Uses | None:
        """What was used since a time, by this record and by what the engine remembers; None where they have a gap.

        Args:
            run: as it was at the time.
            at: the time of the last event that had happened then.
            remembered: all events that the engine remembers now.
        """
        begin = at - 2 * DISORDER
        if run != self.run or self._start is None or begin < self._start:
            return None
        # The engine remembers all that came after its oldest event. Where that is on record, nothing is missing.
        oldest = next((event for event in remembered if is_of_use(event)), None)
        if oldest is None or _key(oldest) not in self._recent:
            return None
        after = [event for event in remembered if int(event["timeNano"]) >= begin]
        gone, came = dict(deleted(after)), arrived(after)
        return Uses(
            ids=frozenset(name for name, when in self._used.items() if when >= begin) | frozenset(used(after)),
            complete=True,
            deleted={**_moments(self._deleted, begin), **gone},
            arrived={**_moments(self._arrived, begin), **came},
        )


def _key(event: Event) -> str:
    return " ".join(name_of(event))


def _times(found: Iterable[tuple[str, datetime]]) -> dict[str, int]:
    return {name: int(at.timestamp() * NS) for name, at in found}


def _moments(found: dict[str, int], begin: int) -> dict[str, datetime]:
    return {name: datetime.fromtimestamp(at / NS, UTC) for name, at in found.items() if at >= begin}


async def follow(connection: EngineConnection, record: UseRecord, ahead: Callable[[], timedelta]) -> bool:
    """Keep the record until the stream ends, from when uses are asked for. Returns whether it can be kept there at all.

    Podman keeps its events in a file, many more than 256. Raises ``ProviderError`` when the stream cannot be followed.

    Args:
        connection: to the engine.
        record: of its uses.
        ahead: returns by how much, at the most, the engine's clock is ahead of this host's.
    """
    await record.wanted.wait()
    if connection.is_podman:
        return False
    with suppress(SilentError):
        async with event_stream(connection, filters=FILTERS, since=seconds(record.since)) as answer:
            record.connected()
            await read(answer.content.iter_any(), record, lambda: time.time_ns() + int(ahead().total_seconds() * NS))
    return True


async def read(chunks: AsyncIterable[bytes], record: UseRecord, now: Callable[[], int]) -> None:
    """Add what a stream has to the record. What cannot be read may have told of a use, and is a gap.

    Args:
        chunks: of the stream.
        record: of the uses.
        now: returns the time on the engine's clock, or a little later.
    """
    async for line, head in lines(chunks):
        at = now()
        try:
            record.add(json.loads(b"null" if head else line), at)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, RecursionError):
            record.break_off(at)
