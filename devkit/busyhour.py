"""A busy hour of three engines and an organisation, as a Prometheus would have scraped it.

The reaper's own keepers sweep endpoints in memory on a clock that jumps, and its own metrics are read every 15 seconds of
that clock. So an hour takes seconds, and what it shows is what the program does and says.
"""

import logging
import random
import re
import tomllib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import stamina.instrumentation
import structlog
import trio.testing

from reaper.conduct import Observers
from reaper.errors import LeasesUnknownError, ServerError, UnavailableError
from reaper.judge import Rules
from reaper.keeper import Keeper, Terms
from reaper.leasebook import LeaseBook
from reaper.leasedb import Holder, LeaseFile, LeaseRecord, LeaseState
from reaper.leasedb import Sort as LeaseSort
from reaper.leases import NAME as LEASES
from reaper.metrics import Metrics, reach
from reaper.model import Kind, Resource, State
from reaper.notify import Notifier
from reaper.providers.base import Traits
from reaper.ratelimit import Breaker
from reaper.retry import Retrier, RetryPolicy
from reaper.schedule import Timing
from reaper.settings import Settings
from reaper.status import Status
from reaper.sweep import Endpoint, Options
from reaper.teller import Teller
from reaper.terms import NoLedger
from reaper.testing import Held, MemoryProvider, MemoryWorld, Rule, VirtualClock

BEGIN = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
END = BEGIN + timedelta(hours=1)
SCRAPE = 15.0  # seconds
WARM_UP = timedelta(minutes=45)  # before BEGIN: the service has been running for a while
HOUR = timedelta(hours=1)
TIDY = 0.35  # of the trials that end: their runner has cleaned up after them
RUNS = ((-40, 62, False), (-15, 31, True), (4, 20, False), (19, 36, False), (27, 11, True), (41, 30, False))
"""Benchmarks that hold a lease: their beginning and length in minutes, from BEGIN, and whether they are killed."""
CONFIG = """
[[policy]]
name = "stopped-containers"
kinds = ["container"]
stopped_for = "10m"
every = "10m"
[[policy]]
name = "old-containers"
kinds = ["container"]
older_than = "24h"
every = "15m"
[[policy]]
name = "stopped-sandboxes"
kinds = ["sandbox"]
stopped_for = "10m"
every = "5m"
[[policy]]
name = "old-sandboxes"
kinds = ["sandbox"]
older_than = "24h"
idle_for = "2h"
cron = "*/15 * * * *"
"""

_SANDBOXES = Traits(stops_first=False, confirm_within=timedelta(seconds=60), kinds=frozenset({Kind.SANDBOX}))


class _Engine(MemoryProvider):
    """An engine whose events are told."""

    provider = "docker"

    def __init__(self, world: MemoryWorld, endpoint: str) -> None:
        super().__init__(world, endpoint)
        self._told: deque[Resource] = deque()
        self._news = anyio.Event()

    def tell(self, death: Resource) -> None:
        """A container has died."""
        self._told.append(death)
        self._news.set()

    async def deaths(self, connected: Callable[[], None], _since: datetime | None = None) -> AsyncIterator[Resource]:
        """See ``providers.base.Watched``."""
        connected()
        while True:
            while self._told:
                yield self._told.popleft()
            self._news = anyio.Event()
            await self._news.wait()


class _Organisation(MemoryProvider):
    provider = "daytona"


@dataclass
class Home:
    """One endpoint, and what befalls it.

    Args:
        busy: so many trials a minute end there and others begin.
        living: so many are under way.
    """

    name: str
    busy: float
    living: int
    sandboxes: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def open(self, clock: VirtualClock) -> None:
        """Make the world; needs a running loop."""
        self.clock = clock
        self.world = MemoryWorld((), clock, latency=0.04)
        self.provider = (
            _Organisation(self.world, self.name, traits=_SANDBOXES) if self.sandboxes else _Engine(self.world, self.name)
        )
        self.trials = [self._add(self.clock() - HOUR * self.chance.uniform(0.1, 7)) for _ in range(self.living)]
        for name in ("registry", "billing-db", "jupyter"):
            self._add(self.clock() - 900 * HOUR, name=name, image=f"{name}:2", labels={})

    async def live(self) -> None:
        """Trials end, and of most of them something stays."""
        while True:
            await anyio.sleep(60 * self.chance.expovariate(self.busy))
            ended = self.trials.pop(self.chance.randrange(len(self.trials)))
            self.trials.append(self._add(self.clock()))
            if self.chance.random() < TIDY:
                self.world.remove(ended)
            else:
                self._end(ended)

    def killed_run(self, size: int, *, stubborn: int = 0) -> None:
        """A runner was killed a day ago: all that it had started is garbage in one moment.

        Args:
            size: so many.
            stubborn: so many of them cannot be deleted.
        """
        names = [self._add(self.clock() - 24 * HOUR) for _ in range(size)]
        self.world.rules += [
            Rule("delete", name, error=ServerError("500 Internal Server Error")) for name in names[:stubborn]
        ]

    def _end(self, name: str) -> None:
        now, raw = self.clock(), "stopped" if self.sandboxes else "exited"
        active = now if self.sandboxes else None
        self.world.change(
            name, lambda r: replace(r, state=State.STOPPED, raw_state=raw, stopped_at=now, last_activity_at=active)
        )
        dead = self.world.get(name)
        if dead is not None and isinstance(self.provider, _Engine):
            self.provider.tell(dead)

    def _add(self, started: datetime, **fields: Any) -> str:
        """Something that runs; its name."""
        number = self.chance.randrange(16**12)
        made = Resource(
            provider=self.provider.provider,
            endpoint=self.name,
            kind=Kind.SANDBOX if self.sandboxes else Kind.CONTAINER,
            id=f"{number:012x}",
            name=f"trial-{number:012x}",
            state=State.RUNNING,
            raw_state="started" if self.sandboxes else "running",
            created_at=started,
            started_at=started,
            last_activity_at=started if self.sandboxes else None,
            labels={"harbor.managed": "true"},
            image="hb__chess",
            restart_policy="no",
        )
        made = replace(made, **fields)
        stop, removal = self.chance.choice((0.2, 0.4, 1.0, 10.0)), self.chance.uniform(0.1, 4.0)
        self.world.add(Held(made, stop_seconds=stop, removal_seconds=removal))
        return made.name


@dataclass
class Scrapes:
    """What was scraped, in OpenMetrics' form with the time of each sample."""

    lines: list[str] = field(default_factory=list)

    def take(self, text: str, at: float) -> None:
        """Keep what a scrape brought, with the labels that Prometheus gives to what a target says."""
        self.lines.append(f'up{{job="reaper",instance="reaper:9797"}} 1 {at:.0f}')
        for line in text.splitlines():
            if not line.startswith("#"):
                self.lines.append(f"{_labelled(line)} {at:.0f}")

    def text(self) -> str:
        """The whole document; the samples of each series stand together, as the format demands."""
        return "".join(f"{line}\n" for line in sorted(self.lines, key=_series)) + "# EOF\n"


def _labelled(line: str) -> str:
    name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()  # type: ignore[union-attr]  # our own text
    return f'{name}{{job="reaper",instance="reaper:9797"{"," + labels if labels else ""}}} {value}'


def _series(line: str) -> tuple[str, int]:
    series, _, rest = line.rpartition("} ")
    return series, int(rest.split()[1])


def homes() -> list[Home]:
    """Three engines and an organisation."""
    return [
        Home("gpu-1", busy=5.0, living=64),
        Home("gpu-2", busy=4.0, living=48),
        Home("gpu-3", busy=2.0, living=30),
        Home("rl-org", busy=9.0, living=180, sandboxes=True),
    ]


async def _mishaps(places: dict[str, Home]) -> None:
    """What goes wrong in the hour."""

    async def at(minute: float) -> None:
        await anyio.sleep_until(WARM_UP.total_seconds() + 60 * minute)

    down = Rule("list", error=UnavailableError("connection refused"))
    gpu_1, gpu_2, organisation = places["gpu-1"], places["gpu-2"], places["rl-org"]
    await at(6)
    gpu_1.killed_run(140)
    await at(19)
    gpu_2.world.rules.append(down)
    await at(26)
    organisation.killed_run(210, stubborn=9)
    await at(41)
    gpu_2.world.rules.remove(down)
    await at(46)
    organisation.world.rules.clear()


def live_through() -> Scrapes:
    """The hour, scraped."""
    stamina.instrumentation.set_on_retry_hooks(())  # its own line about each retry
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(_live_through, backend="trio", backend_options={"clock": clock})


async def _live_through() -> Scrapes:
    clock = VirtualClock(BEGIN - WARM_UP)
    clock()
    settings = Settings.model_validate(tomllib.loads(CONFIG))
    rules: Rules = settings.rules()
    places = {home.name: home for home in homes()}
    for home in places.values():
        home.open(clock)
    metrics = Metrics(clock=lambda: clock().timestamp())
    status = Status("", clock())
    endpoints = {name: home.provider.provider for name, home in places.items()}
    timings = {table.name: Timing.of(table).interval(clock()) for table in settings.policy}
    status.configure(endpoints, {policy.name: ("", list(endpoints)) for policy in rules.policies})
    followed = [home.name for home in places.values() if isinstance(home.provider, _Engine)]
    metrics.configure(
        endpoints, reach(endpoints, rules.policies), followed, {n: t for n, t in timings.items() if t is not None}
    )
    log = structlog.get_logger(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    teller = Teller(log, status, metrics, Notifier({}), clock)
    keepers = [
        Keeper(
            Endpoint(home.provider, Retrier(RetryPolicy(), breaker=Breaker())),
            lambda: Terms(rules, Options(max_deletions=1000), timedelta(minutes=30)),
            clock,
            Observers([status, metrics]),
            NoLedger(),
            teller,
        )
        for home in places.values()
    ]
    scrapes = Scrapes()
    async with anyio.create_task_group() as group:
        for home, keeper in zip(places.values(), keepers, strict=True):
            group.start_soon(keeper.run)
            group.start_soon(home.live)
        for table, policy in zip(settings.policy, rules.policies, strict=True):
            mine = [keeper for keeper in keepers if keeper.concerns(policy)]
            group.start_soon(_schedule, Timing.of(table), table.name, mine, clock)
        group.start_soon(_mishaps, places)
        group.start_soon(_hold_leases, metrics, clock)
        while clock() <= END:
            scrapes.take(metrics.render("")[0].decode(), clock().timestamp())
            await anyio.sleep(SCRAPE)
        group.cancel_scope.cancel()
    return scrapes


async def _hold_leases(metrics: Metrics, clock: VirtualClock) -> None:
    """Benchmark runs take leases and are heard of; the killed ones fall silent."""
    with TemporaryDirectory() as folder:
        file = LeaseFile(Path(folder) / LEASES)
        book = LeaseBook(file, clock, _Untold(), token=1, lives=lambda _: None)
        book.open()

        async def run(begin: float, minutes: float, *, killed: bool) -> None:
            await anyio.sleep(max(0.0, (BEGIN + timedelta(minutes=begin) - clock()).total_seconds()))
            lease = book.take(LeaseSort.HEARTBEAT, Holder("gpu-1"))
            for _ in range(round(minutes * 2)):
                await anyio.sleep(30)
                book.heard(lease.id)
            if not killed:
                book.release(lease.id)

        async with anyio.create_task_group() as group:
            group.start_soon(book.run)
            for begin, minutes, killed in RUNS:
                group.start_soon(partial(run, begin, minutes, killed=killed))
            while True:
                states = Counter(record.state for record in book.records())
                metrics.leases({state.value: states[state] for state in LeaseState})
                await anyio.sleep(SCRAPE)


class _Untold:
    def changed(self, record: LeaseRecord) -> None:
        """See ``leasebook.Told``."""

    def failed(self, error: LeasesUnknownError) -> None:
        """See ``leasebook.Told``."""


async def _schedule(timing: Timing, name: str, keepers: list[Keeper], clock: VirtualClock) -> None:
    """Post a policy when it is due, by the trigger that the service's scheduler has; and once at the start."""
    for due in _runs(timing, clock()):
        for keeper in keepers:
            keeper.post([name])
        await anyio.sleep(max(0.0, (due - clock()).total_seconds()))


def _runs(timing: Timing, begin: datetime) -> Iterator[datetime]:
    trigger, run = timing.trigger(timedelta(seconds=5)), begin
    while True:
        run = trigger.get_next_fire_time(run, run)
        yield run
