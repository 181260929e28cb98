"""Daytona's second platform: the same keys, another API, and sandboxes that no answer of the first one shows."""

import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web

PREFIX = "/v2"
_CODES = {401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND", 429: "RATE_LIMITED"}
_MOST = 100


class SecondPlatform:
    """The sandboxes there, by organisation. Whatever they are, the first platform does not know of them.

    Args:
        name_of: the name of the organisation whose key a request carries; None where the key is wrong.
    """

    def __init__(self, name_of: Callable[[web.Request], str | None]) -> None:
        self.sandboxes: dict[str, list[dict[str, Any]]] = {}
        self.unknown: set[str] = set()
        """Organisations whose keys are not known here."""
        self._name_of = name_of

    def add(self, organisation: str, name: str, status: str = "running") -> None:
        """A sandbox that was created here, or imported."""
        row = {"id": str(uuid.uuid4()), "name": name, "status": status, "class": "linux", "labels": {}, "memory_mib": 1024}
        self.sandboxes.setdefault(organisation, []).append(row)

    def add_routes(self, app: web.Application) -> None:
        """Serve it below ``PREFIX``."""
        app.router.add_get(f"{PREFIX}/sandboxes", self._list)

    def error(self, status: int, message: str) -> web.Response:
        """An error in the envelope of this platform."""
        code = _CODES.get(status, "INTERNAL_SERVER_ERROR" if status >= 500 else "BAD_REQUEST")
        body = {"code": code, "message": message, "source": "DAYTONA_API", "trace_id": uuid.uuid4().hex}
        return web.json_response(body, status=status)

    async def _list(self, request: web.Request) -> web.Response:
        name = self._name_of(request)
        if name is None or name in self.unknown:
            return self.error(401, "invalid credentials")
        rows, limit = self.sandboxes.get(name, []), min(int(request.query.get("limit", _MOST)), _MOST)
        start = int(request.query.get("cursor", 0))
        end = start + limit
        page = [{**row, "cursor": str(start + number)} for number, row in enumerate(rows[start:end], 1)]
        return web.json_response({"sandboxes": page, "next_cursor": str(end) if end < len(rows) else None})
