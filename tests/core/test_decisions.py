"""What holds of every decision, over generated worlds."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from reaper.core.model import Reason
from tests.core.strategies import PROPERTY, World, key, worlds

REAPING = frozenset(list(Reason)[: list(Reason).index(Reason.UNREADABLE)])


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
