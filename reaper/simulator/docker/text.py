"""Times, durations and numbers in the forms that Go and Docker write and read."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from reaper.simulator.docker.model import Container

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
NS = 1_000_000_000
NEVER = "0001-01-01T00:00:00Z"
_HALF_HOUR = 1800 * NS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode(value: object) -> bytes:
    """JSON as Go writes it: no spaces, no escapes that it need not have, a line feed at the end."""
    return _ENCODER.encode(value).encode() + b"\n"


def rfc3339(ns: int) -> str:
    """A time as the engine's JSON has it: nanoseconds without trailing zeros; year 1 for 0."""
    if not ns:
        return NEVER
    seconds, rest = divmod(ns, NS)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09d}".rstrip("0").rstrip(".") + "Z"


def http_date(ns: int) -> str:
    """The Date header at that time."""
    return format_datetime(_EPOCH + timedelta(seconds=ns // NS), usegmt=True)


def nanoseconds(when: datetime | None) -> int:
    """An aware time in nanoseconds since 1970; 0 for None."""
    if when is None:
        return 0
    delta = when - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * NS + delta.microseconds * 1000


def human(ns: int) -> tuple[str, int]:
    """A duration in Docker's words, and how long (ns) until they change."""
    seconds = max(ns, 0) // NS
    if seconds < 60:
        text = "Less than a second" if seconds < 1 else "1 second" if seconds == 1 else f"{seconds} seconds"
        return text, NS - ns % NS
    minutes = seconds // 60
    if minutes < 60:
        return ("About a minute" if minutes == 1 else f"{minutes} minutes"), 60 * NS - ns % (60 * NS)
    return _hours((seconds + 1800) // 3600, seconds), _HALF_HOUR - ns % _HALF_HOUR


def _hours(hours: int, seconds: int) -> str:
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for below, unit, word in ((24 * 14, 24, "days"), (24 * 60, 168, "weeks"), (24 * 730, 720, "months")):
        if hours < below:
            return f"{hours // unit} {word}"
    return f"{seconds // 3600 // 24 // 365} years"


def status_text(container: Container, now: int) -> tuple[str, int]:
    """The Status of the listing ("Up 3 days"), and until when (ns) it stays so."""
    state, code = container.listed_state, container.exit_code
    if fixed := {"removing": "Removal In Progress", "dead": "Dead", "created": "Created"}.get(state):
        return fixed, 1 << 63
    text, left = human(now - (container.started if state in ("running", "paused") else container.finished))
    match state:
        case "restarting":
            text = f"Restarting ({code}) {text} ago"
        case "exited":
            text = f"Exited ({code}) {text} ago" if container.finished else ""
        case _:
            text = f"Up {text}{' (Paused)' if container.paused else ''}"
    return text, now + left


def boolean(text: str | None) -> bool:
    """A flag from a query, as the engine reads it: everything is true but a few words."""
    return text is not None and text.strip().lower() not in ("", "0", "no", "false", "none")


def listed_command(argv: tuple[str, ...]) -> str:
    """The Command of the listing: arguments with a blank in single quotes."""
    return " ".join([argv[0], *(f"'{word}'" if " " in word else word for word in argv[1:])])
