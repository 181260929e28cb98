"""Reaping one unit: a resource that stands alone, or a group. Look again, stop, delete, in that order.

Nothing here trusts the listing: every member is inspected again, the group's membership is read again, and anything
that changed since the decision, other than by our own stop, keeps the whole unit.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

import anyio

from reaper.acting import AbandonedError, Acting, ChangedError, subject, what_changed
from reaper.errors import (
    CircuitOpenError,
    ConflictError,
    CredentialsError,
    DeniedError,
    InProgressError,
    LaterError,
    NotFoundError,
    ProviderError,
)
from reaper.model import Decision, Kind, Outcome, Remembered, Resource, Result, State
from reaper.policy import decide
from reaper.retry import Look
from reaper.waiting import not_changing, until

T = TypeVar("T")

REMOVAL_PATIENCE = timedelta(seconds=30)
STOP_PATIENCE = timedelta(seconds=60)
STALE = timedelta(seconds=2)  # a look at a resource that is older than this is taken again just before its deletion


@dataclass
class Unit:
    """One unit on its way out.

    Args:
        decisions: of all its members, its networks last.
        results: by resource id, as far as they are known. ``DELETED`` is not confirmed yet.
        retryable: whether a member failed in a way that another round may mend.
        waits: whether a member can go only when something else is gone.
    """

    acting: Acting
    decisions: Sequence[Decision]
    results: dict[str, Result] = field(default_factory=dict)
    retryable: bool = False
    waits: bool = False
    _begun: bool = False
    _started: float = 0.0
    _attempts: dict[str, int] = field(default_factory=dict)
    _asked_to_stop: set[str] = field(default_factory=set)
    _looked_at: dict[str, float] = field(default_factory=dict)

    @property
    def has_running(self) -> bool:
        """Whether a member ran when it was decided about and must be stopped: then the unit waits for that."""
        if not self.acting.provider.traits.stops_first:
            return False
        return any(d.resource.state is State.RUNNING and d.resource.kind is not Kind.NETWORK for d in self.decisions)

    async def run(self) -> None:
        """Reap the unit. Every member has a result afterwards, unless this is cancelled."""
        self.retryable = False
        self._started = anyio.current_time()
        try:
            fresh = await self._look_again()
            running = [r for r in fresh if r.state is State.RUNNING and self.acting.provider.traits.stops_first]
            forced: frozenset[str] = frozenset()
            if running:
                forced = await self._stop(running)
                await self._nobody_joined(fresh[0])  # stopping takes its time
                await self._still_the_same([r for r in fresh if r.state is not State.RUNNING])
            still_there = [r for r in fresh if r.id not in self.results]
            await self._each(still_there, lambda r: self._delete(r, force=r.id in forced))
            await self._delete_networks()
        except ChangedError as error:
            self._settle_rest(Outcome.SKIPPED, str(error))
        except AbandonedError:
            self._settle_rest(Outcome.ABANDONED, "the sweep ended first")
        except ProviderError as error:
            for decision in self._open():
                self._failed(decision, error)

    # -- looking again -------------------------------------------------------------------------------------------------

    def _containers(self) -> list[Decision]:
        return [d for d in self._open() if d.resource.kind is not Kind.NETWORK]

    def _networks(self) -> list[Decision]:
        return [d for d in self._open() if d.resource.kind is Kind.NETWORK]

    def _open(self) -> list[Decision]:
        return [d for d in self.decisions if d.resource.id not in self.results]

    async def _look_again(self) -> list[Resource]:
        """Inspect every member and decide again. Raises ChangedError when anything is not as it was."""
        open_ = self._open()
        if not open_:
            return []
        if left := [r.decision.resource.name for r in self.results.values() if r.outcome is Outcome.SKIPPED]:
            raise ChangedError(f"{', '.join(left)} of its {open_[0].resource.group_word} was left in the first round")
        first = open_[0].resource
        containers = self._containers()
        if first.group is not None:
            await self._check_membership(first)
        fresh = await self._still_the_same([d.resource for d in containers])
        self._judge(fresh, first)
        return fresh

    def _judge(self, fresh: Iterable[Resource], first: Resource) -> None:
        """Decide again, with these as they are now, but for our own stop. Raises ChangedError when one is to be kept."""
        now = {r.id: r for r in fresh if r.id not in self._asked_to_stop and not self._is_ours(r)}
        everything = [now.get(d.resource.id, d.resource) for d in self.decisions]
        for decision in decide(everything, self.acting.rules, self.acting.leases(), self.acting.now()):
            if not decision.reap:
                raise ChangedError(f"{subject(decision.resource, first)} is to be kept now: {decision.sentence}")

    async def _still_the_same(self, resources: Sequence[Resource]) -> list[Resource]:
        """The resources as they are now. Raises ChangedError when one of them is not as it was."""
        fresh = await self._inspect(resources)
        before = {resource.id: resource for resource in resources}
        for resource in fresh:
            ours = resource.id in self._asked_to_stop
            if self._is_ours(resource):
                continue
            if why := what_changed(before[resource.id], resource, stopped_by_us=ours):
                raise ChangedError(f"{subject(resource, resources[0])} {why}")
        return fresh

    def _is_ours(self, resource: Resource) -> bool:
        """Whether it is changing by our own deletion, whose answer was lost: asking again tells how far it is."""
        return resource.state is State.CHANGING and resource.id in self._attempts

    async def _check_membership(self, first: Resource) -> None:
        """Raises ChangedError when the group has another member now, or has lost one."""
        listed = await self._nobody_joined(first)
        if self.acting.confirmer is not None:
            return  # such a listing lags: the looks by id find out who is gone
        lost = [decision for decision in self._containers() if decision.resource.id not in listed]
        for decision in lost:
            self._gone(decision)
        if lost:
            # Somebody is at work on this project: what they leave is for the next sweep to judge.
            raise ChangedError(f"its project {first.group} has lost a member")

    async def _nobody_joined(self, first: Resource) -> set[str]:
        """The ids of the group's members now. Raises ChangedError when one of them is none of this unit's."""
        if first.group is None:
            return {first.id}
        members = await self.acting.provider.members(first, self._listing)
        self._check_known(members, first)
        return {member.id for member in members}

    def _check_known(self, members: Iterable[Resource], first: Resource) -> None:
        known = {decision.resource.id for decision in self.decisions}
        if joined := sorted(member.name for member in members if member.id not in known):
            raise ChangedError(f"{', '.join(joined)} joined its {first.group_word} {first.group}")

    async def _inspect_one(self, resource: Resource) -> Resource:
        what = f"inspect {resource.kind} {resource.name}"
        fresh = await self._read(what, lambda: self.acting.provider.inspect(resource))
        self._looked_at[resource.id] = anyio.current_time()
        return fresh

    def _last_look(self, resource: Resource) -> Look:
        """The look at what had to wait for its deletion. Raises as its attempt does, ChangedError included."""

        def stale() -> bool:
            return anyio.current_time() - self._looked_at.get(resource.id, 0) > STALE.total_seconds()

        async def take() -> None:
            if resource.group is not None:
                self._check_known(await self.acting.provider.members(resource, self._within_an_attempt), resource)
            fresh = await self.acting.provider.inspect(resource)
            if self._is_ours(fresh):
                return
            if why := what_changed(resource, fresh, stopped_by_us=resource.id in self._asked_to_stop):
                raise ChangedError(f"it {why}")
            self._judge([fresh], resource)
            self._looked_at[resource.id] = anyio.current_time()

        return Look(stale, take)

    async def _within_an_attempt(self, what: str, function: Callable[[], Awaitable[T]]) -> T:  # noqa: ARG002
        """Make a request that belongs to another call's attempt, and is retried with it."""
        async with self.acting.slots.listings, self.acting.retrier.reading:
            return await function()

    async def _inspect(self, resources: Sequence[Resource]) -> list[Resource]:
        fresh: dict[str, Resource] = {}

        async def one(resource: Resource) -> None:
            try:
                fresh[resource.id] = await self._inspect_one(resource)
            except NotFoundError:
                self._gone(self._decision(resource))

        await self._each(resources, one)
        if fresh and len(fresh) < len(resources):
            raise ChangedError(f"its {resources[0].group_word} {resources[0].group} has lost a member")
        return list(fresh.values())

    # -- stopping ------------------------------------------------------------------------------------------------------

    async def _stop(self, running: Sequence[Resource]) -> frozenset[str]:
        """Stop them all at once and look at each again; the ids of those that run on, and must be killed."""
        graces = {d.resource.id: d.stop_timeout for d in self.decisions}
        survivors: set[str] = set()

        async def one(resource: Resource) -> None:
            grace = graces[resource.id]
            error: ProviderError | None = None

            async def stop() -> None:
                self._asked_to_stop.add(resource.id)
                await self.acting.provider.stop(resource, grace)

            try:
                await self._act(f"stop {resource.kind} {resource.name}", stop, self.acting.slots.stops, grace)
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

        await self._each(running, one)
        return frozenset(survivors)

    # -- deleting ------------------------------------------------------------------------------------------------------

    async def _delete(self, resource: Resource, *, force: bool = False) -> None:
        decision = self._decision(resource)

        async def delete() -> None:
            self._attempts[resource.id] = self._attempts.get(resource.id, 0) + 1
            await self.acting.provider.delete(resource, force=force)

        what = f"delete {resource.kind} {resource.name}"
        try:
            await self._act(what, delete, self.acting.slots.removals, look=self._last_look(resource))
        except NotFoundError:
            self._gone(decision)
        except InProgressError as error:
            await self._await_removal(decision, error)
        except LaterError as error:
            self.retryable = self.waits = True
            self._settle(decision, Outcome.SKIPPED, f"the endpoint refused: {error}", error=error.label)
        except ConflictError as error:
            self._settle(decision, Outcome.SKIPPED, f"the endpoint refused: {error}")
        except DeniedError as error:
            await self._denied(decision, error)
        except ProviderError as error:
            self._failed(decision, error)
        else:
            self._settle(decision, Outcome.DELETED, "")
            if self.acting.confirmer is not None:
                self.acting.confirmer.add(resource)

    async def _await_removal(self, decision: Decision, error: ProviderError) -> None:
        """Somebody's removal is under way: wait until a look by id finds nothing, within a bound."""
        patience = self.acting.provider.traits.confirm_within or REMOVAL_PATIENCE
        try:
            seen = await until(not_changing(), lambda: self._inspect_one(decision.resource), patience)
        except ProviderError as failed:
            self._failed(decision, failed)
            return
        if seen is None:
            self._gone(decision)
            return
        if seen.state is not State.CHANGING:
            self.retryable = True  # whatever was in progress was no removal, and it is over
        self._failed(decision, error)

    async def _denied(self, decision: Decision, denied: DeniedError) -> None:
        """The deletion was denied: where stopping is a thing of its own, that at least ends what it costs."""
        resource = decision.resource
        if self.acting.provider.traits.stops_first or resource.state is not State.RUNNING:
            self._failed(decision, denied)
            return

        async def stop() -> None:
            self._asked_to_stop.add(resource.id)
            await self.acting.provider.stop(resource, decision.stop_timeout)

        error: ProviderError = denied
        try:
            await self._act(
                f"stop {resource.kind} {resource.name}", stop, self.acting.slots.stops, look=self._last_look(resource)
            )
        except NotFoundError:
            pass  # the look below says so
        except ProviderError as failed:
            error = failed  # look before giving up: it may have worked all the same
        try:
            patience = STOP_PATIENCE if error is denied else timedelta(0)
            seen = await until(
                lambda r: r.state in (State.STOPPED, State.FAILED), lambda: self._inspect_one(resource), patience
            )
        except ProviderError as failed:
            self._failed(decision, failed)
            return
        why = f"its deletion was denied ({denied})"
        if seen is None:
            self._settle(decision, Outcome.DELETED, f"{why}, and stopping it destroyed it")
            if self.acting.confirmer is not None:
                self.acting.confirmer.gone.add(resource.id)
        elif seen.state in (State.STOPPED, State.FAILED):
            self._settle(decision, Outcome.STOPPED, f"{why}; it is {seen.raw_state} now", error=denied.label)
        else:
            self._failed(decision, error)

    async def _delete_networks(self) -> None:
        """The project's networks go last, and only when all its containers are gone."""
        networks = self._networks()
        if not networks:
            return
        outcomes = {self.results[d.resource.id].outcome for d in self.decisions if d.resource.kind is not Kind.NETWORK}
        if not outcomes <= {Outcome.DELETED, Outcome.GONE}:
            for decision in networks:
                self._settle(decision, Outcome.SKIPPED, "its project's containers are not all gone")
            return
        before = networks[0].resource
        members = await self.acting.provider.members(before, self._listing)
        gone = self.results.keys()
        if back := [m.name for m in members if m.id not in gone and m.kind is not Kind.NETWORK]:
            raise ChangedError(f"its project {before.group} has {', '.join(back)} now")

        async def one(resource: Resource) -> None:
            decision = self._decision(resource)
            try:
                fresh = await self._inspect_one(resource)
            except NotFoundError:
                self._gone(decision)
                return
            if fresh.labels != resource.labels:
                self._settle(decision, Outcome.SKIPPED, "its labels changed")
            elif fresh.state is State.RUNNING:
                self._settle(decision, Outcome.SKIPPED, "something is attached to it")
            else:
                await self._delete(resource)

        await self._each([d.resource for d in networks], one)

    # -- calls and results ---------------------------------------------------------------------------------------------

    async def _read(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        return await self._look_through(self.acting.slots.reads, what, function)

    async def _listing(self, what: str, function: Callable[[], Awaitable[T]]) -> T:
        return await self._look_through(self.acting.slots.listings, what, function)

    async def _look_through(
        self, slots: AbstractAsyncContextManager[object], what: str, function: Callable[[], Awaitable[T]]
    ) -> T:
        async def guarded() -> T:
            self._may_go_on()
            return await function()

        return await self.acting.retrier.call(what, guarded, slots=slots)

    def _may_go_on(self) -> None:
        if self.acting.draining and not self._begun:
            raise AbandonedError

    async def _act(
        self,
        what: str,
        function: Callable[[], Awaitable[None]],
        slots: AbstractAsyncContextManager[object],
        extra: timedelta = timedelta(0),
        look: Look | None = None,
    ) -> None:
        """Make a call that changes something, unless the sweep is ending and this unit has not begun."""

        async def guarded() -> None:
            self._may_go_on()
            self._begun = True
            await function()

        await self.acting.retrier.call(what, guarded, slots=slots, extra=extra, changes=True, look=look)

    async def _each(self, resources: Sequence[Resource], function: Callable[[Resource], Awaitable[None]]) -> None:
        """``function`` for all of them at once; the first error is raised when all have ended."""
        if len(resources) == 1:
            await function(resources[0])
            return
        errors: list[Exception] = []

        async def guarded(resource: Resource) -> None:
            try:
                await function(resource)
            except (ChangedError, AbandonedError, ProviderError) as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            for resource in resources:
                group.start_soon(guarded, resource, name=f"{resource.kind} {resource.name}")
        if errors:
            raise next((error for error in errors if isinstance(error, ChangedError)), errors[0])

    def _failed(self, decision: Decision, error: ProviderError) -> None:
        self.retryable = self.retryable or error.retryable or isinstance(error, CircuitOpenError)
        self._settle(decision, Outcome.FAILED, str(error), error=error.label)

    def _settle_rest(self, outcome: Outcome, detail: str) -> None:
        for decision in self._open():
            self._settle(decision, outcome, detail)

    def _gone(self, decision: Decision) -> None:
        self._settle(decision, Outcome.GONE, "somebody else removed it first")

    def _decision(self, resource: Resource) -> Decision:
        return next(d for d in self.decisions if d.resource.id == resource.id)

    def _settle(self, decision: Decision, outcome: Outcome, detail: str, error: str | None = None) -> None:
        id_ = decision.resource.id
        seconds = anyio.current_time() - self._started
        self.results[id_] = Result(decision, outcome, detail, self._attempts.get(id_, 0), seconds, error)
        self.acting.settled(self.results[id_])

    def reopen(self) -> None:
        """Forget the failures, and the networks that were left because of them, for another round."""
        self._begun = self.waits = False
        self.results = {id_: result for id_, result in self.results.items() if not _worth_another_round(result)}


def _worth_another_round(result: Result) -> bool:
    left_network = result.outcome is Outcome.SKIPPED and result.decision.resource.kind is Kind.NETWORK
    return result.outcome is Outcome.FAILED or result.error == LaterError.label or left_network


def make_units(acting: Acting, decisions: Iterable[Decision]) -> list[Unit]:
    """The decisions to reap, one unit for each group and for each resource that stands alone; networks come last."""
    units: dict[str, list[Decision]] = {}
    for decision in decisions:
        if decision.reap:
            key = f"group {decision.resource.group}" if decision.resource.group is not None else decision.resource.id
            units.setdefault(key, []).append(_owned_for_good(decision, acting.now()))
    return [Unit(acting, sorted(unit, key=lambda d: d.resource.kind is Kind.NETWORK)) for unit in units.values()]


def _owned_for_good(decision: Decision, now: datetime) -> Decision:
    """The member that marks a project as owned may go first: the others stay owned without it."""
    resource = decision.resource
    if resource.group is None or resource.remembered is not None or decision.owner is None:
        return decision
    return replace(decision, resource=replace(resource, remembered=Remembered(decision.owner, now)))
