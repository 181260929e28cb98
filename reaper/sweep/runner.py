"""How a one-shot command runs a sweep: what ends it early, and the exit code that it comes to."""

import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import anyio
import anyio.abc

from reaper import exits
from reaper.core.model import EndpointReport, Outcome, Report, Result
from reaper.sweep.result import BUG
from reaper.sweep.sweep import DRAIN, Stop


async def run_with_deadline(work: Callable[[Stop], Awaitable[int]], limit: timedelta, drain: timedelta = DRAIN) -> int:
    """The exit code that ``work`` returns. A signal, or the end of its time, requests a stop.

    Args:
        work: is given what it has to listen to. What it raises is raised as it is.
        limit: how long it may take.
        drain: how long it may go on with what has begun after a signal. The second signal ends the process at once.
    """
    stop = Stop()
    code, failed = exits.BUG, None
    async with anyio.create_task_group() as group:
        await group.start(_listen_for_signals, stop, drain, name="signals")
        group.start_soon(stop.keep_time, limit, name="timeout")
        try:
            code = await work(stop)
        except Exception as error:  # noqa: BLE001 - raised again below: the group would wrap it
            failed = error
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return code


async def _listen_for_signals(stop: Stop, drain: timedelta, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """The first signal ends the sweep in order; the second one ends the process at once, but a terminal hangs up twice."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
    hangup = () if ignored else (signal.SIGHUP,)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *hangup) as signals:
        task_status.started()
        async for number in signals:
            stop.request(number.name, drain)
            if number is not signal.SIGHUP:
                break
    # Leaving the receiver has restored the default handlers.


def exit_code(report: Report) -> int:
    """The exit code of a sweep by the table in the README: of several, the first that applies."""
    endpoints = report.endpoints
    if any(e.failure is not None and e.failure.label == BUG for e in endpoints):
        return exits.BUG
    if report.interrupted in exits.OF_SIGNAL:
        return exits.OF_SIGNAL[report.interrupted]
    if any(e.failure is not None for e in endpoints):
        return exits.UNLISTED
    if any(e.cap is not None for e in endpoints):
        return exits.CAP
    if any(result.failed or result.outcome is Outcome.ABANDONED for result in report.results):
        return exits.FAILED
    return 0


def together(before: Report, last: Report) -> Report:
    """Two looks as one: the results of both, of the same resource the later one, and all else as it was seen last."""
    earlier = {endpoint.endpoint: endpoint for endpoint in before.endpoints}
    endpoints = tuple(_merged(earlier[endpoint.endpoint], endpoint) for endpoint in last.endpoints)
    seconds = before.seconds + last.seconds
    return replace(last, started_at=before.started_at, seconds=seconds, endpoints=endpoints)


def _merged(before: EndpointReport, last: EndpointReport) -> EndpointReport:
    results: dict[str, Result] = {result.decision.resource.id: result for result in before.results}
    for result in last.results:
        known = results.get(result.decision.resource.id)
        if known is None or not (known.outcome.removed and result.outcome is Outcome.GONE):
            results[result.decision.resource.id] = result
    warnings = tuple(dict.fromkeys((*before.warnings, *last.warnings)))
    held, seconds = max(before.held, last.held), before.seconds + last.seconds
    return replace(last, held=held, results=tuple(results.values()), warnings=warnings, seconds=seconds)


def with_earlier(before: Report, report: Report) -> Report:
    """``report`` with the decisions about what is not there any more, which ``before`` has."""
    earlier = {endpoint.endpoint: endpoint.decisions for endpoint in before.endpoints}
    endpoints = []
    for endpoint in report.endpoints:
        there = {decision.resource.id for decision in endpoint.decisions}
        removed = endpoint.removed
        gone = [d for d in earlier[endpoint.endpoint] if d.resource.id in removed and d.resource.id not in there]
        endpoints.append(replace(endpoint, decisions=(*gone, *endpoint.decisions)))
    return replace(report, endpoints=tuple(endpoints))
