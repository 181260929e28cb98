"""The promise of the rules of deletion, over worlds that are served as engines and the platform serve them."""

from hypothesis import HealthCheck, given, note, settings

from tests.promise.oracle import Oracle
from tests.promise.program import Outcome, run
from tests.promise.truth import World
from tests.promise.worlds import worlds

PROMISE = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def check(world: World, outcome: Outcome) -> None:
    """Nothing went that must stay; and, but for a clock that nobody can trust, all went that nothing keeps."""
    oracle = Oracle(world)
    (report,) = outcome.report.endpoints
    for decision in report.decisions:
        note(f"{decision.resource.name}: {decision.reason} {decision.sentence}")
    note(f"never: {oracle.never}")
    assert report.failure is None or report.failure.label != "bug", report.failure
    assert not outcome.unknown, "a call that the server does not know"
    wrong = {name: oracle.never[name] for name in (outcome.deleted | outcome.reaped) & oracle.never.keys()}
    assert not wrong, f"deleted, and must not be: {wrong}"
    assert oracle.expected <= outcome.reaped, f"kept, and nothing keeps it: {oracle.expected - outcome.reaped}"


@PROMISE
@given(worlds())
def test_what_must_stay_stays_and_what_nothing_keeps_goes(world: World) -> None:
    check(world, run(world, act=not world.sandboxes))
