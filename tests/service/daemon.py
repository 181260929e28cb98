"""The service as a process: started, watched through its log lines and its HTTP, and stopped."""

import json
import queue
import signal
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any, Self, TypeVar

from devkit.ports import free_port
from reaper.observers.journal import NAME
from tests import secrecy
from tests.run import Program

T = TypeVar("T")

LIMIT = 60.0  # seconds for anything that is waited for

CONFIG = """
[service]
listen = "127.0.0.1:{port}"
jitter = "0s"
{service}
[retry]
initial_delay = "20ms"
jitter = "0s"
max_delay = "50ms"
{rest}
"""
QUICK = """
[[policy]]
name = "quick"
kinds = ["container", "sandbox"]
older_than = "6h"
stop_timeout = "1s"
every = "1s"
"""


SELDOM = QUICK.replace('1s"\n', '1h"\n').replace('stop_timeout = "1h"', 'stop_timeout = "1s"')


def acts(program: Program, **wanted: Any) -> list[dict[str, Any]]:
    """What the journal says of each deletion that has these columns, the oldest first; the file must be whole."""
    with closing(sqlite3.connect(f"file:{program.folder / NAME}?mode=ro", uri=True)) as journal:
        journal.row_factory = sqlite3.Row
        assert [tuple(row) for row in journal.execute("PRAGMA integrity_check")] == [("ok",)]
        rows = [dict(row) for row in journal.execute("SELECT * FROM act ORDER BY id")]
    return [row for row in rows if all(row[column] == value for column, value in wanted.items())]


class Daemon:
    """A running service. A context manager: at its end the process is gone, whatever happened.

    Args:
        program: with the environment that it runs in.
        rest: the policies and whatever else the file has.
        service: further keys of [service].
        name: of its file; another one for each service on one state directory.
        named: False lets it find its file, which is called reaper.toml then.
    """

    def __init__(
        self, program: Program, rest: str = QUICK, service: str = "", name: str = "service", *, named: bool = True
    ) -> None:
        self.program, self._named = program, named
        self.port = free_port()
        self.file = program.folder / (f"{name}.toml" if named else "reaper.toml")
        self.configure(rest, service)
        self.lines: list[dict[str, Any]] = []
        self.other: list[str] = []
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._read = 0

    def configure(self, rest: str, service: str = "") -> None:
        """Write the file; a running service reads it on SIGHUP."""
        self.file.write_text(CONFIG.format(port=self.port, service=service, rest=rest))

    def start(self, **env: str) -> Self:
        """Start it, and return at once."""
        self.process = self.program.start(*(("--config", str(self.file)) if self._named else ()), env=env)
        self._reader = threading.Thread(target=self._follow, args=(self.process,), daemon=True)
        self._reader.start()
        return self

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            secrecy.note("the log of the service", line)
            if line.startswith("{"):
                self.lines.append(json.loads(line))
            else:
                self.other.append(line)
            self._news.put(None)
        self._news.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def events(self, name: str, /, **fields: Any) -> Iterator[dict[str, Any]]:
        """The log lines so far of an event that has these fields."""
        for line in list(self.lines):
            if line["event"] == name and all(line.get(key) == value for key, value in fields.items()):
                yield line

    def wait(self, name: str, /, *, times: int = 1, **fields: Any) -> dict[str, Any]:
        """Wait until an event has been logged so many times; the last of them."""

        def enough() -> list[dict[str, Any]]:
            found = list(self.events(name, **fields))
            return found if len(found) >= times else []

        return self.until(enough, name)[times - 1]

    def until(self, look: Callable[[], T], what: str, limit: float = LIMIT) -> T:
        """Look at each log line, and now and then without one, until something is found, which is returned."""
        deadline = time.monotonic() + limit
        while not (found := look()):
            with suppress(queue.Empty):
                self._news.get(timeout=0.1)
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what}; logged: {self.lines[-20:]} {self.other}")
            if self.process.poll() is not None and not self._reader.is_alive() and not (found := look()):
                raise AssertionError(f"it ended without {what}: {self.lines[-20:]} {self.other}")
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        return code

    def stop(self) -> int:
        """End it in order."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and body of what it serves."""
        return self._ask(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers))

    def send(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Status and document of the answer to a request that carries a document."""
        headers = {"Content-Type": "application/json", **headers}
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}{path}"
        status, text = self._ask(urllib.request.Request(url, data, headers, method=method))
        return status, json.loads(text)

    @staticmethod
    def _ask(request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read().decode()
        secrecy.note(f"the answer to {request.full_url}", text)
        return status, text

    def metric(self, name: str, /, **labels: str) -> float:
        """The sum of a metric's series that have these labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if (series == name or series.startswith(f"{name}{{")) and all(f'{k}="{v}"' in series for k, v in labels.items()):
                total += float(value)
        return total
