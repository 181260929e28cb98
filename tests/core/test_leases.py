"""What a lease keeps while it lives, and what it takes when it has ended."""

from dataclasses import replace
from datetime import timedelta

import pytest

from reaper.claims import Claim, Ending, Lease, Leases
from reaper.model import Decision, Reason, Resource, State
from reaper.scope import Selector
from tests.core.make import FOREIGN, NETWORK, NOW, ago, judge_one, judged, rules

ALIVE = Lease("7f3a", "pid 4711 on gpu-1", since=ago(hours=1))
DEAD = replace(ALIVE, ending=Ending(ago(seconds=12), "killed"))
YOUNG = replace(FOREIGN, id="c1", created_at=ago(minutes=2), started_at=ago(minutes=2), labels={"reaper.lease": "7f3a"})
NO_POLICY = rules()


def judge(resource: Resource, *leases: Lease) -> Decision:
    return judge_one(resource, NO_POLICY, leases)


def test_what_a_dead_holder_left_is_garbage_at_once_whoever_else_would_own_it() -> None:
    decision = judge(YOUNG, DEAD)
    assert decision.reap
    assert decision.reason is Reason.LEASE_ENDED
    assert decision.sentence == "lease 7f3a of pid 4711 on gpu-1 ended 12 s ago (killed)"
    assert (decision.owner, decision.policy, decision.lease) == ("lease 7f3a", None, "7f3a")
    assert decision.since == ago(seconds=12)


def test_a_living_one_keeps_whatever_its_age() -> None:
    old = replace(YOUNG, created_at=ago(hours=25), started_at=ago(hours=25), state=State.STOPPED, stopped_at=ago(hours=24))
    decision = judge(old, ALIVE)
    assert not decision.reap
    assert decision.reason is Reason.LEASED
    assert decision.sentence == "lease 7f3a of pid 4711 on gpu-1 is alive"
    assert decision.lease == "7f3a"


PROTECTED = {
    "reaper.keep": (replace(YOUNG, labels={"reaper.lease": "7f3a", "reaper.keep": ""}), Reason.PROTECTED),
    "machinery": (replace(YOUNG, machinery="a Kubernetes pod"), Reason.MACHINERY),
    "unreadable wish": (replace(YOUNG, labels={"reaper.lease": "7f3a", "reaper.ttl": "soon"}), Reason.WISH_UNREADABLE),
    "changing": (replace(YOUNG, state=State.CHANGING, raw_state="removing"), Reason.CHANGING),
    "unknown state": (replace(YOUNG, state=State.UNKNOWN, raw_state="weird"), Reason.UNKNOWN_STATE),
    "no creation time": (replace(YOUNG, created_at=None), Reason.UNREADABLE),
}


@pytest.mark.parametrize("name", PROTECTED)
def test_an_ended_one_takes_nothing_that_is_protected(name: str) -> None:
    resource, reason = PROTECTED[name]
    assert judge(resource, DEAD).reason is reason


AT_ONCE = {
    "never started": replace(YOUNG, state=State.STOPPED, raw_state="created", started_at=None),
    "wants to be up": replace(YOUNG, restart_policy="always"),
    "wishes to stay a while": replace(YOUNG, labels={"reaper.lease": "7f3a", "reaper.ttl": "10h"}),
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


def test_an_empty_claim_claims_nothing() -> None:
    assert judge(CLAIMED, replace(ALIVE, claims=(Claim(),))).reason is Reason.NOT_OWNED


def test_what_is_older_than_the_lease_is_kept_by_its_claim_and_not_taken() -> None:
    before = replace(CLAIMED, created_at=ago(hours=2))
    alive = replace(ALIVE, claims=(CLAIMS["names"],))
    assert judge(before, alive).reason is Reason.LEASED
    assert judge(before, replace(alive, ending=DEAD.ending)).reason is Reason.NOT_OWNED
    assert judge(before, replace(alive, since=None, ending=DEAD.ending)).reason is Reason.NOT_OWNED
    named = replace(alive, ending=DEAD.ending, resources=frozenset({"c1"}))
    assert judge(before, named).reason is Reason.LEASE_ENDED  # whoever names an id knows what it is


def test_a_label_that_is_older_than_its_lease_is_somebody_else_s() -> None:
    """Else whoever takes a lease by the name of another's could end what carries it."""
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
    nobodys = replace(mine, id="c2", labels={})
    assert not any(decision.reap for decision in judged([mine, nobodys, net], NO_POLICY, [lease]).values())


def test_times_can_be_told_on_another_clock() -> None:
    ahead = timedelta(hours=3)
    there = replace(DEAD, claims=(CLAIMS["names"],)).on_clock(ahead)
    assert there.since == NOW - timedelta(hours=1) + ahead
    assert there.ending == Ending(ago(seconds=12) + ahead, "killed")
    assert Lease("a", "b").on_clock(ahead) == Lease("a", "b")


def test_many_leases_are_asked_at_once() -> None:
    many = Leases([replace(DEAD, id=str(n), resources=frozenset({f"r{n}"})) for n in range(1000)])
    found = many.covering(replace(YOUNG, id="r500", labels={}))
    assert found is not None
    assert found.id == "500"
    assert many.covering(replace(YOUNG, labels={})) is None
