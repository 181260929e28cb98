"""Images and volumes beside what one would type, and what a decision about an engine with much of every kind costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from benchmarks.measure import BenchmarkError, Launcher, Run, Series
from benchmarks.report import Row
from benchmarks.service import IDLE, Daemon
from benchmarks.work import Say
from devkit.engine import PrivateEngine
from reaper.simulator.clock import Clock
from reaper.simulator.server import Simulator
from reaper.simulator.world import ContainerSpec, NetworkSpec

DANGLING, VOLUMES = 1000, 300
WATCHED = 60.0  # seconds
HELD = {"containers": 5000, "images": 2000, "networks": 500, "volumes": 500}
TAG = "bench/dangling:1"
_HELD = ", ".join(f"{number:,} {kind}" for kind, number in HELD.items())
_IMAGES = f"{DANGLING:,} dangling images, `reaper --once --max-deletions none`"
_VOLUMES = f"{VOLUMES} anonymous volumes, the same"
KIND_ROWS = (
    Row("images", _IMAGES, "`docker image prune -f`", 1.2),
    Row("images-rmi", _IMAGES, "`docker rmi`, one at a time", 1.0),
    Row("volumes", _VOLUMES, "`docker volume prune -f`", 1.2),
    Row("volumes-rm", _VOLUMES, "`docker volume rm`, one at a time", 1.0),
    Row("decision", f"processor time of a decision about {_HELD}", "-", 2.0, "s"),
    Row(
        "kinds-idle",
        f"the service for {IDLE:g} s with them, one sweep and scrapes included, watched for {WATCHED:g} s",
        "-",
        0.5,
        "% of a core",
    ),
    Row("kinds-memory", f"peak memory, `reaper check` of a simulated engine with {_HELD}", "-", 120.0, "MiB"),
)
CONFIG = """
[scope]
everything = true
[limits]
max_fraction = 1.0
[[policy]]
name = "images"
kinds = ["image"]
untagged = true
older_than = "1ms"
[[policy]]
name = "volumes"
kinds = ["volume"]
anonymous = true
older_than = "1ms"
"""
LOOK = """
[[policy]]
name = "containers"
kinds = ["container"]
stopped_for = "1h"
with_project = ["network", "volume", "image"]
[[policy]]
name = "others"
kinds = ["network", "volume", "image"]
unused_for = "1d"
[scope]
images = ["bench/*"]
names = ["bench-*"]
"""
DECIDE = """
import asyncio, sys, time
from datetime import UTC, datetime
from reaper.config import load
from reaper.core.decide import decide
from reaper.core.lease_index import Leases
from reaper.providers.base import Also, call_once
from reaper.session import Session
from reaper.sweep.plan import make_plan
from reaper.cli import build_parser
import os
loaded = load.load(sys.argv[1], os.environ)
arguments = build_parser().parse_args(["--once", "--config", sys.argv[1], "--dry-run"])
plan = make_plan(arguments, loaded.settings, os.environ)
async def main():
    async with Session(plan, act=False, sockets=()) as session:
        reader = session.endpoints[0].reader
        found = (await reader.list(call_once, also=Also(kinds=plan.rules.kinds))).resources
    began = time.process_time()
    decisions = decide(found, plan.rules, Leases(), datetime.now(UTC))
    print(len(decisions), time.process_time() - began)
asyncio.run(main())
"""


class Kinds:
    """Measures them. The arguments are those of ``work.Bench``."""

    def __init__(self, folder: Path, reaper: str, docker: str, say: Say) -> None:
        self._launcher = Launcher(folder)
        self._config = folder / "kinds.toml"
        self._config.write_text(CONFIG, encoding="utf-8")
        self._look = folder / "look.toml"
        self._look.write_text(LOOK, encoding="utf-8")
        self._reaper, self._docker, self._say = reaper, docker, say
        self.docker_versions = ""

    def removed(self, runs: int) -> dict[str, Series]:
        """Dangling images and anonymous volumes, each way in turn on work of its own that was made the same way."""
        each = 'for one in "$@"; do "$0" {} "$one" || exit 1; done'
        ours = (self._reaper, "--once", "--config", str(self._config), "--max-deletions", "none")
        ways: dict[str, Callable[[Sequence[str]], Sequence[str]]] = {
            "images": lambda _: ours,
            "images-prune": lambda _: (self._docker, "image", "prune", "--force"),
            "images-rmi": lambda ids: ("sh", "-c", each.format("rmi"), self._docker, *ids),
            "volumes": lambda _: ours,
            "volumes-prune": lambda _: (self._docker, "volume", "prune", "--force"),
            "volumes-rm": lambda ids: ("sh", "-c", each.format("volume rm"), self._docker, *ids),
        }
        series = {name: Series() for name in ways}
        with PrivateEngine().start(rules=True) as engine:
            version = engine.api.must("GET", "/version")
            self.docker_versions = f"dockerd {version['Version']} (API {version['ApiVersion']})"
            for number in range(1, runs + 1):
                for name, command in ways.items():
                    images = name.startswith("images")
                    ids = _dangling(engine) if images else _anonymous(engine)
                    run = self._launcher.run(*command(ids), env={"DOCKER_HOST": engine.host})
                    left = len(set(ids) & ({*_image_ids(engine)} if images else {*engine.volumes()}))
                    if left:
                        raise BenchmarkError(f"{name}: {left} are left")
                    series[name].runs.append(run)
                    self._say(f"{name}, run {number} of {runs}: {run.seconds:.2f} s, peak {run.peak_mib:.0f} MiB")
        return series

    def looked_at(self, runs: int) -> dict[str, Series]:
        """``reaper check`` of a simulated engine that holds all of that, and the decision alone."""
        found = {"decision": Series(), "kinds-memory": Series()}
        with _held() as simulator:
            env = {"DOCKER_HOST": simulator.docker_host}
            for _ in range(runs):
                check = self._launcher.run(self._reaper, "check", "--config", str(self._look), env=env, codes=(0, 6))
                found["kinds-memory"].runs.append(check)
                python = str(Path(self._reaper).with_name("python"))
                run = self._launcher.run(python, "-c", DECIDE, str(self._look), env=env)
                number, seconds = self._launcher.output().split()
                if int(number) < sum(HELD.values()):
                    raise BenchmarkError(f"only {number} resources were decided about")
                found["decision"].runs.append(Run(run.seconds, run.cpu, run.peak_mib, figure=float(seconds)))
                self._say(
                    f"check: {check.seconds:.2f} s, peak {check.peak_mib:.0f} MiB; the decision alone {float(seconds):.2f} s"
                )
        return found

    def idle(self, runs: int) -> Series:
        """The service over all of that, with policies that take nothing yet."""
        series = Series()
        tables = LOOK.replace('"1h"', '"30d"').replace('"1d"', '"30d"')
        with _held() as simulator:
            for number in range(1, runs + 1):
                folder = self._look.with_name(f"idle-{number}")
                with Daemon(folder, self._reaper, tables, {"DOCKER_HOST": simulator.docker_host}) as service:
                    series.runs.append(service.idle(IDLE, WATCHED))
                run = series.runs[-1]
                self._say(f"idle: {run.cpu:.2f} s of processor time in {run.seconds:.0f} s, {run.peak_mib:.0f} MiB")
        return series


def _dangling(engine: PrivateEngine) -> list[str]:
    """Images that each lost the one tag to the next."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: engine.labelled_image(TAG, {}), range(DANGLING + 1)))
    tagged = next(row["Id"] for row in engine.api.must("GET", "/images/json") if TAG in (row["RepoTags"] or ()))
    return [id_ for id_ in _image_ids(engine) if id_ != tagged]


def _image_ids(engine: PrivateEngine) -> list[str]:
    return [row["Id"] for row in engine.api.must("GET", "/images/json")]


def _anonymous(engine: PrivateEngine) -> list[str]:
    def one(_: int) -> str:
        return str(engine.api.must("POST", "/volumes/create", {})["Name"])

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(VOLUMES)))


def _held() -> Simulator:
    """A simulated engine that holds so much: half of the containers run, the others stopped an hour ago and longer."""
    clock = Clock()
    then = clock.now() - timedelta(hours=3)
    containers = [
        ContainerSpec(
            name=f"bench-{number}",
            image=f"bench/{number % HELD['images']}:1",
            labels={"terminal-bench": "hello-world"},
            state="exited" if number % 2 else "running",
            created=then,
            started=then,
            finished=then + timedelta(hours=1) if number % 2 else None,
        )
        for number in range(HELD["containers"])
    ]
    networks = [NetworkSpec(name=f"bench-net-{number}", created=then) for number in range(HELD["networks"])]
    simulator = Simulator(containers=containers, networks=networks, clock=clock)
    for number in range(HELD["volumes"]):
        simulator.engine.add_volume(f"bench-data-{number}")
    return simulator
