"""Plays runs of the model, and writes down what came of them.

play SEED --mode MODE [--steps 1,4,7]    one run, with all that happened in it
search --mode MODE FROM TO               the runs of these seeds; the first that fails is shrunk
soak --seed SEED --hours HOURS           for so long in each mode; adds to soak.json what was run and found
mutant FOLDER                            whether a run shows that the ``reaper`` in this folder breaks a rule
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.model.play import Played
    from tests.model.script import Mode

MODES: tuple[Mode, ...] = ("safety", "liveness")
RECORD = Path(__file__).parent / "soak.json"
LONGEST = 120  # seconds of processor time for one run: then something goes round for ever
SHRINKING = 120.0  # seconds for the shrinking of one run
SECONDS = 240.0  # of processor time, within which each mutant is to be caught
Say = Callable[[str], object]


def say(line: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class _HangsError(Exception):
    """A run does not end."""


def _hangs(*_: object) -> None:
    raise _HangsError(f"it has not ended after {LONGEST} s of processor time")


def played(seed: int, mode: Mode, only: Collection[int] | None = None) -> Played:
    """One run; whatever ends it is its failure."""
    from tests.model import play

    signal.signal(signal.SIGVTALRM, _hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
    try:
        found = play.run(seed, mode, only)
    except Exception as error:  # noqa: BLE001 - a run that dies has failed
        found = play.Played(seed, mode, f"{type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return found


def shrunk(seed: int, mode: Mode, seconds: float = SHRINKING) -> tuple[int, ...]:
    """The fewest steps of a run that still fail, as far as they were found within the time."""
    from tests.model import script

    until = time.monotonic() + seconds
    kept = list(range(len(script.steps(seed, mode))))
    size = len(kept) // 2
    while size:
        for start in range(0, len(kept), size):
            fewer = kept[:start] + kept[start + size :]
            if time.monotonic() > until:
                return tuple(kept)
            if fewer and played(seed, mode, frozenset(fewer)).failure is not None:
                kept = fewer
                break
        else:
            size //= 2
    return tuple(kept)


def command(seed: int, mode: Mode, steps: Iterable[int]) -> str:
    """What replays these steps of a run."""
    return f"python -m tests.model play {seed} --mode {mode} --steps {','.join(map(str, steps))}"


def report(run: Played) -> dict[str, Any]:
    """Say how a run failed, and what replays it; the same for the record."""
    steps = shrunk(run.seed, run.mode)
    line = command(run.seed, run.mode, steps)
    say(f"{run.mode} {run.seed}: {run.failure}\nreplay it: {line}")
    return {"seed": run.seed, "mode": run.mode, "what": run.failure, "replay": line}


def play_one(seed: int, mode: Mode, steps: str | None) -> int:
    """Play one run, and show it."""
    run = played(seed, mode, None if steps is None else frozenset(map(int, steps.split(","))))
    for line in run.log:
        say(line)
    say(f"failed: {run.failure}" if run.failure else "all is well")
    return int(run.failure is not None)


def search(mode: Mode, first: int, last: int) -> int:
    """Play the runs of these seeds until one fails."""
    total = Total(mode, first)
    for seed in range(first, last + 1):
        run = played(seed, mode)
        total.add(run)
        if run.failure is not None:
            report(run)
            return 1
    say(json.dumps(total.record(), sort_keys=True))
    return 0


class Total:
    """What several runs came to."""

    def __init__(self, mode: Mode, first: int) -> None:
        self.mode, self.first, self.last = mode, first, first - 1
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.went: Counter[str] = Counter()
        self.findings: list[dict[str, Any]] = []
        self.began = time.monotonic()

    def add(self, run: Played) -> None:
        """One more."""
        self.last = run.seed
        self.counts.update(runs=1, steps=run.steps, sweeps=run.sweeps, requests=run.requests, deleted=run.deleted)
        self.faults.update(run.faults)
        self.went.update(run.went)

    def record(self) -> dict[str, Any]:
        """All of it for the file."""
        seconds = round(time.monotonic() - self.began)
        whole = {"mode": self.mode, "from": self.first, "to": self.last, "seconds": seconds, "commit": _commit()}
        kinds = {"faults": dict(sorted(self.faults.items())), "went": dict(sorted(self.went.items()))}
        return {**whole, **self.counts, **kinds, "findings": self.findings}


def _commit() -> str:
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def soak(seed: int, hours: float, modes: Collection[Mode], file: Path) -> int:
    """Play runs for so long in each mode; what fails is noted, and does not end it."""
    found = 0
    for mode in modes:
        total, until, saved = Total(mode, seed), time.monotonic() + hours * 3600, time.monotonic()
        before = _records(file)
        number = seed
        while time.monotonic() < until:
            run = played(number, mode)
            total.add(run)
            if run.failure is not None:
                total.findings.append(report(run))
                found += 1
            number += 1
            gc.collect()
            if time.monotonic() - saved > 60 or time.monotonic() >= until:
                saved = time.monotonic()
                file.write_text(json.dumps({"runs": [*before, total.record()]}, indent=1) + "\n")
        say(json.dumps(total.record(), sort_keys=True))
    return int(found > 0)


def _records(file: Path) -> list[dict[str, Any]]:
    return list(json.loads(file.read_text())["runs"]) if file.exists() else []


def mutant(folder: str, seconds: float) -> int:
    """Whether a run notices that the program in this folder breaks a rule: 0 when one does."""
    sys.path.insert(0, folder)
    import reaper

    assert Path(reaper.__file__ or "").is_relative_to(folder), "the real program was loaded"
    seed = 0
    while time.process_time() < seconds:
        for mode in MODES:
            run = played(seed, mode)
            if run.failure is not None:
                say(f"caught by {mode} {seed}: {run.failure[:200]}")
                return 0
        seed += 1
    say(f"survived {seed} seeds")
    return 1


def main() -> int:
    """See the module."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets belongs to a run as well
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.model", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"}
        )
    parser = argparse.ArgumentParser(
        "tests.model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    of = parser.add_subparsers(dest="command", required=True)
    one, many, long, other = (of.add_parser(name) for name in ("play", "search", "soak", "mutant"))
    one.add_argument("seed", type=int)
    one.add_argument("--steps")
    many.add_argument("first", type=int)
    many.add_argument("last", type=int)
    for each in (one, many):
        each.add_argument("--mode", choices=MODES, required=True)
    long.add_argument("--seed", type=int, default=0)
    long.add_argument("--hours", type=float, default=1.0)
    long.add_argument("--mode", choices=MODES, action="append")
    long.add_argument("--file", type=Path, default=RECORD)
    other.add_argument("folder")
    other.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    match given.command:
        case "play":
            return play_one(given.seed, given.mode, given.steps)
        case "search":
            return search(given.mode, given.first, given.last)
        case "soak":
            return soak(given.seed, given.hours, given.mode or MODES, given.file)
        case _:
            return mutant(given.folder, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
