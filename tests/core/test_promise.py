"""The promise at the top of safety.md, over generated worlds."""

from collections import Counter
from random import Random

from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from reaper.core.conditions import Policy
from reaper.core.lease import Lease
from reaper.core.model import Kind, Reason
from reaper.core.scope import Selector
from tests.core.make import ALL_KINDS, EVERYTHING
from tests.core.oracle import Oracle, key
from tests.core.strategies import ENDED, PROPERTY, World, aggressive, worlds

NARROWED = Policy("all", ALL_KINDS, every_resource=True, selectors=(Selector(names=("trial-*",)),))


def check(world: World, due: tuple[str, ...] | None = None) -> None:
    """Nothing that must stay goes, and nothing that is used by something that stays."""
    oracle = Oracle(world)
    decisions = world.decide(due)
    kept = {key(decision.resource) for decision in decisions if not decision.reap}
    used = {(d.resource.endpoint, used) for d in decisions if not d.reap for used in d.resource.uses}
    for decision in decisions:
        assert not (decision.reap and oracle.forbidden(decision.resource)), oracle.forbidden(decision.resource)
        assert not (decision.reap and key(decision.resource) in used), "something that is kept uses it"
    assert oracle.stays(due) <= kept


@PROPERTY
@given(worlds())
def test_the_promise_under_ordinary_policies(world: World) -> None:
    check(world)


@settings(PROPERTY, max_examples=400)
@given(worlds(), ENDED)
def test_the_promise_after_a_lease_that_has_ended(world: World, lease: Lease) -> None:
    check(world.after(lease))


@PROPERTY
@given(worlds(), st.sampled_from((EVERYTHING, NARROWED)))
def test_the_promise_under_all(world: World, policy: Policy) -> None:
    check(world.ask((policy,)))


@PROPERTY
@given(worlds())
def test_the_promise_under_aggressive(world: World) -> None:
    check(world.ask(aggressive(world.rules.policies)))


@PROPERTY
@given(worlds(), st.sets(st.sampled_from(("policy-0", "policy-1", "unknown"))))
def test_the_promise_when_only_some_policies_are_due(world: World, due: set[str]) -> None:
    check(world, tuple(due))


@settings(PROPERTY, max_examples=400)
@given(worlds(), st.sampled_from((None, EVERYTHING, NARROWED)))
def test_what_nothing_keeps_is_reaped(world: World, policy: Policy | None) -> None:
    # The other half: a reaper that keeps everything would keep the promise too.
    asked = world if policy is None else world.ask((policy,))
    reaped = {key(decision.resource) for decision in asked.decide() if decision.reap}
    everything = {key(resource) for resource in asked.resources}
    assert reaped == everything - Oracle(asked).stays()


@settings(PROPERTY, max_examples=400)
@given(worlds(), ENDED)
def test_what_nothing_keeps_goes_with_a_lease_that_has_ended(world: World, lease: Lease) -> None:
    after = world.after(lease)
    reaped = {key(decision.resource) for decision in after.decide() if decision.reap}
    assert reaped == {key(resource) for resource in after.resources} - Oracle(after).stays()


@PROPERTY
@given(worlds(), st.sampled_from((None, ("policy-0",), ())))
def test_every_decision_says_why(world: World, due: tuple[str, ...] | None) -> None:
    decisions = world.decide(due)
    assert [decision.resource for decision in decisions] == list(world.resources)
    for decision in decisions:
        assert decision.sentence.strip()
        assert decision.reap == (decision.reason in REAPING)
        assert not decision.reap or decision.owner is not None


@PROPERTY
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_the_listing_does_not_matter(world: World, random: Random) -> None:
    shuffled = list(world.resources)
    random.shuffle(shuffled)
    other = World(tuple(shuffled), world.rules, world.leases, world.now)
    assert {key(d.resource) for d in world.decide() if d.reap} == {key(d.resource) for d in other.decide() if d.reap}


REAPING = frozenset(list(Reason)[: list(Reason).index(Reason.UNREADABLE)])


def test_the_generated_worlds_hold_every_reason() -> None:
    """In one round or another: what a round generates depends on the modules that have been imported before it."""
    seen: set[Reason] = set()
    taken = Counter[Kind]()

    of_policies_for_kinds = {Reason.UNUSED_FOR, Reason.LARGER_THAN, Reason.UNTAGGED, Reason.ANONYMOUS}  # see test_kinds
    reasons, kinds = set(Reason) - of_policies_for_kinds, set(Kind) - {Kind.BUILD_CACHE}

    def complete() -> bool:
        return reasons <= seen and min(taken[kind] for kind in kinds) >= 50

    @settings(PROPERTY, max_examples=800, phases=[Phase.generate])
    @given(worlds(), ENDED)
    def collect(world: World, lease: Lease) -> None:
        taken.update(decision.resource.kind for decision in world.after(lease).decide() if decision.reap)
        for decisions in (world.decide(), world.decide(("policy-0",)), world.ask((EVERYTHING,)).decide()):
            seen.update(decision.reason for decision in decisions)

    for number in range(10):
        if not complete():
            seed(number)(collect)()
    assert reasons <= seen
    assert complete(), taken
