"""A real Prometheus scrapes the service: what it stores is what the journal says."""

import json
import subprocess
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devkit.engine import PrivateEngine
from devkit.ports import free_port
from reaper.instruments import NOBODY, WISH
from tests import needs
from tests.daytona.lab import HARBOR
from tests.daytona.server import Served
from tests.engine.lab import OWNED, containers, exited, in_parallel
from tests.service.daemon import LIMIT, QUICK, Daemon, acts

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
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: reaper
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
LABELS = ("endpoint", "kind", "policy", "outcome")


@pytest.fixture
def prometheus(tmp_path: Path) -> Callable[[int], Any]:
    """Starts one that scrapes a port, and gives what answers its queries."""
    path = needs.tool("prometheus", "prometheus")

    @contextmanager
    def scraping(port: int) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
        own, config, log = free_port(), tmp_path / "prometheus.yml", tmp_path / "prometheus.log"
        config.write_text(CONFIG.format(port=port))
        command = [path, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, f"--web.listen-address=127.0.0.1:{own}"], stdout=output, stderr=subprocess.STDOUT
            )

        def query(expression: str) -> list[dict[str, Any]]:
            assert process.poll() is None, log.read_text()
            url = f"http://127.0.0.1:{own}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
            try:
                with urllib.request.urlopen(url, timeout=LIMIT) as answer:
                    found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                    return found
            except OSError:
                return []  # it is still starting

        try:
            yield query
        finally:
            process.kill()
            process.wait(LIMIT)

    return scraping


def test_the_counters_that_it_stores_equal_what_the_journal_says(
    engine: PrivateEngine, tmp_path: Path, prometheus: Callable[[int], Any]
) -> None:
    in_parallel(lambda number: exited(engine, f"exited-{number}"), 6)
    exited(engine, "kept", {**OWNED, "reaper.keep": ""})
    with Served(tmp_path) as served:
        for number in range(5):
            served.add(f"s{number}")
        served.add("wish", labels={**HARBOR, "reaper.ttl": "1h"})
        broken = served.add("broken")
        served.sim.faults.add("status:400,method=DELETE,resource=" + broken)
        program = served.program(DOCKER_HOST=engine.host)
        with Daemon(program, POLICIES).start() as daemon, prometheus(daemon.port) as query:

            def stored() -> Counter[tuple[str, ...]]:
                rows = [(row["metric"], int(row["value"][1])) for row in query("reaper_deletions_total")]
                return Counter({tuple(metric[label] for label in LABELS): number for metric, number in rows if number})

            daemon.until(lambda: containers(engine) == {"kept"} and served.left() == {"broken"}, "deletions")
            in_parallel(lambda number: exited(engine, f"later-{number}"), 4)
            served.add("later")
            daemon.until(lambda: containers(engine) == {"kept"} and served.left() == {"broken"}, "more deletions")
            daemon.until(lambda: sum(stored().values()) > 18, "scraped counters")  # 17 have gone, and two have failed
            served.sim.faults.clear()
            daemon.until(lambda: not served.left(), "last deletion")
            # Each sweep may count: from here on there is nothing to be deleted any more.
            swept = len(list(daemon.events("sweep_finished", endpoint="default")))
            daemon.wait("sweep_finished", endpoint="default", times=swept + 2)
            rows = acts(program)
            told = Counter((r["endpoint"], r["kind"], _policy(r), r["outcome"]) for r in rows)
            assert {outcome for *_, outcome in told} >= {"deleted", "failed"}
            assert {policy for _, _, policy, _ in told} == {"quick", "stopped", WISH}
            assert sum(number for (*_, outcome), number in told.items() if outcome == "deleted") == 18
            daemon.until(lambda: stored() == told, f"counters like {told}; there are {stored()}")
            assert [row["value"][1] for row in query("up")] == ["1"]
            assert query("absent(reaper_endpoint_up == 1)") == []
            assert daemon.stop() == 0


def _policy(row: dict[str, Any]) -> str:
    found: str | None = row["policy"]
    return found or (WISH if row["reason"] in ("ttl_ended", "expired") else NOBODY)
