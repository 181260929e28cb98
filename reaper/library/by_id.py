"""Deleting and stopping exactly what the caller named, by the program's own core and its safety rules.

An explicit id is the caller's claim of ownership: to the core it is what a lease left that has ended. Everything else holds:
what is protected stays, what another's lease covers stays, and a member of a group stays while the group has members that
was not claimed.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import anyio

from reaper.core.conditions import EXPIRES_LABEL, TTL_LABEL
from reaper.core.decide import decide
from reaper.core.lease import Ending, Lease
from reaper.core.model import TIME_UP, Decision, Kind, Outcome, Reason, Report, Resource, State
from reaper.core.rules import KEEP_LABEL, Rules
from reaper.core.scope import LEASE_LABEL, Protect, Scope, Selector
from reaper.errors import ConflictError, InvalidError, NotFoundError, UnreadableError
from reaper.library.access import Access, ReadLeases, failure
from reaper.library.errors import CleanupError, RetryableCleanupError
from reaper.library.lease import own_leases
from reaper.providers.abilities import Evidence, GivesEvidence, HidesFailures, Linking
from reaper.providers.base import NOTHING_ELSE, Also, Call, Inventory, Listed, Provider
from reaper.retry.retrier import Retrier
from reaper.session import Session
from reaper.sweep.sweep import Options

LONG_STOP = timedelta(seconds=10)  # a container's longer grace comes on top of the time of the operation
PAUSE = 1.0  # seconds until something that was changing is looked at again
_OVERRIDES = (KEEP_LABEL, TTL_LABEL, EXPIRES_LABEL)
_NOTHING = Scope(presets=(), selector=Selector())


class ForeignLeaseError(ConflictError):
    """Its label names a lease that is unknown here: it may be another reaper's."""


class _Claimed:
    """A client for the sake of one resource: it finds it though no listing has it yet, and deletes nothing else.

    Args:
        inner: the client.
        wanted: the resource's id.
        kind: what it is.
        alone: neither its group nor its own label overrides count: its caller overrules what protects it.
        leases: reads the leases of this host.
        may_stop: False leaves alone what runs.
    """

    def __init__(
        self, inner: Provider, wanted: str, kind: Kind, leases: ReadLeases, *, alone: bool, may_stop: bool = True
    ) -> None:
        self.endpoint, self.provider, self.identity = inner.endpoint, inner.provider, inner.identity
        self.limits, self.traits = inner.limits, inner.traits
        self._inner = inner
        self._wanted = wanted
        self._kind = kind
        self._leases = leases
        self._alone = alone
        self._may_stop = may_stop

    @property
    def endpoint_id(self) -> str | None:
        return self._inner.endpoint_id

    async def list(
        self,
        call: Call,
        label_keys: frozenset[str] = frozenset(),  # noqa: ARG002 - just one goes
        also: Also = NOTHING_ELSE,  # noqa: ARG002
    ) -> Inventory:
        inventory = await self._inner.list(call)
        resources = inventory.resources
        if all(resource.id != self._wanted for resource in resources):  # a listing may lag
            if (meant := _meant(self._wanted, resources)) is not None:
                raise InvalidError(f"{self._wanted} is the id of none: that of {meant.kind} {meant.name} is {meant.id}")
            stub = _stub(self._inner, self._wanted, self._kind)
            try:
                resources = (*resources, await call(f"inspect {self._wanted}", lambda: self._inner.inspect(stub)))
            except NotFoundError:
                return inventory
        return replace(inventory, resources=tuple(self._seen(resource) for resource in resources))

    async def identify(self, call: Call) -> None:
        await self._inner.identify(call)

    async def inspect(self, resource: Resource) -> Resource:
        return self._seen(await self._inner.inspect(resource))

    async def members(self, resource: Resource, call: Call) -> Sequence[Resource]:
        return [self._seen(member) for member in await self._inner.members(resource, call)]

    async def dependents(self, resources: Sequence[Resource], listed: Listed, call: Call) -> Sequence[Resource]:
        return await self._inner.dependents(resources, listed, call)

    async def links(self, call: Call) -> Mapping[str, frozenset[str]]:
        return await self._inner.links(call) if isinstance(self._inner, Linking) else {}

    async def remainder(self, resource: Resource, call: Call) -> str | None:
        return await self._inner.remainder(resource, call) if isinstance(self._inner, HidesFailures) else None

    async def evidence(self, resource: Resource, lines: int) -> Evidence:
        if not isinstance(self._inner, GivesEvidence):
            raise UnreadableError("its provider has none")
        return await self._inner.evidence(resource, lines)

    async def stop(self, resource: Resource, grace: timedelta) -> None:
        self._check(resource)
        if not self._may_stop:
            raise ConflictError("it is running; force=True stops it first")
        await self._inner.stop(resource, grace)

    async def delete(self, resource: Resource, *, force: bool = False) -> None:
        self._check(resource)
        await self._inner.delete(resource, force=force)

    async def close(self) -> None:
        await self._inner.close()

    def _check(self, resource: Resource) -> None:
        if resource.id != self._wanted:
            raise InvalidError(f"{resource.name} is not what was named")

    def _seen(self, resource: Resource) -> Resource:
        """The resource as the rules are to see it. Raises ForeignLeaseError."""
        if resource.id != self._wanted:
            return resource
        labels = resource.labels or {}
        if self._alone:
            bare = {key: value for key, value in labels.items() if key not in _OVERRIDES}
            return replace(resource, labels=None if resource.labels is None else bare, group=None)
        lease = labels.get(LEASE_LABEL)
        if lease is not None and lease not in own_leases() and not self._leases().has(lease):
            raise ForeignLeaseError(
                f"its label names the lease {lease}, which is not known here: it may be another reaper's"
            )
        return resource


def _meant(wanted: str, resources: Sequence[Resource]) -> Resource | None:
    """The one that is called so, or whose id it is but for capitals: to say of it that it is gone would be wrong.

    Not where it may be the id of one that is gone, which Daytona makes the name of one that has none: another one that was
    made under the name of the first is not meant.
    """
    try:
        is_id = str(UUID(wanted)) == wanted
    except ValueError:
        is_id = False
    return None if is_id else next((one for one in resources if wanted == one.name or wanted.lower() == one.id), None)


def _stub(client: Provider, id_: str, kind: Kind) -> Resource:
    """As much of a resource as a look by id takes."""
    return Resource(
        provider=client.provider,
        endpoint=client.endpoint,
        kind=kind,
        id=id_,
        name=id_,
        state=State.UNKNOWN,
        raw_state="",
        created_at=None,
        labels=None,
    )


def _claim(id_: str) -> Lease:
    """The caller's claim: the core takes what it names, and nothing else."""
    owner = f"pid {os.getpid()} on {os.uname().nodename}"
    return Lease(f"named-{id_[:12]}", owner, frozenset({id_}), ending=Ending(datetime.now(UTC), "it was named"))


def _rules(access: Access, stop_timeout: timedelta, *, even_protected: bool) -> Rules:
    rules = access.settings.rules()
    protect = Protect(Selector(), ()) if even_protected else rules.protect
    return replace(rules, scope=_NOTHING, protect=protect, policies=(), stop_timeout=stop_timeout)


async def delete(
    access: Access,
    id_: str,
    kind: Kind,
    *,
    even_protected: bool = False,
    stop_timeout: timedelta = LONG_STOP,
    force: bool = True,
) -> Outcome:
    """Delete exactly this: look again, stop, remove, confirm, with retries and within the access's time.

    Args:
        access: where it is.
        id_: its whole id.
        kind: what it is.
        even_protected: neither [protect], its own labels, its group nor another's lease keep it.
        stop_timeout: what a running container gets to stop by itself.
        force: stop it first when it runs.

    Returns:
        DELETED, or GONE when it was not there any more.

    Raises:
        RetryableCleanupError: another try may help.
        CleanupError: it is kept, or cannot be deleted; the message says why.
    """
    end, waited = anyio.current_time() + access.timeout, None
    while True:
        left = end - anyio.current_time()
        try:
            return await _delete(access, id_, kind, stop_timeout, left, even_protected=even_protected, force=force)
        except RetryableCleanupError as error:
            if waited is not None and error.report is not None and error.report.interrupted == TIME_UP:
                raise waited from None  # it says more than that the time was up
            if not error.soon or left < 2 * PAUSE:
                raise
            waited = error
        await anyio.sleep(min(PAUSE, max(end - anyio.current_time(), 0)))
        if anyio.current_time() >= end:
            raise waited


async def _delete(
    access: Access, id_: str, kind: Kind, stop_timeout: timedelta, within: float, *, even_protected: bool, force: bool
) -> Outcome:
    claim = _claim(id_)

    def others(read: ReadLeases) -> Sequence[Lease]:
        own = own_leases()
        living = () if even_protected else (one for one in read().open if one.id not in own)
        return (claim, *living)

    report = await access.sweep(
        _rules(access, stop_timeout, even_protected=even_protected),
        Options(max_deletions=0, max_lease_deletions=1),  # more than the one would be a bug
        leases=others,
        wrap=lambda client, read: _Claimed(client, id_, kind, read, alone=even_protected, may_stop=force),
        extra=max(stop_timeout - LONG_STOP, timedelta(0)),
        within=within,
    )
    return _outcome(report, id_)


def _outcome(report: Report, id_: str) -> Outcome:
    """What became of the one. Raises CleanupError unless it is gone."""
    endpoint = report.endpoints[0]
    result = next((one for one in endpoint.results if one.decision.resource.id == id_), None)
    if result is not None and result.outcome.removed:
        return result.outcome
    decision = next((one for one in endpoint.decisions if one.resource.id == id_), None)
    name = decision.resource.name if decision is not None else id_
    if endpoint.failure is not None:
        raise failure(endpoint.failure.label, f"{name}: {endpoint.failure.message}", report)
    if report.interrupted == TIME_UP:
        raise RetryableCleanupError(f"{name}: the time was up", report)
    if result is not None:
        raise _unsuccessful(name, result.outcome, result.detail, result.error, report)
    if endpoint.cap is not None:
        raise CleanupError(f"{name}: {endpoint.cap.wanted} would have gone with it: nothing was deleted", report)
    if decision is not None:
        raise kept(decision, report)
    return Outcome.GONE


def _unsuccessful(name: str, outcome: Outcome, detail: str, error: str | None, report: Report) -> CleanupError:
    text = f"{name} was not deleted: {detail}"
    if outcome is Outcome.FAILED or error is not None:
        return failure(error, text, report)
    return RetryableCleanupError(text, report, soon=True)  # it changed while it was looked at, or the sweep ended first


def kept(decision: Decision, report: Report | None = None) -> CleanupError:
    """The error that says why it is kept."""
    text = f"{decision.resource.name} is kept: {decision.sentence}"
    if decision.reason in (Reason.CHANGING, Reason.UNREADABLE):
        return RetryableCleanupError(text, report, soon=True)
    if decision.reason not in (Reason.SYSTEM_CONTAINER, Reason.IN_USE, Reason.UNKNOWN_STATE):
        text += "; even_protected=True overrules that"
    return CleanupError(text, report)


async def stop(
    access: Access, id_: str, kind: Kind, *, even_protected: bool = False, stop_timeout: timedelta = LONG_STOP
) -> Outcome:
    """Stop exactly this, unless the rules would keep it from being deleted; see ``delete``.

    Returns:
        STOPPED, or GONE when it is not there any more.
    """
    claim, own = _claim(id_), own_leases()

    async def work(session: Session) -> Outcome:
        (endpoint,) = session.endpoints
        assert isinstance(endpoint.reader, Provider)
        retrier: Retrier = endpoint.retrier
        client = _Claimed(endpoint.reader, id_, kind, session.leases, alone=even_protected)
        found = await client.list(retrier.call)
        living = () if even_protected else tuple(x for x in session.leases().open if x.id not in own)
        if found.clock_problem is not None:
            raise RetryableCleanupError(f"{id_} was not stopped: {found.clock_problem}")
        named = next((one for one in found.resources if one.id == id_), None)
        if named is None:
            return Outcome.GONE
        fresh = await retrier.call(f"inspect {named.name}", lambda: client.inspect(named))
        everything = [fresh if one.id == id_ else one for one in found.resources]
        rules = _rules(access, stop_timeout, even_protected=even_protected)
        decisions = decide(everything, rules, (claim, *living), datetime.now(UTC) + found.clock_skew)
        decision = next(one for one in decisions if one.resource.id == id_)
        if not decision.reap:
            raise kept(decision)
        if fresh.state is not State.RUNNING:
            return Outcome.STOPPED

        async def act() -> Outcome:
            await retrier.call(
                f"stop {named.name}", lambda: client.stop(fresh, stop_timeout), extra=stop_timeout, changes=True
            )
            after = await retrier.call(f"inspect {named.name}", lambda: client.inspect(fresh))
            if after.state is State.RUNNING:
                raise RetryableCleanupError(f"{after.name} was asked to stop, and is {after.raw_state}")
            return Outcome.STOPPED

        return await access.on_record(session, decision, act)

    async def unless_gone(session: Session) -> Outcome:
        try:
            return await work(session)
        except NotFoundError:
            return Outcome.GONE

    return await access.acting(unless_gone, extra=max(stop_timeout - LONG_STOP, timedelta(0)))
