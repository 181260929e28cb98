"""Giving intervals of the platform's own timers to sandboxes that have none: see ``core.safety_net``."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import anyio

from reaper.core.accounts import LastLook
from reaper.core.decide import decide
from reaper.core.durations import human
from reaper.core.model import Decision, Outcome, Resource, Result
from reaper.core.safety_net import SafetyNet, Timer, candidates, is_kept_by_age, timers
from reaper.errors import DeniedError, DependencyError, NotFoundError, ProviderError
from reaper.providers.abilities import SetsTimers
from reaper.providers.base import Call
from reaper.retry.retrier import Look
from reaper.sweep.concurrency import for_each, until
from reaper.sweep.context import ChangedError, Context, what_changed
from reaper.sweep.inspector import Inspector
from reaper.sweep.recheck import MOST_LOOKS, STALE

PATIENCE = timedelta(seconds=30)  # GET by id may be ten seconds old
TOGETHER = 4
UNCONFIRMED = "unconfirmed"


async def without_timers(
    net: SafetyNet | None, decisions: Sequence[Decision], looker: Inspector, now: datetime
) -> list[Decision]:
    """The decisions about what is to get intervals, when it is known what is linked to that."""
    found = candidates(net, decisions, now) if net is not None else []
    if net is None or not found:
        return []
    if unknown := [d.resource for d in decisions if not d.resource.links_known]:
        units = {decision.resource.group or decision.resource.id for decision in found}
        ids = frozenset(d.resource.id for d in decisions if (d.resource.group or d.resource.id) in units)
        resources = await looker.inspect_links([d.resource for d in decisions], unknown, lambda _: ids)
        linked = [replace(decision, resource=one) for decision, one in zip(decisions, resources, strict=True)]
        found = candidates(net, linked, now)
    return found


async def set_timers(found: Sequence[Decision], context: Context, results: dict[str, Result]) -> None:
    """Give each what it lacks, and put into ``results`` what came of it. Nothing is begun when the sweep is ending."""
    net, refused = context.provider.traits.safety_net, list[DeniedError]()

    async def one(decision: Decision) -> None:
        if context.draining or net is None or decision.resource.id in results:
            return
        setter = _Setter(net, decision, context)
        try:
            if refused:  # a key that may not write: the others would be refused as well
                raise refused[0]
            result = await setter.run()
        except ChangedError as error:
            result = setter.result(Outcome.SKIPPED, f"it was left as it is: {error}")
        except NotFoundError:
            result = setter.result(Outcome.GONE, "another client removed it first")
        except ProviderError as error:
            refused.extend([error] if isinstance(error, DeniedError) else [])
            result = setter.result(Outcome.FAILED, f"its timer could not be set: {error.advice}", error.label)
        results[decision.resource.id] = result
        context.settled(result)

    if found:
        await for_each(found, one, min(len(found), TOGETHER), "set timer", context.retrier.resting)


@dataclass
class _Setter:
    """Sets the timers of one sandbox, each after a look at it, at its session and at what is linked to it."""

    net: SafetyNet
    decision: Decision
    context: Context
    _attempts: int = 0
    _set: list[Timer] = field(default_factory=list)
    _seen: LastLook | None = None
    _acted_on: LastLook | None = None  # as it was last seen before the last timer that was set
    _wanted: Timer | None = None
    _began: float = field(default_factory=anyio.current_time)

    async def run(self) -> Result:
        """Set what is off. Raises ChangedError when it is to be left alone now, and ProviderError."""
        for timer in timers(self.net, self.decision.resource, self.context.now()):
            try:
                await self._set_one(timer.name)
            except ChangedError:
                if not self._set:
                    raise
                break
        if not self._set:
            return self.result(Outcome.SKIPPED, "its timers are on by now")
        return self.result(
            Outcome.TIMER_SET, ", ".join(f"{t.name} after {human(timedelta(minutes=t.minutes))}" for t in self._set)
        )

    def result(self, outcome: Outcome, detail: str, error: str | None = None) -> Result:
        """What came of it."""
        seconds = anyio.current_time() - self._began
        return Result(self.decision, outcome, detail, self._attempts, seconds, error, look=self._acted_on or self._seen)

    async def _set_one(self, name: str) -> None:
        retrier, slots, resource = self.context.retrier, self.context.slots, self.decision.resource
        sent: list[Timer] = []

        async def read(call: Call) -> None:
            for _ in range(MOST_LOOKS):
                began = anyio.current_time()
                self._wanted = next((t for t in await self._look(call) if t.name == name), None)
                if anyio.current_time() - began <= STALE.total_seconds():
                    return  # else it was looked at long ago: what was asked after that had to wait

        async def write() -> None:
            if self._wanted is not None:
                assert isinstance(self.context.provider, SetsTimers)
                self._attempts += 1
                sent.append(self._wanted)
                self._acted_on = self._seen and replace(self._seen, acted=True)
                await self.context.provider.set_timer(resource, self._wanted)

        what = f"set {name} of {resource.kind} {resource.name}"
        try:
            await retrier.call(what, write, slots=slots.removals, changes=True, look=Look(lambda: True, read))
        except DependencyError as error:
            raise ChangedError(str(error)) from error
        if not sent:
            return

        async def look() -> Resource:
            return await retrier.call(
                f"inspect sandbox {resource.name}", lambda: self.context.provider.inspect(resource), slots=slots.reads
            )

        seen = await until(lambda seen: name not in seen.timers_off, look, PATIENCE)
        if seen is None:
            raise NotFoundError(f"{resource.name} is gone")
        if name in seen.timers_off:
            raise _UnconfirmedError(f"the endpoint accepted its {name}, which is still off after {human(PATIENCE)}")
        self._set.append(sent[-1])

    async def _look(self, call: Call) -> tuple[Timer, ...]:
        """What it lacks now. Raises ChangedError when something besides its age keeps it, or it is to go."""
        provider, before = self.context.provider, self.decision.resource
        fresh = await call(f"inspect sandbox {before.name}", lambda: provider.inspect(before))
        differs = what_changed(before, fresh, listed_at=self.context.listed.at)
        self._seen = LastLook(self.context.now(), fresh.raw_state, differs)
        if differs is not None:
            raise ChangedError(f"it {differs}")
        others = await provider.members(fresh, call) if fresh.group is not None else ()
        session = [fresh, *(other for other in others if other.id != fresh.id)]
        leases, proofs = self.context.leases(), self.context.proofs(session)
        decisions = decide(session, self.context.rules(()), leases, self.context.now(), proofs=proofs)
        if not is_kept_by_age(decisions):
            other = next(d for d in decisions if not is_kept_by_age((d,)))
            raise ChangedError(f"{other.resource.name} is not kept by its age alone now: {other.sentence}")
        linked = await provider.dependents(session, self.context.listed, call)
        for user in linked:
            if fresh.id in user.uses:
                raise ChangedError(f"{user.name} is linked to it")
            if user.group is None or user.group != fresh.group:
                raise ChangedError(f"{user.name} is linked to its session")
        return timers(self.net, fresh, self.context.now())


class _UnconfirmedError(ProviderError):
    label = UNCONFIRMED
