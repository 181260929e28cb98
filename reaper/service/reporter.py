"""Reports on sweeps of the service: to the log, the status, the metrics, the journal and systemd."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import anyio

from reaper.core.disk import DiskUsage, Thresholds
from reaper.core.model import Outcome, Report
from reaper.observers.log import LogObserver
from reaper.observers.metrics import Metrics
from reaper.service.status import Status
from reaper.service.systemd import Notifier
from reaper.sweep.pressure import Relief
from reaper.sweep.result import SweepResult
from reaper.sweep.sweep import Observer

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from reaper.service.endpoint_worker import EndpointWorker


@dataclass
class Reporter:
    """Is notified by the workers, and reports to the log, status, metrics and systemd.

    Args:
        clock: returns the aware time in UTC.
        observer: of the sweeps; is notified of bugs.
    """

    log: "FilteringBoundLogger"
    status: Status
    metrics: Metrics
    notifier: Notifier
    clock: Callable[[], datetime]
    observer: Observer = field(default_factory=Observer)

    def began(self, worker: "EndpointWorker", due: frozenset[str]) -> None:
        """A sweep begins."""
        if (endpoint := self.status.endpoints.get(worker.name)) is not None:
            endpoint.sweeping_since, endpoint.next_try_at = self.clock(), None
        config = self.status.config_file or "the defaults"
        self.log.info("sweep_started", endpoint=worker.name, due=sorted(due), config=config)

    def swept(self, worker: "EndpointWorker", due: frozenset[str], report: Report, result: SweepResult) -> None:
        """A sweep has ended."""
        now, name, found = self.clock(), worker.name, report.endpoints[0]
        LogObserver(self.log.bind(endpoint=name, result=result.value, due=sorted(due))).summary(report)
        self.metrics.ended(report, due, now)
        self.notifier.status(
            f"swept {name}: {result.value}, {found.count(Outcome.DELETED)} deleted, {found.held} held, at {now:%H:%M:%S} UTC"
        )
        endpoint = self.status.endpoints.get(name)
        if endpoint is None:
            return  # it has left the configuration meanwhile
        up = result in (SweepResult.SUCCESS, SweepResult.FAILURES, SweepResult.CAPPED, SweepResult.LEASES_UNKNOWN)
        endpoint.sweeping_since = None
        if up:
            endpoint.suspect_since = None
        endpoint.breaker_open = worker.endpoint.retrier.breaker.open
        self.metrics.breaker(name, endpoint.breaker_open)
        if result is not SweepResult.INTERRUPTED:
            endpoint.up = up
            self.metrics.endpoint_up(name, up)
        endpoint.error = found.failure.message if found.failure else None if up else result.value
        endpoint.failing_since = None if up else endpoint.failing_since or now
        rest = worker.rests_until - anyio.current_time()
        endpoint.next_try_at = now + timedelta(seconds=rest) if rest > 0 else None
        self.status.remember(now, found)
        for policy in due:
            if (shown := self.status.policies.get(policy)) is None or name not in shown.endpoints:
                continue
            shown.last_at[name] = now
            if result is SweepResult.SUCCESS:
                shown.last_success_at[name] = now

    def too_late(self, endpoint: str, policies: Sequence[str]) -> None:
        """These policies wait for their next time: the endpoint could not be swept near the last one."""
        for policy in policies:
            problem = "the endpoint could not be swept near its time, and its next one will come"
            self.log.warning("run_missed", endpoint=endpoint, policy=policy, problem=problem)

    def bug(self, endpoint: str, error: BaseException) -> None:
        """A sweep has died of an unexpected error."""
        self.observer.bug(endpoint, error)
        if (shown := self.status.endpoints.get(endpoint)) is not None:  # it may have left the configuration meanwhile
            self.metrics.swept(endpoint, shown.provider, SweepResult.BUG.value, 0.0)
            shown.sweeping_since = None
            shown.error = f"a bug: {type(error).__name__}: {error}"

    def left(self, endpoint: str) -> None:
        """The last sweep of an endpoint's worker has ended."""
        self.metrics.forget(endpoint)

    def stumbled(self, endpoint: str, error: BaseException) -> None:
        """Following the events has died of an unexpected error."""
        self.observer.bug(endpoint, error)

    def watching(self, endpoint: str, *, connected: bool, error: str = "") -> None:
        """The events of the endpoint are followed from now on, or are not any more."""
        if (shown := self.status.endpoints.get(endpoint)) is None:
            return
        if connected:
            self.log.info("event_stream_connected", endpoint=endpoint)
            shown.events_error = shown.suspect_since = None
        elif shown.events or shown.events_error != error:
            # Once for each reason, and not for each attempt.
            self.log.warning("events_lost", endpoint=endpoint, problem=error)
            if shown.events:  # a stream has ended; what could not be opened again was counted then
                self.metrics.events_lost(endpoint)
            shown.suspect_since = shown.suspect_since or self.clock()
            shown.events_error = error
        shown.events = connected
        self.metrics.events(endpoint, connected)

    def disk(
        self,
        endpoint: str,
        usage: DiskUsage,
        thresholds: Thresholds,
        *,
        pressed: bool,
        unrelieved: bool,
        relief: Relief | None,
    ) -> None:
        """The disk of an endpoint has been measured.

        Args:
            endpoint: its name.
            usage: what was found.
            thresholds: that are in force.
            pressed: whether more than ``high`` is in use.
            unrelieved: whether more than ``low`` is, since nothing more might be deleted.
            relief: what came of it, at the end of a sweep under pressure.
        """
        if (shown := self.status.endpoints.get(endpoint)) is None:
            return
        before, shown.disk = shown.disk, usage
        if relief is not None:
            LogObserver(self.log).relieved(endpoint, relief, thresholds)
            shown.in_the_way = relief.problem(thresholds)
        found = {"disk": usage.where, "in_use": usage.words()}
        if pressed and not shown.pressed:
            self.log.warning("disk_pressure_started", endpoint=endpoint, **found, high=str(thresholds.high))
        elif shown.pressed and not pressed:
            self.log.info("disk_pressure_ended", endpoint=endpoint, **found)
        if usage.problem is not None and (before is None or before.problem != usage.problem):
            self.log.warning("disk_not_measured", endpoint=endpoint, problem=usage.problem)
        shown.pressed = pressed
        if not unrelieved:
            shown.in_the_way = None
        self.metrics.disk(endpoint, usage, pressed=pressed, unrelieved=unrelieved)

    def journal_failed(self, problem: str) -> None:
        """Records are being lost. May be called in the journal's thread."""
        self.log.error("journal_degraded", problem=problem)
        self.metrics.journal_failed()

    def journal_recovered(self, problem: str) -> None:
        """Records are written again. May be called in the journal's thread."""
        self.log.warning("journal_recovered", problem=problem)
        self.metrics.journal_ok()
