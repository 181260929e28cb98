"""Volumes and images: nothing takes them but a lease that has ended, and that only what was surely made under it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from reaper.core.decide import explain
from reaper.core.lease import Claim, Ending, Lease
from reaper.core.lease_index import Leases
from reaper.core.model import Decision, Kind, Reason, Remembered, Resource
from reaper.core.rules import Rules
from reaper.core.scope import Protect, Scope, Selector
from reaper.sweep.context import what_changed
from tests.core.make import (
    EVERYTHING,
    FOREIGN,
    HARBOR_FILE,
    IMAGE,
    NETWORK,
    NOW,
    RUNNING,
    STOPPED,
    STOPPED_1H,
    VOLUME,
    ago,
    judge_one,
    judged,
    rules,
)

ALIVE = Lease("7f3a", "pid 4711 on gpu-1", since=ago(hours=1))
DEAD = replace(ALIVE, ending=Ending(ago(seconds=12), "killed"))
LABEL = {"reaper.lease": "7f3a", "reaper.lease.image": "7f3a"}
MINE = replace(VOLUME, labels=LABEL)
BOTH = pytest.mark.parametrize("thing", [VOLUME, IMAGE], ids=["volume", "image"])


def judge(resource: Resource, *leases: Lease, by: Rules | None = None) -> Decision:
    return judge_one(resource, by or rules(), leases)


def test_an_image_does_not_go_by_what_it_has_from_a_container() -> None:
    """``docker commit`` gives it the container's labels, and it may be all that a user wants to keep of a run."""
    committed = replace(IMAGE, labels={"reaper.lease": "7f3a"})
    assert judge(committed, DEAD).reason is Reason.NOT_OWNED
    assert judge(committed, ALIVE).reason is Reason.LEASED


@BOTH
def test_what_a_dead_holder_made_goes(thing: Resource) -> None:
    decision = judge(replace(thing, labels=LABEL), DEAD)
    assert decision.reap
    assert decision.reason is Reason.LEASE_ENDED
    assert decision.sentence == "lease 7f3a of pid 4711 on gpu-1 ended 12 s ago (killed)"
    assert (decision.owner, decision.policy, decision.lease) == ("lease 7f3a", None, "7f3a")


@BOTH
def test_a_living_lease_keeps_it(thing: Resource) -> None:
    assert judge(replace(thing, labels=LABEL, created_at=ago(days=30)), ALIVE).reason is Reason.LEASED
    named = replace(ALIVE, id="b2", claims=(Claim(Selector(names=(thing.name,))),))
    assert judge(replace(thing, labels=LABEL), DEAD, named).reason is Reason.LEASED  # though only by its name


@BOTH
def test_nothing_else_takes_it(thing: Resource) -> None:
    """Neither a scope that owns everything, nor --all, nor a preset's sign, nor a memory, nor its own label override."""
    signs = {"terminal-bench": "", "harbor.managed": "true", "reaper.ttl": "1s"}
    old = replace(
        thing, created_at=ago(days=30), labels=signs, group="chess", remembered=Remembered("preset harbor", ago(days=1))
    )
    everything = Rules(Scope(everything=True, selector=Selector(names=("*",), labels=("terminal-bench",))))
    for by in (everything, replace(everything, policies=(EVERYTHING, STOPPED_1H))):
        decision = judge(old, DEAD, by=by)
        assert decision.reason is Reason.NOT_OWNED
        assert not decision.would_match
        assert "goes only with a lease that it was made under" in decision.sentence


KEPT = {
    "protected label": ({**LABEL, "reaper.keep": ""}, {}, Reason.PROTECTED),
    "unreadable label override": ({**LABEL, "reaper.ttl": "soon"}, {}, Reason.INVALID_LABEL),
    "system_container": (LABEL, {"system_container": "a volume of a cluster"}, Reason.SYSTEM_CONTAINER),
    "unreadable": (LABEL, {"unreadable": "an odd name"}, Reason.UNREADABLE),
    "no creation time": (LABEL, {"created_at": None}, Reason.UNREADABLE),
    "older than the lease": (LABEL, {"created_at": ago(hours=2)}, Reason.NOT_OWNED),
    "of another lease": ({"reaper.lease": "b2"}, {}, Reason.NOT_OWNED),
    "without a label": ({}, {}, Reason.NOT_OWNED),
}


def test_an_ended_lease_does_not_take_what_says_to_be_of_1970() -> None:
    """Reproducible builds say so of their images; a volume of that time is of a host whose clock was not set."""
    in_1970 = {"labels": LABEL, "created_at": datetime(1970, 1, 1, tzinfo=UTC)}
    assert judge(replace(IMAGE, **in_1970), DEAD).reason is Reason.NOT_OWNED  # type: ignore[arg-type]
    assert judge(replace(VOLUME, **in_1970), DEAD).reason is Reason.UNREADABLE  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize("name", KEPT)
def test_an_ended_lease_does_not_take_it(thing: Resource, name: str) -> None:
    labels, fields, reason = KEPT[name]
    if "1970" in name and thing.kind is Kind.VOLUME:
        reason = Reason.UNREADABLE  # no volume is of 1970: a clock was wrong
    assert judge(replace(thing, labels=labels, **fields), DEAD).reason is reason  # type: ignore[arg-type]


def test_any_tag_protects_an_image() -> None:
    by = Rules(protect=Protect(Selector(images=("acme/*",))))
    assert judge(replace(IMAGE, labels=LABEL, tags=("chess:1", "acme/base:7")), DEAD, by=by).reason is Reason.PROTECTED
    assert judge(replace(IMAGE, labels=LABEL), DEAD, by=by).reap


def test_an_image_with_a_second_tag_stays() -> None:
    """The engine would refuse to delete it, sweep after sweep."""
    decision = judge(replace(IMAGE, labels=LABEL, tags=("chess:1", "chess:2")), DEAD)
    assert (decision.reason, decision.sentence) == (Reason.IN_USE, "it has 2 tags: chess:1, chess:2")


TELLING = {
    "labels": Claim(Selector(labels=("run=my-*",))),
    "a label and a name": Claim(Selector(labels=("run",), names=("ches*",))),
    "a project": Claim(projects=("chess",)),
}
NOT_TELLING = {
    "a name": Claim(Selector(names=("ches*",))),
    "an image": Claim(Selector(images=("chess",))),
    "nothing": Claim(),
}


@BOTH
@pytest.mark.parametrize("name", [*TELLING, *NOT_TELLING])
def test_a_claim_takes_it_by_labels_or_project_only(thing: Resource, name: str) -> None:
    claimed = replace(thing, group="chess", labels={"run": "my-sweep", "com.docker.compose.project": "chess"})
    lease = replace(DEAD, claims=({**TELLING, **NOT_TELLING}[name],))
    assert judge(claimed, lease).reap is (name in TELLING)
    assert not judge(replace(claimed, created_at=ago(hours=2)), lease).reap


@BOTH
def test_an_id_is_no_claim_to_it(thing: Resource) -> None:
    """A volume's id is its name, which is used again and again."""
    assert judge(thing, replace(DEAD, resources=frozenset({thing.id}))).reason is Reason.NOT_OWNED
    assert judge(thing, replace(ALIVE, resources=frozenset({thing.id}))).reason is Reason.LEASED


@pytest.mark.parametrize("name", TELLING)
def test_where_its_creation_time_is_unknown_only_the_lease_s_own_label_takes_it(name: str) -> None:
    """An engine before Docker 23 tells of a volume when it was changed last: last month's database looks like this run's."""
    changed = replace(VOLUME, created_at_inexact=True, group="chess", labels={"run": "my-sweep"})
    lease = replace(DEAD, claims=(TELLING[name],))
    decision = judge(changed, lease)
    assert decision.reason is Reason.NOT_OWNED
    assert decision.sentence == "lease 7f3a claims it, but an engine before Docker 23 does not report when it was made"
    assert judge(replace(changed, labels=LABEL), lease).reap
    assert not judge(replace(changed, labels=LABEL, created_at=ago(hours=2)), lease).reap


@pytest.mark.parametrize(
    ("pattern", "reaped"),
    [
        ("org.testcontainers.session-id=6f1c", True),
        ("org.testcontainers.sessionId=6f1c", True),
        ("org.testcontainers.session-id", False),
        ("org.testcontainers.session-id=6f*", False),
        ("org.testcontainers=true", False),
        ("org.testcontainers.resource-reaper-session=00000000-0000-0000-0000-000000000000", False),
    ],
)
def test_nothing_is_older_than_the_session_whose_own_value_it_carries(pattern: str, reaped: bool) -> None:
    key, _, value = pattern.partition("=")
    changed = replace(VOLUME, created_at_inexact=True, labels={key: "6f1c" if "*" in value else value})
    assert judge(changed, replace(DEAD, claims=(Claim(Selector(labels=(pattern,))),))).reap is reaped


# With their project, and with what uses them


@BOTH
def test_it_stays_with_its_project(thing: Resource) -> None:
    mine = replace(thing, group="chess", labels=LABEL)
    young = replace(RUNNING, group="chess", created_at=ago(minutes=1), started_at=ago(minutes=1))
    decision = judged([mine, young], rules(), [DEAD])[thing.id]
    assert decision.reason is Reason.GROUP_KEPT
    assert judged([mine, replace(young, labels=LABEL)], rules(), [DEAD])[thing.id].reap


@BOTH
def test_what_uses_it_and_stays_keeps_it(thing: Resource) -> None:
    mine, user = replace(thing, labels=LABEL), replace(FOREIGN, uses=frozenset({thing.id}))
    decision = judged([mine, user], rules(), [DEAD])[thing.id]
    assert (decision.reason, decision.sentence) == (Reason.IN_USE, "postgres, which is kept, uses it")
    gone = replace(user, created_at=ago(minutes=1), started_at=ago(minutes=1), labels=LABEL)
    assert all(decision.reap for decision in judged([mine, gone], rules(), [DEAD]).values())


@BOTH
@pytest.mark.parametrize("labels", [{"reaper.keep": ""}, LABEL, {"terminal-bench": ""}, {}], ids=str)
def test_it_decides_nothing_for_its_project(thing: Resource, labels: dict[str, str]) -> None:
    """It is listed only while there are leases: with them a project's fate must not come and go."""
    signs = {**labels, "com.docker.compose.project.config_files": HARBOR_FILE}
    beside = replace(thing, group="chess", labels=signs, image="hb__x", created_at=ago(days=9))
    for project in ([replace(STOPPED, group="chess"), NETWORK], [replace(FOREIGN, group="chess"), NETWORK], [NETWORK]):
        without = {id_: (d.verdict, d.owner) for id_, d in judged(project, rules(STOPPED_1H), [ALIVE]).items()}
        with_it = {id_: (d.verdict, d.owner) for id_, d in judged([*project, beside], rules(STOPPED_1H), [ALIVE]).items()}
        assert {id_: with_it[id_] for id_ in without} == without


# What is asked for, and what makes it another one


def test_without_leases_nothing_is_asked_for() -> None:
    assert Leases(()).label_keys == frozenset()


def test_a_label_that_all_that_is_claimed_carries_is_asked_for() -> None:
    claims = (*TELLING.values(), *NOT_TELLING.values(), Claim(Selector(labels=("a=b", "c"))))
    own = {"reaper.lease", "reaper.lease.image"}
    leases = Leases((ALIVE, replace(DEAD, id="dead", claims=claims)))
    assert leases.label_keys == own | {
        "run",
        "com.docker.compose.project",
        "a",
    }
    assert Leases((ALIVE,)).label_keys == own


def test_a_volume_that_was_made_again_is_another_one() -> None:
    again = replace(MINE, created_at=ago(minutes=1))
    assert MINE.identity != again.identity
    assert what_changed(MINE, again) == "is another one of the same name now"
    assert what_changed(MINE, MINE) is None
    assert what_changed(MINE, replace(MINE, labels={})) == "has other labels now"
    # Where the time is that of the last change, the run itself changes it, and its label says whose it is.
    changed = replace(MINE, created_at_inexact=True)
    assert what_changed(changed, replace(changed, created_at=ago(minutes=1))) is None


def test_an_image_that_was_tagged_since_is_not_the_same_any_more() -> None:
    assert what_changed(IMAGE, replace(IMAGE, tags=("acme/base:7", "chess:1"))) == "has other tags now"


@BOTH
def test_it_can_be_explained_without_a_lease_and_with_one(thing: Resource) -> None:
    for leases in ((), (DEAD,), (ALIVE,)):
        mine = replace(thing, labels=LABEL)
        findings = explain(mine, [mine], rules(STOPPED_1H), leases, NOW)
        decisive = next(finding for finding in findings if finding.verdict is not None)
        assert decisive.reason is judge(mine, *leases).reason
        assert all(finding.sentence for finding in findings)


def test_only_what_runs_decides_for_its_group() -> None:
    assert {kind for kind in Kind if kind.runs} == {Kind.CONTAINER, Kind.SANDBOX}
    assert sorted(Kind, key=lambda kind: kind.stage)[2:] == [
        Kind.POD,
        Kind.NETWORK,
        Kind.VOLUME,
        Kind.IMAGE,
        Kind.BUILD_CACHE,
    ]


def test_what_is_older_than_the_lease_by_a_second_is_not_its_own() -> None:
    since = DEAD.since
    assert since is not None
    assert judge(replace(MINE, created_at=since), DEAD).reap
    assert not judge(replace(MINE, created_at=since - timedelta(seconds=1)), DEAD).reap


# An image's labels, which its containers inherit


def test_an_image_may_carry_a_label_of_its_own() -> None:
    mine = replace(IMAGE, labels={"reaper.lease.image": "7f3a"})
    assert judge(mine, DEAD).reap
    assert judge(mine, ALIVE).reason is Reason.LEASED
    assert judge(replace(VOLUME, labels=mine.labels), DEAD).reason is Reason.NOT_OWNED
    assert judge(replace(YOUNG, labels=mine.labels), DEAD).reason is Reason.NOT_OWNED


YOUNG = replace(FOREIGN, created_at=ago(minutes=2), started_at=ago(minutes=2), labels={**LABEL, "run": "my-sweep"})


def test_a_label_that_may_be_the_image_s_takes_no_container() -> None:
    """A neighbour who uses an image of the run gets its labels with it."""
    inherited = replace(YOUNG, inherited=frozenset({"reaper.lease"}))
    assert judge(YOUNG, DEAD).reap
    decision = judge(inherited, DEAD)
    assert decision.reason is Reason.NOT_OWNED
    assert "its label reaper.lease may be its image's" in decision.sentence
    assert judge(inherited, ALIVE).reason is Reason.LEASED
    owned = judge(replace(inherited, image="tb__chess__client"), DEAD)
    assert owned.reason is Reason.LEASE_UNKNOWN
    assert "may be its image's" in owned.sentence
    assert judge(inherited, replace(DEAD, claims=(TELLING["labels"],))).reap  # as its holder says
