"""What was seen to be made under a lease and carries no label of it: anonymous volumes, and images that were built."""

from dataclasses import replace
from datetime import timedelta

import pytest

from reaper.core.decide import decide, explain
from reaper.core.lease import Ending, Lease
from reaper.core.lease_index import LeaseIndex, Leases
from reaper.core.model import Decision, Reason, Resource
from reaper.core.rules import Rules
from reaper.core.site import Site
from reaper.sweep.context import what_changed
from tests.core.make import IMAGE, STOPPED, VOLUME, ago

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
