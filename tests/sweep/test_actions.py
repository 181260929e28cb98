"""Stopping and archiving by policy, on an endpoint in memory and on virtual time."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reaper import exits
from reaper.core.conditions import Policy
from reaper.core.model import Action, Kind, Outcome, Resource, State
from reaper.core.savings import Entry
from reaper.errors import DeniedError, ServerError
from reaper.providers.base import Limits, Traits
from reaper.providers.memory import Held, MemoryProvider, MemoryReader, Rule
from reaper.sweep.runner import exit_code
from tests.sweep.lab import EXACT, HOUR, NOW, RULES, Lab, network, running, stopped

pytestmark = pytest.mark.anyio

STOP = Policy("stop-old", frozenset({Kind.CONTAINER}), older_than=24 * HOUR, action=Action.STOP)
STOP_IDLE = Policy("stop-idle", frozenset({Kind.SANDBOX}), idle_for=2 * HOUR, action=Action.STOP)
ARCHIVE = Policy("archive", frozenset({Kind.SANDBOX}), older_than=24 * HOUR, action=Action.ARCHIVE)


def stopping(*things: Resource | Held, **world: Any) -> Lab:
    return Lab(*things, rules=replace(RULES, policies=(STOP,)), **world)


def sandbox(name: str, **fields: Any) -> Resource:
    at = NOW - 48 * HOUR
    given: dict[str, Any] = {
        "provider": "daytona",
        "kind": Kind.SANDBOX,
        "raw_state": "started",
        "last_activity_at": at,
        "started_at": None,
        "labels": {"harbor.managed": "true"},
        **fields,
    }
    return running(name, **given)


def organisation(*things: Resource | Held, policy: Policy = STOP_IDLE, **world: Any) -> Lab:
    lab = Lab(*things, rules=replace(RULES, policies=(policy,)), **world)
    traits = Traits(stops_first=False, confirm_within=timedelta(seconds=60), kinds=frozenset({Kind.SANDBOX}))
    lab.reader = MemoryReader(lab.world, "local", Limits(together=8), traits)
    lab.provider = MemoryProvider(lab.world, "local", Limits(together=8), traits)
    return lab


async def test_a_policy_stops_what_runs_and_deletes_nothing() -> None:
    lab = stopping(running("old"), running("young", hours=1), stopped("ended"))
    report = await lab.sweep()
    assert {r.decision.resource.name: r.outcome for r in report.results} == {"old": Outcome.STOPPED}
    assert exit_code(report) == 0
    assert lab.world.removals == []
    old = lab.world.get("old")
    assert old is not None
    assert old.state is State.STOPPED
    assert not (await lab.sweep()).results  # what is stopped is not stopped again


async def test_a_stop_makes_nothing_younger_and_stopped_for_counts_from_it() -> None:
    lab = stopping(running("old"))
    await lab.sweep()
    lab.rules = replace(RULES, policies=(STOP, Policy("delete", frozenset({Kind.CONTAINER}), stopped_for=HOUR)))
    assert not (await lab.sweep()).results
    lab.rules = replace(RULES, policies=(STOP, Policy("delete", frozenset({Kind.CONTAINER}), older_than=25 * HOUR)))
    assert [r.outcome for r in (await lab.sweep()).results] == [Outcome.DELETED]


async def test_a_dry_run_says_what_it_would_do_and_does_nothing() -> None:
    lab = stopping(running("old"))
    (result,) = (await lab.sweep(act=False)).results
    assert (result.outcome, result.decision.action) == (Outcome.WOULD_DELETE, Action.STOP)
    assert lab.world.made("stop") == []


async def test_what_was_started_again_since_the_listing_is_not_stopped() -> None:
    lab = stopping(running("old"))
    lab.world.rules.append(Rule("inspect", "old", calls={2}, before=lambda: lab.world.start("old")))
    (result,) = (await lab.sweep()).results
    assert result.outcome is Outcome.SKIPPED
    assert lab.world.made("stop") == []


async def test_what_a_stop_would_destroy_by_now_is_not_stopped() -> None:
    def change() -> None:
        lab.world.change("old", lambda r: replace(r, lost_when_stopped=True))

    lab = stopping(running("old"))
    lab.world.rules.append(Rule("inspect", "old", calls={2}, before=change))
    (result,) = (await lab.sweep()).results
    assert result.outcome is Outcome.SKIPPED
    assert lab.world.get("old") is not None


async def test_a_deletion_that_would_be_only_a_stop_by_now_is_skipped() -> None:
    lab = stopping(stopped("ended", hours=30))
    lab.rules = replace(RULES, policies=(STOP, Policy("gone", frozenset({Kind.CONTAINER}), stopped_for=HOUR)))
    lab.world.rules.append(Rule("inspect", "ended", calls={2}, before=lambda: lab.world.start("ended")))
    (result,) = (await lab.sweep()).results
    assert result.outcome is Outcome.SKIPPED
    assert lab.world.removals == []


async def test_a_project_is_stopped_as_one_and_its_network_stays() -> None:
    lab = stopping(running("a", group="chess"), stopped("b", group="chess", hours=30), network("net", "chess"))
    report = await lab.sweep()
    assert {r.decision.resource.name: r.outcome for r in report.results} == {"a": Outcome.STOPPED, "b": Outcome.STOPPED}
    assert [call.name for call in lab.world.made("stop")] == ["a"]
    assert lab.world.get("net") is not None


async def test_a_project_with_a_young_member_is_not_stopped() -> None:
    lab = stopping(running("a", group="chess"), running("b", group="chess", hours=1))
    assert not (await lab.sweep()).results


async def test_stops_count_against_the_cap() -> None:
    lab = stopping(*(running(f"c{i}") for i in range(3)))
    report = await lab.sweep(max_deletions=2)
    assert exit_code(report) == exits.CAP
    assert lab.world.made("stop") == []


async def test_a_stop_that_fails_is_a_failure() -> None:
    lab = stopping(running("old"))
    lab.world.rules.append(Rule("stop", "old", error=ServerError("500")))
    report = await lab.sweep()
    (result,) = report.results
    assert (result.outcome, result.error) == (Outcome.FAILED, "server_error")
    assert result.attempts
    assert exit_code(report) == exits.FAILED


@pytest.mark.parametrize("attempts", [1, 4], ids=["in the next round", "in the next try"])
async def test_what_was_started_again_and_is_used_is_not_stopped_again(attempts: int) -> None:
    """A sandbox shows no time of its start, only its activity."""
    lab = organisation(sandbox("box"), retry=replace(EXACT, attempts=attempts))

    def use() -> None:
        used: dict[str, Any] = {
            "state": State.RUNNING,
            "raw_state": "started",
            "stopped_at": None,
            "last_activity_at": lab.world.now(),
        }
        lab.world.change("box", lambda r: replace(r, **used))

    lab.world.rules.append(Rule("stop", "box", calls={1}, error=ServerError("502"), done=True, after=use))
    (result,) = (await lab.sweep()).results
    assert result.outcome is Outcome.SKIPPED
    assert "is to be kept now: idle for" in result.detail
    assert len(lab.world.made("stop")) == 1
    box = lab.world.get("box")
    assert box is not None
    assert box.state is State.RUNNING


async def test_the_answer_to_a_stop_may_be_lost() -> None:
    lab = organisation(Held(sandbox("box"), stop_seconds=3))
    lab.world.rules.append(Rule("stop", "box", calls={1}, error=ServerError("502"), done=True))
    (result,) = (await lab.sweep()).results
    assert result.outcome is Outcome.STOPPED


async def test_a_stop_that_is_only_accepted_counts_when_a_look_shows_it() -> None:
    lab = organisation(Held(sandbox("box"), stop_seconds=5))
    (result,) = (await lab.sweep()).results
    assert result.outcome is Outcome.STOPPED
    assert result.seconds >= 5


async def test_a_stop_that_does_not_end_within_its_bound_is_not_confirmed() -> None:
    lab = organisation(Held(sandbox("box"), stop_seconds=500))
    lab.rules = replace(lab.rules, policies=(replace(STOP_IDLE, stop_timeout=timedelta(seconds=500)),))
    report = await lab.sweep()
    (result,) = report.results
    assert (result.outcome, result.error) == (Outcome.FAILED, "unconfirmed")
    assert exit_code(report) == exits.FAILED


async def test_a_denied_stop_and_a_denied_deletion_fail() -> None:
    lab = organisation(sandbox("box"))
    lab.world.rules.append(Rule("stop", "box", error=DeniedError("Access denied")))
    report = await lab.sweep()
    assert [(r.outcome, r.error) for r in report.results] == [(Outcome.FAILED, "denied")]

    lab = organisation(sandbox("box"), policy=replace(STOP_IDLE, action=Action.DELETE))
    lab.world.rules.append(Rule("delete", "box", error=DeniedError("Access denied")))
    report = await lab.sweep()
    assert [r.outcome for r in report.results] == [Outcome.STOPPED]
    assert exit_code(report) == exits.FAILED  # a stop in place of a deletion is no success


async def test_what_runs_is_stopped_before_it_is_archived() -> None:
    lab = organisation(Held(sandbox("box"), stop_seconds=4), policy=ARCHIVE)
    report = await lab.sweep()
    assert [r.outcome for r in report.results] == [Outcome.ARCHIVED]
    assert exit_code(report) == 0
    box = lab.world.get("box")
    assert box is not None
    assert box.raw_state == "archived"
    assert not (await lab.sweep()).results


async def test_what_was_started_again_is_not_archived() -> None:
    lab = organisation(Held(sandbox("box"), stop_seconds=1), policy=ARCHIVE)
    lab.world.rules.append(Rule("archive", "box", calls={1}, before=lambda: lab.world.start("box")))
    (result,) = (await lab.sweep()).results
    assert result.outcome in (Outcome.SKIPPED, Outcome.FAILED)
    box = lab.world.get("box")
    assert box is not None
    assert box.state is State.RUNNING


async def test_what_gets_a_label_that_keeps_it_while_it_stops_is_not_archived() -> None:
    lab = organisation(Held(sandbox("box"), stop_seconds=1), policy=ARCHIVE)

    def keep(box: Resource) -> Resource:
        return replace(box, labels={**(box.labels or {}), "reaper.keep": ""})

    lab.world.rules.append(Rule("stop", "box", calls={1}, after=lambda: lab.world.change("box", keep)))
    (result,) = (await lab.sweep()).results
    assert (result.outcome, result.detail) == (Outcome.SKIPPED, "it has other labels now")
    assert lab.world.made("archive") == []


async def test_an_archiving_whose_answer_is_lost_is_waited_for() -> None:
    lab = organisation(sandbox("box", raw_state="stopped", state=State.STOPPED), policy=ARCHIVE)
    lab.world.rules.append(Rule("archive", "box", error=ServerError("no answer"), done=True))
    (result,) = (await lab.sweep()).results
    assert result.outcome is Outcome.ARCHIVED


async def test_what_is_gone_before_it_is_archived_costs_the_others_nothing() -> None:
    lab = organisation(sandbox("box"), sandbox("other"), policy=ARCHIVE)
    lab.world.rules.append(Rule("inspect", "box", calls={1}, before=lambda: lab.world.remove("box")))
    report = await lab.sweep()
    assert [endpoint.failure for endpoint in report.endpoints] == [None]
    outcomes = {r.decision.resource.name: r.outcome for r in report.results}
    assert outcomes == {"box": Outcome.GONE, "other": Outcome.ARCHIVED}


async def test_a_session_is_archived_as_one_or_not_at_all() -> None:
    session = {"harbor.managed": "true", "harbor.session": "s"}
    one, other = (sandbox(name, labels=session, group="s") for name in ("one", "other"))
    lab = organisation(one, other, policy=ARCHIVE)
    lab.world.rules.append(Rule("stop", "other", error=DeniedError("Access denied")))
    report = await lab.sweep()
    assert {r.decision.resource.name: r.outcome for r in report.results} == {"one": Outcome.SKIPPED, "other": Outcome.FAILED}
    assert lab.world.made("archive") == []


@pytest.mark.parametrize("policy", [STOP_IDLE, ARCHIVE])
async def test_no_rule_counts_as_broken_by_a_stop_or_an_archiving(policy: Policy) -> None:
    session = {"harbor.managed": "true", "harbor.session": "s"}
    ended = sandbox("ended", labels=session, group="s", state=State.STOPPED, raw_state="stopped", stopped_at=NOW - 30 * HOUR)
    lab = organisation(Held(sandbox("one", labels=session, group="s"), stop_seconds=3), ended, policy=policy)
    report = await lab.sweep()
    assert len(report.results) == 2
    assert [Entry.of(result).violation for result in report.results] == [None, None]

    lab = stopping(running("a", group="chess"), stopped("b", group="chess", hours=30))
    report = await lab.sweep()
    assert [Entry.of(result).violation for result in report.results] == [None, None]
