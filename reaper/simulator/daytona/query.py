"""The list's parameters: what the real server takes, refuses and ignores, and the page that they ask for."""

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reaper.simulator.daytona.index import SORTS, Index, Key, cursor_key, cursor_value
from reaper.simulator.daytona.model import STATES, Sandbox, micros
from reaper.simulator.daytona.rules import Refusal

Params = Mapping[str, Sequence[str]]
Test = Callable[[Sandbox], bool]
_LARGEST = 200
_NUMBERS: Mapping[str, Callable[[Sandbox], int]] = {
    "Cpu": lambda row: row.cpu,
    "MemoryGiB": lambda row: row.memory,
    "DiskGiB": lambda row: row.disk,
}
_TIMES: Mapping[str, Callable[[Sandbox], int | None]] = {
    "createdAt": lambda row: row.created,
    "lastEvent": lambda row: row.active,
}
_NEWER_TIMES: Mapping[str, Callable[[Sandbox], int | None]] = {"autoDestroyAt": lambda row: row.destroy_at}


@dataclass(frozen=True, slots=True)
class Query:
    """A list request that the server has understood."""

    tests: tuple[Test, ...]
    sort: str
    descending: bool
    limit: int
    after: tuple[Key, str] | None
    nothing: bool  # the cursor could be decoded and means nothing

    def page(self, index: Index) -> tuple[list[Sandbox], str | None]:
        """The rows of the page, and the cursor of the next one."""
        found: list[Sandbox] = []
        if self.nothing:
            return found, None
        for row in index.walk(self.sort, descending=self.descending, after=self.after):
            if all(test(row) for test in self.tests):
                if len(found) == self.limit:
                    return found, encode_cursor(found[-1], self.sort)
                found.append(row)
        return found, None


def encode_cursor(row: Sandbox, sort: str) -> str:
    """The cursor that points behind the row."""
    content = json.dumps({"sortValue": cursor_value(row, sort), "id": row.id}, separators=(",", ":"))
    return base64.b64encode(content.encode()).decode()


def parse(params: Params, *, newer: bool) -> Query:
    """What the parameters ask for. Unknown ones mean nothing. Raises Refusal 400."""
    sort = _choice(params, "sort", SORTS, "lastActivityAt")
    limit = _integer(params, "limit", 100)
    tests = [_visible(params, newer=newer), *_words(params), *_numbers(params, newer=newer), *_times(params, newer=newer)]
    after, nothing = _cursor(params, sort)
    return Query(tuple(tests), sort, _choice(params, "order", ("asc", "desc"), "desc") == "desc", limit, after, nothing)


def page_number(params: Params) -> tuple[int, int]:
    """The page and the limit of the deprecated list. Raises Refusal 400."""
    return _integer(params, "page", 1, largest=1_000_000), _integer(params, "limit", 100)


def labels_test(params: Params) -> list[Test]:
    """What the parameter `labels` asks for. Raises Refusal 400."""
    text = _one(params, "labels")
    if text is None:
        return []
    try:
        wanted = json.loads(text)
    except ValueError:
        raise Refusal(400, "Invalid labels JSON format") from None
    if not wanted:
        return []
    if not isinstance(wanted, dict):
        raise Refusal(400, "labels must be a JSON object")
    items = list(wanted.items())
    return [lambda row: row.labels is not None and all(row.labels.get(key) == value for key, value in items)]


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


def _flag(params: Params, key: str) -> bool | None:
    text = _one(params, key)
    if text is None:
        return None
    if text not in {"true", "false"}:
        raise Refusal(400, f"{key} must be a boolean value")
    return text == "true"


def _visible(params: Params, *, newer: bool) -> Test:
    errored = bool(_flag(params, "includeErroredDeleted"))
    warm = bool(_flag(params, "includeWarm")) if newer else True

    def test(row: Sandbox) -> bool:
        if row.state == "destroyed" or (row.hidden and not errored):
            return False
        return warm or row.warm_pool is None

    return test


def _words(params: Params) -> list[Test]:
    tests = labels_test(params)
    if (own := _one(params, "id")) is not None:
        start = own.casefold()
        tests.append(lambda row: row.id.startswith(start))
    if (name := _one(params, "name")) is not None:
        begin = name.casefold()
        tests.append(lambda row: row.name.casefold().startswith(begin))
    if states := frozenset(params.get("states", ())):
        if wrong := states - (STATES - {"destroyed"}):
            raise Refusal(400, f"each value in states must be one of the following values; {min(wrong)!r} is not")
        tests.append(lambda row: row.state in states)  # the stored one, whatever the JSON shows
    if snapshots := frozenset(params.get("snapshots", ())):
        tests.append(lambda row: row.snapshot in snapshots)
    if regions := frozenset(params.get("regionIds", ())):
        tests.append(lambda row: row.target in regions)
    if (public := _flag(params, "isPublic")) is not None:
        tests.append(lambda row: row.public == public)
    if (recoverable := _flag(params, "isRecoverable")) is not None:
        tests.append(lambda row: row.recoverable == recoverable)
    return tests


def _numbers(params: Params, *, newer: bool) -> list[Test]:
    tests: list[Test] = []
    known = {**_NUMBERS, "Gpu": lambda row: row.gpu} if newer else _NUMBERS
    for name, get in known.items():
        for bound in ("min", "max"):
            text = _one(params, bound + name)
            if text is not None:
                tests.append(_bound(get, _number(bound + name, text), least=bound == "min"))
    return tests


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < (0 if key.endswith("Gpu") else 1):
        raise Refusal(400, f"{key} must be a number that is not less than {0 if key.endswith('Gpu') else 1}")
    return value


def _times(params: Params, *, newer: bool) -> list[Test]:
    tests: list[Test] = []
    known = {**_TIMES, **_NEWER_TIMES} if newer else _TIMES
    for name, get in known.items():
        for bound in ("After", "Before"):
            text = _one(params, name + bound)
            if text is not None:
                tests.append(_bound(get, _date(name + bound, text), least=bound == "After"))
    return tests


def _date(key: str, text: str) -> int:
    # A "+" that was not encoded arrives as a blank, and that is no date any more.
    try:
        if " " in text:
            raise ValueError(text)
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(400, f"{key} must be a Date instance") from None
    return micros(at if at.tzinfo else at.replace(tzinfo=UTC))


def _bound(get: Callable[[Sandbox], float | None], limit: float, *, least: bool) -> Test:
    def test(row: Sandbox) -> bool:
        value = get(row)
        return value is not None and (value >= limit if least else value <= limit)

    return test


def _cursor(params: Params, sort: str) -> tuple[tuple[Key, str] | None, bool]:
    text = _one(params, "cursor")
    if not text:
        return None, False
    try:
        content: Any = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise Refusal(400, "Invalid cursor") from None
    try:
        own = content["id"]
        key = cursor_key(content["sortValue"], sort)
    except (TypeError, KeyError, ValueError):
        return None, True
    return (key, own), not isinstance(own, str)
