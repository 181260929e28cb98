"""The program as a process before the simulated providers, which can hold a request while the program is killed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from aiohttp.typedefs import Middleware

from reaper.leases.database import create
from reaper.leases.record import Holder, LeaseRecord, Liveness
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from reaper.simulator.control import Traffic
from reaper.simulator.daytona.rules import Behaviour as Manners
from reaper.simulator.docker.model import Behaviour
from reaper.simulator.faults import Handler
from reaper.simulator.server import Simulator
from tests.engine.lab import until
from tests.matrix.faults import CONFIRM, DAYTONA, DELETION, DOCKER, GROUP, INSPECT, LIST, STOP
from tests.matrix.worlds import DELETE, INSPECTION, LEASED, LISTING, DaytonaWorld, DockerWorld, World
from tests.matrix.worlds import STOP as STOPPING
from tests.run import Ended, Program

QUICK = Manners(pickup=(0, 0), destroy=(0, 0.1), stop=(0, 0), get_cache=0, list_lag=0)
RETRY = {
    "REAPER_RETRY__ATTEMPTS": "3",
    "REAPER_RETRY__INITIAL_DELAY": "20ms",
    "REAPER_RETRY__JITTER": "0",
    "REAPER_RETRY__MAX_DELAY": "50ms",
}
STAGES = {DOCKER: (LIST, INSPECT, GROUP, STOP, DELETION, CONFIRM), DAYTONA: (LIST, INSPECT, GROUP, STOP, DELETION, CONFIRM)}


class _Traffic(Traffic):
    def __init__(self, town: "Town") -> None:
        super().__init__(town.sim.clock)
        self._town = town

    def middleware(self) -> Middleware:
        count = super().middleware()

        @web.middleware
        async def meet(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await count(request, partial(self._town.meet, handler=handler))

        return meet


class Town:
    """A provider in a thread, and the program before it. A context manager.

    Args:
        folder: the program's state directory.
        provider: which one.
        denied: whether the key of the organisation may not delete, so that sandboxes are stopped.
    """

    def __init__(self, folder: Path, provider: str, *, denied: bool = False) -> None:
        self.provider, self.folder = provider, folder
        self.sim = Simulator(behaviour=QUICK)
        self.sim.daytona.traffic, self.sim.docker.traffic = _Traffic(self), _Traffic(self)
        self.world: World = DaytonaWorld(denied=denied) if provider == DAYTONA else DockerWorld()
        self.world.fill(self.sim)
        for container in self.sim.engine.containers.values():
            container.behaviour = Behaviour()  # here time passes as it does: none is to take its whole stop time-out
        create(folder / NAME)
        leases, now = LeaseFile(folder / NAME), self.sim.clock.now()
        holder, since = Holder("gpu-1"), now - timedelta(days=3)
        leases.put(LeaseRecord(id=LEASED.id, sort=Liveness.HEARTBEAT, holder=holder, since=since, seen_at=now))
        leases.close()
        self.held = threading.Event()
        self._hold: tuple[str, bool] | None = None
        self._to_hold = 0
        self._accepted: set[str] = set()
        self._inspected = False

    def __enter__(self) -> Self:
        self.sim.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.sim.__exit__(None, None, None)

    def program(self, **env: str) -> Program:
        """The program; its only endpoint is the provider."""
        key = self.world.spec(self.sim).secret or ""
        return Program(self.folder, {**self.sim.environment(), "DAYTONA_API_KEY": key, **RETRY, **env})

    def sweep(self, program: Program, *options: str, **popen: Any) -> Ended:
        """Sweep once."""
        return program.finish(program.start("--once", "--only", self.provider, "--json", *options, **popen))

    def names(self) -> set[str]:
        return self.sim.do(self.world.names)

    def finish_deletions(self) -> None:
        """Wait for what the server has accepted."""
        until(lambda: self.sim.do(self.world.ends), "the end of what is being deleted")

    def check(self, ended: Ended) -> None:
        """Everything is gone that must go, all that must live is there, and the program says so."""
        assert ended.code == 0, (ended.out, ended.err)
        assert not self.world.go & self.names(), ended.out
        self.check_living()

    def check_living(self) -> None:
        assert self.world.live <= self.names(), self.world.live - self.names()

    @contextmanager
    def holding(self, stage: str, *, done: bool, requests: int = 1) -> Iterator[threading.Event]:
        """Hold requests of this stage: before the server reads them, or when they were done and are not answered.

        Yields:
            is set when there are so many.
        """
        self._hold = stage, done
        self._to_hold = requests
        self.held.clear()
        yield self.held
        self._hold = None
        self.sim.do(self.sim.faults.release)

    async def meet(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request, or hold it."""
        stage = self._stage(request)
        if self._hold is None or stage != self._hold[0]:
            return await self._answered(request, handler)
        answer = await self._answered(request, handler) if self._hold[1] else None
        self._to_hold -= 1
        if self._to_hold <= 0:
            self.held.set()
        await self.sim.faults.hang()
        return answer or web.Response(status=503)

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        if self.world.kind(request) == DELETE and answer.status < 300:
            self._accepted.add(request.path.rpartition("/")[2])
        return answer

    def _stage(self, request: web.Request) -> str | None:
        match self.world.kind(request):
            case kind if kind == LISTING and not self._inspected:
                return LIST
            case kind if kind == LISTING:
                is_over = self.provider == DOCKER and not self.world.go & self.world.names()
                return CONFIRM if is_over else GROUP
            case kind if kind == INSPECTION:
                self._inspected = True
                return CONFIRM if request.path.rpartition("/")[2] in self._accepted else INSPECT
            case kind if kind == STOPPING:
                return STOP
            case kind if kind == DELETE:
                return DELETION
        return None
