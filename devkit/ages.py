"""Editing the files of an engine that is down: containers of any age, and dead ones, without waiting."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Age:
    """How long ago a container was created, started, and finished; None leaves that time as it is."""

    created: timedelta | None = None
    started: timedelta | None = None
    finished: timedelta | None = None


PODMAN_STATES: Mapping[str, int] = {"unknown": 0, "stopped": 4, "exited": 6, "removing": 7, "stopping": 8}
"""How Podman's database calls its states."""


def rfc3339(moment: datetime) -> str:
    """The engine's way to write a time: UTC with nanoseconds, `2026-11-21T07:13:26.362136404Z`.

    Args:
        moment: aware, in UTC.
    """
    # The engine drops trailing zeros; made-up nanoseconds give what it nearly always has, nine digits.
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f404Z")


def apply(containers: Path, wanted: Mapping[str, Age], now: datetime) -> None:
    """Rewrite the times of these containers. The engine must not be running: it would overwrite the files.

    Args:
        containers: the engine's directory of containers, DATA-ROOT/containers.
        wanted: container id (in full) to age.
        now: what ages are counted back from; aware, in UTC.

    Raises:
        FileNotFoundError: a container does not exist.
    """
    for ident, age in wanted.items():
        path, config = _read(containers, ident)
        if age.created is not None:
            config["Created"] = rfc3339(now - age.created)
        if age.started is not None:
            config["State"]["StartedAt"] = rfc3339(now - age.started)
        if age.finished is not None:
            config["State"]["FinishedAt"] = rfc3339(now - age.finished)
        path.write_text(json.dumps(config))


def mark_dead(containers: Path, idents: Iterable[str]) -> None:
    """Mark containers as `dead`, as a removal leaves them that was interrupted; else as `apply`."""
    for ident in idents:
        path, config = _read(containers, ident)
        config["State"]["Dead"] = True
        path.write_text(json.dumps(config))


def apply_networks(store: Path, wanted: Mapping[str, datetime]) -> None:
    """Rewrite networks' creation times; else as `apply`.

    The store is a bolt database, of which only equally long pieces may be changed in place (its data pages have no
    check sums); so the new time is written with as many digits as the old one.

    Args:
        store: DATA-ROOT/network/files/local-kv.db.
        wanted: the present creation time, exactly as the API tells it, to the new one (aware, UTC).

    Raises:
        KeyError: no network has this creation time.
    """
    content = store.read_bytes()
    for old, moment in wanted.items():
        digits = len(old.removesuffix("Z").partition(".")[2])
        fraction = f".{moment.microsecond:06}404"[: digits + 1] if digits else ""
        before = f'"created":"{old}"'.encode()
        if before not in content:
            raise KeyError(old)
        content = content.replace(before, f'"created":"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"'.encode())
    store.write_bytes(content)


def apply_podman(database: Path, wanted: Mapping[str, Age], now: datetime) -> None:
    """Rewrite the times in the database of a Podman; its service may run, since every call reads them again.

    Args:
        database: DATA-ROOT/db.sql.
        wanted: container id (in full) to age.
        now: what ages are counted back from; aware, in UTC.

    Raises:
        KeyError: a container does not exist.
    """
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        for ident, age in wanted.items():
            if age.created is not None:
                _rewrite(connection, "ContainerConfig", ident, {"createdTime": rfc3339(now - age.created)})
            times = {"startedTime": age.started, "finishedTime": age.finished}
            told: dict[str, Any] = {key: rfc3339(now - ago) for key, ago in times.items() if ago is not None}
            if age.finished is not None:
                told |= {"exited": True}
                _rewrite_state(connection, ident, "exited")
            _rewrite(connection, "ContainerState", ident, told)


def apply_podman_state(database: Path, ident: str, state: str) -> None:
    """Rewrite the state of a container in the database of a Podman, whose service may run.

    Args:
        database: DATA-ROOT/db.sql.
        ident: container id, in full.
        state: one of PODMAN_STATES.

    Raises:
        KeyError: the container does not exist.
    """
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        _rewrite_state(connection, ident, state)


def _rewrite_state(connection: sqlite3.Connection, ident: str, state: str) -> None:
    number = PODMAN_STATES[state]
    _rewrite(connection, "ContainerState", ident, {"state": number})
    connection.execute("UPDATE ContainerState SET State = ? WHERE ID = ?", (number, ident))


def _rewrite(connection: sqlite3.Connection, table: str, ident: str, values: Mapping[str, Any]) -> None:
    found = connection.execute(f"SELECT JSON FROM {table} WHERE ID = ?", (ident,)).fetchone()
    if found is None:
        raise KeyError(ident)
    text = json.dumps({**json.loads(found[0]), **values})
    # Its own type: Podman cannot read a text where it has written bytes.
    connection.execute(
        f"UPDATE {table} SET JSON = ? WHERE ID = ?", (text.encode() if isinstance(found[0], bytes) else text, ident)
    )


def apply_podman_networks(folder: Path, wanted: Mapping[str, datetime]) -> None:
    """Rewrite the creation times of a Podman's networks, which are read again by every call.

    Args:
        folder: where it keeps one file for each network.
        wanted: network name to new creation time (aware, UTC).
    """
    for name, moment in wanted.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "created": rfc3339(moment)}))


def _read(containers: Path, ident: str) -> tuple[Path, dict[str, Any]]:
    path = containers / ident / "config.v2.json"
    return path, json.loads(path.read_text())
