"""A label that a container has from its image says nothing of who made the container: it protects, and takes nothing."""

from dataclasses import replace
from datetime import timedelta

import pytest

from reaper.core.conditions import Policy
from reaper.core.decide import decide, explain, needs_inspection
from reaper.core.identity import compose_project
from reaper.core.inventory_warnings import owned_by_image
from reaper.core.lease import Claim, Ending, Lease
from reaper.core.model import Decision, Kind, Reason, Resource
from reaper.core.rules import Rules
from reaper.core.scope import Protect, Scope, Selector
from tests.core.make import EVERYTHING, FOREIGN, HOUR, NOW, OLD_24H, STOPPED_1H, ago, rules

SESSION = "org.testcontainers.session-id"
ALL = {
    "com.docker.compose.project": "chess",
    "com.docker.compose.service": "db",
    "com.docker.compose.container-number": "1",
    "com.docker.compose.oneoff": "False",
    "com.docker.compose.project.working_dir": "/srv/chess",
}
BUILT = {key: ALL[key] for key in ("com.docker.compose.project", "com.docker.compose.service")}
"""What Compose 2 writes into an image that it builds."""


def of_image(labels: dict[str, str], **fields: object) -> Resource:
    """A neighbour's container, 30 hours old and running, of an image that carries all these labels."""
    image = frozenset(labels)
    group = compose_project(labels, image)
    made = replace(FOREIGN, id="x1", name="neighbour", created_at=ago(hours=30), started_at=ago(hours=30))
    return replace(made, labels=labels, inherited=image, group=group, **fields)  # type: ignore[arg-type]


def judge(resource: Resource, by: Rules, *leases: Lease) -> Decision:
    return decide([resource], by, leases, NOW)[0]


OLD = rules(OLD_24H)
TEAM = replace(OLD, scope=Scope(selector=Selector(labels=("team=rl",))))
ENDED = Lease("7f3a", "pid 1", since=ago(hours=40), ending=Ending(ago(hours=1), "killed"))


@pytest.mark.parametrize(
    ("labels", "by", "own"),
    [
        ({"terminal-bench": ""}, OLD, Reason.OLDER_THAN),
        ({"harbor.managed": "true"}, OLD, Reason.OLDER_THAN),
        ({"team": "rl"}, TEAM, Reason.OLDER_THAN),
    ],
)
def test_a_label_of_the_image_owns_nothing(labels: dict[str, str], by: Rules, own: Reason) -> None:
    inherited = of_image(labels, restart_policy="always")
    assert judge(replace(inherited, inherited=frozenset(), restart_policy="no"), by).reason is own
    decision = judge(inherited, by)
    assert decision.reason is Reason.NOT_OWNED
    assert decision.by_image
    assert "is its image's label, not its own" in decision.sentence
    assert "image_labels = true" in decision.sentence
    findings = explain(inherited, [inherited], by, [], NOW)
    assert "is its image's label" in next(f for f in findings if f.rule == "owned").sentence


def test_with_image_labels_it_owns_but_a_restart_policy_still_counts_where_no_preset_does() -> None:
    by = replace(TEAM, scope=replace(TEAM.scope, image_labels=True))
    assert judge(of_image({"team": "rl"}), by).reap
    assert judge(of_image({"team": "rl"}, restart_policy="always"), by).reason is Reason.RESTART_POLICY
    unknown = replace(of_image({"team": "rl"}), inherited=None)
    assert judge(unknown, by).reap, "whose label it is makes no difference then"


def test_labels_of_an_image_that_is_not_known_take_nothing() -> None:
    unknown = replace(of_image({"team": "rl", "reaper.ttl": "1h"}), inherited=None, inspected=False)
    decision = judge(unknown, TEAM)
    assert decision.reason is Reason.NOT_OWNED
    assert "its image could not be read" in decision.sentence
    assert needs_inspection([decision]) == [unknown], "an inspection may tell"
    assert needs_inspection([judge(replace(unknown, inspected=True), TEAM)]) == []
    owned = replace(unknown, image="tb__chess__client")
    assert judge(owned, rules()).reason is Reason.NO_POLICY, "an ended reaper.ttl of the image's takes nothing either"


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"reaper.keep": ""}, Reason.KEEP_LABEL),
        ({"reaper.ttl": "never"}, Reason.INVALID_LABEL),
        ({"reaper.ttl": "100d"}, Reason.LABEL_NOT_DUE),
        ({"precious": "1"}, Reason.PROTECTED),
        ({"reaper.lease": "7f3a"}, Reason.LEASED),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_a_label_of_the_image_protects(labels: dict[str, str], reason: Reason, known: bool) -> None:
    by = replace(OLD, protect=Protect(Selector(labels=("precious",))))
    living = replace(ENDED, ending=None)
    one = of_image(labels, image="tb__chess__client")
    assert judge(one if known else replace(one, inherited=None), by, living).reason is reason


@pytest.mark.parametrize("labels", [{"reaper.ttl": "1h"}, {"reaper.expires": "2026-11-21T06:00:00Z"}])
def test_an_ended_override_of_the_image_takes_nothing(labels: dict[str, str]) -> None:
    one = of_image(labels, image="tb__chess__client", created_at=ago(hours=10), started_at=ago(hours=10))
    assert judge(replace(one, inherited=frozenset()), OLD).reap
    kept = judge(one, OLD)
    assert kept.reason is Reason.TOO_YOUNG
    said = {f.rule: f.sentence for f in explain(one, [one], OLD, [], NOW) if f.rule == "label override"}
    assert "came with its image and takes nothing" in said["label override"]
    assert judge(one, replace(OLD, scope=Scope(image_labels=True))).reap


@pytest.mark.parametrize("claim", [Claim(Selector(labels=("run=x",))), Claim(Selector(labels=(f"{SESSION}=a",)))])
@pytest.mark.parametrize("known", [True, False])
def test_an_ended_lease_takes_nothing_by_a_label_of_the_image(claim: Claim, known: bool) -> None:
    one = of_image({"run": "x", SESSION: "a"})
    one = one if known else replace(one, inherited=None)
    lease = replace(ENDED, claims=(claim,))
    assert judge(replace(one, inherited=frozenset()), OLD, lease).reason is Reason.LEASE_ENDED
    assert judge(one, OLD, lease).reason is Reason.NOT_OWNED
    assert judge(one, OLD, replace(lease, ending=None)).reason is Reason.LEASED


@pytest.mark.parametrize("known", [True, False])
def test_a_claim_to_a_project_protects_what_only_its_image_says_to_be_of_it(known: bool) -> None:
    one = of_image(BUILT, image="tb__chess__client")
    one = one if known else replace(one, inherited=None)
    lease = replace(ENDED, claims=(Claim(projects=("che*",)),))
    assert judge(one, OLD).reason is Reason.OLDER_THAN
    assert judge(one, OLD, replace(lease, ending=None)).reason is Reason.LEASED
    assert judge(replace(one, created_at=ago(hours=20), started_at=ago(hours=20)), OLD, lease).reason is Reason.TOO_YOUNG


def test_the_label_of_a_lease_is_never_taken_from_an_image() -> None:
    by = replace(OLD, scope=Scope(image_labels=True))
    assert judge(of_image({"reaper.lease": "7f3a"}), by, ENDED).reason is Reason.NOT_OWNED


@pytest.mark.parametrize("policy", [Policy("labelled", frozenset({Kind.CONTAINER}), older_than=HOUR)])
def test_a_policy_selects_by_labels_of_its_own_alone(policy: Policy) -> None:
    selecting = rules(replace(policy, selectors=(Selector(labels=("short",)),)))
    one = of_image({"short": ""}, image="tb__chess__client")
    assert judge(one, selecting).reason is Reason.NO_POLICY
    assert judge(replace(one, inherited=frozenset()), selecting).reap


# Membership of a Compose project


@pytest.mark.parametrize(
    ("labels", "inherited", "project"),
    [
        (ALL, (), "chess"),
        (ALL, BUILT, "chess"),  # a service whose image Compose has built
        ({**ALL, "com.docker.compose.image": "sha256:2"}, ALL, "chess"),  # Compose has made it of a committed image
        (ALL, ALL, None),  # docker run of an image that was committed from a member
        (BUILT, BUILT, None),  # docker run of an image that Compose has built
        (BUILT, (), None),  # docker run --label com.docker.compose.project=chess
        ({key: ALL[key] for key in ALL if "oneoff" not in key}, (), "chess"),
        ({key: ALL[key] for key in ALL if "number" not in key}, (), "chess"),  # docker compose run
        ({"com.docker.compose.container-number": "1"}, (), None),
        ({**ALL, "com.docker.compose.project": ""}, (), None),
        (ALL, None, "chess"),  # for the time being: it keeps the project, and takes nothing
        (None, None, None),
    ],
)
def test_who_is_a_member_of_a_project(
    labels: dict[str, str] | None, inherited: dict[str, str] | None, project: str | None
) -> None:
    assert compose_project(labels, None if inherited is None else frozenset(inherited)) == project


CLIENT = replace(
    FOREIGN,
    id="c1",
    name="chess-client-1",
    image="tb__chess__client",
    labels={**ALL, "com.docker.compose.service": "client"},
    group="chess",
    created_at=ago(hours=30),
    started_at=ago(hours=30),
)


@pytest.mark.parametrize("labels", [ALL, BUILT])
def test_a_neighbour_s_container_of_the_project_s_image_is_not_taken(labels: dict[str, str]) -> None:
    found = {d.resource.id: d for d in decide([CLIENT, of_image(labels)], OLD, (), NOW)}
    assert found["c1"].reap
    assert found["x1"].reason is Reason.NOT_OWNED


@pytest.mark.parametrize("labels", [ALL, BUILT])
def test_nor_does_it_keep_the_project(labels: dict[str, str]) -> None:
    young = of_image(labels, created_at=ago(minutes=1), started_at=ago(minutes=1))
    found = {d.resource.id: d for d in decide([CLIENT, young], OLD, (), NOW)}
    assert found["c1"].reap
    assert not found["x1"].reap


def test_one_of_which_it_is_not_known_keeps_the_project_and_is_not_taken() -> None:
    unknown = replace(of_image(ALL), inherited=None, group="chess", inspected=False)
    found = {d.resource.id: d for d in decide([CLIENT, unknown], OLD, (), NOW)}
    assert found["x1"].reason is Reason.NOT_OWNED
    assert found["c1"].reason is Reason.GROUP_KEPT
    assert needs_inspection(found.values()) == [unknown]
    lease = replace(ENDED, claims=(Claim(projects=("chess",)),))
    assert not any(d.reap for d in decide([unknown], OLD, (lease,), NOW))


def test_an_image_sign_of_one_that_may_be_no_member_owns_no_other_container() -> None:
    unknown = replace(of_image(ALL), inherited=None, group="chess", image="tb__chess__client")
    other = replace(CLIENT, id="d1", image="postgres:16", restart_policy="always")
    found = {d.resource.id: d for d in decide([unknown, other], OLD, (), NOW)}
    assert found["d1"].reason is Reason.NOT_OWNED


def test_a_hint_says_how_many_would_be_owned() -> None:
    many = [of_image({"terminal-bench": ""}, id=f"x{i}", name=f"neighbour-{i}") for i in range(5)]
    hint = owned_by_image(decide(many, rules(STOPPED_1H, EVERYTHING), (), NOW))
    assert hint is not None
    assert hint.startswith(
        "5 resources have a label that [scope] requires, from its image alone, and are not owned (neighbour-0,"
    )
    assert "image_labels = true in [scope]" in hint
    one = owned_by_image(decide(many[:1], OLD, (), NOW))
    assert one is not None
    assert one.startswith("1 resource has")
    assert owned_by_image(decide([CLIENT, FOREIGN], OLD, (), NOW)) is None
    by = replace(OLD, scope=Scope(image_labels=True))
    assert owned_by_image(decide(many, by, (), NOW)) is None


def test_a_hint_says_of_how_many_that_is_not_known() -> None:
    unknown = replace(of_image({"terminal-bench": ""}, id="y1", name="run-1"), inherited=None)
    hint = owned_by_image(decide([unknown], OLD, (), NOW))
    assert hint is not None
    assert "maybe from its image, which cannot be read, and is not owned (run-1)" in hint
    both = owned_by_image(decide([of_image({"terminal-bench": ""}, id="x1"), unknown], OLD, (), NOW))
    assert both is not None
    assert both.count("1 resource has a label") == 2
    assert owned_by_image(decide([unknown], replace(OLD, scope=Scope(image_labels=True)), (), NOW)) is None


def test_ages_do_not_matter_for_it() -> None:
    young = of_image({"terminal-bench": ""}, created_at=NOW - timedelta(seconds=1))
    assert judge(young, rules(EVERYTHING)).reason is Reason.NOT_OWNED
