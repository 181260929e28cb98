"""Metrics that watch real sweeps say what the reports say."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaper.core.model import Outcome, Reason, Report
from reaper.errors import DeniedError, ProviderError, ServerError, UnavailableError
from reaper.observers.metrics import Metrics
from reaper.providers.memory import Rule
from tests.metrics.lab import total, values, watched
from tests.sweep.lab import FOREIGN, NOW, Lab, elapse, running, stopped

ERRORS: tuple[ProviderError, ...] = (ServerError("500"), UnavailableError("reset"), DeniedError("403"))
RULES = st.builds(
    Rule,
    st.sampled_from(("list", "inspect", "members", "delete", "stop")),
    st.sampled_from((None, "c0", "c1", "c2")),
    st.sampled_from((None, {1}, {2}, range(1, 7))),
    st.sampled_from(ERRORS),
)


def _swept(lab: Lab, **options: object) -> tuple[Report, Metrics, int]:
    """The report, metrics that watched, and how much is left."""
    metrics = Metrics(clock=NOW.timestamp, dry_run=not options.get("act", True))
    watched(lab, metrics)

    async def main() -> tuple[Report, int]:
        return await lab.sweep(**options), len(lab.world.held())

    report, left = elapse(main)
    metrics.ended(report, None, NOW)
    return report, metrics, left


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from((stopped, running)), max_size=4),
    st.lists(RULES, max_size=3),
    st.sampled_from((None, 2)),
)
def test_the_sum_of_the_counters_is_the_results(makes: list[object], faults: list[Rule], cap: int | None) -> None:
    things = [make(f"c{i}") for i, make in enumerate(makes) if callable(make)]
    lab = Lab(*things, stopped("foreign", image=FOREIGN))
    lab.world.rules.extend(faults)
    report, metrics, left = _swept(lab, max_deletions=cap)
    now = values(metrics)
    assert total(now, "reaper_deletions_total") == len(report.results)
    for outcome, number in Counter(result.outcome for result in report.results).items():
        assert total(now, "reaper_deletions_total", outcome=outcome.value) == number
    assert total(now, "reaper_deletion_duration_seconds_count") == report.count(Outcome.DELETED)
    assert total(now, "reaper_reap_delay_seconds_count") == report.count(Outcome.DELETED)
    assert total(now, "reaper_sweeps_total") == total(now, "reaper_sweep_duration_seconds_count") == 1
    assert total(now, "reaper_cap_hits_total") == (report.endpoints[0].cap is not None)
    if report.endpoints[0].failure is None:
        assert total(now, "reaper_endpoint_up") == 1
        assert total(now, "reaper_resources") == left


def test_every_failed_attempt_is_a_retry() -> None:
    lab = Lab(stopped("c0"))
    lab.world.rules.append(Rule("delete", calls={1, 2}, error=ServerError("500")))
    report, metrics, _ = _swept(lab)
    assert report.count(Outcome.DELETED) == 1
    assert total(values(metrics), "reaper_retries_total", error="server_error") == 2


def test_what_waits_for_its_policy_s_turn_leaks_since_it_became_reapable() -> None:
    lab = Lab(running("c0", hours=48), stopped("c1", hours=8))
    report, metrics, _ = _swept(lab, due=frozenset({"stopped"}))
    assert [d.reason for d in report.endpoints[0].decisions if not d.reap] == [Reason.NOT_DUE]
    now = values(metrics)
    assert total(now, "reaper_reapable_resources", policy="old") == total(now, "reaper_reapable_resources") == 1
    assert total(now, "reaper_oldest_reapable_seconds", policy="old") == pytest.approx(24 * 3600, abs=60)


def test_a_dry_run_of_a_sweep_counts_nothing() -> None:
    report, metrics, _ = _swept(Lab(stopped("c0"), running("c1")), act=False)
    assert report.count(Outcome.WOULD_DELETE) == 2
    now = values(metrics)
    assert {value for (name, _), value in now.items() if name.endswith(("_total", "_count", "_sum", "_bucket"))} == {0}
    assert total(now, "reaper_reapable_resources") == 2
