"""Counters tell what is final, gauges tell what is there, and both are there from the start."""

import math
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaper.core.accounts import Saving
from reaper.core.disk import DiskUsage, Room
from reaper.core.model import Action, CapHit, EndpointFailure, EndpointReport, Kind, Outcome, Reason, Report, State
from reaper.core.safety_net import SAFETY_NET
from reaper.core.savings import LEASE, OVERRIDE, Prices, Rates
from reaper.errors import ConfigError, RateLimitedError, ServerError, UnavailableError
from reaper.observers.instruments import COUNTED, KEPT, UNDECIDED, actions, reach
from reaper.observers.metrics import Metrics
from reaper.retry.retrier import FailedAttempt
from reaper.sweep.result import BUG, SweepResult, sweep_result
from tests.core.strategies import World, worlds
from tests.metrics.lab import ENDPOINTS, POLICIES, Bench, became, decision, report, total, values
from tests.sweep.lab import HOUR, MINUTE, NOW, OLD, SECOND, STOPPED

WHERE = {"provider": "docker", "endpoint": "local"}
DOWN = EndpointFailure("unavailable", "connection refused")


def test_every_series_exists_from_the_start(bench: Bench) -> None:
    before = bench.values()
    assert bench("reaper_config_last_reload_successful") == 1
    assert bench("reaper_config_last_reload_success_timestamp_seconds") == NOW.timestamp()
    assert bench("reaper_build_info") == 1
    others = {
        k: v for k, v in before.items() if "config" not in k[0] and k[0] not in ("reaper_build_info", "reaper_endpoint_up")
    }
    assert set(others.values()) == {0}
    for outcome in COUNTED:
        for policy in ("old", "stopped", OVERRIDE):
            bench("reaper_deletions_total", **WHERE, kind="container", policy=policy, outcome=outcome.value)
            bench("reaper_deletions_total", **WHERE, kind="network", policy=policy, outcome=outcome.value)
    for error in ("unavailable", "timeout", "server_error", "unreadable", "rate_limited"):
        bench("reaper_retries_total", **WHERE, error=error)
    for result in SweepResult:
        bench("reaper_sweeps_total", **WHERE, result=result)
    bench("reaper_last_success_timestamp_seconds", endpoint="rl", policy="sandboxes")
    metrics = bench.metrics
    metrics.finished(
        report([became(f"c{i}", outcome, since=NOW) for i, outcome in enumerate(COUNTED)], cap=CapHit(1, 0, 1, ""))
    )
    metrics.retrying("local", FailedAttempt("delete", 1, 4, ServerError("500"), 2.0))
    metrics.swept("local", "docker", "success", 1.0)
    metrics.journal_failed()
    assert bench.values().keys() == before.keys()


def test_evidence_is_counted_by_whether_it_was_saved_and_not_where_none_was_tried(bench: Bench) -> None:
    before = [bench("reaper_evidence_total", **WHERE, result=result) for result in ("saved", "failed")]
    tried = [True, True, False, None]
    results = [replace(became(f"c{i}", Outcome.DELETED), evidence=evidence) for i, evidence in enumerate(tried)]
    bench.metrics.finished(report(results))
    assert before == [0, 0]
    assert [bench("reaper_evidence_total", **WHERE, result=result) for result in ("saved", "failed")] == [2, 1]


def test_a_policy_has_series_only_for_what_it_can_take(bench: Bench) -> None:
    policies = {dict(labels).get("policy", "") for name, labels in bench.values() if ("endpoint", "rl") in labels}
    assert policies == {"", OVERRIDE, LEASE, UNDECIDED, "stopped", "sandboxes", SAFETY_NET}
    kinds = {dict(labels)["kind"] for name, labels in bench.values() if ("endpoint", "rl") in labels and "deletions" in name}
    assert kinds == {"sandbox"}
    assert not any({("endpoint", "local"), ("policy", "sandboxes")} <= labels for _, labels in bench.values())


def test_an_endpoint_that_was_not_swept_is_neither_up_nor_down(bench: Bench) -> None:
    assert math.isnan(bench("reaper_endpoint_up", endpoint="local"))
    bench.metrics.finished(report())
    assert bench("reaper_endpoint_up", endpoint="local") == 1
    bench.metrics.finished(report(failure=DOWN))
    assert bench("reaper_endpoint_up", endpoint="local") == 0
    bench.metrics.finished(report(failure=EndpointFailure("interrupted", "ended before it was listed")))
    assert bench("reaper_endpoint_up", endpoint="local") == 0
    bench.metrics.endpoint_up("local", up=True)
    bench.metrics.finished(report(failure=EndpointFailure(BUG, "oops")))
    assert bench("reaper_endpoint_up", endpoint="local") == 1


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((*COUNTED, Outcome.WOULD_DELETE)), st.sampled_from(("old", "stopped", None)), st.floats(0, 500)
        ),
        max_size=20,
    ),
    st.integers(1, 3),
)
def test_the_counters_are_the_results_of_the_reports(results: list[tuple[Outcome, str | None, float]], times: int) -> None:
    bench = Bench()
    one = report([became(f"c{i}", o, policy, seconds, since=NOW - HOUR) for i, (o, policy, seconds) in enumerate(results)])
    for _ in range(times):
        bench.metrics.decided("local", one.decisions)
        for result in one.results:
            bench.metrics.settled("local", result)
        bench.metrics.finished(one)
    for outcome, number in Counter(o for o, _, _ in results if o is not Outcome.WOULD_DELETE).items():
        assert bench("reaper_deletions_total", outcome=outcome.value) == times * number
    for policy, number in Counter(policy or OVERRIDE for o, policy, _ in results if o is not Outcome.WOULD_DELETE).items():
        assert bench("reaper_deletions_total", policy=policy) == times * number
    deleted = [seconds for o, _, seconds in results if o is Outcome.DELETED]
    assert bench("reaper_deletion_duration_seconds_count", provider="docker") == times * len(deleted)
    assert bench("reaper_deletion_duration_seconds_sum", provider="docker") == pytest.approx(times * sum(deleted))
    assert bench("reaper_reap_delay_seconds_sum", provider="docker") == times * len(deleted) * 3600


@settings(max_examples=200)
@given(worlds())
def test_reasons_to_keep_and_no_others_have_series_of_what_is_kept(world: World) -> None:
    assert Reason.ORPHANED not in KEPT
    for one in world.decide():
        assert (one.reason in KEPT) is not one.reap


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((None, Reason.NOT_DUE, *KEPT)),
            st.sampled_from(State),
            st.sampled_from((Kind.CONTAINER, Kind.NETWORK)),
            st.sampled_from(("old", "stopped", None)),
        ),
        max_size=20,
    )
)
def test_what_is_held_is_kept_or_leaks(things: list[tuple[Reason | None, State, Kind, str | None]]) -> None:
    bench = Bench()
    held = [decision(f"c{i}", p, keep=keep, state=state, kind=kind) for i, (keep, state, kind, p) in enumerate(things)]
    for done in (False, True):
        if done:
            bench.metrics.finished(report(more=held))
        else:
            bench.metrics.decided("local", held)
        leaks = sum(keep in (None, Reason.NOT_DUE) for keep, *_ in things)
        assert bench("reaper_resources", endpoint="local") == len(held)
        assert bench("reaper_reapable_resources", endpoint="local") == leaks
        assert bench("reaper_kept_resources", endpoint="local") == len(held) - leaks
    bench.metrics.finished(report())
    assert bench("reaper_resources") == bench("reaper_reapable_resources") == bench("reaper_kept_resources") == 0


def test_what_could_not_be_inspected_fails_under_no_policy(bench: Bench) -> None:
    kept = replace(became("c", Outcome.FAILED, None), decision=decision("c", None, keep=Reason.UNREADABLE))
    bench.metrics.finished(report([kept]))
    assert bench("reaper_deletions_total", policy=UNDECIDED, outcome="failed", **WHERE) == 1
    assert bench("reaper_kept_resources", reason="unreadable") == 1


def test_a_dry_run_counts_nothing_and_shows_the_leak() -> None:
    bench = Bench(dry_run=True)
    bench.metrics.endpoint_up("local", up=False)
    bench.metrics.endpoint_up("rl", up=False)
    before = bench.values()
    bench.metrics.retrying("local", FailedAttempt("list", 1, 4, ServerError("500"), 2.0))
    one = report([became("c", Outcome.WOULD_DELETE), became("d", Outcome.FAILED)], cap=CapHit(1, 0, 1, "max"))
    bench.metrics.finished(one)
    bench.metrics.ended(Report(started_at=NOW, seconds=1, dry_run=True, endpoints=(report(),)), None, NOW)
    changed = {name for (name, labels), value in bench.values().items() if before[name, labels] != value}
    assert changed == {"reaper_endpoint_up", "reaper_reapable_resources", "reaper_resources"}


def test_what_is_gone_leaks_no_more_and_what_failed_does(bench: Bench) -> None:
    bench.metrics.finished(report([became(f"c{i}", outcome) for i, outcome in enumerate(Outcome)]))
    assert bench("reaper_reapable_resources", policy="stopped", **WHERE) == len(Outcome) - 2
    assert bench("reaper_resources", state="stopped", kind="container", **WHERE) == len(Outcome) - 2
    bench.metrics.finished(report(failure=DOWN))  # what was there is still there for all that anybody knows
    assert bench("reaper_reapable_resources", **WHERE) == len(Outcome) - 2


def test_the_oldest_grows_between_sweeps(bench: Bench) -> None:
    def oldest(policy: str) -> float:
        return bench("reaper_oldest_reapable_seconds", policy=policy, **WHERE)

    young, old = became("a", Outcome.FAILED, since=NOW - MINUTE), became("b", Outcome.FAILED, since=NOW - HOUR)
    waiting = decision("c", "old", keep=Reason.NOT_DUE, since=NOW - 2 * HOUR)
    bench.metrics.finished(report([young, old], [waiting]))
    assert (oldest("stopped"), oldest("old"), oldest(OVERRIDE)) == (3600, 7200, 0)
    bench.pass_time(minutes=10)
    assert (oldest("stopped"), oldest("old"), oldest(OVERRIDE)) == (4200, 7800, 0)
    bench.metrics.finished(report(failure=DOWN))
    assert oldest("stopped") == 4200
    bench.metrics.finished(report([young, replace(old, outcome=Outcome.DELETED)]))
    assert (oldest("stopped"), oldest("old")) == (660, 0)


def test_where_since_when_is_unknown_it_counts_from_the_first_sight(bench: Bench) -> None:
    bench.metrics.finished(report([became("a", Outcome.FAILED)]))
    assert bench("reaper_oldest_reapable_seconds", **WHERE) == 0
    for _ in range(3):
        bench.pass_time(minutes=10)
        bench.metrics.finished(report([became("a", Outcome.FAILED)]))
    assert bench("reaper_oldest_reapable_seconds", **WHERE) == 1800
    bench.metrics.finished(report())
    bench.metrics.finished(report([became("a", Outcome.FAILED)]))
    assert bench("reaper_oldest_reapable_seconds", **WHERE) == 0


@pytest.mark.parametrize("skew", [timedelta(days=3), -timedelta(days=3)])
def test_ages_are_corrected_where_the_clocks_differ(bench: Bench, skew: timedelta) -> None:
    since = NOW + skew - HOUR
    one = report([became("a", Outcome.FAILED, since=since), became("b", Outcome.DELETED, since=since)], clock_skew=skew)
    bench.metrics.finished(one)
    assert bench("reaper_oldest_reapable_seconds", **WHERE) == 3600
    assert bench("reaper_reap_delay_seconds_sum", provider="docker") == 3600
    assert bench("reaper_clock_skew_seconds", endpoint="local") == skew.total_seconds()


def test_sandboxes_in_transition_for_over_an_hour_are_stuck(bench: Bench) -> None:
    def changing(name: str, since: timedelta) -> EndpointReport:
        fields: dict[str, Any] = {
            "kind": Kind.SANDBOX,
            "state": State.CHANGING,
            "raw_state": "destroying",
            "last_activity_at": NOW - since,
        }
        return report(more=[decision(name, None, keep=Reason.CHANGING, **fields)], endpoint="rl")

    bench.metrics.finished(changing("s", 59 * MINUTE))
    assert bench("reaper_stuck_resources") == 0
    bench.pass_time(minutes=2)
    bench.metrics.finished(changing("s", 59 * MINUTE))
    assert bench("reaper_stuck_resources", endpoint="rl") == 1


def test_retries_go_by_the_class_of_the_error(bench: Bench) -> None:
    for error in (ServerError("500"), ServerError("502"), UnavailableError("reset"), RateLimitedError("429")):
        bench.metrics.retrying("local", FailedAttempt("delete", 1, 4, error, 2.0))
    assert bench("reaper_retries_total", error="server_error", **WHERE) == 2
    assert bench("reaper_retries_total", **WHERE) == 4


ENDS = {
    "success": (report([became("a", Outcome.DELETED), became("b", Outcome.SKIPPED)]), None),
    "failures": (report([became("a", Outcome.DELETED), became("b", Outcome.FAILED)]), None),
    "failures of a stop": (report([became("a", Outcome.STOPPED)]), None),
    "failures by --fail-fast": (report([became("a", Outcome.ABANDONED)]), None),
    "capped": (report([became("a", Outcome.ABANDONED)], cap=CapHit(1, 0, 1, "max")), "SIGTERM"),
    "unlisted": (report(failure=DOWN), None),
    "interrupted": (report([became("a", Outcome.ABANDONED)]), "SIGTERM"),
    "interrupted at once": (report(failure=EndpointFailure("interrupted", "")), "SIGINT"),
    "timeout": (report([became("a", Outcome.ABANDONED)]), "timeout"),
    "timeout at once": (report(failure=EndpointFailure("interrupted", "")), "timeout"),
    "internal_error": (report([became("a", Outcome.FAILED)], failure=EndpointFailure(BUG, "oops")), "timeout"),
    "success before the signal": (report([became("a", Outcome.GONE)]), "SIGTERM"),
}


@pytest.mark.parametrize(("name", "end"), ENDS.items(), ids=ENDS.keys())
def test_sweeps_by_how_they_ended(bench: Bench, name: str, end: tuple[EndpointReport, str | None]) -> None:
    one, interrupted = replace(end[0], seconds=42.0), end[1]
    assert sweep_result(one, interrupted) == name.split(maxsplit=1)[0]
    whole = Report(started_at=NOW, seconds=50, dry_run=False, endpoints=(one,), interrupted=interrupted)
    bench.metrics.ended(whole, None, NOW)
    assert bench("reaper_sweeps_total", result=name.split(maxsplit=1)[0], **WHERE) == bench("reaper_sweeps_total") == 1
    assert bench("reaper_sweep_duration_seconds_sum", provider="docker") == 42
    succeeded = bench("reaper_last_success_timestamp_seconds", policy="old", endpoint="local")
    assert succeeded == (NOW.timestamp() if name.startswith("success") else 0)


def test_a_sweep_that_went_well_is_a_success_of_what_was_due(bench: Bench) -> None:
    whole = Report(started_at=NOW, seconds=1, dry_run=False, endpoints=(report(), report(endpoint="rl", failure=DOWN)))
    bench.metrics.ended(whole, {"old"}, NOW)
    assert bench("reaper_last_success_timestamp_seconds", policy="old") == NOW.timestamp()
    assert bench("reaper_last_success_timestamp_seconds") == NOW.timestamp()
    bench.metrics.ended(whole, None, NOW + SECOND)
    assert bench("reaper_last_success_timestamp_seconds", policy="stopped", **WHERE) == NOW.timestamp() + 1
    assert bench("reaper_last_success_timestamp_seconds", endpoint="rl") == 0


def test_the_words_for_how_a_sweep_ended_are_closed(bench: Bench) -> None:
    with pytest.raises(ValueError, match="fine"):
        bench.metrics.swept("local", "docker", "fine", 1.0)


def test_the_cap_is_counted(bench: Bench) -> None:
    bench.metrics.finished(report([became("a", Outcome.ABANDONED)], cap=CapHit(1, 0, 1, "max_deletions = 0")))
    assert bench("reaper_cap_hits_total", **WHERE) == 1
    assert bench("reaper_cap_hits_total", endpoint="rl") == 0


def test_what_the_service_tells(bench: Bench) -> None:
    metrics = bench.metrics
    metrics.breaker("local", open=True)
    assert bench("reaper_circuit_breaker_open", **WHERE) == 1
    metrics.reloaded(ok=True, at=NOW + SECOND)
    metrics.reloaded(ok=False, at=NOW + MINUTE)
    assert bench("reaper_config_last_reload_successful") == 0
    assert bench("reaper_config_last_reload_success_timestamp_seconds") == NOW.timestamp() + 1
    metrics.journal_failed()
    metrics.journal_failed()
    assert (bench("reaper_journal_errors_total"), bench("reaper_journal_degraded")) == (2, 1)
    metrics.journal_ok()
    assert (bench("reaper_journal_errors_total"), bench("reaper_journal_degraded")) == (2, 0)
    assert not any("events" in name for name, _ in bench.values())
    metrics.configure(ENDPOINTS, POLICIES, events=["local"])
    assert (bench("reaper_events_connected", **WHERE), bench("reaper_events_lost_total", **WHERE)) == (0, 0)
    metrics.events("local", connected=True)
    metrics.events_lost("local")
    assert (bench("reaper_events_connected", **WHERE), bench("reaper_events_lost_total", **WHERE)) == (1, 1)


def test_a_reload_keeps_what_stays_and_drops_what_goes(bench: Bench) -> None:
    metrics = bench.metrics
    metrics.finished(report([became("a", Outcome.DELETED), became("b", Outcome.FAILED, "old", since=NOW - HOUR)]))
    metrics.configure({"local": "docker", "gpu-1": "docker"}, {"old": ((Kind.CONTAINER,), ("local", "gpu-1"))})
    assert bench("reaper_deletions_total", policy="old", outcome="failed", **WHERE) == 1
    assert bench("reaper_oldest_reapable_seconds", policy="old", **WHERE) == 3600
    assert bench("reaper_endpoint_up", endpoint="local") == 1
    assert bench("reaper_deletions_total", policy="old", endpoint="gpu-1") == 0
    seen = {value for _, labels in bench.values() for value in dict(labels).values()}
    assert not {"rl", "sandboxes", "daytona"} & seen
    assert not any(("policy", "stopped") in labels for _, labels in bench.values())


def test_what_ends_after_a_reload_took_it_out_of_force_is_counted_until_the_next_and_has_no_level(bench: Bench) -> None:
    bench.metrics.configure({"rl": "daytona"}, POLICIES)
    late = report([became("a", Outcome.DELETED, since=NOW), became("b", Outcome.FAILED, since=NOW)], seconds=1.0)
    bench.metrics.decided("local", late.decisions)
    bench.metrics.retrying("local", FailedAttempt("delete", 1, 4, ServerError("500"), 2.0))
    bench.metrics.finished(late)
    bench.metrics.ended(Report(started_at=NOW, seconds=1, dry_run=False, endpoints=(late,)), None, NOW)
    bench.metrics.events("local", connected=True)
    bench.metrics.events_lost("local")
    assert bench("reaper_deletions_total", outcome="deleted", **WHERE) == 1
    of_local = {name for name, labels in bench.values() if ("endpoint", "local") in labels}
    worth = {"reaper_avoided_cost_total", "reaper_avoided_seconds_total", "reaper_reclaimed_bytes_total"}
    assert of_local == {"reaper_deletions_total", "reaper_sweeps_total", *worth}
    bench.metrics.configure({"rl": "daytona"}, POLICIES)
    assert not any({("endpoint", "local"), ("provider", "docker")} & labels for _, labels in bench.values())


def test_the_last_success_is_taken_over_from_the_file_before(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("textfile") / "reaper.prom"
    bench.metrics.succeeded("old", "local", NOW)
    bench.metrics.write_textfile(file)
    metrics = Metrics()
    metrics.recall(file.with_name("no-such.prom"))
    metrics.configure({"local": "docker"}, {"old": POLICIES["old"]})
    metrics.recall(file)
    later = Bench()
    later.metrics = metrics
    assert later("reaper_last_success_timestamp_seconds", policy="old", **WHERE) == NOW.timestamp()
    for garbage in (b"\xff\xfe", b"reaper_last_success_timestamp_seconds{endpoint=", b"x 1 2 3 4\n", b""):
        file.write_bytes(garbage)
        metrics.recall(file)
    assert later("reaper_last_success_timestamp_seconds", policy="old", **WHERE) == NOW.timestamp()
    with pytest.raises(ConfigError, match="no-such-folder"):
        metrics.write_textfile(file.parent / "no-such-folder" / "reaper.prom")


def test_what_the_rules_are_for() -> None:
    assert reach(("a", "b"), (STOPPED, replace(OLD, endpoints=frozenset({"b"})))) == {
        "stopped": (STOPPED.kinds, ("a", "b")),
        "old": (OLD.kinds, ("b",)),
    }


INTERVALS = {"old": timedelta(minutes=30), "stopped": timedelta(minutes=10), "sandboxes": timedelta(hours=1)}


def test_a_policy_s_interval_is_reported_where_it_runs_on_a_schedule(bench: Bench) -> None:
    metrics, name = bench.metrics, "reaper_policy_interval_seconds"
    assert not any(name == metric for metric, _ in bench.values())
    metrics.configure(ENDPOINTS, POLICIES, intervals=INTERVALS)
    assert bench(name, policy="old", **WHERE) == 1800
    assert bench(name, policy="sandboxes", endpoint="rl") == 3600
    assert (bench(name, policy=OVERRIDE, **WHERE), bench(name, policy=OVERRIDE, endpoint="rl")) == (600, 600)
    # What never runs has none, and an alert that compares with it is silent.
    metrics.configure(ENDPOINTS, POLICIES, intervals={"old": timedelta(minutes=20)})
    assert (bench(name, policy="old"), bench(name, policy=OVERRIDE), bench(name, policy=LEASE)) == (1200, 1200, 1200)
    assert sum(name == metric for metric, _ in bench.values()) == 3
    metrics.configure({"rl": "daytona"}, {"sandboxes": POLICIES["sandboxes"]}, intervals=INTERVALS)
    assert {labels for metric, labels in bench.values() if metric == name} == {
        frozenset({("provider", "daytona"), ("endpoint", "rl"), ("policy", policy)})
        for policy in ("sandboxes", OVERRIDE, LEASE)
    }


def test_the_last_sweep_is_reported_however_it_ended(bench: Bench) -> None:
    def last(endpoint: str) -> tuple[float, float]:
        return (
            bench("reaper_last_sweep_timestamp_seconds", endpoint=endpoint),
            bench("reaper_last_sweep_duration_seconds", endpoint=endpoint),
        )

    for result in SweepResult:
        bench.pass_time(minutes=10)
        bench.metrics.swept("local", "docker", result, 7.0)
        assert last("local") == (bench.clock(), 7)
    assert last("rl") == (0, 0)
    bench.metrics.configure({"rl": "daytona"}, {})
    bench.metrics.swept("local", "docker", "success", 9.0)  # it ended after a reload had taken the endpoint away
    assert not any(
        metric.startswith("reaper_last_sweep") and ("endpoint", "local") in labels for metric, labels in bench.values()
    )


def test_the_process_tells_of_itself_where_it_is_asked_to(bench: Bench) -> None:
    assert not any(name.startswith("process_") for name, _ in bench.values())
    found = values(Metrics(process=True))
    assert total(found, "process_resident_memory_bytes") > 1e6
    assert total(found, "process_start_time_seconds") > 1.7e9


# -- what it was worth -------------------------------------------------------------------------------------------------


def test_what_deletions_are_worth_is_counted_by_policy(bench: Bench) -> None:
    prices = Prices("USD", Rates(container=0.5))
    bench.metrics.configure(ENDPOINTS, POLICIES, prices=prices)
    saved = replace(became("a", Outcome.DELETED), freed=7)
    saved = replace(saved, decision=replace(saved.decision, saving=Saving(timedelta(hours=4))))
    ran = replace(saved, decision=replace(saved.decision, resource=replace(saved.decision.resource, state=State.RUNNING)))
    failed = replace(ran, outcome=Outcome.FAILED, freed=None)
    bench.metrics.finished(report([saved, ran, failed, became("b", Outcome.GONE)]))
    assert bench("reaper_reclaimed_bytes_total", **WHERE, policy="stopped") == 14
    assert bench("reaper_avoided_seconds_total", **WHERE, policy="stopped") == 8 * 3600
    assert bench("reaper_avoided_cost_total", **WHERE, policy="stopped") == 2
    assert bench("reaper_violations_total") == 0


def test_what_was_touched_against_the_rules_is_counted(bench: Bench) -> None:
    good = became("a", Outcome.DELETED)
    assert good.look is not None
    seen = replace(good.look, differs="was started again")
    bench.metrics.finished(report([good, replace(good, look=seen), replace(good, outcome=Outcome.SKIPPED, look=None)]))
    assert bench("reaper_violations_total", **WHERE, policy="stopped") == 1
    assert bench("reaper_violations_total") == 1


def test_a_dry_run_is_worth_nothing() -> None:
    bench = Bench(dry_run=True)
    bench.metrics.finished(report([replace(became("a", Outcome.DELETED), freed=7)]))
    assert bench("reaper_reclaimed_bytes_total") == 0


def test_a_disk_is_exported_where_it_is_measured_and_nowhere_else(bench: Bench) -> None:
    assert not [name for name, _ in bench.values() if name.startswith("reaper_disk")]
    rooms = {"bytes": Room(90, 10), "inodes": Room(1, 3)}
    bench.metrics.disk("local", DiskUsage("/d", rooms), pressed=True, unrelieved=False)
    bench.metrics.disk("gone", DiskUsage("/d", rooms), pressed=True, unrelieved=True)
    assert bench("reaper_disk_used_ratio", **WHERE, resource="bytes") == 0.9
    assert bench("reaper_disk_used_ratio", **WHERE, resource="inodes") == 0.25
    levels = [bench(f"reaper_disk_{name}", endpoint="local") for name in ("pressure", "unrelieved", "unknown")]
    assert levels == [1, 0, 0]
    bench.metrics.disk("local", DiskUsage(problem="no such path"), pressed=False, unrelieved=False)
    assert bench("reaper_disk_unknown") == 1
    bench.metrics.configure(ENDPOINTS, POLICIES)
    assert not [name for name, _ in bench.values() if name.startswith("reaper_disk")]


def test_what_is_stopped_or_archived_has_a_counter_of_its_own_from_the_start() -> None:
    policy = replace(OLD, action=Action.STOP)
    metrics = Metrics(clock=NOW.timestamp)
    metrics.configure({"local": "docker"}, reach(("local",), (policy,)), actions=actions((policy,)))
    labels = {"provider": "docker", "endpoint": "local", "kind": "container", "policy": "old", "action": "stop"}

    def value(outcome: str) -> float | None:
        return metrics.registry.get_sample_value("reaper_actions_total", {**labels, "outcome": outcome})

    assert value("stopped") == 0
    done = became("c1", Outcome.STOPPED, "old")
    metrics.finished(report([replace(done, decision=replace(done.decision, action=Action.STOP))]))
    assert value("stopped") == 1
    deletions = {**labels, "outcome": "stopped"}
    del deletions["action"]
    assert metrics.registry.get_sample_value("reaper_deletions_total", deletions) == 0
