"""Resources, policies and rules to start a test from: take one and ``replace`` what the test is about."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from reaper.core.conditions import Policy
from reaper.core.decide import decide
from reaper.core.lease import Lease
from reaper.core.model import Decision, Kind, Resource, State
from reaper.core.rules import Rules

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
HARBOR_FILE = "/opt/venv/lib/python3.12/site-packages/harbor/environments/docker/docker-compose-build.yaml"


def ago(*, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> datetime:
    """That long before NOW."""
    return NOW - timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


# A Terminal-Bench client that stands alone, runs, and was started three days ago.
RUNNING = Resource(
    provider="docker",
    endpoint="local",
    kind=Kind.CONTAINER,
    id="c1",
    name="client",
    state=State.RUNNING,
    raw_state="running",
    created_at=ago(days=3),
    started_at=ago(days=3),
    labels={},
    image="tb__chess__client",
    restart_policy="no",
)
# The same, stopped three hours ago.
STOPPED = replace(RUNNING, state=State.STOPPED, raw_state="exited", stopped_at=ago(hours=3))
# A user's database, as old as it gets.
FOREIGN = replace(RUNNING, id="f1", name="postgres", created_at=ago(days=300), started_at=ago(days=300), image="postgres:16")
NETWORK = Resource(
    provider="docker",
    endpoint="local",
    kind=Kind.NETWORK,
    id="n1",
    name="chess_default",
    state=State.STOPPED,
    raw_state="unattached",
    created_at=ago(days=3),
    labels={},
    group="chess",
)
# What ended leases take besides; by themselves they have no owner.
VOLUME = replace(
    NETWORK, kind=Kind.VOLUME, id="chess_data", name="chess_data", raw_state="present", created_at=ago(minutes=2), group=None
)
IMAGE = replace(VOLUME, kind=Kind.IMAGE, id="sha256:" + "ab" * 32, name="chess:1", image="chess:1", tags=("chess:1",))
SANDBOX = Resource(
    provider="daytona",
    endpoint="rl-org",
    kind=Kind.SANDBOX,
    id="s1",
    name="sandbox",
    state=State.RUNNING,
    raw_state="started",
    created_at=ago(days=3),
    last_activity_at=ago(hours=3),
    labels={"harbor.managed": "true"},
)

CONTAINERS = frozenset({Kind.CONTAINER})
ALL_KINDS = frozenset({Kind.CONTAINER, Kind.SANDBOX})
STOPPED_1H = Policy("stopped-containers", CONTAINERS, stopped_for=HOUR)
OLD_24H = Policy("old-containers", CONTAINERS, older_than=24 * HOUR)
EVERYTHING = Policy("all", ALL_KINDS, every_resource=True)


def rules(*policies: Policy) -> Rules:
    """The default scope and protection with these policies."""
    return Rules(policies=policies)


def judged(
    resources: Sequence[Resource], by: Rules, leases: Iterable[Lease] = (), now: datetime = NOW
) -> dict[str, Decision]:
    """What ``decide`` says, by the resource's id."""
    return {decision.resource.id: decision for decision in decide(resources, by, leases, now)}


def judge_one(resource: Resource, by: Rules, leases: Iterable[Lease] = (), now: datetime = NOW) -> Decision:
    """What ``decide`` says of a resource that was listed alone."""
    return decide([resource], by, leases, now)[0]
