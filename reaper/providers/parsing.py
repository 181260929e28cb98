"""What the JSON of every provider holds: labels and times. What is odd is missing data or an error, never a guess."""

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache

Row = Mapping[str, object]

_GO_ZERO = -62135596800  # year 1


def table(value: object) -> Row:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def rows(value: object) -> list[Row]:
    """The objects in the value if it is a list, else none."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


@lru_cache(maxsize=1024)
def shared(found: frozenset[str]) -> frozenset[str]:
    """The first of equal sets: of thousands of containers most have the same ones, empty ones above all."""
    return found


def texts(value: object) -> list[str]:
    """The texts in the value if it is a list, else none."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def moment(value: object, never: int | None = None) -> datetime | None:
    """An ISO 8601 time with up to nanoseconds as aware UTC; None where there is none. Raises ValueError.

    Args:
        value: as it stands in the answer.
        never: the year by which the server says that it never was, if it does.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no time")  # noqa: TRY004 - one error for all that is odd in a row
    parsed = datetime.fromisoformat(value)
    if parsed.year == never:
        return None
    if parsed.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    try:
        return parsed if parsed.tzinfo is UTC else parsed.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value!r} is no time that there is") from None


def epoch(value: object) -> datetime | None:
    """Seconds since 1970 as aware UTC; None where there is none, for 0 and for Go's zero time. Raises ValueError."""
    if value is None or value in (0, _GO_ZERO):
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no time")  # noqa: TRY004 - one error for all that is odd in a row
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{str(value)[:32]} is no time that there is") from None


def text(value: object) -> str | None:
    """The value if it is a text with something in it that can be written in UTF-8, else None."""
    return value if isinstance(value, str) and value and (value.isascii() or _is_utf8(value)) else None


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can spell
        return False
    return True


def labels(value: object) -> Mapping[str, str] | None:
    """The labels, or None when the answer had none: an empty object is no labels, a missing one is missing data."""
    if not isinstance(value, dict):
        return None
    for pair in value.items():
        for part in pair:
            if not isinstance(part, str) or not (part.isascii() or _is_utf8(part)):
                return None
    return value


_MOST_SKEW = timedelta(days=36500)  # any that is longer says no more, and no time could be corrected by it


def retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None where there is none that can be read."""
    if value is None:
        return None
    with suppress(ValueError):
        seconds = float(value)
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return None


def clock_skew(headers: Mapping[str, str], asked: datetime, answered: datetime) -> tuple[timedelta, timedelta]:
    """The server's clock minus this host's, and by how much that may be wrong; zero without such a header.

    Args:
        headers: of an answer. Its Date is cut to whole seconds.
        asked: when the request was sent (aware UTC).
        answered: when the headers had come.
    """
    with suppress(TypeError, ValueError, OverflowError):
        date = parsedate_to_datetime(headers.get("Date") or "")
        least, most = date - answered, date + timedelta(seconds=1) - asked
        return max(min(least + (most - least) / 2, _MOST_SKEW), -_MOST_SKEW), (most - least) / 2
    return timedelta(0), timedelta(0)
