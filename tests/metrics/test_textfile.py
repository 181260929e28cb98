"""``--metrics-textfile``: what a one-shot run leaves for node_exporter."""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_IMODE

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reaper import cli
from reaper.core.model import Outcome
from tests.daytona.server import Served
from tests.metrics.lab import Bench, Values, became, report, total
from tests.program.fakeengine import FakeEngine
from tests.program.wrapped import imported, started
from tests.run import Program


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Where the metrics go: to a folder in which nothing else may be left."""
    folder = tmp_path / "textfile"
    folder.mkdir()
    yield folder / "reaper.prom"
    assert [path.name for path in folder.iterdir() if path.suffix != ".prom"] == []


def read(file: Path) -> Values:
    families = text_string_to_metric_families(file.read_text())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def test_a_sweep_leaves_its_metrics(run: Program, fake: FakeEngine, file: Path, promtool: Callable[[bytes], str]) -> None:
    fake.add("chess-1")
    fake.add("chess-2")
    fake.add("neighbour", owned=False)
    ended = run("--once", "--metrics-textfile", str(file))
    assert ended.code == 0, ended.err
    now = read(file)
    assert total(now, "reaper_deletions_total", endpoint="local", policy="stopped-containers", outcome="deleted") == 2
    assert total(now, "reaper_deletions_total") == 2
    assert total(now, "reaper_sweeps_total", result="success") == total(now, "reaper_endpoint_up") == 1
    assert total(now, "reaper_kept_resources", reason="not_owned") == total(now, "reaper_resources") == 1
    assert total(now, "reaper_circuit_breaker_open") == total(now, "reaper_reapable_resources") == 0
    assert total(now, "reaper_last_success_timestamp_seconds", policy="old-containers") > 1.7e9
    assert total(now, "reaper_last_sweep_timestamp_seconds") > 1.7e9
    # Who runs it, and how often, is unknown; and the process is gone when this is read.
    assert not any(name.startswith(("reaper_policy_interval", "process_")) for name, _ in now)
    assert promtool(file.read_bytes()) == ""
    assert S_IMODE(file.stat().st_mode) & 0o444 == 0o444  # node_exporter is another user


def test_sandboxes_of_a_simulated_organisation(served: Served, file: Path) -> None:
    served.believable()
    ended = served.program()("--once", "--only", "daytona", "--metrics-textfile", str(file))
    assert ended.code == 0, ended.err
    now = read(file)
    assert total(now, "reaper_deletions_total", provider="daytona", kind="sandbox", outcome="deleted") == 3
    assert total(now, "reaper_deletions_total", policy="stopped-sandboxes", outcome="deleted") == 1
    assert total(now, "reaper_deletion_duration_seconds_count", provider="daytona") == 3
    assert not any(("provider", "docker") in labels for _, labels in now)


def test_a_sweep_that_fails_leaves_them_as_well_and_the_last_success_stays(
    run: Program, fake: FakeEngine, file: Path
) -> None:
    assert run("--once", "--metrics-textfile", str(file)).code == 0
    before = total(read(file), "reaper_last_success_timestamp_seconds", policy="old-containers")
    fake.__exit__(None, None, None)
    ended = run("--once", "--metrics-textfile", str(file))
    assert ended.code == 5
    now = read(file)
    assert total(now, "reaper_endpoint_up", endpoint="local") == 0
    assert total(now, "reaper_sweeps_total", result="unlisted") == 1
    assert total(now, "reaper_last_success_timestamp_seconds", policy="old-containers") == before > 0
    fake.__enter__()


def test_the_cap_and_a_dry_run(run: Program, fake: FakeEngine, file: Path) -> None:
    fake.add("chess-1")
    assert run("--once", "--max-deletions", "0", "--metrics-textfile", str(file)).code == 4
    assert total(read(file), "reaper_cap_hits_total") == total(read(file), "reaper_reapable_resources") == 1
    assert run("--once", "--dry-run", "--metrics-textfile", str(file)).code == 0
    assert total(read(file), "reaper_cap_hits_total") == total(read(file), "reaper_sweeps_total") == 0
    assert total(read(file), "reaper_reapable_resources") == 1
    assert fake.changes() == []


def test_an_interrupted_sweep_leaves_them_too(served: Served, file: Path) -> None:
    for i in range(100):
        served.add(f"leftover-{i}")
    served.sim.faults.add("latency:100ms,method=DELETE")
    run = served.program()
    arguments = ("--once", "--only", "daytona", "--json", "--metrics-textfile", str(file))
    with served.first_deletion() as seen, started(run, *arguments) as process:
        assert seen.wait(60)
        process.send_signal(signal.SIGTERM)
        ended = run.finish(process)
    assert ended.code == 143
    now = read(file)
    assert total(now, "reaper_sweeps_total", result="interrupted") == 1
    for outcome in ("deleted", "abandoned"):
        number = list(ended.outcomes().values()).count(outcome)
        assert total(now, "reaper_deletions_total", outcome=outcome) == number > 0


BAD = {
    "another name": ("reaper.txt", ("node_exporter would not read", ".prom")),
    "no name": (".prom", ("node_exporter would not read", ".prom")),
    "no folder": ("no-such-folder/reaper.prom", ("there is no folder", "no-such-folder", "make it first")),
    "a folder": ("folder.prom", ("is a folder", "name a file in it")),
}


@pytest.mark.parametrize(("name", "says"), BAD.values(), ids=BAD.keys())
def test_a_file_that_cannot_be_written_is_reported_before_anything_is_deleted(
    run: Program, fake: FakeEngine, tmp_path: Path, name: str, says: tuple[str, ...]
) -> None:
    fake.add("chess-1")
    (tmp_path / "folder.prom").mkdir()
    ended = run("--once", "--metrics-textfile", name)
    assert (ended.code, ended.out, fake.calls) == (2, "", [])
    assert ended.err.startswith("reaper: --metrics-textfile: ")
    assert len(ended.err.splitlines()) == 2
    for part in (name, *says):
        assert part in ended.err


def test_a_folder_without_permission(
    fake: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", fake.host)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write wherever it likes
    assert cli.main(["--once", "--metrics-textfile", str(tmp_path / "reaper.prom")]) == 2
    assert "no permission on" in capsys.readouterr().err
    assert fake.calls == []


def test_it_goes_with_once_only(run: Program) -> None:
    ended = run("--metrics-textfile", "x.prom")
    assert (ended.code, "--metrics-textfile needs --once" in ended.err) == (2, True)
    ended = run("--metrics-textfile", "x.prom", "check")
    assert (ended.code, "--metrics-textfile does not go with check" in ended.err) == (2, True)


def test_only_who_wants_metrics_pays_for_them(run: Program, fake: FakeEngine, file: Path) -> None:
    assert not {"prometheus_client", "reaper.observers.metrics"} & imported(run, "--once")
    assert {"prometheus_client", "reaper.observers.metrics"} <= imported(run, "--once", "--metrics-textfile", str(file))


def test_no_reader_ever_sees_a_part(bench: Bench, file: Path) -> None:
    bench.metrics.write_textfile(file)
    size, done, seen = len(bench.values()), threading.Event(), set()

    def scrape() -> None:
        while not done.is_set():
            text = file.read_text()
            seen.add((sum(not line.startswith("#") for line in text.splitlines()), text.endswith("\n")))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        for _ in range(100):
            bench.metrics.finished(report([became("a", Outcome.DELETED)]))
            bench.metrics.write_textfile(file)
    finally:
        done.set()
        thread.join()
    assert seen == {(size, True)}
