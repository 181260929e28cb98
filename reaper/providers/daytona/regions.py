"""Which region an endpoint is limited to: sandboxes name theirs by its id, and people by its name."""

from collections.abc import Sequence
from functools import partial

from reaper.core.model import Resource
from reaper.errors import DeniedError, InvalidError, NotFoundError, UnreadableError
from reaper.providers.base import Call
from reaper.providers.daytona.http import READ, Api
from reaper.providers.parsing import text


class Region:
    """The region that an endpoint is limited to.

    Args:
        api: makes the request.
        endpoint: its name, for messages.
        target: its id or its name; None where the endpoint has no such limit.

    Attributes:
        id: what sandboxes name as their target.
    """

    def __init__(self, api: Api, endpoint: str, target: str | None) -> None:
        self.id = target
        self._api = api
        self._endpoint = endpoint
        self._target = target
        self._is_known = target is None

    async def look_up(self, listed: Sequence[Resource], call: Call) -> bool:
        """Find out its id, once; whether that is another one than was thought.

        The server takes either where a sandbox is made: the name first, then the id. The region of an organisation's own
        runners has an id that is made up, and comes first. Raises InvalidError when the organisation has no such region.
        """
        if self._is_known or not listed:
            return False
        what = f"list regions of {self._endpoint}"
        try:
            rows, _ = await call(what, partial(self._api.request, "GET", "regions", READ))
        except (NotFoundError, InvalidError, DeniedError):
            return False  # an older server, which has no regions of an organisation's own, or a proxy that lets less through
        if not isinstance(rows, list):
            raise UnreadableError(f"the answer of {self._api.url} to GET /regions is no list")
        ids = [(text(row.get("name")), text(row.get("id"))) for row in rows if isinstance(row, dict)]
        by_name = [id_ for name, id_ in ids if name == self._target and id_]
        found = next(iter(by_name), None) or next((id_ for _, id_ in ids if id_ == self._target), None)
        if found is None and not any(resource.excluded is None for resource in listed):
            known = ", ".join(sorted({name for name, id_ in ids if name and id_})) or "none"
            raise InvalidError(
                f"endpoint {self._endpoint} is limited to target {self._target}, and the organisation has no region of that"
                f" name or id: it has {known}. Mend target in [[daytona]], or DAYTONA_TARGET"
            )
        self._is_known, before, self.id = True, self.id, found or self.id
        return self.id != before
