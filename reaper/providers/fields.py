"""The types that settings are written in, and their checks: each error says what would be right."""

import difflib
import fnmatch
import json
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer, StrictStr, WithJsonSchema

from reaper.core import durations, sizes
from reaper.core.scope import is_total

Least = TypeVar("Least", timedelta, int)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt ``word``: the nearest of the ``known`` ones, else all of them."""
    choices = sorted(str(name) for name in known)
    near = difflib.get_close_matches(word, choices, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(choices)}"


def toml_value(value: object) -> str:
    """``value`` as it is written in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # TOML's basic strings know the same escapes
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml_value(item)}' for key, item in value.items())}}}"
    return str(value)


def masked(host: str) -> str:
    """``host`` without a user, a password and a query, which may be secret and do not belong there."""
    without_user = re.sub(r"^([\w+]+://)?.*@", r"\1***@", host, flags=re.DOTALL)
    return re.sub(r"[?#].+", "?***", without_user, flags=re.DOTALL)


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        # pydantic turns ValueError, and only that, into an error of the key
        raise ValueError(f"a duration is a text with a unit, for example {durations.EXAMPLES}")  # noqa: TRY004
    return durations.parse(value)


def _size(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError(f"a size is a text with a unit, for example {sizes.EXAMPLES}")  # noqa: TRY004
    return sizes.parse(value)


def at_least(least: Least, why: str) -> AfterValidator:
    """A check that refuses what is less; ``why`` says what would be right."""

    def check(value: Least) -> Least:
        if value < least:
            raise ValueError(why)
        return value

    return AfterValidator(check)


def check_glob(value: str) -> str:
    """``value`` when it can match something. Raises ValueError with the hint."""
    if not value:
        raise ValueError("an empty glob matches nothing; leave it out")
    if value != value.strip():
        raise ValueError(f"{value!r} matches nothing: it begins or ends with a space; write {value.strip()!r}")
    if value.startswith("/"):
        raise ValueError(f"{value!r} matches nothing: no name or image begins with a slash; write {value.lstrip('/')!r}")
    start = value.find("[")
    while start >= 0:
        first = start + 2 if value.startswith("!", start + 1) else start + 1
        end = value.find("]", first + 1)  # a bracket that stands first is in the set and does not close it
        if end < 0:
            raise ValueError(f"the glob {value!r} opens a bracket and does not close it; a literal one is written [[]")
        start = value.find("[", end)
    if "(?!)" in fnmatch.translate(value):  # what it makes of an empty range
        raise ValueError(f"the glob {value!r} can never match: its range runs backwards; write for example [a-z]")
    return value


def check_label(value: str) -> str:
    """``value`` when it is a label pattern. Raises ValueError with the hint."""
    key, equals, glob = value.partition("=")
    if not key.strip() or key != key.strip():
        raise ValueError(f'{value!r} names no label; write "key", "key=value" or "key=glob"')
    if set(key) & set("*?["):
        raise ValueError(
            f"{value!r} matches nothing: a label's key is matched as it is written, and globs work in its value only; write"
            ' each key in full, for example "team" or "team=a-*"'
        )
    if equals and (glob != glob.strip() or "[" in glob):
        check_glob(glob)
    return value


def check_narrowing(value: str) -> str:
    """``value`` when it is a glob that does not match everything. Raises ValueError with the hint."""
    if is_total(check_glob(value)):
        raise ValueError(f"{value!r} matches everything, so it narrows nothing; leave it out")
    return value


def _check_protecting(value: str) -> str:
    if is_total(check_glob(value)):
        raise ValueError(f"{value!r} protects everything, so nothing would ever be deleted; name what is to be kept")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no name; letters, digits, '-', '_' and '.' are, for example \"gpu-1\"")
    return value


def check_one_of(table: BaseModel, one: str, other: str) -> None:
    """Raise ValueError when the table has both of these keys."""
    if getattr(table, one) is not None and getattr(table, other) is not None:
        raise ValueError(f"{one} and {other} exclude each other; leave one out")


DURATION_EXAMPLES = ["90s", "6h", "1d12h"]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(durations.spell, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\s*(0|(\d+(\.\d+)?[ \t]*(ms|s|m|h|d|w)[ \t]*)+)\s*$", "examples": DURATION_EXAMPLES}
    ),
]
Positive = Annotated[Duration, at_least(timedelta.resolution, 'must be greater than 0; write for example "60s"')]
Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(sizes.spell, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*([KMGT]i?B|kB|B)\s*$", "examples": ["500MB", "10GiB"]}),
]
Globs = tuple[Annotated[StrictStr, AfterValidator(check_glob)], ...]
NarrowingGlobs = tuple[Annotated[StrictStr, AfterValidator(check_narrowing)], ...]
ProtectingGlobs = tuple[Annotated[StrictStr, AfterValidator(_check_protecting)], ...]
Labels = tuple[Annotated[StrictStr, AfterValidator(check_label)], ...]
Name = Annotated[StrictStr, AfterValidator(_name)]


class Table(BaseModel):
    """One table of the file: frozen, and nothing in it that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
