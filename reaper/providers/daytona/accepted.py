"""The deletions that the server has accepted, and which of them it has not done.

GET by id answers 404 also where the server's own look-up has failed, and for what it could not destroy, which it hides.
The database tells of all of them at once; that one is gone it does not tell by itself.
"""

import asyncio
import math
from collections.abc import Mapping

from reaper.providers.base import Call
from reaper.providers.daytona.database import Database
from reaper.providers.parsing import Row, text

_ERRORED = frozenset({"error", "build_failed"})


class Accepted:
    """The deletions that one organisation's server has accepted.

    Args:
        database: the older form of the listing. It is asked by nothing else, since it rests where it does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._at: dict[str, float] = {}  # by id, when, in the loop's time
        self._rows: Mapping[str, Row] = {}  # of the latest listing
        self._began = -math.inf
        self._lock = asyncio.Lock()

    def __contains__(self, id_: str) -> bool:
        return id_ in self._at

    def add(self, id_: str, answer: object) -> None:
        """The server has answered a deletion with this. What was in an error it hides at once, and does no more to it."""
        is_hidden = isinstance(answer, dict) and answer.get("state") in _ERRORED
        self._at[id_] = -math.inf if is_hidden else asyncio.get_running_loop().time()

    async def remainder(self, id_: str, call: Call) -> str | None:
        """What is left of one that GET by id does not find, for people; None where it is gone or nothing is known.

        What a listing lacked that began after its deletion was accepted is gone; another one is asked for otherwise.
        """
        accepted, asked = self._at.get(id_, -math.inf), asyncio.get_running_loop().time()
        if accepted > -math.inf and (id_ in self._rows or self._began <= accepted):
            async with self._lock:
                if self._began < asked:
                    began = asyncio.get_running_loop().time()
                    self._rows = await self._database.being_destroyed(self._at.keys(), call)
                    self._began = began
        row = self._rows.get(id_) if accepted > -math.inf else None
        if row is None:
            self._at.pop(id_, None)
            return None
        if row.get("state") in _ERRORED:
            return "the platform failed to destroy it, and hides it since then"
        return f"it is still {text(row.get('state')) or 'there'}"
