"""A real Prometheus on a port of its own: for tests, and for the picture in the README."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

from devkit.ports import free_port

START_TIMEOUT, ANSWER_TIMEOUT = 60.0, 60.0  # seconds; a busy machine takes its time

SCRAPE = """
global: {{scrape_interval: {every}, scrape_timeout: {every}, evaluation_interval: {every}}}
rule_files: [{rules}]
scrape_configs:
  - job_name: reaper
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class QueryError(Exception):
    """Prometheus has refused a query; its own words."""


class Prometheus:
    """Runs while the block does. A context manager.

    Args:
        folder: for its configuration, its log and, unless it is there already, its data (``tsdb``).
        config: the text of its configuration.
        options: further flags.
    """

    def __init__(self, folder: Path, config: str, *options: str) -> None:
        self.port = free_port()
        self.log = folder / "prometheus.log"
        file = folder / "prometheus.yml"
        file.write_text(config)
        self._command = [
            shutil.which("prometheus") or "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            *options,
        ]

    @classmethod
    def scraping(cls, folder: Path, port: int, *rules: Path, every: str = "1s") -> Self:
        """One that scrapes a service on a port of this host, and evaluates the rules as often."""
        return cls(folder, SCRAPE.format(port=port, every=every, rules=", ".join(f'"{rule}"' for rule in rules)))

    def __enter__(self) -> Self:
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(ANSWER_TIMEOUT)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=ANSWER_TIMEOUT).close()
            except OSError:  # refused, or 503 while it reads its data
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Prometheus does not start: {self.log.read_text()}") from None
                time.sleep(0.05)
            else:
                return

    def ask(self, path: str, **parameters: Any) -> Any:
        """The data of an answer of its API. Raises QueryError."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=ANSWER_TIMEOUT
            ) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise QueryError(f"{parameters}: {error.read().decode()}") from None

    def now(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The series of a query, each with its ``metric`` and its ``value``: time and text."""
        found: list[dict[str, Any]] = self.ask("query", query=expression, **({} if at is None else {"time": at}))["result"]
        return found

    def over(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of a query over time, each with its ``metric`` and its ``values``."""
        answer = self.ask("query_range", query=expression, start=start, end=end, step=step)
        found: list[dict[str, Any]] = answer["result"]
        return found
