"""Another user of the engine: `docker run --rm IMAGE true`, one after the other, each timed."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter

from benchmarks.measure import Run
from devkit.engine import DEFAULT_IMAGE


class Neighbour:
    """Runs containers that end at once.

    Args:
        docker: the docker command.
        host: the engine's address.
    """

    def __init__(self, docker: str, host: str) -> None:
        self._command = (docker, "--host", host, "run", "--rm", DEFAULT_IMAGE, "true")

    def run(self) -> Run:
        """One container, from the command's start to its end."""
        began = perf_counter()
        subprocess.run(self._command, check=True, capture_output=True, timeout=300)
        return Run(perf_counter() - began, 0.0, 0.0)

    @contextmanager
    def beside(self) -> Iterator[list[Run]]:
        """One container after the other for as long as the block lasts; its value has the runs after the block."""
        runs: list[Run] = []
        done = threading.Event()

        def work() -> None:
            while not done.is_set():
                runs.append(self.run())

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            try:
                yield runs
            finally:
                done.set()
            working.result()
