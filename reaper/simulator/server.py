"""Starts a simulated world: in a running loop, in a thread for tests, or as a program of its own.

with Simulator(seed=7, sandboxes=200) as sim:                # its own thread
...  # sim.daytona_url, sim.api_key(), sim.clock, sim.faults
async with Simulator(seed=7, sandboxes=200) as sim: ...      # the loop that runs
"""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from aiohttp import web

from reaper.run.scratch import socket_folder
from reaper.simulator.clock import Clock
from reaper.simulator.daytona.app import Daytona
from reaper.simulator.daytona.limits import Limit
from reaper.simulator.daytona.rules import Behaviour
from reaper.simulator.daytona.state import Organisation
from reaper.simulator.docker.app import DockerSimulator, Engine, load
from reaper.simulator.faults import Faults
from reaper.simulator.population import containers as make_containers
from reaper.simulator.population import sandboxes as make_sandboxes
from reaper.simulator.runner import EndingRunner
from reaper.simulator.world import ContainerSpec, NetworkSpec, SandboxSpec

_T = TypeVar("_T")
DEFAULT = "default"
_BACKLOG = 4096
_SHUTDOWN = 0.2  # seconds for what is under way when the server ends


class Simulator:
    """A Docker engine and a Daytona server that share a clock and faults.

    Args:
        seed: the same seed makes the same world.
        containers: how many to make up, or which.
        networks: those that the given containers are attached to.
        sandboxes: how many to make up, or which, for the first organisation; or by organisation.
        odd: the share of the made-up sandboxes that breaks careless clients.
        clock: the simulated time; a new one that passes as the real one does when None.
        behaviour: how Daytona behaves.
        wrong_keys: how many wrong keys block an address.
        docker_port: listen for Docker clients on this TCP port of 127.0.0.1 too; 0 takes a free one.
        daytona_port: the port of the Daytona API; 0 takes a free one.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        containers: int | Sequence[ContainerSpec] = 0,
        networks: Sequence[NetworkSpec] = (),
        sandboxes: int | Iterable[SandboxSpec] | Mapping[str, int | Iterable[SandboxSpec]] = 0,
        odd: float = 0.0,
        clock: Clock | None = None,
        behaviour: Behaviour | None = None,
        wrong_keys: Limit | None = None,
        docker_port: int | None = None,
        daytona_port: int = 0,
    ) -> None:
        self.clock = clock or Clock()
        self.faults = Faults(seed)
        self.daytona = Daytona(self.clock, self.faults, seed=seed, behaviour=behaviour, wrong_keys=wrong_keys)
        self._ports = (docker_port, daytona_port)
        self._docker_port: int | None = None
        self._folder: Path | None = None
        self._stack = ExitStack()
        self._runners: list[web.AppRunner] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._broken: BaseException | None = None
        now = self.clock.now()
        homes = sandboxes if isinstance(sandboxes, Mapping) else {DEFAULT: sandboxes}
        for number, (name, wanted) in enumerate(homes.items()):
            organisation = self.daytona.add_organisation(name)
            made = make_sandboxes(seed + number, wanted, now, odd=odd) if isinstance(wanted, int) else wanted
            for spec in made:
                organisation.add(spec)
        self.engine = Engine(self.clock, seed=seed)
        self.docker = DockerSimulator(self.engine, self.faults)
        if isinstance(containers, int):
            load(self.engine, *make_containers(seed, containers, now))
        else:
            load(self.engine, containers, networks)

    # What clients need

    @property
    def docker_host(self) -> str:
        """What DOCKER_HOST has to be: a unix socket."""
        assert self._folder is not None, "the simulator does not run"
        return f"unix://{self._folder}/docker.sock"

    @property
    def docker_tcp(self) -> str:
        """Another DOCKER_HOST, where a port was asked for."""
        return f"tcp://127.0.0.1:{self._docker_port}"

    @property
    def daytona_url(self) -> str:
        """What DAYTONA_API_URL has to be."""
        return f"{self.daytona.url}/api"

    @property
    def daytona_v2_url(self) -> str:
        """What DAYTONA_V2_API_URL has to be: the second platform, for which the same keys are good."""
        return f"{self.daytona.url}/v2"

    def api_key(self, organisation: str = DEFAULT) -> str:
        """What DAYTONA_API_KEY has to be."""
        return self.daytona.key(organisation)

    def organisation(self, name: str = DEFAULT) -> Organisation:
        """The organisation's state. While the server runs in a thread, change it with `do`."""
        return self.daytona.organisation(name)

    def environment(self) -> dict[str, str]:
        """The variables that point a program at this world."""
        first = next(iter(self.daytona.keys.values())).organisation
        return {
            "DOCKER_HOST": self.docker_host,
            "DAYTONA_API_URL": self.daytona_url,
            "DAYTONA_V2_API_URL": self.daytona_v2_url,
            "DAYTONA_API_KEY": self.api_key(first),
        }

    def do(self, act: Callable[[], _T]) -> _T:
        """Run this in the server's loop, so that no request sees half of it; its result."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or thread is threading.current_thread():
            return act()

        async def call() -> _T:
            return act()

        return asyncio.run_coroutine_threadsafe(call(), loop).result(60)

    # In the loop that runs

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _start(self) -> None:
        docker_port, daytona_port = self._ports
        self.daytona.url = f"http://127.0.0.1:{await self._tcp(await self._runner(self.daytona.app()), daytona_port)}"
        self._folder = self._stack.enter_context(socket_folder("reaper-simulator-", os.environ))
        runner = await self._runner(self.docker.app(), cancel=True)
        await web.UnixSite(runner, str(self._folder / "docker.sock"), backlog=_BACKLOG).start()
        if docker_port is not None:
            self._docker_port = await self._tcp(runner, docker_port)

    async def _tcp(self, runner: web.AppRunner, port: int) -> int:
        """Listen on this port of 127.0.0.1, 0 for any; the port."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.close()
            raise
        await web.SockSite(runner, listener, backlog=_BACKLOG).start()
        taken: int = listener.getsockname()[1]
        return taken

    async def _runner(self, app: web.Application, *, cancel: bool = False) -> web.AppRunner:
        runner = EndingRunner(app, access_log=None, handler_cancellation=cancel, shutdown_timeout=_SHUTDOWN)
        self._runners.append(runner)
        await runner.setup()
        return runner

    async def _end(self) -> None:
        self.faults.release()
        for runner in reversed(self._runners):
            await runner.cleanup()
        self._runners = []
        self._folder = None
        self._stack.close()
        self._loop = None

    # In a thread

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="reaper simulator", daemon=True)
        self._thread.start()
        ready.wait()
        if self._broken is not None:
            self._thread.join()
            raise self._broken
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        thread, loop, stop = self._thread, self._loop, self._stop
        if thread is not None and loop is not None and stop is not None:
            loop.call_soon_threadsafe(stop.set)
            thread.join(30)
        self._thread = None
        if self._broken is not None and error is None:
            raise RuntimeError("the simulator has a bug") from self._broken

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._stop = asyncio.Event()
            async with self:
                ready.set()
                await self._stop.wait()

        try:
            asyncio.run(main())
        except BaseException as bug:  # noqa: BLE001 - raised in the thread that can fail
            self._broken = bug
        finally:
            ready.set()


async def serve(simulator: Simulator, announce: Callable[[Simulator], None]) -> None:
    """Serve the world until SIGINT or SIGTERM; `announce` is called when it listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    async with simulator:
        announce(simulator)
        await stop.wait()
