"""What requests that fail leave behind, and what it costs to sweep much: simulated engines and organisations."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks.measure import BenchmarkError, Measurements, Run, Series
from benchmarks.report import Row

MANY = 10_000
ORGANISATIONS, LATENCY, AT_ONCE = 10, 0.05, 32
ENGINES = 50
LIVING, DEAD, OF_EACH = 190, 10, 5
SIZES = (1250, 2500, 5000, MANY)
SEED = 7

_KINDS = {"containers": "engine", "sandboxes": "organisation"}
_SWEEPS = {"one in ten": (0.1, ((1, 1), (2, 0))), "one in three": (1 / 3, ((3, 0),))}
_TIMES = {1: "one sweep", 2: "two sweeps", 3: "three sweeps"}


def _key(kind: str, share: str, sweeps: int) -> str:
    return f"{share.rpartition(' ')[2]}-{sweeps}-{kind}"


FAILING_ROWS = tuple(
    Row(
        _key(kind, share, sweeps),
        f"{MANY:,} {kind}, {share} of all requests fails, `reaper --once --max-deletions none`: left after {_TIMES[sweeps]}",
        "-",
        most,
        "left",
    )
    for kind in _KINDS
    for share, (_, targets) in _SWEEPS.items()
    for sweeps, most in targets
)
_ALL = f"{MANY:,} sandboxes in {ORGANISATIONS} organisations at {LATENCY * 1000:g} ms latency"
_SPREAD = f"{ENGINES} engines of {MANY // ENGINES} exited containers"
_FIT = "processor time beyond that for none, fitted over {}: its growth with the number of {}"
_OVER = f"{', '.join(f'{size:,}' for size in SIZES[:-1])} and {SIZES[-1]:,}"
_FLEET = f"{LIVING + DEAD} engines of {OF_EACH} exited containers, {DEAD} of them dead (refused, or never answering)"
SCALE_ROWS = (
    Row("dead", f"delete all of {_FLEET}", f"the {LIVING} living ones alone", 1.1),
    Row("memory-dead", f"peak memory, {_FLEET}", "-", 200.0, "MiB"),
    Row("organisations", f"delete {_ALL}", f"the bound: requests made x latency / {ORGANISATIONS * AT_ONCE}", 4.0),
    Row("engines", f"delete all of {_SPREAD}", f"one engine of {MANY:,}", 1.25),
    *(Row(f"growth-{kind}", _FIT.format(_OVER, kind), "-", 1.1, "as exponent") for kind in _KINDS),
    Row("memory-organisations", f"peak memory, {_ALL}", "-", 200.0, "MiB"),
    Row("memory-engines", f"peak memory, {_SPREAD}", "-", 200.0, "MiB"),
    *(
        Row(f"memory-{kind}", f"peak memory, one {one} of {MANY:,} {kind}", "-", 200.0, "MiB")
        for kind, one in _KINDS.items()
    ),
)

Found = dict[str, tuple[Series, Series]]


@dataclass(frozen=True)
class World:
    """A simulated world that is being served."""

    config: Path
    env: Mapping[str, str]
    server: subprocess.Popen[str]

    def report(self) -> dict[str, Any]:
        """What is left, and how many requests came."""
        assert self.server.stdout is not None
        self.server.send_signal(signal.SIGUSR1)
        found: dict[str, Any] = json.loads(self.server.stdout.readline())
        return found


class Scale(Measurements):
    """Measures sweeps of worlds, each in a server process of its own."""

    _number = 0

    @contextmanager
    def _serve(self, *arguments: str) -> Iterator[World]:
        self._number += 1
        config = self._folder / f"{self._number}.toml"
        command = [sys.executable, "-m", "benchmarks.worlds", str(config), "--seed", str(SEED), *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as server:
            try:
                assert server.stdout is not None
                lines = takewhile(bool, (line.strip() for line in server.stdout))
                env = dict(line.split("=", 1) for line in lines)
                if not config.exists():
                    raise BenchmarkError("the simulated server did not start")
                yield World(config, {**env, "STATE_DIRECTORY": str(self._folder / f"state-{self._number}")}, server)
            finally:
                server.send_signal(signal.SIGTERM)

    def _sweep(self, world: World, *, may_fail: bool = False) -> Run:
        command = (self._reaper, "--once", "--config", str(world.config), "--max-deletions", "none")
        return self._launcher.run(*command, env=world.env, codes=(0, 3, 5) if may_fail else (0,))

    def failing(self, wanted: set[str], runs: int) -> Found:
        """What is left after so many sweeps while requests fail, each sweep a process of its own."""
        found: Found = {}
        for kind, place in _KINDS.items():
            for share, (failing, targets) in _SWEEPS.items():
                keys = {sweeps: _key(kind, share, sweeps) for sweeps, _ in targets}
                if not wanted & set(keys.values()):
                    continue
                series = {sweeps: Series() for sweeps in keys}
                for _ in range(runs):
                    with self._serve(f"--{place}s", "1", "--each", str(MANY), "--failing", str(failing)) as world:
                        seconds = cpu = 0.0
                        for number in range(1, max(keys) + 1):
                            run = self._sweep(world, may_fail=True)
                            seconds, cpu = seconds + run.seconds, cpu + run.cpu
                            left = world.report()["left"]
                            self._say(f"{kind}, {share} fails, sweep {number}: {run.seconds:.1f} s, {left} left")
                            if number in series:
                                series[number].runs.append(Run(seconds, cpu, run.peak_mib, figure=left))
                found |= {key: (series[sweeps], Series()) for sweeps, key in keys.items()}
        return found

    def scaled(self, wanted: set[str], runs: int) -> Found:
        """What the rows of scale compare."""
        found: Found = {}
        if wanted & {"organisations", "memory-organisations"}:
            each = str(MANY // ORGANISATIONS)
            series = self._deleted(runs, "--organisations", str(ORGANISATIONS), "--each", each, "--latency", str(LATENCY))
            bound = Series([Run(run.requests * LATENCY / (ORGANISATIONS * AT_ONCE), 0.0, 0.0) for run in series.runs])
            found |= {"organisations": (series, bound), "memory-organisations": (series, Series())}
        for kind, place in _KINDS.items():
            if f"growth-{kind}" in wanted:
                found[f"growth-{kind}"] = found[f"memory-{kind}"] = self._grown(runs, place), Series()
            elif f"memory-{kind}" in wanted or (kind == "containers" and "engines" in wanted):
                found[f"memory-{kind}"] = self._deleted(runs, f"--{place}s", "1", "--each", str(MANY)), Series()
        if wanted & {"engines", "memory-engines"}:
            series = self._deleted(runs, "--engines", str(ENGINES), "--each", str(MANY // ENGINES))
            found |= {"engines": (series, found.get("memory-containers", (Series(), Series()))[0])}
            found["memory-engines"] = series, Series()
        if wanted & {"dead", "memory-dead"}:
            living = ("--engines", str(LIVING), "--each", str(OF_EACH))
            alone, beside = Series(), Series()
            for _ in range(runs):  # in turns: what else the machine does falls on both
                alone.runs += self._deleted(1, *living).runs
                beside.runs += self._deleted(1, *living, "--dead", str(DEAD), may_fail=True).runs
            found |= {"dead": (beside, alone), "memory-dead": (beside, Series())}
        return found

    def _deleted(self, runs: int, *world: str, may_fail: bool = False) -> Series:
        """Sweeps of such worlds, each of which leaves nothing; ``requests`` of a run is how many were made in all."""
        series = Series()
        for _ in range(runs):
            with self._serve(*world) as served:
                run = self._sweep(served, may_fail=may_fail)
                report = served.report()
            if report["left"]:
                raise BenchmarkError(f"{report['left']} are left")
            series.runs.append(replace(run, requests=report["requests"]))
            self._say(f"{' '.join(world)}: {run.seconds:.2f} s, {run.cpu:.2f} s of processor time, {run.peak_mib:.0f} MiB")
        return series

    def _grown(self, runs: int, place: str) -> Series:
        """For each run the exponent of what a sweep costs by the number of resources."""
        series = Series()
        for _ in range(runs):
            none = self._deleted(1, f"--{place}s", "1", "--each", "0").cpu[0]
            costs = [self._deleted(1, f"--{place}s", "1", "--each", str(size)).runs[0] for size in SIZES]
            exponent = _slope([math.log(size) for size in SIZES], [math.log(cost.cpu - none) for cost in costs])
            series.runs.append(replace(costs[-1], figure=exponent))
        return series


def _slope(xs: list[float], ys: list[float]) -> float:
    """The slope of the line with the least squares."""
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)
