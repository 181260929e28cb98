"""A real Prometheus scrapes the service: what it stores is what the journal says."""

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from devkit.engine import PrivateEngine
from devkit.prometheus import Prometheus
from reaper.core.savings import OVERRIDE
from reaper.observers.instruments import UNDECIDED
from tests import needs
from tests.daytona.lab import HARBOR
from tests.daytona.server import Served
from tests.engine.lab import OWNED, containers, exited, in_parallel
from tests.service.daemon import QUICK, Daemon, acts

pytestmark = pytest.mark.engine

POLICIES = (
    QUICK.replace('["container", "sandbox"]', '["sandbox"]')
    + """
[[policy]]
name = "stopped"
kinds = ["container"]
stopped_for = "1s"
every = "2s"
"""
)
LABELS = ("endpoint", "kind", "policy", "outcome")


def test_the_counters_that_it_stores_equal_what_the_journal_says(engine: PrivateEngine, tmp_path: Path) -> None:
    needs.tool("prometheus", "prometheus")
    in_parallel(lambda number: exited(engine, f"exited-{number}"), 6)
    exited(engine, "kept", {**OWNED, "reaper.keep": ""})
    with Served(tmp_path) as served:
        for number in range(5):
            served.add(f"s{number}")
        served.add("label override", labels={**HARBOR, "reaper.ttl": "1h"})
        broken = served.add("broken")
        served.sim.faults.add("status:400,method=DELETE,resource=" + broken)
        program = served.program(DOCKER_HOST=engine.host)
        with (
            Daemon(program, POLICIES).start() as daemon,
            Prometheus.scraping(tmp_path, daemon.port) as prometheus,
        ):

            def stored() -> Counter[tuple[str, ...]]:
                rows = [(row["metric"], int(row["value"][1])) for row in prometheus.now("reaper_deletions_total")]
                return Counter({tuple(metric[label] for label in LABELS): number for metric, number in rows if number})

            daemon.until(lambda: containers(engine) == {"kept"} and served.left() == {"broken"}, "deletions")
            in_parallel(lambda number: exited(engine, f"later-{number}"), 4)
            served.add("later")
            daemon.until(lambda: containers(engine) == {"kept"} and served.left() == {"broken"}, "more deletions")
            daemon.until(lambda: sum(stored().values()) > 18, "scraped counters")  # 17 have gone, and two have failed
            served.sim.faults.clear()
            daemon.signal(signal.SIGUSR1)  # which ends the rest of what could not be deleted
            daemon.until(lambda: not served.left(), "last deletion")
            # Each sweep may count: from here on there is nothing to be deleted any more.
            swept = len(list(daemon.events("sweep_finished", endpoint="default")))
            daemon.wait("sweep_finished", endpoint="default", times=swept + 2)
            rows = acts(program)
            told = Counter((r["endpoint"], r["kind"], _policy(r), r["outcome"]) for r in rows)
            assert {outcome for *_, outcome in told} >= {"deleted", "failed"}
            assert {policy for _, _, policy, _ in told} == {"quick", "stopped", OVERRIDE}
            assert sum(number for (*_, outcome), number in told.items() if outcome == "deleted") == 18
            daemon.until(lambda: stored() == told, f"counters like {told}; there are {stored()}")
            assert [row["value"][1] for row in prometheus.now("up")] == ["1"]
            assert prometheus.now("absent(reaper_endpoint_up == 1)") == []
            assert daemon.stop() == 0


def _policy(row: dict[str, Any]) -> str:
    found: str | None = row["policy"]
    return found or (OVERRIDE if row["reason"] in ("ttl_ended", "expired") else UNDECIDED)
