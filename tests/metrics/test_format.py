"""What scrapers get: names, labels, formats, and the table that documents them."""

import math
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from reaper.core.model import CapHit, EndpointFailure, Outcome
from reaper.observers.metrics import Metrics
from tests.metrics.lab import ENDPOINTS, POLICIES, Bench, became, report, table
from tests.sweep.lab import NOW

PROMETHEUS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5"
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def _busy(bench: Bench) -> Bench:
    """Everything that can happen has happened."""
    metrics = bench.metrics
    metrics.configure(ENDPOINTS, POLICIES, ["local"], dict.fromkeys(POLICIES, timedelta(minutes=10)))
    metrics.finished(report([became(f"c{i}", outcome, since=NOW) for i, outcome in enumerate(Outcome)], seconds=3.0))
    metrics.finished(report(endpoint="rl", failure=EndpointFailure("timeout", "no answer"), cap=CapHit(9, 1, 9, "max")))
    metrics.swept("local", "docker", "success", 3.0)
    metrics.succeeded("stopped", "local", NOW)
    metrics.events("local", connected=True)
    metrics.events_lost("local")
    metrics.reloaded(ok=False, at=NOW)
    metrics.journal_failed()
    return bench


def test_promtool_finds_nothing(bench: Bench, promtool: Callable[[bytes], str]) -> None:
    assert promtool(Metrics().render("")[0]) == ""
    assert promtool(bench.metrics.render("")[0]) == ""
    assert promtool(_busy(bench).metrics.render("")[0]) == ""


def test_promtool_would_find_something(promtool: Callable[[bytes], str]) -> None:
    assert "counter metrics should have" in promtool(b"# HELP x y\n# TYPE x counter\nx 1\n")


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("text/plain;version=0.0.4", False),
        ("*/*", False),
        ("", False),
        ("application/openmetrics-text;version=latest", False),
        (";;,=,text/plain;version=", False),
    ],
)
def test_the_format_is_the_one_that_was_asked_for(bench: Bench, accept: str, openmetrics: bool) -> None:
    body, content_type = _busy(bench).metrics.render(accept)
    assert content_type.startswith(
        "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version=0.0.4"
    )
    assert body.endswith(b"# EOF\n") is openmetrics


def test_both_formats_say_the_same_and_nothing_about_creation(bench: Bench) -> None:
    _busy(bench)
    body, _ = bench.metrics.render(PROMETHEUS)
    samples = [sample for family in read_openmetrics(body.decode()) for sample in family.samples]  # type: ignore[no-untyped-call]  # it has no types
    assert {(s.name, frozenset(s.labels.items())) for s in samples} == set(bench.values())
    assert not any(s.name.endswith("_created") for s in samples)


def test_the_switch_of_the_whole_process_is_left_alone(bench: Bench) -> None:
    registry = CollectorRegistry()
    Counter("others", "of another library in this process", registry=registry).inc()
    bench.metrics.render("")
    assert any(s.name == "others_created" for metric in registry.collect() for s in metric.samples)


def test_nothing_is_registered_globally(bench: Bench) -> None:
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith("reaper")]
    Metrics()  # and two of them do not clash
    own = CollectorRegistry()
    assert Metrics(own).registry is own


def test_every_metric_in_seconds_has_that_unit_and_every_row_of_the_table_has_one(bench: Bench) -> None:
    families = [family for collector in bench.metrics.registry._collector_to_names for family in collector.collect()]
    measured = {family.name: family.unit for family in families if family.name.endswith(("_seconds", "_bytes"))}
    assert {family.name: family.unit for family in families if family.unit} == measured
    rows = re.findall(r"^\| `(reaper_\w+)` \| \w+ \| ([\w ]*) \|", DOCUMENT.read_text(), re.MULTILINE)
    for ends in ("seconds", "bytes"):
        assert {unit for name, unit in rows if name.removesuffix("_total").endswith(f"_{ends}")} == {ends}
    others = {unit for name, unit in rows if not name.removesuffix("_total").endswith(("_seconds", "_bytes", "_info"))}
    assert others == {"count", "0 or 1"}


def test_the_table_and_the_code_agree(bench: Bench) -> None:
    _busy(bench)
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for collector in bench.metrics.registry._collector_to_names:
        (family,) = collector.collect()
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = tuple(family.samples[0].labels) if family.type == "info" else getattr(collector, "_labelnames", ())
        found[family.name + suffix] = (family.type, labels)
    assert found == table(DOCUMENT.read_text())


def test_names_follow_the_conventions(bench: Bench) -> None:
    for name, (kind, labels) in table(DOCUMENT.read_text()).items():
        assert name.endswith("_total") is (kind == "counter")
        assert not {"id", "name"} & set(labels)
        if kind == "histogram":
            assert labels == ("provider",)
            assert name.endswith("_seconds")


def test_a_series_never_has_other_labels_than_its_table_row(bench: Bench) -> None:
    rows = table(DOCUMENT.read_text())
    before = bench.values()
    for name, labels in before.keys() | _busy(bench).values().keys():
        family = name if name in rows else name.rpartition("_")[0]
        assert {key for key, _ in labels} - {"le"} == set(rows[family][1])


def test_rendering_while_the_loop_goes_on_counting_gives_whole_texts(bench: Bench) -> None:
    done, failed = threading.Event(), []

    def scrape() -> None:
        try:
            while not done.is_set():
                assert bench.metrics.render(PROMETHEUS)[0].endswith(b"# EOF\n")
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        for i in range(60):
            endpoints = {**ENDPOINTS, f"e{i % 3}": "docker"}
            bench.metrics.configure(endpoints, {**POLICIES, f"p{i % 2}": (POLICIES["old"][0], tuple(endpoints))})
            bench.metrics.finished(report([became("a", Outcome.DELETED, since=NOW)]))
    finally:
        done.set()
        thread.join()
    assert failed == []
    assert bench("reaper_deletions_total", outcome="deleted") == 60


def test_the_text_says_what_is_collected(bench: Bench) -> None:
    families = read_text(_busy(bench).metrics.render("")[0].decode())
    said = [(s.name, frozenset(s.labels.items()), s.value) for family in families for s in family.samples]
    assert len(said) == len(bench.values())
    assert {(name, labels): value for name, labels, value in said if not math.isnan(value)} == {
        key: value for key, value in bench.values().items() if not math.isnan(value)
    }


def test_what_is_served_and_what_is_written_is_the_same(bench: Bench, tmp_path: Path) -> None:
    _busy(bench).metrics.write_textfile(file := tmp_path / "reaper.prom")
    assert file.read_bytes() == bench.metrics.render("")[0]
    assert [path.name for path in tmp_path.iterdir()] == ["reaper.prom"]
