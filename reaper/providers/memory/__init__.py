"""An endpoint in memory that implements the protocols of ``providers.base``: for this program's tests, and for yours.

It is never kinder than a real engine. Deleting what runs without force is refused, deleting twice finds nothing, a removal
that is under way refuses another, as does a container for its volumes and its image, a stop takes the container's own time
and kills at the grace, each call has a latency, a cancelled one goes on there, and a listing is stale when it arrives::

    world = MemoryWorld([leftover], VirtualClock(now))
    world.rules.append(Rule("delete", "leftover", calls={1}, error=ServerError("500"), done=True))

All times are anyio's: on a clock that jumps (``trio.testing.MockClock``) nothing waits.
"""

from reaper.providers.memory.reader import MemoryProvider, MemoryReader
from reaper.providers.memory.world import Call, Clock, Held, MemoryWorld, Rule, VirtualClock

__all__ = ["Call", "Clock", "Held", "MemoryProvider", "MemoryReader", "MemoryWorld", "Rule", "VirtualClock"]
