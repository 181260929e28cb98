"""The commands that look at endpoints: ``--once``, ``list``, ``check`` and ``explain``."""

import os
import sys
from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from reaper import exits
from reaper.config import load
from reaper.core.decide import explain, of_living_owners, young_and_running
from reaper.core.disk import DiskUsage
from reaper.core.inventory_warnings import without_timers
from reaper.core.lease_index import Leases
from reaper.core.model import Decision, Report
from reaper.core.owner_process import NO_PROOFS
from reaper.core.pending import pending
from reaper.core.pressure import awake
from reaper.core.rules import Rules
from reaper.descriptors import with_room
from reaper.errors import ConfigError, ReaperError
from reaper.observers import outcomes, tables
from reaper.observers.hints import as_listing, hints_of, left, unjudged, without_preset
from reaper.observers.journal import NAME
from reaper.observers.json_report import explanation_document, report_document
from reaper.observers.log import LogObserver, is_brief, is_quiet, log_format, log_of
from reaper.observers.overview import overview
from reaper.observers.progress import progress
from reaper.observers.view import View, filtered, with_presets
from reaper.session import Session
from reaper.sweep.plan import Plan, make_plan, narrowing
from reaper.sweep.pressure import Relief, looked_again, measured, with_relief
from reaper.sweep.runner import exit_code, run_with_deadline, together, with_earlier
from reaper.sweep.sweep import Endpoint, Stop

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from reaper.observers.metrics import Metrics

DESCRIPTORS = 4096  # connections to several engines at once, and files
MARGIN = timedelta(seconds=2)  # after the end of what is waited for: clocks differ a little


def run(arguments: Namespace) -> int:
    """Run the command that ``arguments`` name. Raises ReaperError."""
    loaded = load.load(arguments.config)
    plan = make_plan(arguments, loaded.settings, os.environ)
    log = log_of(arguments)
    try:
        command = Command(arguments, plan, log, loaded.file)
        with with_room(DESCRIPTORS):
            return anyio.run(command.run)
    except ReaperError:
        raise
    except Exception as error:
        if log_format(arguments) != "json":
            raise
        log.exception("internal_error", error=f"{type(error).__name__}: {error}")
        return exits.BUG


def _logs_events(arguments: Namespace) -> bool:
    """Whether events are logged: not beside a report that goes to stderr as well, unless asked for."""
    return "words" not in arguments or arguments.log_level is not None


@dataclass
class Command:
    """One of the commands that look at endpoints."""

    arguments: Namespace
    plan: Plan
    log: "FilteringBoundLogger"
    file: Path | None = None

    def __post_init__(self) -> None:
        self.rules = self.plan.rules
        self._disks: dict[str, DiskUsage] = {}
        self._view = View.of(self.arguments, narrowing(self.arguments))
        self._until = datetime.now(UTC) + self.plan.timeout
        watches = _logs_events(self.arguments)
        self._watcher = LogObserver(self.log, brief=is_brief(self.arguments)) if watches else None
        self._metrics = self._make_metrics()
        self.session = Session(
            self.plan,
            observers=[each for each in (self._watcher, self._metrics) if each is not None],
            log=self.log,
        )

    async def run(self) -> int:
        """Look, act where it is asked for, and print; returns the exit code. Raises ReaperError."""

        async def work(stop: Stop) -> int:
            async with self.session:
                return await self._run(stop)

        return await run_with_deadline(work, self.plan.timeout)

    async def _run(self, stop: Stop) -> int:
        self._name_the_file()
        session = self.session
        with progress(session.observers, act=self.plan.options.act, endpoints=len(self.plan.endpoints)):
            relieved = await self._look_at_disks(stop)
            options = self.plan.options
            if options.fail_fast and any(relief.failed for relief in relieved.values()):
                options = replace(options, begins=False)
            report = await session.sweep(self.rules, options, stop=stop)
            first, rules = report, with_these_alone(self.rules, report)
            while self.plan.wait and await self._may_go_on(report, stop):
                again = await session.sweep(rules, stop=stop)
                report = with_unlisted(first, with_earlier(report, together(report, again)))
            relieved = await looked_again(relieved, report, session.endpoints, self.rules, disk=self.plan.disk, stop=stop)
            self._disks |= {name: relief.after for name, relief in relieved.items()}
            endpoints = tuple(with_presets(endpoint, self.rules.scope) for endpoint in report.endpoints)
            report = replace(report, endpoints=endpoints)
            report = replace(with_relief(report, relieved, self._disks, self.plan.disk), interrupted=stop.why)
        if self._metrics is not None:
            self._write(self._metrics, session.endpoints, report, relieved)
        name = self.arguments.command or "once"
        if name == "explain":
            return self._explain(report)
        if kinds := self.plan.options.kinds:
            report = filtered(report, lambda decision: decision.resource.kind in kinds)
        report = self._view.only(report)
        living = self._of_the_living(report)
        hints = hints_of(report, self.plan, self.arguments.argv, presets=not self._introduces(), living=living)
        if self._view.unowned:
            hints += without_preset(report)
        if self.plan.options.list_unjudged:
            hints += unjudged(report, self.plan.rules.scope, self._reaped())
        report = replace(report, hints=tuple(hints))
        if name == "check":
            report = _with_timers(report)
        code = exit_code(report)
        if name == "check" and code == 0 and left(report, everything=self.plan.everything):
            code = exits.LEFT
        if code == 0 and any(relief.exhausted for relief in relieved.values()):
            code = exits.FAILED
        self._print(report, name, code)
        if name == "once" and self._watcher is not None:
            self._watcher.summary(report)
        return code

    async def _look_at_disks(self, stop: Stop) -> Mapping[str, Relief]:
        """Sweep what is under pressure first. What only looks, looks with the policies that hold then."""
        endpoints, rules = self.session.endpoints, self.rules
        self._disks = dict(await measured(endpoints, rules, stop))
        pressed = [e for e in endpoints if self.plan.disk.exceeded(self._disks.get(e.reader.endpoint, DiskUsage()))]
        if not self.plan.options.act:
            self.rules = awake(rules, {endpoint.reader.endpoint for endpoint in pressed})
            return {}
        found: dict[str, Relief] = {}

        async def relieve(endpoint: Endpoint) -> None:
            if (relief := await self.session.relieve(endpoint, rules, stop=stop)) is not None:
                found[endpoint.reader.endpoint] = relief
                self._disks[endpoint.reader.endpoint] = relief.after
                if self._watcher is not None:
                    self._watcher.relieved(endpoint.reader.endpoint, relief, self.plan.disk)

        async with anyio.create_task_group() as group:
            for endpoint in pressed:
                group.start_soon(relieve, endpoint, name=f"relieve {endpoint.reader.endpoint}")
        return found

    async def _may_go_on(self, report: Report, stop: Stop) -> bool:
        """Wait until something may go that time alone keeps; False when there is none in time, or the sweep is to end."""
        if self.plan.options.fail_fast and any(result.failed for result in report.results):
            return False
        now = datetime.now(UTC)
        left_over = self._until - now
        waits = [
            each.due_at - now - endpoint.clock_skew
            for endpoint in report.endpoints
            for each in pending(endpoint.decisions, self.plan.rules.created_grace)
            if each.due_at > report.started_at + endpoint.clock_skew  # else something besides the time keeps it
        ]
        in_time = [wait for wait in waits if wait + MARGIN < left_over]
        if stop.why is not None or not in_time:
            return False
        with anyio.move_on_after(max(*in_time, timedelta(0)).total_seconds() + MARGIN.total_seconds()):
            await stop.wait()
        return stop.why is None

    def _name_the_file(self) -> None:
        """Say which file is in force before a sweep does anything: it may not be the one that is meant."""
        if self.arguments.command not in (None, "run"):
            return
        said = str(self.file.resolve()) if self.file is not None else "the defaults"
        names = [endpoint.name for endpoint in self.plan.endpoints]
        if _logs_events(self.arguments):
            self.log.info("sweep_started", config=said, endpoints=names, dry_run=not self.plan.options.act)
        if self.file is not None and is_quiet(self.arguments):
            sys.stderr.write(f"reaper: the configuration is {said}\n")

    def _make_metrics(self) -> "Metrics | None":
        if self.plan.metrics_textfile is None:
            return None
        from reaper.observers.instruments import actions, reach  # noqa: PLC0415
        from reaper.observers.metrics import Metrics  # noqa: PLC0415 - prometheus_client brings an HTTP server along

        endpoints = {endpoint.name: endpoint.provider for endpoint in self.plan.endpoints}
        metrics = Metrics(dry_run=not self.plan.options.act)
        policies, prices, quotas = self.plan.rules.policies, self.plan.prices, self.plan.quotas
        reached, others = reach(endpoints, policies), actions(policies)
        metrics.configure(endpoints, reached, prices=prices, actions=others, quotas=quotas)
        metrics.recall(self.plan.metrics_textfile)
        return metrics

    def _write(
        self, metrics: "Metrics", endpoints: Sequence[Endpoint], report: Report, relieved: Mapping[str, Relief]
    ) -> None:
        """Write the metrics. That this fails is no reason to call a sweep failed that was not."""
        assert self.plan.metrics_textfile is not None
        for endpoint in endpoints:
            metrics.breaker(endpoint.reader.endpoint, endpoint.retrier.breaker.open)
        for name, usage in self._disks.items():
            unrelieved = name in relieved and relieved[name].exhausted
            metrics.disk(name, usage, pressed=bool(self.plan.disk.exceeded(usage)), unrelieved=unrelieved)
        metrics.ended(report, self.plan.options.due, datetime.now(UTC))
        try:
            metrics.write_textfile(self.plan.metrics_textfile)
        except ConfigError as error:
            fields = {"file": str(self.plan.metrics_textfile), "error": error.problem}
            self.log.error("metrics_not_written", **fields)  # noqa: TRY400 - a full disk is no bug: no traceback

    def _of_the_living(self, report: Report) -> set[str]:
        """The ids of what is only too young, and belongs to a process that is known to be alive."""
        found: set[str] = set()
        for endpoint in report.endpoints:
            owners = next(e.owners for e in self.session.endpoints if e.reader.endpoint == endpoint.endpoint)
            if owners is None or not young_and_running(endpoint.decisions):
                continue
            resources = [decision.resource for decision in endpoint.decisions]
            proofs = owners.again(resources, self.rules.owner_rules, endpoint.clock_skew)
            now = report.started_at + endpoint.clock_skew
            found |= {d.resource.id for d in of_living_owners(endpoint.decisions, self.rules, now, proofs)}
        return found

    def _reaped(self) -> Mapping[str, Collection[str]]:
        """By endpoint the names of the projects that were reaped, as far as the journal has them."""
        from reaper.observers.journal_db import reaped_projects  # noqa: PLC0415 - a database, for one command alone

        return reaped_projects(self.plan.state / NAME)

    def _print(self, report: Report, name: str, code: int) -> None:
        if self.arguments.json:
            print(report_document(report, name, code, self.plan.quotas))
            return
        if name == "list":
            tables.listing(report, self._view)
        elif name == "check":
            tables.left_over(report, left(report, everything=self.plan.everything), self._view)
            tables.quotas(self.plan.quotas, report)
        else:
            recorded = self.plan.options.act and self.plan.journal.enabled
            listing = as_listing(self.arguments.argv)
            outcomes.report(report, recorded=recorded, listing=listing, most=self._introduce(report))

    def _introduces(self) -> bool:
        """Whether a person sees a sweep without a configuration, and so perhaps the first one."""
        once = self.arguments.command is None and "words" not in self.arguments and not self.arguments.json
        return once and self.file is None and sys.stdout.isatty()

    def _introduce(self, report: Report) -> int:
        """Say what there is where no configuration says what is meant. Returns how many rows may follow."""
        if not self._introduces():
            return tables.SHOWN
        lines = overview(report, self.plan.endpoints, self.plan.rules.scope.presets)
        for each in lines:
            tables.line(each)
        return tables.SHOWN if self.plan.options.act else tables.rows_left(lines, report)

    def _explain(self, report: Report) -> int:
        code = exit_code(report)
        wanted = self.arguments.resource
        found = find(self._view.only(report), wanted)
        if not found:
            if code:
                sys.stderr.write(
                    "".join(f"reaper: {e.endpoint}: {e.failure.message}\n" for e in report.endpoints if e.failure)
                )
                return code
            where = ", ".join(endpoint.endpoint for endpoint in report.endpoints)
            raise ConfigError(f"nothing on {where} is called {wanted!r}", "reaper list shows what there is")
        if len(found) > 1:
            names = ", ".join(f"{d.resource.endpoint}/{d.resource.name} ({d.resource.short_id})" for d in found[:5])
            raise ConfigError(f"{wanted!r} is not unique: {names}", "name one by its id or as ENDPOINT/NAME")
        decision = found[0]
        endpoint = next(e for e in report.endpoints if e.endpoint == decision.resource.endpoint)
        resources = [d.resource for d in endpoint.decisions]
        leases = Leases(self.session.leases()).on(endpoint.site)
        rules, now = self.rules, report.started_at + endpoint.clock_skew
        owners = next(e.owners for e in self.session.endpoints if e.reader.endpoint == endpoint.endpoint)
        proofs = owners.again(resources, rules.owner_rules, endpoint.clock_skew) if owners is not None else NO_PROOFS
        findings = explain(decision.resource, resources, rules, leases, now, proofs=proofs)
        if self.arguments.json:
            print(explanation_document(decision, findings))
        else:
            tables.explanation(decision, findings)
        return code


def with_these_alone(rules: Rules, first: Report) -> Rules:
    """The rules whose policies take nothing but what that sweep found: what was made during a wait may be another run's.

    Who says ``--all`` states that no run is alive, and that is said of the moment at which it is said.
    """
    there = {endpoint.endpoint: frozenset(d.resource.id for d in endpoint.decisions) for endpoint in first.endpoints}
    return replace(rules, policies=tuple(replace(policy, there=there) for policy in rules.policies))


def with_unlisted(first: Report, report: Report) -> Report:
    """The report in which what the first sweep could not list has failed: nothing there was taken later."""
    failed = {endpoint.endpoint: endpoint.failure for endpoint in first.endpoints if not endpoint.decisions}
    endpoints = (replace(one, failure=one.failure or failed.get(one.endpoint)) for one in report.endpoints)
    return replace(report, endpoints=tuple(endpoints))


def _with_timers(report: Report) -> Report:
    """The report with warnings of what only this program would end."""
    endpoints = (replace(e, warnings=(*e.warnings, *without_timers(e.decisions))) for e in report.endpoints)
    return replace(report, endpoints=tuple(endpoints))


def find(report: Report, wanted: str) -> list[Decision]:
    """The decisions about the resource that a person means: an exact name, ENDPOINT/NAME, else the beginning of an id."""
    decisions = [d for endpoint in report.endpoints for d in endpoint.decisions]
    exact = [d for d in decisions if wanted in (d.resource.name, d.resource.id, f"{d.resource.endpoint}/{d.resource.name}")]
    return exact or [d for d in decisions if d.resource.id.startswith(wanted) or d.resource.short_id.startswith(wanted)]
