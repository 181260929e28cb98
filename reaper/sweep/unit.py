"""Reaping one unit: a resource that stands alone, or a group. Look again, stop, delete, in that order."""

import math
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import anyio

from reaper.core.accounts import Pruned
from reaper.core.durations import human
from reaper.core.model import Action, Decision, Kind, Outcome, Resource, State
from reaper.core.ordering import users_first
from reaper.errors import (
    CircuitOpenError,
    ConflictError,
    CredentialsError,
    DeniedError,
    DependencyError,
    InProgressError,
    NotFoundError,
    ProviderError,
    UnavailableError,
)
from reaper.sweep.concurrency import not_changing, until
from reaper.sweep.context import AbandonedError, ChangedError, each, subject, what_changed
from reaper.sweep.recheck import Members
from reaper.sweep.rests import Rest

T = TypeVar("T")

NOUNS = {Action.DELETE: "deletion", Action.STOP: "stop", Action.ARCHIVE: "archiving"}
REMOVAL_PATIENCE = timedelta(seconds=30)
STOP_PATIENCE = timedelta(seconds=60)
NO_TIME = timedelta(0)
PRUNE_PATIENCE = timedelta(minutes=5)  # for a build cache: one request deletes thousands of records


class Unit(Members):
    """One unit on its way out."""

    @property
    def has_running(self) -> bool:
        """Whether a member ran when it was decided about and must be stopped: then the unit waits for that."""
        if not self.context.provider.traits.stops_first:
            return False
        return any(d.resource.state is State.RUNNING and d.resource.kind.runs for d in self.decisions)

    @property
    def newest(self) -> datetime:
        """When its newest member was created."""
        return max(d.resource.created_at for d in self.decisions if d.resource.created_at is not None)

    @property
    def stage(self) -> int:
        """When its turn is: nothing of it can go before all units of an earlier stage have gone, which may use it."""
        return min(d.resource.kind.stage for d in self.decisions)

    def ids(self) -> frozenset[str]:
        """The ids of all its members."""
        return frozenset(d.resource.id for d in self.decisions)

    def uses(self) -> frozenset[str]:
        """Ids of what its members use."""
        return frozenset(used for d in self.decisions for used in d.resource.uses)

    def was_tried(self) -> bool:
        """Whether no call for it was held back by the circuit breaker."""
        return all(result.error != CircuitOpenError.label for result in self.results.values())

    async def run(self) -> None:
        """Reap the unit. Every member has a result afterwards, unless this is cancelled."""
        self.retryable = False
        self._started = anyio.current_time()
        try:
            await self._save_evidence()
            fresh = await self._look_again()
            await self._linked_are_gone(fresh)
            await self._carry_out(fresh)
        except ChangedError as error:
            self._settle_rest(Outcome.SKIPPED, str(error))
        except AbandonedError:
            self._settle_rest(Outcome.ABANDONED, "the sweep ended first")
        except ProviderError as error:
            for decision in self._open():
                self._failed(decision, error)
        finally:
            if self.context.dependents is not None:
                self.context.dependents.ended(self.key, [decision.resource for decision in self.decisions])

    async def _save_evidence(self) -> None:
        """Save what is known of what is to be deleted: before it is looked at again, and before a stop hides how it was."""
        recorder = self.context.evidence
        if recorder is not None and self.action is Action.DELETE and not self.context.draining:
            going = [d.resource for d in self._open() if d.resource.kind.runs]
            await each(going, lambda r: recorder.record(r, lambda: self.context.draining))

    async def _carry_out(self, fresh: Sequence[Resource]) -> None:
        """Delete the members, which have just been looked at; those that run are stopped before."""
        running = [r for r in fresh if r.state is State.RUNNING and self.context.provider.traits.stops_first]
        forced: frozenset[str] = frozenset()
        if running:
            forced = await self._stop(running)
            await self._look_after_stops(fresh, forced)
        await self._delete_all([r for r in fresh if r.id not in self.results], forced)
        await self._delete_joined()

    def leave_alone(self, rests: Mapping[str, Rest]) -> None:
        """Begin nothing: the deletion of these members has failed in earlier sweeps, and rests."""
        for decision in self._open():
            if (rest := rests.get(decision.resource.id)) is not None:
                sweeps = "the last sweep" if rest.times == 1 else f"{rest.times} sweeps"
                left = human(timedelta(seconds=math.ceil(rest.left)))
                self._settle(
                    decision,
                    Outcome.FAILED,
                    f"its {NOUNS[decision.action]} failed in {sweeps} and rests for {left}: {rest.why}",
                    error=rest.error,
                )
            else:
                first = next(d.resource for d in self.decisions if d.resource.id in rests)
                self._settle(
                    decision,
                    Outcome.SKIPPED,
                    f"the {NOUNS[decision.action]} of {first.name} of its {first.group_word} has failed, and rests",
                )

    # -- stopping ------------------------------------------------------------------------------------------------------

    async def _stop(self, running: Sequence[Resource]) -> frozenset[str]:
        """Stop them all at once and look at each again; the ids of those that run on, and must be killed."""
        graces = {d.resource.id: d.stop_timeout for d in self.decisions}
        survivors: set[str] = set()

        async def one(resource: Resource) -> None:
            error: ProviderError | None = None
            try:
                await self._ask_to_stop(resource, graces[resource.id])
            except NotFoundError:
                return  # the deletion will find out and say so
            except (CircuitOpenError, CredentialsError, DeniedError):
                raise
            except ProviderError as failed:
                error = failed  # look before giving up: the stop may have worked all the same
            try:
                fresh = await self._inspect_one(resource)
            except NotFoundError:
                return
            if why := what_changed(resource, fresh, stopped_by_us=True):
                raise ChangedError(f"{resource.name} {why}")
            if fresh.state is State.RUNNING:
                if error is not None:
                    raise error  # force comes after a stop, never in place of one
                survivors.add(resource.id)

        await each(running, one)
        return frozenset(survivors)

    async def _look_after_stops(self, before: Sequence[Resource], forced: frozenset[str]) -> None:
        """Look at all of it again: stopping takes its time, and the unit goes as one or not at all. Raises ChangedError."""

        async def one(resource: Resource) -> None:
            asked = resource.id in self._asked_to_stop
            try:
                fresh = await self._inspect_one(resource)
            except NotFoundError:
                if asked:
                    return  # ``docker run --rm``: the deletion will find out and say so
                self._gone(self._decision(resource))
                raise ChangedError(f"its {resource.group_word} {resource.group} has lost a member") from None
            why = what_changed(resource, fresh, stopped_by_us=asked)
            if why is None and asked and fresh.state is State.RUNNING and resource.id not in forced:
                why = "runs again"
            if why is not None:
                raise ChangedError(f"{subject(resource, before[0])} {why}")
            self._check_listed(listed, (fresh,))

        listed = await self._current_members(before[0])
        if len(before) > 1:  # a single one has just been looked at
            await each(before, one)
        await self._nothing_depends(before, self._calls.list)
        self._judge((), before[0])

    # -- deleting ------------------------------------------------------------------------------------------------------

    async def _delete_all(self, resources: Sequence[Resource], forced: frozenset[str]) -> None:
        """Delete these, each after those of them that use it; while one of those stays, it does, too."""
        for layer in users_first(resources, lambda r: (r.id,), lambda r: r.uses):
            for resource in layer:
                users = [r for r in resources if resource.id in r.uses and r.id in self.results]
                if left := [r.name for r in users if not self.results[r.id].outcome.removed]:
                    detail = f"{', '.join(left)} of its {resource.group_word}, which uses it, is not gone"
                    self.retryable = True
                    self._settle(self._decision(resource), Outcome.SKIPPED, detail, error=DependencyError.label)
            free = [r for r in layer if r.id not in self.results]
            await each(free, lambda r: self._delete(r, force=r.id in forced))

    async def _delete(self, resource: Resource, *, force: bool = False) -> None:
        decision = self._decision(resource)
        details: list[str] = []

        async def delete() -> None:
            if (pruned := await self._try_to_delete(resource, force=force)) is not None:
                details.append(pruned.detail)
                if pruned.freed is not None:
                    self._freed[resource.id] = pruned.freed

        what = f"delete {resource.kind} {resource.name}"
        try:
            extra = PRUNE_PATIENCE if resource.kind is Kind.BUILD_CACHE else timedelta(0)
            await self._calls.act(what, delete, self.context.slots.removals, extra, look=self._last_look(resource))
        except NotFoundError:
            self._gone(decision)
        except InProgressError as error:
            await self._await_removal(decision, error)
        except DependencyError as error:
            await self._later(decision, error)
        except ConflictError as error:
            await self._refused(decision, error)
        except DeniedError as error:
            await self._denied(decision, error)
        except ProviderError as error:
            self._failed(decision, error)
        else:
            self._accepted(decision, "; ".join(details))

    async def _try_to_delete(self, resource: Resource, *, force: bool) -> Pruned | None:
        self._record_look(resource)
        self._attempts[resource.id] = self._attempts.get(resource.id, 0) + 1
        before = resource.id in self._unanswered
        self._unanswered.add(resource.id)
        try:
            return await self.context.provider.delete(resource, force=force)
        except UnavailableError:
            raise
        except ProviderError:
            if not before:
                self._unanswered.discard(resource.id)  # it was refused, and nothing has happened
            raise

    async def _refused(self, decision: Decision, error: ProviderError) -> None:
        """The endpoint refused what the last look allowed. Another look may explain that; else it fails when tried again.

        Raises ChangedError when it explains it: then the others of the group stay as well.
        """
        resource = decision.resource
        try:
            fresh = await self._inspect_one(resource)
            why = what_changed(resource, fresh, stopped_by_us=resource.id in self._asked_to_stop)
            if why is None and resource.kind.stage < Kind.VOLUME.stage:
                why = await self._user_of(fresh)
        except NotFoundError:
            self._gone(decision)
            return
        except ProviderError as failed:
            self._failed(decision, failed)
            return
        if why is not None:
            self._settle(decision, Outcome.SKIPPED, f"the endpoint refused: {error}")
            if resource.kind.runs:
                raise ChangedError(f"the deletion of {resource.name} of its {resource.group_word} was refused: {why}")
            return
        self.retryable = True
        self._settle(decision, Outcome.FAILED, f"the endpoint refused: {error.advice}", error=error.label)

    async def _later(self, decision: Decision, error: ProviderError) -> None:
        """It can go when something else is gone. A volume that nothing has any more never can."""
        volume = decision.resource.kind is Kind.VOLUME
        if volume and not await self.context.provider.dependents([decision.resource], self.context.listed, self._calls.list):
            await self._refused(decision, error)
            return
        self.retryable = self.waits = True
        self._settle(decision, Outcome.SKIPPED, f"the endpoint refused: {error}", error=error.label)

    async def _await_removal(self, decision: Decision, error: ProviderError) -> None:
        """Another program's removal is under way: wait until GET finds nothing, within a bound.

        Where deletions are only accepted, one that does not end in time is not confirmed, and has failed.
        """
        patience = self.context.provider.traits.confirm_within or REMOVAL_PATIENCE
        try:
            seen = await until(not_changing(), lambda: self._inspect_one(decision.resource), patience)
        except ProviderError as failed:
            self._failed(decision, failed)
            return
        if seen is None:
            self._gone(decision)
            return
        if seen.state is not State.CHANGING:
            await self._refused(decision, error)  # whatever was in progress was no removal, and it is over
        elif self.context.confirmer is None and decision.resource.id not in self._unanswered:
            self._settle(decision, Outcome.SKIPPED, "it is being removed by another program, which takes its time")
        else:
            self._failed(decision, InProgressError(f"{error} and did not end within {human(patience)}"))

    async def _denied(self, decision: Decision, denied: DeniedError) -> None:
        """The deletion was denied: where stopping is a thing of its own, that at least ends what it costs."""
        resource = decision.resource
        if self.context.provider.traits.stops_first or resource.state is not State.RUNNING:
            self._failed(decision, denied)
            return
        try:
            seen, error = await self._order_stop(resource, decision.stop_timeout)
        except ProviderError as failed:
            self._failed(decision, failed)
            return
        why = f"its deletion was denied ({denied})"
        if seen is None:
            self._accepted(decision, f"{why}, and stopping it destroyed it")
        elif seen.state in (State.STOPPED, State.FAILED):
            self._settle(decision, Outcome.STOPPED, f"{why}; it is {seen.raw_state} now", error=denied.label)
        else:
            self._failed(decision, error or denied)

    async def _ask_to_stop(self, resource: Resource, grace: timedelta) -> None:
        """Have one stopped, after a last look at it."""

        async def stop() -> None:
            self._record_look(resource)
            self._asked_to_stop.add(resource.id)
            await self.context.provider.stop(resource, grace)
            self._halted.add(resource.id)

        what, extra = f"stop {resource.kind} {resource.name}", grace if self.context.provider.traits.stops_first else NO_TIME
        await self._calls.act(what, stop, self.context.slots.stops, extra, look=self._last_look(resource))

    async def _order_stop(self, resource: Resource, grace: timedelta) -> tuple[Resource | None, ProviderError | None]:
        """Stop one and wait until it has stopped, within a bound.

        Returns:
            the resource as it was seen last, None when it is gone; and what the endpoint answered if not yes.

        Raises:
            ProviderError: it could not be looked at.
        """
        error = await refusal_of(self._ask_to_stop(resource, grace))
        seen = await until(
            lambda r: r.state in (State.STOPPED, State.FAILED) or (error is not None and r.state is State.RUNNING),
            lambda: self._inspect_one(resource),
            patience_after(error, STOP_PATIENCE),
        )
        return seen, error

    async def _delete_joined(self) -> None:
        """The group's pods and networks go last, in this order, and only when all its containers are gone."""
        joined = self._joined()
        if not joined:
            return
        containers = (d.resource.id for d in self.decisions if not d.resource.kind.joined)
        if not all(self.results[id_].outcome.removed for id_ in containers):
            for decision in joined:
                word = decision.resource.group_word
                self._settle(decision, Outcome.SKIPPED, f"its {word}'s containers are not all gone")
            return
        before = joined[0].resource
        members = await self.context.provider.members(before, self._calls.list) if before.group is not None else ()
        gone = self.results.keys()
        if back := [m.name for m in members if m.id not in gone and not m.kind.joined]:
            raise ChangedError(f"its {before.group_word} {before.group} has {', '.join(back)} now")

        async def one(resource: Resource) -> None:
            decision = self._decision(resource)
            try:
                fresh = await self._inspect_one(resource)
            except NotFoundError:
                self._gone(decision)
                return
            await self._not_used_since([fresh], self._calls.list)
            if fresh.labels != resource.labels:
                self._settle(decision, Outcome.SKIPPED, "its labels changed")
            elif fresh.identity != resource.identity:
                self._settle(decision, Outcome.SKIPPED, "it is another one of the same name now")
            elif fresh.state is State.RUNNING:
                self._settle(decision, Outcome.SKIPPED, "something is attached to it")
            elif (why := await self._user_of(fresh)) is not None:
                self._settle(decision, Outcome.SKIPPED, why)
            else:
                await self._delete(resource)

        for kind in (Kind.POD, Kind.NETWORK):
            await each([d.resource for d in joined if d.resource.kind is kind], one)


async def refusal_of(request: Awaitable[None]) -> ProviderError | None:
    """Make a request, and return why it was refused, if it was. A look has to follow: it may have worked all the same."""
    try:
        await request
    except NotFoundError:
        pass  # the look says so
    except ProviderError as error:
        return error
    return None


def patience_after(error: ProviderError | None, patience: timedelta) -> timedelta:
    """How long to look for the effect of a request: for ``patience``, unless an answer refused it for good."""
    return patience if error is None or isinstance(error, InProgressError | ConflictError | UnavailableError) else NO_TIME
