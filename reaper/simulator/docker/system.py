"""The routes of a simulated Docker engine that are about itself: what it is, what it holds, and what happens in it."""

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from reaper.simulator.docker import images as docker_images
from reaper.simulator.docker.defaults import INFO, KERNEL
from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.events import line, wanted
from reaper.simulator.docker.filters import Filters
from reaper.simulator.docker.http import API, OLDEST, VERSION, Stream, Work, answer, query
from reaper.simulator.docker.json import listed, volume
from reaper.simulator.docker.model import SIZE, RefusedError
from reaper.simulator.docker.text import NS, rfc3339, status_text

_NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
_GO, _COMMIT, _BUILT = "go1.19.8", "5d6db84", "2023-05-26T21:09:36.000000000+00:00"
_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try '
    "again."
)


class SystemRoutes:
    """Each method is one route; the table below says which."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> Iterable[tuple[str, str, Work]]:
        """Method, path and handler."""
        swarm = [("GET", f"/{what}", self.swarm) for what in ("swarm", "services", "nodes", "tasks", "secrets", "configs")]
        return (
            ("GET", "/_ping", self.ping),
            ("HEAD", "/_ping", self.ping),
            ("GET", "/version", self.version),
            ("GET", "/info", self.info),
            ("GET", "/system/df", self.usage),
            ("GET", "/events", self.events),
            ("GET", "/plugins", self.plugins),
            ("POST", "/build/prune", self.prune_builds),
            *swarm,
        )

    async def ping(self, request: web.Request, _: str) -> web.Response:
        """GET or HEAD /_ping."""
        body = b"" if request.method == "HEAD" else b"OK"
        headers = {**_NO_CACHE, "Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
        return web.Response(body=body, headers=headers)

    async def version(self, _: web.Request, __: str) -> web.Response:
        """GET /version."""
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

    async def info(self, _: web.Request, __: str) -> web.Response:
        """GET /info."""
        engine = self._engine
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

    async def usage(self, _: web.Request, __: str) -> web.Response:
        """GET /system/df."""
        engine = self._engine
        users: dict[str, int] = {}
        rows = []
        for container in engine.newest_first():
            users[container.image_id] = users.get(container.image_id, 0) + 1
            row: dict[str, Any] = {}
            for key, value in listed(engine, container).items():
                if key == "Labels":
                    row["SizeRootFs"] = SIZE
                row[key] = status_text(container, engine.time())[0] if key == "Status" else value
            rows.append(row)
        images = [
            {**docker_images.listed(image), "Containers": users.get(image.id, 0), "SharedSize": 0} for image in engine.images
        ]
        volumes = [
            {**volume(engine, found), "UsageData": {"RefCount": len(found.users), "Size": 0}}
            for found in engine.volumes.values()
        ]
        layers = sum({image.layer: image.size for image in engine.images}.values())
        found = {"LayersSize": layers, "Images": images, "Containers": rows, "Volumes": volumes}
        return answer({**found, "BuildCache": None, "BuilderSize": 0})

    async def events(self, request: web.Request, _: str) -> web.StreamResponse:
        """GET /events: those that were (with `since`), then those that come, up to `until`."""
        engine = self._engine
        since, until = _moment(query(request, "since")), _moment(query(request, "until"))
        if since is not None and until is not None and since > until:
            first, last = query(request, "since"), query(request, "until")
            raise RefusedError(400, f"`since` time ({first}) cannot be after `until` time ({last})")
        filters = Filters(query(request, "filters"))
        stream = engine.events.open()
        response = Stream()
        try:
            await response.prepare(request)
            for event in engine.events.since(since, until) if since is not None else ():
                if wanted(event, filters):
                    await response.write(line(event))
            if until is not None:
                left = (until - engine.time()) / NS
                engine.later(max(left, 0.0), lambda: stream.put(None))
                engine.settle()
            while (coming := await stream.get()) is not None:
                if wanted(coming, filters):
                    await response.write(line(coming))
        finally:
            engine.events.close(stream)
        await response.write_eof()
        return response

    async def plugins(self, _: web.Request, __: str) -> web.Response:
        """GET /plugins."""
        return answer([])

    async def prune_builds(self, _: web.Request, __: str) -> web.Response:
        """POST /build/prune."""
        self._engine.events.log("builder", "prune", "", {"reclaimed": "0"}, self._engine.tick())
        return answer({"CachesDeleted": None, "SpaceReclaimed": 0})

    async def swarm(self, _: web.Request, __: str) -> web.Response:
        """Whatever is about swarms."""
        raise RefusedError(503, _NO_SWARM)


def _moment(text: str | None) -> int | None:
    """A Unix time with or without a fraction, as events take it."""
    if not text:
        return None
    seconds, dot, rest = text.partition(".")
    if not seconds.isdecimal() or (dot and not rest.isdecimal()):
        raise RefusedError(500, f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(seconds) * NS + int((rest + "0" * 9)[:9])
