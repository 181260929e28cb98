"""The members of one unit: how they are looked at and asked, what is known of them, and what became of each.

Nothing here trusts the listing: every member is inspected again, the group's membership is read again, and anything
that changed since the decision, other than by our own stop, keeps the whole unit.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

import anyio

from reaper.core.accounts import LastLook
from reaper.core.decide import decide
from reaper.core.identity import same_group
from reaper.core.model import Action, Decision, Kind, Outcome, Resource, Result, State
from reaper.core.savings import freed_by
from reaper.errors import CircuitOpenError, DependencyError, InProgressError, NotFoundError, ProviderError, UnreadableError
from reaper.providers.base import Call
from reaper.retry.retrier import Look
from reaper.sweep.context import ChangedError, Context, carried, difference, each, subject, what_changed
from reaper.sweep.result import is_worth_another_round
from reaper.sweep.unit_calls import UnitCalls
from reaper.sweep.usage import is_by_use

T = TypeVar("T")

MOST_LOOKS = 3
AGING = timedelta(seconds=1)  # so long a wait for a deletion's turn means that too many wait
LISTED = timedelta(seconds=5)  # so long a listing of all says what depends on a resource that stands alone
STALE = timedelta(seconds=2)  # a look at a resource that is older than this is taken again just before its deletion


@dataclass
class Members:
    """The members of one unit.

    Args:
        decisions: of all its members, its networks and pods last.
        results: by resource id, as far as they are known. ``DELETED`` is not confirmed yet.
        retryable: whether a member failed in a way that another round may mend.
        waits: whether a member can go only when something else is gone.
    """

    context: Context
    decisions: Sequence[Decision]
    results: dict[str, Result] = field(default_factory=dict)
    retryable: bool = False
    waits: bool = False
    _started: float = 0.0
    _attempts: dict[str, int] = field(default_factory=dict)
    _unanswered: set[str] = field(default_factory=set)  # deletions that may have taken effect, since no answer came
    _asked_to_stop: set[str] = field(default_factory=set)
    _halted: set[str] = field(default_factory=set)  # of these, what has obeyed
    _orders: dict[str, int] = field(default_factory=dict)  # requests to stop or archive for good
    _looked_at: dict[str, float] = field(default_factory=dict)
    _free_until: dict[str, float] = field(default_factory=dict)  # until when it need not be asked again what depends on them
    _seen: dict[str, LastLook] = field(default_factory=dict)
    _acted_on: dict[str, LastLook] = field(default_factory=dict)  # as they were last seen before that
    _freed: dict[str, int] = field(default_factory=dict)  # what the endpoint has said itself

    def __post_init__(self) -> None:
        self._calls = UnitCalls(self.context)

    @property
    def key(self) -> str:
        """What distinguishes it from the other units."""
        return self.decisions[0].resource.id

    @property
    def action(self) -> Action:
        """What is to be done with all of them."""
        return self.decisions[0].action

    @property
    def unanswered(self) -> frozenset[str]:
        """The ids of what may be gone, since no answer to its deletion came."""
        return frozenset(self._unanswered)

    def _joined(self) -> list[Decision]:
        """Its networks and pods."""
        return [d for d in self._open() if d.resource.kind.joined]

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
        resources = [d.resource for d in open_ if not d.resource.kind.joined]
        self.context.check_below(resources, {d.resource.id for d in self.decisions})
        listed = await self._current_members(first)
        began = anyio.current_time()
        fresh = await self._still_the_same(resources)
        self._check_listed(listed, fresh)
        await self._not_used_since(fresh, self._calls.list)
        await self._nothing_depends(fresh, self._calls.list)
        if anyio.current_time() - began > AGING.total_seconds() and self.context.provider.limits.together is None:
            fresh = await self._still_the_same(resources)  # listings have taken long
        self._judge(fresh, first)
        return fresh

    def _judge(self, fresh: Iterable[Resource], first: Resource) -> None:
        """Decide again, with these as they are now, but for what our stop has done. Raises ChangedError when one is kept."""
        asked = self._asked_to_stop  # what runs all the same may have been started again, and be used
        now = {r.id: r for r in fresh if (r.id not in asked or r.state is State.RUNNING) and not self._is_ours(r)}
        everything = [now.get(d.resource.id, d.resource) for d in self.decisions]
        rules, leases = self.context.rules(self.decisions), self.context.leases()
        proofs = self.context.proofs(everything)
        for decision in decide(everything, rules, leases, self.context.now(), proofs=proofs):
            if not decision.reap:
                raise ChangedError(f"{subject(decision.resource, first)} is to be kept now: {decision.sentence}")
            if decision.action.strength < self.action.strength:
                what = f"is only to be {decision.action.done} now"
                raise ChangedError(f"{subject(decision.resource, first)} {what}: {decision.sentence}")

    async def _still_the_same(self, resources: Sequence[Resource]) -> list[Resource]:
        """The resources as they are now. Raises ChangedError when one of them is not as it was."""
        fresh = await self._inspect(resources)
        before, since = {resource.id: resource for resource in resources}, self.context.listed.at
        for resource in fresh:
            ours = resource.id in self._asked_to_stop
            if self._is_ours(resource):
                continue
            if why := what_changed(before[resource.id], resource, stopped_by_us=ours, listed_at=since):
                raise ChangedError(f"{subject(resource, resources[0])} {why}")
        return fresh

    def _is_ours(self, resource: Resource) -> bool:
        """Whether it is changing by this sweep's own request, which was not refused: asking again shows how far it is."""
        return self.context.is_ours(resource, self.action, self._asked_to_stop, self._unanswered)

    def _check_listed(self, listed: Collection[str], fresh: Iterable[Resource]) -> None:
        """Raises UnreadableError when the listing of a group lacks one that is there: others may be missing as well.

        Where a deletion is only accepted, what has been asked to go may leave the listing before the look by id knows.
        """
        left = self._attempts if self.context.confirmer is not None else ()
        for resource in fresh:
            if resource.group is not None and resource.kind.runs and resource.id not in {*listed, *left}:
                its = f"{resource.group_word} {resource.group}"
                raise UnreadableError(f"the listing of its {its} lacks {resource.name}, which is there")

    async def _current_members(self, first: Resource, call: Call | None = None) -> set[str]:
        """The ids of the group's members now. Raises ChangedError when one has changed, or is none of this unit's."""
        if first.group is None:
            return {first.id}
        members = await self.context.provider.members(first, call or self._calls.list)
        self._check_members(members, first)
        return {member.id for member in members}

    def _check_members(self, members: Iterable[Resource], first: Resource) -> None:
        """Raises ChangedError when a listing of the group shows one that has changed, or is none of this unit's."""
        members = self.context.without_hanging(members)
        self._check_known(members, first)
        for member in members:
            if (why := self._listed_change(member)) is not None:
                raise ChangedError(f"{subject(member, first)} {why}")

    def _listed_change(self, listed: Resource) -> str | None:
        """How others have changed a member by what a listing shows, which is without times and may use other words."""
        before, result = self._decision(listed).resource, self.results.get(listed.id)
        half_removed = listed.state is State.FAILED and listed.id in self._attempts
        half_removed |= before.state is State.FAILED and listed.raw_state == "removing"  # Docker lists it so for ever
        if (
            half_removed
            or listed.id in self._asked_to_stop | self._unanswered
            or (result is not None and result.outcome.removed)
        ):
            return None
        if listed.state not in (before.state, State.UNKNOWN):
            return f"was {before.raw_state} and is {listed.raw_state} now"
        return "has other labels now" if listed.labels not in (None, before.labels) else None

    def _check_known(self, members: Iterable[Resource], first: Resource) -> None:
        known = {decision.resource.id for decision in self.decisions}
        if joined := sorted(member.name for member in members if member.id not in known):
            done = "is still in" if first.kind.opt_in else "joined"
            raise ChangedError(f"{', '.join(joined)} {done} its {first.group_word} {first.group}")

    async def _not_used_since(self, resources: Sequence[Resource], call: Call) -> None:
        """Raises ChangedError when one of these, which a policy takes for itself, was used since it was listed."""
        if (used := self.context.used_since) is None:
            return
        for resource in resources:
            if is_by_use(self._decision(resource)) and (why := await used.why(resource, call)) is not None:
                raise ChangedError(f"it {why}")

    async def _nothing_depends(self, resources: Sequence[Resource], call: Call) -> None:
        """Raises ChangedError when something that stays depends on one of these now, or when their group has changed."""
        resources = [resource for resource in resources if resource.kind.stage < Kind.VOLUME.stage]
        if not resources:
            return
        first, until = resources[0], anyio.current_time() + LISTED.total_seconds()
        found = await self.context.provider.dependents(resources, self.context.listed, call)
        members = [one for one in found if same_group(one, first)]
        self._check_members(members, first)
        there = {member.id for member in members} | self._asked_to_stop | self._attempts.keys()
        if members and len(resources) > 1 and not all(resource.id in there for resource in resources):
            raise ChangedError(f"its {first.group_word} {first.group} has lost a member")
        if stays := self._that_stay(found):
            used = next((r for r in resources if r.id in stays[0].uses), first)
            raise ChangedError(f"{stays[0].name}, which is kept, uses {subject(used, first)}")
        self._free_until |= {resource.id: until for resource in resources}

    def _that_stay(self, found: Iterable[Resource]) -> list[Resource]:
        """Those of these that are none of this unit's, and do not go in this sweep, or were to go and stay."""
        mine = {decision.resource.id for decision in self.decisions}
        return [one for one in found if one.id not in mine and one.id not in self.context.going]

    async def _user_of(self, resource: Resource) -> str | None:
        """What stays and depends on this one now, or has joined its group, in words."""
        found = await self.context.provider.dependents([resource], self.context.listed, self._calls.list)
        for one in self._that_stay(found):
            joined = resource.id not in one.uses and same_group(one, resource)
            return f"{one.name} joined its {resource.group_word}" if joined else f"{one.name}, which is kept, uses it"
        return None

    async def _linked_are_gone(self, fresh: Sequence[Resource]) -> None:
        """Wait for what is linked to a member and is reaped as well. Raises ChangedError when that stays."""
        if self.context.dependents is None or not fresh:
            return
        self.context.dependents.inspected(self.key)
        own, look = [decision.resource.id for decision in self.decisions], partial(self._inspected, call=self._calls.read)
        for linked in await self.context.dependents.linked_to(self.key, own, look):
            result = self.context.results.get(linked.id)
            if result is None or not result.outcome.removed:
                why = f": {result.detail}" if result is not None and result.detail else ""
                how = "is" if linked.uses else "may be"
                detail = f"{linked.name}, which {how} linked to it and would go with it, stays{why}"
                if result is not None and result.outcome is Outcome.FAILED:  # in another round it may be gone
                    self.retryable = True
                    self._settle_rest(Outcome.SKIPPED, detail, error=DependencyError.label)
                raise ChangedError(detail)

    async def _inspected(self, resource: Resource, call: Call) -> Resource:
        what = f"inspect {resource.kind} {resource.name}"
        fresh = carried(resource, await call(what, lambda: self.context.provider.inspect(resource)))
        if fresh.state is State.FAILED and resource.state is State.STOPPED and fresh.id in self._attempts:
            # This sweep's own deletion has failed half-way, which Docker calls dead. That is no change by others.
            fresh = replace(fresh, state=resource.state, raw_state=resource.raw_state)
        decided = next((d.resource for d in self.decisions if d.resource.id == fresh.id), None)
        if decided is not None and not self._is_ours(fresh):
            ours = fresh.id in self._asked_to_stop
            differs = difference(decided, fresh, stopped_by_us=ours, listed_at=self.context.listed.at)
            self._seen[fresh.id] = LastLook(self.context.now(), fresh.raw_state, differs)
        return fresh

    def _record_look(self, resource: Resource) -> None:
        """Something is about to be done to it: what was seen of it last is what that rests on, and nothing else after it.

        Were the answer lost, it might be gone, and its id be taken for the name of another one.
        """
        self._looked_at.pop(resource.id, None)
        self._free_until.pop(resource.id, None)
        if (seen := self._seen.get(resource.id)) is not None:
            self._acted_on[resource.id] = replace(seen, acted=True)

    async def _inspect_one(self, resource: Resource) -> Resource:
        fresh = await self._inspected(resource, self._calls.read)
        if self.context.dependents is not None:
            self.context.dependents.saw(self.key, fresh)
        self._looked_at[resource.id] = anyio.current_time()
        return fresh

    def _last_look(self, resource: Resource) -> Look:
        """The look at what had to wait for a change. Raises as its attempt does, ChangedError included."""
        asked, slots, is_first = anyio.current_time(), self.context.slots, True

        def stale() -> bool:
            nonlocal is_first
            now, looked_at = anyio.current_time(), self._looked_at.get(resource.id)
            is_first = is_first and looked_at is not None
            if is_first and now - asked > AGING.total_seconds():
                self.context.crowded()
            return looked_at is None or now - looked_at > STALE.total_seconds()

        async def take(make: Call, reads: AbstractAsyncContextManager[object]) -> None:
            def within(limit: AbstractAsyncContextManager[object]) -> Call:
                async def limited(what: str, function: Callable[[], Awaitable[T]]) -> T:
                    async with limit:
                        return await make(what, function)

                return limited

            call, listing = within(reads), within(slots.listings)
            for _ in range(MOST_LOOKS):
                began = anyio.current_time()
                listed = await self._current_members(resource, listing)
                if (fresh := await self._look_by_id(resource, call, listed)) is None:
                    return
                await self._not_used_since([fresh], listing)
                if resource.group is not None or anyio.current_time() > self._free_until.get(resource.id, 0.0):
                    await self._nothing_depends([fresh], listing)
                self._judge([fresh], resource)
                self._looked_at[resource.id] = anyio.current_time()
                if anyio.current_time() - began <= STALE.total_seconds():
                    return
            # The last of these looks had to wait for their budget each time: that by id at least is made just before.
            await self._look_by_id(resource, call, listed)

        return Look(stale, lambda call: take(call, nullcontext()), lambda call: take(call, slots.reads))

    async def _look_by_id(self, resource: Resource, call: Call, listed: Collection[str]) -> Resource | None:
        """It as it is now; None where its removal is under way and may be asked for again. Raises ChangedError."""
        fresh = await self._inspected(resource, call)
        self._check_listed(listed, (fresh,))
        self._looked_at[resource.id] = anyio.current_time()
        if self._is_ours(fresh):
            if self.context.confirmer is None:
                # Another request would be refused, or keep waiting until the removal has ended (Docker since 26).
                raise InProgressError("its removal is under way")
            return None
        if why := what_changed(resource, fresh, stopped_by_us=resource.id in self._asked_to_stop):
            raise ChangedError(f"it {why}")
        return fresh

    async def _inspect(self, resources: Sequence[Resource]) -> list[Resource]:
        fresh: dict[str, Resource] = {}

        async def one(resource: Resource) -> None:
            try:
                fresh[resource.id] = await self._inspect_one(resource)
            except NotFoundError:
                self._gone(self._decision(resource))

        await each(resources, one)
        if fresh and len(fresh) < len(resources):
            raise ChangedError(f"its {resources[0].group_word} {resources[0].group} has lost a member")
        return list(fresh.values())

    # -- results -------------------------------------------------------------------------------------------------------

    def _failed(self, decision: Decision, error: ProviderError) -> None:
        self.retryable = self.retryable or error.retryable or isinstance(error, CircuitOpenError)
        self._settle(decision, Outcome.FAILED, error.advice, error=error.label)

    def _accepted(self, decision: Decision, detail: str = "") -> None:
        """Its deletion was accepted. Where that is not all, the others learn of it when it is confirmed."""

        def confirmed() -> None:
            self._settle(decision, Outcome.DELETED, detail)

        if self.context.confirmer is None:
            confirmed()
        else:
            self.results[decision.resource.id] = self._result(decision, Outcome.DELETED)
            self.context.results[decision.resource.id] = self.results[decision.resource.id]
            self.context.confirmer.add(decision.resource, confirmed)

    def _settle_rest(self, outcome: Outcome, detail: str, error: str | None = None) -> None:
        for decision in self._open():
            self._settle(decision, outcome, detail, error)

    def _gone(self, decision: Decision) -> None:
        if self.context.dependents is not None:
            self.context.dependents.gone(decision.resource.id)
        if decision.resource.id in self._unanswered:
            self._accepted(decision, "the answer to its deletion was lost")
        elif decision.resource.id in self._halted and decision.resource.lost_when_stopped:
            self._accepted(decision, "it was removed by being stopped")
        else:
            self._settle(decision, Outcome.GONE, "another client removed it first")

    def _decision(self, resource: Resource) -> Decision:
        return next(d for d in self.decisions if d.resource.id == resource.id)

    def _settle(self, decision: Decision, outcome: Outcome, detail: str, error: str | None = None) -> None:
        id_ = decision.resource.id
        self.results[id_] = self.context.results[id_] = result = self._result(decision, outcome, detail, error)
        if not outcome.removed:
            self.context.going.discard(id_)
        self.context.settled(result)

    def _result(self, decision: Decision, outcome: Outcome, detail: str = "", error: str | None = None) -> Result:
        resource = decision.resource
        return Result(
            decision,
            outcome,
            detail,
            self._attempts.get(resource.id, 0) + self._orders.get(resource.id, 0),
            anyio.current_time() - self._started,
            error,
            freed_by(resource, self._freed.get(resource.id)) if outcome is Outcome.DELETED else None,
            self._acted_on.get(resource.id) or self._seen.get(resource.id),
            None if self.context.evidence is None else self.context.evidence.saved.get(resource.id),
        )

    def reopen(self) -> None:
        """Forget the failures, and what was left because of them (networks, volumes, images), for another round."""
        self._calls.begun = self.waits = False
        self.results = {id_: result for id_, result in self.results.items() if not is_worth_another_round(result)}
