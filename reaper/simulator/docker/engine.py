"""The store of a simulated Docker engine: what it holds, how names are resolved, and what happens when.

    engine = Engine(Clock(), seed=7)
    add_container(engine, name="chess-1", image="tb__chess__client", state="exited", finished=days_ago)
    app = DockerSimulator(engine, faults).app()          # reaper.simulator.docker

What is due (a process that ends, a time-out of a stop, a removal that is done) waits in a heap on the clock's scale and is
done, with the times of when it was due, before each request is answered and whenever the clock gets there.
"""

import asyncio
import heapq
import random
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import count

from reaper.simulator.clock import Clock
from reaper.simulator.docker.events import Events
from reaper.simulator.docker.images import Images
from reaper.simulator.docker.model import CacheRecord, Container, RefusedError, Volume
from reaper.simulator.docker.networks import Networks
from reaper.simulator.docker.text import NS, nanoseconds


class Engine:
    """One simulated engine. Its methods are for the thread of its server, or for any while no server runs.

    Args:
        clock: simulated time.
        seed: ids and ports of the same seed and calls are the same.
        skew: the engine's clock minus the true one: shifts its Date header and all times that it gives.
        root: its data directory, which shows in paths.
        latency: simulated seconds before each request is answered.
        start_takes, kill_takes: simulated seconds that these take.
        forgets_images: whether an image is gone when its last tag moves to another one, though containers have it: as in
            Docker's containerd store when BuildKit builds the tag again.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        seed: int = 0,
        skew: timedelta = timedelta(0),
        root: str = "/var/lib/docker",
        latency: float = 0.0,
        start_takes: float = 0.0,
        kill_takes: float = 0.0,
        forgets_images: bool = False,
    ) -> None:
        self.clock = clock
        self.forgets_images = forgets_images
        self.root = root
        self.latency = latency
        self.start_takes = start_takes
        self.kill_takes = kill_takes
        self.random = random.Random(f"docker/{seed}")  # noqa: S311 - reproducible on purpose
        self._skew = skew
        self._base = nanoseconds(clock.now() - timedelta(seconds=clock.elapsed()))
        self._moment: float | None = None  # when what is being done was due
        self._last = 0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._bells: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}
        self._sorted: list[Container] | None = None
        self._ids: list[str] = []
        self._unsorted = False
        self._by_label: dict[str, dict[str, dict[str, Container]]] = {}
        self.containers: dict[str, Container] = {}
        self.names: dict[str, Container] = {}
        self.volumes: dict[str, Volume] = {}
        self.cache: list[CacheRecord] = []
        self.events = Events()
        self.networks = Networks(self)
        self.images = Images(self)

    # Time

    @property
    def skew(self) -> timedelta:
        """The engine's clock minus the true one. May be changed at any time."""
        return self._skew

    @skew.setter
    def skew(self, value: timedelta) -> None:
        self._skew, self._last = value, 0

    @property
    def elapsed(self) -> float:
        """Seconds on the clock's scale: now, or when what is being done was due."""
        return self.clock.elapsed() if self._moment is None else self._moment

    def time(self) -> int:
        """The engine's time now (ns)."""
        return self._base + int(self.elapsed * NS) + int(self._skew.total_seconds() * NS)

    def tick(self) -> int:
        """The engine's time now (ns), later than the last one it gave: for what it stamps."""
        self._last = max(self.time(), self._last + 1)
        return self._last

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Do that in so many simulated seconds."""
        heapq.heappush(self._due, (self.elapsed + seconds, next(self._number), do))
        self.ring("")

    def settle(self) -> None:
        """Do what has become due, in order."""
        now = self.clock.elapsed()
        while self._due and self._due[0][0] <= now:
            due, _, do = heapq.heappop(self._due)
            self._moment = due
            try:
                do()
            finally:
                self._moment = None

    @property
    def next_due(self) -> float | None:
        """On the clock's scale, when something will be due."""
        return self._due[0][0] if self._due else None

    async def run(self) -> None:
        """Do what becomes due, for ever: the server's background task."""
        while True:
            self.settle()
            due = self.next_due
            if due is None:
                await self.rung("")
                continue
            waiting = [
                asyncio.ensure_future(self.rung("")),
                asyncio.ensure_future(self.clock.sleep_until(due)),
            ]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    # Waiting for changes

    async def rung(self, ident: str) -> None:
        """Return at the next change of that container ("": of what is due)."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        bells = self._bells.setdefault(ident, [])
        bells.append(entry)
        try:
            await entry[1].wait()
        finally:
            if entry in bells:
                bells.remove(entry)
            if not bells and self._bells.get(ident) is bells:
                del self._bells[ident]

    async def until(self, container: Container, condition: Callable[[], bool]) -> None:
        """Return when that is true of the container."""
        self.settle()
        while not condition():
            await self.rung(container.id)

    def ring(self, ident: str) -> None:
        """Wake those who wait for a change of that container."""
        for loop, event in tuple(self._bells.get(ident, ())):
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    def changed(self, container: Container) -> None:
        """A container is not what it was: its row must be made anew, and who waits must look."""
        container.head = b""
        self.ring(container.id)

    def emit(self, container: Container, action: str, **attributes: str) -> None:
        """Log an event of a container."""
        found = {**container.labels, "image": container.image, "name": container.name, **attributes}
        self.events.log("container", action, container.id, found, self.tick())

    # Ids, names and order

    def new_id(self) -> str:
        """64 hexadecimal digits; never only decimal ones at the start, which the engine avoids too."""
        while (ident := f"{self.random.getrandbits(256):064x}")[:12].isdecimal():
            pass
        return ident

    def enter(self, container: Container) -> None:
        """Take a container in."""
        self.containers[container.id] = container
        self.names[container.name] = container
        for mount in container.mounts:
            if mount.kind == "volume":
                self.volumes[mount.name].users.add(container.id)
        for key, values in self._by_label.items():
            if key in container.labels:
                values.setdefault(container.labels[key], {})[container.id] = container
        self._ids.append(container.id)
        self._unsorted = True
        self._sorted = None

    def leave(self, container: Container) -> None:
        """A container is gone."""
        del self.containers[container.id]
        del self.names[container.name]
        for mount in container.mounts:
            if mount.kind == "volume" and mount.name in self.volumes:
                self.volumes[mount.name].users.discard(container.id)
        for key, values in self._by_label.items():
            if key in container.labels:
                values[container.labels[key]].pop(container.id, None)
        self._sort()
        del self._ids[bisect_left(self._ids, container.id)]
        self._sorted = None

    def newest_first(self) -> list[Container]:
        """All containers as the listing has them. Not to be changed."""
        if self._sorted is None:
            self._sorted = sorted(self.containers.values(), key=lambda c: c.created, reverse=True)
        return self._sorted

    def labelled(self, key: str, value: str) -> Iterable[Container]:
        """The containers with that label, quickly."""
        if key not in self._by_label:
            values: dict[str, dict[str, Container]] = {}
            for container in self.containers.values():
                if key in container.labels:
                    values.setdefault(container.labels[key], {})[container.id] = container
            self._by_label[key] = values
        found = self._by_label[key].get(value, {})
        return sorted(found.values(), key=lambda c: c.created, reverse=True)

    def container(self, ref: str) -> Container:
        """The container with that id, name or beginning of an id. Raises RefusedError."""
        found = self.containers.get(ref) or self.names.get(ref.removeprefix("/"))
        if found is not None:
            return found
        matches = list(self._prefixed(ref)) if ref else []
        if len(matches) > 1:
            raise RefusedError(500, f"Multiple IDs found with provided prefix: {ref}")
        if not matches:
            raise RefusedError(404, f"No such container: {ref}")
        return self.containers[matches[0]]

    def _prefixed(self, prefix: str) -> Iterator[str]:
        self._sort()
        for number in range(bisect_left(self._ids, prefix), len(self._ids)):
            if not self._ids[number].startswith(prefix):
                return
            yield self._ids[number]

    def _sort(self) -> None:
        if self._unsorted:
            self._ids.sort()
            self._unsorted = False

    # Volumes

    def add_volume(
        self,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        created: int = 0,
    ) -> Volume:
        """A new volume, or the one that has this name."""
        name = name or self.new_id()
        if name not in self.volumes:
            self.volumes[name] = Volume(name=name, created=created or self.tick(), labels=labels, options=options)
        self.events.log("volume", "create", name, {"driver": "local"}, self.tick())
        return self.volumes[name]

    def drop_volume(self, volume: Volume) -> None:
        """A volume is gone."""
        del self.volumes[volume.name]
        self.events.log("volume", "destroy", volume.name, {"driver": "local"}, self.tick())

    def mountpoint(self, name: str) -> str:
        """Where a volume lies."""
        return f"{self.root}/volumes/{name}/_data"
