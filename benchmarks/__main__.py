"""The command line of the benchmarks: `python -m benchmarks [--group GROUP] [--only ROW] [--runs N]`."""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.leases import DECIDED, ENDED, EndedLeases
from benchmarks.measure import BenchmarkError, Series
from benchmarks.proxied import CONTEXT, LOGS, PINGS, Proxies
from benchmarks.report import Measured, Row, command_version, document, table, with_section
from benchmarks.sandboxes import (
    AT_ONCE,
    DELETED,
    GENERAL,
    IMPORT,
    LATENCY,
    LIFECYCLE,
    LISTED,
    LISTINGS,
    NEIGHBOURS,
    PAGE,
    WINDOW,
    Organisation,
)
from benchmarks.scale import FAILING_ROWS, SCALE_ROWS, Scale
from benchmarks.service import DEATHS, ENDPOINTS, HELD, IDLE, LIVING, SETTLED, STOPPED_FOR, SWEEPS, Services
from benchmarks.work import EXITED, IMPORTS, MANY_EXITED, RUNNING, Bench
from devkit.engine import EngineError, PrivateEngine
from devkit.flavours import DEFAULT
from reaper import __file__ as package

RESULTS = Path(__file__).with_name("RESULTS.md")

_EXITED = f"{EXITED:,} exited containers, `reaper --once`"
_IMPORTS = f'`python -c "{IMPORTS}"`'


def _neighbour_rows(suffix: str) -> tuple[Row, ...]:
    """What a removal means for another user of the engine, and what that user means for the removal."""
    containers = "`docker run --rm IMAGE true` of another user"
    removed = f"{EXITED:,} exited containers"
    slow_end = "times at the 95th percentile"
    return (
        Row(f"neighbour{suffix}", f"{containers} while {_EXITED}", "undisturbed", 2.0, slow_end),
        Row(f"neighbour-rm{suffix}", f"{containers} while {_EXITED}", f"while `docker rm -v` of {removed}", 1.0, slow_end),
        Row(f"neighbour-time{suffix}", f"{_EXITED}, beside {containers}", "`docker rm -v` of all ids, beside the same", 2.0),
    )


ROWS = (
    Row("prune", _EXITED, "`docker container prune -f`", 1.0),
    Row("rm", _EXITED, "`docker rm -v` of all ids", 1.25),
    Row(
        "stop",
        f'{RUNNING} running containers that ignore SIGTERM, `stop_timeout = "3s"`',
        "`docker stop -t 3` of all ids, then `docker rm`",
        1.0,
    ),
    Row("empty", "nothing to do, an empty engine, `reaper --once`", _IMPORTS, 1.6),
    Row("run", "an empty engine, `reaper run -- true`", "`reaper --once`", 2.5),
    Row("version", "`reaper --version`", "`python -c pass`", 4.0),
    Row("memory", f"peak memory, {_EXITED}", _IMPORTS, 75.0, "MiB"),
    *_neighbour_rows(""),
)
_MANY_EXITED = f"{MANY_EXITED:,} exited containers, `reaper --once --max-deletions none`"
NEWER = "docker-28.5"
NEWER_ROWS = (
    Row("prune-28", _MANY_EXITED, "`docker container prune -f`", 1.0),
    Row("rm-28", _MANY_EXITED, "`docker rm -v` of all ids", 1.25),
    *_neighbour_rows("-28"),
)
_DELETED = f"delete {DELETED:,} sandboxes at {LATENCY * 1000:g} ms latency, destroyed at once, `--max-deletions none`"
_LIMITED = f"the same without latency, {LIFECYCLE} deletions and {GENERAL:,} looks per {WINDOW:g} s allowed, share 1.0"
_LISTINGS = f"resident memory after {LISTINGS} sweeps over {LISTED:,} sandboxes"
SANDBOX_ROWS = (
    Row("list", f"list and decide about {LISTED:,} sandboxes, `reaper check`", "plain aiohttp reading the same pages", 1.6),
    Row(
        "pages",
        f"the same, a page taking {PAGE * 1000:g} ms as on a real server",
        "plain aiohttp reading the same pages",
        1.6,
    ),
    Row("delete", _DELETED, f"the bound: requests made x latency / {AT_ONCE}", 1.15),
    Row("requests", "requests for each of these sandboxes", "-", 3.2, "requests"),
    Row("beside", f"requests for one deletion beside {NEIGHBOURS:,} living sandboxes, the links known", "-", 15, "requests"),
    Row("limits", _LIMITED, "the bound: the windows that must be waited for", 1.1),
    Row("nothing", "nothing to do, one empty organisation, `reaper --once`", f'`python -c "{IMPORT}"`', 1.5),
    Row("growth", _LISTINGS, "after the first", 1.1, "times the memory"),
    Row("resident", _LISTINGS, "after the first", 150.0, "MiB"),
)
_SWEEPS = f"the service with an engine only, {SWEEPS:,} sweeps over {HELD} resources"
_BOTH = f"the service with an engine and an organisation, {SWEEPS:,} sweeps of both over {HELD} resources"
_SETTLED = f"after the first {SETTLED}"
_SCRAPES = f"`/metrics` at {ENDPOINTS} endpoints"
SERVICE_ROWS = (
    Row("sweeps", f"{_SWEEPS}: resident memory", _SETTLED, 1.05, "times the memory"),
    Row("sweeps-both", f"{_BOTH}: resident memory", _SETTLED, 1.05, "times the memory"),
    Row("files", f"{_SWEEPS}: open files", _SETTLED, 0, "descriptors more"),
    Row("files-both", f"{_BOTH}: open files", _SETTLED, 0, "descriptors more"),
    Row("engine", f"{_SWEEPS}: resident memory at the end", _SETTLED, 80.0, "MiB"),
    Row("both", f"{_BOTH}: resident memory at the end", _SETTLED, 130.0, "MiB"),
    Row(
        "idle",
        f"the service for {IDLE:g} s with {LIVING:,} living containers, as it comes; one sweep and scrapes included",
        "-",
        0.5,
        "% of a core",
    ),
    Row("scrape", f"{_SCRAPES}, over HTTP", "`generate_latest` of the same series", 1.2),
    Row(
        "held", f"{_SCRAPES}: the longest that the event loop was held, the worst of all runs", "without scrapes", 20.0, "ms"
    ),
    Row(
        "held-cpu",
        f"{_SCRAPES}: the same in processor time of the process: without its neighbours",
        "without scrapes",
        20.0,
        "ms",
    ),
    Row(
        "late",
        f'a container dies, `stopped_for = "{STOPPED_FOR:g}s"`: from when it is due to its removal, the worst of all',
        "-",
        1.0,
        "s",
    ),
)
_DIRECT = "the engine's own socket"
PROXY_ROWS = (
    Row("context", f"a build with a context of {CONTEXT} MB through the socket of `reaper run`", _DIRECT, 1.3),
    Row("logs", f"the {LOGS} MB log of a container through it", _DIRECT, 1.3),
    Row("pings", f"{PINGS:,} pings through it, over one connection", _DIRECT, 2.5),
    Row("connections", f"{PINGS:,} pings through it, each over a connection of its own", _DIRECT, 5.0),
    Row("proxy-memory", f"peak memory of the proxy, a build with a context of {CONTEXT} MB", "-", 60.0, "MiB"),
)
_START = "the first look at the leases in a process, the worst of all runs"
_LIST = "the open leases and the numbers of all, the worst of all runs"
_COLD = f"that first look, and a decision about {DECIDED:,} containers"
_LOOK = "a look at the leases after one was taken, the worst of all runs"
LEASE_ROWS = (
    *(Row(f"look-{number}", f"{_LOOK}: {number:,} have ended", "-", 5.0, "ms") for number in ENDED),
    *(
        Row(f"decide-{number}", f"decide about {DECIDED:,} containers, {number:,} leases have ended", "none has", 1.5)
        for number in ENDED[1:]
    ),
    *(Row(f"start-{number}", f"{_START}: {number:,} have ended", "-", 30.0, "ms") for number in ENDED),
    *(Row(f"list-{number}", f"{_LIST}: {number:,} have ended", "-", 5.0, "ms") for number in ENDED),
    *(Row(f"cold-{number}", f"{_COLD}, {number:,} leases have ended", "none has", 1.5) for number in ENDED[1:]),
)
GROUPS = {
    "docker": ROWS,
    "daytona": SANDBOX_ROWS,
    "service": SERVICE_ROWS,
    "proxy": PROXY_ROWS,
    "leases": LEASE_ROWS,
    "failing": FAILING_ROWS,
    "scale": SCALE_ROWS,
    "docker28": NEWER_ROWS,
}
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
    if not wanted & {row.key for row in _neighbour_rows(suffix)}:
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
    tools = _tools(engine=bool(needed & {"late", *(row.key for row in (*ROWS, *NEWER_ROWS, *PROXY_ROWS))}))
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
