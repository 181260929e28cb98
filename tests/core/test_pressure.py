"""Disk pressure: when a disk is too full, what goes first then, and how much of it at a time."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.conditions import Policy
from reaper.core.decide import decide
from reaper.core.disk import BYTES, INODES, DiskUsage, Level, Room, Thresholds
from reaper.core.model import Decision, Kind, Reason, Resource, State, Verdict
from reaper.core.pressure import MOST, Candidate, Rank, Yield, awake, batch, in_order, in_the_way
from reaper.core.rules import Rules
from reaper.core.scope import Scope, Selector
from tests.core.make import IMAGE, NETWORK, NOW, RUNNING, STOPPED, VOLUME, ago
from tests.core.strategies import PROPERTY, Key, World, key, worlds

GIB = 1 << 30
OWNED = Scope(selector=Selector(labels=("team=rl",)))
ALL_KINDS = frozenset({Kind.CONTAINER, Kind.VOLUME, Kind.IMAGE, Kind.BUILD_CACHE})


def exited(name: str, **fields: object) -> Resource:
    return replace(STOPPED, id=f"id-{name}", name=name, group=None, **fields)  # type: ignore[arg-type]


def image(name: str, *, tagged: bool = True, days: float = 1, **fields: object) -> Resource:
    tags = (name,) if tagged else ()
    made = replace(IMAGE, id=f"id-{name}", name=name, tags=tags, group=None, last_used_at=ago(days=days), labels={})
    return replace(made, **fields)  # type: ignore[arg-type]


def reaped(*resources: Resource, reason: Reason = Reason.UNUSED_FOR) -> list[Decision]:
    return [Decision(one, Verdict.REAP, reason, "", policy="p") for one in resources]


def order(decisions: Sequence[Decision], **measured: int) -> list[list[str]]:
    names = {d.resource.id: d.resource.name for d in decisions}
    sizes = {f"id-{name}": size for name, size in measured.items()}
    return [sorted(names[id_] for id_ in one.ids) for one in in_order(decisions, sizes)]


def test_the_documented_order() -> None:
    cache = replace(VOLUME, kind=Kind.BUILD_CACHE, id="/build-cache", name="cache", group=None, size=GIB)
    running = replace(RUNNING, id="id-running", name="running", group=None)
    volume = replace(VOLUME, id="data", name="data", group=None, size=100 * GIB)
    things = [
        volume,
        running,
        image("pulled", days=90, pulled=True, size=9 * GIB),
        image("built", days=2, size=GIB),
        image("older-build", days=9, size=1),
        cache,
        image("dangling", tagged=False, size=GIB),
        image("large-dangling", tagged=False, size=2 * GIB),
        exited("small"),
        exited("large"),
    ]
    assert order(reaped(*things), small=1, large=GIB) == [
        ["large"],
        ["small"],
        ["large-dangling"],
        ["dangling"],
        ["cache"],
        ["older-build"],
        ["built"],
        ["pulled"],
        ["running"],
        ["data"],
    ]


def test_a_project_goes_as_one_and_a_network_alone_frees_nothing() -> None:
    member = replace(STOPPED, id="id-c", name="c", group="p")
    network = replace(NETWORK, id="id-n", name="n", group="p")
    alone = replace(NETWORK, id="id-alone", name="alone", group=None)
    decisions = [*reaped(member), *reaped(network, reason=Reason.GROUP_REAPED), *reaped(alone)]
    assert order(decisions) == [["c", "n"]]


@pytest.mark.parametrize("way", ["parent", "layers"])
def test_an_image_goes_after_those_that_were_built_on_it(way: str) -> None:
    below = image("below", tagged=False, size=GIB, layers=("1",))
    above = image("above", days=2, layers=("1", "2"), uses=frozenset({"id-below"}) if way == "parent" else frozenset())
    assert order(reaped(below, above, image("older", days=9))) == [["older"], ["above"], ["below"]]


def room(used: int, total: int = 100) -> Room:
    return Room(used, total - used)


def usage(used: int, inodes: int = 0) -> DiskUsage:
    return DiskUsage("/data", {BYTES: room(used), INODES: room(inodes)})


def test_pressure_begins_above_high_and_ends_at_low() -> None:
    limits = Thresholds(Level(0.85), Level(0.75))
    assert not limits.exceeded(usage(85))
    assert limits.exceeded(usage(86)) == {BYTES}
    assert limits.exceeded(usage(1, inodes=90)) == {INODES}
    assert limits.missing(usage(86), {BYTES}) == {BYTES: 11}
    assert limits.missing(usage(76, 80), {BYTES}) == {BYTES: 1}, "inodes that were never too many are not freed"
    assert limits.missing(usage(75), {BYTES}) == {}


def test_a_number_of_bytes_leaves_inodes_to_the_defaults() -> None:
    limits = Thresholds(Level(size=60), Level(size=50))
    assert limits.exceeded(usage(61)) == {BYTES}
    assert not limits.exceeded(usage(60, 85))
    assert limits.missing(usage(61, 90), {BYTES, INODES}) == {BYTES: 11, INODES: 15}


POLICY = Policy("guard", ALL_KINDS, stopped_for=ago(days=0) - ago(days=1), under_pressure=True, asleep=True)


def test_a_policy_that_is_asleep_takes_nothing_and_says_so() -> None:
    owned = exited("c", labels={"team": "rl"}, stopped_at=ago(days=3), started_at=ago(days=4), created_at=ago(days=4))
    rules = Rules(OWNED, policies=(POLICY,))
    (kept,) = decide([owned], rules, (), NOW)
    assert (kept.verdict, kept.reason) == (Verdict.KEEP, Reason.NO_POLICY)
    assert "only while the disk is too full" in kept.sentence
    (goes,) = decide([owned], awake(rules, {owned.endpoint}), (), NOW)
    assert goes.reap
    assert not decide([owned], awake(rules, {"another"}), (), NOW)[0].reap


def test_a_policy_for_one_endpoint_does_not_wake_for_another() -> None:
    rules = Rules(OWNED, policies=(replace(POLICY, endpoints=frozenset({"a"})),))
    assert awake(rules, {"b"}) == rules
    assert awake(rules, {"a", "b"}).policies[0].endpoints == {"a"}


def test_what_is_not_chosen_stays_with_all_that_it_needs() -> None:
    """Containers of one project are one unit, and what a container that waits uses waits with it."""
    common = {"labels": {"team": "rl"}, "stopped_at": ago(days=3), "started_at": ago(days=4), "created_at": ago(days=4)}
    owner = exited("owner", **common)
    user = exited("user", uses=frozenset({"id-owner"}), **common)
    rules = awake(Rules(OWNED, policies=(POLICY,)), {owner.endpoint})
    by_name = {d.resource.name: d for d in decide([owner, user], rules, (), NOW, chosen={"id-owner"})}
    assert not by_name["owner"].reap
    assert by_name["user"].reason is Reason.NOT_DUE
    by_name = {d.resource.name: d for d in decide([owner, user], rules, (), NOW, chosen={"id-user"})}
    assert (by_name["owner"].reap, by_name["user"].reap) == (False, True)


def test_what_stays_is_named_the_largest_first_with_why() -> None:
    used = image("used", size=5 * GIB)
    small, nothing = image("small", size=GIB), image("nothing", size=0)
    decisions = [Decision(one, Verdict.KEEP, Reason.IN_USE, "", brief="used by x") for one in (nothing, small, used)]
    said = in_the_way([*decisions, *reaped(exited("c"))], {"id-small": "the endpoint refused"}, {"id-c": 2 * GIB})
    assert said[0] == "image used (5.0 GiB): used by x"
    assert said[1].startswith("container c (2.0 GiB)")
    assert said[2] == "image small (1.0 GiB): the endpoint refused"
    assert len(said) == 3


# -- how much at a time ------------------------------------------------------------------------------------------------

_RESOURCES = st.builds(
    lambda number, kind, size, tagged, pulled, running, uses: (number, kind, size, tagged, pulled, running, uses),
    st.integers(0, 10**6),
    st.sampled_from(sorted(ALL_KINDS)),
    st.integers(0, 50),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10**6),
)


@st.composite
def inventories(draw: st.DrawFn) -> tuple[list[Decision], dict[str, int]]:
    """What an endpoint holds, some of it to be reaped, and how many bytes each really gives back: not more than it says."""
    rows = draw(st.lists(_RESOURCES, max_size=40, unique_by=lambda row: row[0]))
    decisions: list[Decision] = []
    real: dict[str, int] = {}
    for place, (number, kind, size, tagged, pulled, is_running, user) in enumerate(rows):
        name = f"{kind}-{number}"
        uses = frozenset({decisions[user % place].resource.id} if place and user % 3 == 0 else ())
        if kind is Kind.CONTAINER:
            state = (State.RUNNING, "running") if is_running else (State.STOPPED, "exited")
            one = exited(name, state=state[0], raw_state=state[1], uses=uses, size=size)
        else:
            one = image(name, tagged=tagged, pulled=pulled, size=size, kind=kind, days=number % 90, uses=uses)
        decisions += reaped(one) if draw(st.integers(0, 3)) else [Decision(one, Verdict.KEEP, Reason.IN_USE, "")]
        real[one.id] = draw(st.integers(0, size))
    return decisions, real


@given(inventories(), st.integers(1, 200))
def test_it_stops_one_batch_after_low_and_takes_nothing_that_is_kept(
    inventory: tuple[list[Decision], dict[str, int]], missing: int
) -> None:
    decisions, real = inventory
    kept = {d.resource.id for d in decisions if not d.reap}
    users = {d.resource.id: d.resource.uses for d in decisions}
    candidates = in_order(decisions, {d.resource.id: d.resource.size or 0 for d in decisions})
    assert {id_ for one in candidates for id_ in one.ids} == users.keys() - kept
    left, given_so_far, gone, last_rank = missing, dict[Rank, Yield](), set[str](), Rank.EXITED
    while left > 0 and (taken := batch(candidates, {BYTES: left}, given_so_far)):
        assert len(taken) <= MOST
        assert {one.rank for one in taken} == {taken[0].rank}
        assert taken[0].rank >= last_rank, "never back to what goes first"
        sure = sum(one.size for one in taken[:-1]) * given_so_far.get(taken[0].rank, Yield()).share
        assert sure < left, "no more than what is missing takes, as far as sizes tell"
        for one in taken:
            assert not one.ids & kept
            gone |= one.ids
        freed = sum(real[id_] for one in taken for id_ in one.ids)
        rank = last_rank = taken[0].rank
        given_so_far[rank] = given_so_far.get(rank, Yield()).and_(taken, {BYTES: freed})
        left -= freed
        candidates = candidates[len(taken) :]
        waits = users.keys() - gone - kept
        assert not any(users[id_] & gone for id_ in waits), "what something uses goes after it"
    assert left <= 0 or not candidates


@cache
def _thousand() -> list[Candidate]:
    return in_order(reaped(*[exited(f"c{number:04}") for number in range(1000)]), {})


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_inodes_are_freed_by_what_the_last_ones_gave(missing: int, each: int) -> None:
    candidates = _thousand()
    before, left, last = dict[Rank, Yield](), missing, 0
    while left > 0 and (taken := batch(candidates, {INODES: left}, before)):
        last = each * len(taken)
        before[Rank.EXITED] = before.get(Rank.EXITED, Yield()).and_(taken, {INODES: last})
        left -= last
        candidates = candidates[len(taken) :]
    assert left <= 0
    assert -left < each * 8, "no more than one too many once it is known how much each gives, and eight at first"


# -- pressure widens nothing -------------------------------------------------------------------------------------------


def _going(world: World, *asleep: str, **more: object) -> set[Key]:
    policies = tuple(replace(policy, asleep=policy.name in asleep) for policy in world.rules.policies)
    rules = replace(world.rules, policies=policies)
    return {key(d.resource) for d in decide(world.resources, rules, world.leases, NOW, **more) if d.reap}  # type: ignore[arg-type]


_SOME = st.sets(st.sampled_from(("policy-0", "policy-1", "policy-2")))


@PROPERTY
@given(worlds(), _SOME)
def test_a_policy_that_waits_for_pressure_is_as_if_it_were_not_there(world: World, asleep: set[str]) -> None:
    others = tuple(policy for policy in world.rules.policies if policy.name not in asleep)
    without = replace(world, rules=replace(world.rules, policies=others))
    assert _going(world, *asleep) == _going(without)


@PROPERTY
@given(worlds(), _SOME, st.data())
def test_a_round_takes_of_what_is_chosen_and_would_go_anyhow(world: World, due: set[str], data: st.DataObject) -> None:
    whole = _going(world, due=due)
    ids = sorted({one.id for one in world.resources})
    chosen = data.draw(st.sets(st.sampled_from(ids))) if ids else set()
    taken = _going(world, due=due, chosen=chosen)
    assert taken <= whole
    assert {one.id for one in world.resources if key(one) in taken} <= chosen
    assert _going(world, due=due, chosen=ids) == whole
