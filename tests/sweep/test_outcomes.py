"""What a sweep does to one thing after the other, and what it says of it."""

import gc
import math
from collections import Counter
from dataclasses import replace
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from reaper.core.model import Kind, Outcome, Reason, State
from reaper.core.rules import Rules
from reaper.errors import (
    CallTimeoutError,
    ConflictError,
    DeniedError,
    InvalidError,
    NotFoundError,
    ProviderError,
    RateLimitedError,
    ServerError,
    UnavailableError,
    UnreadableError,
)
from reaper.observers.log import LogObserver, configure
from reaper.providers.memory import Held, Rule
from reaper.sweep.sweep import Options, sweep
from tests.sweep.lab import EVERYTHING, EXACT, FOREIGN, Lab, counts, many, network, outcomes, result, running, stopped

pytestmark = pytest.mark.anyio


async def test_what_is_reapable_goes_and_all_else_stays() -> None:
    lab = Lab(
        stopped("old"),
        running("long"),
        stopped("young", hours=0.5),
        running("alive", hours=2),
        stopped("foreign", image=FOREIGN),
        stopped("kept", labels={"reaper.keep": ""}),
    )
    assert await lab.outcomes() == {"old": "deleted", "long": "deleted"}
    assert lab.left() == {"young", "alive", "foreign", "kept"}
    assert [force for _, force in lab.world.removals] == [False, False]


async def test_the_report_says_what_was_found_and_done() -> None:
    lab = Lab(stopped("old"), stopped("young", hours=0.5), stopped("foreign", image=FOREIGN))
    report = await lab.sweep()
    (endpoint,) = report.endpoints
    assert (endpoint.endpoint, endpoint.provider, endpoint.held) == ("local", "memory", 3)
    assert {d.resource.name: d.reason for d in endpoint.decisions} == {
        "old": Reason.STOPPED_FOR,
        "young": Reason.TOO_YOUNG,
        "foreign": Reason.NOT_OWNED,
    }
    deleted = result(report, "old")
    assert (deleted.outcome, deleted.attempts, deleted.detail, deleted.error) == (Outcome.DELETED, 1, "", None)
    assert deleted.seconds == pytest.approx(0.03)  # one inspection, one look for dependents and one deletion
    assert report.started_at == lab.clock.start
    assert report.seconds == pytest.approx(0.07)  # and two listings, the inspection that decided, and one of links
    assert not report.dry_run
    assert report.interrupted is None
    assert lab.observer.events == ["listed local 3", "decided local 1", "finished local"]


async def test_an_empty_endpoint_is_listed_once() -> None:
    lab = Lab()
    report = await lab.sweep()
    assert not report.results
    assert [call.method for call in lab.world.calls] == ["list"]


async def test_what_is_not_to_go_is_never_even_inspected() -> None:
    lab = Lab(running("alive", hours=2), stopped("foreign", image=FOREIGN))
    await lab.sweep()
    assert [call.method for call in lab.world.calls] == ["list"]


async def test_everything_is_inspected_where_that_is_asked_for() -> None:
    lab = Lab(running("alive", hours=2), stopped("foreign", image=FOREIGN))
    (endpoint,) = (await lab.sweep(act=False, inspect_everything=True)).endpoints
    assert all(decision.resource.inspected for decision in endpoint.decisions)


async def test_a_dry_run_never_changes_anything() -> None:
    lab = Lab(stopped("old"), running("long"), network("net", "p"))
    assert not hasattr(lab.reader, "delete")
    assert not hasattr(lab.reader, "stop")
    report = await lab.sweep(act=False)
    assert outcomes(report) == {"old": "would_delete", "long": "would_delete"}
    assert report.dry_run
    assert lab.left() == {"old", "long", "net"}
    assert {call.method for call in lab.world.calls} == {"list", "inspect"}


# -- gone --------------------------------------------------------------------------------------------------------------


async def test_gone_between_listing_and_inspection_is_no_matter_of_this_sweep() -> None:
    lab = Lab(stopped("old"), stopped("lost"))
    lab.world.rules.append(Rule("list", calls={1}, after=lambda: lab.world.remove("lost")))
    report = await lab.sweep()
    assert outcomes(report) == {"old": "deleted"}
    assert [d.resource.name for d in report.endpoints[0].decisions] == ["old"]


async def test_gone_between_decision_and_second_look() -> None:
    lab = Lab(stopped("lost"))
    lab.world.rules.append(Rule("inspect", "lost", calls={1}, after=lambda: lab.world.remove("lost")))
    report = await lab.sweep()
    assert outcomes(report) == {"lost": "gone"}
    assert "another client" in result(report, "lost").detail
    assert not lab.world.made("delete")


async def test_gone_between_second_look_and_deletion() -> None:
    lab = Lab(stopped("lost"))
    lab.world.rules.append(Rule("delete", before=lambda: lab.world.remove("lost")))
    assert await lab.outcomes() == {"lost": "gone"}


async def test_gone_before_it_could_be_stopped() -> None:
    lab = Lab(running("lost"))
    lab.world.rules.append(Rule("stop", before=lambda: lab.world.remove("lost")))
    assert await lab.outcomes() == {"lost": "gone"}


async def test_gone_by_itself_when_it_was_stopped() -> None:
    lab = Lab(Held(running("lost"), auto_remove=True))
    assert await lab.outcomes() == {"lost": "gone"}


async def test_what_its_own_stop_removes_counts_as_deleted() -> None:
    """``docker run --rm``: no other client was there."""
    lab = Lab(Held(running("lost", lost_when_stopped=True), auto_remove=True))
    report = await lab.sweep()
    assert result(report, "lost").outcome is Outcome.DELETED
    assert result(report, "lost").detail == "it was removed by being stopped"


@pytest.mark.parametrize("is_before", [True, False])
async def test_what_another_client_removes_while_it_is_to_be_stopped_is_gone(*, is_before: bool) -> None:
    lab = Lab(running("lost", lost_when_stopped=is_before))
    remove = partial(lab.world.remove, "lost")
    lab.world.rules.append(Rule("stop", before=remove) if is_before else Rule("stop", after=remove))
    assert await lab.outcomes() == {"lost": "gone"}


async def test_a_project_whose_containers_go_by_themselves_when_they_are_stopped() -> None:
    lab = Lab(
        Held(running("client", group="p"), auto_remove=True),
        Held(running("side", group="p"), auto_remove=True),
        network("net", "p"),
    )
    assert await lab.outcomes() == {"client": "gone", "side": "gone", "net": "deleted"}


async def test_each_thing_is_reported_of_once() -> None:
    lab = Lab(running("client", group="p"), stopped("side", group="p"), network("net", "p"))
    lab.world.rules.append(Rule("stop", after=lambda: lab.world.remove("side")))
    report = await lab.sweep()
    told = sorted(r.decision.resource.name for _, r in lab.observer.results)
    assert told == sorted(outcomes(report))


# -- in progress -------------------------------------------------------------------------------------------------------


def being_removed(lab: Lab, name: str, seconds: float) -> Rule:
    """Another client's removal begins just before the sweep's."""

    def begin() -> None:
        held = lab.world.find(stopped(name))
        held.gone_at = anyio.current_time() + seconds

    return Rule("delete", name, calls={1}, before=begin)


async def test_a_removal_under_way_is_waited_for() -> None:
    lab = Lab(stopped("old"))
    lab.world.rules.append(being_removed(lab, "old", 12))
    report = await lab.sweep()
    assert outcomes(report) == {"old": "gone"}
    assert 12 <= report.seconds <= 15


@pytest.mark.parametrize("blocks", [False, True])
async def test_a_removal_that_never_ends_is_a_failure_within_a_bound(blocks: bool) -> None:
    lab = Lab(Held(stopped("stuck"), removal_seconds=1e9, blocks=blocks), stopped("old"))
    report = await lab.sweep()
    assert outcomes(report) == {"stuck": "failed", "old": "deleted"}
    assert result(report, "stuck").error == "in_progress"
    assert result(report, "stuck").detail == "its removal is under way and did not end within 30 s"
    assert report.seconds == pytest.approx(30 + 2 + 30, abs=2)  # a time-out, a delay and the patience


async def test_a_removal_that_fails_to_tell_is_a_failure() -> None:
    lab = Lab(stopped("old"))
    lab.world.rules += [being_removed(lab, "old", 1e9), Rule("inspect", calls=range(3, 99), error=DeniedError("403"))]
    report = await lab.sweep()
    assert result(report, "old").error == "denied"


@pytest.mark.parametrize("blocks", [False, True])
async def test_a_deletion_whose_answer_is_lost_and_that_takes_its_time(blocks: bool) -> None:
    lab = Lab(Held(stopped("big"), removal_seconds=45, blocks=blocks))
    report = await lab.sweep()
    assert outcomes(report) == {"big": "deleted"}  # the look before the second call told that the first is still at it
    assert len(lab.world.removals) == len(lab.world.made("delete")) == 1
    assert report.seconds == pytest.approx(45, abs=2)


# -- conflict and force ------------------------------------------------------------------------------------------------


async def test_started_again_just_before_its_deletion() -> None:
    lab = Lab(stopped("old"))
    lab.world.rules.append(Rule("delete", before=lambda: lab.world.start("old")))
    report = await lab.sweep()
    assert outcomes(report) == {"old": "skipped"}
    assert "refused" in result(report, "old").detail
    assert lab.left() == {"old"}


async def test_one_that_runs_is_stopped_and_then_deleted_without_force() -> None:
    lab = Lab(Held(running("long"), stop_seconds=7))
    report = await lab.sweep()
    assert outcomes(report) == {"long": "deleted"}
    assert report.seconds == pytest.approx(7, abs=0.2)
    (removed, force) = lab.world.removals[0]
    assert removed.state is State.STOPPED
    assert not force


async def test_one_that_ignores_the_signal_is_killed_at_the_grace() -> None:
    lab = Lab(Held(running("deaf"), stop_seconds=math.inf))
    report = await lab.sweep()
    assert outcomes(report) == {"deaf": "deleted"}
    assert report.seconds == pytest.approx(10, abs=0.2)


async def test_a_stop_that_did_nothing_is_followed_by_force() -> None:
    lab = Lab(running("long"))
    lab.world.rules.append(Rule("stop", after=lambda: lab.world.change("long", lambda _: running("long"))))
    assert await lab.outcomes() == {"long": "deleted"}
    assert [(r.state, force) for r, force in lab.world.removals] == [(State.RUNNING, True)]
    assert len(lab.world.made("stop")) == 1


async def test_force_is_for_the_same_start_only() -> None:
    lab = Lab(running("long"))
    lab.world.rules.append(Rule("stop", after=lambda: lab.world.start("long")))
    report = await lab.sweep()
    assert outcomes(report) == {"long": "skipped"}
    assert "was started again" in result(report, "long").detail
    assert not lab.world.made("delete")


async def test_a_stop_whose_answer_is_lost_is_looked_at() -> None:
    lab = Lab(running("long"))
    lab.world.rules.append(Rule("stop", done=True, error=UnavailableError("reset")))
    assert await lab.outcomes() == {"long": "deleted"}
    assert [force for _, force in lab.world.removals] == [False]


@pytest.mark.parametrize("error", [DeniedError("403"), InvalidError("400"), ConflictError("409"), ServerError("500")])
async def test_what_cannot_be_stopped_is_not_killed(error: ProviderError) -> None:
    """Force comes after a stop and its time-out, and never in their place."""
    lab = Lab(running("long"))
    lab.world.rules.append(Rule("stop", error=error))
    report = await lab.sweep()
    assert outcomes(report) == {"long": "failed"}
    assert result(report, "long").error == error.label
    assert not lab.world.made("delete")


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [DeniedError("403"), InvalidError("400")])
async def test_a_refusal_is_a_failure_that_is_not_retried(error: ProviderError) -> None:
    lab = Lab(stopped("old"), stopped("other"))
    lab.world.rules.append(Rule("delete", "old", error=error))
    report = await lab.sweep()
    assert outcomes(report) == {"old": "failed", "other": "deleted"}
    assert (result(report, "old").error, result(report, "old").attempts) == (error.label, 1)
    assert len(lab.world.made("delete", "old")) == 1


async def test_what_fails_for_a_moment_succeeds() -> None:
    lab = Lab(stopped("old"))
    lab.world.rules.append(Rule("delete", calls={1, 2, 3}, error=ServerError("500")))
    report = await lab.sweep()
    assert outcomes(report) == {"old": "deleted"}
    assert result(report, "old").attempts == 4
    assert [event.attempt for _, event in lab.observer.retries] == [1, 2, 3]
    assert lab.observer.retries[0][1].what == "delete container old"


async def test_a_retryable_failure_gets_one_more_round() -> None:
    lab = Lab(stopped("old"), stopped("other"))
    lab.world.rules.append(Rule("delete", "old", calls={1, 2, 3, 4, 5}, error=ServerError("500")))
    report = await lab.sweep()
    assert outcomes(report) == {"old": "deleted", "other": "deleted"}
    assert result(report, "old").attempts == 6


async def test_the_second_round_goes_on_with_what_the_first_one_stopped() -> None:
    lab = Lab(running("long"))
    lab.world.rules.append(Rule("delete", calls={1, 2, 3, 4}, error=ServerError("500")))
    assert await lab.outcomes() == {"long": "deleted"}
    assert len(lab.world.made("stop")) == 1


async def test_the_second_round_goes_on_when_the_policy_names_the_state_that_we_changed() -> None:
    rules = Rules(policies=(replace(EVERYTHING, states=frozenset({"running"})),))
    lab = Lab(running("long"), rules=rules)
    lab.world.rules.append(Rule("delete", calls={1, 2, 3, 4}, error=ServerError("500")))
    assert await lab.outcomes() == {"long": "deleted"}


async def test_the_second_round_goes_on_when_the_result_of_the_stop_is_unknown() -> None:
    lab = Lab(running("long"))
    lab.world.rules += [
        Rule("stop", calls={1, 2, 3, 4}, done=True, error=UnavailableError("reset")),
        Rule("inspect", calls={3, 4, 5, 6}, error=UnavailableError("reset")),
    ]
    assert await lab.outcomes() == {"long": "deleted"}


async def test_the_second_round_does_not_touch_what_was_started_again() -> None:
    lab = Lab(running("long"))
    lab.world.rules += [
        Rule("delete", calls={1, 2, 3, 4}, error=ServerError("500")),
        Rule("delete", calls={4}, before=lambda: lab.world.start("long")),
    ]
    lab.world.rules.reverse()  # the world changes before the error
    report = await lab.sweep()
    assert outcomes(report) == {"long": "skipped"}
    assert lab.left() == {"long"}


async def test_the_second_round_goes_on_with_a_project_whose_sign_is_gone() -> None:
    """The client container owned the project by its image, and it went in the first round."""
    lab = Lab(stopped("client", group="p"), stopped("side", group="p", image=FOREIGN), network("net", "p", image=None))
    lab.world.rules.append(Rule("delete", "side", calls={1, 2, 3, 4}, error=ServerError("500")))
    report = await lab.sweep()
    assert outcomes(report) == {"client": "deleted", "side": "deleted", "net": "deleted"}


async def test_the_second_round_leaves_a_project_of_which_one_was_refused() -> None:
    """One of them was started again: what is left of its project stays with it."""
    lab = Lab(stopped("a", group="p"), stopped("b", group="p"), network("net", "p"))
    lab.world.rules += [
        Rule("delete", "a", before=lambda: lab.world.start("a")),
        Rule("delete", "b", calls={1, 2, 3, 4}, error=ServerError("500")),
    ]
    report = await lab.sweep()
    assert outcomes(report) == {"a": "skipped", "b": "skipped", "net": "skipped"}
    assert lab.left() == {"a", "b", "net"}


async def test_the_breaker_lets_the_second_round_try() -> None:
    lab = Lab(*many(60))
    lab.world.rules.append(Rule("delete", calls=range(1, 40), error=ServerError("500")))
    report = await lab.sweep()
    assert counts(report) == {Outcome.DELETED: 60}


@pytest.mark.parametrize("stuck", [5, 24, 40])
async def test_what_stands_behind_many_that_cannot_be_deleted_is_deleted(stuck: int) -> None:
    """The breaker opens for changes before it is their turn: in the second round they come first. The others rest then."""
    lab = Lab(*many(60))
    failing = {f"c{number:04}" for number in range(stuck)}
    lab.world.rules += [Rule("delete", name, error=ServerError("driver failed")) for name in failing]
    assert counts(await lab.sweep()) == {Outcome.DELETED: 60 - stuck, Outcome.FAILED: stuck}
    assert lab.left() == failing
    tried = len(lab.world.made("delete"))
    assert counts(await lab.sweep()) == {Outcome.FAILED: stuck}
    assert len(lab.world.made("delete")) < tried + 60


@pytest.mark.parametrize("fault", [Rule("delete", hang=True), Rule("delete", error=ServerError("500"))])
async def test_an_endpoint_that_answers_all_but_deletions_of_a_thousand_things_is_given_up(fault: Rule) -> None:
    lab = Lab(*many(1000))
    lab.world.rules.append(fault)
    report = await lab.sweep()
    assert counts(report) == {Outcome.FAILED: 1000}
    assert {r.error for r in report.results} == {"server_error" if fault.error else "timeout", "circuit_open"}
    assert report.seconds <= 5 * 60
    assert len(lab.world.made("delete")) < 200


async def test_an_endpoint_that_hangs_when_it_is_looked_at() -> None:
    lab = Lab(*many(1000))
    lab.world.rules.append(Rule("inspect", hang=True))
    report = await lab.sweep()
    assert counts(report) == {Outcome.FAILED: 1000}
    assert report.seconds <= 5 * 60
    assert not lab.world.made("delete")


# -- listing and inspecting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [DeniedError("401"), ServerError("500"), UnavailableError("refused")])
async def test_a_listing_that_fails_ends_it_before_the_first_deletion(error: ProviderError) -> None:
    lab = Lab(stopped("old"))
    lab.world.rules.append(Rule("list", error=error))
    report = await lab.sweep()
    (endpoint,) = report.endpoints
    assert endpoint.failure is not None
    assert (endpoint.failure.label, endpoint.failure.message) == (error.label, str(error))
    assert not endpoint.decisions
    assert not endpoint.results
    assert {call.method for call in lab.world.calls} == {"list"}


async def test_a_listing_that_hangs_ends_after_the_total() -> None:
    lab = Lab(stopped("old"))
    lab.world.rules.append(Rule("list", hang=True))
    report = await lab.sweep()
    assert report.endpoints[0].failure is not None
    assert report.endpoints[0].failure.label == "timeout"
    assert report.seconds == pytest.approx(60)


async def test_an_inspection_that_fails_keeps_that_one_and_its_project() -> None:
    lab = Lab(stopped("old"), stopped("bad"), stopped("a", group="p"), stopped("b", group="p"), network("net", "p"))
    for name in ("bad", "b"):
        lab.world.rules.append(Rule("inspect", name, error=ServerError("500")))
    report = await lab.sweep()
    assert outcomes(report) == {"old": "deleted", "bad": "failed", "b": "failed"}
    assert lab.left() == {"bad", "a", "b", "net"}
    assert result(report, "bad").error == "server_error"
    reasons = {d.resource.name: d.reason for d in report.endpoints[0].decisions}
    assert reasons["b"] is Reason.UNREADABLE
    assert reasons["a"] is Reason.GROUP_KEPT
    assert report.endpoints[0].failure is None


async def test_what_is_unreadable_and_not_owned_is_no_failure() -> None:
    lab = Lab(stopped("foreign", image=FOREIGN))
    lab.world.rules.append(Rule("inspect", error=ServerError("500")))
    assert not (await lab.sweep(act=False, inspect_everything=True)).results


async def test_the_second_look_that_fails_for_good_is_a_failure() -> None:
    lab = Lab(stopped("old"), stopped("other"))
    lab.world.rules.append(Rule("inspect", "old", calls=range(2, 99), error=DeniedError("403")))
    report = await lab.sweep()
    assert outcomes(report) == {"old": "failed", "other": "deleted"}


# -- confirmation ------------------------------------------------------------------------------------------------------


async def test_deleted_means_absent_from_the_last_listing() -> None:
    lab = Lab(stopped("old"), stopped("zombie"))
    zombie = stopped("zombie")
    lab.world.rules.append(Rule("delete", "zombie", after=lambda: lab.world.add(zombie)))
    report = await lab.sweep()
    assert outcomes(report) == {"old": "deleted", "zombie": "failed"}
    assert result(report, "zombie").error == "still_listed"
    assert report.endpoints[0].failure is None


async def test_gone_is_confirmed_as_well() -> None:
    lab = Lab(stopped("flapping"))
    lab.world.rules.append(Rule("delete", error=NotFoundError("404")))
    report = await lab.sweep()
    assert outcomes(report) == {"flapping": "failed"}


async def test_a_last_listing_that_fails_confirms_nothing() -> None:
    lab = Lab(stopped("old"), stopped("bad"))
    lab.world.rules += [
        Rule("list", calls=range(2, 99), error=ServerError("500")),
        Rule("delete", "bad", error=DeniedError("403")),
    ]
    report = await lab.sweep()
    assert outcomes(report) == {"old": "failed", "bad": "failed"}
    assert "could not be confirmed" in result(report, "old").detail
    assert (result(report, "old").error, result(report, "bad").error) == ("server_error", "denied")
    assert report.endpoints[0].failure is not None
    assert report.endpoints[0].failure.label == "server_error"


async def test_a_last_listing_that_fails_for_a_moment_confirms() -> None:
    lab = Lab(stopped("old"))
    lab.world.rules.append(Rule("list", calls={2, 3, 4}, error=ServerError("500")))
    assert await lab.outcomes() == {"old": "deleted"}


async def test_where_nothing_was_deleted_there_is_nothing_to_confirm() -> None:
    lab = Lab(stopped("old"))
    lab.world.rules.append(Rule("delete", error=DeniedError("403")))
    await lab.sweep()
    assert len(lab.world.made("list")) == 1


# -- groups and networks -----------------------------------------------------------------------------------------------


async def test_a_project_goes_as_a_whole_with_its_networks_last() -> None:
    net = network("net", "p")
    lab = Lab(
        net,
        running("client", group="p", uses=frozenset({net.id})),
        stopped("side", group="p", image=FOREIGN),
    )
    assert await lab.outcomes() == {"client": "deleted", "side": "deleted", "net": "deleted"}
    assert [r.kind for r, _ in lab.world.removals] == [Kind.CONTAINER, Kind.CONTAINER, Kind.NETWORK]


async def test_the_network_stays_where_a_container_could_not_go() -> None:
    lab = Lab(stopped("client", group="p"), stopped("side", group="p"), network("net", "p"))
    lab.world.rules.append(Rule("delete", "side", error=DeniedError("403")))
    assert await lab.outcomes() == {"client": "deleted", "side": "failed", "net": "skipped"}


async def test_a_network_with_an_attached_container_stays() -> None:
    net = network("net", "p")
    lab = Lab(net, stopped("client", group="p"), running("debug", image=FOREIGN, uses=frozenset()))
    attach = lambda r: replace(r, uses=frozenset({net.id}))  # noqa: E731
    lab.world.rules.append(Rule("delete", "client", after=lambda: lab.world.change("debug", attach)))
    report = await lab.sweep()
    assert outcomes(report) == {"client": "deleted", "net": "skipped"}
    assert "attached" in result(report, "net").detail


async def test_a_network_to_which_a_container_is_attached_just_then_is_refused() -> None:
    net = network("net", "p")
    lab = Lab(net, stopped("client", group="p"), running("debug", image=FOREIGN))
    attach = lambda r: replace(r, uses=frozenset({net.id}))  # noqa: E731
    lab.world.rules.append(Rule("delete", "net", before=lambda: lab.world.change("debug", attach)))
    report = await lab.sweep()
    assert outcomes(report) == {"client": "deleted", "net": "skipped"}
    assert "refused" in result(report, "net").detail


async def test_a_network_that_went_with_docker_compose_down() -> None:
    lab = Lab(stopped("client", group="p"), network("net", "p"))
    lab.world.rules.append(Rule("delete", "client", after=lambda: lab.world.remove("net")))
    assert await lab.outcomes() == {"client": "deleted", "net": "gone"}


async def test_a_network_relabelled_meanwhile_stays() -> None:
    lab = Lab(stopped("client", group="p"), network("net", "p"))
    lab.world.rules.append(Rule("delete", "client", after=lambda: lab.relabel("net", {"reaper.keep": ""})))
    assert await lab.outcomes() == {"client": "deleted", "net": "skipped"}


async def test_a_project_that_lives_again_keeps_its_network() -> None:
    lab = Lab(stopped("client", group="p"), network("net", "p"))
    lab.world.rules.append(Rule("delete", "client", after=lambda: lab.world.add(running("client-2", hours=0, group="p"))))
    report = await lab.sweep()
    assert outcomes(report) == {"client": "deleted", "net": "skipped"}
    assert "client-2" in result(report, "net").detail


async def test_a_network_whose_deletion_fails_for_a_moment_gets_its_round() -> None:
    lab = Lab(stopped("client", group="p"), network("net", "p"))
    lab.world.rules.append(Rule("delete", "net", calls={1, 2, 3, 4}, error=ServerError("500")))
    assert await lab.outcomes() == {"client": "deleted", "net": "deleted"}


async def test_a_network_gets_its_round_when_its_containers_did() -> None:
    lab = Lab(stopped("a", group="p"), stopped("b", group="p"), network("net", "p"))
    lab.world.rules.append(Rule("delete", "b", calls={1, 2, 3, 4}, error=CallTimeoutError("slow")))
    assert await lab.outcomes() == {"a": "deleted", "b": "deleted", "net": "deleted"}


# -- bugs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["list", "inspect", "members", "delete", "stop"])
async def test_a_bug_costs_its_endpoint_only(method: str) -> None:
    broken = Lab(stopped("a", group="p"), stopped("b", group="p"), running("c"), name="broken")
    broken.world.rules.append(Rule(method, error=RuntimeError("bug")))
    fine = Lab(stopped("old"), name="fine")
    report = await fine.sweep(broken)
    assert outcomes(report)["old"] == "deleted"
    first, second = report.endpoints
    assert first.failure is None
    assert second.failure is not None
    assert second.failure.label == "internal_error"
    assert "RuntimeError: bug" in second.failure.message
    assert [name for name, _ in fine.observer.bugs] == ["broken"]


async def test_what_was_deleted_before_a_bug_is_confirmed_and_reported() -> None:
    lab = Lab(stopped("old"), Held(stopped("slow"), removal_seconds=5))
    lab.world.rules.append(Rule("delete", "slow", error=RuntimeError("bug"), done=True))
    report = await lab.sweep()
    assert report.endpoints[0].failure is not None
    assert report.endpoints[0].failure.label == "internal_error"
    assert outcomes(report) == {"old": "deleted", "slow": "abandoned"}


async def test_two_endpoints_of_which_one_hangs() -> None:
    hung = Lab(*many(30), name="hung")
    for method in ("list", "inspect", "delete"):
        hung.world.rules.append(Rule(method, hang=True))
    fine = Lab(stopped("old"), name="fine")
    report = await fine.sweep(hung)
    assert outcomes(report) == {"old": "deleted"}
    assert report.endpoints[0].seconds < 1
    assert report.endpoints[1].failure is not None
    assert report.seconds == pytest.approx(EXACT.total.total_seconds())


def counted() -> Counter[str]:
    """How many objects there are of each class of this program."""
    kinds = (type(thing) for thing in gc.get_objects())
    return Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith("reaper."))


@pytest.mark.parametrize("act", [True, False])
async def test_nothing_of_a_sweep_outlives_its_report(act: bool) -> None:
    lab = Lab(*many(2), running("long"), stopped("foreign", image=FOREIGN), stopped("db", group="p"), network("n", "p"))
    endpoint = lab.endpoint(act=act)
    log = LogObserver(configure("json", "error"))
    gc.collect()
    gc.disable()  # what only the collector frees stays for many sweeps of a service
    try:
        before = counted()  # other tests may have left some
        await sweep([endpoint], lab.rules, Options(act=act), clock=lab.clock, observer=log)
        await anyio.lowlevel.checkpoint()  # the report itself is let go of with the next turn of the loop
        left = counted() - before
    finally:
        gc.enable()
    assert not left.keys() & {"EndpointSweep", "SharedPass", "Context", "Unit", "Inspector", "Judge", "Decision", "Report"}


@pytest.mark.parametrize("error", [ServerError("500"), UnavailableError("broke"), UnreadableError("no JSON")])
async def test_a_deletion_whose_answer_was_lost_is_ours(error: ProviderError) -> None:
    lab = Lab(stopped("lost"))
    lab.world.rules.append(Rule("delete", "lost", calls={1}, error=error, done=True))
    assert await lab.outcomes() == {"lost": "deleted"}
    assert lab.left() == set()


async def test_a_deletion_that_timed_out_is_ours() -> None:
    lab = Lab(stopped("lost"))
    lab.world.rules.append(Rule("delete", "lost", calls={1}, hang=True, done=True))
    assert await lab.outcomes() == {"lost": "deleted"}


async def test_what_others_removed_between_two_refusals_is_gone() -> None:
    lab = Lab(stopped("theirs"))
    remove = Rule("delete", "theirs", calls={1}, error=RateLimitedError("429", retry_after=5))
    remove.before = lambda: lab.world.remove("theirs")
    lab.world.rules.append(remove)
    assert await lab.outcomes() == {"theirs": "gone"}
