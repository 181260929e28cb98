"""Takes what an ended lease has left: after a run that has ended in order, and, in its guard, after one that was killed."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from reaper.core.lease import Ending, Lease
from reaper.core.model import Decision, Outcome, Reason, Report, Resource
from reaper.core.scope import LEASE_LABEL, Scope
from reaper.errors import LeasesUnknownError, SameEndpointError
from reaper.leases.record import LeaseRecord, LeaseState
from reaper.leases.sources import KILLED, NAME, KnownLeases
from reaper.leases.store import LeaseFile
from reaper.observers.log import LogObserver, configure
from reaper.run import elsewhere
from reaper.run.orders import Orders, OrdersError
from reaper.session import Session
from reaper.sweep.runner import run_with_deadline, together
from reaper.sweep.sweep import Options, Stop

PAUSE = 1.0  # seconds between two looks
PATIENCE = timedelta(seconds=60)  # for what is being created or removed just then
LATEST = timedelta(seconds=10)  # after a death: what an engine was asked to make before may come so late
TRIES = timedelta(minutes=10)  # for which a guard goes on when something fails


_NOT_ON_PURPOSE = frozenset({Reason.CHANGING, Reason.UNKNOWN_STATE, Reason.UNREADABLE})


def clean_up_later(text: bytes, *, holder_died: bool, ended_at: float) -> int:
    """End the lease unless its holder has ended it, and take what it left. Returns 0 when nothing is left.

    Args:
        text: the guard's orders, as ``Orders.dump`` wrote them.
        holder_died: else it has ended in order, and something could not be cleaned up.
        ended_at: when that ended for which the lease was taken, in seconds since 1970: its command, or its holder.
    """
    log = configure("json", "info")
    try:
        orders = Orders.load(text)
    except OrdersError as error:
        hint = "the next sweep takes what the lease covers; run reaper --once"
        log.error("guard_orders_unreadable", problem=str(error), hint=hint)  # noqa: TRY400 - foreseen: no traceback
        return 1
    record = orders.record
    log.info("holder_died" if holder_died else "clean_up_continued", lease=record.id, holder=str(record.holder))
    try:
        end(orders.plan.state, record, LeaseState.EXPIRED, KILLED, datetime.fromtimestamp(ended_at, UTC))
    except LeasesUnknownError as error:
        # Nothing is deleted by a guess: the next sweep that can read the leases takes what this one covered.
        log.error("leases_unknown", problem=str(error))  # noqa: TRY400 - foreseen: no traceback
        return 1
    observer, began, over_for = LogObserver(log), time.monotonic(), max(time.time() - ended_at, 0.0)

    async def work(stop: Stop) -> int:
        patience = Patience(at_least=LATEST, at_most=TRIES, failures=True)
        session = Session(orders.plan, observers=[observer], log=log)
        report = await clean_up(session, record.id, stop, patience=patience)
        observer.summary(report)
        return int(bool(still_there(report, record.id)) or any(e.failure for e in report.endpoints))

    try:
        return anyio.run(lambda: run_with_deadline(work, 2 * TRIES))
    finally:
        elsewhere.release(record.id, over_for + time.monotonic() - began)
        if orders.scratch is not None:
            shutil.rmtree(orders.scratch, ignore_errors=True)


def end(state: Path, record: LeaseRecord, how: LeaseState, cause: str, at: datetime | None = None) -> None:
    """Write that a lease has ended, unless that is written already. Raises LeasesUnknownError.

    Args:
        state: the state directory.
        record: the lease.
        how: how it ended.
        cause: why, for people.
        at: when its holder ended; now when None.
    """
    file, at = LeaseFile(state / NAME), at or datetime.now(UTC)
    try:
        written = file.find(record.id) or record
        if not written.state.ended:
            file.put(replace(written, state=how, seen_at=at, ended_at=at, cause=cause))
    finally:
        file.close()


def of_lease(id_: str, leases: KnownLeases, ending: Ending | None = None) -> Callable[[], Sequence[Lease]]:
    """The living leases and this one: what others have left is not this sweep's business.

    Args:
        id_: this one.
        leases: reads all of them. How this one stands the state directory knows best: a service elsewhere takes a while to
            miss its holder.
        ending: how this one ended, which only its holder has yet. One that has been ended before, by an operator or its age,
            covers no more than it did then.
    """

    def read() -> Sequence[Lease]:
        found = leases()
        others = [lease for lease in found.open if lease.id != id_]
        mine = leases.own().get(id_) or found.get(id_)
        if mine is None:
            return others
        return [mine if ending is None or mine.ending is not None else replace(mine, ending=ending), *others]

    return read


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a clean-up goes on.

    Args:
        at_least: the endpoints are swept again and again for so long.
        at_most: for so long while something is in transition, or something new appears in each sweep.
        failures: whether what failed is tried again until then.
    """

    at_least: timedelta = timedelta(0)
    at_most: timedelta = PATIENCE
    failures: bool = False


async def clean_up(
    session: Session, id_: str, stop: Stop, *, ending: Ending | None = None, patience: Patience | None = None
) -> Report:
    """Take what the lease covers and nothing else; the report joins those of all sweeps.

    Args:
        session: with the endpoints; opened and closed here.
        id_: the lease.
        stop: ends it early.
        ending: see ``of_lease``.
        patience: how long it goes on.
    """
    patience = patience or Patience()
    rules = replace(session.plan.rules, scope=Scope(presets=()), policies=())
    options = Options(max_lease_deletions=session.plan.options.max_lease_deletions)
    total: Report | None = None
    async with session:
        # What is owned by other signs is others' business, now that all that counts is the lease.
        endpoints = [replace(endpoint, memory=None) for endpoint in session.endpoints]
        leases = of_lease(id_, session.leases, ending)
        began = anyio.current_time()
        while True:
            report = _each_engine_once(await session.sweep(rules, options, endpoints=endpoints, leases=leases, stop=stop))
            swept = {endpoint.endpoint for endpoint in report.endpoints}
            endpoints = [endpoint for endpoint in endpoints if endpoint.reader.endpoint in swept]
            total = report if total is None else together(total, report)
            passed = timedelta(seconds=anyio.current_time() - began)
            waits = passed < patience.at_least or (passed < patience.at_most and _again(report, id_, patience))
            if stop.why is not None or not waits:
                return total
            await anyio.sleep(PAUSE)


def _each_engine_once(report: Report) -> Report:
    """The report without what is another address of an engine that was swept: the configuration's, and the command's own."""
    endpoints = (e for e in report.endpoints if e.failure is None or e.failure.label != SameEndpointError.label)
    return replace(report, endpoints=tuple(endpoints))


def _again(report: Report, id_: str, patience: Patience) -> bool:
    """Whether another look is worth it: where a cap was hit nothing will change."""
    report = replace(report, endpoints=tuple(endpoint for endpoint in report.endpoints if endpoint.cap is None))
    failed = any(e.failure is not None for e in report.endpoints) or report.count(Outcome.FAILED)
    if failed and not patience.failures:
        return False
    return bool(failed or report.results or any(d.reason is Reason.CHANGING for d in still_there(report, id_)))


def still_there(report: Report, id_: str) -> list[Decision]:
    """What the lease covers and is there yet, or may be; and what has its label, but maybe from an image that is unreadable.

    Docker's containerd store forgets an image whose tag is built anew: what was made of it before is not taken.
    """
    remaining = (decision for endpoint in report.endpoints for decision in endpoint.remaining)
    return [d for d in remaining if d.lease == id_ or _may_have_its_label(d.resource, id_)]


def _may_have_its_label(resource: Resource, id_: str) -> bool:
    return resource.inherited is None and (resource.labels or {}).get(LEASE_LABEL) == id_


def unwanted(report: Report, id_: str) -> list[Decision]:
    """What is still there, and is not kept on purpose."""
    return [d for d in still_there(report, id_) if d.reap or d.reason in _NOT_ON_PURPOSE]
