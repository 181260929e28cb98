"""What HTTP's own headers say, for all providers."""

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

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
    """The server's clock minus this host's, and by how much that may be wrong; zero where no header tells.

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
