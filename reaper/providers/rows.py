"""What the JSON of every provider holds: labels and times. What is odd is missing data or an error, never a guess."""

from collections.abc import Mapping
from datetime import UTC, datetime


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
    return parsed.astimezone(UTC)


def labels(value: object) -> Mapping[str, str] | None:
    """The labels, or None when the answer had none: an empty object is no labels, a missing one is missing data."""
    if not isinstance(value, dict):
        return None
    if any(not isinstance(key, str) or not isinstance(text, str) for key, text in value.items()):
        return None
    return value
