"""What an endpoint in memory holds, what goes wrong with it, and what it was asked."""

import copy
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import anyio

from reaper.core.model import Kind, Resource, State
from reaper.errors import NotFoundError

Clock = Callable[[], datetime]


@dataclass
class VirtualClock:
    """A wall clock that shows ``start`` when it is first read and then runs as fast as the event loop's clock does."""

    start: datetime
    origin: float | None = None

    def __call__(self) -> datetime:
        """The aware time now. Needs a running event loop."""
        self.origin = anyio.current_time() if self.origin is None else self.origin
        return self.start + timedelta(seconds=anyio.current_time() - self.origin)


@dataclass
class Held:
    """One thing that the endpoint holds.

    Args:
        resource: as an inspection shows it.
        stop_seconds: how long it takes to stop by itself; infinity ignores the signal and is killed at the grace.
        removal_seconds: how long its removal takes; until then it is still there, as ``removing``.
        blocks: while its removal is under way, others to stop or delete it are answered only when it has ended (Docker 26).
        auto_remove: it goes by itself when it stops (``docker run --rm``).
        links: ids of what it depends on besides ``resource.uses``, which only an inspection shows (another's PID namespace).
        stops_at: the loop's time at which a stop that is under way will have ended it; ``gone_at`` likewise for a removal.
    """

    resource: Resource
    stop_seconds: float = 0.0
    removal_seconds: float = 0.0
    blocks: bool = False
    auto_remove: bool = False
    links: frozenset[str] = frozenset()
    stops_at: float = math.inf
    gone_at: float = math.inf


@dataclass
class Call:
    """One call that was made, in the loop's time; ``ended`` is None while it is under way."""

    method: str
    name: str
    began: float
    ended: float | None = None


@dataclass
class Rule:
    """Something happens at some calls.

    Args:
        method: "list", "identify", "inspect", "members", "dependents", "stop" or "delete".
        resource: an id or a name; None means any.
        calls: which of the calls that fit, counted from 1; None means all.
        error: is raised in place of an answer; ``hang`` lets none ever come. What was asked for is not ``done``, or is.
        seconds: more latency.
        before: changes the world when the call arrives; ``after`` when its answer is on its way.
    """

    method: str
    resource: str | None = None
    calls: Container[int] | None = None
    error: Exception | None = None
    hang: bool = False
    done: bool = False
    seconds: float = 0.0
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None
    seen: int = field(default=0, init=False)

    def applies(self, method: str, resource: Resource | None) -> bool:
        """Whether it is for this call, which is counted if it fits."""
        same = self.resource is None or (resource is not None and self.resource in (resource.id, resource.name))
        fits = self.method == method and same
        self.seen += fits
        return fits and (self.calls is None or self.seen in self.calls)

    async def go_wrong(self) -> None:
        """Raise the error, or never return."""
        if self.error is not None:
            raise copy.copy(self.error)  # one that is raised twice would collect both tracebacks
        if self.hang:
            await anyio.sleep_forever()


class MemoryWorld:
    """What an endpoint holds, what goes wrong with it, and what was asked of it. Readers and providers may share one.

    Args:
        clock: the host's clock; the endpoint's own is ``skew`` ahead of it.
        latency: seconds that every call takes; it takes effect half-way.
        skew: the endpoint's clock minus the host's.

    Attributes:
        arrived_at: when images were pulled, loaded or tagged, as the endpoint's events tell it.
        used_ids: what was used for a moment, in order; ``forgotten`` counts how often the endpoint has lost that.
        untold: kinds of which it does not tell that.
        rules: what happens at calls; empty it, and nothing goes wrong any more.
        calls: every call that was made.
        removals: every deletion that was accepted: the resource as it was then, and whether force was used.
        deleted_at: when each was deleted by its id, as the endpoint's events tell it.
        most: how many calls of a method were under way at once, at the most.
    """

    def __init__(
        self, things: Iterable[Resource | Held], clock: Clock, *, latency: float = 0.01, skew: timedelta = timedelta(0)
    ) -> None:
        self.clock, self.latency, self.skew = clock, latency, skew
        self.rules: list[Rule] = []
        self.calls: list[Call] = []
        self.removals: list[tuple[Resource, bool]] = []
        self.deleted_at: dict[str, datetime] = {}
        self.most, self._under_way = Counter[str](), Counter[str]()
        self.used_ids: list[str] = []
        self.arrived_at: dict[str, datetime] = {}
        self.forgotten = 0
        self.untold: frozenset[Kind] = frozenset()
        self._held: dict[str, Held] = {}
        for thing in things:
            self.add(thing)

    def use(self, *ids: str) -> None:
        """Something uses these for a moment, unseen by any listing."""
        self.used_ids += ids

    def pull(self, *ids: str) -> None:
        """Images are pulled that may be there already, which changes nothing of them that is listed."""
        self.use(*ids)
        self.arrived_at |= dict.fromkeys(ids, self.now())

    def forget_uses(self) -> None:
        """The endpoint no longer knows what was used until now, as an engine that was started again."""
        self.forgotten += 1

    def now(self) -> datetime:
        """The endpoint's own clock."""
        return self.clock() + self.skew

    def add(self, thing: Resource | Held) -> None:
        """Create it, as another client."""
        held = thing if isinstance(thing, Held) else Held(thing)
        self._held[held.resource.id] = held

    def held(self) -> tuple[Held, ...]:
        """Everything that is there now."""
        return tuple(held for held in tuple(self._held.values()) if self._is_there(held))

    def get(self, which: str) -> Resource | None:
        """The resource with this id or name as it is now, None when there is none."""
        return next((held.resource for held in self._called(which)), None)

    def change(self, which: str, change: Callable[[Resource], Resource]) -> None:
        """Change the resource with this id or name, as another client; nothing happens when it is gone or going."""
        for held in self._called(which):
            if held.gone_at == math.inf:
                held.resource, before = change(held.resource), held.resource
                held.stops_at = held.stops_at if held.resource.state is before.state else math.inf

    def start(self, which: str) -> None:
        """Start it again, as another client."""
        now = self.now()
        self.change(which, lambda r: replace(r, state=State.RUNNING, raw_state="running", started_at=now, stopped_at=None))

    def halt(self, which: str) -> None:
        """End it, by itself or by another client."""
        self.change(which, lambda r: replace(r, state=State.STOPPED, raw_state="exited", stopped_at=self.now()))

    def remove(self, which: str) -> None:
        """Remove it at once, as another client."""
        for held in self._called(which):
            del self._held[held.resource.id]

    def _called(self, which: str) -> list[Held]:
        return [held for held in self.held() if which in (held.resource.id, held.resource.name)]

    def _is_there(self, held: Held) -> bool:
        """Let what is under way happen as far as it has come by now."""
        now = anyio.current_time()
        if held.stops_at <= now:
            ended = self.now() - timedelta(seconds=now - held.stops_at)
            raw = "stopped" if held.resource.kind is Kind.SANDBOX else "exited"
            held.resource = replace(held.resource, state=State.STOPPED, raw_state=raw, stopped_at=ended)
            held.gone_at = held.stops_at if held.auto_remove or held.resource.lost_when_stopped else math.inf
            held.stops_at = math.inf
        if held.gone_at <= now:
            self._held.pop(held.resource.id, None)
        return held.gone_at > now

    def made(self, method: str, name: str | None = None) -> list[Call]:
        """The calls of one method so far, on the resource of that name if one is given."""
        return [call for call in self.calls if call.method == method and name in (None, call.name)]

    @asynccontextmanager
    async def call(self, method: str, resource: Resource | None = None) -> AsyncIterator[None]:
        """What is done within is one call, and what goes wrong with it happens. For readers and providers."""
        call = Call(method, resource.name if resource else "", anyio.current_time())
        self.calls.append(call)
        self._under_way[method] += 1
        self.most[method] = max(self.most[method], self._under_way[method])
        rules = [rule for rule in self.rules if rule.applies(method, resource)]
        try:
            await anyio.sleep(self.latency / 2 + sum(rule.seconds for rule in rules))
            for rule in rules:
                if rule.before:
                    rule.before()
                if not rule.done:
                    await rule.go_wrong()
            yield
            for rule in rules:
                if rule.after:
                    rule.after()
                await rule.go_wrong()
            await anyio.sleep(self.latency / 2)
        finally:
            self._under_way[method] -= 1
            call.ended = anyio.current_time()

    def find(self, resource: Resource) -> Held:
        """What is held under the resource's id. Raises NotFoundError."""
        held = self._held.get(resource.id)
        if held is None or not self._is_there(held):
            raise NotFoundError(f"No such {resource.kind}: {resource.id}")
        return held

    def used(self, resource: Resource) -> bool:
        """Whether a container, running or not, has it: then a volume or an image cannot be deleted."""
        return any(h.resource.kind.runs and resource.id in h.resource.uses for h in self.held())

    def attached(self, network: Resource) -> bool:
        """Whether a running container is on the network: then it cannot be deleted."""
        return any(h.resource.state is State.RUNNING and network.id in h.resource.uses for h in self.held())
