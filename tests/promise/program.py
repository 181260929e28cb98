"""Runs the program over a served world: the only module here that knows it."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import anyio

from reaper.config.quotas import QuotaTable, quotas
from reaper.config.settings import ScopeTable, Settings, one_off
from reaper.core.conditions import Policy
from reaper.core.lease import Claim, Lease
from reaper.core.model import Decision, Kind, Report
from reaper.core.quota import Quota
from reaper.core.rules import Rules
from reaper.core.scope import Selector
from reaper.leases.record import Holder, LeaseRecord, Liveness
from reaper.providers.daytona.registration import REGISTRATION as DAYTONA
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.docker.registration import REGISTRATION as DOCKER
from reaper.providers.docker.settings import DockerTable
from reaper.providers.registration import EndpointSpec
from reaper.retry.retrier import RetryPolicy
from reaper.sweep import connect
from reaper.sweep.ports import Observer
from reaper.sweep.processes import Presence, Seen
from reaper.sweep.sweep import Options, sweep
from tests.owners.machine import TICKS, FakeMachine
from tests.promise import truth
from tests.promise.oracle import things
from tests.promise.servers import Engine, Organisation, served, served_on_port
from tests.promise.truth import ENDPOINT, ORGANISATION, World, key

T = TypeVar("T")

_ONCE = RetryPolicy(attempts=1, initial_delay=timedelta(milliseconds=1))


@dataclass(frozen=True)
class Outcome:
    """What one sweep came to.

    Args:
        reaped: the keys of what it decided to delete.
        deleted: the keys of what is not there any more.
        halted: likewise of what it decided to stop or to archive, and has stopped, each with that.
    """

    reaped: frozenset[str]
    deleted: frozenset[str]
    halted: frozenset[tuple[str, str]]
    report: Report
    unknown: tuple[str, ...]


def rules(world: World) -> Rules:
    """The configuration, as the file's tables are read."""
    config = world.config
    scope: dict[str, Any] = {
        "presets": config.presets,
        "labels": config.labels,
        "names": config.names,
        "images": config.images,
        "everything": config.everything,
    }
    owner = [{"name": "runner", "processes": config.runners}] if config.runners else []
    if config.image_labels and "image_labels" in ScopeTable.model_fields:
        scope["image_labels"] = True
    protect = {
        "labels": config.protect_labels,
        "names": config.protect_names,
        "images": config.protect_images,
        "restart_policies": config.restart_policies,
    }
    policies = [_policy(policy) for policy in config.policies]
    tables: dict[str, Any] = {"scope": scope, "protect": protect, "policy": policies, "owner": owner}
    for name in sorted({name for policy in config.policies for name in policy.endpoints}):
        if name.startswith("engine"):
            tables.setdefault("docker", []).append({"name": name, "host": f"unix:///run/{name}.sock"})
        else:
            tables.setdefault("daytona", []).append({"name": name})
    found = Settings.model_validate(tables).rules()
    if config.everything_goes:
        every = Policy("--all", frozenset({Kind.CONTAINER, Kind.SANDBOX}), every_resource=True)
        return one_off(found, [every], Selector())
    return found


def limits(world: World) -> tuple[Quota, ...]:
    """The quotas, as the file's tables are read; those of one-off policies are none."""
    tables = [
        {
            "name": quota.name,
            "kinds": quota.kinds,
            "enforce": quota.enforce,
            **{f"max_{what}": f"{most}GiB" if what in ("memory", "disk") else most for what, most in quota.most.items()},
            **({"per_label": quota.label} if quota.label else {}),
            **({"idle_for": quota.idle_for} if quota.enforce else {}),
        }
        for quota in world.config.quotas
    ]
    return () if world.config.everything_goes else quotas([QuotaTable.model_validate(table) for table in tables], ())


def _policy(policy: truth.Policy) -> dict[str, Any]:
    spans = {
        "older_than": policy.older_than,
        "stopped_for": policy.stopped_for,
        "idle_for": policy.idle_for,
        "orphaned_for": policy.orphaned_for,
        "unused_for": policy.unused_for,
    }
    return {
        "name": policy.name,
        "action": policy.action,
        "kinds": policy.kinds,
        "labels": policy.labels,
        "names": policy.names,
        **({"states": policy.states} if policy.states else {}),
        **{name: span for name, span in spans.items() if span is not None},
        **_narrowed(policy),
    }


def _narrowed(policy: truth.Policy) -> dict[str, Any]:
    excluded = {"labels": policy.exclude_labels, "names": policy.exclude_names, "images": policy.exclude_images}
    found: dict[str, Any] = {"exit_codes": policy.exit_codes} if policy.exit_codes else {}
    found |= {"exclude": excluded} if any(excluded.values()) else {}
    found |= {"window": "-".join(policy.window)} if policy.window is not None else {}
    found |= {"keepalive": True} if policy.keepalive else {}
    found |= {"oneoff": True} if policy.oneoff else {}
    found |= {"untagged": True} if policy.untagged else {}
    found |= {"endpoints": policy.endpoints} if policy.endpoints else {}
    found |= {"under_pressure": True} if policy.only_under_pressure else {}
    found |= {"with_project": policy.with_project} if policy.with_project != ("network",) else {}
    found |= {"all": True} if policy.everything else {}
    return found | {"exclusive": policy.exclusive}


def leases(world: World, endpoint_id: str | None) -> Sequence[Lease]:
    """The leases as their source gives them, on this host's clock."""
    assert endpoint_id is not None
    return [_lease(lease, world.skew, endpoint_id) for lease in world.leases]


def _lease(lease: truth.Lease, skew: timedelta, endpoint_id: str) -> Lease:
    ending = None
    if lease.ended is not None:
        heard = (lease.heard or lease.ended) - skew
        record = LeaseRecord(
            id=lease.id, sort=Liveness.HEARTBEAT, holder=Holder("gpu-1"), since=lease.since - skew, seen_at=heard
        )
        ending = record.killed(lease.ended - skew, "no heartbeat for 300 s")
    return Lease(
        id=lease.id,
        owner="pid 4711 on gpu-1",
        resources=lease.resources,
        claims=tuple(Claim(Selector(c.labels, c.names, c.images), c.projects) for c in lease.claims),
        since=lease.since - skew,
        ending=ending,
        endpoints=frozenset({"another endpoint" if lease.elsewhere else endpoint_id}),
    )


async def _once(_: str, request: Callable[[], Awaitable[T]]) -> T:
    return await request()


def _host(world: World) -> FakeMachine:
    """This host, which was started so long before NOW of the engine's clock, with the processes that labels name."""
    found = FakeMachine(moved=-world.skew)
    assert found.booted_at() + world.skew == truth.NOW - truth.BOOTED
    found.start(101, 1000)
    found.start(102, int((truth.BOOTED - truth.REUSED).total_seconds()) * TICKS)
    found.processes[103] = Seen(Presence.HIDDEN, why="/proc hides it")
    return found


async def _swept(world: World, endpoint: Any, *, act: bool) -> Report:
    endpoint.owners._machine, endpoint.owners._clock = _host(world), lambda: world.now - world.skew
    try:
        await endpoint.reader.identify(_once)
        known = leases(world, endpoint.reader.endpoint_id)
        return await sweep(
            [endpoint],
            rules(world),
            Options(act=act),
            clock=lambda: world.now - world.skew,
            observer=Observer(),
            leases=lambda: known,
        )
    finally:
        await endpoint.reader.close()


async def _main(world: World, folder: Path, *, act: bool) -> Outcome:
    if world.sandboxes:
        organisation = Organisation(world)
        async with served_on_port(organisation) as url:
            table = DaytonaTable(name=ORGANISATION, api_url=url, target=world.config.target)
            (endpoint,) = connect.endpoints([EndpointSpec(DAYTONA, table, "key")], _ONCE, folder, act=act)
            report = await _swept(world, endpoint, act=act)
        return _outcome(world, report, organisation.sandboxes.keys(), organisation.unknown, ())
    engine = Engine(world)
    async with served(engine, folder / "docker.sock"):
        table_ = DockerTable(name=ENDPOINT, host=f"unix://{folder}/docker.sock")
        (endpoint,) = connect.endpoints([EndpointSpec(DOCKER, table_)], _ONCE, folder, act=act)
        report = await _swept(world, endpoint, act=act)
    left = {
        key(thing)
        for held in (engine.containers, engine.networks, engine.pods, engine.volumes, engine.images)
        for thing in held.values()
    }
    return _outcome(world, report, left, engine.unknown, engine.stopped)


def _outcome(world: World, report: Report, left: Any, unknown: list[str], stopped: Iterable[str]) -> Outcome:
    held = {key(thing) for thing in things(world) if not getattr(thing, "missing", False)}
    decisions = [decision for endpoint in report.endpoints for decision in endpoint.decisions]
    reaped = frozenset(_key(decision) for decision in decisions if decision.deletes)
    halted = {(str(decision.action), _key(decision)) for decision in decisions if decision.reap and not decision.deletes}
    halted |= {("stop", id_) for id_ in stopped}
    return Outcome(reaped, frozenset(held - set(left)), frozenset(halted), report, tuple(unknown))


def _key(decision: Decision) -> str:
    resource = decision.resource
    return f"volume {resource.id}" if resource.kind is Kind.VOLUME else resource.id


def run(world: World, *, act: bool = True) -> Outcome:
    """Sweep the world once."""
    with TemporaryDirectory() as folder:
        return anyio.run(lambda: _main(world, Path(folder), act=act))
