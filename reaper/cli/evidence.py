"""``reaper history --show``: what was saved of one container or sandbox before its deletion."""

import json
import sqlite3
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from reaper import __version__
from reaper.config.settings import EvidenceTable
from reaper.core import sizes
from reaper.core.durations import human
from reaper.errors import ConfigError
from reaper.observers import evidence
from reaper.observers.journal_db import reading

FORMAT = 1
_SHOWN = 5
_OTHERS = ("since", "until", "endpoint", "policy", "outcome", "name", "limit", "summary")
_WHICH = "reaper history says of which deletions there is some"
_QUERY = "SELECT * FROM act WHERE name = ? OR substr(resource, 1, ?) = ? ORDER BY decided_at DESC, id DESC LIMIT 100"


def show_evidence(arguments: Namespace, journal: Path, table: EvidenceTable) -> int:
    """Print the evidence that ``--show`` names. Raises ConfigError.

    Args:
        arguments: of the command.
        journal: the journal's file, beside which the evidence is.
        table: what is saved now, and for how long.
    """
    if given := next((name for name in _OTHERS if getattr(arguments, name)), None):
        raise ConfigError("it chooses among all deletions, and --show names one", "leave it out", f"--{given}")
    recorded, file = _recorded(journal, arguments.show), journal.parent / evidence.FOLDER
    try:
        id_ = _find(arguments.show, evidence.ids(journal.parent), recorded, table)
        file /= f"{id_}.json"
        found = evidence.read(journal.parent, id_)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"it cannot be read: {why}", "be the user that reaper runs as", str(file)) from None
    act = next((act for act in recorded if act["resource"] == id_), None)
    outcome = None if act is None else {key: act[key] for key in ("outcome", "detail", "sentence", "decided_at", "ended_at")}
    if arguments.json:
        document = {"format": FORMAT, "version": __version__, "command": "history --show", "evidence": found}
        sys.stdout.write(json.dumps({**document, "record": outcome}) + "\n")
    else:
        sys.stdout.write("".join(f"{_escaped(line)}\n" for line in _lines(found, outcome)))
    return 0


def _recorded(journal: Path, wanted: str) -> list[dict[str, Any]]:
    """What was done to what has this name, or whose id begins so, the newest first; nothing without a readable journal."""
    with suppress(OSError, sqlite3.Error, UnicodeEncodeError):  # no name is of bytes that are no text
        if wanted and journal.stat().st_size:
            with closing(reading(journal)) as connection:
                return [dict(row) for row in connection.execute(_QUERY, (wanted, len(wanted), wanted))]
    return []


def _find(wanted: str, there: frozenset[str], recorded: list[dict[str, Any]], table: EvidenceTable) -> str:
    """The id of which there is evidence that a person means: an id, its beginning, or a name."""
    named = [act["resource"] for act in recorded if act["name"] == wanted and act["resource"] in there]
    begun = sorted(id_ for id_ in there if wanted and id_.startswith(wanted))
    found = [wanted] if wanted in there else list(dict.fromkeys(named or begun))
    if len(found) == 1:
        return found[0]
    if found:
        some = f"{', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}"
        raise ConfigError(f"{wanted!r} may be {some}", "name one by its id", "--show")
    if any(act.get("evidence") for act in recorded):
        kept = f"for {human(table.keep_for)}, no more than {sizes.human(table.max_size)}"
        raise ConfigError(f"the evidence of {wanted!r} was dropped", f"it is kept {kept} ([evidence])", "--show")
    hint = _WHICH if table.wanted or not recorded else "set logs and inspect in [evidence], and the next time it will be"
    raise ConfigError(f"no evidence of {wanted!r} was saved", hint, "--show")


def _escaped(text: str) -> str:
    """One line in which nothing moves a terminal or turns its neighbours, whatever a container wrote."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def _lines(found: Mapping[str, Any], outcome: Mapping[str, Any] | None) -> Iterator[str]:
    yield f"{found.get('kind')} {found.get('name')} ({found['id']}) on {found.get('endpoint')}"
    yield f"saved {_when(found.get('saved_at'))}"
    if outcome is not None:
        why = outcome["detail"] or outcome["sentence"]
        yield f"{outcome['outcome']} {_when(outcome['ended_at'] or outcome['decided_at'])}: {why}"
    if isinstance(inspection := found.get("inspection"), dict):
        yield from ("", f"state: {_state(inspection)}", "", "inspection:")
        yield from (f"  {line}" for line in json.dumps(inspection, indent=2, ensure_ascii=False).splitlines())
    log, note = found.get("log"), found.get("note")
    if log:
        yield from ("", f"log, the last {len(log)} lines{f' ({note})' if note else ''}:")
        yield from (f"  {line}" for line in log)
    else:
        yield from ("", f"log: none, {note or 'it wrote nothing'}")


def _when(at: object) -> str:
    return f"at {str(at)[:19].replace('T', ' ')} UTC"


def _state(inspection: Mapping[str, Any]) -> str:
    """How it was, in a few words: state, exit code, out of memory, health."""
    state = inspection.get("State")
    if not isinstance(state, dict):
        return ": ".join(str(word) for word in (inspection.get("state"), inspection.get("errorReason")) if word)
    words = [str(state.get("Status"))]
    words += [f"exit code {state.get('ExitCode')}"] if not state.get("Running") else []
    words += ["killed since it was out of memory"] if state.get("OOMKilled") is True else []
    words += [f"health {health.get('Status')}"] if isinstance(health := state.get("Health"), dict) else []
    return ", ".join(words) + (f", error {state['Error']}" if state.get("Error") else "")
