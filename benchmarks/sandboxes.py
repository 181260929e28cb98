"""The work on sandboxes: a simulated organisation, the commands that sweep it, and the proof that they did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from math import ceil
from pathlib import Path
from typing import Any

from benchmarks.measure import BenchmarkError, Measurements, Run, Series

LISTED, DELETED, NEIGHBOURS = 10_000, 2_000, 1_000
LATENCY, AT_ONCE = 0.05, 32
LIFECYCLE, GENERAL, WINDOW = 600, 1200, 10.0
LISTINGS = 10
# The package by itself loads its parts when they are used, and importing it imports nothing: this is what a listing needs.
IMPORT = "from daytona_api_client_async import SandboxApi"
PAGE = 0.017  # seconds in which a real server of an early version answered a page of 200

_SCRIPTS = Path(__file__).parent
_CONFIG = """
[[daytona]]
name = "bench"
max_rate_share = 1.0
"""


@contextmanager
def serve(*arguments: str) -> Iterator[Mapping[str, str]]:
    """Serve a simulated world; yields the variables that point there."""
    command = [sys.executable, "-m", "benchmarks.server", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_SCRIPTS.parent) as server:
        try:
            assert server.stdout is not None
            lines = iter(server.stdout.readline, "\n")
            variables = dict(line.strip().split("=", 1) for line in takewhile(bool, lines))
            if "DAYTONA_API_URL" not in variables:
                raise BenchmarkError("the simulated server did not start")
            yield variables
        finally:
            server.send_signal(signal.SIGTERM)


@contextmanager
def _organisation(*arguments: str) -> Iterator[Mapping[str, str]]:
    """Serve an organisation, and nothing that points to an engine."""
    with serve(*arguments) as variables:
        yield {name: value for name, value in variables.items() if name.startswith("DAYTONA_")}


class Organisation(Measurements):
    """Measures sweeps of a simulated organisation, each in a server process of its own."""

    def __init__(self, folder: Path, reaper: str, say: Callable[[str], None]) -> None:
        super().__init__(folder, reaper, say)
        self._config = folder / "bench.toml"
        self._config.write_text(_CONFIG)

    def _control(self, env: Mapping[str, str], what: str) -> dict[str, Any]:
        url = f"{env['DAYTONA_API_URL'].removesuffix('/api')}/_simulator/{what}"
        with urllib.request.urlopen(url) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def listed(self, runs: int, latency: float = 0.0) -> dict[str, Series]:
        """List and decide about `LISTED` living sandboxes, beside reading the pages and nothing else."""
        series = {"reaper": Series(), "pages": Series()}
        commands = {
            "reaper": (self._reaper, "check", "--config", str(self._config)),
            "pages": (sys.executable, str(_SCRIPTS / "pages.py")),
        }
        with _organisation(str(LISTED), "--latency", str(latency)) as env:
            for number in range(runs + 1):  # the first one warms the server up
                for name, command in commands.items():
                    run = self._launcher.run(*command, env=env)
                    if number:
                        series[name].runs.append(run)
                        self._say(f"{LISTED} listed, run {number} of {runs}: {name}: {run.seconds:.3f} s")
                    # More than there are: a page's first row is the last one of the page before.
                    if name == "pages" and int(self._launcher.output()) < LISTED:
                        raise BenchmarkError(f"only {self._launcher.output().strip()} of {LISTED} were read")
        return series

    def deleted(self, runs: int) -> dict[str, Series]:
        """Delete `DELETED` under a latency, beside what that latency costs the requests that were made."""

        def bound(requests: Mapping[str, int]) -> float:
            return (requests["looks"] + requests["changes"]) * LATENCY / AT_ONCE

        return self._deletions("latency", runs, ("--latency", str(LATENCY)), bound)

    def limited(self, runs: int) -> dict[str, Series]:
        """Delete `DELETED` under rate limits, beside the windows that they need."""

        def bound(requests: Mapping[str, int]) -> float:
            if requests["refused"] > 1:
                raise BenchmarkError(f"{requests['refused']} requests were refused with 429")
            windows = max(ceil(requests["changes"] / LIFECYCLE), ceil(requests["looks"] / GENERAL))
            return (windows - 1) * WINDOW

        return self._deletions("limits", runs, ("--limits", str(LIFECYCLE), str(GENERAL)), bound)

    def _deletions(
        self, what: str, runs: int, server: tuple[str, ...], bound: Callable[[Mapping[str, int]], float]
    ) -> dict[str, Series]:
        series = {"reaper": Series(), "bound": Series()}
        command = (self._reaper, "--once", "--config", str(self._config), "--max-deletions", "none")
        for number in range(1, runs + 1):
            with _organisation(str(DELETED), "--old", *server) as env:
                run = self._launcher.run(*command, env=env)
                requests = self._requests(env)
                least = bound(requests)
            run = Run(run.seconds, run.cpu, run.peak_mib, (requests["changes"] + requests["looks"]) / DELETED)
            series["reaper"].runs.append(run)
            series["bound"].runs.append(Run(least, 0.0, 0.0))
            self._say(f"{what}, run {number} of {runs}: {run.seconds:.2f} s, bound {least:.2f} s, {requests}")
        return series

    def beside(self, runs: int) -> dict[str, Series]:
        """Delete one sandbox beside `NEIGHBOURS` living ones, whose links the deletion of another has asked for before."""
        series = Series()
        for number in range(1, runs + 1):
            state = Path(self._config.parent / f"state-{number}")
            with _organisation(str(NEIGHBOURS), "--leaked", "2") as env:
                made = []
                for leaked in ("leaked-0", "leaked-1"):
                    before = self._control(env, "requests")["total"]
                    command = (self._reaper, "--once", "--config", str(self._config), "--older-than", "1d", "--name", leaked)
                    run = self._launcher.run(*command, env={**env, "STATE_DIRECTORY": str(state)})
                    made.append(self._control(env, "requests")["total"] - before)
                if f'"sandboxes": {NEIGHBOURS}' not in json.dumps(self._control(env, "state")):
                    raise BenchmarkError("the two leaked sandboxes, and they alone, were to go")
            series.runs.append(Run(run.seconds, run.cpu, run.peak_mib, made[-1]))
            self._say(f"one deletion beside {NEIGHBOURS}, run {number} of {runs}: {made[0]} requests, then {made[1]}")
        return {"reaper": series}

    def _requests(self, env: Mapping[str, str]) -> dict[str, int]:
        """How many requests were made, by what they cost; and the proof that nothing is left."""
        state = json.dumps(self._control(env, "state"))
        if '"sandboxes": 0' not in state:
            raise BenchmarkError(f"something is left: {state[:500]}")
        found = {"looks": 0, "changes": 0, "refused": 0}
        for row in self._control(env, "requests")["requests"]:
            found["looks" if row["method"] == "GET" else "changes"] += row["count"]
            found["refused"] += row["count"] if row["status"] == 429 else 0
        return found

    def empty(self, runs: int) -> dict[str, Series]:
        """Nothing to do."""
        series = {"reaper": Series(), "import": Series()}
        with _organisation("0") as env:
            for number in range(runs + 1):
                ours = self._launcher.run(self._reaper, "--once", "--config", str(self._config), env=env)
                theirs = self._launcher.run(sys.executable, "-c", IMPORT)
                if number:
                    series["reaper"].runs.append(ours)
                    series["import"].runs.append(theirs)
        self._say(f"empty organisation: {runs} runs of each")
        return series

    def memory(self, runs: int) -> dict[str, Series]:
        """The resident memory of one process after the first listing, and after the last of `LISTINGS`."""
        series = {"first": Series(), "last": Series()}
        with _organisation(str(LISTED)) as env:
            for _ in range(runs):
                path = {"PYTHONPATH": os.fspath(_SCRIPTS.parent)}
                run = self._launcher.run(sys.executable, str(_SCRIPTS / "listings.py"), str(LISTINGS), env={**env, **path})
                first, last, held = (int(word) for word in self._launcher.output().split())
                if held != LISTED:
                    raise BenchmarkError(f"{held} were listed")
                series["first"].runs.append(Run(run.seconds, run.cpu, first / 1024))
                series["last"].runs.append(Run(run.seconds, run.cpu, last / 1024))
                self._say(f"{LISTINGS} listings: {first / 1024:.1f} MiB after the first, {last / 1024:.1f} after the last")
        return series
