"""A sweep of many endpoints, some of which are dead."""

import anyio
import pytest

from reaper.core.model import Outcome
from reaper.errors import ServerError, UnavailableError
from reaper.providers.memory import Rule
from reaper.sweep.sweep import MANY, PATIENCE
from tests.sweep.lab import Lab, stopped

pytestmark = pytest.mark.anyio
REFUSED = UnavailableError("connection refused")


class Fleet:
    """So many endpoints with one leftover each; a request to a living one takes ``seconds``. A dead one answers nothing."""

    def __init__(self, living: int, *rules: Rule | tuple[Rule, ...], seconds: float = 1.0) -> None:
        names = [f"engine-{number}" for number in range(living + len(rules))]
        self.labs = [Lab(stopped("leftover", endpoint=name), name=name, latency=seconds) for name in names]
        for lab, rule in zip(reversed(self.labs), reversed(rules), strict=False):
            lab.world.rules += rule if isinstance(rule, tuple) else (rule,)

    async def sweep(self) -> float:
        """The seconds that it took."""
        began = anyio.current_time()
        self.report = await self.labs[0].sweep(*self.labs[1:])
        return anyio.current_time() - began

    def failures(self) -> dict[str, str]:
        return {each.endpoint: each.failure.message for each in self.report.endpoints if each.failure is not None}


def silent(*methods: str, error: UnavailableError | None = None) -> tuple[Rule, ...]:
    return tuple(Rule(method, error=error, seconds=0.0 if error else 3600.0) for method in methods)


DEAD = silent("list", "identify")


@pytest.mark.parametrize("dead", [silent("list", "identify", error=REFUSED), DEAD], ids=["refused", "silent"])
@pytest.mark.parametrize("seconds", [0.5, 5.0])
async def test_a_few_dead_ones_of_many_do_not_hold_the_sweep_up(dead: tuple[Rule, ...], seconds: float) -> None:
    alone, fleet = Fleet(95, seconds=seconds), Fleet(95, *[dead] * 5, seconds=seconds)
    without, taken = await alone.sweep(), await fleet.sweep()
    assert taken <= max(without * 1.1, PATIENCE)
    assert fleet.report.count(Outcome.DELETED) == alone.report.count(Outcome.DELETED) == 95
    assert set(fleet.failures()) == {f"engine-{number}" for number in range(95, 100)}
    (why,) = set(fleet.failures().values())
    assert why.startswith(("connection refused", "no answer within"))
    if seconds == 0.5:  # else the others took longer than every attempt there
        assert why.endswith("; given up when the other 95 endpoints were done")


async def test_a_large_one_is_waited_for_whose_listing_takes_long() -> None:
    fleet = Fleet(MANY, Rule("list", seconds=10 * PATIENCE), DEAD, seconds=0.01)
    assert await fleet.sweep() >= 10 * PATIENCE
    assert set(fleet.failures()) == {f"engine-{MANY + 1}"}
    assert fleet.report.count(Outcome.DELETED) == MANY + 1


async def test_one_that_is_slow_to_answer_is_waited_for_once_it_has_answered() -> None:
    slow = Rule("list", calls={1}, error=ServerError("busy"))
    fleet = Fleet(MANY, Rule("list", seconds=PATIENCE - 0.5), Rule("inspect", seconds=20.0), slow, seconds=0.01)
    assert await fleet.sweep() > 20
    assert fleet.failures() == {}
    assert fleet.report.count(Outcome.DELETED) == MANY + 3


async def test_a_sweep_in_which_all_answer_does_not_wait_for_its_patience() -> None:
    assert await Fleet(MANY, Rule("list", seconds=0.5), seconds=0.01).sweep() < PATIENCE


@pytest.mark.parametrize(("living", "dead"), [(MANY - 2, 1), (MANY, MANY)], ids=["of few", "many"])
async def test_where_it_is_one_of_few_or_many_are_dead_every_attempt_is_made(living: int, dead: int) -> None:
    fleet = Fleet(living, *[silent("list", "identify", error=REFUSED)] * dead, seconds=0.1)
    assert await fleet.sweep() >= 14  # after 2, 4 and 8 s
    assert set(fleet.failures().values()) == {"connection refused"}


async def test_one_that_comes_back_in_time_is_swept() -> None:
    back = Rule("list", calls={1, 2}, error=REFUSED)
    fleet = Fleet(MANY, back, seconds=3.0)
    await fleet.sweep()
    assert fleet.failures() == {}
    assert fleet.report.count(Outcome.DELETED) == MANY + 1
