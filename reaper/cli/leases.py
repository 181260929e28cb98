"""``reaper leases``: which leases keep something, whose they are, and an end for one whose holder hangs."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from reaper import exits
from reaper.config.load import state_directory
from reaper.core.durations import human, parse_time
from reaper.errors import ConfigError, LeasesUnknownError
from reaper.leases.documents import document
from reaper.leases.peers import this_user
from reaper.leases.record import Holder, LeaseRecord, LeaseState
from reaper.leases.served import ServedLeases
from reaper.leases.sources import NAME, is_orphan, service_at, service_token, service_urls
from reaper.leases.store import LeaseFile
from reaper.library.lease_client import AwayError, LeaseRefusedError, Service
from reaper.liveness import lives, lock_file
from reaper.observers import tables
from reaper.observers.log import one_line
from reaper.paths import TOKEN

FORMAT = 1
Row = Mapping[str, Any]
_COLUMNS = ("state", "lease", "age", "holder", "user", "known to", "covers")  # at a terminal


def run(arguments: Namespace) -> int:
    """Do what ``arguments`` ask for. Raises ConfigError."""
    wanted = arguments.lease or ""
    if (arguments.action == "list") is bool(wanted):
        problem = "it lists all, and takes no ID" if arguments.action == "list" else "it needs the ID of a lease"
        raise ConfigError(problem, "reaper leases list shows them", f"reaper leases {arguments.action}")
    given = {"--ended": ("list", arguments.ended), "--reason": ("end", arguments.reason), "--yes": ("end", arguments.yes)}
    for option, (action, value) in given.items():
        if value and arguments.action != action:
            raise ConfigError(f"it does not go with leases {arguments.action}", f"it is an option of {action}", option)
    sources, problems = _sources(os.environ), list[str]()
    if arguments.action == "list":
        rows = _listed(sources, problems, ended=arguments.ended)
        _print_all(rows, ended=arguments.ended, as_json=arguments.json)
    else:
        found, source = _found(wanted, sources, problems)
        if arguments.action == "end":
            found = _end(found, source, arguments)
        _print(found, as_json=arguments.json)
    for problem in problems:
        sys.stderr.write(f"reaper: {problem}\n")
    return exits.UNLISTED if problems else 0


# -- where they are known ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """A place that knows leases.

    Args:
        name: for people.
        rows: reads those that a query asks for; all open ones without one. May raise LeasesUnknownError.
        end: ends one: its document, by whom, and why. May raise ConfigError and LeasesUnknownError.
    """

    name: str
    rows: Callable[..., Sequence[Row]]
    end: Callable[[Row, str, str], Row]


def _sources(env: Mapping[str, str]) -> list[_Source]:
    found = [_of_state(state_directory(env) / NAME)]
    for url in service_urls(env):
        reader = service_at(url, env)
        assert isinstance(reader, ServedLeases)
        found.append(_of_service(url, reader, service_token(env)))
    return found


def _of_state(path: Path) -> _Source:
    def rows(*, id: str | None = None, ended: bool = False) -> Sequence[Row]:  # noqa: A002 - as the API names it
        with closing(LeaseFile(path)) as file:
            if id is not None:
                records: Sequence[LeaseRecord] = [record] if (record := file.find(id)) is not None else []
            else:
                records = file.records() if ended else file.open()
        return [_document(record, path) for record in records]

    def end(row: Row, by: str, reason: str) -> Row:
        with closing(LeaseFile(path)) as file:
            record = file.find(str(row["id"]))
            if record is None:
                raise LeasesUnknownError(f"lease {row['id']} is not in {path} any more")
            now = datetime.now(UTC)
            alive = record.token is not None and lives(lock_file(path), record.token) is True
            seen_at = now if alive and record.sort.value == "process" else record.seen_at
            ended = replace(record, state=LeaseState.EXPIRED, seen_at=seen_at, ended_at=now, cause=reason, ended_by=by)
            file.put(ended)
            return _document(file.find(record.id) or ended, path)

    return _Source(str(path), rows, end)


def _document(record: LeaseRecord, path: Path) -> Row:
    row = document(record)
    if is_orphan(record, path):
        row |= {"state": LeaseState.EXPIRED.value, "cause": "killed"}
    return row


def _of_service(url: str, reader: ServedLeases, token: str | None) -> _Source:
    def rows(*, id: str | None = None, ended: bool = False) -> Sequence[Row]:  # noqa: A002 - as the API names it
        query = {"id": id} if id is not None else {} if ended else {"state": "open"}
        return [row for row in reader.rows(**query) if id in (None, row["id"]) and (ended or id or row["ended_at"] is None)]

    def end(row: Row, by: str, reason: str) -> Row:
        target = f"{quote(str(row['id']), safe='')}?{urlencode({'by': by, 'cause': reason})}"
        try:
            status, answer = Service(url, token).ask("DELETE", target)
        except AwayError as error:
            raise LeasesUnknownError(str(error)) from None
        except LeaseRefusedError as error:
            status, answer = 403, {"error": str(error)}
        if status != 200:
            hint = f"ask as root, as the service's own user or as one of its trusted_users, or set {TOKEN} to its token"
            raise ConfigError(f"the service refuses to end it: {answer.get('error', status)}", hint, f"lease {row['id']}")
        return answer

    return _Source(url, rows, end)


def _listed(sources: Sequence[_Source], problems: list[str], *, ended: bool) -> list[Row]:
    found: dict[str, Row] = {}
    for source in sources:
        try:
            for row in source.rows(ended=ended):
                found.setdefault(str(row["id"]), {**row, "known_to": source.name})
        except LeasesUnknownError as error:
            problems.append(str(error))
    return sorted(found.values(), key=lambda row: (str(row["since"]), str(row["id"])))


def _found(id_: str, sources: Sequence[_Source], problems: list[str]) -> tuple[Row, _Source]:
    ended = None
    for source in sources:
        try:
            for row in source.rows(id=id_):
                if row["ended_at"] is None:
                    return {**row, "known_to": source.name}, source
                ended = ended or ({**row, "known_to": source.name}, source)
        except LeasesUnknownError as error:
            problems.append(str(error))
    if ended is not None:
        return ended
    asked = ", ".join(source.name for source in sources)
    more = f" ({'; '.join(problems)})" if problems else ""
    raise ConfigError(f"no such lease is known to {asked}{more}", "reaper leases list --ended shows all", f"lease {id_}")


# -- the end of one ----------------------------------------------------------------------------------------------------


def _end(row: Row, source: _Source, arguments: Namespace) -> Row:
    where = f"lease {row['id']}"
    if row["ended_at"] is not None:
        sys.stderr.write(f"reaper: {where} has ended already: {row['cause']}\n")
        return row
    reason = " ".join((arguments.reason or "").split())
    if not reason:
        raise ConfigError("an end needs its reason, which stays on record", 'write for example --reason "hangs"', where)
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise ConfigError("its end has to be confirmed, and there is no terminal", "give --yes", where)
        sys.stderr.write(f"{_holder(row)} holds {where} since {row['since']}; it covers {_covers(row)}.\n")
        sys.stderr.write("All of that is garbage as soon as it has ended, whatever its holder does. End it? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise ConfigError("it goes on", "answer y, or give --yes", where)
    return {**source.end(row, _operator(os.environ), reason), "known_to": source.name}


def _operator(env: Mapping[str, str]) -> str:
    user = this_user()
    behind = env.get("SUDO_USER", "")
    return f"{user} (sudo of {behind})" if behind and behind != user else user


# -- printing ----------------------------------------------------------------------------------------------------------


def _holder(row: Row) -> str:
    holder = row["holder"]
    text = str(Holder(str(holder["host"]), holder["pid"]))
    return f"{text} ({holder['command']})" if holder["command"] else text


def _covers(row: Row) -> str:
    words = ("labels", "label"), ("names", "name"), ("images", "image"), ("projects", "project")
    claims = [
        " and ".join(f"{word} {' or '.join(claim[field])}" for field, word in words if claim[field])
        for claim in row["claims"]
    ]
    return " or ".join([str(row["label"]), *claims])


def _age(row: Row) -> str:
    until = datetime.now(UTC) if row["ended_at"] is None else parse_time(row["ended_at"])
    return human(max(until - parse_time(row["since"]), timedelta(0)), parts=1)


def _print_all(rows: Sequence[Row], *, ended: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"format": FORMAT, "leases": rows}, indent=2))
        return
    cells = [
        (row["id"], row["state"], _age(row), _holder(row), row["holder"]["user"], _covers(row), row["known_to"])
        for row in rows
    ]
    if sys.stdout.isatty():
        drawn = [
            tables.Row((state, str(id_), age, holder, str(user), str(known_to), covers), "")
            for id_, state, age, holder, user, covers, known_to in cells
        ]
        none = "no lease is on record" if ended else "no lease is open; --ended shows those that were"
        tables.draw("" if rows else none, _COLUMNS, drawn, "lease")
        return
    for cell in cells:
        tables.line(*map(str, cell))


def _print(row: Row, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"format": FORMAT, "lease": row}, indent=2))
        return
    shown = {
        "lease": row["id"],
        "state": row["state"],
        "holder": _holder(row),
        "user": row["holder"]["user"],
        "covers": _covers(row),
        "since": f"{row['since']} ({_age(row)})",
        "seen at": row["seen_at"],
        "max_age": None if row.get("max_age_seconds") is None else human(timedelta(seconds=row["max_age_seconds"])),
        "ended at": row["ended_at"],
        "ended by": row.get("ended_by"),
        "cause": row["cause"],
        "known to": row["known_to"],
    }
    for name, value in shown.items():
        if value:
            print(f"{name + ':':<10} {one_line(str(value))}")
