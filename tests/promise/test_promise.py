"""The promise of the rules of deletion, over worlds that are served as engines and the platform serve them."""

import ast
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings

from reaper.core.model import Reason
from tests.promise.oracle import Oracle
from tests.promise.program import Outcome, run
from tests.promise.truth import World
from tests.promise.worlds import halted_worlds, owned_worlds, worlds

PROMISE = settings(
    max_examples=300,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass
class Found:
    """What the worlds of this module have had: the reasons, and how many of each kind were to be deleted."""

    reasons: set[Reason] = field(default_factory=set)
    reaped: Counter[str] = field(default_factory=Counter)

    def add(self, world: World, outcome: Outcome) -> None:
        held = Oracle(world).things
        self.reasons.update(decision.reason for endpoint in outcome.report.endpoints for decision in endpoint.decisions)
        self.reaped.update(type(held[name]).__name__ for name in outcome.reaped)


@pytest.fixture(scope="module")
def found() -> Found:
    return Found()


def check(world: World, outcome: Outcome) -> None:
    """Nothing went that must stay; all went that nothing keeps; and no odd value cost the others their sweep."""
    oracle = Oracle(world)
    (report,) = outcome.report.endpoints
    for decision in report.decisions:
        note(f"{decision.resource.name}: {decision.reason} {decision.sentence}")
    note(f"never: {oracle.never}")
    assert report.failure is None or report.failure.label == "clock", report.failure
    assert not outcome.unknown, f"calls that the server does not support: {outcome.unknown}"
    wrong = {name: oracle.never[name] for name in (outcome.deleted | outcome.reaped) & oracle.never.keys()}
    assert not wrong, f"deleted, and must not be: {wrong}"
    for action in {action for action, _ in outcome.halted}:
        never = Oracle(world, action).never
        wrong = {name: never[name] for deed, name in outcome.halted if deed == action and name in never}
        assert not wrong, f"to {action}, and must not be: {wrong}"
    kept = oracle.expected - outcome.reaped
    assert not kept, f"kept, and nothing keeps it: {kept}"


_OF_FURTHER_KINDS = (Reason.UNUSED_FOR, Reason.LARGER_THAN, Reason.UNTAGGED, Reason.ANONYMOUS)
"""Of policies for kinds that these worlds do not have: see ``tests/core/test_kinds_promise.py``."""


@PROMISE
@given(worlds())
def test_what_must_stay_stays_and_what_nothing_keeps_goes(found: Found, world: World) -> None:
    outcome = run(world, act=not world.sandboxes)
    check(world, outcome)
    found.add(world, outcome)


@settings(PROMISE, max_examples=60)
@given(owned_worlds())
def test_what_has_an_owner_stays_until_all_of_them_are_dead(found: Found, world: World) -> None:
    outcome = run(world, act=not world.sandboxes)
    check(world, outcome)
    found.add(world, outcome)


@settings(PROMISE, max_examples=60)
@given(halted_worlds())
def test_what_is_only_stopped_keeps_what_belongs_to_it(world: World) -> None:
    check(world, run(world, act=True))


def test_the_worlds_hold_every_reason(found: Found) -> None:
    """Those of the test above, or of further rounds. What is not due is tried with the core's own: here all policies are."""

    def complete() -> bool:
        enough = min(found.reaped[kind] for kind in ("Container", "Sandbox", "Network", "Volume", "Pod")) >= 5
        return set(Reason) - found.reasons <= {Reason.NOT_DUE, *_OF_FURTHER_KINDS} and enough

    @settings(PROMISE, max_examples=150, phases=[Phase.generate])
    @given(worlds())
    def collect(world: World) -> None:
        found.add(world, run(world, act=False))

    for number in range(20):
        if not complete():
            seed(number)(collect)()
    assert complete(), (set(Reason) - found.reasons, found.reaped)


@pytest.mark.parametrize("name", ["truth", "servers", "oracle", "worlds"])
def test_the_oracle_knows_nothing_of_the_program(name: str) -> None:
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    allowed = {f"tests.promise.{other}" for other in ("truth", "oracle", "servers")} | {"tests.promise"}
    assert {module for module in imported if module.startswith(("reaper", "tests", "devkit"))} <= allowed
