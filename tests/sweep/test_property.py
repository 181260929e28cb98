"""The promise of safety.md over generated worlds, in which calls fail and people do what people do meanwhile."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reaper.core.decide import decide
from reaper.core.lease import Ending, Lease
from reaper.core.model import EndpointReport, Kind, Outcome, Report, Resource, State
from reaper.core.rules import Rules
from reaper.errors import (
    CallTimeoutError,
    ConflictError,
    DeniedError,
    DependencyError,
    ProviderError,
    RateLimitedError,
    ServerError,
    UnavailableError,
)
from reaper.providers.base import NOTHING_ELSE, Also, Call, Inventory, Limits
from reaper.providers.memory import Held, MemoryProvider, Rule
from reaper.retry.retrier import RetryPolicy
from reaper.sweep.ownership import Memory
from tests.sweep.lab import (
    CLIENT,
    EVERYTHING,
    FOREIGN,
    HOUR,
    MINUTE,
    NOW,
    OLD,
    STOPPED,
    Lab,
    elapse,
    image,
    network,
    running,
    stopped,
    volume,
)

T = TypeVar("T")

PROPERTY = settings(
    max_examples=100, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

GROUPS = ("p", "q")
NAMES = tuple(f"c{i}" for i in range(7))
NETWORKS = {group: f"net-{group}" for group in GROUPS}
RETRY = RetryPolicy(attempts=2)

ERRORS: tuple[ProviderError, ...] = (
    ServerError("500"),
    ServerError("503", retry_after=7),
    UnavailableError("reset"),
    CallTimeoutError("slow"),
    RateLimitedError("429"),
    RateLimitedError("429", retry_after=20),
    ConflictError("409"),
    DeniedError("403"),
)

# -- worlds ------------------------------------------------------------------------------------------------------------


@st.composite
def containers(draw: st.DrawFn, name: str) -> Held:
    make = draw(st.sampled_from((stopped, stopped, running)))
    group = draw(st.sampled_from((None, None, *GROUPS)))
    labels = draw(st.sampled_from(({}, {}, {}, {"reaper.keep": ""}, {"reaper.ttl": "10d"}, {"reaper.ttl": "soon"})))
    uses = frozenset({f"id-{NETWORKS[group]}"}) if group and draw(st.booleans()) else frozenset[str]()
    uses |= draw(st.sampled_from((frozenset[str](), frozenset({"data"}), frozenset({"id-built", "p_data"}))))
    resource = make(
        name,
        hours=draw(st.sampled_from((0.5, 1.001, 8, 30, 48, 48))),
        group=group,
        labels=labels,
        uses=uses,
        image=draw(st.sampled_from((CLIENT, CLIENT, CLIENT, FOREIGN))),
        restart_policy=draw(st.sampled_from(("no", "no", "no", "always"))),
    )
    if draw(st.integers(0, 9)) == 0:
        resource = replace(resource, state=State.STOPPED, raw_state="created", started_at=None, stopped_at=None)
    # One of no project may live in the PID namespace of one that was made before it.
    hosts = NAMES[: NAMES.index(name)] if group is None else ()
    host = draw(st.sampled_from((None, None, *hosts)))
    return Held(
        resource,
        stop_seconds=draw(st.sampled_from((0.0, 0.0, 3.0, math.inf))),
        removal_seconds=draw(st.sampled_from((0.0, 0.0, 0.1, 4.0, 40.0))),
        auto_remove=draw(st.integers(0, 9)) == 0,
        links=frozenset({f"id-{host}"}) if host else frozenset(),
    )


# A run that is over: only it takes volumes and images.
RUN = Lease("7f3a", "pid 4711", since=NOW - HOUR, ending=Ending(NOW, "killed"))
MINE = {"reaper.lease": "7f3a", "reaper.lease.image": "7f3a"}


@st.composite
def left_things(draw: st.DrawFn) -> list[Held]:
    found = []
    for make, name, group in (
        (volume, "data", None),
        (volume, "p_data", "p"),
        (image, "built", None),
        (image, "q_built", "q"),
    ):
        labels = draw(st.sampled_from((MINE, MINE, {"reaper.lease": "b2"}, {**MINE, "reaper.keep": ""})))
        made_at = draw(st.sampled_from((NOW - MINUTE, NOW - MINUTE, NOW - 2 * HOUR)))
        seconds = draw(st.sampled_from((0.0, 0.0, 3.0)))
        found.append(Held(make(name, labels, group=group, created_at=made_at), removal_seconds=seconds))
    return found


def worlds() -> st.SearchStrategy[list[Held]]:
    things = st.tuples(*(containers(name) for name in NAMES)).flatmap(lambda all_: st.integers(1, 7).map(lambda n: all_[:n]))
    nets = [Held(network(name, group)) for group, name in NETWORKS.items()]
    return st.tuples(things, left_things()).map(lambda some: [*some[0], *some[1], *(replace(net) for net in nets)])


@dataclass(frozen=True)
class Trouble:
    """Something that goes wrong at one call, or at all from there on."""

    method: str
    first: int
    lasting: bool
    error: ProviderError | None
    done: bool
    seconds: float

    def rule(self) -> Rule:
        calls = range(self.first, 10**6) if self.lasting else {self.first}
        hang = self.error is None and self.seconds == 0
        return Rule(self.method, calls=calls, error=self.error, hang=hang, done=self.done, seconds=self.seconds)


METHODS = st.sampled_from(("list", "inspect", "inspect", "members", "dependents", "stop", "delete", "delete", "delete"))
TROUBLES = st.lists(
    st.builds(
        Trouble,
        METHODS,
        st.integers(1, 12),
        st.sampled_from((False, False, False, True)),
        st.sampled_from((None, *ERRORS)),
        st.booleans(),
        st.sampled_from((0.0, 0.0, 3.0)),
    ),
    max_size=4,
)


def _label(lab: Lab, name: str) -> None:
    lab.relabel(name, {"reaper.keep": ""})


def _restart(lab: Lab, name: str) -> None:
    lab.world.start(name)
    lab.world.halt(name)


def _recreate(lab: Lab, name: str) -> None:
    group = found.group if (found := lab.world.get(name)) else None
    lab.world.remove(name)
    lab.world.add(running(name, hours=0, id=f"id-{name}-{len(lab.world.calls)}", group=group))


def _join(lab: Lab, name: str) -> None:
    group = GROUPS[NAMES.index(name) % 2]
    lab.world.add(running(f"new-{name}", hours=0, group=group, uses=frozenset({f"id-{NETWORKS[group]}"})))


def _inhabit(lab: Lab, name: str) -> None:
    lab.world.add(Held(running(f"guest-{name}", hours=0, image=FOREIGN), links=frozenset({f"id-{name}"})))


DEEDS: tuple[Callable[[Lab, str], object], ...] = (
    lambda lab, name: lab.world.start(name),
    lambda lab, name: lab.world.halt(name),
    lambda lab, name: lab.world.remove(name),
    lambda lab, name: lab.lease(name),
    _label,
    _restart,
    _recreate,
    _join,
    _inhabit,
)


@dataclass(frozen=True)
class Deed:
    """What a person does when some call is made, or when its answer is on its way."""

    method: str
    call: int
    late: bool
    what: int
    name: str

    def rule(self, lab: Lab) -> Rule:
        def act() -> None:
            DEEDS[self.what](lab, self.name)

        if self.late:
            return Rule(self.method, calls={self.call}, after=act)
        return Rule(self.method, calls={self.call}, before=act)


PEOPLE = st.lists(
    st.builds(Deed, METHODS, st.integers(1, 10), st.booleans(), st.integers(0, len(DEEDS) - 1), st.sampled_from(NAMES)),
    max_size=5,
)
RULES = st.sampled_from((Rules(policies=(STOPPED, OLD)), Rules(policies=(EVERYTHING,)), Rules(policies=(OLD,))))
LIMITS = st.sampled_from((Limits(), Limits(reads=1, removals=1, stops=1), Limits(reads=3, removals=2)))

# -- what must hold ----------------------------------------------------------------------------------------------------


class Watchful(MemoryProvider):
    """Remembers what the sweep could know: each inspection, and what a person looking on would have said."""

    def __init__(self, lab: Lab, limits: Limits) -> None:
        super().__init__(lab.world, "local", limits)
        self.lab = lab
        self.seen: dict[str, Resource] = {}
        self.wrong: list[str] = []

    async def list(self, call: Call, label_keys: frozenset[str] = frozenset(), also: Also = NOTHING_ELSE) -> Inventory:
        inventory = await super().list(call, label_keys, also)
        self.listed = inventory
        return inventory

    async def inspect(self, resource: Resource) -> Resource:
        fresh = await super().inspect(resource)
        self.seen[fresh.id] = fresh
        return fresh

    async def delete(self, resource: Resource, *, force: bool = False) -> None:
        if (seen := self.seen.get(resource.id)) is None:
            self.wrong.append(f"{resource.name} was deleted without an inspection")
        elif not self._reapable(seen):
            self.wrong.append(f"{resource.name} was not reapable when it was last inspected")
        await super().delete(resource, force=force)

    def _reapable(self, seen: Resource) -> bool:
        """By itself, as a running one would be judged had our stop not stopped it."""
        if seen.kind.opt_in:
            labels = seen.labels or {}
            young = seen.created_at is not None and seen.created_at > NOW - HOUR
            going = seen.state is State.CHANGING
            return going or (labels.get("reaper.lease") == RUN.id and "reaper.keep" not in labels and young)
        if seen.kind is Kind.NETWORK:
            return seen.state is State.STOPPED and "reaper.keep" not in (seen.labels or {})
        if seen.state is State.CHANGING:
            return True  # a removal is under way: deleting it again does no harm
        before = next((r for r in self.listed.resources if r.id == seen.id), seen)
        as_it_was = replace(seen, state=before.state, raw_state=before.raw_state, group=None, uses=frozenset())
        if seen.group is not None:
            as_it_was = replace(as_it_was, image=CLIENT)  # the group's sign may be on another member
        (alone,) = decide([as_it_was], self.lab.rules, (), self.lab.clock())
        return alone.reap


def check_report(lab: Lab, report: EndpointReport) -> None:
    there = {held.resource.id for held in lab.world.held() if held.resource.state is not State.CHANGING}
    ids = [result.decision.resource.id for result in report.results]
    assert len(ids) == len(set(ids)), "one result for each"
    for result in report.results:
        if result.outcome in (Outcome.DELETED, Outcome.GONE):
            assert result.decision.resource.id not in there, f"{result} is still there"
        waits = result.outcome is Outcome.SKIPPED and result.error == DependencyError.label
        assert (result.error is not None) == (result.outcome is Outcome.FAILED) or waits, result
    reaped = {decision.resource.id for decision in report.decisions if decision.reap}
    assert reaped <= set(ids), "a result for every decision to reap"
    if report.failure is not None:
        assert report.failure.label != "internal_error", report.failure


def check_removals(lab: Lab, things: list[Held]) -> None:
    """The world's own record: what was accepted for deletion. No labels are removed, so those at first are enough."""
    labels = {held.resource.id: held.resource.labels or {} for held in things}
    for resource, force in lab.world.removals:
        if resource.kind.opt_in:
            assert labels.get(resource.id, {}).get("reaper.lease") == RUN.id, f"{resource.name} has no owner"
            assert not force
        else:
            assert resource.image == CLIENT or resource.group is not None, f"{resource.name} is not owned"
        assert "reaper.keep" not in labels.get(resource.id, {}), f"{resource.name} is protected"
        assert labels.get(resource.id, {}).get("reaper.ttl") != "soon", (
            f"{resource.name} has a label override that cannot be read"
        )
        if resource.kind is Kind.CONTAINER:
            assert resource.created_at is not None
            assert force or resource.state is not State.RUNNING
    removed = {resource.id for resource, _ in lab.world.removals}
    for held in lab.world.held():
        if held.resource.id in labels and held.resource.state is not State.CHANGING:
            assert not held.links & removed, f"{held.resource.name} is there, and what it lives in was removed"
    counted = Counter(resource.id for resource, _ in lab.world.removals)
    assert all(count == 1 for count in counted.values())


async def swept(lab: Lab, limits: Limits) -> Report:
    provider = Watchful(lab, limits)
    lab.provider = provider
    report = await lab.sweep()
    assert not provider.wrong
    return report


@PROPERTY
@given(things=worlds(), troubles=TROUBLES, people=PEOPLE, rules=RULES, limits=LIMITS)
def test_the_promise(things: list[Held], troubles: list[Trouble], people: list[Deed], rules: Rules, limits: Limits) -> None:
    async def main() -> None:
        lab = Lab(*(replace(held) for held in things), rules=rules, retry=RETRY)
        lab.leases.append(RUN)
        at_first = {held.resource.id for held in things}
        lab.world.rules += [deed.rule(lab) for deed in people]
        lab.world.rules += [trouble.rule() for trouble in troubles]
        report = await swept(lab, limits)
        check_report(lab, report.endpoints[0])
        assert report.seconds < 3600

        # Faults and people stop: what is reapable now goes.
        lab.world.rules.clear()
        await anyio.sleep(60)  # removals under way end
        again = await swept(lab, limits)
        check_report(lab, again.endpoints[0])
        assert all(r.outcome in (Outcome.DELETED, Outcome.GONE) for r in again.results), again.results
        left = [replace(held.resource, uses=held.resource.uses | held.links) for held in lab.world.held()]
        assert not any(d.reap for d in decide(left, rules, lab.leases, lab.clock())), "the second sweep finishes the work"

        check_removals(lab, things)
        young = {r.id for r, _ in lab.world.removals if r.id not in at_first}
        assert not young or rules.policies == (EVERYTHING,), f"{young} came while it was swept"
        for lease in lab.leases:
            gone = lease.resources - {resource.id for resource in left}
            # What had been accepted for deletion when the lease came is not brought back by it.
            assert gone <= {r.id for r, _ in lab.world.removals} | at_first

    elapse(main)


@PROPERTY
@given(things=worlds(), rules=RULES, limits=LIMITS, lag=st.sampled_from((0.0, 0.003, 0.01, 0.024, 0.5, 5.0)))
def test_two_reapers_do_not_harm_each_other(things: list[Held], rules: Rules, limits: Limits, lag: float) -> None:
    async def main(folder: str) -> None:
        # A removal that outlasts the patience of the one who waits for it is a failure, and rightly so.
        quick = [replace(held, removal_seconds=min(held.removal_seconds, 4.0)) for held in things]
        lab, other = (Lab(*some, rules=rules, memory=Memory(Path(folder), "memory://local")) for some in (quick, ()))
        other.clock = lab.clock
        lab.leases, other.leases = [RUN], [RUN]
        first, second = Watchful(lab, limits), Watchful(lab, limits)
        lab.provider, other.provider = first, second
        at_first = [replace(held.resource, uses=held.resource.uses | held.links) for held in things]
        before = decide(at_first, rules, (RUN,), lab.clock())
        reports: list[Report] = []

        async def late() -> None:
            await anyio.sleep(lag)
            reports.append(await other.sweep())

        async with anyio.create_task_group() as group:
            group.start_soon(late)
            reports.append(await lab.sweep())
        # One may have finished the containers while the other was at them: the network then waits for its grace.
        lab.clock.start += 11 * MINUTE
        reports.append(await lab.sweep())

        assert not first.wrong
        assert not second.wrong
        for report in reports:
            check_report(lab, report.endpoints[0])
            assert report.endpoints[0].failure is None
            assert not [r for r in report.results if r.outcome is Outcome.FAILED]
        check_removals(lab, quick)
        expected = {d.resource.id for d in before if d.reap}
        assert {held.resource.id for held in lab.world.held()}.isdisjoint(expected), "all of it went"

    with TemporaryDirectory() as folder:
        elapse(main, folder)


async def _world_of(resource: Resource, lease: Lease | None) -> Lab:
    lab = Lab(resource)
    lab.leases = [lease] if lease else []
    await lab.sweep()
    return lab


def test_a_lease_from_the_start_keeps() -> None:
    resource = stopped("c0")
    assert elapse(_world_of, resource, Lease("l", "me", frozenset({resource.id}))).world.removals == []
    assert len(elapse(_world_of, resource, None).world.removals) == 1
