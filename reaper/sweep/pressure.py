"""Sweeps of an endpoint whose disk is too full, in rounds: delete a few, measure, wait for what comes back late, go on.

Each round is a sweep like any other one: it lists, decides, inspects again and confirms. What may go, the rules say; how
much of it goes, and in which order, is decided here.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio

from reaper.core.caps import stops_policies
from reaper.core.disk import BYTES, DiskUsage, Thresholds
from reaper.core.model import Decision, Kind, Report, State
from reaper.core.pressure import Candidate, Rank, Yield, batch, in_order, in_the_way, to_measure
from reaper.core.rules import Rules
from reaper.providers.abilities import DiskMeter, OnDisk
from reaper.sweep.ports import Choose, Endpoint, Stop
from reaper.sweep.runner import together, with_earlier

PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between two measurements while space may come back: some file systems give it back after half a minute only."""
SETTLED = 3
"""So many of the pauses at the least, where it is not known at all how much has to come back."""
IMAGES = frozenset({Rank.UNTAGGED, Rank.BUILT, Rank.PULLED})
MEASURED = 50  # stopped containers that stay, for what is said of them
NEARLY = 0.9  # of what has to come back: others write meanwhile
TURN = 120.0  # seconds for which an endpoint waits while another one frees the same disk; that may be sick
SHARED = 0.5  # of what should come back by what the ones before gave: how much of it is shared differs

Run = Callable[[Choose], Awaitable[Report]]


def meter_of(endpoint: Endpoint) -> DiskMeter | None:
    """What measures the endpoint's disk, if anything does."""
    return endpoint.reader.meter if isinstance(endpoint.reader, OnDisk) else None


def concerned(rules: Rules, endpoint: Endpoint) -> frozenset[str]:
    """The names of the policies that run under pressure there."""
    name, kinds = endpoint.reader.endpoint, endpoint.reader.traits.kinds
    fitting = (p for p in rules.policies if p.under_pressure and p.kinds & kinds)
    return frozenset(policy.name for policy in fitting if not policy.endpoints or name in policy.endpoints)


async def measured(endpoints: Iterable[Endpoint], rules: Rules, stop: Stop) -> Mapping[str, DiskUsage]:
    """How full the disks are, by the names of the endpoints that have policies which depend on it.

    One that does not answer is not among them when ``stop`` is requested.
    """
    found: dict[str, DiskUsage] = {}

    async def measure(name: str, meter: DiskMeter) -> None:
        found[name] = await meter.usage()

    async def give_up(scope: anyio.CancelScope) -> None:
        await stop.wait()
        scope.cancel()

    async with anyio.create_task_group() as watch:
        with anyio.CancelScope() as scope:
            watch.start_soon(give_up, scope, name="watch for a stop")
            async with anyio.create_task_group() as group:
                for endpoint in endpoints:
                    if (meter := meter_of(endpoint)) is not None and concerned(rules, endpoint):
                        name = endpoint.reader.endpoint
                        group.start_soon(measure, name, meter, name=f"measure the disk of {name}")
        watch.cancel_scope.cancel()
    return found


@dataclass(frozen=True, slots=True)
class Relief:
    """What a sweep under pressure has come to.

    Args:
        before: the disk when it began, and ``after`` when it ended.
        sorts: of what too much was in use.
        report: of all rounds together; None where there was none.
        relieved: whether no more than ``low`` is in use now.
        exhausted: whether nothing more may go.
        in_the_way: what would have to go and may not, where nothing more may go.
    """

    before: DiskUsage
    after: DiskUsage
    sorts: frozenset[str]
    report: Report | None
    relieved: bool
    exhausted: bool = False
    in_the_way: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether something could not be deleted."""
        return self.report is not None and any(result.failed for result in self.report.results)

    def problem(self, thresholds: Thresholds) -> str | None:
        """What people should know: that it is still too full."""
        if not self.exhausted:
            return None
        state = f"the disk ({self.after.where}) is under pressure: {self.after.words()} in use, low is {thresholds.low}"
        largest = f"; the largest of what stays: {'; '.join(self.in_the_way)}" if self.in_the_way else ""
        return f"{state}, and nothing more may be deleted{largest}"


class Turns:
    """One endpoint after the other frees a disk that they share: each would delete all that is to go there."""

    def __init__(self) -> None:
        self._disks: dict[int, anyio.Lock] = {}

    @asynccontextmanager
    async def take(self, file_system: int) -> AsyncIterator[bool]:
        """Wait for a turn, but not for ever. Yields whether that took any time."""
        disk = self._disks.setdefault(file_system, anyio.Lock()) if file_system else anyio.Lock()
        must_wait = disk.locked()
        with anyio.move_on_after(TURN) as scope:
            await disk.acquire()
        try:
            yield must_wait
        finally:
            if not scope.cancelled_caught:
                disk.release()


@dataclass
class Pressure:
    """One sweep under pressure of one endpoint.

    Args:
        meter: measures its disk.
        thresholds: when it is too full, and when it is not any more.
        run: sweeps it once, for what it is given chooses.
        stop: ends it early.
        turns: of the endpoints whose data are on one disk.
        fail_fast: whether the first failure ends it.

    Attributes:
        given: what has come back so far, by rank.
        tried: ids of what has been chosen: each once, since a build cache is there again after it was pruned.
        pruned: those of build caches: once more after images have gone.
        problem: why the last measurement has failed, if so: then it is not known how much more is to go.
    """

    meter: DiskMeter
    thresholds: Thresholds
    run: Run
    stop: Stop
    turns: Turns = field(default_factory=Turns)
    fail_fast: bool = False
    given: dict[Rank, Yield] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    pruned: set[str] = field(default_factory=set)
    problem: str | None = None

    async def relieve(self) -> Relief | None:
        """Delete until it is not too full or nothing more may go; None where there is no pressure."""
        before = await self.meter.usage()
        if not self.thresholds.exceeded(before):
            return None
        async with self.turns.take(before.file_system) as waited:
            if waited:
                before = await self.meter.usage()
            sorts = self.thresholds.exceeded(before)
            return await self._relieve(before, sorts) if sorts else None

    async def _relieve(self, before: DiskUsage, sorts: frozenset[str]) -> Relief:
        usage = before
        reports: list[Report] = []
        exhausted = False
        while (missing := self.thresholds.missing(usage, sorts)) and not (self.stop.why or self.problem):
            choice = _Choice(self.meter, missing, self.given, self.tried)
            reports.append(await self.run(choice))
            report = reports[-1].endpoints[0]
            if reports[-1].dry_run or (self.fail_fast and any(result.failed for result in report.results)):
                break  # of a dry run nothing has come back, and nothing will
            if report.failure is not None or stops_policies(report.cap) or not choice.taken:
                exhausted = report.failure is None and not stops_policies(report.cap) and self.stop.why is None
                break
            gone = [one for one in choice.taken if one.ids & report.removed]
            self.tried |= {id_ for one in choice.taken for id_ in one.ids}
            if any(one.rank in IMAGES for one in gone):  # deleting what BuildKit has built leaves its bytes to its cache
                self.tried -= self.pruned
            self.pruned |= {id_ for one in choice.taken for id_ in one.ids if one.rank is Rank.BUILD_CACHE}
            if gone:
                usage = await self._settled(usage, gone, sorts)
        relieved = not self.thresholds.missing(usage, sorts)
        whole = merged(reports)
        kept = await self._in_the_way(whole, reports[-1]) if exhausted and whole is not None else ()
        usage = replace(usage, problem=self.problem)
        return Relief(before, usage, sorts, whole, relieved, exhausted and not relieved, kept)

    async def _in_the_way(self, whole: Report, last: Report) -> tuple[str, ...]:
        """What would have to go and may not, the largest first."""
        failed = {r.decision.resource.id: r.detail for r in whole.results if not r.outcome.removed}
        decisions = last.endpoints[0].decisions
        stopped = [d.resource for d in decisions if not d.reap and d.resource.kind is Kind.CONTAINER]
        sizes = await self.meter.sizes([one for one in stopped if one.state is not State.RUNNING][:MEASURED])
        return tuple(in_the_way(decisions, failed, sizes))

    async def _settled(self, before: DiskUsage, gone: Sequence[Candidate], sorts: Collection[str]) -> DiskUsage:
        """How full it is when what has gone has come back, or that has been waited for long enough."""
        rank = gone[0].rank
        given = self.given.get(rank, Yield())
        own = sum(one.own for one in gone)
        wanted = NEARLY * own + SHARED * given.share * (sum(one.size for one in gone) - own)
        with anyio.move_on_after(self.meter.pause):
            await self.stop.wait()
        usage = last = await self._measure(before)
        for number, pause in enumerate(PAUSES):
            if self.meter.pause or self.stop.why is not None or not self.thresholds.missing(usage, sorts):
                break
            is_back = _freed(before, usage).get(BYTES, 0) >= wanted
            is_steady = not any(_freed(last, usage).values())
            if is_back and (number > 0 if wanted > 0 else number >= SETTLED and is_steady):
                break
            with anyio.move_on_after(pause):
                await self.stop.wait()
            last, usage = usage, await self._measure(usage)
        self.given[rank] = given.and_(gone, _freed(before, usage))
        return usage

    async def _measure(self, last: DiskUsage) -> DiskUsage:
        """How full it is now; as before where that cannot be measured."""
        usage = await self.meter.usage()
        self.problem = usage.problem
        return usage if usage.problem is None else last


@dataclass
class _Choice:
    """What goes in one round, as ``Choose`` has it. ``taken`` is that."""

    meter: DiskMeter
    missing: Mapping[str, int]
    given: Mapping[Rank, Yield]
    tried: Collection[str]
    taken: Sequence[Candidate] = ()

    async def __call__(self, decisions: Sequence[Decision]) -> Collection[str]:
        waiting = [d for d in decisions if d.reap]
        sizes = await self.meter.sizes(to_measure(waiting)) if waiting else {}
        candidates = [one for one in in_order(decisions, sizes) if not one.ids & set(self.tried)]
        self.taken = batch(candidates, self.missing, self.given)
        return frozenset(id_ for one in self.taken for id_ in one.ids)


def _freed(before: DiskUsage, now: DiskUsage) -> dict[str, int]:
    """How much came back between two measurements, by sort; nothing where others have taken more."""
    both = before.rooms.keys() & now.rooms.keys()
    return {sort: max(before.rooms[sort].used - now.rooms[sort].used, 0) for sort in both}


def merged(reports: Sequence[Report]) -> Report | None:
    """The rounds as one report; None of none."""
    whole: Report | None = None
    for report in reports:
        whole = report if whole is None else with_earlier(whole, together(whole, report))
    return whole


async def looked_again(
    relieved: Mapping[str, Relief],
    report: Report,
    endpoints: Iterable[Endpoint],
    rules: Rules,
    *,
    disk: Thresholds,
    stop: Stop,
) -> Mapping[str, Relief]:
    """What was done under pressure, after the sweep that followed: that may have freed what pressure could not."""
    stuck = {e.endpoint for e in report.endpoints if e.removed and e.endpoint in relieved and relieved[e.endpoint].exhausted}
    now = await measured([e for e in endpoints if e.reader.endpoint in stuck], rules, stop) if stuck else {}
    enough = {name for name, usage in now.items() if not usage.problem and not disk.missing(usage, relieved[name].sorts)}
    return {
        name: replace(relief, after=now[name], relieved=True, exhausted=False) if name in enough else relief
        for name, relief in relieved.items()
    }


def with_relief(
    report: Report, relieved: Mapping[str, Relief], disks: Mapping[str, DiskUsage], thresholds: Thresholds
) -> Report:
    """The report of a sweep with what was done under pressure before it, and how full the disks are.

    Args:
        report: of the sweep.
        relieved: by endpoint, what was done before.
        disks: how full each disk is, where that was measured.
        thresholds: that were in force.
    """
    endpoints = []
    for endpoint in report.endpoints:
        usage, relief = disks.get(endpoint.endpoint), relieved.get(endpoint.endpoint)
        if relief is not None and relief.report is not None:
            alone = replace(report, endpoints=(endpoint,))
            (whole,) = with_earlier(relief.report, together(relief.report, alone)).endpoints
            endpoint = replace(whole, cap=whole.cap or relief.report.endpoints[0].cap)  # noqa: PLW2901
        problems = [usage.problem if usage is not None else None, relief.problem(thresholds) if relief is not None else None]
        warnings = (*endpoint.warnings, *(problem for problem in problems if problem is not None))
        endpoints.append(replace(endpoint, disk=usage, warnings=warnings))
    return replace(report, endpoints=tuple(endpoints))
