"""Draws deploy/grafana/reaper.json over a busy hour: ``python -m devkit.picture`` writes docs/overview.png.

It is no screenshot of Grafana. Titles, places, queries, units and colours are those of the dashboard's own file, the data is
that of ``busyhour`` in a real Prometheus, and a browser renders what ``drawing`` makes of both. Needs the Debian packages
prometheus and chromium.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from devkit import busyhour
from devkit.browser import Browser
from devkit.drawing import WIDTH, page
from devkit.prometheus import Prometheus

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD, ALERTS = ROOT / "deploy/grafana/reaper.json", ROOT / "deploy/prometheus/alerts.yml"
PICTURE = ROOT / "docs/overview.png"
STEP = busyhour.SCRAPE  # a picture has no more points than there are scrapes
START, STOP = busyhour.BEGIN.timestamp(), busyhour.END.timestamp()
# As Grafana sets them, for a scrape every 15 seconds and an hour.
VARIABLES = {"$__rate_interval": "60s", "$__range": "3600s", "$__interval": "15s", "$endpoint": ".*", "$policy": ".*"}


def substituted(expression: str) -> str:
    """A query with the dashboard's variables replaced: everything is chosen."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def answers(prometheus: Prometheus, panel: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """What the panel's queries say, each over the hour, or at its end."""
    found = []
    for target in panel["targets"]:
        expression = substituted(target["expr"])
        if target.get("instant"):
            rows = prometheus.now(expression, STOP)
            found.append([{"metric": row["metric"], "values": [row["value"]]} for row in rows])
        else:
            found.append(prometheus.over(expression, START, STOP, STEP))
    return found


def alerts(prometheus: Prometheus) -> Iterator[str]:
    """The series ALERTS, which Prometheus writes while it evaluates rules and cannot write for a time that is past."""
    for group in prometheus.ask("rules", type="alert")["groups"]:
        for rule in group["rules"]:
            for series in prometheus.over(rule["query"], START, STOP, STEP):
                labels = {**series["metric"], **rule["labels"], "alertname": rule["name"], "alertstate": "firing"}
                labels.pop("__name__", None)
                told = ",".join(f"{key}={json.dumps(value)}" for key, value in sorted(labels.items()))
                for at in _firing([at for at, _ in series["values"]], rule["duration"]):
                    yield f"ALERTS{{{told}}} 1 {at:.0f}"


def _firing(active: Iterable[float], wait: float) -> Iterator[float]:
    """When an alert fires that is active at these times: after it has been so for a while without a pause."""
    since = before = float("-inf")
    for at in active:
        since, before = (since if at - before <= STEP else at), at
        if at - since >= wait:
            yield at


def _store(text: str, folder: Path) -> None:
    """Put samples into a Prometheus's data."""
    file = folder / "samples.txt"
    file.write_text(text)
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(file), str(folder / "tsdb")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _config() -> str:
    return f'rule_files: ["{ALERTS}"]\nglobal: {{evaluation_interval: 1d}}\n'


def gathered() -> list[tuple[dict[str, Any], list[list[dict[str, Any]]]]]:
    """Each panel of the dashboard with what its queries say of the hour."""
    with tempfile.TemporaryDirectory(prefix="reaper-hour-") as name:
        folder = Path(name)
        for_good = "--storage.tsdb.retention.time=100y"
        _store(busyhour.live_through().text(), folder)
        with Prometheus(folder, _config(), for_good) as prometheus:
            fired = list(alerts(prometheus))
        if fired:
            by_series = defaultdict(list)
            for line in fired:
                by_series[line.rpartition("} ")[0]].append(line)
            _store("".join(f"{line}\n" for lines in by_series.values() for line in lines) + "# EOF\n", folder)
        with Prometheus(folder, _config(), for_good) as prometheus:
            panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
            return [(panel, answers(prometheus, panel)) for panel in panels]


async def _photograph(html: str, target: Path, height: int) -> None:
    async with Browser() as browser:
        with tempfile.TemporaryDirectory(prefix="reaper-picture-") as folder:
            file = Path(folder) / "overview.html"
            file.write_text(html)
            await browser.show(WIDTH, dark=True, height=height)
            await browser.open(f"file://{file}")
            await browser.screenshot(target)


def main() -> int:
    """Draw it."""
    html, height = page(gathered(), START, STOP)
    asyncio.run(_photograph(html, PICTURE, height))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
