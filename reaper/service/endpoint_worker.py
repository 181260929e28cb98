"""Keeps one endpoint swept: one sweep at a time, whenever something is due there, for as long as the service lives.

An endpoint that fails is left alone for a while, which no other endpoint notices.
"""

import gc
import heapq
import math
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import anyio
import anyio.lowlevel

from reaper.core.conditions import Policy
from reaper.core.durations import shifted
from reaper.core.model import Kind, Outcome, Report, Resource
from reaper.core.owners import Owners
from reaper.errors import ReaperError
from reaper.providers.abilities import FollowsUse, Watched
from reaper.providers.base import answers
from reaper.service.disk_watch import DiskWatch
from reaper.service.loaded import Loaded
from reaper.service.reporter import Reporter
from reaper.session import Session
from reaper.sweep.pressure import Relief, concerned, meter_of, with_relief
from reaper.sweep.result import SweepResult, sweep_result
from reaper.sweep.sweep import Endpoint, Stop

FIRST_REST, LONGEST_REST = 60.0, 900.0  # seconds for which an endpoint that failed is left alone
FIRST_RECONNECTION, LONGEST_RECONNECTION = 1.0, 60.0
SOONEST_RECONNECTION = 0.1  # seconds, to what forgets within seconds what it would have said
FIRST_LOOK, LONGEST_LOOK = 60.0, 900.0  # seconds between two looks at an endpoint whose events cannot be followed
LIFE_EVERY, ANSWER_WITHIN = 60.0, 10.0  # seconds between two looks whether it answers at all, and for its answer
MARGIN = 0.1  # seconds after a death's time-out: the event and the inspection differ a little in the time of death
MANY_HINTS = 10_000
SHORTEST_PAUSE = 0.5  # seconds before a sweep that a death advances; ten times what the last one took where that is more
INTERRUPTED = "interrupted"


@dataclass
class EndpointWorker:
    """Sweeps one endpoint.

    Args:
        endpoint: its client, for life.
        session: what sweeps it.
        loaded: returns the configuration in force.
        reporter: is notified of each sweep.
        before: what kept this endpoint until now: its end is waited for, and what is still due there taken over.

    Attributes:
        due: the policies that wait to be swept for here.
        failures: how many sweeps in a row could not list it.
    """

    endpoint: Endpoint
    session: Session
    loaded: Callable[[], Loaded]
    reporter: Reporter
    before: "EndpointWorker | None" = None
    due: set[str] = field(default_factory=set)
    failures: int = 0
    stop: Stop | None = None

    def __post_init__(self) -> None:
        self.name = self.endpoint.reader.endpoint
        self.provider = self.endpoint.reader.provider
        self.rests_until = self._failed_at = self._swept_at = -math.inf
        self.finished = anyio.Event()
        self._retired = False
        self._leases_ended = False
        self._is_suspect = False
        self._no_look_before, self._look_again = -math.inf, FIRST_LOOK
        self._due_since: dict[str, float] = {}  # of policies with a cron expression, on this loop's clock
        self._news = anyio.Event()
        self._hints: list[tuple[float, str]] = []  # a heap: when to look, on this loop's clock, and for which policy
        self._hinted: set[tuple[float, str]] = set()
        self._no_hint_before = -math.inf
        self._last_death: datetime | None = None
        meter = meter_of(self.endpoint)
        self.disk = DiskWatch(self.endpoint, meter, self.loaded, self.reporter, self._notify) if meter is not None else None

    # -- what others say to it -----------------------------------------------------------------------------------------

    def concerns(self, policy: Policy) -> bool:
        """Whether the policy is for this endpoint."""
        kinds = self.endpoint.reader.traits.kinds
        return bool(policy.kinds & kinds) and (not policy.endpoints or self.name in policy.endpoints)

    def post(self, policies: Iterable[str], *, now: bool = False) -> None:
        """These are due here; ``now`` ends the rests that failures have brought."""
        policies = set(policies)
        self.due |= policies
        self._due_since |= dict.fromkeys(policies & self.loaded().at_times, anyio.current_time())
        if now:
            self.rests_until = -math.inf
            self.endpoint.rests.end()
        self._notify()

    def leases_ended(self) -> None:
        """A lease has ended: what it covered is garbage now, whatever is due."""
        self._leases_ended = True
        self._notify()

    def retire(self, drain: timedelta | None = None) -> None:
        """Begin no other sweep. One that is under way goes on: to its end, or for as long as ``drain``."""
        self._retired = True
        if drain is not None and self.stop is not None:
            self.stop.request(INTERRUPTED, drain)
        self._notify()

    def _notify(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    # -- sweeping ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Sweep whenever something is due, until retired."""
        try:
            if self.before is not None:
                await self.before.finished.wait()
                self._take_over(self.before)
                self.before = None
            async with anyio.create_task_group() as group:
                if isinstance(self.endpoint.reader, Watched) and self.loaded().follows_events:
                    group.start_soon(self._follow, self.endpoint.reader, name=f"events of {self.name}")
                if isinstance(self.endpoint.reader, FollowsUse) and self.loaded().follows_events:
                    group.start_soon(self._follow_uses, self.endpoint.reader, name=f"uses of {self.name}")
                if self.disk is not None:
                    group.start_soon(self.disk.run, name=f"disk of {self.name}")
                group.start_soon(self._watch_life, name=f"life of {self.name}")
                while not self._retired:
                    if (wait := self._must_wait()) > 0:
                        with anyio.move_on_after(wait):
                            await self._news.wait()
                        continue
                    await self._sweep()
                    # Of itself it would begin when there are tens of thousands of objects (see cli), and what outlives one
                    # look would stay for a day. It is quick: what the service consists of is frozen.
                    gc.collect()
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self.endpoint.reader.close()
            self.session.engines.release(self.name)
            self.reporter.left(self.name)
            self.finished.set()

    def _take_over(self, before: "EndpointWorker") -> None:
        """What was due with another worker of this endpoint, and what it knew of deaths."""
        self.due |= before.due
        self._due_since = before._due_since | self._due_since  # noqa: SLF001
        self._leases_ended = self._leases_ended or before._leases_ended  # noqa: SLF001
        self._hints, self._hinted, self._last_death = before._hints, before._hinted, before._last_death  # noqa: SLF001

    def _must_wait(self) -> float:
        """Seconds until there is something to do, as far as is known."""
        now = anyio.current_time()
        while self._hints and max(self._hints[0][0], self._no_hint_before) <= now:
            hint = heapq.heappop(self._hints)
            self._hinted.discard(hint)
            self.due.add(hint[1])
        if now < self.rests_until:
            return self.rests_until - now
        if self.due or self._leases_ended or self._is_suspect or (self.disk is not None and self.disk.wants_sweep):
            return 0.0
        return max(self._hints[0][0], self._no_hint_before) - now if self._hints else math.inf

    async def _sweep(self) -> None:
        await anyio.lowlevel.checkpoint()  # what is posted in the same moment shares the listing
        loaded = self.loaded()
        known = {policy.name for policy in loaded.plan.rules.policies if self.concerns(policy)}
        due, self.due = frozenset(self.due & known), set()
        due -= self._too_late(loaded, due)
        looks, due = due & loaded.asleep, due - loaded.asleep
        is_pressed = self.disk is not None and self.disk.wants_sweep
        for_leases, self._leases_ended = self._leases_ended, False
        is_suspect, self._is_suspect = self._is_suspect, False
        if not due and not looks and not for_leases and not is_suspect and not is_pressed:
            return
        self.reporter.began(self, due | (concerned(loaded.plan.rules, self.endpoint) if is_pressed else frozenset()))
        began = anyio.current_time()
        self.stop = Stop()
        try:
            report = await self._within_time(loaded, due, self.stop, is_pressed=is_pressed)
        except Exception as error:  # noqa: BLE001 - the boundary at which a bug costs one sweep, and not the service
            self.reporter.bug(self.name, error)
            return
        finally:
            self.stop = None
            self._swept_at = ended = anyio.current_time()
            self._no_hint_before = ended + max(SHORTEST_PAUSE, 10 * (ended - began))
        result = sweep_result(report.endpoints[0], report.interrupted)
        if self._is_well(report, result):
            self.failures, self.rests_until = 0, -math.inf
        else:
            self._rest(due, for_leases=for_leases)
        self.reporter.swept(self, due, report, result)

    def _too_late(self, loaded: Loaded, due: frozenset[str]) -> frozenset[str]:
        """The policies that were due at a time that has long passed: their next time will come."""
        oldest = anyio.current_time() - loaded.settings.service.catch_up.total_seconds()
        late = frozenset(name for name in due & loaded.at_times if self._due_since.get(name, math.inf) < oldest)
        if late:
            self.reporter.too_late(self.name, sorted(late))
        return late

    async def _within_time(self, loaded: Loaded, due: frozenset[str], stop: Stop, *, is_pressed: bool) -> Report:
        async def work() -> Report:
            plan = loaded.plan
            relief = await self._relieve(loaded, stop) if is_pressed else None
            options = replace(plan.options, due=due)
            report = await self.session.sweep(plan.rules, options, endpoints=[self.endpoint], stop=stop)
            found = {} if relief is None else {self.name: relief}
            return with_relief(report, found, {name: each.after for name, each in found.items()}, plan.disk)

        return await stop.within(loaded.settings.service.sweep_timeout, work)

    async def _relieve(self, loaded: Loaded, stop: Stop) -> Relief | None:
        """Sweep under pressure; what comes of it says when the next such sweep may begin."""
        relief = None
        try:
            plan = loaded.plan
            relief = await self.session.relieve(self.endpoint, plan.rules, plan.options, disk=plan.disk, stop=stop)
        finally:
            if self.disk is not None:
                self.disk.swept(relief)
        return relief

    def _is_well(self, report: Report, result: SweepResult) -> bool:
        """Whether it does what it is asked for. A few things that cannot be deleted are no sign that it does not."""
        breaker = self.endpoint.retrier.breaker
        if breaker.refused is not None or result in (SweepResult.UNLISTED, SweepResult.TIMEOUT):
            return False
        gone = report.count(Outcome.DELETED) + report.count(Outcome.GONE)
        return not breaker.open or gone > 0 or report.count(Outcome.FAILED) < breaker.limit

    def _rest(self, due: frozenset[str], *, for_leases: bool) -> None:
        """Leave it alone for a while; what was due stays due."""
        self.failures += 1
        self._failed_at = anyio.current_time()
        self.rests_until = self._failed_at + min(FIRST_REST * 2 ** (self.failures - 1), LONGEST_REST)
        self.due |= due
        self._leases_ended = self._leases_ended or for_leases

    def _is_back(self) -> None:
        """Its events can be followed again: look soon, and less soon each time that the look fails all the same."""
        if anyio.current_time() < self.rests_until:
            self.rests_until = min(self.rests_until, self._failed_at + 2.0 ** min(self.failures, 10))
            self._notify()

    # -- its life ------------------------------------------------------------------------------------------------------

    async def _watch_life(self) -> None:
        """Sweep it soon after it has died or come back: its next run may be far, and a stream of events is just silent."""
        while True:
            await anyio.sleep(LIFE_EVERY)
            now = anyio.current_time()
            if self.stop is not None or now < max(self.rests_until, self._swept_at + LIFE_EVERY / 2):
                continue
            answered: bool | None = False
            try:
                with anyio.move_on_after(ANSWER_WITHIN):
                    answered = await answers(self.endpoint.reader)
            except Exception as error:  # noqa: BLE001 - a bug is none of the endpoint's
                self.reporter.stumbled(self.name, error)
                continue
            if answered == bool(self.failures):
                self._is_suspect = True
                self._notify()

    # -- events --------------------------------------------------------------------------------------------------------

    def _suspect(self) -> None:
        """Its events cannot be followed: look whether it is there at all, and less often while it is."""
        now = anyio.current_time()
        if now < self._no_look_before or now < self.rests_until:
            return
        self._no_look_before = now + self._look_again
        self._look_again = min(self._look_again * 2, LONGEST_LOOK)
        self._is_suspect = True
        self._notify()

    async def _follow(self, reader: Watched) -> None:
        """Follow the endpoint's events for as long as it is kept."""
        delay, is_reported, is_open = FIRST_RECONNECTION, False, False

        def connected() -> None:
            nonlocal is_reported, is_open
            is_open = True
            self._look_again = FIRST_LOOK
            if not is_reported:
                is_reported = True
                self.reporter.watching(self.name, connected=True)
                self._is_back()

        while True:
            problem, is_open, began = "", False, anyio.current_time()
            try:
                async with aclosing(reader.deaths(connected, self._last_death)) as deaths:  # type: ignore[type-var]
                    async for death in deaths:
                        self._hint(death)
            except ReaperError as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001 - hints are no reason to stop sweeping
                self.reporter.stumbled(self.name, error)
                problem = f"{type(error).__name__}: {error}"
            lived = anyio.current_time() - began if is_open else 0.0
            if lived >= LONGEST_RECONNECTION:
                delay = FIRST_RECONNECTION
            if problem or not is_open or delay > FIRST_RECONNECTION:  # else a proxy may have closed what was silent for long
                is_reported = False
                self.reporter.watching(self.name, connected=False, error=problem or "the stream ended")
            if not is_open:
                self._suspect()
            await anyio.sleep(delay)
            delay = min(delay * 2, LONGEST_RECONNECTION)

    async def _follow_uses(self, reader: FollowsUse) -> None:
        """Let it hear what is used, for as long as it is kept. Where it cannot, the stream of deaths is reported as lost."""
        delay, is_useful = SOONEST_RECONNECTION, True
        while is_useful:
            began = anyio.current_time()
            try:
                is_useful = await reader.follow_uses()
            except ReaperError:
                pass
            except Exception as error:  # noqa: BLE001 - without it everything counts as used
                self.reporter.stumbled(self.name, error)
            if anyio.current_time() - began >= LONGEST_RECONNECTION:
                delay = SOONEST_RECONNECTION
            await anyio.sleep(delay)
            delay = min(delay * 2, LONGEST_RECONNECTION)

    def _hint(self, death: Resource) -> None:
        """Look when what has died may become reapable. The look itself decides."""
        assert death.stopped_at is not None
        self._last_death = max(death.stopped_at, self._last_death or death.stopped_at)
        loaded = self.loaded()
        rules, at_times = loaded.plan.rules, loaded.at_times
        if death.group is None and Owners((death,), rules.scope).owner(death) is None:
            return
        now, wall = anyio.current_time(), self.session.clock()
        for policy in rules.policies:
            if policy.stopped_for is None or Kind.CONTAINER not in policy.kinds or not self.concerns(policy):
                continue
            if policy.name in at_times or policy.asleep:
                continue
            left = (shifted(death.stopped_at, policy.stopped_for) - wall).total_seconds()
            at = max(now, now + min(left, policy.stopped_for.total_seconds())) + MARGIN
            # The deaths of one moment share a look.
            hint = (math.ceil(at * 4) / 4, policy.name)
            if hint not in self._hinted and len(self._hints) < MANY_HINTS:
                self._hinted.add(hint)
                heapq.heappush(self._hints, hint)
        self._notify()
