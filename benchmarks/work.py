"""The work that is measured: how it is prepared, the commands that do it, and the proof that they did it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from benchmarks.measure import BenchmarkError, Launcher, Series
from benchmarks.neighbour import Neighbour
from devkit.engine import SLEEPS, PrivateEngine
from devkit.flavours import DEFAULT

EXITED, RUNNING = 1000, 100
MANY_EXITED = 2000
UNDISTURBED = 10  # containers of the neighbour before each removal
IMPORTS = "import aiodocker, pydantic, structlog"
_LABELS = {"terminal-bench": "hello-world"}
_GRACE = 3

_STOP_RUNNING = f"""
[[policy]]
name = "running"
kinds = ["container"]
states = ["running"]
stop_timeout = "{_GRACE}s"
"""

Say = Callable[[str], None]
Commands = Mapping[str, Sequence[str]]


class Bench:
    """Runs each work's commands in turn.

    Args:
        folder: an empty directory for the commands to work in.
        reaper: the installed command.
        docker: the docker command.
        say: is told what goes on.
        flavour: of the engine.
    """

    def __init__(self, folder: Path, reaper: str, docker: str, say: Say, flavour: str = DEFAULT) -> None:
        self._launcher = Launcher(folder)
        self._folder = folder
        self._reaper = reaper
        self._docker = docker
        self._say = say
        self._flavour = flavour
        self.docker_versions = ""

    @contextmanager
    def _engine(self) -> Iterator[PrivateEngine]:
        with PrivateEngine(self._flavour).start(rules=True) as engine:
            version = engine.api.must("GET", "/version")
            self.docker_versions = f"dockerd {version['Version']} (API {version['ApiVersion']})"
            engine.import_image()
            yield engine

    def _in_turn(
        self,
        what: str,
        commands: Mapping[str, Callable[[list[str]], Sequence[str]]],
        runs: int,
        *,
        prepare: Callable[[], list[str]],
        check: Callable[[float], None],
        env: Mapping[str, str],
    ) -> dict[str, Series]:
        """Every command once a round, each on work of its own that was made the same way."""
        series = {name: Series() for name in commands}
        for number in range(1, runs + 1):
            for name, command in commands.items():
                ids = prepare()
                run = self._launcher.run(*command(ids), env=env)
                check(run.seconds)
                series[name].runs.append(run)
                self._say(f"{what}, run {number} of {runs}: {name}: {run.seconds:.3f} s, peak {run.peak_mib:.1f} MiB")
        return series

    def exited(self, runs: int, beside: Sequence[str], count: int = EXITED) -> dict[str, Series]:
        """`count` containers that exited days ago; ours is `reaper --once` as it comes, but for the limit of deletions."""
        commands = self._removals("reaper", *beside)
        with self._engine() as engine:

            def prepare(number: int = count) -> list[str]:
                return engine.fabricate_exited(number, timedelta(days=3), _LABELS)

            env = {"DOCKER_HOST": engine.host}
            check = _all_gone(engine)
            self._in_turn("warm-up", commands, 1, prepare=lambda: prepare(3), check=check, env=env)
            return self._in_turn(f"{count} exited", commands, runs, prepare=prepare, check=check, env=env)

    def _removals(self, *names: str) -> dict[str, Callable[[list[str]], Sequence[str]]]:
        """The commands that remove exited containers."""
        known: dict[str, Callable[[list[str]], Sequence[str]]] = {
            "reaper": lambda ids: (self._reaper, "--once", *(("--max-deletions", "none") if len(ids) > EXITED else ())),
            "prune": lambda _: (self._docker, "container", "prune", "-f"),
            "rm": lambda ids: (self._docker, "rm", "-v", *ids),
        }
        return {name: known[name] for name in names}

    def beside_a_neighbour(self, runs: int, count: int = EXITED) -> dict[str, Series]:
        """`count` exited containers are removed while another user starts one container after the other.

        Returns:
            The removals ("reaper", "rm"), and the neighbour's containers while each goes on ("beside-reaper", "beside-rm")
            and before ("undisturbed").
        """
        commands = self._removals("reaper", "rm")
        series = {name: Series() for name in (*commands, *(f"beside-{name}" for name in commands), "undisturbed")}
        with self._engine() as engine:
            neighbour = Neighbour(self._docker, engine.host)
            neighbour.run()
            for number in range(1, runs + 1):
                for name, command in commands.items():
                    ids = engine.fabricate_exited(count, timedelta(days=3), _LABELS)
                    series["undisturbed"].runs += [neighbour.run() for _ in range(UNDISTURBED)]
                    with neighbour.beside() as beside:
                        run = self._launcher.run(*command(ids), env={"DOCKER_HOST": engine.host})
                    _all_gone(engine)(run.seconds)
                    series[name].runs.append(run)
                    series[f"beside-{name}"].runs += beside
                    slowest = max(one.seconds for one in beside)
                    self._say(
                        f"{count} exited beside a neighbour, run {number} of {runs}: {name}: {run.seconds:.3f} s, "
                        f"{len(beside)} containers meanwhile, the slowest {slowest:.3f} s"
                    )
        return series

    def running(self, runs: int, count: int = RUNNING) -> dict[str, Series]:
        """`count` running containers, which all sit out the three seconds between SIGTERM and SIGKILL."""
        config = self._folder / "running.toml"
        config.write_text(_STOP_RUNNING)
        stop_and_remove = f'"$0" stop -t {_GRACE} "$@" && exec "$0" rm "$@"'
        commands: dict[str, Callable[[list[str]], Sequence[str]]] = {
            "reaper": lambda _: (self._reaper, "--once", "--config", str(config)),
            "stop": lambda ids: ("sh", "-c", stop_and_remove, self._docker, *ids),
        }
        with self._engine() as engine, ThreadPoolExecutor(4) as pool:

            def prepare(number: int = count) -> list[str]:
                return list(
                    pool.map(lambda _: engine.create(cmd=SLEEPS, labels=_LABELS, start=True, networked=True), range(number))
                )

            def check(seconds: float) -> None:
                _all_gone(engine)(seconds)
                if seconds < _GRACE:
                    raise BenchmarkError(f"no container sat out its {_GRACE} s: it took {seconds:.2f} s")

            env = {"DOCKER_HOST": engine.host}
            self._in_turn("warm-up", commands, 1, prepare=lambda: prepare(2), check=check, env=env)
            return self._in_turn(f"{count} running", commands, runs, prepare=prepare, check=check, env=env)

    def empty(self, runs: int) -> dict[str, Series]:
        """Nothing to do."""
        commands = {"reaper": (self._reaper, "--once"), "imports": (sys.executable, "-c", IMPORTS)}
        with self._engine() as engine:
            return self._quick("empty engine", commands, runs, {"DOCKER_HOST": engine.host})

    def nothing_to_run(self, runs: int) -> dict[str, Series]:
        """A command that does nothing, with all that stands around it: a sweep, a lease, a guard, a proxy, a last look."""
        commands = {"run": (self._reaper, "run", "--", "true"), "once": (self._reaper, "--once")}
        with self._engine() as engine:
            return self._quick("empty engine", commands, runs, {"DOCKER_HOST": engine.host})

    def version(self, runs: int) -> dict[str, Series]:
        """The least that the program can be asked. An SDK that it imports for this is an error, whatever the time."""
        self._launcher.run(self._reaper, "--version", env={"PYTHONPROFILEIMPORTTIME": "1"})
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in self._launcher.output().splitlines()}
        if found := imported & {"aiodocker", "aiohttp", "anyio", "asyncio", "daytona", "pydantic", "rich", "structlog"}:
            raise BenchmarkError(f"reaper --version imports {', '.join(sorted(found))}")
        return self._quick(
            "--version", {"reaper": (self._reaper, "--version"), "pass": (sys.executable, "-c", "pass")}, runs, {}
        )

    def imports(self, runs: int) -> dict[str, Series]:
        """The imports alone."""
        return self._quick("imports", {"imports": (sys.executable, "-c", IMPORTS)}, runs, {})

    def _quick(self, what: str, commands: Commands, runs: int, env: Mapping[str, str]) -> dict[str, Series]:
        """Commands that need no preparation: one warm-up of each, then all in turn."""
        series = {name: Series() for name in commands}
        for number in range(runs + 1):
            for name, command in commands.items():
                run = self._launcher.run(*command, env=env)
                if number:
                    series[name].runs.append(run)
        self._say(f"{what}: {runs} runs of each")
        return series


def _all_gone(engine: PrivateEngine) -> Callable[[float], None]:
    def check(_: float) -> None:
        if left := len(engine.ids()):
            raise BenchmarkError(f"{left} containers were left")

    return check
