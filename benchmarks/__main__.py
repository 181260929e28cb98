"""The command line of the benchmarks: `python -m benchmarks [--group GROUP] [--only ROW] [--runs N]`."""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.kinds import KIND_ROWS, Kinds
from benchmarks.leases import ENDED, EndedLeases
from benchmarks.measure import BenchmarkError, Series
from benchmarks.proxied import Proxies
from benchmarks.report import Measured, command_version, document, table, with_section
from benchmarks.rows import GROUPS, NEWER, NEWER_ROWS, PROXY_ROWS, ROWS, neighbour_rows
from benchmarks.sandboxes import PAGE, Organisation
from benchmarks.scale import Scale
from benchmarks.service import DEATHS, Services
from benchmarks.work import MANY_EXITED, Bench
from devkit.engine import EngineError, PrivateEngine
from devkit.flavours import DEFAULT
from reaper import __file__ as package

RESULTS = Path(__file__).with_name("RESULTS.md")

_SLOW_RUNS, _QUICK_RUNS, _FEW_RUNS, _LONG_RUNS = 5, 25, 3, 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _measure(bench: Bench, wanted: set[str], runs: int | None) -> dict[str, tuple[Series, Series]]:
    """Ours and theirs for each wanted row. What several rows share is run once."""
    slow, quick = runs or _SLOW_RUNS, runs or _QUICK_RUNS
    found: dict[str, tuple[Series, Series]] = {}
    if "version" in wanted:
        series = bench.version(quick)
        found["version"] = series["reaper"], series["pass"]
    if "empty" in wanted:
        series = bench.empty(quick)
        found["empty"] = series["reaper"], series["imports"]
    if "run" in wanted:
        series = bench.nothing_to_run(quick)
        found["run"] = series["run"], series["once"]
    if "stop" in wanted:
        series = bench.running(slow)
        found["stop"] = series["reaper"], series["stop"]
    if beside := [name for name in ("prune", "rm") if name in wanted]:
        series = bench.exited(slow, beside)
        found |= {name: (series["reaper"], series[name]) for name in beside}
    if "memory" in wanted:
        ours = series["reaper"] if beside else bench.exited(slow, ())["reaper"]
        found["memory"] = ours, bench.imports(slow)["imports"]
    return found | _measure_neighbour(bench, wanted, slow, "")


def _measure_newer(bench: Bench, wanted: set[str], runs: int | None) -> dict[str, tuple[Series, Series]]:
    few = runs or _FEW_RUNS
    found: dict[str, tuple[Series, Series]] = {}
    if beside := [name for name in ("prune", "rm") if f"{name}-28" in wanted]:
        series = bench.exited(few, beside, MANY_EXITED)
        found = {f"{name}-28": (series["reaper"], series[name]) for name in beside}
    return found | _measure_neighbour(bench, wanted, few, "-28")


def _measure_neighbour(bench: Bench, wanted: set[str], runs: int, suffix: str) -> dict[str, tuple[Series, Series]]:
    if not wanted & {row.key for row in neighbour_rows(suffix)}:
        return {}
    series = bench.beside_a_neighbour(runs)
    return {
        f"neighbour{suffix}": (series["beside-reaper"], series["undisturbed"]),
        f"neighbour-rm{suffix}": (series["beside-reaper"], series["beside-rm"]),
        f"neighbour-time{suffix}": (series["reaper"], series["rm"]),
    }


def _measure_sandboxes(bench: Organisation, wanted: set[str], runs: int | None) -> dict[str, tuple[Series, Series]]:
    slow, quick = runs or _SLOW_RUNS, runs or _QUICK_RUNS
    found: dict[str, tuple[Series, Series]] = {}
    if "list" in wanted:
        series = bench.listed(slow)
        found["list"] = series["reaper"], series["pages"]
    if "pages" in wanted:
        series = bench.listed(slow, PAGE)
        found["pages"] = series["reaper"], series["pages"]
    if "nothing" in wanted:
        series = bench.empty(quick)
        found["nothing"] = series["reaper"], series["import"]
    if wanted & {"delete", "requests"}:
        series = bench.deleted(slow)
        found["delete"] = found["requests"] = series["reaper"], series["bound"]
    if "beside" in wanted:
        found["beside"] = bench.beside(slow)["reaper"], Series()
    if "limits" in wanted:
        series = bench.limited(slow)
        found["limits"] = series["reaper"], series["bound"]
    if wanted & {"growth", "resident"}:
        series = bench.memory(slow)
        found["growth"] = found["resident"] = series["last"], series["first"]
    return found


def _measure_service(bench: Services, wanted: set[str], runs: int | None) -> dict[str, tuple[Series, Series]]:
    long, slow = runs or _LONG_RUNS, runs or _SLOW_RUNS
    found: dict[str, tuple[Series, Series]] = {}
    for keys, daytona in ((("sweeps", "files", "engine"), False), (("sweeps-both", "files-both", "both"), True)):
        if wanted & set(keys):
            series = bench.swept(long, daytona=daytona)
            found |= dict.fromkeys(keys, (series["last"], series["settled"]))
    if "idle" in wanted:
        found["idle"] = bench.idle(long)["service"], Series()
    if wanted & {"scrape", "held", "held-cpu"}:
        series = bench.scraped(slow)
        found |= {"scrape": (series["scrape"], series["render"]), "held": (series["held"], series["quiet"])}
        found["held-cpu"] = series["held_cpu"], series["quiet_cpu"]
    if "late" in wanted:
        found["late"] = bench.reaped(runs or DEATHS)["late"], Series()
    return found


def _measure_proxy(bench: Proxies, wanted: set[str], runs: int | None) -> dict[str, tuple[Series, Series]]:
    slow, quick = runs or _SLOW_RUNS, runs or _QUICK_RUNS
    found: dict[str, tuple[Series, Series]] = {}
    with bench.both() as both:
        if wanted & {"context", "proxy-memory"}:
            series = both.context(slow)
            found["context"] = found["proxy-memory"] = series["proxy"], series["socket"]
        for name, measure, times in (
            ("logs", both.logs, slow),
            ("pings", both.pings, quick),
            ("connections", both.connections, quick),
        ):
            if name in wanted:
                series = measure(times)
                found[name] = series["proxy"], series["socket"]
    return found


def _measure_kinds(bench: Kinds, wanted: set[str], runs: int) -> dict[str, tuple[Series, Series]]:
    found: dict[str, tuple[Series, Series]] = {}
    if wanted & {"images", "images-rmi", "volumes", "volumes-rm"}:
        series = bench.removed(runs)
        found = {
            "images": (series["images"], series["images-prune"]),
            "volumes": (series["volumes"], series["volumes-prune"]),
        }
        found |= {key: (series[key.partition("-")[0]], series[key]) for key in ("images-rmi", "volumes-rm")}
    if wanted & {"decision", "kinds-memory"}:
        found |= {key: (one, Series()) for key, one in bench.looked_at(runs).items()}
    if "kinds-idle" in wanted:
        found["kinds-idle"] = bench.idle(runs), Series()
    return found


def _measure_group(
    group: str, folder: Path, tools: tuple[str, str], wanted: set[str], runs: int | None
) -> tuple[list[Measured], str]:
    """The rows of one group that are wanted, and the version of the engine where there was one."""
    reaper, docker = tools
    engine = ""
    if group in ("docker", "docker28"):
        folder.mkdir()
        newer = group == "docker28"
        bench = Bench(folder, reaper, docker, _say, NEWER if newer else DEFAULT)
        found = (_measure_newer if newer else _measure)(bench, wanted, runs)
        engine = bench.docker_versions
    elif group == "proxy":
        folder.mkdir()
        proxies = Proxies(folder, _say)
        found = _measure_proxy(proxies, wanted, runs)
        engine = proxies.docker_versions
    elif group == "leases":
        series = EndedLeases(folder, _say).measured(runs or _QUICK_RUNS)
        alone = [f"{what}-{number}" for what in ("look", "start", "list") for number in ENDED]
        found = {key: (series[key], Series()) for key in alone}
        found |= {f"cold-{number}": (series[f"cold-{number}"], series["cold-0"]) for number in ENDED[1:]}
        found |= {f"decide-{number}": (series[f"decide-{number}"], series["decide-0"]) for number in ENDED[1:]}
    elif group == "kinds":
        folder.mkdir()
        kinds = Kinds(folder, reaper, docker, _say)
        found = _measure_kinds(kinds, wanted, runs or _LONG_RUNS)
        engine = kinds.docker_versions
    elif group == "failing":
        found = Scale(folder, reaper, _say).failing(wanted, runs or _LONG_RUNS)
    elif group == "scale":
        found = Scale(folder, reaper, _say).scaled(wanted, runs or _LONG_RUNS)
    elif group == "daytona":
        found = _measure_sandboxes(Organisation(folder, reaper, _say), wanted, runs)
    else:
        found = _measure_service(Services(folder, reaper, _say), wanted, runs)
    return [Measured(row, *found[row.key]) for row in GROUPS[group] if row.key in wanted], engine


def _tools(*, engine: bool) -> tuple[str, str] | str:
    """The two commands, or why there is nothing to measure. Without `engine` Docker is not needed."""
    reaper = Path(sys.executable).with_name("reaper")
    docker = shutil.which("docker")
    if not reaper.exists():
        return f"{reaper} is not there; install the project into this environment first"
    if not engine:
        return str(reaper), docker or ""
    if docker is None:
        return "there is no docker command (Debian: docker.io)"
    return PrivateEngine.available() or (str(reaper), docker)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    keys = [row.key for rows in GROUPS.values() for row in rows]
    parser.add_argument(
        "--group", action="append", choices=GROUPS, help="measure these rows only, and write their section; may be repeated"
    )
    parser.add_argument(
        "--only", metavar="ROW", action="append", choices=keys, help=f"print this row only, write nothing: {', '.join(keys)}"
    )
    parser.add_argument(
        "--runs",
        metavar="N",
        type=int,
        help=f"default {_SLOW_RUNS}, {_QUICK_RUNS} of what is quick, {_FEW_RUNS} on Docker 28.5, "
        f"and {_LONG_RUNS} of what takes minutes",
    )
    arguments = parser.parse_args()
    if arguments.runs is not None and arguments.runs < 1:
        parser.error("--runs is at least 1")
    wanted = set(arguments.only or keys)
    groups = [name for name in arguments.group or GROUPS if wanted & {row.key for row in GROUPS[name]}]
    needed = {row.key for name in groups for row in GROUPS[name]} & wanted
    tools = _tools(engine=bool(needed & {"late", *(row.key for row in (*ROWS, *NEWER_ROWS, *PROXY_ROWS, *KIND_ROWS))}))
    if isinstance(tools, str):
        _say(f"benchmarks: {tools}")
        return 2
    compileall.compile_dir(Path(package).parent, quiet=1)  # as an installer does; a tree that is worked on may lack it
    before = os.getloadavg()[0]  # what loads the machine afterwards is these measurements themselves
    for group in groups:
        try:
            with tempfile.TemporaryDirectory(prefix="reaper-bench-") as folder:
                measured, engine = _measure_group(group, Path(folder) / group, tools, wanted, arguments.runs)
        except (BenchmarkError, EngineError) as error:
            _say(f"benchmarks: {error}")
            return 1
        if arguments.only is not None:
            print(table(measured), flush=True)
            continue
        versions = f"{engine}; command: {command_version(tools[1])}" if engine else None
        written = document(group, measured, versions, (before, os.getloadavg()[0]))
        before_it = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
        RESULTS.write_text(with_section(before_it, group, written, tuple(GROUPS)), encoding="utf-8")
        print(written, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
