"""The list's parameters: what the real server takes, refuses and ignores, and the page that they ask for."""

import base64
import binascii
import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reaper.simulator.daytona.index import SORTS, Index, Key, cursor_key, cursor_value
from reaper.simulator.daytona.model import Sandbox, micros
from reaper.simulator.daytona.rules import Refusal

Params = Mapping[str, Sequence[str]]
Test = Callable[[Sandbox], bool]
_LARGEST = 200


@dataclass(frozen=True, slots=True)
class Query:
    """A list request that the server has understood."""

    tests: tuple[Test, ...]
    sort: str
    descending: bool
    limit: int
    after: tuple[Key, str] | None
    nothing: bool  # the cursor could be decoded and means nothing

    def page(self, index: Index, lost: Container[str] = ()) -> tuple[list[Sandbox], str | None]:
        """The rows of the page, without those whose ids are lost, and the cursor of the next one."""
        found: list[Sandbox] = []
        if self.nothing:
            return found, None
        for row in index.walk(self.sort, descending=self.descending, after=self.after):
            if row.id not in lost and all(test(row) for test in self.tests):
                if len(found) == self.limit:
                    return found, encode_cursor(found[-1], self.sort)
                found.append(row)
        return found, None


def encode_cursor(row: Sandbox, sort: str) -> str:
    """The cursor that points behind the row."""
    content = json.dumps({"sortValue": cursor_value(row, sort), "id": row.id}, separators=(",", ":"))
    return base64.b64encode(content.encode()).decode()


def parse(params: Params) -> Query:
    """What the parameters ask for. Unknown ones mean nothing. Raises Refusal 400."""
    sort = _choice(params, "sort", SORTS, "lastActivityAt")
    limit = _integer(params, "limit", 100)
    tests: list[Test] = [lambda row: not row.hidden and row.warm_pool is None]
    if (text := _one(params, "createdAtAfter")) is not None:
        earliest = _date("createdAtAfter", text)
        tests.append(lambda row: row.created >= earliest)
    if (text := _one(params, "createdAtBefore")) is not None:
        latest = _date("createdAtBefore", text)
        tests.append(lambda row: row.created <= latest)
    if prefix := (_one(params, "id") or "").lower():
        tests.append(lambda row: row.id.lower().startswith(prefix))
    after, nothing = _cursor(params)
    return Query(tuple(tests), sort, _choice(params, "order", ("asc", "desc"), "desc") == "desc", limit, after, nothing)


@dataclass(frozen=True, slots=True)
class OlderQuery:
    """A request for the deprecated list that the server has understood."""

    tests: tuple[Test, ...]
    by_update: bool  # else by creation
    descending: bool
    page: int
    limit: int

    def sorted(self, newest_first: Iterable[Sandbox]) -> list[Sandbox]:
        """All that it asks for, of rows in the order of creation."""
        rows = [row for row in newest_first if all(test(row) for test in self.tests)]
        if self.by_update:
            rows.sort(key=lambda row: row.updated, reverse=self.descending)
        return rows if self.by_update or self.descending else rows[::-1]


def parse_older(params: Params) -> OlderQuery:
    """What the parameters of the deprecated list ask for. Raises Refusal 400."""
    hides = not _one(params, "includeErroredDeleted")
    tests: list[Test] = [lambda row: row.warm_pool is None and row.state != "destroyed" and not (hides and row.hidden)]
    if own := (_one(params, "id") or "").lower():
        tests.append(lambda row: row.id.lower().startswith(own))
    if name := (_one(params, "name") or "").lower():
        tests.append(lambda row: row.name.lower().startswith(name))
    by_update = _choice(params, "sort", ("createdAt", "updatedAt"), "createdAt") == "updatedAt"
    descending = _choice(params, "order", ("asc", "desc"), "desc") == "desc"
    page, limit = _integer(params, "page", 1, largest=1_000_000), _integer(params, "limit", 100)
    return OlderQuery(tuple(tests), by_update, descending, page, limit)


def _one(params: Params, key: str) -> str | None:
    values = params.get(key)
    if not values:
        return None
    if len(values) > 1:
        raise Refusal(400, f"{key} must be a single value")
    return values[0]


def _choice(params: Params, key: str, known: Sequence[str], default: str) -> str:
    value = _one(params, key)
    if value is not None and value not in known:
        raise Refusal(400, f"{key} must be one of the following values: {', '.join(known)}")
    return value or default


def _integer(params: Params, key: str, default: int, largest: int = _LARGEST) -> int:
    text = _one(params, key)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        raise Refusal(400, f"{key} must be an integer number")
    if int(text) > largest:
        raise Refusal(400, f"{key} must not be greater than {largest}")
    if int(text) < 1:
        raise Refusal(400, f"{key} must not be less than 1")
    return int(text)


def _date(key: str, text: str) -> int:
    # A "+" that was not encoded arrives as a blank, and that is no date any more.
    try:
        if " " in text:
            raise ValueError(text)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(400, f"{key} must be a Date instance") from None
    return micros(at if at.tzinfo else at.replace(tzinfo=UTC))


def _cursor(params: Params) -> tuple[tuple[Key, str] | None, bool]:
    text = _one(params, "cursor")
    if not text:
        return None, False
    try:
        content: Any = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise Refusal(400, "Invalid cursor") from None
    try:
        own = content["id"]
        key = cursor_key(content["sortValue"])
    except (TypeError, KeyError, ValueError):
        return None, True
    return (key, own), not isinstance(own, str)
