"""An endpoint that only accepts deletions, and destroys in its own time."""

from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from reaper.core.model import Outcome, Resource
from reaper.errors import CredentialsError, DeniedError, DependencyError, ServerError, UnavailableError
from reaper.providers.base import Also, Limits, Traits
from reaper.providers.memory import Held, Rule
from tests.sweep.lab import HOUR, Lab, later, many, outcomes, result, running, stopped

pytestmark = pytest.mark.anyio

WITHIN = timedelta(seconds=60)
ACCEPTS = Traits(stops_first=False, confirm_within=WITHIN)


def lab(*things: Resource | Held, **kwargs: object) -> Lab:
    made = Lab(*things, limits=Limits(together=8), **kwargs)  # type: ignore[arg-type]
    made.reader.traits = made.provider.traits = ACCEPTS
    return made


async def test_what_is_destroyed_later_is_looked_for_until_it_is_gone() -> None:
    accepted = lab(Held(stopped("slow"), removal_seconds=16), stopped("quick"))
    report = await accepted.sweep()
    assert outcomes(report) == {"slow": "deleted", "quick": "deleted"}
    assert 16 <= report.seconds <= 16 + 4.5, "the looks are at most four seconds apart"
    assert len(accepted.world.made("inspect", "slow")) <= 10, "two before the deletion, and few after it"


async def test_others_learn_of_a_deletion_when_it_is_confirmed() -> None:
    accepted = lab(Held(stopped("slow"), removal_seconds=10))
    times: list[float] = []
    accepted.observer.settled = lambda *_: times.append(anyio.current_time())  # type: ignore[method-assign]
    report = await accepted.sweep()
    assert len(times) == 1
    assert times[0] >= 10
    assert result(report, "slow").seconds >= 10


async def test_what_is_still_there_after_the_bound_has_failed_and_the_message_says_what_it_is() -> None:
    accepted = lab(Held(stopped("stuck"), removal_seconds=1e9), stopped("other"))
    report = await accepted.sweep()
    assert outcomes(report) == {"stuck": "failed", "other": "deleted"}
    told = result(report, "stuck")
    assert told.detail == "the endpoint accepted its deletion, but it is still removing"
    assert told.error == "unconfirmed"
    assert WITHIN.total_seconds() <= report.seconds <= WITHIN.total_seconds() + 5


async def test_what_runs_is_deleted_without_a_stop() -> None:
    accepted = lab(running("old"))
    assert await accepted.outcomes() == {"old": "deleted"}
    assert accepted.world.made("stop") == []


async def test_many_pending_ones_are_reported_by_listings_and_only_the_others_are_asked_by_id() -> None:
    accepted = lab(*(Held(thing, removal_seconds=20) for thing in many(400)))
    accepted.provider.limits = Limits(together=200)
    report = await accepted.sweep()
    assert report.count(Outcome.DELETED) == 400
    inspections = len(accepted.world.made("inspect"))
    assert inspections <= 400 * 3.2, "each by 20 s of half-second looks would be some thousands"
    assert len(accepted.world.made("list")) <= 20


async def test_a_listing_never_says_that_one_is_gone() -> None:
    """It lags and flaps: what it does not show is looked for by id."""
    accepted = lab(*(Held(thing, removal_seconds=1e9) for thing in many(150)))
    accepted.provider.limits = Limits(together=200)
    list_all = accepted.provider._list

    async def flapping(label_keys: frozenset[str], also: Also) -> object:
        inventory = await list_all(label_keys, also)
        if len(accepted.world.made("list")) > 1:
            inventory = replace(inventory, resources=())
        return inventory

    accepted.provider._list = flapping  # type: ignore[method-assign,assignment]
    report = await accepted.sweep()
    assert report.count(Outcome.FAILED) == 150


async def test_a_look_that_fails_confirms_nothing_and_is_taken_again() -> None:
    accepted = lab(Held(stopped("one"), removal_seconds=1))
    accepted.world.rules.append(Rule("inspect", "one", calls={2}, error=ServerError("500")))
    assert await accepted.outcomes() == {"one": "deleted"}


async def test_without_an_answer_nothing_is_confirmed() -> None:
    accepted = lab(stopped("one"))
    accepted.world.rules.append(Rule("inspect", "one", calls=range(3, 10**6), error=UnavailableError("down")))
    report = await accepted.sweep()
    assert outcomes(report) == {"one": "failed"}
    assert "could not be looked at: down" in result(report, "one").detail


async def test_a_stop_of_the_sweep_gives_the_pending_ones_one_last_look() -> None:
    accepted = lab(Held(stopped("gone"), removal_seconds=12), Held(stopped("pending"), removal_seconds=300))
    async with anyio.create_task_group() as group:
        group.start_soon(later, 2.3, lambda: accepted.stop.request("SIGTERM"))
        report = await accepted.sweep()
    assert outcomes(report) == {"gone": "deleted", "pending": "failed"}
    assert report.seconds <= 2.3 + 10 + 5 + 1
    assert report.interrupted == "SIGTERM"


# -- what waits for something else -------------------------------------------------------------------------------------


class Fork:
    """Refuses the deletion of a parent while a fork of it is there."""

    def __init__(self, accepted: Lab, parent: str, *forks: str) -> None:
        self.rule = Rule("delete", parent)
        self.rule.before = lambda: self._set(accepted, forks)
        accepted.world.rules.append(self.rule)

    def _set(self, accepted: Lab, forks: tuple[str, ...]) -> None:
        alive = any(accepted.world.get(fork) for fork in forks)
        self.rule.error = DependencyError("The forks must be deleted first.") if alive else None


async def test_forks_go_before_their_parents_however_deep() -> None:
    generations = [Held(stopped(f"g{n}"), removal_seconds=3) for n in range(5)]
    accepted = lab(*generations)
    for n in range(4):
        Fork(accepted, f"g{n}", f"g{n + 1}")
    assert await accepted.outcomes() == {f"g{n}": "deleted" for n in range(5)}
    assert [removed.name for removed, _ in accepted.world.removals] == ["g4", "g3", "g2", "g1", "g0"]


async def test_the_parent_of_a_fork_that_stays_is_skipped_with_the_reason() -> None:
    accepted = lab(stopped("parent"), running("fork", hours=1), stopped("other"))
    Fork(accepted, "parent", "fork")
    report = await accepted.sweep()
    assert outcomes(report) == {"parent": "skipped", "other": "deleted"}
    assert result(report, "parent").detail == "the endpoint refused: The forks must be deleted first."
    assert len(accepted.world.made("delete", "parent")) == 2, "one more round, and no more"


async def test_fail_fast_does_not_take_waiting_for_a_failure() -> None:
    accepted = lab(stopped("parent"), Held(stopped("fork"), removal_seconds=3))
    Fork(accepted, "parent", "fork")
    assert await accepted.outcomes(fail_fast=True) == {"parent": "deleted", "fork": "deleted"}


# -- denied ------------------------------------------------------------------------------------------------------------


def deny(accepted: Lab) -> None:
    accepted.world.rules.append(Rule("delete", error=DeniedError("Access denied")))


async def test_a_denied_deletion_falls_back_to_a_stop() -> None:
    accepted = lab(Held(running("old"), stop_seconds=5))
    deny(accepted)
    report = await accepted.sweep()
    assert outcomes(report) == {"old": "stopped"}
    assert result(report, "old").detail == "its deletion was denied (Access denied); it is exited now"
    assert result(report, "old").error == "denied"


async def test_one_that_stopping_destroys_is_deleted() -> None:
    accepted = lab(Held(running("ephemeral"), stop_seconds=5, auto_remove=True))
    deny(accepted)
    report = await accepted.sweep()
    assert outcomes(report) == {"ephemeral": "deleted"}
    assert "stopping it destroyed it" in result(report, "ephemeral").detail
    assert accepted.left() == set()


async def test_what_is_stopped_already_stays_a_failure() -> None:
    accepted = lab(stopped("done"))
    deny(accepted)
    report = await accepted.sweep()
    assert outcomes(report) == {"done": "failed"}
    assert result(report, "done").detail == "Access denied"
    assert accepted.world.made("stop") == []


async def test_a_stop_that_fails_too_is_a_failure() -> None:
    accepted = lab(running("old"))
    deny(accepted)
    accepted.world.rules.append(Rule("stop", error=DeniedError("Access denied to stop")))
    report = await accepted.sweep()
    assert outcomes(report) == {"old": "failed"}
    assert result(report, "old").detail == "Access denied to stop"


async def test_what_came_to_life_before_the_stop_is_left() -> None:
    accepted = lab(running("old"))
    denial = Rule("delete", error=DeniedError("Access denied"), seconds=5)
    denial.before = lambda: accepted.relabel("old", {"reaper.keep": ""})
    accepted.world.rules.append(denial)
    report = await accepted.sweep()
    assert outcomes(report) == {"old": "skipped"}
    assert accepted.world.made("stop") == []


# -- credentials -------------------------------------------------------------------------------------------------------


async def test_refused_credentials_end_the_sweep_of_the_endpoint_at_once() -> None:
    accepted = lab(*many(100))
    accepted.provider.limits = Limits(together=4)
    refusal = CredentialsError("Invalid credentials")
    accepted.world.rules.append(Rule("delete", calls=range(10, 10**6), error=refusal))
    report = await accepted.sweep()
    (endpoint,) = report.endpoints
    assert endpoint.failure is not None
    assert (endpoint.failure.label, endpoint.failure.message) == ("credentials", "Invalid credentials")
    assert len(accepted.world.made("delete")) <= 9 + 4, "what was under way, and nothing more"
    assert report.count(Outcome.FAILED) >= 100 - 13


async def test_the_next_sweep_tries_refused_credentials_once() -> None:
    accepted = lab(*many(3))
    accepted.world.rules.append(Rule("list", error=CredentialsError("Invalid credentials")))
    endpoint = accepted.endpoint()
    accepted.endpoint = lambda **_: endpoint  # type: ignore[method-assign]
    for sweeps in (1, 2):
        await accepted.sweep()
        assert len(accepted.world.made("list")) == sweeps
    accepted.world.rules.clear()
    assert set((await accepted.outcomes()).values()) == {"deleted"}


async def test_an_own_deletion_whose_answer_was_lost_is_confirmed_in_the_next_round() -> None:
    accepted = lab(Held(stopped("one"), removal_seconds=20))
    accepted.world.rules.append(Rule("delete", "one", calls={1}, error=ServerError("500"), done=True))
    report = await accepted.sweep()
    assert set(outcomes(report).values()) <= {"deleted", "gone"}
    assert accepted.left() == set()
    assert report.endpoints[0].failure is None
    assert HOUR.total_seconds() > report.seconds
