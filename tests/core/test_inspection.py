"""What is judged by the listing alone is never judged worse than an inspection would have it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reaper.core.decide import decide, needs_inspection
from reaper.core.model import Kind, Reason, Resource, State
from reaper.core.scope import Protect, Selector
from tests.core.make import EVERYTHING, FOREIGN, NOW, OLD_24H, RUNNING, STOPPED, STOPPED_1H, ago, rules
from tests.core.strategies import DIGEST, IMAGES, PROPERTY, World, key, worlds


def listed(truth: Resource, rebuilt: frozenset[str]) -> Resource:
    """What the engine's listing tells of a container: whole seconds, no start, no stop, no restart policy."""
    if truth.kind is not Kind.CONTAINER:
        return truth
    seen = replace(
        truth,
        created_at=truth.created_at and truth.created_at.replace(microsecond=0),
        started_at=None,
        stopped_at=None,
        restart_policy=None,
        inspected=False,
    )
    if truth.raw_state == "dead":  # as Docker lists what it failed to remove
        seen = replace(seen, state=State.CHANGING, raw_state="removing")
    return replace(seen, image=DIGEST, image_unresolved=True) if truth.image in rebuilt else seen


def inspect_all(listing: list[Resource], world: World) -> list[Resource]:
    """Inspect what must be, until nothing more must."""
    truth = {key(resource): resource for resource in world.resources}
    for _ in range(len(listing) + 1):
        wanted = needs_inspection(decide(listing, world.rules, world.leases, world.now))
        if not wanted:
            return listing
        assert not any(resource.inspected for resource in wanted)
        listing = [truth[key(resource)] if resource in wanted else resource for resource in listing]
    raise AssertionError("it asks for the same again and again")


@PROPERTY
@given(worlds(), st.frozensets(st.sampled_from(IMAGES)), st.booleans())
def test_the_listing_and_what_it_asks_for_decide_as_the_whole_truth(
    world: World, rebuilt: frozenset[str], every: bool
) -> None:
    asked = world.ask((EVERYTHING,)) if every else world
    listing = inspect_all([listed(resource, rebuilt) for resource in asked.resources], asked)
    decisions = decide(listing, asked.rules, asked.leases, asked.now)
    assert all(decision.resource.inspected for decision in decisions if decision.reap)
    reaped = {key(decision.resource) for decision in decisions if decision.reap}
    truly = {key(decision.resource) for decision in asked.decide() if decision.reap}
    assert reaped <= truly
    # A policy for dead ones does not ask for what is listed as removing.
    assert reaped == truly or any("failed" in policy.states for policy in asked.rules.policies)


def test_what_cannot_be_garbage_is_not_inspected() -> None:
    young = replace(RUNNING, inspected=False, created_at=ago(hours=1), started_at=None)
    foreign = replace(FOREIGN, inspected=False)
    assert needs_inspection(decide([young, foreign], rules(STOPPED_1H, OLD_24H), (), NOW)) == []


def test_a_candidate_is_inspected_once() -> None:
    candidate = replace(STOPPED, inspected=False, started_at=None, stopped_at=None)
    assert needs_inspection(decide([candidate], rules(STOPPED_1H), (), NOW)) == [candidate]
    assert needs_inspection(decide([STOPPED], rules(STOPPED_1H), (), NOW)) == []


def test_a_stop_later_than_the_creation_saves_it() -> None:
    just_stopped = replace(STOPPED, stopped_at=ago(minutes=1))
    assert not decide([just_stopped], rules(STOPPED_1H), (), NOW)[0].reap


def test_a_lone_image_id_is_asked_for_before_anything_else() -> None:
    rebuilt = replace(FOREIGN, image=DIGEST, image_unresolved=True, inspected=False)
    candidate = replace(STOPPED, inspected=False, started_at=None, stopped_at=None)
    assert needs_inspection(decide([candidate, rebuilt], rules(STOPPED_1H), (), NOW)) == [rebuilt]


def test_an_image_that_stays_unknown_is_asked_for_once_and_owns_nothing() -> None:
    nameless = replace(FOREIGN, image=DIGEST, image_unresolved=True)
    assert needs_inspection(decide([nameless], rules(EVERYTHING), (), NOW)) == []
    assert decide([nameless], rules(EVERYTHING), (), NOW)[0].reason is Reason.NOT_OWNED


def test_what_is_listed_as_removing_may_be_dead() -> None:
    listed_so = replace(STOPPED, state=State.CHANGING, raw_state="removing", inspected=False, stopped_at=None)
    assert needs_inspection(decide([listed_so], rules(STOPPED_1H), (), NOW)) == [listed_so]
    assert decide([replace(listed_so, inspected=True)], rules(STOPPED_1H), (), NOW)[0].reason is Reason.CHANGING
    dead = replace(STOPPED, state=State.FAILED, raw_state="dead")
    assert decide([dead], rules(STOPPED_1H), (), NOW)[0].reap


def test_what_cannot_be_read_is_not_asked_for() -> None:
    unreadable = replace(FOREIGN, image_unresolved=True, inspected=False, unreadable="no id")
    assert needs_inspection(decide([unreadable], rules(EVERYTHING), (), NOW)) == []


def test_an_image_found_by_inspection_owns_the_project() -> None:
    client = replace(RUNNING, group="chess", image=DIGEST, image_unresolved=True, inspected=False)
    sidecar = replace(FOREIGN, group="chess", inspected=False)
    by = rules(OLD_24H)
    assert not any(decision.reap for decision in decide([client, sidecar], by, (), NOW))
    found = replace(RUNNING, group="chess")
    assert needs_inspection(decide([found, sidecar], by, (), NOW)) == [sidecar]
    assert all(decision.reap for decision in decide([found, replace(sidecar, inspected=True)], by, (), NOW))


def test_an_image_found_by_inspection_may_protect() -> None:
    by = replace(rules(OLD_24H), protect=Protect(Selector(images=("tb__chess__*",))))
    assert decide([RUNNING], by, (), NOW)[0].reason is Reason.PROTECTED


def test_the_listing_says_at_most() -> None:
    candidate = replace(STOPPED, inspected=False, started_at=None, stopped_at=None, created_at=ago(minutes=30))
    sentence = decide([candidate], rules(STOPPED_1H), (), NOW)[0].sentence
    assert sentence == "stopped at most 30 min ago, policy stopped-containers allows 1 h"
    assert candidate.state is State.STOPPED
