"""What deletions were worth: time and money that they avoided, bytes that they freed, and the rules that they kept. Pure."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Self

from reaper.core.accounts import UNKNOWN_FOOTPRINT, Footprint, LastLook, Saving
from reaper.core.actions import ARCHIVED
from reaper.core.conditions import Match
from reaper.core.model import Decision, Kind, Outcome, Reason, Resource, Result, State
from reaper.core.owners import BY_CONTAINERS, in_a_word
from reaper.core.rules import KEEP_LABEL, Judge

LONGEST = timedelta(days=1)
"""For how long at the most anything counts as avoided: a day after it was left, a person would have noticed."""
HOUR = timedelta(hours=1)
GIB = 2**30

# What stands for a policy where none decided; the parentheses cannot be in the name of one.
OVERRIDE = "(label)"  # the resource's own label decided
LEASE = "(lease)"  # the lease that covered it has ended


def saving(decision: Decision, matches: Iterable[Match], now: datetime) -> Saving:
    """For how long what is about to be deleted would have gone on, and for how long it has been garbage.

    It would have gone on until the next of the other policies would have taken it, by its conditions as the resource is
    now and whatever that policy's schedule: no time at all where another one takes it already, and a day at the most. Each
    resource counts by itself, not with its group.

    Args:
        decision: to reap.
        matches: all policies that were in force, evaluated for its resource.
        now: aware UTC, on the endpoint's clock.
    """
    avoided = LONGEST
    for match in matches:
        if match.policy.name == decision.policy:
            continue
        if match.matched:
            avoided = timedelta(0)
        elif match.at is not None:
            avoided = min(avoided, max(match.at - now, timedelta(0)))
    waited = None if decision.since is None else max(now - decision.since, timedelta(0))
    return Saving(avoided, waited)


def to_delete(decisions: Iterable[Decision], held_back: Collection[str], judge: Judge) -> list[Decision]:
    """The decisions to reap, but for the ids that are held back, each with what its deletion is worth."""
    reaped = (decision for decision in decisions if decision.reap and decision.resource.id not in held_back)
    return [replace(one, saving=saving(one, judge.matches(one.resource), judge.now)) for one in reaped]


def freed_by(resource: Resource, told: int | None) -> int | None:
    """How many bytes the deletion of a resource gives back, where that is known.

    Of an image it is all that it has, though other images may share layers with it; of a sandbox the disk that it was given,
    used or not, and of an archived one none is known. What a container had written is never measured.

    Args:
        resource: it.
        told: what the endpoint has said itself, as it does of a build cache.
    """
    match resource.kind:
        case Kind.POD | Kind.NETWORK:
            return 0
        case Kind.SANDBOX:
            return None if resource.raw_state == ARCHIVED else resource.footprint.disk
        case Kind.BUILD_CACHE:
            return told
        case _:
            return resource.size


@dataclass(frozen=True, slots=True)
class Rates:
    """What an hour costs, in any currency; None where it has no price.

    Args:
        container: of a running container.
        cpu: of a CPU of what runs, where its endpoint reports how many it has.
        memory: of a GiB of its memory, likewise.
        disk: of a GiB of the disk of a sandbox that is not archived, and of what a volume, an image or a cache takes up.
    """

    container: float | None = None
    cpu: float | None = None
    memory: float | None = None
    disk: float | None = None


NO_RATES = Rates()


@dataclass(frozen=True, slots=True)
class Prices:
    """What turns time into money.

    Args:
        currency: for people.
        rates: those of all endpoints.
        endpoints: those of single ones, by name; what they leave open is as for all.
        sizes: what an hour of a running sandbox costs, by its CPUs and the GiB of its memory and its disk.
    """

    currency: str = ""
    rates: Rates = NO_RATES
    endpoints: Mapping[str, Rates] = field(default_factory=dict)
    sizes: Mapping[tuple[float, float, float], float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.sizes) or any(rates != NO_RATES for rates in (self.rates, *self.endpoints.values()))

    def hourly(self, entry: "Entry") -> float | None:
        """What an hour of this resource costs as it was when it was decided about; None where nothing has a price."""
        own, general = self.endpoints.get(entry.endpoint, NO_RATES), self.rates
        takes, runs = entry.footprint, entry.state is State.RUNNING
        if entry.kind is Kind.SANDBOX and runs and None not in (size := _size(takes)) and size in self.sizes:
            return self.sizes[size]
        parts: list[float | None] = []
        if entry.kind is Kind.CONTAINER:
            parts.append(_times(_first(own.container, general.container), float(runs)))
        if entry.kind.runs:
            parts.append(_times(_first(own.cpu, general.cpu), takes.cpu if runs else 0.0))
            parts.append(_times(_first(own.memory, general.memory), _gib(takes.memory) if runs else 0.0))
        disk = takes.disk if entry.kind.runs else entry.freed
        archived = entry.raw_state == ARCHIVED
        parts.append(_times(_first(own.disk, general.disk), 0.0 if archived else _gib(disk)))
        known = [part for part in parts if part is not None]
        return math.fsum(known) if known else None


NO_PRICES = Prices()


def _first(*rates: float | None) -> float | None:
    return next((rate for rate in rates if rate is not None), None)


def _times(rate: float | None, amount: float | None) -> float | None:
    return None if rate is None or amount is None else rate * amount


def _gib(size: int | None) -> float | None:
    return None if size is None else size / GIB


def _size(footprint: Footprint) -> tuple[float, float, float]:
    return footprint.cpu, _gib(footprint.memory), _gib(footprint.disk)  # type: ignore[return-value]  # one of None is in no table


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One result as the summary reads it, from a report or from the journal.

    Args:
        owner: as in ``Decision``.
        policy: likewise.
        reason: likewise, as a word.
        state: of the resource when it was decided about, like all that describes it.
        labels: the keys of its labels; None where they were not known.
        has_age: whether it was known when it was made.
        saving: None where that is not on record.
        failed: whether what was decided could not be done, as in ``Result``.
        freed: bytes, where that is known.
        look: the last look before it was touched.
        looks_recorded: whether looks are on record at all: an earlier version kept none.
    """

    endpoint: str
    owner: str | None
    policy: str | None
    reason: str
    kind: Kind
    state: State
    raw_state: str
    outcome: Outcome
    labels: Collection[str] | None
    has_age: bool
    failed: bool = False
    saving: Saving | None = None
    freed: int | None = None
    footprint: Footprint = UNKNOWN_FOOTPRINT
    look: LastLook | None = None
    looks_recorded: bool = True

    @classmethod
    def of(cls, result: Result) -> "Entry":
        """That of a report."""
        decision, resource = result.decision, result.decision.resource
        return cls(
            endpoint=resource.endpoint,
            owner=decision.owner,
            policy=decision.policy,
            reason=decision.reason.value,
            kind=resource.kind,
            state=resource.state,
            raw_state=resource.raw_state,
            outcome=result.outcome,
            labels=resource.labels,
            has_age=resource.created_at is not None,
            failed=result.failed,
            saving=decision.saving,
            freed=result.freed,
            footprint=resource.footprint,
            look=result.look,
        )

    @property
    def key(self) -> tuple[str, str, str]:
        """Endpoint, owner and policy, in words of which there are few."""
        return self.endpoint, short_owner(self.owner), self.policy or self._decider

    @property
    def _decider(self) -> str:
        of_lease = self.reason == Reason.LEASE_ENDED.value or (self.owner or "").startswith(_BY_LEASE)
        return LEASE if of_lease else OVERRIDE

    @property
    def touched(self) -> bool:
        """Whether something was done to it: this program has asked to delete it or to stop it."""
        acted = self.look is not None and self.look.acted
        return acted or self.outcome in (Outcome.DELETED, Outcome.STOPPED, Outcome.ARCHIVED)

    @property
    def violation(self) -> str | None:
        """Which rule that broke, by what is on record about it; None where it broke none.

        That one is ever found means that this program has a bug, or that its record was changed.
        """
        if not self.touched:
            return None
        look = self.look
        broken = {
            "no look at it is on record between the decision and its deletion": look is None and self.looks_recorded,
            f"the last look before it showed that it {look and look.differs}": look is not None and look.differs is not None,
            "nothing owned it": self.owner is None,
            "its labels were not known": self.labels is None,
            "when it was made was not known": not self.has_age,
            f"it carried the label {KEEP_LABEL}": KEEP_LABEL in (self.labels or ()),
            f"its state was {self.state}": self.state in (State.CHANGING, State.UNKNOWN),
        }
        return next((what for what, is_broken in broken.items() if is_broken), None)


_BY_LEASE = "lease "


def short_owner(owner: str | None) -> str:
    """What owned something in a word or two: the preset, the entry of [scope], or that a lease did."""
    words = (owner or "-").removeprefix("remembered: ").removesuffix(BY_CONTAINERS)
    if words.startswith(_BY_LEASE):
        return LEASE
    return in_a_word(words)


@dataclass(slots=True)
class Total:
    """What deletions were worth together.

    Args:
        leaks: how many were deleted.
        hours: for how many hours the containers and sandboxes among them would have gone on.
        waited: for how many hours they had been garbage, of those of which that is known.
        freed: bytes, and ``unmeasured`` of how many it is not known.
        cost: what was avoided; None where nothing had a price.
        failures: how many could not be deleted, or were denied.
        skipped: how many were left at the last look.
        violations: how many were touched against the rules: see ``Entry.violation``.
        unrecorded: how many of the touched ones cannot be judged so in full, since an earlier version kept no looks.
    """

    leaks: int = 0
    hours: float = 0.0
    waited: float = 0.0
    freed: int = 0
    unmeasured: int = 0
    cost: float | None = None
    failures: int = 0
    skipped: int = 0
    violations: int = 0
    unrecorded: int = 0

    def add(self, entry: Entry, prices: Prices) -> None:
        """Count one more."""
        self.failures += entry.failed
        self.skipped += entry.outcome is Outcome.SKIPPED
        self.violations += entry.violation is not None
        self.unrecorded += entry.touched and not entry.looks_recorded
        if entry.outcome is not Outcome.DELETED:
            return
        self.leaks += 1
        self.freed += entry.freed or 0
        self.unmeasured += entry.freed is None
        if entry.saving is not None:
            self.hours += avoided_hours(entry)
            self.waited += (entry.saving.waited or timedelta(0)) / HOUR
        if (cost := avoided_cost(entry, prices)) is not None:
            self.cost = (self.cost or 0.0) + cost

    def __iadd__(self, other: "Total") -> Self:
        """Both together."""
        for name in self.__slots__:
            mine, more = getattr(self, name), getattr(other, name)
            setattr(self, name, more if mine is None else mine + (more or 0))
        return self


def avoided_hours(entry: Entry) -> float:
    """For how many hours a container or sandbox that was deleted would have gone on; 0 for what has no processes."""
    return entry.saving.avoided / HOUR if entry.saving is not None and entry.kind.runs else 0.0


def avoided_cost(entry: Entry, prices: Prices) -> float | None:
    """What its deletion has saved; None where nothing about it has a price."""
    if entry.outcome is not Outcome.DELETED or entry.saving is None or (hourly := prices.hourly(entry)) is None:
        return None
    return hourly * (entry.saving.avoided / HOUR)


def money(cost: float | None, prices: Prices) -> str:
    """Such as "1,204.50 USD"; a dash where nothing had a price."""
    return "-" if cost is None else f"{cost:,.2f} {prices.currency}"
