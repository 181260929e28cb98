"""The table: each row's target, what was measured, and the verdict; with the machine and the versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

from benchmarks.measure import Ratio, Series

_PACKAGES = ("aiodocker", "aiohttp", "anyio", "pydantic", "pydantic-core", "structlog")
_NOISY = 1.25  # a series whose slowest run took this much longer than its quickest one


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    `limit` is what is to be reached at most, in `unit`: "times" the other's seconds, "times at the 95th percentile" of all
    runs, "MiB" of memory, "times the memory" of the other, "requests" for each sandbox, file "descriptors more" than the
    other, "% of a core", how many are "left" at the most, the growth "as exponent", or the worst of all runs in "s" or "ms".
    """

    key: str
    work: str
    beside: str
    limit: float
    unit: str = "times"


@dataclass(frozen=True, slots=True)
class Measured:
    """A row with its runs."""

    row: Row
    ours: Series
    theirs: Series

    @property
    def value(self) -> float:
        """What is held against the limit."""
        ours, theirs = self.ours, self.theirs
        values: dict[str, Callable[[], float]] = {
            "times": lambda: self.ratio.middle,
            "times at the 95th percentile": lambda: _percentile(ours) / _percentile(theirs),
            "MiB": lambda: median(ours.peaks),
            "times the memory": lambda: median(ours.peaks) / median(theirs.peaks),
            "requests": lambda: median(run.requests for run in ours.runs),
            "descriptors more": lambda: max(a - b for a, b in zip(ours.figures, theirs.figures, strict=True)),
            "% of a core": lambda: median(100 * run.cpu / run.seconds for run in ours.runs),
            "s": lambda: max(ours.figures),
            "left": lambda: max(ours.figures),
            "as exponent": lambda: median(ours.figures),
            "ms": lambda: max(ours.figures),
        }
        return values[self.row.unit]()

    @property
    def ratio(self) -> Ratio:
        return Ratio.of(self.ours.seconds, self.theirs.seconds)

    @property
    def timed(self) -> bool:
        """Whether the row is about time."""
        return self.row.unit == "times"

    @property
    def reached(self) -> bool:
        return self.value <= self.row.limit

    @property
    def noisy(self) -> bool:
        return self.timed and any(max(s.seconds) > _NOISY * min(s.seconds) for s in (self.ours, self.theirs))

    def cells(self) -> list[str]:
        """The cells of the table's line."""
        verdict = "reached" if self.reached else "**missed**"
        unit = self.row.unit
        target = f"at most {self.row.limit:g} {unit}"
        measured = f"{self.value:.2f} {'' if self.timed else unit}".strip()
        if self.timed:
            mine, other = _seconds(self.ours), _seconds(self.theirs)
            measured += f" ({self.ratio.least:.2f} to {self.ratio.greatest:.2f})"
        elif unit == "times at the 95th percentile":
            mine, other = _slow_end(self.ours), _slow_end(self.theirs)
        elif unit == "requests":
            mine = other = "-"
        elif unit in ("s", "ms", "descriptors more"):
            mine, other = _figures(self.ours, unit), _figures(self.theirs, unit)
        elif unit == "left":
            mine, other = f"{max(self.ours.figures):g} left, {median(self.ours.seconds):.0f} s in all", "-"
        elif unit == "as exponent":
            mine, other = f"{_cpu(self.ours)} for the most", "-"
        elif unit == "% of a core":
            mine, other = _cpu(self.ours), "-"
        else:
            mine, other = _mib(self.ours), _mib(self.theirs) if self.theirs.runs else "-"
        runs = str(len(self.ours.runs))
        return [self.row.work, self.row.beside, mine, other, runs, target, measured, verdict]


def _seconds(series: Series) -> str:
    digits = 2 if median(series.seconds) > 1 else 3
    low, middle, high = min(series.seconds), median(series.seconds), max(series.seconds)
    return f"{middle:.{digits}f} s ({low:.{digits}f} to {high:.{digits}f})"


def _percentile(series: Series) -> float:
    """The 95th percentile of the seconds."""
    return quantiles(series.seconds, n=20, method="inclusive")[-1]


def _slow_end(series: Series) -> str:
    low, high = min(series.seconds), max(series.seconds)
    return f"{_percentile(series):.3f} s at the 95th percentile of {len(series.runs)} ({low:.3f} to {high:.3f})"


def _mib(series: Series) -> str:
    return f"{median(series.peaks):.1f} MiB ({min(series.peaks):.1f} to {max(series.peaks):.1f})"


def _figures(series: Series, unit: str) -> str:
    if not series.runs:
        return "-"
    if unit == "descriptors more":
        return f"{median(series.figures):g} descriptors ({min(series.figures):g} to {max(series.figures):g})"
    return f"{median(series.figures):.2f} {unit} ({min(series.figures):.2f} to {max(series.figures):.2f})"


def _cpu(series: Series) -> str:
    return f"{median(series.cpu):.2f} s of processor time in {median(series.seconds):.0f} s"


_HEAD = ["work", "beside", "ours, median (range)", "theirs, median (range)", "runs", "target", "measured", "verdict"]


def table(measured: Sequence[Measured]) -> str:
    """The table in Markdown."""
    lines = [_HEAD, ["---"] * len(_HEAD), *(each.cells() for each in measured)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def document(group: str, measured: Sequence[Measured], engine: str | None, loads: tuple[float, float]) -> str:
    """A group's section.

    Args:
        group: its name.
        measured: its rows.
        engine: the versions of the engine and of its command, where it was measured.
        loads: the load before and after; the one before is other people's work.
    """
    before, after = loads
    load = f"load average of the last minute {before:.1f} before and {after:.1f} after"
    noisy = [f"{each.row.work}, beside {each.row.beside}" for each in measured if each.noisy]
    spread = f"{_NOISY - 1:.0%}"
    noise = f"In these rows the runs of one command differ by more than {spread}: {'; '.join(noisy)}." if noisy else ""
    if before > len(os.sched_getaffinity(0)) / 2:
        busy = f"**The machine was busy with other work (load {before:.1f}): measure again when it is quiet.**"
        noise = f"{busy} {noise}".strip()
    cpu = "\n".join(
        f"- {each.row.work}, beside {each.row.beside}: {median(each.ours.cpu):.3f} s and {median(each.theirs.cpu):.3f} s"
        for each in measured
        if each.timed
    )
    parts = [
        f"## {group}",
        table(measured),
        noise,
        cpu and f"Processor time of the commands themselves, medians; the engine's comes on top of it:\n\n{cpu}",
        "### Where and when",
        "\n".join(f"- {line}" for line in (*_machine(), load, *_versions(engine))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine() -> list[str]:
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.machine()
    gib = int(memory.split()[1]) / 1024**2
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"{name}, {len(os.sched_getaffinity(0))} cores, {gib:.0f} GiB of memory",
        f"{platform.system()} {platform.release()}",
    ]


_PREFACE = """# Results of `make bench`

Whole processes, start-up and safety checks included, the two commands of a row in turn. *Measured* is the ratio of the
medians, with the range of the ratios of neighbouring runs; of memory, the median of the peaks. Each group is measured by
itself (`python -m benchmarks --group NAME`), on a quiet machine. Written by the program; edits are lost.
"""


def with_section(text: str, group: str, section: str, order: Sequence[str]) -> str:
    """RESULTS.md with a group's section in place of the one that it had.

    Args:
        text: the file as it is, or nothing.
        group: its name.
        section: what ``document`` made.
        order: of all groups.
    """
    there = dict(re.findall(r"^<!-- (\w+) -->\n\n(.*?)\n\n<!-- end -->$", text, flags=re.MULTILINE | re.DOTALL))
    there[group] = section.strip()
    parts = [f"<!-- {name} -->\n\n{there[name]}\n\n<!-- end -->\n" for name in order if name in there]
    return "\n".join([_PREFACE, *parts])


def command_version(docker: str) -> str:
    """What the docker command says of itself."""
    return subprocess.run([docker, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def _versions(engine: str | None) -> list[str]:
    whose = "the distribution's " if sys.base_prefix == "/usr" else ""  # which is built with its optimizations as a rule
    python = f"{whose}{platform.python_implementation()} {platform.python_version()}"
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return [f"reaper {version('bench-reaper')}{_commit()}, {python}", packages, *([engine] if engine else [])]


def _commit() -> str:
    here = Path(__file__).parent
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        return ""
    dirty = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "../reaper"], cwd=here, check=False).returncode != 0
    return f" at {found.stdout.strip()}{' with changes' if dirty else ''}"
