"""What was seen to be made under a lease and carries no label of it: anonymous volumes, and images that were built."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.decide import decide, explain
from reaper.core.lease import Ending, Lease
from reaper.core.lease_index import LeaseIndex, Leases
from reaper.core.model import Decision, Kind, Reason, Resource
from reaper.core.rules import Rules
from reaper.core.site import Site
from reaper.sweep.context import what_changed
from tests.core.make import FOREIGN, IMAGE, STOPPED, VOLUME, ago

SITE = Site("engine-1")
NAME = "cd" * 32
PROJECT = {"com.docker.compose.project": "chess", "com.docker.compose.service": "db", "com.docker.compose.version": "2.40.3"}
ANONYMOUS = replace(VOLUME, id=NAME, name=NAME, labels={})
BUILT = replace(IMAGE, labels=PROJECT, group="chess", created_at=ago(days=3), tagged_at=ago(minutes=2))
ALIVE = Lease("7f3a", "pid 4711 on gpu-1", since=ago(hours=1), made=frozenset({("engine-1", NAME), ("engine-1", BUILT.id)}))
DEAD = replace(ALIVE, ending=Ending(ago(seconds=12), "killed"))
BOTH = pytest.mark.parametrize("thing", [ANONYMOUS, BUILT], ids=["volume", "image"])


def judge(resource: Resource, *leases: Lease, site: Site = SITE, beside: tuple[Resource, ...] = ()) -> Decision:
    found = decide([resource, *beside], Rules(), Leases(leases, site), ago())
    return next(decision for decision in found if decision.resource.id == resource.id)


@BOTH
def test_it_goes_with_its_lease(thing: Resource) -> None:
    decision = judge(thing, DEAD)
    assert decision.reap
    assert (decision.reason, decision.owner, decision.lease) == (Reason.LEASE_ENDED, "lease 7f3a", "7f3a")


def test_a_volume_goes_whose_engine_does_not_tell_when_it_was_made() -> None:
    """It was seen to be made; before Docker 23 its time is that of the last change, and that is the run's own."""
    assert judge(replace(ANONYMOUS, created_at_inexact=True), DEAD).reap


@BOTH
def test_a_living_lease_keeps_it_from_an_ended_one(thing: Resource) -> None:
    assert judge(thing, ALIVE).reason is Reason.LEASED
    assert judge(thing, replace(DEAD, id="b2"), ALIVE).reason is Reason.LEASED


@BOTH
def test_another_engine_has_another_one(thing: Resource) -> None:
    assert judge(thing, DEAD, site=Site("engine-2")).reason is Reason.NOT_OWNED
    assert judge(thing, DEAD, site=Site()).reason is Reason.NOT_OWNED


@BOTH
def test_without_a_record_it_stays(thing: Resource) -> None:
    assert judge(thing, replace(DEAD, made=frozenset())).reason is Reason.NOT_OWNED


KEPT = {
    "a volume made before": replace(ANONYMOUS, created_at=ago(hours=2)),
    "a volume changed since": replace(ANONYMOUS, created_at=ago(seconds=2), created_at_inexact=True),
    "a volume with a name": replace(ANONYMOUS, id="data"),
    "a volume of a project": replace(ANONYMOUS, labels=PROJECT),
    "a volume of another lease": replace(ANONYMOUS, labels={"reaper.lease": "b2"}),
    "an image tagged before": replace(BUILT, tagged_at=ago(hours=2)),
    "an image tagged since": replace(BUILT, tagged_at=ago(seconds=2)),
    "an image without the time of its tag": replace(BUILT, tagged_at=None),
    "an image of no project": replace(BUILT, labels={}),
    "an image of another lease": replace(BUILT, labels={**PROJECT, "reaper.lease.image": "b2"}),
    "a committed container": replace(BUILT, labels={**PROJECT, "com.docker.compose.container-number": "1"}),
    "a committed run": replace(BUILT, labels={**PROJECT, "com.docker.compose.oneoff": "True"}),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_may_be_another_s_by_now_stays_and_is_explained(name: str) -> None:
    thing = KEPT[name]
    lease = replace(DEAD, made=DEAD.made | {("engine-1", thing.id)})
    decision = judge(thing, lease)
    assert decision.reason is Reason.NOT_OWNED
    assert decision.sentence.startswith("lease 7f3a has ended and ")
    assert ("does not report when it was tagged" in decision.sentence) == ("without the time" in name)


def test_an_image_with_two_tags_stays() -> None:
    assert judge(replace(BUILT, tags=("chess:1", "wanted:1")), DEAD).reason is Reason.IN_USE


def test_a_volume_that_a_container_has_is_left_to_that() -> None:
    user = replace(
        STOPPED, id="u1", name="user", labels={"reaper.lease": "7f3a"}, created_at=ago(minutes=3), uses=frozenset({NAME})
    )
    decision = judge(ANONYMOUS, DEAD, beside=(user,))
    assert (decision.reason, decision.sentence) == (Reason.IN_USE, "user has it, and it may go with that")
    labelled = replace(ANONYMOUS, labels={"reaper.lease": "7f3a"})
    assert judge(labelled, DEAD, beside=(user,)).reap, "no engine takes one that was made by itself with a container"


def test_a_tag_that_moves_between_two_looks_keeps_it() -> None:
    assert what_changed(BUILT, replace(BUILT, tagged_at=ago(seconds=1))) == "was tagged again"
    assert what_changed(replace(BUILT, tagged_at=None), BUILT) is None  # the listing did not tell


def test_it_is_explained_by_its_lease() -> None:
    findings = explain(BUILT, [BUILT], Rules(), Leases((DEAD,), SITE), ago())
    assert next(f for f in findings if f.verdict is not None).sentence.startswith("lease 7f3a of pid 4711 on gpu-1 ended")


def test_an_index_finds_it_and_forgets_it() -> None:
    index = LeaseIndex((DEAD,))
    leases = Leases(index, SITE)
    assert leases.made == {NAME, BUILT.id}
    index.put(replace(DEAD, made=frozenset({("engine-1", BUILT.id)})))
    assert leases.made == {BUILT.id}
    assert (leases.maker(ANONYMOUS), leases.maker(BUILT)) == (None, replace(DEAD, made=frozenset({("engine-1", BUILT.id)})))
    index.drop(DEAD.id)
    assert leases.made == frozenset()


def test_the_engine_s_clock_counts() -> None:
    """A tag from before the lease, by a clock that is ahead, looks like one of its time."""
    slow = replace(SITE, skew=timedelta(minutes=5), slowest=timedelta(minutes=5), fastest=timedelta(minutes=5))
    assert judge(replace(BUILT, tagged_at=ago(minutes=56)), DEAD, site=slow).reason is Reason.NOT_OWNED
    assert judge(replace(BUILT, tagged_at=ago(minutes=54)), DEAD, site=slow).reap


ID = "ef" * 32
LABELS = {"reaper.lease": "7f3a", "team": "rl"}
FORGOTTEN = replace(FOREIGN, id=ID, name="box", labels=LABELS, created_at=ago(minutes=3), inherited=None)
RECORDED = replace(DEAD, made=frozenset(), containers=frozenset({("engine-1", ID)}))


@pytest.mark.parametrize(
    "inherited", [None, frozenset(LABELS), frozenset({"reaper.lease"})], ids=["unknown", "all", "label"]
)
def test_a_container_that_was_seen_to_be_made_goes_whatever_its_image_says(inherited: frozenset[str] | None) -> None:
    box = replace(FORGOTTEN, inherited=inherited)
    decision = judge(box, RECORDED)
    assert (decision.reason, decision.owner, decision.lease) == (Reason.LEASE_ENDED, "lease 7f3a", "7f3a")
    assert (
        judge(box, replace(RECORDED, containers=frozenset())).reason is Reason.LEASE_UNKNOWN
        or not judge(box, replace(RECORDED, containers=frozenset())).reap
    )


OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "endpoint": st.sampled_from(["engine-2", None]),
    "id": st.sampled_from(["ab" * 32, NAME, ID[:12], "e" + ID]),
    "labels": st.sampled_from([{**LABELS, "reaper.lease": "b2"}, {"team": "rl"}, {}, None]),
    "kind": st.sampled_from([Kind.VOLUME, Kind.NETWORK, Kind.SANDBOX, Kind.IMAGE]),
    "age": st.sampled_from([timedelta(minutes=59), timedelta(minutes=61), timedelta(days=3)]),
}
"""By what something may differ from what was recorded."""


@given(st.data())
def test_the_record_of_a_container_takes_nothing_but_that_one(data: st.DataObject) -> None:
    """What differs in one point from what was recorded is what it would be without the record."""
    differs = data.draw(st.sets(st.sampled_from(sorted(OTHERS)), max_size=2))
    drawn = {what: data.draw(others) for what, others in OTHERS.items() if what in differs}
    fields: dict[str, Any] = {"id": ID, "labels": LABELS, "kind": Kind.CONTAINER, **drawn}
    created, site = ago() - fields.pop("age", timedelta(minutes=3)), Site(fields.pop("endpoint", "engine-1"))
    inherited = data.draw(st.sampled_from([None, frozenset(fields["labels"] or ())]))
    thing = replace(FORGOTTEN, created_at=created, inherited=inherited, **fields)
    lease = replace(RECORDED, ending=data.draw(st.sampled_from([None, RECORDED.ending])))
    without = replace(lease, containers=frozenset())
    if differs - {"age"} or lease.ending is None:
        assert lease.covers(thing, site) == without.covers(thing, site)
        assert judge(thing, lease, site=site) == judge(thing, without, site=site)
    else:
        assert lease.covers(thing, site) == judge(thing, lease, site=site).reap == (created >= ago(hours=1))
        assert not without.covers(thing, site)
    assert not Leases((lease,), site).made, "no listing is made longer by it"


def test_what_keeps_any_container_keeps_one_that_was_seen_to_be_made() -> None:
    assert judge(replace(FORGOTTEN, labels={**LABELS, "reaper.keep": ""}), RECORDED).reason is Reason.PROTECTED
    assert judge(FORGOTTEN, replace(RECORDED, ending=None)).reason is Reason.LEASED
    assert not judge(FORGOTTEN, replace(RECORDED, since=ago(minutes=1))).reap
