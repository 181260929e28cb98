"""The daemon: schedules, workers, signals, reload and drain.

The schedule posts names of policies to a stream; a worker for each endpoint sweeps it for those that are due there. All
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
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.abc
from prometheus_client import disable_created_metrics

from reaper import __version__
from reaper.config.load import Config
from reaper.descriptors import make_room
from reaper.errors import ConfigError, ReaperError
from reaper.leases.sources import other_service, service_at
from reaper.observers.instruments import actions, reach
from reaper.observers.journal import NAME
from reaper.observers.log import LogObserver
from reaper.observers.metrics import Metrics
from reaper.paths import URL
from reaper.providers.abilities import Watched
from reaper.service.catchup import LastRuns, last_runs, missed
from reaper.service.health import health
from reaper.service.lease_server import Leasing
from reaper.service.loaded import Loaded, watch_hosts
from reaper.service.reporter import Reporter
from reaper.service.scheduler import Schedule, Timing
from reaper.service.status import Status
from reaper.service.systemd import Notifier
from reaper.service.web import Web
from reaper.service.workers import Workers
from reaper.session import Session, utc_now

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

POSTS = 1000  # of policies that are due, and wait to be sent to the workers
LOOK_ROUND = 5.0  # seconds between two rounds of the watch
CLOCK_JUMP = timedelta(seconds=30)
SWITCH = 0.001  # seconds after which a thread lets the loop go on, in place of 5 ms; each turn of the loop waits so long
DESCRIPTORS = 16_384  # an open connection may be a lease, and the usual 1,024 would be used up by a thousand of them
SAME_SIGNAL = 1.0  # seconds: timeout(1), among others, signals the process and its whole group, and means one


@dataclass
class Service:
    """The running service.

    Args:
        loaded: what it begins with.
        load: reads the configuration again; with the one in force as its argument, only the files of hosts that it names.
        log: for its own lines, and those of the sweeps.
        env: the environment.
    """

    loaded: Loaded
    load: Callable[..., Loaded]
    log: "FilteringBoundLogger"
    env: Mapping[str, str]
    notifier: Notifier
    metrics: Metrics = field(default_factory=partial(Metrics, process=True))

    def __post_init__(self) -> None:
        settings = self.loaded.settings
        self.status = Status(__version__, utc_now())
        self.reporter = Reporter(self.log, self.status, self.metrics, self.notifier, utc_now)
        # Its endpoints come and go with the configuration; and the leases of this host's service are its own.
        self.session = Session(
            replace(self.loaded.plan, endpoints=()),
            observers=[LogObserver(self.log), self.status, self.metrics],
            sockets=(),
            other=service_at(other_service(self.env) or self.env.get(URL), self.env, follow=True),
            records_dry_runs=True,
            failed=self.reporter.journal_failed,
            recovered=self.reporter.journal_recovered,
            thorough=True,
        )
        self.reporter.observer = self.session.observer
        self.workers = Workers(self.session, lambda: self.loaded, self.reporter)
        self.leasing: Leasing | None = None
        if settings.leases.enabled:
            self.leasing = Leasing(
                self.loaded.plan.state,
                settings.leases,
                self.env,
                self.reporter,
                self.workers.leases_ended,
                endpoints=lambda: [worker.endpoint for worker in self.workers],
                ryuk=settings.ryuk,
            )
        self.schedule = Schedule(self._post, self._beat, settings.service.jitter, settings.service.catch_up)
        self._send, self._receive = anyio.create_memory_object_stream[str](POSTS)
        self._drain_requested = anyio.Event()
        self._reloading = anyio.Lock()

    # -- its life ------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Run until a signal ends it; returns the exit code. Raises ConfigError when it cannot begin."""
        failed = None
        async with anyio.create_task_group() as group:
            self._group = group
            await group.start(self._listen_for_signals, name="signals")
            address = self.loaded.settings.service.address
            leasing = self.leasing
            api = (lambda: leasing.api) if leasing is not None else None
            web = Web(self.status, self.metrics.render, clock=utc_now, leases=api, log=self.log) if address else None
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
                        leasing.close_connections()
                    if web is not None:
                        await web.close()
                    if leasing is not None:
                        await leasing.close()
                    await self.session.close()
            group.cancel_scope.cancel()
        self._send.close()
        self._receive.close()
        if failed is not None:
            raise failed
        self.log.info("service_ended")
        return 0

    async def _serve(self) -> None:
        # Read before anything is written: it is what the service before this one has left.
        runs = await anyio.to_thread.run_sync(last_runs, self.loaded.plan.state / NAME)
        await anyio.to_thread.run_sync(self.session.leases.wait)
        self.session.open()
        self._apply(self.loaded)
        gc.collect()
        gc.freeze()  # all that is here stays: the collection after each sweep need not walk through it
        self.schedule.start(self.loaded.settings.policy)
        self._group.start_soon(self._dispatch, name="dispatch")
        self._group.start_soon(self._watch, name="watch")
        self._group.start_soon(watch_hosts, lambda: self.loaded, partial(self._reload, hosts_only=True))
        if self.leasing is not None:
            self._group.start_soon(self.leasing.run, name="leases")
            if self.leasing.ryuk is not None:
                self._group.start_soon(self.leasing.ryuk.run, name="ryuk")
        if self.loaded.settings.service.sweep_at_start:
            self._sweep_at_start(runs)
        self.log.info(
            "service_started",
            version=__version__,
            config=str(self.loaded.file or "the defaults"),
            endpoints=self.workers.names,
            listen=self.loaded.settings.service.listen,
            dry_run=self.loaded.settings.service.dry_run,
            ryuk=self.loaded.settings.ryuk.listen,
        )
        self.notifier.ready()
        self.notifier.status(f"keeps {', '.join(self.workers.names) or 'nothing'}")
        await self._drain_requested.wait()
        await self._drain()

    async def _drain(self) -> None:
        """No new sweeps; those under way get the drain time, and are cancelled then. They always report."""
        self.status.draining = True
        self.notifier.stopping()
        self.schedule.stop()
        if self.leasing is not None and self.leasing.ryuk is not None:
            self.leasing.ryuk.refuse_new()
        drain = self.loaded.settings.service.drain_timeout
        self.log.info("service_draining", seconds=drain.total_seconds())
        await self.workers.drain(drain)

    # -- signals -------------------------------------------------------------------------------------------------------

    async def _listen_for_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        first, wanted = 0.0, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        with anyio.open_signal_receiver(*wanted) as signals:
            task_status.started()
            async for number in signals:
                if number is signal.SIGHUP:
                    await self._reload()
                elif number is signal.SIGUSR1:
                    self.log.info("sweep_requested", signal=number.name)
                    self.workers.post(self.loaded.plan.rules.policies, now=True)
                elif number is signal.SIGUSR2:  # whose default action would end it in the midst of a deletion
                    self.log.warning("signal_ignored", signal=number.name)
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
            self.workers.post([policy for policy in self.loaded.plan.rules.policies if policy.name == name])
            self._show_schedule()

    def _sweep_at_start(self, runs: LastRuns) -> None:
        """Sweep for all policies but those with ``cron``: these only where their last time was missed just now."""
        settings, now = self.loaded.settings, utc_now()
        at_times, policies = self.loaded.at_times, self.loaded.plan.rules.policies
        self.workers.post([policy for policy in policies if policy.name not in at_times])
        for name in sorted(at_times):
            table = next(table for table in settings.policy if table.name == name)
            found = missed(table, self.status.policies[name].endpoints, runs, now, settings.service)
            if found is None:
                next_at = self.schedule.next_at(name)
                said = next_at and next_at.isoformat(timespec="seconds")
                self.log.info("policy_waits_for_its_time", policy=name, cron=table.cron, next_at=said)
                continue
            at, where = found
            self.log.warning("missed_run_caught_up", policy=name, cron=table.cron, missed_at=at.isoformat(), endpoints=where)
            for endpoint in where:
                self.workers[endpoint].post([name])

    def _beat(self) -> None:
        self.status.beat_at = utc_now()

    async def _watch(self) -> None:
        """Go round: notify the watchdog, and begin the schedule anew when the clock has been set."""
        before, passed = utc_now(), anyio.current_time()
        pause = min(LOOK_ROUND, (self.notifier.watchdog or LOOK_ROUND * 2) / 2)
        while True:
            await anyio.sleep(pause)
            now, loop = utc_now(), anyio.current_time()
            jump = (now - before) - timedelta(seconds=loop - passed)
            if abs(jump) > CLOCK_JUMP:
                self.log.warning("clock_jump_detected", by=str(jump))
                at_times, catch_up = self.loaded.at_times, self.loaded.settings.service.catch_up
                for name in self.status.policies:
                    due = self.schedule.next_at(name)
                    if due is not None and due <= now and (name not in at_times or now - due <= catch_up):
                        self._post(name)
                self.schedule.restart(self.loaded.settings.policy)
                self.status.beat_at = now
            before, passed = now, loop
            self.status.loop_at = now
            self.status.journal_error = journal.degraded if (journal := self.session.journal) is not None else None
            self._show_schedule()
            if health(self.status, now)[0]:
                self.notifier.alive()

    def _show_schedule(self) -> None:
        asleep = self.loaded.asleep
        for name, policy in self.status.policies.items():
            policy.next_at = None if name in asleep else self.schedule.next_at(name)

    # -- configuration -------------------------------------------------------------------------------------------------

    async def _reload(self, *, hosts_only: bool = False) -> None:
        """Read the configuration again. What is wrong with it is said, and the old one stays in force."""
        if self._drain_requested.is_set():
            return  # nothing would come of it but endpoints that begin to be kept
        async with self._reloading:
            self.notifier.reloading()
            problem = await self._try_reload(self.loaded.read if hosts_only else None)
            if problem is not None:
                self.status.reload_error = problem
                self.metrics.reloaded(False, utc_now())  # noqa: FBT003 - the value itself
                self.log.error("reload_refused", problem=problem)
                self.notifier.status(f"the new configuration was refused, the old one stays: {problem}")
            self.notifier.ready()

    async def _try_reload(self, hosts_of: Config | None) -> str | None:
        """Why the configuration cannot be put into force, if so."""
        before = self.loaded.settings
        try:
            loaded = await anyio.to_thread.run_sync(self.load if hosts_of is None else partial(self.load, hosts_of))
            loaded.check_successor_of(self.loaded)
            self._apply(loaded)
        except ConfigError as error:
            return str(error)
        settings = loaded.settings
        self.schedule.apply(settings.policy, settings.service.jitter, settings.service.catch_up)
        self._show_schedule()
        tables = ("journal", "evidence", "leases", "ryuk")
        if settings.service.listen != before.service.listen or any(
            getattr(settings, table) != getattr(before, table) for table in tables
        ):
            named = "listen, [journal], [evidence], [leases] and [ryuk]"
            self.log.warning("reload_incomplete", problem=f"{named} take effect at the next start")
        self.log.info("reloaded", config=str(loaded.file or "the defaults"))
        return None

    def _apply(self, loaded: Loaded) -> None:
        """Put a configuration into force: sweeps under way end as they began, the next ones read it.

        Raises ConfigError for an endpoint that cannot be had: then nothing of it is in force.
        """
        old, new, plan = self.loaded.endpoints(), loaded.endpoints(), loaded.plan
        changed = {name for name in new if name not in self.workers or old.get(name) != new[name]}
        made = self.session.connect(replace(plan, endpoints=tuple(s for s in plan.endpoints if s.name in changed)))
        self.loaded = loaded
        self.status.config_file = str(loaded.file) if loaded.file else None
        self.status.loaded_at, self.status.reload_error = utc_now(), None
        self.metrics.reloaded(True, utc_now())  # noqa: FBT003
        dry_run = loaded.settings.service.dry_run
        ends_deleting = dry_run and not self.status.dry_run
        self.status.dry_run = dry_run
        self.metrics.rehearse(dry_run)
        # One that still deletes, which shall not any more, goes no further than it has to.
        self.workers.exchange(made, new, loaded.settings.service.drain_timeout if ends_deleting else None, self._group)
        self._declare()

    def _declare(self) -> None:
        """Tell status and metrics what there is."""
        endpoints = {worker.name: worker.provider for worker in self.workers}
        loaded, policies = self.loaded, self.loaded.plan.rules.policies
        timings = {table.name: Timing.of(table) for table in loaded.settings.policy}
        concerned = {policy.name: self.workers.concerned(policy) for policy in policies}
        schedules = {name: (str(timings[name]), names) for name, names in concerned.items()}
        self.status.configure(endpoints, schedules, loaded.takes)
        readers = [worker.endpoint.reader for worker in self.workers]
        watched = {reader.endpoint for reader in readers if loaded.follows_events and isinstance(reader, Watched)}
        intervals = {name: found for name, timing in timings.items() if (found := timing.interval(utc_now())) is not None}
        self.status.prices = prices = loaded.plan.prices
        reached, others, quotas = reach(endpoints, policies), actions(policies), loaded.plan.quotas
        self.metrics.configure(endpoints, reached, watched, intervals, prices=prices, actions=others, quotas=quotas)
        for name in endpoints.keys() - watched:
            self.status.endpoints[name].events = None
        for name in sorted(endpoints.keys() - set().union(*concerned.values())):
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
    load = partial(Loaded.load, arguments, env)
    service = Service(load(), load, configure(), env, notifier)
    settle_in()
    return anyio.run(service.run)
