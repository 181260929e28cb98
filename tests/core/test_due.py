"""The schedule says when to look, not what may go: all policies judge, and one that matches must be due."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.core.conditions import Policy
from reaper.core.decide import decide
from reaper.core.lease import Claim, Ending, Lease
from reaper.core.model import Reason, Resource
from reaper.core.scope import Selector
from tests.core.make import CONTAINERS, FOREIGN, HOUR, NETWORK, NOW, OLD_24H, RUNNING, STOPPED, STOPPED_1H, ago, rules
from tests.core.strategies import PROPERTY, World, key, worlds

DUE = st.sets(st.sampled_from(("policy-0", "policy-1", "policy-2", "unknown"))).map(tuple)
BOTH = rules(STOPPED_1H, OLD_24H)


def reaped(resources: list[Resource], *due: str) -> set[str]:
    return {d.resource.id for d in decide(resources, BOTH, (), NOW, due) if d.reap}


@PROPERTY
@given(worlds(), DUE)
def test_a_pass_for_some_policies_reaps_no_more_than_one_for_all(world: World, due: tuple[str, ...]) -> None:
    everything = {key(d.resource) for d in world.decide() if d.reap}
    assert {key(d.resource) for d in world.decide(due) if d.reap} <= everything
    names = [policy.name for policy in world.rules.policies]
    assert {key(d.resource) for d in world.decide(names) if d.reap} == everything


@pytest.mark.parametrize(
    ("due", "goes"),
    [(("stopped-containers",), True), (("old-containers",), True), (("another",), False), ((), False)],
)
def test_any_matching_policy_will_do(due: tuple[str, ...], goes: bool) -> None:
    assert reaped([STOPPED], *due) == ({"c1"} if goes else set())


def test_a_policy_that_is_due_but_does_not_match_is_not_enough() -> None:
    assert reaped([RUNNING], "stopped-containers") == set()
    assert reaped([RUNNING], "old-containers") == {"c1"}


def test_the_decision_says_that_it_is_not_due() -> None:
    decision = decide([RUNNING], BOTH, (), NOW, ("stopped-containers",))[0]
    assert decision.reason is Reason.NOT_DUE
    assert decision.sentence == "created 3 d ago, policy old-containers allows 24 h; that is not due in this sweep"
    assert decision.policy == "old-containers"


def test_one_member_with_a_due_policy_takes_the_group() -> None:
    client = replace(STOPPED, group="chess")
    sidecar = replace(RUNNING, id="c2", group="chess", image="redis:7")
    group = [client, sidecar, NETWORK]
    assert reaped(group, "stopped-containers") == {"c1", "c2", "n1"}
    assert reaped(group, "another") == set()


def test_a_due_policy_does_not_reap_a_group_with_a_young_member() -> None:
    client = replace(STOPPED, group="chess")
    young = replace(RUNNING, id="c2", group="chess", created_at=ago(hours=1), started_at=ago(hours=1))
    assert reaped([client, young, NETWORK], "stopped-containers") == set()


def test_a_network_does_not_make_its_containers_due() -> None:
    # Any policy for containers would take the network were it orphaned; here its containers decide.
    running = replace(RUNNING, group="chess")
    assert reaped([running, NETWORK], "stopped-containers") == set()
    assert reaped([running, NETWORK], "old-containers") == {"c1", "n1"}


def test_what_an_undue_unit_uses_stays() -> None:
    user = replace(RUNNING, id="c2", uses=frozenset({"c1"}))
    assert reaped([STOPPED, user], "stopped-containers") == set()
    assert reaped([STOPPED, user], "old-containers") == {"c1", "c2"}


def test_a_override_waits_for_no_policy() -> None:
    wished = replace(RUNNING, labels={"reaper.ttl": "1h"})
    assert reaped([wished]) == {"c1"}


def test_what_an_ended_lease_has_left_waits_for_no_policy() -> None:
    claim = Claim(Selector(labels=("run=a",)))
    lease = Lease("a", "gpu-1", claims=(claim,), since=ago(hours=1), ending=Ending(NOW, "killed"))
    container, network = (
        replace(r, labels={"run": "a"}, created_at=ago(minutes=30), group=None) for r in (RUNNING, NETWORK)
    )
    found = decide([container, network], BOTH, (lease,), NOW, ())
    assert [(d.reap, d.reason) for d in found] == [(True, Reason.LEASE_ENDED)] * 2


def test_an_orphaned_network_goes_when_a_policy_for_containers_is_due() -> None:
    orphan = replace(NETWORK, labels={"terminal-bench": ""})
    assert reaped([orphan], "old-containers") == {"n1"}
    assert reaped([orphan], "another") == set()


def test_an_orphaned_network_does_not_go_for_a_policy_that_does_not_select_it() -> None:
    orphan = replace(NETWORK, labels={"terminal-bench": ""})
    elsewhere = Policy("elsewhere", CONTAINERS, older_than=HOUR, selectors=(Selector(labels=("team",)),))
    by = rules(elsewhere, OLD_24H)
    assert not decide([orphan], by, (), NOW, ("elsewhere",))[0].reap
    assert decide([orphan], by, (), NOW, ("old-containers",))[0].reap


def test_what_is_not_owned_is_no_concern_of_a_due_policy() -> None:
    assert reaped([FOREIGN], "old-containers", "stopped-containers") == set()
