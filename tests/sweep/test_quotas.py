"""Sweeps over a quota: what it takes is looked at again like all else, and capped like all else."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reaper.core.conditions import Policy
from reaper.core.model import Kind
from reaper.core.quota import COUNT, Quota
from reaper.core.rules import Rules
from reaper.providers.memory import Rule
from tests.sweep.lab import CONTAINERS, HOUR, MINUTE, Lab, outcomes, running, stopped

pytestmark = pytest.mark.anyio

NEVER = Rules(policies=(Policy("never", CONTAINERS, older_than=timedelta(days=900)),))
ENFORCED = Quota("full", frozenset({Kind.CONTAINER}), {COUNT: 1.0}, enforce=True, idle_for=30 * MINUTE)


async def swept(lab: Lab, *quotas: Quota, **options: Any) -> dict[str, str]:
    return outcomes(await lab.sweep(quotas=quotas, **options))


async def test_what_is_reapable_goes_before_its_policy_s_turn() -> None:
    lab = Lab(stopped("a", hours=2), stopped("b", hours=3), running("young", hours=1))
    assert await swept(lab, replace(ENFORCED, limits={COUNT: 2.0}, enforce=False), due=frozenset({"old"})) == {
        "b": "deleted"
    }
    assert lab.left() == {"a", "young"}


async def test_what_is_idle_goes_where_it_is_enforced() -> None:
    lab = Lab(stopped("a", hours=1), stopped("b", hours=2), running("young", hours=1), rules=NEVER)
    assert await swept(lab, replace(ENFORCED, enforce=False)) == {}
    assert await swept(lab, replace(ENFORCED, limits={COUNT: 2.0})) == {"b": "deleted"}
    assert await swept(lab, replace(ENFORCED, limits={COUNT: 0.0})) == {"a": "deleted"}
    assert lab.left() == {"young"}


async def test_what_is_started_again_before_its_turn_stays() -> None:
    lab = Lab(stopped("it", hours=2), stopped("b", hours=1), rules=NEVER)
    lab.world.rules.append(Rule("inspect", "it", calls={1}, after=lambda: lab.world.start("it")))
    assert await swept(lab, ENFORCED) == {"it": "skipped"}
    assert lab.left() == {"it", "b"}


async def test_what_is_leased_before_its_turn_stays() -> None:
    lab = Lab(stopped("it", hours=2), stopped("b", hours=1), rules=NEVER)
    lab.world.rules.append(Rule("inspect", "it", calls={2}, after=lambda: lab.lease("it")))
    assert await swept(lab, ENFORCED) == {"it": "skipped"}


async def test_the_cap_counts_what_it_takes() -> None:
    lab = Lab(*(stopped(f"c{i}", hours=2) for i in range(5)), rules=NEVER)
    assert set((await swept(lab, ENFORCED, max_deletions=3)).values()) == {"abandoned"}
    assert len(lab.left()) == 5
    assert ENFORCED.idle_for < HOUR
