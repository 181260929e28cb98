"""``reaper ryuk`` as a process, and clients of it."""

import json
import queue
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from reaper.observers.journal import NAME
from tests import secrecy
from tests.run import Program

LIMIT = 60.0  # seconds for anything that is waited for
SESSION = "org.testcontainers.session-id"
QUICK = {
    "RYUK_PORT": "0",
    "RYUK_RECONNECTION_TIMEOUT": "500ms",
    "RYUK_CHANGES_RETRY_INTERVAL": "100ms",
    "RYUK_RETRY_OFFSET": "0",
    "REAPER_RETRY__INITIAL_DELAY": "20ms",
    "REAPER_RETRY__JITTER": "0",
    "REAPER_RETRY__ATTEMPTS": "2",
}
"""All that has to be waited for is short."""


class RyukProcess:
    """A running ``reaper ryuk``. A context manager: at its end the process is gone, whatever happened.

    Args:
        program: with the environment that it runs in.
        env: further variables, besides ``QUICK``.
    """

    def __init__(self, program: Program, **env: str) -> None:
        self.program = program
        self.process = program.start("ryuk", env={**QUICK, **env})
        self.lines: list[dict[str, Any]] = []
        self.other: list[str] = []
        self.port = 0
        self._started: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read_out, self._read_err)]
        for thread in self._threads:
            thread.start()

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._started.put(line)
        self._started.put("")

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            secrecy.note("the log of reaper ryuk", line)
            (self.lines.append(json.loads(line)) if line.startswith("{") else self.other.append(line))

    def started(self) -> Self:
        """Wait for the line that libraries wait for."""
        line = self._started.get(timeout=LIMIT)
        assert line.endswith(" Started!\n"), (line, self.other, self.lines)
        self.port = int(line.split("port ")[1].split(".")[0])
        return self

    def ended(self) -> int:
        """Wait until it ends; its exit code."""
        code = self.process.wait(LIMIT)
        for thread in self._threads:
            thread.join(LIMIT)
        return code

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.ended()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def events(self, name: str, **wanted: object) -> list[dict[str, Any]]:
        """The log lines so far of an event that has these fields."""
        lines = [line for line in list(self.lines) if line["event"] == name]
        return [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]

    def wait(self, name: str, **wanted: object) -> dict[str, Any]:
        """Wait until an event has been logged."""
        until(lambda: self.events(name, **wanted) != [] or self.process.poll() is not None, f"{name} {wanted}")
        found = self.events(name, **wanted)
        assert found, (name, wanted, self.lines, self.other)
        return found[-1]

    @contextmanager
    def client(self, *sessions: str) -> Iterator[socket.socket]:
        """A connection that has named sessions, and been told that they are understood."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT) as connection:
            for session in sessions:
                name(connection, session)
            yield connection


def name(connection: socket.socket, session: str) -> None:
    """Name a session, and wait for its ACK."""
    connection.sendall(f"label={SESSION}={session}&label=org.testcontainers=true\n".encode())
    assert connection.recv(100) == b"ACK\n"


def of(session: str, **more: str) -> Mapping[str, str]:
    """The labels of what a session makes."""
    return {SESSION: session, "org.testcontainers": "true", "org.testcontainers.lang": "python", **more}


def until(reached: Callable[[], bool], what: str) -> None:
    """Wait for something."""
    give_up = time.monotonic() + LIMIT
    while not reached():
        if time.monotonic() > give_up:
            raise AssertionError(f"waited {LIMIT:g} s for {what}")
        time.sleep(0.02)


def deleted(folder: Path) -> dict[str, dict[str, Any]]:
    """What the journal says was deleted, by name."""
    with closing(sqlite3.connect(f"file:{folder / NAME}?mode=ro", uri=True)) as journal:
        journal.row_factory = sqlite3.Row
        rows = [dict(row) for row in journal.execute("SELECT * FROM act ORDER BY id")]
    return {row["name"]: row for row in rows if row["outcome"] == "deleted"}
