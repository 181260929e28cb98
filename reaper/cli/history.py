"""``reaper history``: what was deleted, when and why, from the journal. It reads, and changes nothing."""

import fnmatch
import json
import os
import re
import sqlite3
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reaper import __version__, liveness
from reaper.cli import summary
from reaper.cli.evidence import show_evidence
from reaper.cli.summary import Summary
from reaper.config import load
from reaper.config.load import Config
from reaper.core import durations
from reaper.core.model import Outcome
from reaper.core.savings import Prices
from reaper.errors import ConfigError
from reaper.observers import evidence, tables
from reaper.observers.journal import NAME
from reaper.observers.journal_db import DamagedError, NewerError, check_version, is_damage, reading
from reaper.observers.journal_rows import PENDING, gaps_left, spell
from reaper.providers import registry
from reaper.providers.fields import check_glob, did_you_mean

FORMAT = 1
DEFAULT_LIMIT = 100
ONE_OFF = ("--stopped", "--older-than", "--all")
OUTCOMES = (PENDING, *(outcome.value for outcome in Outcome if outcome is not Outcome.WOULD_DELETE))
_ATTEMPTS = 3
_WRITE_TIME = 'write for example "24h", "2026-11-21" or "2026-11-21T06:00:00Z"'
_LIVES = "pid {} is deleting it"
_DIED = "the process that was deleting it (pid {}) died; the next sweep of the endpoint shows what became of it"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to show: entries of one field are ORed, the fields are ANDed. ``limit`` None means all."""

    since: datetime | None
    until: datetime | None
    endpoints: tuple[str, ...]
    policies: tuple[str, ...]
    outcomes: tuple[str, ...]
    names: tuple[str, ...]
    limit: int | None

    def where(self) -> tuple[str, list[object]]:
        """The conditions in SQL, and their values."""
        conditions: list[str] = []
        values: list[object] = []
        for column, comparison, at in (("decided_at", ">=", self.since), ("decided_at", "<", self.until)):
            if at is not None:
                conditions.append(f"act.{column} {comparison} ?")
                values.append(spell(at))
        for column, words in (("endpoint", self.endpoints), ("policy", self.policies), ("outcome", self.outcomes)):
            if words:
                conditions.append(f"act.{column} IN ({', '.join('?' * len(words))})")
                values += words
        if self.names:
            conditions.append("named(act.name)")
        return " AND ".join(conditions) or "1", values

    @property
    def span(self) -> str:
        """Of which time it is, for people; empty when it is all of it."""
        said = [
            f"{word} {at:%Y-%m-%d %H:%M}" for word, at in (("since", self.since), ("until", self.until)) if at is not None
        ]
        return " ".join(said)


@dataclass
class Found:
    """What the journal says: the newest first. ``more`` when there is more than was wanted."""

    acts: list[dict[str, Any]]
    gaps: list[dict[str, Any]]
    more: bool = False
    summary: Summary = field(default_factory=Summary)


def run(arguments: Namespace) -> int:
    """Print what the journal says of what ``arguments`` ask for. Raises ConfigError."""
    loaded = load.load(arguments.config)
    file = load.state_directory(os.environ) / NAME
    if arguments.show is not None:
        return show_evidence(arguments, file, loaded.settings.evidence)
    wanted = _wanted(arguments, datetime.now(UTC))
    enabled = loaded.settings.journal.enabled
    prices = loaded.settings.prices.prices()
    found, there = Found([], []), _is_there(file)
    if there:
        found = _read(file, wanted, loaded, prices if arguments.summary else None)
    with_evidence: frozenset[str] = frozenset()
    with suppress(OSError):
        with_evidence = evidence.ids(file.parent)
    for row in found.acts:  # by the files: a process that was killed has left them, and records of nothing
        row["evidence"] = row["resource"] in with_evidence
    beside = [{name: getattr(gap, name) for name in gap.__slots__} for _, gap in gaps_left(file) if gap is not None]
    found.gaps += [gap for gap in beside if _overlaps(gap, wanted)]
    if not enabled:
        _note("journal.enabled is false: nothing is recorded now")
    if not there:
        _note(f"no journal at {file} yet")
    if arguments.summary and arguments.json:
        about = {"file": str(file), "enabled": enabled, "gaps": _gaps(found)}
        sys.stdout.write(summary.document(found.summary, prices, wanted.since, wanted.until, about) + "\n")
    elif arguments.summary:
        _show_gaps(found)
        summary.show(found.summary, prices, wanted.span)
    elif arguments.json:
        sys.stdout.write(_document(file, found, enabled=enabled) + "\n")
    else:
        _show(found)
        if found.more:
            _note(f"these are the newest {wanted.limit}; --limit none shows all")
    return 0


def _note(text: str) -> None:
    sys.stderr.write(f"reaper: {text}\n")


# -- what is asked for -------------------------------------------------------------------------------------------------


def _wanted(arguments: Namespace, now: datetime) -> Wanted:
    since, until = _time(arguments.since, now, "--since"), _time(arguments.until, now, "--until")
    if arguments.summary and arguments.limit is not None:
        raise ConfigError("a summary adds up all that is asked for", "leave it or --summary out", "--limit")
    if since is not None and until is not None and since >= until:
        raise ConfigError("it is not before --until, so nothing lies between them", "exchange them", "--since")
    for outcome in arguments.outcome or ():
        if outcome not in OUTCOMES:
            raise ConfigError(f"there is no outcome {outcome!r}", did_you_mean(outcome, OUTCOMES), "--outcome")
    try:
        names = tuple(check_glob(name) for name in arguments.name or ())
    except ValueError as error:
        raise ConfigError(str(error), where="--name") from None
    return Wanted(
        since,
        until,
        tuple(arguments.endpoint or ()),
        tuple(arguments.policy or ()),
        tuple(arguments.outcome or ()),
        names,
        _limit(arguments.limit),
    )


def _time(given: str | None, now: datetime, option: str) -> datetime | None:
    """A time, or so long ago. Without a zone it is in UTC, like everything that is shown."""
    if given is None:
        return None
    try:
        return now - durations.parse(given)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(given)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigError(f"{given!r} is neither a duration nor a time", _WRITE_TIME, option) from None


def _limit(given: str | None) -> int | None:
    if given is None:
        return DEFAULT_LIMIT
    if given == "none":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", given, re.ASCII):
        raise ConfigError(f"{given!r} is no number of lines", 'write for example 500, or "none" for all', "--limit")
    return int(given)


def _check_known(connection: sqlite3.Connection, wanted: Wanted, loaded: Config) -> None:
    """A misspelt name would find nothing, and that would look like an answer."""
    settings = loaded.settings
    endpoints = [table.name for _, table in settings.endpoints()] or [
        str(provider.default_name) for provider in registry.built_in() if provider.has_default(os.environ)
    ]
    policies = [*(policy.name for policy in settings.policy), *ONE_OFF]
    for option, column, given, configured in (
        ("--endpoint", "endpoint", wanted.endpoints, endpoints),
        ("--policy", "policy", wanted.policies, policies),
    ):
        if set(given) <= set(configured):
            continue
        recorded = [row[0] for row in connection.execute(f"SELECT DISTINCT {column} FROM act") if row[0] is not None]  # noqa: S608
        if column == "endpoint":
            recorded += [row[0] for row in connection.execute("SELECT DISTINCT endpoint FROM sweep")]
        for word in given:
            if word not in configured and word not in recorded:
                hint = did_you_mean(word, {*configured, *recorded})
                raise ConfigError(f"neither the configuration nor the journal has {word!r}", hint, option)


# -- reading -----------------------------------------------------------------------------------------------------------


def _is_there(file: Path) -> bool:
    try:
        return file.stat().st_size > 0  # an empty one is being made at this moment
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", "be the user that reaper runs as", str(file)) from None


def _read(file: Path, wanted: Wanted, loaded: Config, prices: Prices | None) -> Found:
    """What the journal says; with ``prices`` what it adds up to, in place of the records."""
    for attempt in range(1, _ATTEMPTS + 1):
        before = _look(file)
        try:
            with closing(reading(file)) as connection:
                found = _select(connection, file, wanted, loaded, prices)
        except NewerError as error:
            raise ConfigError(str(error), "upgrade this one", str(file)) from None
        except (sqlite3.Error, DamagedError) as error:
            if attempt < _ATTEMPTS and _look(file) != before:
                continue
            if is_damage(error):
                hint = "the next sweep sets it aside and begins a new one; sqlite3 FILE .recover may save what is in it"
                raise ConfigError(f"is damaged: {error}", hint, str(file)) from None
            full = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_IOERR", "SQLITE_FULL"))
            hint = "make room on its file system: reading needs some, too" if full else "be the user that reaper runs as"
            raise ConfigError(f"cannot be read: {error}", hint, str(file)) from None
        # A file that no process had open was read without its locks: what a process has begun to write since is no answer.
        if attempt == _ATTEMPTS or before[0] or _look(file) == before:
            break
    return found


def _look(file: Path) -> tuple[bool, int, int]:
    """Whether a process has it open, and what changes when it is written to."""
    try:
        status = file.stat()
    except OSError:
        return False, 0, 0
    return Path(f"{file}-wal").exists(), status.st_mtime_ns, status.st_size


def _select(connection: sqlite3.Connection, file: Path, wanted: Wanted, loaded: Config, prices: Prices | None) -> Found:
    """See ``_read``. A journal that an earlier version has written lacks columns, which are null then."""
    if check_version(connection) == 0:
        return Found([], [])
    _check_known(connection, wanted, loaded)
    patterns = [re.compile(fnmatch.translate(name)) for name in wanted.names]
    connection.create_function("named", 1, lambda name: any(p.match(name) for p in patterns), deterministic=True)
    conditions, values = wanted.where()
    gaps = [
        gap for row in connection.execute("SELECT * FROM gap ORDER BY began_at DESC") if _overlaps(gap := dict(row), wanted)
    ]
    if prices is not None:
        return Found([], gaps, summary=summary.select(connection, conditions, values, prices))
    query = (
        "SELECT act.*, sweep.host, sweep.pid, sweep.token FROM act JOIN sweep ON sweep.id = act.sweep"  # noqa: S608
        f" WHERE {conditions} ORDER BY act.decided_at DESC, act.id DESC LIMIT ?"
    )
    limit = -1 if wanted.limit is None else wanted.limit + 1
    rows = [dict(row) for row in connection.execute(query, [*values, limit])]
    more = wanted.limit is not None and len(rows) > wanted.limit
    living: dict[int, bool] = {}
    try:
        found = [_act(row, file, living) for row in (rows[: wanted.limit] if more else rows)]
        return Found(found, gaps, more)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DamagedError(f"a record cannot be read: {error}") from None


def _act(row: dict[str, Any], file: Path, living: dict[int, bool]) -> dict[str, Any]:
    """A row as it is shown: ``living`` remembers which processes are alive. Raises ValueError, TypeError and KeyError."""
    token = row.pop("token")
    row |= dict.fromkeys(set(_KEYS.split()) - row.keys())
    if row["outcome"] != PENDING:
        Outcome(row["outcome"])
    for column in ("decided_at", "reason", "sentence", "detail", "name", "resource"):
        if not isinstance(row[column], str):
            raise TypeError(f"{column} is no text")
    if odd := [column for column, value in row.items() if isinstance(value, bytes)]:
        raise TypeError(f"{odd[0]} is no text")
    row["seconds"] = round(row["seconds"], 3)
    if row["outcome"] == PENDING:
        if token not in living:
            living[token] = liveness.lives(liveness.lock_file(file), token) is True
        row["detail"] = (_LIVES if living[token] else _DIED).format(row["pid"])
    row["labels"] = None if row["labels"] is None else json.loads(row["labels"])
    return row


def _overlaps(gap: dict[str, Any], wanted: Wanted) -> bool:
    return (wanted.since is None or gap["ended_at"] >= spell(wanted.since)) and (
        wanted.until is None or gap["began_at"] < spell(wanted.until)
    )


# -- showing -----------------------------------------------------------------------------------------------------------

_KEYS = (
    "endpoint provider kind id name group image state raw_state created_at labels labels_cut owner policy action"
    " reason sentence since decided_at outcome detail error attempts seconds ended_at sweep host pid"
    " freed cpu memory disk avoided waited acted looked_at looked_state looked_differs evidence"
)


def _document(file: Path, found: Found, *, enabled: bool) -> str:
    """One JSON document; ``reaper/schemas/history.schema.json`` is its schema, and a test holds the two together."""
    acts = ({**row, "id": row["resource"]} for row in found.acts)
    return json.dumps(
        {
            "format": FORMAT,
            "version": __version__,
            "command": "history",
            "file": str(file),
            "enabled": enabled,
            "more": found.more,
            "gaps": _gaps(found),
            "acts": [{key: row[key] for key in _KEYS.split()} for row in acts],
        },
    )


def _gaps(found: Found) -> list[dict[str, Any]]:
    return [{key: gap[key] for key in ("began_at", "ended_at", "sweeps", "acts", "why")} for gap in found.gaps]


def _show_gaps(found: Found) -> None:
    for gap in found.gaps:
        sentence = f"{gap['sweeps']} sweeps with {gap['acts']} deletions could not be recorded: {gap['why']}"
        _note(f"from {_when(gap['began_at'])} to {_when(gap['ended_at'])} {sentence}")


def _show(found: Found) -> None:
    _show_gaps(found)
    if not sys.stdout.isatty():
        for row in found.acts:
            tables.line(*_plain(row))
        return
    columns = ("outcome", "name", "policy", "endpoint", "when (UTC)", "reason")
    tables.draw("nothing is recorded of that" if not found.acts else "", columns, [_row(row) for row in found.acts])


def _plain(row: dict[str, Any]) -> Iterable[str]:
    columns: Sequence[str] = ("outcome", "endpoint", "kind", "name", "resource", "policy", "reason")
    return (_when(row["decided_at"]), *(str(row[column] or "-") for column in columns), str(row["attempts"]), _sentence(row))


def _row(row: dict[str, Any]) -> tables.Row:
    outcome = str(row["outcome"])
    fields = (
        outcome,
        str(row["name"]),
        str(row["policy"] or "-"),
        str(row["endpoint"]),
        _when(row["decided_at"])[5:16],
        str(row["detail"] or tables.words(row["reason"])),
    )
    style = "yellow" if outcome == PENDING else tables.STYLES.get(Outcome(outcome), "")
    return tables.Row(fields, style, sentence=_sentence(row))


def _sentence(row: dict[str, Any]) -> str:
    sentence = f"{row['sentence']}; {row['detail']}" if row["detail"] else str(row["sentence"])
    return f"{sentence}; evidence: --show {row['resource'][:12]}" if row["evidence"] else sentence


def _when(at: str) -> str:
    """A time as the journal has it, to the second."""
    return at[:19].replace("T", " ")
