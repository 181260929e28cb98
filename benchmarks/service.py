"""The running service: what it costs to keep it, and how quickly it reaps."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from benchmarks.measure import BenchmarkError, Measurements, Run, Series
from benchmarks.sandboxes import serve
from devkit.engine import PrivateEngine
from devkit.ports import free_port

SWEEPS, SETTLED, HELD = 2000, 200, 200
IDLE, LIVING, SCRAPE_EVERY = 300.0, 1000, 15.0
ENDPOINTS, SCRAPES = 100, 50
DEATHS, STOPPED_FOR, LIFE = 5, 2.0, 0.3

_LOOK_EVERY = 20  # sweeps; the page and the metrics are read as often
_LIMIT = 120.0  # seconds without a line that is waited for
_TICKS = os.sysconf("SC_CLK_TCK")
_SCRIPTS = Path(__file__).parent
_SERVICE = '[service]\nlisten = "127.0.0.1:{port}"\n{keys}\n'
_DOCKER = '[[docker]]\nname = "engine"\nhost = "{host}"\n'
_DAYTONA = '[[daytona]]\nname = "organisation"\nmax_rate_share = 1.0\n'
_SELDOM = f"""
[[policy]]
name = "stopped"
kinds = ["container"]
stopped_for = "{STOPPED_FOR:g}s"
every = "1h"
"""


class Daemon:
    """One running service; at the end of the block it has ended in order.

    Args:
        folder: an empty directory for its configuration and its state.
        reaper: the installed command.
        tables: its configuration, but for [service].
        keys: further keys of [service].
        env: what points it at what it keeps.
    """

    def __init__(self, folder: Path, reaper: str, tables: str, env: Mapping[str, str], keys: str = "") -> None:
        folder.mkdir()
        self._url = f"http://127.0.0.1:{(port := free_port())}"
        config = folder / "service.toml"
        config.write_text(_SERVICE.format(port=port, keys=keys) + tables)
        self._command = [reaper, "--config", str(config), "--log-format", "json"]
        state = str(folder / "state")
        own = {"HOME": str(folder), "STATE_DIRECTORY": state, "RUNTIME_DIRECTORY": state, "PYTHONPATH": str(_SCRIPTS.parent)}
        self._env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **own, **env}
        self._folder = folder
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, env=self._env, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()
        self._proc = Path(f"/proc/{self._process.pid}")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._process.terminate()
        try:
            code = self._process.wait(_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join()
        if kind is None and code != 0:
            raise BenchmarkError(f"the service ended with exit code {code}")

    def _follow(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.put(line)
        self._process.stderr.close()
        self._lines.put("")

    def wait(self, event: str, times: int = 1) -> dict[str, Any]:
        """Wait until this has been logged so often from now on; the last line. Whatever is logged of trouble is an error."""
        while times:
            try:
                text = self._lines.get(timeout=_LIMIT)
            except queue.Empty:
                raise BenchmarkError(f"the service did not log {event} within {_LIMIT:g} s") from None
            if not text.startswith("{"):
                raise BenchmarkError(f"the service {f'logged {text}' if text else 'ended'} before {event}")
            line: dict[str, Any] = json.loads(text)
            if line["level"] not in ("debug", "info"):
                raise BenchmarkError(f"the service logged {text.strip()}")
            times -= line["event"] == event
        return line

    def sweep(self, endpoints: int, held: int) -> None:
        """Have everything swept, and wait for it; at each endpoint there is so much, and all of it stays."""
        self._process.send_signal(signal.SIGUSR1)
        line = self.wait("sweep_finished", endpoints)
        if line["held"] != held or "deleted" in line:
            raise BenchmarkError(f"{held} were to be held: {line}")

    def get(self, path: str) -> str:
        """What it serves there."""
        with urllib.request.urlopen(f"{self._url}{path}", timeout=_LIMIT) as answer:
            text: str = answer.read().decode()
            return text

    def resident_mib(self) -> float:
        line = next(line for line in (self._proc / "status").read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def descriptors(self) -> int:
        """How many files it has open when nothing is going on: connections take a moment to be closed."""
        fewest = 1 << 30
        for _ in range(5):
            fewest = min(fewest, len(list((self._proc / "fd").iterdir())))
            time.sleep(0.1)
        return fewest

    def seen(self, seconds: float) -> Run:
        """What it takes now, `seconds` after the beginning: its memory, and the descriptors as the figure."""
        return Run(seconds, self.cpu(), self.resident_mib(), figure=self.descriptors())

    def idle(self, seconds: float, watched: float) -> Run:
        """What it takes in so many seconds with nothing to do: one sweep, and scrapes.

        It is watched for `watched` of these seconds after a sweep of its own; the rest is taken to be like them.
        """
        held = self.wait("sweep_finished")["held"]
        time.sleep(2)
        before = self.cpu()
        self.sweep(1, held)
        time.sleep(2)
        began, swept = time.perf_counter(), self.cpu()
        while (passed := time.perf_counter() - began) < watched:
            time.sleep(min(SCRAPE_EVERY, watched - passed))
            self.get("/metrics")
        return Run(seconds, swept - before + (self.cpu() - swept) * seconds / passed, self.resident_mib())

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


class Services(Measurements):
    """Measures the service, each time a fresh one."""

    _started = 0

    def _daemon(self, tables: str, env: Mapping[str, str], keys: str = "") -> Daemon:
        self._started += 1
        return Daemon(self._folder / f"service-{self._started}", self._reaper, tables, env, keys)

    def swept(self, runs: int, *, daytona: bool, sweeps: int = SWEEPS) -> dict[str, Series]:
        """Memory and descriptors after `SETTLED` sweeps over `HELD` living resources, and after `sweeps` of them.

        Each sweep is of all endpoints: an engine, or an engine and an organisation with half of the resources each. The
        journal is on and the events are followed, and after each `_LOOK_EVERY` sweeps the metrics and the page are read.
        """
        series = {"settled": Series(), "last": Series()}
        endpoints = 2 if daytona else 1
        held = HELD // endpoints
        where = "engine and organisation" if daytona else "engine"
        for _ in range(runs):
            with serve(str(held if daytona else 0), "--containers", str(held)) as variables:
                tables = _DOCKER.format(host=variables["DOCKER_HOST"]) + (_DAYTONA if daytona else "")
                env = {name: value for name, value in variables.items() if daytona and name != "DOCKER_HOST"}
                with self._daemon(tables, env) as service:
                    service.wait("sweep_finished", endpoints)  # the one at the start
                    began = time.perf_counter()
                    for number in range(2, sweeps + 1):
                        service.sweep(endpoints, held)
                        if number % _LOOK_EVERY == 0:
                            service.get("/metrics")
                            service.get("/")
                        if number in (SETTLED, sweeps):
                            run = service.seen(time.perf_counter() - began)
                            series["last" if number == sweeps else "settled"].runs.append(run)
                            told = f"{run.peak_mib:.2f} MiB, {run.figure:g} descriptors"
                            self._say(f"{where}, {number} sweeps in {run.seconds:.0f} s: {told}")
                    done = _metric(service.get("/metrics"), "reaper_sweeps_total", 'result="success"')
                    if done < sweeps * endpoints:
                        raise BenchmarkError(f"{done} sweeps succeeded")
        return series

    def idle(self, runs: int, seconds: float = IDLE) -> dict[str, Series]:
        """Processor time with `LIVING` containers and the policies that are built in.

        In five minutes there may be no sweep at all, so one is asked for: twice as many as there are on average. The metrics
        are scraped every `SCRAPE_EVERY` seconds.
        """
        series = {"service": Series()}
        with serve("0", "--containers", str(LIVING)) as env:
            for number in range(1, runs + 1):
                with self._daemon("", {"DOCKER_HOST": env["DOCKER_HOST"]}) as service:
                    run = service.idle(seconds, seconds)
                series["service"].runs.append(run)
                share = f"{run.cpu:.2f} s of processor time in {run.seconds:.0f} s"
                self._say(f"idle with {LIVING} containers, run {number} of {runs}: {share}, {run.peak_mib:.1f} MiB")
        return series

    def scraped(self, runs: int) -> dict[str, Series]:
        """What a scrape of `ENDPOINTS` endpoints takes beside the rendering alone, and how long it holds the loop, in ms."""
        holds = ("held", "quiet", "held_cpu", "quiet_cpu")
        series = {name: Series() for name in ("scrape", "render", *holds)}
        command = (sys.executable, str(_SCRIPTS / "scrapes.py"), str(ENDPOINTS), str(SCRAPES))
        for number in range(1, runs + 1):
            run = self._launcher.run(*command, env={"PYTHONPATH": str(_SCRIPTS.parent)})
            told = json.loads(self._launcher.output())
            for name, key in (("scrape", "ours"), ("render", "theirs")):
                series[name].runs.append(Run(told[key], run.cpu, run.peak_mib))
            for name in holds:
                series[name].runs.append(Run(told["wall"], told["cpu"], run.peak_mib, figure=1000 * told[name]))
            by_clock, itself, quiet = (f"{1000 * told[name]:.1f} ms" for name in ("held", "held_cpu", "quiet"))
            held = f"held for {by_clock}, {itself} by itself, {quiet} without"
            scrape = f"a scrape {told['ours']:.4f} s, rendering {told['theirs']:.4f} s"
            self._say(f"{ENDPOINTS} endpoints, {told['series']} series, run {number} of {runs}: {scrape}; {held}")
        return series

    def reaped(self, runs: int) -> dict[str, Series]:
        """Seconds from when a container is due to its end, by the engine's clock; containers that end by themselves."""
        series = {"late": Series()}
        keys = "sweep_at_start = false"
        with PrivateEngine().start(rules=True) as engine:
            image = engine.tag("bench:1", "tb__bench__client:latest")
            with self._daemon(_SELDOM, {"DOCKER_HOST": engine.host}, keys) as service:
                service.wait("event_stream_connected")
                for number in range(1, runs + 1):
                    began = time.perf_counter()
                    ident = engine.create(image=image, cmd=("sh", "-c", f"sleep {LIFE}; exit 3"), start=True, networked=True)
                    late = _late(engine, ident)
                    series["late"].runs.append(Run(time.perf_counter() - began, service.cpu(), 0.0, figure=late))
                    self._say(f"a death, {number} of {runs}: removed {late:.3f} s after it was due")
        return series


def _metric(text: str, name: str, labels: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{") and labels in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _late(engine: PrivateEngine, ident: str) -> float:
    """Wait until the container is gone; the seconds from when it was due, both times the engine's own."""
    engine.wait_state(ident, "exited", deadline=_LIMIT)
    finished = engine.inspect(ident)["State"]["FinishedAt"]
    due = datetime.fromisoformat(finished).timestamp() + STOPPED_FOR
    engine.wait_state(ident, "gone", deadline=_LIMIT)
    filters = quote(json.dumps({"container": [ident], "event": ["destroy"]}))
    window = f"since={int(due) - 60}&until={time.time():.9f}"
    status, found = engine.api.get(f"/events?{window}&filters={filters}")
    text = json.dumps(found) if not isinstance(found, str) else found
    if status != 200 or "timeNano" not in text:
        raise BenchmarkError(f"no event of the removal: {status} {text[:200]}")
    return float(json.loads(text)["timeNano"]) / 1e9 - due
