"""What keeps one endpoint swept, on time that jumps."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import anyio
import pytest

from reaper.core.model import Kind, Outcome
from reaper.core.rules import Rules
from reaper.errors import DeniedError, ServerError, UnavailableError
from reaper.providers.memory import Rule
from reaper.sweep.result import SweepResult
from tests.service.lab import House
from tests.sweep.conftest import anyio_backend
from tests.sweep.lab import FOREIGN, OLD, STOPPED, running, stopped

__all__ = ["anyio_backend"]  # a fixture
pytestmark = pytest.mark.anyio
NAMES = {"stopped", "old"}
SOON = replace(STOPPED, stopped_for=timedelta(minutes=5))


async def test_nothing_is_swept_that_is_not_due() -> None:
    house = House(stopped("leftover"))
    async with house.kept():
        await anyio.sleep(3600)
    assert house.diary.sweeps == []
    assert house.left() == {"leftover"}


async def test_policies_that_are_due_together_share_one_listing() -> None:
    house = House(stopped("leftover"), running("long"))
    async with house.kept() as worker:
        worker.post(["stopped"])
        worker.post(["old"])
        await anyio.sleep(60)
    assert [sweep.due for sweep in house.diary.sweeps] == [frozenset(NAMES)]
    assert house.diary.results == [SweepResult.SUCCESS]
    assert len(house.world.made("list")) == 2  # one to decide, one to confirm
    assert house.left() == set()


async def test_what_is_posted_during_a_sweep_is_swept_for_once_afterwards() -> None:
    house = House(running("long"), latency=5.0)
    async with house.kept() as worker:
        worker.post(["old"])
        await anyio.sleep(2)
        for _ in range(10):
            worker.post(["stopped"])
        await anyio.sleep(200)
    first, second = house.diary.sweeps
    assert [set(first.due), set(second.due)] == [{"old"}, {"stopped"}]
    assert first.ended <= second.began


async def test_only_what_is_due_acts() -> None:
    house = House(stopped("leftover"), running("long"))
    async with house.kept() as worker:
        worker.post(["old"])
        await anyio.sleep(60)
    assert house.left() == {"leftover"}


async def test_policies_that_are_gone_from_the_configuration_are_not_swept_for() -> None:
    house = House(stopped("leftover"))
    async with house.kept() as worker:
        worker.post(["yesterday"])
        await anyio.sleep(60)
    assert house.diary.sweeps == []


async def test_an_endpoint_that_is_down_rests_longer_and_longer_and_keeps_what_is_due() -> None:
    house = House(stopped("leftover"))
    down = Rule("list", error=UnavailableError("no engine"))
    house.world.rules.append(down)
    async with house.kept() as worker:
        worker.post(["stopped"])
        await anyio.sleep(3 * 3600)
        assert set(house.diary.results) == {SweepResult.UNLISTED}
        sweeps = house.diary.sweeps
        rests = [later.began - sooner.ended for sooner, later in pairwise(sweeps)]
        assert rests[:5] == pytest.approx([60, 120, 240, 480, 900])
        assert rests[5:] == [pytest.approx(900)] * len(rests[5:])
        house.world.rules.remove(down)
        await anyio.sleep(1000)
    assert house.diary.results[-1] is SweepResult.SUCCESS
    assert house.diary.sweeps[-1].due == {"stopped"}
    assert worker.failures == 0
    assert house.left() == set()


async def test_a_requested_sweep_ends_the_rest() -> None:
    house = House(stopped("leftover"))
    house.world.rules.append(down := Rule("list", error=UnavailableError("no engine")))
    async with house.kept() as worker:
        worker.post(["stopped"])
        await anyio.sleep(30)
        house.world.rules.remove(down)
        worker.post(["old"])
        await anyio.sleep(5)
        assert len(house.diary.sweeps) == 1  # it rests
        worker.post(NAMES, now=True)
        await anyio.sleep(5)
    assert house.diary.results == [SweepResult.UNLISTED, SweepResult.SUCCESS]


async def test_a_sweep_that_takes_too_long_is_ended() -> None:
    house = House(stopped("leftover"), deadline=timedelta(seconds=30), latency=3600.0)
    async with house.kept() as worker:
        worker.post(["stopped"])
        await anyio.sleep(50)
    assert house.diary.results[0] is SweepResult.TIMEOUT
    assert house.diary.sweeps[0].ended - house.diary.sweeps[0].began <= 36


async def test_a_bug_costs_one_sweep_and_nothing_else() -> None:
    house = House(stopped("leftover"))
    house.world.rules.append(Rule("list", calls={1}, error=ZeroDivisionError("a bug")))
    async with house.kept() as worker:
        worker.post(["stopped"])
        await anyio.sleep(1)
        worker.post(["stopped"])
        await anyio.sleep(60)
    assert house.diary.results == [SweepResult.BUG, SweepResult.SUCCESS]
    assert house.left() == set()


async def test_one_that_is_retired_ends_its_sweep_and_makes_no_other() -> None:
    house = House(stopped("leftover"), latency=1.0)
    async with anyio.create_task_group() as group:
        group.start_soon(house.worker.run)
        house.worker.post(["stopped"])
        await anyio.sleep(0.5)
        house.worker.retire()
        house.worker.post(["old"])
        await house.worker.finished.wait()
    assert house.diary.results == [SweepResult.SUCCESS]
    assert house.left() == set()


async def test_a_drain_cancels_what_takes_longer() -> None:
    house = House(running("long"), latency=1.0)
    house.world.rules.append(Rule("stop", seconds=3600))
    async with anyio.create_task_group() as group:
        group.start_soon(house.worker.run)
        house.worker.post(["old"])
        await anyio.sleep(5)
        house.worker.retire(timedelta(seconds=20))
        began = anyio.current_time()
        await house.worker.finished.wait()
    assert house.diary.results == [SweepResult.INTERRUPTED]
    assert anyio.current_time() - began <= 26


def failing(house: House, numbers: Iterable[int]) -> None:
    for number in numbers:
        house.world.rules.append(Rule("delete", f"s{number}", error=ServerError("driver failed")))


async def test_a_few_that_cannot_be_deleted_are_no_sign_that_the_endpoint_is_sick() -> None:
    house = House(*(stopped(f"s{number}") for number in range(9)))
    failing(house, range(9))
    looks = Rule("inspect", calls=range(10, 1000), error=ServerError("driver failed"))  # but the first one at each
    house.world.rules.append(looks)
    async with house.kept() as worker:
        worker.post(["stopped"])
        await anyio.sleep(300)
        assert worker.endpoint.retrier.breaker.open
        house.world.rules.remove(looks)
        worker.post(["old"])
        await anyio.sleep(300)
        assert worker.failures == 0
    assert house.diary.results == [SweepResult.FAILURES, SweepResult.SUCCESS]


@pytest.mark.parametrize("spared", [0, 1])
async def test_one_that_deletes_nothing_of_many_is_left_alone(spared: int) -> None:
    house = House(*(stopped(f"s{number}") for number in range(30)))
    failing(house, range(spared, 30))
    async with house.kept() as worker:
        worker.post(["stopped"])
        await anyio.sleep(50)
        assert worker.failures == (0 if spared else 1)
    assert house.diary.results == [SweepResult.FAILURES]


# -- events ------------------------------------------------------------------------------------------------------------


async def test_a_death_advances_the_look_to_when_it_matters() -> None:
    house = House(running("client", hours=2), rules=Rules(policies=(SOON, OLD)), watched=True)
    async with house.kept():
        await anyio.sleep(1000)
        house.provider.tell(house.die("client"))
        await anyio.sleep(299)
        assert house.diary.sweeps == []
        await anyio.sleep(2)
    assert [sweep.due for sweep in house.diary.sweeps] == [{"stopped"}]
    assert house.left() == set()


async def test_the_death_of_something_foreign_advances_nothing() -> None:
    house = House(running("db", hours=2, image=FOREIGN), rules=Rules(policies=(SOON, OLD)), watched=True)
    async with house.kept():
        house.provider.tell(house.die("db"))
        await anyio.sleep(3600)
    assert house.diary.sweeps == []


async def test_many_deaths_share_few_looks() -> None:
    names = [f"c{number}" for number in range(90)]
    house = House(*(running(name, hours=2) for name in names), rules=Rules(policies=(SOON, OLD)), watched=True)
    async with house.kept():
        for name in names:
            house.provider.tell(house.die(name))
            await anyio.sleep(0.01)
        await anyio.sleep(400)
    assert 1 <= len(house.diary.sweeps) <= 4
    assert house.left() == set()


async def test_a_lost_stream_is_reported_of_and_followed_again_from_where_it_broke() -> None:
    house = House(running("client", hours=2), rules=Rules(policies=(SOON, OLD)), watched=True)
    async with house.kept():
        await anyio.sleep(1)
        death = house.die("client")
        house.provider.tell(death)
        await anyio.sleep(1)
        house.provider.broken = 3
        house.provider.tell(UnavailableError("the connection broke"))
        await anyio.sleep(20)
    told = [connected for connected, _ in house.diary.events]
    assert told == [True, False, False, False, False, True]
    assert house.diary.events[1] == (False, "the connection broke")
    assert house.provider.asked_since == [None, *[death.stopped_at] * 4]


async def test_a_bug_in_the_events_is_reported_and_hinders_no_sweep() -> None:
    house = House(stopped("leftover"), watched=True)
    house.provider.tell(ZeroDivisionError("a bug"))
    async with house.kept() as worker:
        await anyio.sleep(5)
        worker.post(["stopped"])
        await anyio.sleep(5)
    assert [type(bug) for bug in house.diary.stumbles] == [ZeroDivisionError]
    assert house.diary.bugs == []
    assert house.diary.results == [SweepResult.SUCCESS]


async def test_events_that_can_be_followed_again_end_the_rest() -> None:
    house = House(stopped("leftover"), watched=True)
    house.world.rules.append(down := Rule("list", error=UnavailableError("no engine")))
    house.provider.broken = 5
    async with house.kept() as worker:
        worker.post(["stopped"])
        await anyio.sleep(25)
        assert house.diary.results == [SweepResult.UNLISTED]  # it rests for a minute
        assert house.diary.events[-1] == (False, "no events today")
        house.world.rules.remove(down)
        await anyio.sleep(10)
        assert house.diary.events[-1] == (True, "")
    assert house.diary.results == [SweepResult.UNLISTED, SweepResult.SUCCESS]


async def test_events_that_come_and_go_while_nothing_can_be_listed_end_it_less_and_less_often() -> None:
    house = House(stopped("leftover"), watched=True)
    house.world.rules.append(Rule("list", error=UnavailableError("no engine")))
    async with house.kept() as worker:
        worker.post(["stopped"])
        for _ in range(3600):
            house.provider.tell(UnavailableError("the connection broke"))
            await anyio.sleep(1)
    assert len([1 for connected, _ in house.diary.events if connected]) > 50
    rests = [later.began - sooner.ended for sooner, later in pairwise(house.diary.sweeps)]
    assert rests == sorted(rests)
    assert rests[0] >= 2
    assert len(rests) <= 11


async def test_an_endpoint_whose_events_cannot_be_followed_is_looked_at_at_once() -> None:
    house = House(running("living", hours=1), watched=True)
    async with house.kept():
        await anyio.sleep(300)
        house.world.rules.append(down := Rule("list", error=UnavailableError("no engine")))
        house.provider.broken = 10**6
        house.provider.tell(UnavailableError("the connection broke"))
        await anyio.sleep(90)
        assert house.diary.results == [SweepResult.UNLISTED]
        assert house.diary.sweeps[0].began <= 302
        house.world.rules.remove(down)
        house.provider.broken = 0
        await anyio.sleep(180)
    assert house.diary.results[1:] == [SweepResult.SUCCESS]  # nothing is due there, but that it is back has to be known
    assert house.left() == {"living"}


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("dead", [Rule("identify", error=UnavailableError("refused")), Rule("identify", hang=True)])
async def test_an_endpoint_that_dies_without_a_word_is_known_to_be_down_before_any_policy_is_due(
    dead: Rule, *, watched: bool
) -> None:
    """Its stream of events stays open and silent; two minutes and a half leave the alert as long."""
    house = House(running("living", hours=1), watched=watched)
    lists = Rule("list", error=dead.error, hang=dead.hang)
    async with house.kept():
        await anyio.sleep(1000)
        assert house.diary.sweeps == []
        house.world.rules += [dead, lists]
        await anyio.sleep(150)
        assert house.diary.results == [SweepResult.UNLISTED]
        await anyio.sleep(3600)
        assert house.diary.results == [SweepResult.UNLISTED]  # nothing is due there
        house.world.rules.clear()
        await anyio.sleep(62)
    assert house.diary.results == [SweepResult.UNLISTED, SweepResult.SUCCESS]


async def test_an_endpoint_that_refuses_to_say_which_it_is_lives() -> None:
    house = House(running("living", hours=1))
    house.world.rules.append(Rule("identify", error=DeniedError("a proxy lets no one through")))
    async with house.kept():
        await anyio.sleep(3600)
    assert house.diary.sweeps == []


async def test_an_endpoint_that_only_refuses_its_events_is_looked_at_less_and_less_often() -> None:
    house = House(running("living", hours=1), watched=True)
    house.provider.broken = 10**6
    async with house.kept():
        await anyio.sleep(2 * 3600)
    assert set(house.diary.results) == {SweepResult.SUCCESS}
    rests = [later.began - sooner.began for sooner, later in pairwise(house.diary.sweeps)]
    assert rests == sorted(rests)
    assert rests[0] >= 60
    assert len(rests) <= 12


async def test_a_stream_that_breaks_again_and_again_is_followed_less_and_less_often() -> None:
    house = House(watched=True)
    async with house.kept():
        for _ in range(3600):
            house.provider.tell(UnavailableError("an event does not end"))
            await anyio.sleep(1)
    assert len(house.provider.asked_since) <= 70


async def test_a_stream_that_ends_after_a_long_cooldown_is_no_loss() -> None:
    house = House(watched=True)
    async with house.kept():
        for _ in range(5):
            await anyio.sleep(600)
            house.provider.end()
        await anyio.sleep(5)
    assert house.diary.events == [(True, "")]
    assert len(house.provider.asked_since) == 6


def test_a_policy_for_another_kind_or_another_endpoint_is_none_of_its_business() -> None:
    worker = House().worker
    assert worker.concerns(STOPPED)
    assert not worker.concerns(replace(STOPPED, kinds=frozenset({Kind.SANDBOX})))
    assert not worker.concerns(replace(STOPPED, endpoints=frozenset({"gpu-1"})))
    assert worker.concerns(replace(STOPPED, endpoints=frozenset({"gpu-1", "local"})))


async def test_what_takes_over_sweeps_for_what_the_one_before_could_not_sweep_for() -> None:
    house = House(stopped("leftover"), latency=2.0)
    house.world.rules.append(Rule("list", error=UnavailableError("the wrong key")))
    async with house.kept() as first:
        first.post(["stopped"])
        await anyio.sleep(1)  # the sweep is under way
        first.retire()
        second = replace(first, before=first, due=set())
        async with anyio.create_task_group() as group:
            group.start_soon(second.run)
            await first.finished.wait()
            house.world.rules.clear()
            await anyio.sleep(60)
            second.retire()
    assert house.diary.results == [SweepResult.UNLISTED, SweepResult.SUCCESS]
    assert house.left() == set()


async def test_what_takes_over_knows_of_the_deaths() -> None:
    house = House(stopped("leftover"), running("client"), rules=Rules(policies=(SOON,)), watched=True)
    async with house.kept() as first:
        await anyio.sleep(1)
        death = house.die("client")
        house.provider.tell(death)
        await anyio.sleep(1)
        first.retire()
        second = replace(first, before=first, due=set())
        async with anyio.create_task_group() as group:
            group.start_soon(second.run)
            await anyio.sleep(301)
            second.retire()
    assert [sweep.due for sweep in house.diary.sweeps] == [frozenset({SOON.name})]
    assert "client" not in house.left()
    assert house.provider.asked_since == [None, death.stopped_at]


async def test_uses_are_followed_again_soon_and_less_often_where_that_fails() -> None:
    house = House()
    asked: list[float] = []
    answers: Iterator[bool | Exception] = iter(
        [UnavailableError("no events today")] * 5 + [ZeroDivisionError("bug"), True, True, False]
    )

    async def follow_uses() -> bool:
        asked.append(anyio.current_time())
        if isinstance(answer := next(answers), Exception):
            raise answer
        await anyio.sleep(100)
        return answer

    house.worker.endpoint.reader.follow_uses = follow_uses  # type: ignore[attr-defined]
    async with house.kept():
        await anyio.sleep(3600)
    assert [round(after - before, 1) for before, after in pairwise(asked)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 100.1, 100.1]
    assert len(house.diary.stumbles) == 1


# -- what always fails -------------------------------------------------------------------------------------------------


async def test_a_deletion_that_always_fails_is_tried_less_and_less_often() -> None:
    house = House(stopped("cursed"), stopped("well"))
    house.world.rules.append(Rule("delete", "cursed", error=ServerError("driver failed")))
    async with house.kept() as worker:
        for _ in range(2 * 60):
            worker.post(["stopped"])
            await anyio.sleep(60)
    tries = [call.began for call in house.world.made("delete", "cursed")]
    sweeps = [tries[0], *(later for before, later in pairwise(tries) if later - before > 50)]
    assert house.left() == {"cursed"}
    assert 6 <= len(sweeps) <= 9, "within two hours: after one minute, two, four, ... and it is not given up"
    assert len(house.diary.sweeps) > 100


async def test_what_rests_is_reported_as_failed_with_the_reason_and_goes_when_it_can() -> None:
    house = House(stopped("cursed"))
    house.world.rules.append(Rule("delete", "cursed", calls=range(1, 9), error=ServerError("driver failed")))
    async with house.kept() as worker:
        worker.post(["stopped"])
        await anyio.sleep(50)
        worker.post(["stopped"])
        await anyio.sleep(5)
        report = house.diary.sweeps[-1].report
        assert report is not None
        (rested,) = report.results
        assert (rested.outcome, rested.error, rested.attempts) == (Outcome.FAILED, "server_error", 0)
        assert "its deletion failed in the last sweep and rests for " in rested.detail
        assert rested.detail.endswith("driver failed")
        await anyio.sleep(120)
        worker.post(["stopped"])
        await anyio.sleep(60)
    assert house.left() == set()


async def test_who_asks_for_a_sweep_now_ends_the_rests() -> None:
    house = House(stopped("cursed"))
    house.world.rules.append(Rule("delete", "cursed", calls=range(1, 9), error=ServerError("driver failed")))
    async with house.kept() as worker:
        worker.post(["stopped"])
        await anyio.sleep(50)
        worker.post(["stopped"], now=True)
        await anyio.sleep(5)
    assert house.left() == set()


async def test_a_sick_endpoint_gives_no_resource_a_rest() -> None:
    house = House(*(stopped(f"c{i}") for i in range(40)))
    house.world.rules.append(Rule("delete", error=UnavailableError("down")))
    async with house.kept() as worker:
        worker.post(["stopped"])
        await anyio.sleep(300)
        house.world.rules.clear()
        worker.post(["stopped"], now=True)
        await anyio.sleep(30)
    assert house.left() == set()
