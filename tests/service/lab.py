"""A worker over a world in memory, and what it told."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from reaper.config.settings import JournalTable, Settings
from reaper.core.lease import Lease
from reaper.core.model import Report, Resource
from reaper.core.rules import Rules
from reaper.errors import UnavailableError
from reaper.providers.memory import Held, MemoryProvider, MemoryWorld, VirtualClock
from reaper.retry.breaker import Breaker
from reaper.retry.retrier import Retrier
from reaper.service.endpoint_worker import EndpointWorker
from reaper.service.loaded import Loaded
from reaper.session import Session
from reaper.sweep.plan import Plan
from reaper.sweep.result import SweepResult
from reaper.sweep.sweep import Endpoint, Options
from tests.sweep.lab import EXACT, NOW, RULES, Recorder

DEADLINE = timedelta(minutes=30)


@dataclass
class Sweep:
    """One sweep as it was told of, in the loop's time."""

    began: float
    due: frozenset[str]
    ended: float = 0.0
    result: SweepResult | None = None
    report: Report | None = None


@dataclass
class Diary:
    """Remembers what a worker tells."""

    sweeps: list[Sweep] = field(default_factory=list)
    bugs: list[BaseException] = field(default_factory=list)
    stumbles: list[BaseException] = field(default_factory=list)
    late: list[tuple[str, ...]] = field(default_factory=list)
    events: list[tuple[bool, str]] = field(default_factory=list)

    def began(self, _worker: EndpointWorker, due: frozenset[str]) -> None:
        self.sweeps.append(Sweep(anyio.current_time(), due))

    def swept(self, _worker: EndpointWorker, _due: frozenset[str], report: Report, result: SweepResult) -> None:
        last = self.sweeps[-1]
        last.ended, last.result, last.report = anyio.current_time(), result, report

    def too_late(self, _endpoint: str, policies: Sequence[str]) -> None:
        self.late.append(tuple(policies))

    def bug(self, _endpoint: str, error: BaseException) -> None:
        self.bugs.append(error)

    def left(self, _endpoint: str) -> None:
        """Nothing to say."""

    def stumbled(self, _endpoint: str, error: BaseException) -> None:
        self.stumbles.append(error)

    def watching(self, _endpoint: str, *, connected: bool, error: str = "") -> None:
        self.events.append((connected, error))

    @property
    def results(self) -> list[SweepResult | None]:
        return [sweep.result for sweep in self.sweeps]


class WatchedProvider(MemoryProvider):
    """Tells of deaths as the test says. ``broken`` counts down the connections that fail before one holds."""

    def __init__(self, world: MemoryWorld) -> None:
        super().__init__(world, "local", None)
        self.broken = 0
        self.asked_since: list[datetime | None] = []
        self._told: deque[Resource | Exception | None] = deque()
        self._news = anyio.Event()

    def tell(self, event: Resource | Exception) -> None:
        """A death, or what breaks the stream."""
        self._told.append(event)
        self._news.set()

    def end(self) -> None:
        """The stream ends without an error."""
        self._told.append(None)
        self._news.set()

    async def deaths(self, connected: Callable[[], None], since: datetime | None = None) -> AsyncIterator[Resource]:
        self.asked_since.append(since)
        if self.broken:
            self.broken -= 1
            raise UnavailableError("no events today")
        connected()
        while True:
            while self._told:
                event = self._told.popleft()
                if event is None:
                    return
                if isinstance(event, Exception):
                    raise event
                yield event
            self._news = anyio.Event()
            await self._news.wait()


class House:
    """One kept endpoint."""

    def __init__(
        self,
        *things: Resource | Held,
        rules: Rules = RULES,
        watched: bool = False,
        deadline: timedelta = DEADLINE,
        at_times: frozenset[str] = frozenset(),
        **world: Any,
    ) -> None:
        self.clock = VirtualClock(NOW)
        self.world = MemoryWorld(things, **{"clock": self.clock, **world})
        self.provider = WatchedProvider(self.world)
        reader = self.provider if watched else MemoryProvider(self.world, "local", None)
        self.rules = rules
        self.deadline = deadline
        self.at_times = at_times
        self.diary = Diary()
        self.leases: list[Lease] = []
        self.observer = Recorder()
        nothing = Path("/nonexistent")
        self.plan = Plan((), rules, Options(), EXACT, nothing, JournalTable(enabled=False))
        session = Session(self.plan, observers=[self.observer], sockets=(), clock=self.clock)
        session.leases = lambda: self.leases  # type: ignore[assignment]  # the test's own
        self.worker = EndpointWorker(
            Endpoint(reader, Retrier(EXACT, breaker=Breaker())),
            session,
            self.loaded,
            self.diary,  # type: ignore[arg-type]  # in place of the reporter
        )

    def loaded(self) -> Loaded:
        """The configuration in force."""
        policies = [
            {"name": name, "kinds": ["container"], "older_than": "1h", "cron": "0 * * * *"} for name in self.at_times
        ]
        raw = {"service": {"sweep_timeout": self.deadline}, "policy": policies}
        return Loaded(Settings.model_validate(raw), replace(self.plan, rules=self.rules))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[EndpointWorker]:
        """While the worker runs."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.worker.run)
            yield self.worker
            self.worker.retire(timedelta(0))
            await self.worker.finished.wait()

    def left(self) -> set[str]:
        return {held.resource.name for held in self.world.held()}

    def die(self, name: str) -> Resource:
        """A container dies now, and the event tells of it."""
        now = self.clock()
        self.world.halt(name)
        self.world.change(name, lambda resource: replace(resource, stopped_at=now))
        resource = self.world.get(name)
        assert resource is not None
        return resource
