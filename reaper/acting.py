"""What all units of one endpoint share while they are reaped, and what makes a unit stay."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import anyio

from reaper.judge import Rules
from reaper.model import Lease, Resource, Result, State
from reaper.providers.base import Limits, Provider
from reaper.retry import Retrier

T = TypeVar("T")


class AbandonedError(Exception):
    """The sweep is ending, and this unit had not begun to act."""


class ChangedError(Exception):
    """The unit is not what it was when it was decided about."""


class Slots:
    """The limits of one endpoint: removing and stopping wait for different things, so each has its own."""

    def __init__(self, limits: Limits) -> None:
        self.reads = anyio.CapacityLimiter(limits.reads)
        self.removals = anyio.CapacityLimiter(limits.removals)
        self.stops = anyio.CapacityLimiter(limits.stops)


@dataclass
class Acting:
    """What all units of one endpoint share in one sweep.

    Args:
        now: reads the clock, as the endpoint's clock shows it.
        leases: reads the live leases again.
        settled: is told each result as soon as it is known.
        draining: set when no unit may begin to act any more.
    """

    provider: Provider
    retrier: Retrier
    slots: Slots
    rules: Rules
    now: Callable[[], datetime]
    leases: Callable[[], Sequence[Lease]]
    settled: Callable[[Result], None]
    draining: bool = False


def subject(resource: Resource, first: Resource) -> str:
    """How a sentence about the unit names one of its members."""
    return "it" if resource.group is None or resource.id == first.id else f"{resource.name} of its project"


def what_changed(before: Resource, now: Resource, *, stopped_by_us: bool = False) -> str | None:
    """What is different about a resource since it was decided about, for people; None when nothing is that matters."""
    # "removing": a container of ``docker run --rm``, which the engine removes as soon as our stop has ended it.
    stopped = stopped_by_us and (now.state in (State.STOPPED, State.FAILED) or now.raw_state == "removing")
    if before.raw_state != now.raw_state and not stopped:
        return f"was {before.raw_state} and is {now.raw_state} now"
    differences = {
        "was started again": before.started_at != now.started_at,
        "was stopped again": before.stopped_at != now.stopped_at and not stopped_by_us,
        "has other labels now": before.labels != now.labels,
        "is in another project now": before.group != now.group,
        "has another restart policy now": before.restart_policy != now.restart_policy,
    }
    return next((what for what, differs in differences.items() if differs), None)


async def for_each(items: Iterable[T], function: Callable[[T], Awaitable[None]], workers: int, name: str) -> None:
    """``function`` for all items, by so many tasks at the most: a task for each of thousands costs memory."""
    left = iter(items)

    async def work() -> None:
        for item in left:
            await function(item)

    async with anyio.create_task_group() as group:
        for number in range(workers):
            group.start_soon(work, name=f"{name} {number}")
