"""A world, a sweep over it, and what came of it."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import anyio
import trio.testing

from reaper.core.conditions import Policy
from reaper.core.lease import Ending, Lease
from reaper.core.model import Decision, EndpointReport, Kind, Outcome, Report, Resource, Result, State
from reaper.core.rules import Rules
from reaper.core.savings import Entry
from reaper.errors import LeasesUnknownError
from reaper.providers.base import Limits
from reaper.providers.memory import Held, MemoryProvider, MemoryReader, MemoryWorld, VirtualClock
from reaper.retry.breaker import Breaker
from reaper.retry.retrier import FailedAttempt, Retrier, RetryPolicy
from reaper.sweep.owner_proofs import OwnerProofs
from reaper.sweep.ownership import Memory
from reaper.sweep.ports import EvidenceStore, Observer
from reaper.sweep.sweep import Endpoint, Options, Stop, sweep
from reaper.sweep.usage import LastUse

T = TypeVar("T")

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
CLIENT = "tb__chess__client"
FOREIGN = "postgres:16"

CONTAINERS = frozenset({Kind.CONTAINER})
STOPPED = Policy("stopped", CONTAINERS, stopped_for=HOUR)
OLD = Policy("old", CONTAINERS, older_than=24 * HOUR, stop_timeout=10 * SECOND)
EVERYTHING = Policy("--all", CONTAINERS, every_resource=True)
RULES = Rules(policies=(STOPPED, OLD))

# No jitter: the times are exact. The delays are 2, 4 and 8 s.
EXACT = RetryPolicy(jitter=timedelta(0))


def stopped(name: str, *, hours: float = 8, **fields: Any) -> Resource:
    """A Terminal-Bench client that stopped so many hours ago; its id is not its name."""
    at = NOW - hours * HOUR
    return replace(
        Resource(
            provider="memory",
            endpoint="local",
            kind=Kind.CONTAINER,
            id=f"id-{name}",
            name=name,
            state=State.STOPPED,
            raw_state="exited",
            created_at=at - HOUR,
            started_at=at - HOUR,
            stopped_at=at,
            labels={},
            image=CLIENT,
            restart_policy="no",
        ),
        **fields,
    )


def running(name: str, *, hours: float = 48, **fields: Any) -> Resource:
    """A Terminal-Bench client that was started so many hours ago and runs."""
    at = NOW - hours * HOUR
    return stopped(
        name,
        **{
            "state": State.RUNNING,
            "raw_state": "running",
            "created_at": at,
            "started_at": at,
            "stopped_at": None,
            **fields,
        },
    )


def network(name: str, group: str, **fields: Any) -> Resource:
    """A network of a Compose project, as old as the containers."""
    return replace(
        stopped(name, group=group),
        **{"kind": Kind.NETWORK, "raw_state": "unattached", "image": None, "started_at": None, "stopped_at": None, **fields},
    )


def volume(name: str, labels: dict[str, str], **fields: Any) -> Resource:
    """A volume that was made a minute ago; its id is its name."""
    made = stopped(
        name,
        kind=Kind.VOLUME,
        id=name,
        raw_state="present",
        labels=labels,
        created_at=NOW - MINUTE,
        **_NOTHING_RUNS,
    )
    return replace(made, **fields)


_NOTHING_RUNS: dict[str, Any] = dict.fromkeys(("image", "started_at", "stopped_at", "restart_policy"))


def image(name: str, labels: dict[str, str], **fields: Any) -> Resource:
    """An image that was built a minute ago."""
    return volume(name, labels, **{"kind": Kind.IMAGE, "id": f"id-{name}", "image": name, "tags": (name,), **fields})


def many(count: int, make: Callable[[str], Resource] = stopped) -> list[Resource]:
    return [make(f"c{i:04}") for i in range(count)]


class Recorder(Observer):
    """Remembers an observer's events."""

    def __init__(self) -> None:
        self.retries: list[tuple[str, FailedAttempt]] = []
        self.results: list[tuple[str, Result]] = []
        self.bugs: list[tuple[str, BaseException]] = []
        self.events: list[str] = []

    def listed(self, endpoint: str, held: int) -> None:
        self.events.append(f"listed {endpoint} {held}")

    def decided(self, endpoint: str, decisions: Sequence[Decision]) -> None:
        self.events.append(f"decided {endpoint} {sum(d.reap for d in decisions)}")

    def retrying(self, endpoint: str, event: FailedAttempt) -> None:
        self.retries.append((endpoint, event))

    def settled(self, endpoint: str, result: Result) -> None:
        self.results.append((endpoint, result))

    def finished(self, report: EndpointReport) -> None:
        self.events.append(f"finished {report.endpoint}")

    def bug(self, endpoint: str, error: BaseException) -> None:
        self.bugs.append((endpoint, error))


class Lab:
    """One endpoint and what it takes to sweep it.

    Args:
        things: what the endpoint holds.
        world: fields of the world.
    """

    def __init__(
        self,
        *things: Resource | Held,
        rules: Rules = RULES,
        retry: RetryPolicy = EXACT,
        limits: Limits | None = None,
        memory: Memory | None = None,
        last_use: LastUse | None = None,
        owners: OwnerProofs | None = None,
        evidence: EvidenceStore | None = None,
        name: str = "local",
        **world: Any,
    ) -> None:
        self.clock = VirtualClock(NOW)
        self.world = MemoryWorld(things, **{"clock": self.clock, **world})
        self.rules = rules
        self.leases: list[Lease] = []
        self.leases_unknown = False
        self.observer = Recorder()
        self.reader = MemoryReader(self.world, name, limits)
        self.provider = MemoryProvider(self.world, name, limits)
        self.retry = retry
        self.memory = memory
        self.last_use = last_use
        self.owners = owners
        self.evidence = evidence
        self.name = name
        self.stop = Stop()

    def endpoint(self, *, act: bool = True) -> Endpoint:
        retrier = Retrier(self.retry, breaker=Breaker())
        return Endpoint(self.provider if act else self.reader, retrier, self.memory, self.last_use, self.owners)

    async def sweep(self, *others: "Lab", **options: Any) -> Report:
        """Sweep this endpoint and the other ones."""
        act = options.get("act", True)
        report = await sweep(
            [lab.endpoint(act=act) for lab in (self, *others)],
            self.rules,
            Options(**options),
            clock=self.clock,
            observer=self.observer,
            leases=self._read_leases,
            evidence=self.evidence,
            stop=self.stop,
        )
        broken = {r.decision.resource.name: why for r in report.results if (why := Entry.of(r).violation) is not None}
        assert broken == {}, broken  # by what every sweep puts on record about itself
        return report

    def _read_leases(self) -> tuple[Lease, ...]:
        if self.leases_unknown:
            raise LeasesUnknownError("the leases in /state/leases.db cannot be read: it is cut off")
        return tuple(self.leases)

    async def outcomes(self, **options: Any) -> dict[str, str]:
        """Sweep, and say what became of each resource that was to go, by name."""
        return outcomes(await self.sweep(**options))

    def left(self) -> set[str]:
        """The names of what is there now."""
        return {held.resource.name for held in self.world.held()}

    def abandon(self, *names: str) -> None:
        """The holder of a lease on the things of these names is dead."""
        ids = frozenset(held.resource.id for held in self.world.held() if held.resource.name in names)
        self.leases.append(Lease("lease-0", "pid 4711", ids, ending=Ending(NOW, "killed")))

    def lease(self, *names: str) -> None:
        """Take a lease on the things of these names."""
        ids = frozenset(held.resource.id for held in self.world.held() if held.resource.name in names)
        self.leases.append(Lease("lease-1", "harbor run", ids))

    def relabel(self, name: str, labels: dict[str, str]) -> None:
        self.world.change(name, lambda resource: replace(resource, labels=labels))


def outcomes(report: Report) -> dict[str, str]:
    return {result.decision.resource.name: result.outcome.value for result in report.results}


def result(report: Report, name: str) -> Result:
    return next(r for r in report.results if r.decision.resource.name == name)


def counts(report: Report) -> dict[Outcome, int]:
    return {outcome: n for outcome in Outcome if (n := report.count(outcome))}


def elapse(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run ``main`` on a loop of its own on which time jumps: for tests that hypothesis calls many times."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, *args, backend="trio", backend_options={"clock": clock})


async def later(seconds: float, act: Callable[[], object]) -> None:
    """Do something at a time."""
    await anyio.sleep(seconds)
    act()


def names(resources: Iterable[Resource]) -> list[str]:
    return sorted(resource.name for resource in resources)
