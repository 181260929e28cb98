"""The routes of a simulated Docker engine that are about itself: what it is, what it holds, and what happens in it."""

from aiohttp import web

from reaper.simulator.docker.defaults import INFO, KERNEL
from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.events import wanted
from reaper.simulator.docker.filters import Filters
from reaper.simulator.docker.http import API, OLDEST, VERSION, Stream, answer, route
from reaper.simulator.docker.text import NS, encode, rfc3339

_NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
_GO, _COMMIT, _BUILT = "go1.19.8", "5d6db84", "2023-05-26T21:09:36.000000000+00:00"


@route("GET", "/_ping")
@route("HEAD", "/_ping")
async def _ping(_: Engine, request: web.Request, __: str) -> web.Response:
    body = b"" if request.method == "HEAD" else b"OK"
    headers = {**_NO_CACHE, "Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
    return web.Response(body=body, headers=headers)


@route("GET", "/version")
async def _version(_: Engine, __: web.Request, ___: str) -> web.Response:
    details = {
        "ApiVersion": API,
        "Arch": "amd64",
        "BuildTime": _BUILT,
        "Experimental": "false",
        "GitCommit": _COMMIT,
        "GoVersion": _GO,
        "KernelVersion": KERNEL,
        "MinAPIVersion": OLDEST,
        "Os": "linux",
    }
    components = [
        {"Name": "Engine", "Version": VERSION, "Details": details},
        {"Name": "containerd", "Version": "1.6.20~ds1", "Details": {"GitCommit": "1.6.20~ds1-1+deb12u3"}},
        {"Name": "runc", "Version": "1.1.5+ds1", "Details": {"GitCommit": "1.1.5+ds1-1+deb12u1"}},
        {"Name": "docker-init", "Version": "0.19.0", "Details": {"GitCommit": ""}},
    ]
    found = {"Platform": {"Name": ""}, "Components": components, "Version": VERSION}
    found |= {key: value for key, value in details.items() if key != "Experimental"}
    return answer(found)


@route("GET", "/info")
async def _info(engine: Engine, _: web.Request, __: str) -> web.Response:
    states = [container.state for container in engine.containers.values()]
    running = states.count("running") + states.count("restarting")
    return answer(
        {
            "ID": "SIMU:LATE:DENG:INEO:FREA:PERX:SIMU:LATE:DENG:INEO:FREA:PERX",
            "Containers": len(states),
            "ContainersRunning": running,
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - running - states.count("paused"),
            "Images": len(engine.images),
            "NEventsListener": engine.events.listeners,
            "SystemTime": rfc3339(engine.time()),
            "DockerRootDir": engine.root,
            **INFO,
        }
    )


@route("GET", "/events")
async def _events(engine: Engine, request: web.Request, _: str) -> web.StreamResponse:
    """Those that were (with `since`), then those that come, up to `until`."""
    since, until = _moment(request.query.get("since")), _moment(request.query.get("until"))
    filters = Filters(request.query.get("filters"))
    stream = engine.events.open()
    response = Stream()
    try:
        await response.prepare(request)
        for event in engine.events.since(since, until) if since is not None else ():
            if wanted(event, filters):
                await response.write(encode(event))
        if until is not None:
            left = (until - engine.time()) / NS
            engine.later(max(left, 0.0), lambda: stream.put(None))
            engine.settle()
        while (coming := await stream.get()) is not None:
            if wanted(coming, filters):
                await response.write(encode(coming))
    finally:
        engine.events.close(stream)
    await response.write_eof()
    return response


def _moment(text: str | None) -> int | None:
    """A Unix time with or without a fraction, as events take it."""
    if not text:
        return None
    seconds, _, rest = text.partition(".")
    return int(seconds) * NS + int((rest + "0" * 9)[:9])
