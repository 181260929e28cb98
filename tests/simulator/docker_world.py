"""A simulated Docker engine in a thread of its own, for tests that drive it as a server from outside."""

import asyncio
import tempfile
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from devkit.client import EngineClient, archive
from reaper.simulator.clock import Clock
from reaper.simulator.docker.app import DockerSimulator, Engine, add_container
from reaper.simulator.docker.model import Container
from reaper.simulator.faults import Faults

_T = TypeVar("_T")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class World(EngineClient):
    """A simulated engine that listens on a unix socket while the block runs.

    Args:
        clock: simulated time; real time when None.
        options: of the engine.
    """

    def __init__(self, clock: Clock | None = None, **options: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sim-", dir="/tmp")
        super().__init__(str(Path(self._folder.name) / "docker.sock"))
        self.clock = clock or Clock()
        self.faults = Faults(7)
        self.sim = Engine(self.clock, **options)
        self.server = DockerSimulator(self.sim, self.faults)
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @staticmethod
    def _root(mark: str) -> bytes:
        """Nothing is ever run here, so it needs no program, and the tests no busybox."""
        return archive(mark)

    def add(self, name: str, age: timedelta = DAY, **wanted: Any) -> Container:
        """A container that is that old, and ended an hour ago when it did."""
        now = self.clock.now()
        times = {"created": now - age, **({"finished": now - HOUR} if wanted.get("state", "exited") == "exited" else {})}
        made: dict[str, Any] = {"image": "bench:1", **times, **wanted}
        return self.do(lambda: add_container(self.sim, name=name, **made))

    def do(self, act: Callable[[], _T]) -> _T:
        """Run this in the server's thread; its result."""
        if not self._thread.is_alive():
            return act()

        async def call() -> _T:
            return act()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(30)

    def turn(self, **by: float) -> None:
        """Turn the clock forward."""
        self.clock.advance(timedelta(**by))

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            async with self.server.serve(self.socket):
                self._ready.set()
                await self._stop.wait()

        asyncio.run(main())

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._folder.cleanup()
