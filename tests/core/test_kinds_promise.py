"""The promise for networks, volumes, images and build caches, over generated worlds: written from the rules of deletion."""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reaper.core.conditions import Policy
from reaper.core.decide import decide
from reaper.core.layers import mark_inherited
from reaper.core.lease import Lease
from reaper.core.model import Decision, Kind, Remembered, Resource, State
from reaper.core.rules import Rules
from reaper.core.scope import Scope, Selector
from tests.core.make import HOUR, MINUTE, NOW, ago
from tests.core.strategies import PROPERTY, often

DAY = 24 * HOUR
MANY = settings(PROPERTY, max_examples=200)
UNUSED = (Kind.NETWORK, Kind.VOLUME, Kind.IMAGE)
PROJECTS = ("p", "chess-1-of-1-2026-11-21__06-30-00", "hello__a1b2c3d__env", "shop")
KEEP, MINE = {"reaper.keep": ""}, {"team": "rl"}
LABELS: tuple[dict[str, str], ...] = ({}, {}, MINE, MINE, MINE, {"team": "web"}, KEEP, KEEP | MINE, {"reaper.lease": "7f3a"})
NAMES = ("bench-1", "bench-2", "bench-3", "data", "website")
MIXED = (("acme/x:1", "postgres:16"), ("acme/x:1", "acme/y:1"))
TAGS = ((), ("acme/x:1",), ("acme/y:1",), ("acme/z:1",), ("tb__x__client:latest",), ("postgres:16",), *MIXED)
SPANS = (timedelta(0), MINUTE, 9 * MINUTE, 11 * MINUTE, HOUR, DAY, *(3 * DAY, 40 * DAY) * 4)
LIVING = Lease("7f3a", "pid 4711", since=ago(days=90))
SCOPE = Scope(selector=Selector(labels=("team=rl",), names=("bench-*",), images=("acme/*",)))


@dataclass(frozen=True)
class World:
    """All that decides."""

    resources: tuple[Resource, ...]
    rules: Rules

    def decide(self) -> list[Decision]:
        return decide(mark_inherited(self.resources), self.rules, [LIVING], NOW)


@st.composite
def resources(draw: st.DrawFn) -> tuple[Resource, ...]:
    """Some of each kind, which containers use and which were built on each other."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(UNUSED))
        image = kind is Kind.IMAGE
        tags = draw(st.sampled_from(TAGS)) if image else ()
        name = tags[0] if tags else f"{draw(st.sampled_from(NAMES))}-{number}"
        project = draw(often(None, *PROJECTS, weight=2))
        made = draw(st.sampled_from(SPANS))
        first = draw(st.sampled_from(SPANS))
        owner = draw(often(None, "scope image acme/*", "preset harbor, image hb__*", "scope image gone/*", weight=3))
        found.append(
            Resource(
                provider="docker",
                endpoint="local",
                kind=kind,
                id=f"{kind}-{number}",
                name=name,
                state=State.STOPPED,
                raw_state="present",
                created_at=draw(often(NOW - made, None, weight=12)),
                labels=draw(often(draw(st.sampled_from(LABELS)), None, weight=12)),
                group=project,
                tags=tags,
                image=tags[0] if tags else None,
                tagged_at=draw(often(NOW - made, None, weight=4)) if image else None,
                layers=draw(st.sampled_from(((), ("a",), ("a", "b"), ("d",), ("e",), ("f",)))) if image else (),
                anonymous=kind is Kind.VOLUME and draw(st.booleans()),
                size=draw(st.sampled_from((None, 1, 1 << 40))),
                last_used_at=draw(often(NOW - first, None, weight=5)),
                watched_since=draw(often(NOW - first, None, weight=3)),
                remembered=Remembered(owner, draw(st.sampled_from((ago(hours=1), NOW + DAY))), None) if owner else None,
                system_container=draw(often(None, "a Swarm network", weight=20)),
                unreadable=draw(often(None, "odd", weight=20)),
            )
        )
    ids = [one.id for one in found]
    parents = {one.id: draw(st.sampled_from(ids)) for one in found if one.kind is Kind.IMAGE}
    found = [
        replace(one, uses=frozenset({parents[one.id]})) if number % 3 == 0 and parents.get(one.id, one.id) < one.id else one
        for number, one in enumerate(found)
    ]
    for number in range(draw(st.sampled_from((0, 0, 1, 2, 3)))):
        found.append(
            Resource(
                provider="docker",
                endpoint="local",
                kind=Kind.CONTAINER,
                id=f"c{number}",
                name=f"c{number}",
                state=draw(st.sampled_from((State.RUNNING, State.STOPPED))),
                raw_state="exited",
                created_at=ago(days=50),
                started_at=ago(days=50),
                stopped_at=draw(st.sampled_from((ago(days=40), ago(minutes=1)))),
                labels=draw(st.sampled_from(LABELS)),
                image=draw(st.sampled_from(("busybox:1", "acme/x:1", "tb__x__client"))),
                group=draw(often(None, *PROJECTS, weight=2)),
                uses=frozenset(draw(st.sets(st.sampled_from(ids), max_size=1))),
                restart_policy="no",
            )
        )
    return tuple(found)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Resources, and policies for some of the kinds."""
    policies = []
    for number in range(draw(st.integers(1, 4))):
        kinds = draw(st.sets(st.sampled_from(UNUSED), min_size=1))
        policies.append(
            Policy(
                f"policy-{number}",
                frozenset(kinds),
                unused_for=(unused := draw(st.sampled_from((None, 2 * DAY, MINUTE)))),
                older_than=(older := draw(st.sampled_from((None, 2 * DAY)))),
                untagged=kinds == {Kind.IMAGE} and draw(st.booleans()),
                anonymous=kinds == {Kind.VOLUME} and draw(st.booleans()),
                larger_than=1 << 30 if unused is None and older is None else None,
            )
        )
    if draw(st.booleans()):
        along = frozenset(draw(st.sets(st.sampled_from(UNUSED))))
        policies.append(Policy("stopped", frozenset({Kind.CONTAINER}), stopped_for=DAY, with_project=along))
    scope = replace(SCOPE, everything=draw(often(False, True, weight=4)))
    return World(draw(resources()), Rules(scope, policies=tuple(policies)))


def must_stay(world: World, resource: Resource, reaped: set[str]) -> str | None:  # noqa: PLR0911
    """Why nothing may take it, by the rules of deletion alone; None when a policy may."""
    labels = resource.labels
    if resource.unreadable or labels is None or resource.created_at is None or resource.system_container:
        return "unreadable, or the engine's own"
    if "reaper.keep" in labels or labels.get("reaper.lease") == "7f3a":
        return "protected or leased"
    containers = [one for one in world.resources if one.kind is Kind.CONTAINER]
    users = [one for one in containers if resource.id in one.uses]
    if any(one.id not in reaped for one in users):
        return "a container that stays has it"
    of_project = [one for one in containers if resource.group is not None and one.group == resource.group]
    if any(one.group != resource.group for one in users) or (users and not of_project):
        return "another's container has it"
    if any(one.id not in reaped for one in of_project):
        return "its project stays"
    named = [kind for policy in world.rules.policies for kind in policy.kinds]
    follows = [policy for policy in world.rules.policies if Kind.CONTAINER in policy.kinds]
    along = any(resource.kind in policy.with_project for policy in follows) and resource.group is not None
    if resource.kind not in named and not along:
        return "no policy names its kind"
    if resource.kind is Kind.IMAGE:
        if len(resource.tags) > 1:
            return "several tags"
        others = [one for one in world.resources if one.kind is Kind.IMAGE and one.id not in reaped]
        if any(resource.id in one.uses for one in others):
            return "a kept image was made of it"
        if resource.tags and not world.rules.scope.everything and labels.get("team") != "rl":
            mine = any(fnmatchcase(resource.tags[0], glob) for glob in ("acme/*", "tb__*"))
            return None if mine else "its tag is not owned"
    if resource.kind is Kind.NETWORK and NOW - resource.created_at < 10 * MINUTE and not of_project:
        return "a network of the last minutes"
    return None


@MANY
@given(worlds())
def test_nothing_goes_that_the_rules_of_deletion_keep(world: World) -> None:
    decisions = world.decide()
    reaped = {decision.resource.id for decision in decisions if decision.reap}
    for decision in decisions:
        if decision.reap and not decision.resource.kind.runs:
            assert must_stay(world, decision.resource, reaped) is None, decision
            assert decision.owner is not None


@MANY
@given(worlds())
def test_what_was_used_lately_or_at_an_unknown_time_stays(world: World) -> None:
    unused = tuple(p for p in world.rules.policies if p.unused_for is not None)
    strict = replace(world, rules=replace(world.rules, policies=unused))
    for decision in strict.decide():
        if decision.reap:
            last = decision.resource.last_used_at
            assert last is not None
            assert NOW - last >= min(p.unused_for for p in unused if p.unused_for is not None)


@MANY
@given(worlds())
def test_without_policies_for_them_nothing_of_them_goes(world: World) -> None:
    by = replace(world.rules, policies=(Policy("--all", frozenset({Kind.CONTAINER}), every_resource=True),))
    for decision in replace(world, rules=by).decide():
        assert not (decision.reap and decision.resource.kind.opt_in)


def test_the_worlds_hold_what_goes_of_each_kind() -> None:
    """A property over worlds in which nothing goes says nothing."""
    taken = Counter[Kind]()

    @settings(PROPERTY, max_examples=200, phases=[Phase.generate])
    @given(worlds())
    def collect(world: World) -> None:
        taken.update(decision.resource.kind for decision in world.decide() if decision.reap)

    collect()
    assert min(taken[kind] for kind in UNUSED) >= 10, taken
