"""Reaping one unit: a resource that stands alone, or a group. Look again, stop, delete, in that order."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

import anyio

from reaper.acting import AbandonedError, Acting, ChangedError, what_changed
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
from reaper.members import Members
from reaper.model import Decision, Kind, Outcome, Remembered, Resource, State
from reaper.waiting import not_changing, until

T = TypeVar("T")

REMOVAL_PATIENCE = timedelta(seconds=30)
STOP_PATIENCE = timedelta(seconds=60)


class Unit(Members):
    """One unit on its way out."""

    @property
    def has_running(self) -> bool:
        """Whether a member ran when it was decided about and must be stopped: then the unit waits for that."""
        if not self.acting.provider.traits.stops_first:
            return False
        return any(d.resource.state is State.RUNNING and d.resource.kind.runs for d in self.decisions)

    @property
    def stage(self) -> int:
        """When its turn is: nothing of it can go before all units of an earlier stage have gone, which may use it."""
        return min(d.resource.kind.stage for d in self.decisions)

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
            self._accepted(decision)

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
        elif seen.state in (State.STOPPED, State.FAILED):
            self._settle(decision, Outcome.STOPPED, f"{why}; it is {seen.raw_state} now", error=denied.label)
        else:
            self._failed(decision, error)

    async def _delete_networks(self) -> None:
        """The project's networks go last, and only when all its containers are gone."""
        networks = self._networks()
        if not networks:
            return
        containers = (d.resource.id for d in self.decisions if d.resource.kind is not Kind.NETWORK)
        if not all(self.results[id_].outcome.away for id_ in containers):
            for decision in networks:
                self._settle(decision, Outcome.SKIPPED, "its project's containers are not all gone")
            return
        before = networks[0].resource
        members = await self.acting.provider.members(before, self._listing) if before.group is not None else ()
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


def make_units(acting: Acting, decisions: Iterable[Decision]) -> list[Unit]:
    """The decisions to reap, one unit for each group and for each resource that stands alone; networks come last.

    The volumes of a group are a unit of their own, and so are its images: others than the group's containers may use them,
    so they wait for their stage.
    """
    units: dict[tuple[str, ...], list[Decision]] = {}
    for decision in decisions:
        if decision.reap:
            resource = decision.resource
            what = resource.kind.value if resource.kind.only_with_lease else "group"
            key = (what, resource.group) if resource.group is not None else (resource.id,)
            units.setdefault(key, []).append(_owned_for_good(decision, acting.now()))
    return [Unit(acting, sorted(unit, key=lambda d: d.resource.kind.stage)) for unit in units.values()]


def _owned_for_good(decision: Decision, now: datetime) -> Decision:
    """The member that marks a project as owned may go first: the others stay owned without it."""
    resource = decision.resource
    if resource.group is None or resource.remembered is not None or decision.owner is None:
        return decision
    return replace(decision, resource=replace(resource, remembered=Remembered(decision.owner, now)))
