"""The daemon: schedules, keepers, signals, reload and drain.

The schedule posts names of policies to a stream; a keeper for each endpoint sweeps it for those that are due there. All
tasks live in one task group. What ends the service ends it in stages: no new sweeps, those under way go on for the drain
time, then they are cancelled and report.
"""

import gc
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.abc
from prometheus_client import disable_created_metrics

from reaper import __version__, config, connect
from reaper.catchup import LastRuns, last_runs, missed
from reaper.conduct import Observers
from reaper.config import Config
from reaper.descriptors import make_room
from reaper.errors import ConfigError, ReaperError
from reaper.health import health
from reaper.journal import NAME, Journal, journal_of
from reaper.keeper import Keeper, Terms
from reaper.leases import SharedLeases
from reaper.leasing import Leasing, Swept
from reaper.logs import LogObserver
from reaper.metrics import Metrics, reach
from reaper.notify import Notifier
from reaper.plan import Plan, make_plan
from reaper.providers.base import Watched
from reaper.schedule import Schedule, Timing
from reaper.status import Status
from reaper.sweep import Endpoint, Ledger, Observer
from reaper.teller import Teller
from reaper.terms import NoLedger
from reaper.web import Web

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LOOK_ROUND = 5.0  # seconds between two rounds of the watch
CLOCK_JUMP = timedelta(seconds=30)
POSTS = 1000
SWITCH = 0.001  # seconds after which a thread lets the loop go on, in place of 5 ms; each turn of the loop waits so long
DESCRIPTORS = 16_384  # an open connection may be a lease, and the usual 1,024 would be used up by a thousand of them
SAME_SIGNAL = 1.0  # seconds: timeout(1), among others, signals the process and its whole group, and means one


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration in force, and what follows from it."""

    config: Config
    plan: Plan

    @classmethod
    def load(cls, arguments: Namespace, env: Mapping[str, str]) -> "Loaded":
        """Read and check everything. Raises ConfigError."""
        found = config.load(arguments.config, env)
        return cls(found, make_plan(arguments, found.settings, env))

    def terms(self) -> Terms:
        """What a keeper needs."""
        service = self.config.settings.service
        return Terms(
            self.plan.rules,
            self.plan.options,
            service.sweep_timeout,
            follow=service.docker_events,
            at_times=frozenset(policy.name for policy in self.config.settings.policy if policy.cron is not None),
            catch_up=service.catch_up,
        )

    def endpoints(self) -> dict[str, object]:
        """By name what makes an endpoint the same one: when it changes, its client is made anew."""
        plan = self.plan
        follow = self.config.settings.service.docker_events
        engines = {engine.name: (engine, plan.retry, follow) for engine in plan.engines}
        return {**engines, **{table.name: (table, key, plan.retry) for table, key in plan.organisations}}

    def connect(self, name: str, env: Mapping[str, str]) -> Endpoint:
        """A client for life of one endpoint."""
        plan = self.plan
        engines = [engine for engine in plan.engines if engine.name == name]
        organisations = [pair for pair in plan.organisations if pair[0].name == name]
        (endpoint,) = connect.endpoints(engines, organisations, plan.retry, config.state_directory(env), act=True)
        return endpoint


@dataclass
class Service:
    """The running service.

    Args:
        loaded: what it begins with.
        load: reads the configuration again.
        log: for its own lines, and those of the sweeps.
        env: the environment.
    """

    loaded: Loaded
    load: Callable[[], Loaded]
    log: "FilteringBoundLogger"
    env: Mapping[str, str]
    notifier: Notifier
    metrics: Metrics = field(default_factory=partial(Metrics, process=True))
    keepers: dict[str, Keeper] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = self.loaded.config.settings
        self.status = Status(__version__, _now())
        self.teller = Teller(self.log, self.status, self.metrics, self.notifier, _now)
        self.journal = self.teller.journal = self._open_journal()
        self.ledger: Ledger = self.journal or NoLedger()
        folder, leases = config.state_directory(self.env), settings.leases
        self.leases = SharedLeases(folder)
        self.leasing: Leasing | None = None
        if leases.enabled:
            swept = Swept(self._identities, self._identify, self._endpoint_ids)
            self.leasing = Leasing(
                folder, leases, self.env, self.teller, self._leases_ended, swept=swept, ryuk=settings.ryuk
            )
        observers: list[Observer] = [LogObserver(self.log), self.status, self.metrics]
        self.observer: Observer = Observers([*observers, *([self.journal] if self.journal else [])])
        self.teller.observer = self.observer
        self.schedule = Schedule(self._post, self._beat, settings.service.jitter, settings.service.catch_up)
        self._send, self._receive = anyio.create_memory_object_stream[str](POSTS)
        self._drain_requested = anyio.Event()
        self._leaving: list[Keeper] = []

    def _open_journal(self) -> Journal | None:
        return journal_of(
            self.loaded.config.settings.journal,
            config.state_directory(self.env),
            clock=_now,
            failed=self.teller.journal_failed,
            recovered=self.teller.journal_recovered,
            thorough=True,
        )

    # -- its life ------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Run until a signal ends it; returns the exit code. Raises ConfigError when it cannot begin."""
        failed = None
        async with anyio.create_task_group() as group:
            self._group = group
            await group.start(self._listen_for_signals, name="signals")
            address = self.loaded.config.settings.service.address
            leasing = self.leasing
            api = (lambda: leasing.api) if leasing is not None else None
            web = Web(self.status, self.metrics.render, clock=_now, leases=api, log=self.log) if address else None
            try:
                if web is not None and address is not None:
                    await web.start(*address)
                if leasing is not None:
                    await leasing.listen()
                await self._serve()
            except ReaperError as error:
                failed = error  # raised again below: the group would wrap it
            finally:
                with anyio.CancelScope(shield=True):
                    self.schedule.stop()
                    if leasing is not None:
                        leasing.hang_up()
                    if web is not None:
                        await web.close()
                    self.leases.close()
                    if leasing is not None:
                        await leasing.close()
                    if self.journal is not None:
                        await self.journal.close()
            group.cancel_scope.cancel()
        self._send.close()
        self._receive.close()
        if failed is not None:
            raise failed
        self.log.info("service_ended")
        return 0

    async def _serve(self) -> None:
        # Read before anything is written: it is what the service before this one has left.
        runs = await anyio.to_thread.run_sync(last_runs, config.state_directory(self.env) / NAME)
        if self.journal is not None:
            self.journal.open()
        self._apply(self.loaded)
        gc.collect()
        gc.freeze()  # all that is here stays: the collection after each sweep need not walk through it
        self.schedule.start(self.loaded.config.settings.policy)
        self._group.start_soon(self._dispatch, name="dispatch")
        self._group.start_soon(self._watch, name="watch")
        if self.leasing is not None:
            self._group.start_soon(self.leasing.run, name="leases")
            if self.leasing.ryuk is not None:
                self._group.start_soon(self.leasing.ryuk.run, name="ryuk")
        if self.loaded.config.settings.service.sweep_at_start:
            self._sweep_at_start(runs)
        self.log.info(
            "service_started",
            version=__version__,
            config=str(self.loaded.config.file or "the defaults"),
            endpoints=sorted(self.keepers),
            listen=self.loaded.config.settings.service.listen,
            ryuk=self.loaded.config.settings.ryuk.listen,
        )
        self.notifier.ready()
        self.notifier.status(f"keeps {', '.join(sorted(self.keepers)) or 'nothing'}")
        await self._drain_requested.wait()
        await self._drain()

    async def _drain(self) -> None:
        """No new sweeps; those under way get the drain time, and are cancelled then. They always report."""
        self.status.draining = True
        self.notifier.stopping()
        self.schedule.stop()
        if self.leasing is not None and self.leasing.ryuk is not None:
            self.leasing.ryuk.refuse_new()
        drain = self.loaded.config.settings.service.drain_timeout
        self.log.info("service_draining", seconds=drain.total_seconds())
        keepers = [*self.keepers.values(), *self._leaving]
        for keeper in keepers:
            keeper.retire(drain)
        for keeper in keepers:
            await keeper.finished.wait()

    # -- signals -------------------------------------------------------------------------------------------------------

    async def _listen_for_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        first = 0.0
        with anyio.open_signal_receiver(*wanted) as signals:
            task_status.started()
            async for number in signals:
                if number is signal.SIGHUP:
                    if not self._drain_requested.is_set():  # nothing would come of it but endpoints that begin to be kept
                        await self._reload()
                elif number is signal.SIGUSR1:
                    self.log.info("sweep_requested", signal=number.name)
                    self._sweep_now()
                elif not self._drain_requested.is_set():
                    self.log.info("signal", signal=number.name)
                    self._drain_requested.set()
                    first = anyio.current_time()
                elif anyio.current_time() - first > SAME_SIGNAL:
                    # Not by the signal's default action, which does not end the first process of a container.
                    self.log.warning("service_killed", signal=number.name)
                    os._exit(128 + number)

    # -- what is due ---------------------------------------------------------------------------------------------------

    def _post(self, policy: str) -> None:
        """The schedule's jobs end here: they post, and nothing more."""
        with suppress(anyio.WouldBlock):  # a thousand wait: the loop stands still, which the watchdog sees
            self._send.send_nowait(policy)

    async def _dispatch(self) -> None:
        async for name in self._receive:
            policy = next((policy for policy in self.loaded.plan.rules.policies if policy.name == name), None)
            for keeper in self.keepers.values():
                if policy is not None and keeper.concerns(policy):
                    keeper.post([name])
            self._show_schedule()

    def _sweep_at_start(self, runs: LastRuns) -> None:
        """Sweep for all policies but those with ``cron``: these only where their last time was missed just now."""
        settings, now = self.loaded.config.settings, _now()
        at_times = self.loaded.terms().at_times
        for keeper in self.keepers.values():
            policies = self.loaded.plan.rules.policies
            keeper.post([p.name for p in policies if p.name not in at_times and keeper.concerns(p)])
        for name in sorted(at_times):
            table = next(table for table in settings.policy if table.name == name)
            found = missed(table, self.status.policies[name].endpoints, runs, now, settings.service)
            if found is None:
                self.log.info("policy_waits_for_its_time", policy=name, cron=table.cron, next_at=self._next_at(name))
                continue
            at, where = found
            self.log.warning("missed_run_caught_up", policy=name, cron=table.cron, missed_at=at.isoformat(), endpoints=where)
            for endpoint in where:
                self.keepers[endpoint].post([name])

    def _next_at(self, policy: str) -> str | None:
        at = self.schedule.next_at(policy)
        return at.isoformat(timespec="seconds") if at is not None else None

    def _sweep_now(self) -> None:
        for keeper in self.keepers.values():
            names = [policy.name for policy in self.loaded.plan.rules.policies if keeper.concerns(policy)]
            keeper.post(names, now=True)

    def _identities(self) -> list[str]:
        """What is swept, by its addresses."""
        return [keeper.endpoint.reader.identity for keeper in self.keepers.values()]

    def _endpoint_ids(self) -> frozenset[str]:
        """What is swept, as far as it has said which it is."""
        ids = (keeper.endpoint.reader.endpoint_id for keeper in self.keepers.values())
        return frozenset(id_ for id_ in ids if id_ is not None)

    async def _identify(self) -> None:
        """Ask all endpoints which they are. Those that are down say so when they are listed."""
        await connect.identify([keeper.endpoint for keeper in self.keepers.values()])

    def _leases_ended(self) -> None:
        for keeper in self.keepers.values():
            keeper.leases_ended()

    def _beat(self) -> None:
        self.status.beat_at = _now()

    async def _watch(self) -> None:
        """Go round: tell the watchdog, and begin the schedule anew when the clock has been set."""
        before, passed = _now(), anyio.current_time()
        pause = min(LOOK_ROUND, (self.notifier.watchdog or LOOK_ROUND * 2) / 2)
        while True:
            await anyio.sleep(pause)
            now, loop = _now(), anyio.current_time()
            jump = (now - before) - timedelta(seconds=loop - passed)
            if abs(jump) > CLOCK_JUMP:
                self.log.warning("clock_set", by=str(jump))
                terms = self.loaded.terms()
                for name in self.status.policies:
                    due = self.schedule.next_at(name)
                    if due is not None and due <= now and (name not in terms.at_times or now - due <= terms.catch_up):
                        self._post(name)
                self.schedule.restart(self.loaded.config.settings.policy)
                self.status.beat_at = now
            before, passed = now, loop
            self.status.loop_at = now
            self.status.journal_error = self.journal.degraded if self.journal else None
            self._show_schedule()
            if health(self.status, now)[0]:
                self.notifier.alive()

    def _show_schedule(self) -> None:
        for name, policy in self.status.policies.items():
            policy.next_at = self.schedule.next_at(name)

    # -- configuration -------------------------------------------------------------------------------------------------

    async def _reload(self) -> None:
        """Read the configuration again. What is wrong with it is said, and the old one stays in force."""
        self.notifier.reloading()
        problem = await self._try_reload()
        if problem is not None:
            self.status.reload_error = problem
            self.metrics.reloaded(False, _now())  # noqa: FBT003 - the value itself
            self.log.error("reload_refused", problem=problem)
            self.notifier.status(f"the new configuration was refused, the old one stays: {problem}")
        self.notifier.ready()

    async def _try_reload(self) -> str | None:
        """Why the configuration cannot be put into force, if so."""
        before = self.loaded.config.settings
        try:
            loaded = await anyio.to_thread.run_sync(self.load)
            self._apply(loaded)
        except ConfigError as error:
            return str(error)
        settings = loaded.config.settings
        self.schedule.apply(settings.policy, settings.service.jitter, settings.service.catch_up)
        self._show_schedule()
        for_start = (before.service.listen, before.journal, before.leases, before.ryuk)
        if (settings.service.listen, settings.journal, settings.leases, settings.ryuk) != for_start:
            self.log.warning(
                "reload_incomplete", problem="listen, [journal], [leases] and [ryuk] take effect at the next start"
            )
        self.log.info("reloaded", config=str(loaded.config.file or "the defaults"))
        return None

    def _apply(self, loaded: Loaded) -> None:
        """Put a configuration into force: sweeps under way end as they began, the next ones read it."""
        old, new = self.loaded.endpoints(), loaded.endpoints()
        self.loaded = loaded
        self.status.config_file = str(loaded.config.file) if loaded.config.file else None
        self.status.loaded_at, self.status.reload_error = _now(), None
        self.metrics.reloaded(True, _now())  # noqa: FBT003
        for name in [name for name in self.keepers if name not in new]:
            self._leave(self.keepers.pop(name))
        for name in new:
            if name not in self.keepers or old.get(name) != new[name]:
                self.keepers[name] = self._keep(name)
        self._declare()

    def _terms(self) -> Terms:
        return self.loaded.terms()

    def _keep(self, name: str) -> Keeper:
        """A keeper for an endpoint; it takes over what was due with another one, when that has ended."""
        endpoint = self.loaded.connect(name, self.env)
        if (before := self.keepers.get(name)) is not None:
            self._leave(before)
        # One that an earlier reload took away may be sweeping still.
        before = next((keeper for keeper in reversed(self._leaving) if keeper.name == name), None)
        keeper = Keeper(endpoint, self._terms, _now, self.observer, self.ledger, self.teller, before, self.leases)
        self._group.start_soon(keeper.run, name=f"keep {name}")
        return keeper

    def _leave(self, keeper: Keeper) -> None:
        """It ends the sweep that it makes now, and makes no other."""
        keeper.retire()
        self._leaving = [leaving for leaving in self._leaving if not leaving.finished.is_set()] + [keeper]

    def _declare(self) -> None:
        """Tell status and metrics what there is."""
        endpoints = {name: keeper.provider for name, keeper in self.keepers.items()}
        policies = {}
        for table, policy in zip(self.loaded.config.settings.policy, self.loaded.plan.rules.policies, strict=True):
            names = [name for name, keeper in self.keepers.items() if keeper.concerns(policy)]
            policies[policy.name] = str(Timing.of(table)), names
        self.status.configure(endpoints, policies)
        follows = self.loaded.config.settings.service.docker_events
        watched = {name for name, keeper in self.keepers.items() if follows and isinstance(keeper.endpoint.reader, Watched)}
        timings = {table.name: Timing.of(table).interval(_now()) for table in self.loaded.config.settings.policy}
        intervals = {name: interval for name, interval in timings.items() if interval is not None}
        self.metrics.configure(endpoints, reach(endpoints, self.loaded.plan.rules.policies), watched, intervals)
        for name in endpoints.keys() - watched:
            self.status.endpoints[name].events = None
        for name, keeper in self.keepers.items():
            if not any(keeper.concerns(policy) for policy in self.loaded.plan.rules.policies):
                self.log.warning("endpoint_without_policy", endpoint=name)


def settle_in() -> None:
    """Set what belongs to the whole process, which is the service's own."""
    # A scrape renders for a tenth of a second in a thread, and a loop that waits for it at each turn stands still for long.
    sys.setswitchinterval(SWITCH)
    # The times of creation would be made for each series, and dropped: they cost a fifth of a scrape.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    make_room(DESCRIPTORS)


def run(arguments: Namespace, configure: Callable[[], "FilteringBoundLogger"]) -> int:
    """Run the service in the foreground, and return its exit code. Raises ConfigError when it cannot begin."""
    notifier = Notifier(os.environ)
    env = dict(os.environ)

    def load() -> Loaded:
        return Loaded.load(arguments, env)

    service = Service(load(), load, configure(), env, notifier)
    settle_in()
    return anyio.run(service.run)
