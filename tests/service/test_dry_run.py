"""``[service] dry_run``: the whole service, which deletes nothing, and what it says meanwhile."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from reaper.observers.journal import NAME
from reaper.service.page import render
from reaper.service.page.verdict import Level, verdict
from tests.program.conftest import fake
from tests.program.fakeengine import FakeEngine
from tests.run import Program
from tests.service.daemon import QUICK, Daemon, acts
from tests.web import world

__all__ = ["fake"]  # a fixture

DRY = "dry_run = true"
CRITICAL = ("reaper_oldest_reapable_seconds", "reaper_cap_hits_total", "reaper_disk_unrelieved", "reaper_leases_unknown")


@pytest.fixture
def program(fake: FakeEngine, tmp_path: Path) -> Program:
    """With the stand-in as its only endpoint, on which two are reapable, one of which runs."""
    fake.add("stopped", ago="2d")
    fake.add("running", "running", ago="2d")
    fake.add("foreign", ago="2d", owned=False)
    return Program(tmp_path, {"DOCKER_HOST": fake.host})


def _sweeps(program: Program) -> int:
    with closing(sqlite3.connect(f"file:{program.folder / NAME}?mode=ro", uri=True)) as journal:
        (count,) = journal.execute("SELECT count(*) FROM sweep WHERE ended_at IS NOT NULL").fetchone()
    return int(count)


def test_it_sweeps_and_says_what_it_would_delete_and_asks_for_no_change(program: Program, fake: FakeEngine) -> None:
    with Daemon(program, service=DRY).start() as daemon:
        assert daemon.wait("service_started")["dry_run"] is True
        daemon.wait("sweep_finished", times=3)
        assert daemon.metric("reaper_dry_run") == 1
        assert daemon.metric("reaper_would_delete_resources", policy="quick") == 2
        assert daemon.metric("reaper_deletions_total") == 0
        assert daemon.metric("reaper_sweeps_total", result="success") >= 3
        assert daemon.metric("reaper_last_success_timestamp_seconds", policy="quick") > 0
        assert [daemon.metric(name) for name in CRITICAL] == [0] * len(CRITICAL)
        page = daemon.get("/")[1]
        assert "This is a dry run." in page
        assert "A dry run: 2 resources would be deleted" in page
        assert 'class="banner bad"' not in page
        assert 'class="verdict bad"' not in page
        assert daemon.get("/readyz")[0] == 200
        assert daemon.stop() == 0
    assert fake.changes() == []
    assert fake.names() == {"stopped", "running", "foreign"}
    assert acts(program) == []
    assert _sweeps(program) >= 3


def test_it_remembers_what_it_has_seen_as_if_it_deleted(program: Program) -> None:
    """Since when something is unused, or its owner dead: nothing that goes by that would be named else."""
    with Daemon(program, service=DRY).start() as daemon:
        daemon.wait("sweep_finished")
        assert daemon.stop() == 0
    assert list(program.folder.glob("clock-*.json"))


def test_a_cap_that_would_be_hit_is_no_alert(program: Program, fake: FakeEngine) -> None:
    with Daemon(program, f"{QUICK}[limits]\nmax_deletions = 1\n", DRY).start() as daemon:
        daemon.wait("sweep_finished", times=2)
        assert daemon.metric("reaper_cap_hits_total") == 0
        headline = "A dry run: the deletion cap would hold the sweeps back on local"
        daemon.until(lambda: headline in daemon.get("/")[1], "headline")
        assert 'class="verdict bad"' not in daemon.get("/")[1]
        assert daemon.stop() == 0
    assert fake.changes() == []


def test_a_reload_ends_the_dry_run_and_another_begins_it_again(program: Program, fake: FakeEngine) -> None:
    with Daemon(program, service=DRY).start() as daemon:
        daemon.wait("sweep_finished")
        assert fake.changes() == []
        daemon.configure(QUICK)
        daemon.signal(signal.SIGHUP)
        daemon.wait("reloaded")
        daemon.until(lambda: fake.names() == {"foreign"}, "deletion")
        assert daemon.metric("reaper_dry_run") == 0
        daemon.configure(QUICK, DRY)
        daemon.signal(signal.SIGHUP)
        daemon.wait("reloaded", times=2)
        made = len(fake.changes())
        with fake.lock:
            fake.add("later", ago="2d")
        daemon.until(lambda: daemon.metric("reaper_would_delete_resources", policy="quick") == 1, "a look")
        assert len(fake.changes()) == made
        assert daemon.stop() == 0
    assert {row["name"] for row in acts(program, outcome="deleted")} == {"stopped", "running"}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("lost", ["gone", "emptied"])
def test_a_reload_whose_file_is_lost_does_not_turn_into_the_defaults(
    program: Program, fake: FakeEngine, lost: str, *, named: bool
) -> None:
    with Daemon(program, service=DRY, named=named).start() as daemon:
        daemon.wait("sweep_finished")
        text = daemon.file.read_text()
        if lost == "gone":
            daemon.file.unlink()
        else:
            daemon.file.write_text("\n")
        daemon.signal(signal.SIGHUP)
        assert daemon.file.name in daemon.wait("reload_refused")["problem"]
        daemon.wait("sweep_finished", times=len(list(daemon.events("sweep_finished"))) + 2)
        assert daemon.metric("reaper_dry_run") == 1
        daemon.file.write_text(text)
        daemon.signal(signal.SIGHUP)
        daemon.wait("reloaded")
        assert daemon.stop() == 0
    assert fake.changes() == []


def test_the_page_of_a_dry_run_has_no_red_on_it() -> None:
    status = world.healthy()
    status.dry_run = True
    endpoint = status.endpoints["local"]
    endpoint.cap, endpoint.reapable = "3000 would have gone, max_deletions = 1000", 3000
    assert verdict(status, world.NOW).level is Level.WARN
    page = render(status, world.NOW)
    assert 'class="verdict bad"' not in page
    assert 'class="banner bad"' not in page
    endpoint.cap = None
    assert verdict(status, world.NOW).headline == "A dry run: 3,000 resources would be deleted"
    status.dry_run = False
    assert "reapable" in verdict(status, world.NOW).headline
