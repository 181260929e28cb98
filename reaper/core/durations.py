"""Durations as people write them ("6h", "1d12h", "500ms") and as people read them ("3 h 20 min"), and times in files."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

GO_EXAMPLES = '"60s", "1m30s", "500ms"'
EXAMPLES = '"90s", "10m", "6h", "1d12h"'

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_PART = re.compile(r"(\d+(?:\.\d+)?)[ \t]*(ms|s|m|h|d|w)", re.ASCII)
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?[ \t]*(?:ms|s|m|h|d|w)[ \t]*)+", re.ASCII)
_WORDS = {"min": "m", "mins": "m", "minute": "m", "minutes": "m", "sec": "s", "secs": "s", "second": "s", "seconds": "s"}
_WORDS |= {"hr": "h", "hrs": "h", "hour": "h", "hours": "h", "day": "d", "days": "d", "week": "w", "weeks": "w"}
_WORD = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", re.ASCII)
_GO_SECONDS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 0.001, "s": 1, "m": 60, "h": 3600}
_GO_UNIT = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"  # both signs of micro are Go's
_GO_PART = re.compile(_GO_UNIT, re.ASCII)
_GO_WHOLE = re.compile(f"(?:{_GO_UNIT})+", re.ASCII)
_LONGEST = timedelta(days=36500)
_LONGEST_MEANT = 100


def parse(text: str) -> timedelta:
    """The duration that ``text`` names: numbers with units ms, s, m, h, d or w, added up ("1d12h", "24 h").

    Raises ValueError, with an example of what would be right, for anything else: a number without
    a unit, a sign, a unit that does not exist, or more than a hundred years.
    """
    stripped = text.strip()
    if stripped == "0":
        return timedelta(0)
    if not _WHOLE.fullmatch(stripped):
        raise ValueError(f"{text!r} is not a duration; write for example {EXAMPLES}{_meant(stripped)}")
    try:
        total = timedelta(seconds=sum(float(n) * _SECONDS[unit] for n, unit in _PART.findall(stripped)))
    except OverflowError:
        total = timedelta.max
    if total > _LONGEST:
        raise ValueError(f"{text!r} is longer than a hundred years; write for example {EXAMPLES}")
    return total


def _meant(text: str) -> str:
    """The rest of the sentence: what was probably meant by what is no duration. A label may have a million digits."""
    if len(text) > _LONGEST_MEANT:
        return ""
    units = [_WORDS.get(unit.lower(), unit.lower()) for _, unit in _WORD.findall(text)]
    rest = _WORD.sub("", text).strip(" \t")
    if units and not rest and all(unit in _SECONDS for unit in units):
        numbers = [number for number, _ in _WORD.findall(text)]
        return f'; did you mean "{"".join(number + unit for number, unit in zip(numbers, units, strict=True))}"?'
    if text.isascii() and text.isdigit():
        return f'; it has no unit: did you mean "{text}s", "{text}m" or "{text}h"?'
    return f"; the units are {', '.join(_SECONDS)}" if units else ""


def parse_go(text: str) -> timedelta:
    """The duration that ``text`` names as Go writes it: "60s", "1m30s", "-1s", "1.5h", to the microsecond.

    Raises ValueError, with an example of what would be right.
    """
    sign, left = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if left == "0":
        return timedelta(0)
    if not _GO_WHOLE.fullmatch(left):
        raise ValueError(f"{text!r} is not a duration; write for example {GO_EXAMPLES}")
    try:
        total = sign * timedelta(seconds=sum(float(n) * _GO_SECONDS[unit] for n, unit in _GO_PART.findall(left)))
    except OverflowError:
        total = timedelta.max
    if abs(total) > _LONGEST:
        raise ValueError(f"{text!r} is longer than a hundred years; write for example {GO_EXAMPLES}")
    return total


def parse_time(text: object) -> datetime:
    """The time that ``isoformat`` wrote, as aware UTC. Raises ValueError for anything else, and for one without a zone."""
    if not isinstance(text, str):
        raise ValueError(f"{text!r:.40} is no time")  # noqa: TRY004 - of what a file or an answer holds
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    try:
        return found.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text} is no time that there is") from None


def spell(value: timedelta) -> str:
    """``value`` in the form that ``parse`` reads, exactly: "1d12h". Zero is "0s"."""
    left = round(value.total_seconds() * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def shifted(moment: datetime, span: timedelta) -> datetime:
    """``moment`` plus ``span``; the first or the last moment that there is where that lies beyond it."""
    try:
        return moment + span
    except OverflowError:
        last, first = datetime.max.replace(tzinfo=moment.tzinfo), datetime.min.replace(tzinfo=moment.tzinfo)
        return last if span > timedelta(0) else first


def human(value: timedelta, parts: int = 2) -> str:
    """``value`` for a sentence, cut to its ``parts`` largest units: "3 h 20 min", "12 s", "7 d". Days begin at 48 h."""
    seconds = value.total_seconds()
    if seconds < 0:
        return f"-{human(-value, parts)}"
    if seconds < 1:
        return f"{round(seconds * 1000)} ms" if seconds else "0 s"
    return _in_words(int(seconds), parts)


@lru_cache(maxsize=4096)
def _in_words(left: int, parts: int) -> str:
    words: list[str] = []
    days = (("d", 86_400),) if left >= 2 * 86_400 else ()
    for unit, size in (*days, ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            words.append(f"{count} {unit}")
        elif words:
            break  # "2 d 5 s" would claim a precision that is of no use
        if len(words) == parts:
            break
    return " ".join(words)
