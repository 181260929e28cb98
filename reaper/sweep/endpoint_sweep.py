"""One sweep of one endpoint: list, decide, re-check, delete, confirm, report. The only place that acts."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
import anyio.abc

from reaper.core.caps import Caps, kept_back, stops_policies
from reaper.core.decide import decide
from reaper.core.inventory_warnings import inventory_warnings
from reaper.core.lease import Lease
from reaper.core.lease_index import Leases
from reaper.core.model import CapHit, Decision, EndpointFailure, EndpointReport, Kind, Outcome, Resource, Result
from reaper.core.owner_process import NO_PROOFS
from reaper.core.quota import decide_within, in_force
from reaper.core.rules import Judge, Rules
from reaper.core.savings import to_delete
from reaper.core.site import Site
from reaper.errors import ProviderError, ReaperError, TooManyFilesError
from reaper.providers.abilities import GivesEvidence, Renewing
from reaper.providers.base import Also, Inventory, Listed, Provider
from reaper.sweep.absence import Absence
from reaper.sweep.confirm import Confirmer
from reaper.sweep.context import Context, Slots
from reaper.sweep.engines import Engines
from reaper.sweep.evidence import EvidenceRecorder
from reaper.sweep.inspector import Inspector
from reaper.sweep.kinds import asked_for, decided_about, watches_use
from reaper.sweep.owner_proofs import look
from reaper.sweep.ownership import SweepMemory
from reaper.sweep.ports import Endpoint, EvidenceStore, Ledger, Observer, Options
from reaper.sweep.reach import check_reach
from reaper.sweep.result import BUG, CLOCK
from reaper.sweep.rounds import Rounds
from reaper.sweep.safety_net import set_timers, without_timers
from reaper.sweep.unit import Unit
from reaper.sweep.units import make_units
from reaper.sweep.usage import is_by_use

SKEW_TOLERANCE = timedelta(minutes=1)
LAST_LOOK = timedelta(seconds=5)


@dataclass
class SharedPass:
    """What the endpoints of one sweep share.

    Args:
        engines: what endpoints lead to.
        connections: how many each may have at once, where the descriptors of this process limit that.
        too_few: why nothing can be looked at, where these are too few.
    """

    rules: Rules
    options: Options
    clock: Callable[[], datetime]
    leases: Callable[[], Iterable[Lease]]
    observer: Observer
    ledger: Ledger | None
    engines: Engines
    evidence: EvidenceStore | None = None
    connections: int | None = None
    too_few: str | None = None
    failed_fast: Callable[[], None] = field(default=lambda: None)


class EndpointSweep:
    """The pass over one endpoint."""

    def __init__(self, endpoint: Endpoint, shared: SharedPass) -> None:
        self.endpoint = endpoint
        self.reader = endpoint.reader
        self.name = endpoint.reader.endpoint
        self.retrier = endpoint.retrier
        self.shared = shared
        self.scope = anyio.CancelScope()
        self.last_look = anyio.CancelScope()
        limits = self.reader.limits
        self.slots = Slots(limits if shared.connections is None else limits.within(shared.connections))
        self.looker = Inspector(self.reader, self.retrier, self.slots)
        self.context: Context | None = None
        self.confirmer: Confirmer | None = None
        self.draining, self.ended = not shared.options.begins, False
        self.held, self.skew, self.site = 0, timedelta(0), Site()
        self.listed_between = (datetime.min.replace(tzinfo=UTC),) * 2
        self.decisions: list[Decision] = []
        self.results: dict[str, Result] = {}
        self.timerless: list[Decision] = []
        self.units: list[Unit] = []
        self.failure: EndpointFailure | None = None
        self.cap: CapHit | None = None
        self.held_back: frozenset[str] = frozenset()
        self.leases_read: Iterable[Lease] = ()
        self.leases = Leases()
        self.label_keys: frozenset[str] = frozenset()
        self.proofs = NO_PROOFS
        self.also = Also()
        self.unjudged: tuple[Resource, ...] = ()
        self.unlisted: Mapping[Kind, str] = {}
        self.warnings: list[str] = []
        self.memory = SweepMemory(endpoint.memory, self.warnings)
        self.seconds = 0.0

    async def run(self) -> None:
        """Sweep the endpoint; never raises, and leaves everything for ``report``."""
        began = anyio.current_time()
        name, observer = self.name, self.shared.observer  # the retrier outlives this sweep, and must not hold it
        self.retrier.begin(lambda event: observer.retrying(name, event))
        await self._guard(self._look_and_act)
        if self.units:
            await self._guard(self._confirm)  # after a bug as well: what was done is accounted for
            self._let_rest()
        self.memory.follow(self.units, self._now(), ended=True)
        if (refused := self.retrier.breaker.refused) is not None:
            self._fail(refused.label, str(refused))
        ask = self.ended and not self.draining
        await self._guard(partial(check_reach, self.reader, self.unlisted, self.warnings, ask=ask))
        self.seconds = anyio.current_time() - began

    async def _guard(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except ReaperError as error:
            self._fail(getattr(error, "label", "error"), str(error))
        except Exception as error:  # noqa: BLE001 - the boundary at which a bug costs this endpoint's sweep only
            self.shared.observer.bug(self.name, error)
            first: BaseException = error
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            self._fail(BUG, f"{type(first).__name__}: {first}")

    async def _look_and_act(self) -> None:
        with self.scope:
            await self._look()
            if self.shared.options.act and not self.draining:
                await self._act()
            self.ended = True

    def cut(self) -> None:
        """End now; what was deleted gets a last look."""
        self.scope.cancel()
        self.last_look.deadline = anyio.current_time() + LAST_LOOK.total_seconds()

    def drain(self) -> None:
        """Begin nothing new."""
        self.draining = True
        if self.context is not None:
            self.context.draining = True

    def forget(self) -> None:
        """Let go of all that refers back to this pass, so that its thousands of resources end with it at once."""
        self.context, self.units = None, []
        self.shared.failed_fast = lambda: None

    def report(self) -> EndpointReport:
        """What was found and done. What has no result was abandoned."""
        for decision in (*(decision for decision in self.decisions if decision.reap), *self.timerless):
            self.results.setdefault(decision.resource.id, self._untouched(decision))
        if not self.ended and not self.failure and not self.decisions:
            what = "anything there was decided" if self.held else "it was listed"
            why = "" if self.retrier.breaker.answered or self.seconds < 1 else f"; no answer within {self.seconds:.1f} s"
            if (failed := self.retrier.failed) is not None:
                why = f"; the last attempt failed: {failed.error}"
            self.failure = EndpointFailure("interrupted", f"the sweep ended before {what}{why}")
        return EndpointReport(
            endpoint=self.name,
            provider=self.reader.provider,
            held=self.held,
            decisions=tuple(self.decisions),
            results=tuple(self.results.values()),
            failure=self.failure,
            cap=self.cap,
            clock_skew=self.skew,
            warnings=tuple(self.warnings),
            seconds=self.seconds,
            site=self.site,
            unjudged=self.unjudged,
        )

    def _untouched(self, decision: Decision) -> Result:
        if not self.shared.options.act:
            return Result(decision, Outcome.WOULD_DELETE)
        why = "the deletion cap was hit" if decision.resource.id in self.held_back else "the sweep ended first"
        return Result(decision, Outcome.ABANDONED, why)

    def _fail(self, label: str, message: str) -> None:
        self.failure = self.failure or EndpointFailure(label, message)
        if self.shared.options.fail_fast:
            self.shared.failed_fast()

    def _now(self) -> datetime:
        return self.shared.clock() + self.skew

    def _leases(self) -> Leases:
        """Those that there are now, asked about this endpoint. Raises LeasesUnknownError."""
        found = self.shared.leases()
        if found is not self.leases_read:
            self.leases_read, self.leases = found, Leases(found)
        return self.leases.on(self.site)

    async def _look(self) -> None:
        if self.shared.too_few is not None:  # what cannot be finished is not begun
            raise TooManyFilesError(self.shared.too_few)
        leases = self._leases()  # says only what to list: the leases that decide are read below
        self.label_keys, self.also = leases.label_keys, asked_for(self.shared.rules, leases, self.shared.options)
        began = self.shared.clock()
        inventory = await self.reader.list(self.looker.list_call, self.label_keys, self.also)
        self.shared.engines.claim(self.name, inventory)
        self.unlisted = inventory.unlisted
        self._set_clock(inventory)
        clock = self.endpoint.clock
        jumps = () if clock is None else clock.look(self.warnings, learn=self.shared.options.learns)
        self.site = Site(self.reader.endpoint_id, self.skew, *inventory.skew_bounds, jumps)
        now, leases = self._now(), self._leases()
        self.listed_between = began + inventory.skew_bounds[0], self.shared.clock() + inventory.skew_bounds[0]
        resources, self.unjudged = decided_about(inventory, leases, self.shared.rules, self.shared.options)
        self.held = sum(resource.excluded is None for resource in resources)
        self.shared.observer.listed(self.name, self.held)
        resources = self.memory.recall(resources)
        if inventory.clock_problem is not None:
            self._keep_all(resources, inventory.clock_problem)
            return
        rules, options = self.shared.rules, self.shared.options
        kinds = (rules.kinds | rules.with_projects) - self.unlisted.keys()
        if (use := self.endpoint.last_use) is not None and watches_use(rules):
            resources, problem = await use.look(resources, self.looker, now, kinds, rules, learn=options.learns)
            self.warnings += [problem] if problem else []
        if options.inspect_everything:
            resources = await self.looker.inspect(resources, [r for r in resources if not r.inspected])
        owners, learn = self.endpoint.owners, options.learns
        self.proofs = proofs = look(owners, resources, rules.owner_rules, self.skew, self.warnings, learn=learn)
        quotas, leases = options.quotas if options.choose is None else (), self._leases()
        judge = partial(decide_within, rules=rules, leases=leases, now=now, quotas=quotas, due=options.due, proofs=proofs)
        self.decisions = await self.looker.decided(resources, judge)
        caps = Caps(options.max_deletions, options.max_fraction, options.max_lease_deletions)
        self.decisions, self.cap, self.held_back = await self.looker.capped(caps, self.decisions, self.held)
        self.warnings += [*inventory_warnings(self.decisions, inventory.unreadable, now), *self.looker.warnings]
        self.results |= self.looker.failures(self.decisions)
        if self.results and options.fail_fast:
            self.shared.failed_fast()
        self.shared.observer.decided(self.name, self.decisions)
        if options.choose is not None and not stops_policies(self.cap):
            chosen = self.held_back.union(await options.choose(kept_back(self.decisions, self.held_back)))
            self.decisions = judge([d.resource for d in self.decisions], chosen=chosen)
        net = self.reader.traits.safety_net if options.safety_net and not stops_policies(self.cap) else None
        self.timerless = await without_timers(net, self.decisions, self.looker, now)
        if options.learns:
            stays = self.held_back if options.act else {decision.resource.id for decision in self.decisions}
            self.memory.learn(self.decisions, stays, now, rules.created_grace, kinds)

    def _set_clock(self, inventory: Inventory) -> None:
        if abs(inventory.clock_skew) > SKEW_TOLERANCE:
            self.skew = inventory.clock_skew
            if inventory.clock_problem is None:
                self.warnings.append(f"its clock differs from this host's by {inventory.clock_skew}; ages are corrected")

    def _keep_all(self, resources: Sequence[Resource], problem: str) -> None:
        """The clock there is wrong, so everything there is as good as unreadable."""
        self._fail(CLOCK, problem)
        unreadable = [replace(resource, unreadable=problem) for resource in resources]
        self.decisions = decide(unreadable, self.shared.rules, self._leases(), self._now())
        self.shared.observer.decided(self.name, self.decisions)

    async def _act(self) -> None:
        assert isinstance(self.reader, Provider)
        if (within := self.reader.traits.confirm_within) is not None:
            self.confirmer = Confirmer(self.reader, self.looker.inspect_call, self.looker.list_call, within)
        self.context = Context(
            self.reader,
            self.retrier,
            self.slots,
            partial(in_force, self.shared.rules, self.shared.options.quotas),
            self._now,
            self._leases,
            self._settled,
            self.confirmer,
        )
        if (store := self.shared.evidence) is not None and isinstance(self.reader, GivesEvidence):
            self.context.evidence = EvidenceRecorder(self.reader, store, self.retrier, self.slots, self.warnings)
        if self.endpoint.last_use is not None:
            self.context.used_since = self.endpoint.last_use.since_listing(self.reader)
        if (owners := self.endpoint.owners) is not None:
            self.context.proofs = partial(owners.again, rules=self.shared.rules.owner_rules, skew=self.skew)
        everything = [decision.resource for decision in self.decisions]
        times = (r.created_at for r in everything if r.created_at and r.created_at <= self.listed_between[1])
        self.context.listed = Listed(frozenset(r.id for r in everything), max(times, default=None), self.listed_between[0])
        judged = everything if any(decision.reap for decision in self.decisions) else ()  # of thousands it takes its time
        judge = Judge(judged, self.shared.rules, self.leases.on(self.site), self._now(), self.proofs)
        going = to_delete(self.decisions, self.held_back, judge)
        self.context.going |= {decision.resource.id for decision in going if decision.deletes}
        self.units = make_units(self.context, going)
        if (self.units or self.timerless) and (ledger := self.shared.ledger) is not None:
            await ledger.begin(self.name, self.reader.provider, [*going, *self.timerless])
        async with anyio.create_task_group() as group:
            if self.confirmer is not None:
                group.start_soon(self.confirmer.run, name=f"confirm deletions on {self.name}")
            fail_fast = self.shared.options.fail_fast
            async with anyio.create_task_group() as meanwhile:
                if isinstance(self.reader, Renewing):
                    meanwhile.start_soon(self.reader.renew, self.context.listed, self.looker.list_call)
                if (used := self.context.used_since) is not None and any(map(is_by_use, going)):
                    meanwhile.start_soon(used.follow, self.looker.list_call)
                await Rounds(self.endpoint, self.context, self.units, self._stage_ended, fail_fast=fail_fast).run()
                await set_timers(self.timerless, self.context, self.results)
                meanwhile.cancel_scope.cancel()
            if self.confirmer is not None:
                self.confirmer.close()

    def _let_rest(self) -> None:
        """Leave alone for a while what has failed; but a sick endpoint says nothing about one resource."""
        rests = self.endpoint.rests
        rests.forget_all_but(
            {d.resource.id for d in self.decisions} - {r for r, result in self.results.items() if result.outcome.removed}
        )
        if self.retrier.breaker.open_for(changes=False):
            return  # where changes alone are held back, those that were tried rest: the next sweep comes to the others
        rests.learn(self.results.values())

    def _stage_ended(self) -> None:
        self.memory.follow(self.units, self._now(), is_late=True)

    def _settled(self, result: Result) -> None:
        self.shared.observer.settled(self.name, result)
        if self.context is not None and self.context.used_since is not None:
            self.context.used_since.settled()
        self.memory.follow(self.units, self._now())
        if result.failed and self.shared.options.fail_fast:
            self.shared.failed_fast()

    async def _confirm(self) -> None:
        """Only what is surely gone counts as deleted."""
        if (confirmer := self.confirmer) is not None:
            with self.last_look:
                await confirmer.last_look()
            confirmer.give_up()
        for unit in self.units:
            self.results.update(unit.results)
        if confirmer is None:
            await self._confirm_by_listing()
            return
        for id_, seen in confirmer.unconfirmed.items():
            self._unconfirmed(id_, "unconfirmed", f"the endpoint accepted its deletion, but {seen}")

    async def _confirm_by_listing(self) -> None:
        """What is gone is absent from one complete listing at the end."""
        deleted = {id_: result.decision.resource for id_, result in self.results.items() if result.outcome.removed}
        if not deleted and not self.memory.is_unsure(self.units):
            return
        self.retrier.breaker.reset()
        kept = [decision.resource for decision in self.decisions if not decision.reap]
        absence = Absence(self.reader, self.looker, deleted, kept, self.listed_between[1])
        try:
            with self.last_look:
                await absence.look(self.label_keys, self.also)
            self.memory.there = absence.there
        except ProviderError as error:
            self._fail(error.label, str(error))
        for id_, (label, detail) in absence.unconfirmed.items():
            self._unconfirmed(id_, label, detail)

    def _unconfirmed(self, id_: str, label: str, detail: str) -> None:
        self.results[id_] = replace(self.results[id_], outcome=Outcome.FAILED, detail=detail, error=label)
