"""Metrics on a registry of their own and a clock that stands still, and what they say."""

import math
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from reaper.core.accounts import LastLook
from reaper.core.model import Decision, EndpointReport, Kind, Outcome, Reason, Resource, Result, Verdict
from reaper.observers.exposition import Tidy
from reaper.observers.instruments import Reach
from reaper.observers.metrics import Metrics
from tests import needs
from tests.sweep.lab import NOW, Lab, stopped

ENDPOINTS = {"local": "docker", "rl": "daytona"}
POLICIES: Reach = {
    "old": ((Kind.CONTAINER,), ("local",)),
    "stopped": ((Kind.CONTAINER, Kind.SANDBOX), ("local", "rl")),
    "sandboxes": ((Kind.SANDBOX,), ("local", "rl")),
}

Values = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class Bench:
    """Metrics in a world whose time stands still unless it is moved."""

    def __init__(self, **options: Any) -> None:
        self.now = NOW
        self.metrics = Metrics(clock=self.clock, **options)
        self.metrics.configure(ENDPOINTS, POLICIES)

    def clock(self) -> float:
        return self.now.timestamp()

    def pass_time(self, **delta: float) -> None:
        self.now += timedelta(**delta)

    def values(self) -> Values:
        return values(self.metrics)

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the series with these labels; they must be there."""
        return total(self.values(), name, **labels)


def values(metrics: Metrics) -> Values:
    """Every sample that is collected. Reading it from the text would take most of the time of these tests."""
    families = Tidy(metrics.registry).collect()
    found = [(s.name, frozenset(s.labels.items()), s.value) for family in families for s in family.samples]
    by_key = {(name, labels): value for name, labels, value in found}
    assert len(by_key) == len(found), "a series twice"
    return by_key


def total(values: Values, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    found = [value for (sample, there), value in values.items() if sample == name and wanted <= there]
    assert found, f"no series {name}{labels}"
    return math.fsum(found)


def decision(
    name: str,
    policy: str | None = "stopped",
    *,
    since: datetime | None = None,
    keep: Reason | None = None,
    **fields: Any,
) -> Decision:
    resource: Resource = stopped(name, provider="docker", **fields)
    if keep is not None:
        return Decision(resource, Verdict.KEEP, keep, "kept", policy=policy, owner="a label", since=since)
    return Decision(resource, Verdict.REAP, Reason.STOPPED_FOR, "garbage", policy=policy, owner="a label", since=since)


def report(
    results: Iterable[Result] = (), more: Iterable[Decision] = (), endpoint: str = "local", **fields: Any
) -> EndpointReport:
    """A report with these results, and decisions without one."""
    results = tuple(results)
    decisions = (*(result.decision for result in results), *more)
    return EndpointReport(
        endpoint=endpoint, provider=ENDPOINTS[endpoint], held=len(decisions), decisions=decisions, results=results, **fields
    )


def became(name: str, outcome: Outcome, policy: str | None = "stopped", seconds: float = 1.0, **fields: Any) -> Result:
    look = LastLook(NOW, "exited", acted=outcome in (Outcome.DELETED, Outcome.STOPPED))
    return Result(decision(name, policy, **fields), outcome, seconds=seconds, look=look)


def watched(lab: Lab, metrics: Metrics) -> Lab:
    """The lab with metrics of its world for an observer."""
    metrics.configure({lab.name: "memory"}, {p.name: (p.kinds, (lab.name,)) for p in lab.rules.policies})
    lab.observer = metrics  # type: ignore[assignment]  # the lab's own observer is a recorder
    return lab


@pytest.fixture
def promtool() -> Callable[[bytes], str]:
    """What ``promtool check metrics`` finds."""
    path = needs.tool("promtool", "prometheus")

    def check(text: bytes) -> str:
        done = subprocess.run([path, "check", "metrics"], input=text, capture_output=True, check=False)
        return done.stdout.decode() + done.stderr.decode()

    return check


def table(document: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and labels of each metric in the first table of docs/metrics.md."""
    rows = re.findall(r"^\| `(reaper_\w+)` \| (\w+) \| [\w ]* \| ([\w, ]*?) ?\| [^|]+ \|$", document, re.MULTILINE)
    return {name: (kind, tuple(filter(None, labels.replace(" ", "").split(",")))) for name, kind, labels in rows}
