"""What is measured: the rows of all groups, each with what it is held against."""

from __future__ import annotations

from benchmarks.kinds import KIND_ROWS
from benchmarks.leases import DECIDED, ENDED
from benchmarks.proxied import CONTEXT, LOGS, PINGS
from benchmarks.report import Row
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
)
from benchmarks.scale import FAILING_ROWS, SCALE_ROWS
from benchmarks.service import ENDPOINTS, HELD, IDLE, LIVING, SETTLED, STOPPED_FOR, SWEEPS
from benchmarks.work import EXITED, IMPORTS, MANY_EXITED, RUNNING

_EXITED = f"{EXITED:,} exited containers, `reaper --once`"
_IMPORTS = f'`python -c "{IMPORTS}"`'


def neighbour_rows(suffix: str) -> tuple[Row, ...]:
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
    *neighbour_rows(""),
)
_MANY_EXITED = f"{MANY_EXITED:,} exited containers, `reaper --once --max-deletions none`"
NEWER = "docker-28.5"
NEWER_ROWS = (
    Row("prune-28", _MANY_EXITED, "`docker container prune -f`", 1.0),
    Row("rm-28", _MANY_EXITED, "`docker rm -v` of all ids", 1.25),
    *neighbour_rows("-28"),
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
    "kinds": KIND_ROWS,
}
