"""The Docker half of the simulator: the calls of a Docker Engine API (20.10) that reaper and its tests make, over HTTP.

    engine = Engine(clock, seed=7)
    load(engine, containers, networks)                    # what a world holds, or add_container(engine, ...)
    simulator = DockerSimulator(engine, faults)
    async with simulator.serve("/tmp/docker.sock"): ...   # or web.AppRunner(simulator.app())

It was checked against a private dockerd, call by call (tests/simulator/test_docker_contract.py). It runs no processes:
what a container does is set by its command or by a `Behaviour`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from reaper.simulator.control import Traffic, add_control
from reaper.simulator.docker import cache, containers, objects, system  # noqa: F401 - they register their routes
from reaper.simulator.docker.build import add_container, load
from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.http import Shell, add_routes
from reaper.simulator.docker.model import Behaviour, RefusedError
from reaper.simulator.faults import Faults, middleware
from reaper.simulator.runner import EndingRunner

__all__ = ["Behaviour", "DockerSimulator", "Engine", "add_container", "load"]

_SHUTDOWN = 0.2  # seconds for what is under way when the server ends


class DockerSimulator:
    """One simulated engine as a server.

    Args:
        engine: what it serves.
        faults: what shall go wrong; nothing when None.
        name: the endpoint's name, for the faults' globs.
    """

    def __init__(self, engine: Engine, faults: Faults | None = None, name: str = "docker") -> None:
        self.engine = engine
        self.clock = engine.clock
        self.faults = faults or Faults()
        self.name = name
        self.traffic = Traffic(engine.clock)

    def app(self) -> web.Application:
        """A fresh aiohttp application, with the control API below `/_simulator/`."""
        shell = Shell(self.engine)
        strike = middleware(self.faults, self.name, self.clock, self._names, shell.error)
        app = web.Application(middlewares=[self.traffic.middleware(), strike, shell.middleware()], client_max_size=1 << 30)
        add_routes(app, self.engine)
        add_control(app, self.traffic, self.dump)
        app.on_response_prepare.append(shell.finish)
        app.cleanup_ctx.append(self._background)
        app.on_shutdown.append(self._end)
        return app

    @asynccontextmanager
    async def serve(self, path: str) -> AsyncIterator[None]:
        """Serve on a unix socket while the block runs."""
        runner = EndingRunner(self.app(), handler_cancellation=True, shutdown_timeout=_SHUTDOWN)
        await runner.setup()
        try:
            await web.UnixSite(runner, path).start()
            yield
        finally:
            await runner.cleanup()

    def dump(self) -> dict[str, Any]:
        """What it holds, in short."""
        engine = self.engine
        engine.settle()
        return {
            "containers": dict(sorted(Counter(container.state for container in engine.containers.values()).items())),
            "networks": sum(not network.predefined for network in engine.networks),
            "volumes": len(engine.volumes),
            "images": len(engine.images),
        }

    async def _background(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self.engine.run(), name=f"simulated engine {self.name}")
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _end(self, _: web.Application) -> None:
        self.engine.events.end()
        self.faults.release()

    def _names(self, request: web.Request) -> Sequence[str]:
        """Ids and names of the container or network that a request addresses, for the faults' globs."""
        name = request.match_info.get("name")
        if not name:
            return ()
        kind = request.path.removeprefix(f"/v{request.match_info.get('version', '')}").split("/")[1]
        with suppress(RefusedError):
            if kind == "containers":
                container = self.engine.container(name)
                return (name, container.id, container.name)
            if kind == "networks":
                network = self.engine.networks.find(name)
                return (name, network.id, network.name)
        return (name,)
