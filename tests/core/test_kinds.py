"""Networks, volumes, images and build caches: what a policy for their kind takes, and what nothing takes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from reaper.core.conditions import Policy
from reaper.core.decide import decide, explain
from reaper.core.layers import mark_inherited
from reaper.core.lease import Lease
from reaper.core.model import Action, Decision, Kind, Reason, Remembered, Resource, State
from reaper.core.rules import Rules
from reaper.core.scope import Protect, Scope, Selector
from tests.core.make import CONTAINERS, FOREIGN, HOUR, IMAGE, MINUTE, NETWORK, NOW, STOPPED, VOLUME, ago

DAY = 24 * HOUR
TRIAL = "chess-best-move-1-of-1-2026-11-21__06-30-00"
OWNED = Selector(labels=("team=rl",), names=("bench-*",), images=("acme/*",))
NET = replace(NETWORK, id="n2", name="bench-net", group=None, labels={}, created_at=ago(days=3))
VOL = replace(VOLUME, id="bench-data", name="bench-data", group=None, labels={}, created_at=ago(days=30))
IMG = replace(IMAGE, id="sha256:1", name="acme/x:1", tags=("acme/x:1",), labels={}, group=None, created_at=ago(days=30))
CACHE = replace(VOL, kind=Kind.BUILD_CACHE, id="build-cache", name="build-cache", last_used_at=ago(days=9), size=10 << 30)
USER = replace(FOREIGN, id="u1", name="user", image="busybox:1")


def policy(kind: str, **fields: Any) -> Policy:
    return Policy(f"old-{kind}s", frozenset({Kind(kind)}), **fields)


def by(*policies: Policy, scope: Selector = OWNED, **fields: Any) -> Rules:
    return Rules(Scope(selector=scope, **fields), policies=policies)


def judge(rules: Rules, *resources: Resource, leases: Sequence[Lease] = ()) -> list[Decision]:
    return decide(resources, rules, leases, NOW)


def one(rules: Rules, *resources: Resource) -> Decision:
    return judge(rules, *resources)[0]


def used(resource: Resource, **past: float) -> Resource:
    """It as a memory has it that has watched for long."""
    return replace(resource, last_used_at=ago(**past), watched_since=ago(days=90))


EACH = pytest.mark.parametrize(
    ("thing", "kind"), [(NET, "network"), (VOL, "volume"), (IMG, "image")], ids=["network", "volume", "image"]
)


@EACH
def test_a_policy_for_its_kind_takes_what_was_unused_for_so_long(thing: Resource, kind: str) -> None:
    rules = by(policy(kind, unused_for=2 * DAY))
    assert one(rules, used(thing, days=3)).reason is Reason.UNUSED_FOR
    assert one(rules, used(thing, days=1)).reason is Reason.TOO_YOUNG
    assert not one(rules, thing).reap, "what was not watched counts as used"
    assert "watched for 90 d" in one(rules, used(thing, days=3)).sentence


@EACH
def test_nothing_is_taken_without_a_policy_for_its_kind(thing: Resource, kind: str) -> None:
    for rules in (by(), by(policy("container", older_than=HOUR)), by(Policy("--all", frozenset(), every_resource=True))):
        assert not one(rules, used(thing, days=30)).reap
    assert not by(policy("container", older_than=HOUR)).kinds & {Kind(kind)}


@EACH
def test_what_is_not_owned_stays(thing: Resource, kind: str) -> None:
    rules = by(policy(kind, unused_for=2 * DAY), scope=Selector(names=("other-*",)))
    decision = one(rules, used(thing, days=30))
    assert (decision.reason, decision.would_match) == (Reason.NOT_OWNED, True)


@EACH
def test_what_any_container_has_stays_whether_that_runs_or_not(thing: Resource, kind: str) -> None:
    rules = by(policy(kind, older_than=HOUR))
    old = replace(thing, tagged_at=ago(days=3))
    assert one(rules, old).reason is Reason.OLDER_THAN
    for state in (State.RUNNING, State.STOPPED):
        user = replace(USER, state=state, uses=frozenset({thing.id}))
        assert one(rules, old, user).reason is Reason.IN_USE
    reaped = replace(STOPPED, labels={"team": "rl"}, uses=frozenset({thing.id}))
    both = judge(by(policy(kind, older_than=HOUR), policy("container", stopped_for=HOUR)), old, reaped)
    assert [d.reap for d in both] == [False, True], "and though that goes in the same sweep"


@EACH
def test_protection_keeps_it(thing: Resource, kind: str) -> None:
    rules = by(policy(kind, unused_for=2 * DAY))
    kept = replace(rules, protect=Protect(Selector(names=("bench-*",), images=("acme/*",))))
    assert one(kept, used(thing, days=30)).reason is Reason.PROTECTED
    assert one(rules, used(replace(thing, labels={"reaper.keep": ""}), days=30)).reason is Reason.PROTECTED
    ttl = replace(thing, labels={"reaper.ttl": "60d"})
    assert one(rules, used(ttl, days=30)).reason is Reason.LABEL_NOT_DUE


@EACH
def test_a_living_lease_keeps_it(thing: Resource, kind: str) -> None:
    labelled = replace(thing, labels={"reaper.lease": "7f3a"})
    rules = by(policy(kind, unused_for=2 * DAY))
    decisions = decide([used(labelled, days=30)], rules, [Lease("7f3a", "pid 1", since=ago(days=40))], NOW)
    assert decisions[0].reason is Reason.LEASED


def test_a_network_of_the_last_minutes_stays() -> None:
    rules = by(policy("network", unused_for=MINUTE))
    assert one(rules, used(replace(NET, created_at=ago(minutes=9)), minutes=9)).reason is Reason.CREATED_GRACE
    assert one(rules, used(replace(NET, created_at=ago(minutes=11)), minutes=11)).reap


def test_a_network_of_a_living_project_goes_with_that_alone() -> None:
    rules = by(policy("network", unused_for=MINUTE), policy("container", stopped_for=HOUR))
    network = used(replace(NET, group="p", labels={"team": "rl"}), days=9)
    member = replace(USER, group="p", labels={"team": "rl"})
    assert one(rules, network, member).reason is Reason.GROUP_KEPT


def test_what_was_left_of_projects_of_the_runners_goes_by_their_names() -> None:
    rules = by(policy("network", unused_for=HOUR), policy("volume", unused_for=HOUR))
    for project, network, volume in (
        (TRIAL, True, True),
        ("hello-world__a1b2c3d", True, False),  # such a name may be anybody's, and a volume holds data
        ("hello-world__a1b2c3d__env", True, True),
        ("website", False, False),
    ):
        net = used(replace(NET, name=f"{project}_default", group=project), days=2)
        vol = used(replace(VOL, id=f"{project}_data", name=f"{project}_data", group=project), days=2)
        assert [d.reap for d in judge(rules, net, vol)] == [network, volume], project
        assert not any(d.reap for d in judge(rules, net, vol, replace(USER, group=project))[:2])


def test_anonymous_volumes_go_and_named_ones_stay() -> None:
    rules = by(policy("volume", anonymous=True), everything=True)
    anonymous = replace(VOL, id="a" * 64, name="a" * 64, anonymous=True)
    assert one(rules, anonymous).reason is Reason.ANONYMOUS
    assert one(rules, VOL).reason is Reason.NO_POLICY
    assert one(rules, replace(anonymous, created_at=ago(minutes=9))).reason is Reason.TOO_YOUNG


def test_only_what_is_larger_goes_and_what_has_no_size_stays() -> None:
    rules = by(policy("volume", larger_than=1 << 30))
    assert one(rules, replace(VOL, size=(1 << 30) + 1)).reason is Reason.LARGER_THAN
    assert not one(rules, replace(VOL, size=1 << 30)).reap
    assert "its size is not known" in one(rules, VOL).sentence


def test_an_image_is_as_old_as_it_is_here() -> None:
    """One that was pulled a minute ago may have been built years ago."""
    rules = by(policy("image", older_than=DAY))
    assert not one(rules, replace(IMG, tagged_at=ago(minutes=1))).reap
    assert one(rules, replace(IMG, tagged_at=ago(days=2))).reap
    unknown = one(rules, IMG)
    assert (unknown.reap, "of unknown age" in unknown.sentence) == (False, True)
    assert one(rules, replace(IMG, watched_since=ago(days=2))).reap


def test_each_tag_of_an_image_must_be_owned() -> None:
    rules = by(policy("image", older_than=DAY))
    mixed = replace(IMG, tags=("acme/x:1", "neighbour/y:1"), tagged_at=ago(days=9))
    assert one(rules, mixed).reason is Reason.NOT_OWNED
    assert "neighbour/y:1" in one(rules, mixed).sentence
    assert one(rules, replace(mixed, tags=("neighbour/y:1",))).reason is Reason.NOT_OWNED
    labelled = replace(mixed, labels={"team": "rl"})
    assert not one(rules, labelled).reap, "a label does not own what has another name"


@pytest.mark.parametrize(
    ("reference", "preset", "owned"),
    [
        ("tb__chess__client:latest", "terminal-bench", True),
        ("hb__chess:1", "harbor", True),
        ("swebench/sweb.eval.x86_64.django__django-1:latest", "swe-bench", True),
        ("localhost:5000/tb__chess__client:1", "terminal-bench", True),
        ("postgres:16", "terminal-bench", False),
        ("acme/tb__x:1", "terminal-bench", False),
    ],
)
def test_presets_own_images_by_their_names(reference: str, preset: str, owned: bool) -> None:
    rules = by(policy("image", older_than=DAY), scope=Selector(), presets=(preset,))
    assert one(rules, replace(IMG, tags=(reference,), tagged_at=ago(days=9))).reap is owned


def test_the_image_of_a_harbor_project_that_is_gone_goes() -> None:
    rules = by(policy("image", older_than=DAY))
    project = "hello__a1b2c3d"
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": "main"}
    built = replace(IMG, tags=(f"{project}-main:latest",), labels=labels, group=project, tagged_at=ago(days=9))
    assert one(rules, built).reap
    assert not one(rules, built, replace(USER, group=project)).reap
    assert not one(rules, replace(built, tags=("kept:1",))).reap
    assert not one(rules, replace(built, labels={**labels, "com.docker.compose.oneoff": "False"})).reap, "it was committed"


def test_an_untagged_image_is_owned_by_what_it_was() -> None:
    rules = by(policy("image", untagged=True))
    dangling = replace(IMG, tags=(), tagged_at=ago(days=9))
    assert one(rules, dangling).reason is Reason.NOT_OWNED
    known = replace(dangling, remembered=Remembered("scope image acme/*", NOW))
    assert one(rules, known).reason is Reason.UNTAGGED
    assert not one(rules, replace(known, tagged_at=ago(minutes=9))).reap
    assert not one(rules, replace(known, tags=("acme/x:1",))).reap


def test_what_a_kept_image_was_built_on_stays() -> None:
    rules = by(policy("image", older_than=DAY))
    base = replace(IMG, layers=("a",), tagged_at=ago(days=9))
    child = replace(IMG, id="sha256:2", name="kept:1", tags=("kept:1",), layers=("a", "b"), tagged_at=ago(days=9))
    decision = one(rules, base, child)
    assert (decision.reason, "kept:1" in decision.sentence) == (Reason.IN_USE, True)
    owned = replace(child, tags=("acme/y:1",))
    assert all(d.reap for d in judge(rules, base, owned))
    twin = replace(IMG, id="sha256:3", tags=("debian:12",), layers=("a",))
    assert one(rules, base, child, twin).reap, "another kept one has the same layers"
    assert one(rules, replace(base, layers=()), replace(child, uses=frozenset({base.id}))).reason is Reason.IN_USE


def test_what_a_build_left_below_an_image_goes_with_it() -> None:
    rules = by(policy("image", older_than=DAY))
    top = replace(IMG, tagged_at=ago(days=9), uses=frozenset({"sha256:0"}))
    below = replace(IMG, id="sha256:0", name="0", tags=(), uses=frozenset())
    assert all(d.reap for d in judge(rules, top, below))
    other = replace(IMG, id="sha256:5", tags=("kept:1",), uses=frozenset({"sha256:0"}))
    assert [d.reap for d in judge(rules, top, below, other)] == [True, False, False]


def test_a_label_that_an_image_has_from_another_one_owns_nothing() -> None:
    rules = by(policy("image", older_than=DAY))
    base = replace(IMG, tags=("rl/base:1",), labels={"team": "rl"}, layers=("a",), tagged_at=ago(days=9))
    child = replace(base, id="sha256:2", tags=("neighbour/x:1",), layers=("a", "b"))
    assert one(rules, child).reap, "alone nothing shows that"
    assert not judge(rules, *mark_inherited([child, base]))[0].reap
    own = replace(child, labels={"team": "rl", "x": ""}, layers=("c",))
    assert judge(rules, *mark_inherited([own, base]))[0].reap


def test_a_label_from_an_image_to_which_nothing_was_added_owns_nothing() -> None:
    """``FROM rl/base:1`` with ``CMD`` alone has the same layers: only the engine tells, where it is no step of the build."""
    rules = by(policy("image", older_than=DAY))
    base = replace(IMG, tags=("rl/base:1",), labels={"team": "rl"}, layers=("a",), tagged_at=ago(days=9))
    child = replace(base, id="sha256:2", tags=("neighbour/x:1",), uses=frozenset({"sha256:9"}))
    step = replace(base, id="sha256:9", tags=(), uses=frozenset({base.id}))
    decisions = judge(rules, *mark_inherited([child, base, step]))
    assert decisions[0].reason is Reason.NOT_OWNED
    assert not judge(rules, *mark_inherited([child, replace(step, tags=("rl/base:2",), uses=frozenset())]))[0].reap
    assert judge(rules, *mark_inherited([child, replace(step, uses=frozenset({child.id}))]))[0].reap


def project(**fields: Any) -> list[Resource]:
    """A stopped container of a project, its network, a volume and an image that was built for it."""
    labels = {"com.docker.compose.project": "p", "com.docker.compose.service": "web"}
    return [
        replace(STOPPED, group="p", labels={"team": "rl"}, **fields),
        replace(NET, name="p_default", group="p"),
        replace(VOL, id="p_data", name="p_data", group="p"),
        replace(IMG, tags=("p-web:latest",), labels=labels, group="p"),
    ]


@pytest.mark.parametrize(
    ("along", "gone"),
    [((), 1), (("network",), 2), (("network", "volume"), 3), (("network", "volume", "image"), 4)],
)
def test_what_goes_with_a_project_is_what_the_policy_says(along: tuple[str, ...], gone: int) -> None:
    rules = by(policy("container", stopped_for=HOUR, with_project=frozenset(map(Kind, along))))
    decisions = judge(rules, *project())
    assert [d.reap for d in decisions] == [True] * gone + [False] * (4 - gone)
    assert not any(d.reap for d in judge(rules, *project(stopped_at=ago(minutes=1)))), "all or nothing"


def test_a_neighbours_use_of_them_keeps_a_projects_volume_and_image() -> None:
    rules = by(policy("container", stopped_for=HOUR, with_project=frozenset(Kind)))
    user = replace(USER, uses=frozenset({"p_data", IMG.id}))
    assert [d.reap for d in judge(rules, *project(), user)] == [True, True, False, False, False]


def test_what_was_renamed_or_committed_does_not_go_with_its_project() -> None:
    rules = by(policy("container", stopped_for=HOUR, with_project=frozenset(Kind)))
    *rest, built = project()
    for other in (
        replace(built, tags=("p-web:latest", "release:1")),
        replace(built, tags=("release:1",)),
        replace(built, labels={**(built.labels or {}), "com.docker.compose.container-number": "1"}),
    ):
        assert not judge(rules, *rest, other)[3].reap


def test_what_is_left_of_a_project_goes_only_where_that_was_reaped() -> None:
    """``docker compose down`` leaves the volumes on purpose."""
    rules = by(policy("container", stopped_for=HOUR, with_project=frozenset(Kind)))
    _, _, volume, _ = project()
    was = Remembered("scope label team=rl", ago(hours=1), volume.created_at)
    assert not one(rules, volume).reap
    assert one(rules, replace(volume, remembered=was)).reap
    assert not one(rules, replace(volume, remembered=replace(was, free_at=NOW + DAY))).reap


def test_a_one_off_container_goes_without_its_project() -> None:
    rules = by(policy("container", stopped_for=HOUR, oneoff=True))
    labels = {"team": "rl", "com.docker.compose.project": "p"}
    oneoff = replace(STOPPED, group="p", labels={**labels, "com.docker.compose.oneoff": "True"})
    other = replace(STOPPED, id="c2", name="web", group="p", labels=labels, state=State.RUNNING, raw_state="running")
    taken, kept = judge(rules, oneoff, other)
    assert (taken.reap, kept.reap, taken.resource.alone) == (True, False, True)
    assert not one(by(policy("container", stopped_for=HOUR)), oneoff, other).reap
    assert not one(rules, oneoff, replace(other, uses=frozenset({oneoff.id}))).reap, "it lives in its network"
    inherited = replace(oneoff, inherited=frozenset({"com.docker.compose.oneoff"}))
    assert not one(rules, inherited, other).reap


def test_of_a_living_project_only_a_policy_for_one_off_containers_takes_one_and_when_that_is_due() -> None:
    labels = {"team": "rl", "com.docker.compose.project": "p"}
    web = replace(STOPPED, id="c2", name="web", group="p", labels=labels, state=State.RUNNING, raw_state="running")
    old = replace(web, id="c1", name="run", labels={**labels, "com.docker.compose.oneoff": "True"})
    web = replace(web, created_at=ago(minutes=5), started_at=ago(minutes=5))
    runs = Policy("runs", CONTAINERS, older_than=DAY, oneoff=True)
    for action in (Action.STOP, Action.DELETE):
        rules = by(runs, Policy("all", CONTAINERS, older_than=HOUR, action=action))
        for due, verdicts in (("all", [False, False]), ("runs", [True, False])):
            assert [d.reap for d in decide([old, web], rules, (), NOW, {due})] == verdicts
        taken = decide([old, web], rules, (), NOW)[0]
        assert (taken.policy, taken.action, judge(rules, taken.resource)[0].policy) == ("runs", Action.DELETE, "runs")
    assert not judge(by(policy("container", older_than=HOUR)), taken.resource)[0].reap, "in the last look neither"


def test_a_time_on_a_label_ends_a_volume_and_no_image() -> None:
    """A Dockerfile says it of the containers, and what was built long ago may have been pulled just now."""
    ended = {"reaper.ttl": "1h"}
    volume, image = replace(VOL, labels=ended), replace(IMG, labels=ended, tagged_at=ago(minutes=20))
    assert one(by(policy("volume", older_than=400 * DAY)), volume).reason is Reason.TTL_ENDED
    assert not one(by(policy("image", older_than=400 * DAY)), image).reap
    assert not one(by(), volume).reap


def test_the_build_cache_goes_by_a_policy_for_it_alone() -> None:
    assert one(by(policy("build-cache", unused_for=DAY)), CACHE).reap
    assert not one(by(policy("build-cache", unused_for=10 * DAY)), CACHE).reap
    assert one(by(policy("build-cache", larger_than=9 << 30)), CACHE).reap
    assert not one(by(policy("build-cache", larger_than=11 << 30)), CACHE).reap
    protected = Protect(Selector(names=("build-cache",)))
    assert not one(replace(by(policy("build-cache", unused_for=DAY)), protect=protected), CACHE).reap
    assert not one(by(policy("volume", unused_for=DAY)), CACHE).reap


@EACH
def test_explain_names_the_rules_in_order(thing: Resource, kind: str) -> None:
    resource = used(thing, days=3)
    said = [f.sentence for f in explain(resource, [resource], by(policy(kind, unused_for=2 * DAY)), (), NOW)]
    assert "no container uses it, running or not" in said
    assert said[-1].startswith("unused for 3 d (watched for 90 d)")


@pytest.mark.parametrize("oneoff", [True, False])
def test_a_policy_for_one_off_containers_takes_no_network_of_a_project_without_containers(oneoff: bool) -> None:
    network = replace(NETWORK, labels={**(NETWORK.labels or {}), "team": "rl"}, created_at=ago(hours=1))
    decision = one(by(Policy("runs", CONTAINERS, stopped_for=HOUR, oneoff=oneoff)), network)
    assert decision.reap is not oneoff, decision.sentence
