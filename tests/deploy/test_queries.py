"""Every query of the dashboards and the alerts is asked of a real Prometheus that has scraped a real, troubled service."""

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devkit.prometheus import Prometheus
from tests import needs
from tests.daytona.lab import HARBOR
from tests.daytona.server import Served
from tests.deploy.files import ALERTS, DASHBOARDS, queries, rules, selectors_in, variables
from tests.service.daemon import QUICK, Daemon
from tests.simulator.docker_world import World

pytestmark = pytest.mark.xdist_group("scraped")  # one service for all of them

OWNED = {"terminal-bench": "yes"}
TABLES = """
[[docker]]
name = "local"
host = "{host}"
[[docker]]
name = "gone"
host = "tcp://127.0.0.1:9"
[[daytona]]
name = "default"
"""
BATCHES = 4  # so that every rate has something to count
ONCE = {"ReaperOnceFailed", "ReaperOnceSilent"}


@dataclass(frozen=True)
class Scraped:
    """What Prometheus has, from when to when."""

    prometheus: Prometheus
    start: float
    end: float

    def points(self, expression: str, *, instant: bool) -> int:
        """How many values a query brings that are numbers."""
        if instant:
            return sum(_number(row["value"][1]) for row in self.prometheus.now(expression, self.end))
        rows = self.prometheus.over(expression, self.start, self.end, 1)
        return sum(_number(value) for row in rows for _, value in row["values"])


def _number(text: str) -> bool:
    return not math.isnan(float(text))


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """A service with an engine, an organisation that refuses and fails, and an engine that is not there."""
    needs.tool("prometheus", "prometheus")
    folder = tmp_path_factory.mktemp("scraped")
    with World() as world, Served(folder) as served:
        world.add("kept", labels={**OWNED, "reaper.keep": ""})
        served.add("kept", labels={**HARBOR, "reaper.keep": ""})
        for fault in ("status:403,method=DELETE,resource=denied-*", "status:503,method=DELETE,every=3"):
            served.sim.faults.add(fault)
        program = served.program()
        rest = TABLES.format(host=world.host) + QUICK
        with (
            Daemon(program, rest).start() as daemon,
            Prometheus.scraping(folder, daemon.port, ALERTS) as prometheus,
        ):
            daemon.wait("sweep_finished", endpoint="gone", result="unlisted")
            start = time.time()
            for batch in range(BATCHES):
                before = sum(
                    float(row["value"][1]) for row in prometheus.now('sum(reaper_deletions_total{outcome="deleted"})')
                )
                for number in range(3):
                    world.add(f"c-{batch}-{number}", labels=OWNED)
                    served.add(f"s-{batch}-{number}")
                served.add(f"refused-{batch}", id=f"denied-{batch}", auto_delete=-1)
                daemon.until(
                    lambda before=before: any(  # type: ignore[misc]
                        float(row["value"][1]) >= before + 6
                        for row in prometheus.now('sum(reaper_deletions_total{outcome="deleted"})')
                    ),
                    "scraped deletions",
                )
            daemon.until(
                lambda: prometheus.now('ALERTS{alertstate="firing", alertname="ReaperDeletionsDenied"}'), "an alert"
            )
            yield Scraped(prometheus, start, time.time())
            assert daemon.stop() == 0


def _with(expression: str, endpoint: str, provider: str, policy: str = ".*") -> str:
    chosen = {"endpoint": endpoint, "provider": provider, "policy": policy, "__rate_interval": "5s", "__range": "5m"}
    return re.sub(r"\$(\w+)", lambda match: chosen[match[1]], expression)


def _queries() -> Iterator[Any]:
    for path in DASHBOARDS:
        places = [(".*", ".*")] if path.stem == "reaper" else [("local", "docker"), ("default", "daytona")]
        for endpoint, provider in places:
            for title, target in queries(path):
                if provider == "daytona" and "events" in target["expr"]:
                    continue  # an organisation tells of none
                yield pytest.param(target, endpoint, provider, id=f"{path.stem}: {title} {target['refId']} {endpoint}")


@pytest.mark.parametrize(("target", "endpoint", "provider"), list(_queries()))
def test_every_query_of_every_panel_has_an_answer(
    scraped: Scraped, target: dict[str, Any], endpoint: str, provider: str
) -> None:
    expression = _with(target["expr"], endpoint, provider)
    assert scraped.points(expression, instant=bool(target["instant"])), expression


@pytest.mark.parametrize(
    ("path", "variable"),
    [
        pytest.param(path, variable, id=f"{path.stem}: {variable['name']}")
        for path in DASHBOARDS
        for variable in variables(path)
        if variable["type"] == "query"
    ],
)
def test_every_variable_has_values(scraped: Scraped, path: Path, variable: dict[str, Any]) -> None:
    query = _with(variable["query"]["query"], "local" if path.stem == "reaper-endpoint" else ".*", "docker")
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    assert found is not None
    values = scraped.prometheus.ask(f"label/{found[2]}/values", **{"match[]": found[1]})
    expected = {
        "endpoint": ["default", "gone", "local"],
        "policy": ["(wish)", "quick"],
        "provider": ["docker"],
    }
    assert values == expected[variable["name"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: f"{rule['alert']} {rule['labels']['severity']}")
def test_every_alert_asks_for_series_that_there_are(scraped: Scraped, rule: dict[str, Any]) -> None:
    scraped.prometheus.now(rule["expr"], scraped.end)  # it can be evaluated, and its sides are joined without a conflict
    for selector in selectors_in(rule["expr"]):
        assert scraped.prometheus.now(selector, scraped.end), selector


def test_every_alert_is_loaded_and_evaluated(scraped: Scraped) -> None:
    groups = scraped.prometheus.ask("rules", type="alert")["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert [rule["name"] for rule in found] == [rule["alert"] for rule in rules()]
    assert {rule["health"] for rule in found} == {"ok"}, json.dumps(found)


def test_what_is_wrong_is_what_fires_or_will(scraped: Scraped) -> None:
    found = scraped.prometheus.now("ALERTS", scraped.end)
    told = {(row["metric"]["alertname"], row["metric"].get("endpoint")) for row in found}
    assert told >= {("ReaperDeletionsDenied", "default"), ("ReaperEndpointDown", "gone")}
    assert {endpoint for _, endpoint in told} == {"default", "gone"}
    assert not {name for name, _ in told} & ONCE
