"""Stopping or archiving one unit for good, by a policy whose action that is: nothing of it is deleted."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

from reaper.core.actions import ARCHIVED, is_done, obstacle
from reaper.core.durations import human
from reaper.core.model import Action, Decision, Outcome, Resource, State
from reaper.errors import ConflictError, DependencyError, InProgressError, InvalidError, ProviderError
from reaper.providers.abilities import Archiving
from reaper.sweep.concurrency import not_changing, until
from reaper.sweep.context import ChangedError, each, subject, what_changed
from reaper.sweep.unit import NOUNS, STOP_PATIENCE, Unit, patience_after, refusal_of

ARCHIVE_PATIENCE = timedelta(minutes=5)  # the platform copies the whole disk to its archive
UNCONFIRMED = "unconfirmed"
_OUTCOMES = {Action.STOP: Outcome.STOPPED, Action.ARCHIVE: Outcome.ARCHIVED}


@dataclass
class StoppingUnit(Unit):
    """One unit whose members are stopped or archived."""

    _archiving: set[str] = field(default_factory=set)

    async def _carry_out(self, fresh: Sequence[Resource]) -> None:
        """Stop what runs, and archive it where that is wanted; done means that a look by id shows it."""
        had = [r for r in fresh if is_done(self._decision(r).resource, self.action)]
        left = [r for r in fresh if r not in had and r.id not in self.results]
        for resource in left:
            is_left = not is_done(resource, self.action) and not self._is_ours(resource)
            if is_left and (why := obstacle(resource, self.action)) is not None:
                raise ChangedError(f"{subject(resource, fresh[0])} {why}")
        stopped: list[Resource] = []

        async def stop(resource: Resource) -> None:
            is_stopping = self._is_ours(resource) and resource.id not in self._archiving  # by an order without an answer
            if not (resource.state is State.RUNNING or is_stopping) or await self._stop_one(resource):
                stopped.append(resource)

        await each(left, stop)
        if self.action is Action.ARCHIVE and left and len(stopped) == len(left):
            await self._look_after_stops(fresh, frozenset())
            await each(left, self._archive_one)
        if any(self.results[r.id].failed for r in left if r.id in self.results):
            word = fresh[0].group_word
            for decision in self._open():
                why = f"not all of its {word} could be {self.action.done}"
                self._settle(decision, Outcome.SKIPPED, why, error=DependencyError.label)  # it has another round with them
        for decision in self._open():
            already = f"it was {decision.resource.raw_state} already" if is_done(decision.resource, self.action) else ""
            self._settle(decision, _OUTCOMES[self.action], already)

    async def _stop_one(self, resource: Resource) -> bool:
        """Whether it has stopped; else it has a result."""
        decision = self._decision(resource)
        self._orders[resource.id] = self._orders.get(resource.id, 0) + 1
        try:
            with nullcontext() if self.context.provider.traits.stops_first else self.context.retrier.resting.one():
                seen, error = await self._order_stop(resource, decision.stop_timeout)
        except ProviderError as failed:
            self._failed(decision, failed)
            return False
        if seen is not None and seen.state in (State.STOPPED, State.FAILED):
            if self.action is Action.ARCHIVE and (why := what_changed(resource, seen, stopped_by_us=True)) is not None:
                raise ChangedError(f"{subject(resource, resource)} {why}")
            if self.action is Action.STOP:
                others = isinstance(error, ConflictError | InProgressError | InvalidError)
                self._settle(decision, Outcome.STOPPED, "another client stopped it" if others else "")
            return True
        self._not_done(decision, seen, error, STOP_PATIENCE)
        return False

    async def _archive_one(self, resource: Resource) -> None:
        """Archive what has stopped. The endpoint refuses what runs again."""
        decision = self._decision(resource)
        provider = self.context.provider
        if not isinstance(provider, Archiving):
            self._failed(decision, InvalidError(f"{provider.provider} cannot archive a {resource.kind}"))
            return

        async def archive() -> None:
            self._record_look(resource)
            self._archiving.add(resource.id)
            self._asked_to_stop.add(resource.id)  # that it is archived is no change by others
            self._orders[resource.id] = self._orders.get(resource.id, 0) + 1
            await provider.archive(resource)

        what = f"archive {resource.kind} {resource.name}"
        look = self._last_look(resource)
        error = await refusal_of(self._calls.act(what, archive, self.context.slots.removals, look=look))
        steady = not_changing()

        def settled(seen: Resource) -> bool:
            refused = error is not None and seen.state is not State.CHANGING
            return seen.raw_state == ARCHIVED or refused or steady(seen)

        try:
            with self.context.retrier.resting.one():
                seen = await until(settled, lambda: self._inspect_one(resource), patience_after(error, ARCHIVE_PATIENCE))
        except ProviderError as failed:
            self._failed(decision, failed)
            return
        if seen is not None and seen.raw_state == ARCHIVED:
            self._settle(decision, Outcome.ARCHIVED, "")
        elif seen is not None and seen.state is State.RUNNING:
            raise ChangedError(f"{subject(resource, resource)} runs again")
        elif isinstance(error, DependencyError):
            await self._later(decision, error)
        else:
            self._not_done(decision, seen, error, ARCHIVE_PATIENCE)

    def _not_done(self, decision: Decision, seen: Resource | None, error: ProviderError | None, patience: timedelta) -> None:
        if seen is None:
            self._gone(decision)
        elif error is not None:
            self.retryable = self.retryable or isinstance(error, ConflictError)
            self._failed(decision, error)
        else:
            what = f"the endpoint accepted its {NOUNS[self.action]}, but it is still {seen.raw_state}"
            self._settle(decision, Outcome.FAILED, f"{what} after {human(patience)}", error=UNCONFIRMED)
