"""What a lease keeps while it lives, and what it takes when it has ended."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.decide import explain
from reaper.core.lease import IN_FLIGHT, Claim, Ending, Lease
from reaper.core.lease_index import LeaseIndex, Leases
from reaper.core.model import Decision, Kind, Reason, Resource, State
from reaper.core.scope import Selector
from reaper.core.site import Site
from tests.core.make import FOREIGN, NETWORK, NOW, ago, judge_one, judged, rules

ALIVE = Lease("7f3a", "pid 4711 on gpu-1", since=ago(hours=1))
DEAD = replace(ALIVE, ending=Ending(ago(seconds=12), "killed"))
YOUNG = replace(FOREIGN, id="c1", created_at=ago(minutes=2), started_at=ago(minutes=2), labels={"reaper.lease": "7f3a"})
NO_POLICY = rules()


def judge(resource: Resource, *leases: Lease) -> Decision:
    return judge_one(resource, NO_POLICY, leases)


def test_what_a_dead_holder_left_is_garbage_at_once_whatever_else_owns_it() -> None:
    decision = judge(YOUNG, DEAD)
    assert decision.reap
    assert decision.reason is Reason.LEASE_ENDED
    assert decision.sentence == "lease 7f3a of pid 4711 on gpu-1 ended 12 s ago (killed)"
    assert (decision.owner, decision.policy, decision.lease) == ("lease 7f3a", None, "7f3a")
    assert decision.since == ago(seconds=12)


@pytest.mark.parametrize("resource", [YOUNG, replace(NETWORK, group=None, created_at=ago(minutes=2), labels=YOUNG.labels)])
@pytest.mark.parametrize("asked_for", [Selector(names=("other-*",)), Selector(labels=("reaper.lease=other",)), None])
def test_a_command_that_asks_for_others_leaves_what_it_left(resource: Resource, asked_for: Selector | None) -> None:
    assert judge(resource, DEAD).reap
    decision = judge_one(resource, replace(NO_POLICY, without_policy=asked_for), [DEAD])
    assert not decision.reap
    said = [
        finding.sentence
        for finding in explain(resource, [resource], replace(NO_POLICY, without_policy=asked_for), [DEAD], NOW)
    ]
    assert "lease 7f3a of pid 4711 on gpu-1 ended 12 s ago (killed), but this command asks for others" in said
    assert judge_one(resource, replace(NO_POLICY, without_policy=Selector(names=(resource.name,))), [DEAD]).reap


def test_the_network_of_a_project_that_was_asked_for_goes_along() -> None:
    things = [replace(YOUNG, group="chess"), replace(NETWORK, created_at=ago(minutes=2), labels=YOUNG.labels)]
    found = judged(things, replace(NO_POLICY, without_policy=Selector(names=(YOUNG.name,))), [DEAD])
    assert all(decision.reap for decision in found.values())


def test_a_living_one_keeps_whatever_its_age() -> None:
    old = replace(YOUNG, created_at=ago(hours=25), started_at=ago(hours=25), state=State.STOPPED, stopped_at=ago(hours=24))
    decision = judge(old, ALIVE)
    assert not decision.reap
    assert decision.reason is Reason.LEASED
    assert decision.sentence == "lease 7f3a of pid 4711 on gpu-1 is alive"
    assert decision.lease == "7f3a"


PROTECTED = {
    "reaper.keep": (replace(YOUNG, labels={"reaper.lease": "7f3a", "reaper.keep": ""}), Reason.PROTECTED),
    "system_container": (replace(YOUNG, system_container="a Kubernetes pod"), Reason.SYSTEM_CONTAINER),
    "unreadable label override": (
        replace(YOUNG, labels={"reaper.lease": "7f3a", "reaper.ttl": "soon"}),
        Reason.INVALID_LABEL,
    ),
    "changing": (replace(YOUNG, state=State.CHANGING, raw_state="removing"), Reason.CHANGING),
    "unknown state": (replace(YOUNG, state=State.UNKNOWN, raw_state="weird"), Reason.UNKNOWN_STATE),
    "no creation time": (replace(YOUNG, created_at=None), Reason.UNREADABLE),
}


@pytest.mark.parametrize("name", PROTECTED)
def test_an_ended_one_takes_nothing_that_is_protected(name: str) -> None:
    resource, reason = PROTECTED[name]
    assert judge(resource, DEAD).reason is reason


RYUK = replace(YOUNG, system_container="the reaper of Testcontainers")
OTHERS_RYUK = {
    "no label": replace(RYUK, labels={}),
    "a label that came with its image": replace(RYUK, inherited=frozenset({"reaper.lease"})),
    "a label that may have come with its image": replace(RYUK, inherited=None),
    "another lease's label": replace(RYUK, labels={"reaper.lease": "another"}),
}


def test_a_reaper_of_testcontainers_goes_with_the_lease_that_its_own_label_names() -> None:
    assert judge(RYUK, DEAD).reason is Reason.LEASE_ENDED
    assert judge(RYUK, ALIVE).reason is Reason.LEASED
    assert judge(replace(RYUK, labels={"reaper.lease": "7f3a", "reaper.keep": ""}), DEAD).reason is Reason.PROTECTED


@pytest.mark.parametrize("name", OTHERS_RYUK)
def test_another_reaper_of_testcontainers_stays(name: str) -> None:
    claiming = replace(DEAD, claims=(Claim(Selector(names=(OTHERS_RYUK[name].name,))),))
    assert not judge(OTHERS_RYUK[name], claiming).reap


AT_ONCE = {
    "never started": replace(YOUNG, state=State.STOPPED, raw_state="created", started_at=None),
    "wants to be up": replace(YOUNG, restart_policy="always"),
    "label overrides to stay a while": replace(YOUNG, labels={"reaper.lease": "7f3a", "reaper.ttl": "10h"}),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_only_a_living_run_could_want_goes(name: str) -> None:
    assert judge(AT_ONCE[name], DEAD).reason is Reason.LEASE_ENDED


CLAIMS = {
    "labels": Claim(Selector(labels=("run=my-*", "team"))),
    "names": Claim(Selector(names=("chess-*", "go-*"))),
    "images": Claim(Selector(images=("ches?",))),
    "projects": Claim(projects=("p", "q")),
    "all of them": Claim(Selector(("run",), ("go-*",), ("*chess*",)), ("p",)),
}
CLAIMED = replace(YOUNG, name="go-1", image="chess:1", group="p", labels={"run": "my-sweep", "team": "rl"})


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_covers_what_it_selects(name: str) -> None:
    alive = replace(ALIVE, claims=(CLAIMS[name],))
    other = replace(CLAIMED, id="c2", name="x", image="y", group="z", labels={})
    assert judge(CLAIMED, alive).reason is Reason.LEASED
    assert judge(CLAIMED, replace(alive, ending=DEAD.ending)).reason is Reason.LEASE_ENDED
    assert judge(other, alive).reason is Reason.NOT_OWNED


BY_NAME = replace(ALIVE, claims=(CLAIMS["names"],), endpoints=frozenset({"engine-1"}))
SITE = Site("engine-1")


def takes(resource: Resource, lease: Lease, site: Site = SITE) -> bool:
    """Whether the lease, which has ended, makes it garbage."""
    decision = judge_one(resource, NO_POLICY, Leases([lease]).on(site))
    assert decision.reap == (decision.reason is Reason.LEASE_ENDED)
    return decision.reap


@pytest.mark.parametrize(
    ("made", "taken"),
    [
        (ago(hours=1, seconds=1), False),
        (ago(hours=1), True),
        (ago(minutes=30), True),
        (ago(minutes=20), True),
        (ago(minutes=19, seconds=59), False),
        (ago(seconds=5), False),
    ],
)
def test_a_claim_takes_only_what_was_made_between_the_beginning_and_the_end_of_its_lease(
    made: datetime, taken: bool
) -> None:
    lease = replace(BY_NAME, ending=Ending(ago(minutes=20), "released"))
    assert takes(replace(CLAIMED, created_at=made, started_at=made), lease) is taken


def test_what_was_on_its_way_when_the_holder_died_is_taken_and_nothing_that_came_before_its_death_was_found() -> None:
    """It was found dead eight minutes after its last sign of life; others have made something since."""
    lease = replace(BY_NAME, ending=Ending(ago(minutes=20), "killed", ago(minutes=28) + IN_FLIGHT))
    assert takes(replace(CLAIMED, created_at=ago(minutes=28)), lease)
    assert takes(replace(CLAIMED, created_at=ago(minutes=28) + IN_FLIGHT), lease)
    assert not takes(replace(CLAIMED, created_at=ago(minutes=27)), lease)


def test_a_label_of_the_lease_needs_no_end() -> None:
    late = replace(YOUNG, created_at=ago(minutes=1))
    assert takes(late, replace(BY_NAME, ending=Ending(ago(minutes=20), "released")))


@pytest.mark.parametrize("kind", [Kind.CONTAINER, Kind.NETWORK, Kind.VOLUME, Kind.IMAGE])
def test_a_claim_takes_nothing_that_names_another_lease(kind: Kind) -> None:
    """Whether that one is known here or not: it may be alive at another reaper."""
    lease = replace(BY_NAME, claims=(CLAIMS["labels"],), ending=Ending(ago(minutes=1), "released"))
    mine = replace(CLAIMED, kind=kind, group=None, state=State.STOPPED, tags=("go:1",) if kind is Kind.IMAGE else ())
    keys = ("reaper.lease", "reaper.lease.image") if kind is Kind.IMAGE else ("reaper.lease",)
    for key in keys:
        anothers = replace(mine, labels={**(mine.labels or {}), key: "unknown"})
        assert lease.covers(mine, SITE)
        assert not lease.covers(anothers, SITE)
        assert replace(lease, ending=None).covers(anothers, SITE), "a living one keeps it"


def test_a_claim_takes_nothing_on_an_endpoint_that_its_lease_was_not_granted_for() -> None:
    lease = replace(BY_NAME, ending=Ending(ago(minutes=1), "released"))
    assert takes(CLAIMED, lease)
    for id_ in ("engine-2", None):
        assert not takes(CLAIMED, lease, Site(id_))
        kept = judge_one(CLAIMED, NO_POLICY, Leases([BY_NAME]).on(Site(id_)))
        assert kept.reason is Reason.LEASED, "it may protect anywhere"
    assert not takes(CLAIMED, replace(lease, endpoints=frozenset()))


@pytest.mark.parametrize("seconds", [-30, 30])
def test_a_clock_that_differs_by_less_than_a_minute_makes_nothing_the_run_s(seconds: int) -> None:
    """What the endpoint dates so was made before the lease, or after it."""
    lease = replace(BY_NAME, ending=Ending(ago(minutes=20), "released"))
    skew = timedelta(seconds=seconds)
    site = Site("engine-1", timedelta(0), skew, skew)
    before, within, after = ago(hours=1, seconds=10), ago(minutes=40), ago(minutes=19, seconds=50)
    found = [takes(replace(CLAIMED, created_at=made + skew), lease, site) for made in (before, within, after)]
    assert found == [False, True, False]


def test_what_the_measurement_of_a_clock_leaves_open_is_kept() -> None:
    lease = replace(BY_NAME, ending=Ending(ago(minutes=20), "released"))
    site = Site("engine-1", timedelta(0), timedelta(seconds=28), timedelta(seconds=32))
    for made, taken in ((29, False), (33, True)):
        assert takes(replace(CLAIMED, created_at=ago(hours=1) + timedelta(seconds=made)), lease, site) is taken
    wrong = timedelta(hours=2)
    assert not takes(replace(CLAIMED, created_at=ago(minutes=30) + wrong), lease, Site("engine-1", wrong, wrong, wrong))


def test_a_project_is_claimed_by_a_glob_as_a_name_is() -> None:
    alive = replace(ALIVE, claims=(Claim(projects=("zz__*",)),))
    assert judge(replace(CLAIMED, group="zz__1"), alive).reason is Reason.LEASED
    assert judge(replace(CLAIMED, group="zz__1"), replace(alive, ending=DEAD.ending)).reason is Reason.LEASE_ENDED
    assert judge(replace(CLAIMED, group="z__1"), alive).reason is Reason.NOT_OWNED
    assert judge(replace(CLAIMED, group=None), alive).reason is Reason.NOT_OWNED


def test_a_lease_of_which_nothing_here_can_tell_the_end_keeps_and_says_why() -> None:
    decision = judge(YOUNG, replace(ALIVE, unproven=True))
    assert decision.reason is Reason.LEASED
    assert "is not known to have ended" in decision.sentence


def test_an_empty_claim_claims_nothing() -> None:
    assert judge(CLAIMED, replace(ALIVE, claims=(Claim(),))).reason is Reason.NOT_OWNED


def test_what_is_older_than_the_lease_is_kept_by_its_claim_and_not_taken() -> None:
    before = replace(CLAIMED, created_at=ago(hours=2))
    alive = replace(ALIVE, claims=(CLAIMS["names"],))
    assert judge(before, alive).reason is Reason.LEASED
    assert judge(before, replace(alive, ending=DEAD.ending)).reason is Reason.NOT_OWNED
    assert judge(before, replace(alive, since=None, ending=DEAD.ending)).reason is Reason.NOT_OWNED
    named = replace(alive, ending=DEAD.ending, resources=frozenset({"c1"}))
    assert judge(before, named).reason is Reason.LEASE_ENDED  # a claim by id is exact


def test_a_label_that_is_older_than_its_lease_belongs_to_another_run() -> None:
    """Else a lease by the name of another's could end what carries its label."""
    before = replace(YOUNG, created_at=ago(hours=2), started_at=ago(hours=2))
    assert judge(before, ALIVE).reason is Reason.LEASED
    decision = judge(replace(before, image="tb__chess__client"), DEAD)
    assert decision.reason is Reason.LEASE_UNKNOWN
    assert decision.sentence == "lease 7f3a was taken after it was made and may be another reaper's for 22 h more"


def test_a_living_one_goes_before_one_that_has_ended() -> None:
    other = Lease("b2", "pid 5 on gpu-2", claims=(Claim(Selector(names=("trial-*",))),))
    shared = replace(YOUNG, name="trial-1")
    for leases in ((DEAD, other), (other, DEAD)):
        assert judge(shared, *leases).reason is Reason.LEASED
    assert judge(shared, replace(DEAD, id="x", resources=frozenset({"c1"})), ALIVE).reason is Reason.LEASED


def test_a_project_goes_only_as_a_whole() -> None:
    mine, foreign = replace(YOUNG, group="p"), replace(YOUNG, id="c2", name="db", group="p", labels={})
    decisions = judged([mine, foreign], NO_POLICY, (DEAD,))
    assert [decision.reason for decision in decisions.values()] == [Reason.GROUP_KEPT, Reason.NOT_OWNED]
    decisions = judged([mine, replace(foreign, labels=mine.labels)], NO_POLICY, (DEAD,))
    assert {decision.reason for decision in decisions.values()} == {Reason.LEASE_ENDED}


def test_the_networks_of_a_project_are_whose_its_containers_are() -> None:
    """They go with it, and what protects one protects the project."""
    mine = replace(YOUNG, group="p", labels={"run": "x"})
    lease = replace(DEAD, claims=(Claim(Selector(labels=("run=x",))),))
    net = replace(NETWORK, group="p", labels={})
    decisions = judged([mine, net], NO_POLICY, [lease])
    assert decisions[mine.id].reap
    assert decisions[net.id].reap
    assert decisions[net.id].owner == "lease 7f3a on its project's containers"
    for label in ("reaper.keep", "reaper.expires"):
        kept = replace(net, labels={label: "2027-01-01T00:00:00Z"})
        assert not any(decision.reap for decision in judged([mine, kept], NO_POLICY, [lease]).values())
    without_label = replace(mine, id="c2", labels={})
    assert not any(decision.reap for decision in judged([mine, without_label, net], NO_POLICY, [lease]).values())


def test_times_can_be_told_on_another_clock() -> None:
    ahead = timedelta(hours=3)
    there = replace(DEAD, claims=(CLAIMS["names"],)).on_clock(ahead)
    assert there.since == NOW - timedelta(hours=1) + ahead
    assert there.ending == Ending(ago(seconds=12) + ahead, "killed")
    assert Lease("a", "b").on_clock(ahead) == Lease("a", "b")


@given(st.data())
def test_the_index_finds_what_a_look_at_each_lease_would(data: st.DataObject) -> None:
    words = st.sampled_from(["a", "ab", "b", "a*", "*b", "?", "[ab]", "run=x", "run=x*", "run", "zz"])
    texts = st.lists(words, max_size=2).map(tuple)
    claims = st.builds(lambda ls, ns, ims, ps: Claim(Selector(ls, ns, ims), ps), texts, texts, texts, texts)
    moments = st.integers(0, 10**6).map(lambda seconds: NOW - timedelta(seconds=seconds))

    def lease(number: int) -> Lease:
        since, end = sorted((data.draw(moments), data.draw(moments)))
        ending = data.draw(st.sampled_from([None, Ending(end, "x")]))
        return Lease(f"l{number}", "o", frozenset(), tuple(data.draw(st.lists(claims, max_size=2))), since, ending)

    index = LeaseIndex()
    leases = {}
    for number in range(data.draw(st.integers(0, 16))):
        for one in (lease(number), lease(number // 2)):
            index.put(one)
            leases[one.id] = one
    for id_ in data.draw(st.lists(st.sampled_from(sorted(leases)), max_size=5)) if leases else ():
        index.drop(id_)
        leases.pop(id_, None)
    labels = data.draw(st.dictionaries(st.sampled_from(["run", "a", "reaper.lease"]), st.sampled_from(["x", "xy", "l1"])))
    name, group = data.draw(st.sampled_from(["a", "ab", "b"])), data.draw(st.sampled_from([None, "a", "zz"]))
    made = data.draw(moments)
    resource = replace(CLAIMED, id="r1", name=name, image="ab", group=group, labels=labels, created_at=made)
    site = Site(
        None,
        timedelta(0),
        timedelta(seconds=data.draw(st.integers(-90, 0))),
        timedelta(seconds=data.draw(st.integers(0, 90))),
    )
    covering = [one for one in leases.values() if one.covers(resource, site)]
    found = Leases(index).on(site).covering(resource)
    assert (found in covering) if covering else (found is None)
    if any(one.ending is None for one in covering):
        assert found is not None
        assert found.ending is None


def test_many_leases_are_asked_at_once() -> None:
    many = Leases([replace(DEAD, id=str(n), resources=frozenset({f"r{n}"})) for n in range(1000)])
    found = many.covering(replace(YOUNG, id="r500", labels={}))
    assert found is not None
    assert found.id == "500"
    assert many.covering(replace(YOUNG, labels={})) is None
