"""Those who look at an endpoint in memory, and act on it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import anyio

from reaper.core.identity import same_group
from reaper.core.model import Kind, Resource, State
from reaper.errors import ConflictError, DependencyError, InProgressError
from reaper.providers import base
from reaper.providers.abilities import DiskMeter, Uses
from reaper.providers.base import Inventory, Limits, Traits
from reaper.providers.memory.world import Held, MemoryWorld
from reaper.providers.sharing import Shared


class MemoryReader:
    """Looks at a world; has no method that changes anything. See ``providers.base.Reader`` for its methods."""

    provider = "memory"

    def __init__(
        self, world: MemoryWorld, endpoint: str = "local", limits: Limits | None = None, traits: Traits | None = None
    ) -> None:
        self.world, self.endpoint, self.identity = world, endpoint, f"memory://{endpoint}"
        self.endpoint_id: str | None = self.identity
        self.limits, self.traits = limits or Limits(), traits or Traits()
        self.meter: DiskMeter | None = None
        self._now: Shared[Sequence[Resource]] = Shared()

    async def list(
        self, call: base.Call, label_keys: frozenset[str] = frozenset(), also: base.Also = base.NOTHING_ELSE
    ) -> Inventory:
        """All resources; of a container the listing has neither times nor restart policy, nor what is on a network."""
        return await call(f"list {self.endpoint}", lambda: self._list(label_keys, also))

    async def _list(self, label_keys: frozenset[str], also: base.Also) -> Inventory:
        async with self.world.call("list"):
            listed = tuple(_listed(held.resource) for held in self.world.held() if _wanted(held.resource, label_keys, also))
        return Inventory(listed, self.world.skew)

    async def uses(self, since: str | None, call: base.Call) -> Uses:
        """What was used since that look, if the endpoint still knows all of it."""
        return await call(f"read the uses of {self.endpoint}", lambda: self._uses(since))

    async def _uses(self, since: str | None) -> Uses:
        world = self.world
        async with world.call("uses"):
            forgotten, number = map(int, (since or "-1 0").split())
            mark = f"{world.forgotten} {len(world.used_ids)}"
            told = frozenset(world.used_ids[number:])
            arrived = {id_: at for id_, at in world.arrived_at.items() if id_ in told}
            return Uses(told, forgotten == world.forgotten, mark, {**world.deleted_at}, world.untold, arrived)

    async def identify(self, call: base.Call) -> None:
        """It is known, where it answers."""
        await call(f"identify {self.endpoint}", self._identify)

    async def _identify(self) -> None:
        async with self.world.call("identify"):
            pass

    async def inspect(self, resource: Resource) -> Resource:
        """The resource with that id."""
        async with self.world.call("inspect", resource):
            held = self.world.find(resource)
            fresh = replace(held.resource, uses=held.resource.uses | held.links)
            if fresh.kind is Kind.NETWORK and self.world.attached(fresh):
                fresh = replace(fresh, state=State.RUNNING, raw_state="attached")
        return replace(fresh, inspected=True, remembered=resource.remembered, inherited=resource.inherited)

    async def members(self, resource: Resource, call: base.Call) -> Sequence[Resource]:
        """The containers of the resource's group."""
        if resource.group is None:
            return (resource,)
        return await call(f"list group {resource.group}", lambda: self._members(resource))

    async def _members(self, resource: Resource) -> Sequence[Resource]:
        async with self.world.call("members", resource):
            listed = tuple(_listed(held.resource) for held in self.world.held())
        return tuple(m for m in listed if same_group(m, resource) and m.kind.runs)

    async def dependents(
        self,
        resources: Sequence[Resource],
        listed: base.Listed,  # noqa: ARG002
        call: base.Call,
    ) -> Sequence[Resource]:
        """What uses one of these or runs in its group, whether it was there at the listing or has come since."""
        ids = {resource.id for resource in resources}
        held = await self._now.get(self._dependents, call)
        return tuple(one for one in held if one.uses & ids or (one.kind.runs and any(same_group(one, r) for r in resources)))

    async def _dependents(self, call: base.Call) -> Sequence[Resource]:
        async def listed() -> Sequence[Resource]:
            async with self.world.call("dependents"):
                return [replace(_listed(held.resource), uses=held.resource.uses | held.links) for held in self.world.held()]

        return await call(f"list dependents on {self.endpoint}", listed)

    async def close(self) -> None:
        """Nothing is open."""


class MemoryProvider(MemoryReader):
    """A reader that can also act on its world. See ``providers.base.Provider`` for its methods."""

    async def stop(self, resource: Resource, grace: timedelta) -> None:
        """Takes the container's own time, at most the grace. A paused one does not hear the signal."""
        async with self.world.call("stop", resource):
            held = await self._unless_removed(resource)
            if held.gone_at < math.inf:
                raise ConflictError(f"{resource.name} is being removed")
            if held.resource.state is State.RUNNING:
                own = math.inf if held.resource.raw_state == "paused" else held.stop_seconds
                held.stops_at = min(held.stops_at, anyio.current_time() + min(own, grace.total_seconds()))
                if self.traits.stops_first:
                    await anyio.sleep_until(held.stops_at)

    async def archive(self, resource: Resource) -> None:
        """Archive a sandbox that has stopped, at once."""
        async with self.world.call("archive", resource):
            held = self.world.find(resource)
            if held.resource.raw_state != "stopped" or held.resource.lost_when_stopped:
                raise ConflictError(f"{resource.name} is not stopped, or ephemeral")
            held.resource = replace(held.resource, raw_state="archived", last_activity_at=self.world.now())

    async def delete(self, resource: Resource, *, force: bool = False) -> None:
        """Takes the resource's ``removal_seconds``; another deletion meanwhile gets the engine's conflict."""
        async with self.world.call("delete", resource):
            held = await self._unless_removed(resource)
            if held.gone_at < math.inf:
                raise InProgressError(f"removal of {resource.kind} {resource.id} is already in progress")
            if held.resource.kind is Kind.NETWORK and self.world.attached(held.resource):
                raise ConflictError(f"{resource.name} has active endpoints")
            if len(held.resource.tags) > 1:
                raise ConflictError(f"{resource.name} is referenced in multiple repositories")
            if held.resource.kind.opt_in and self.world.used(held.resource):
                raise DependencyError(f"{resource.name} is in use")
            if held.resource.state is State.RUNNING and not force and self.traits.stops_first:
                raise ConflictError(f"You cannot remove a running container {resource.id}")
            self.world.removals.append((held.resource, force))
            self.world.deleted_at[resource.id] = self.world.now()
            held.gone_at, held.stops_at = anyio.current_time() + held.removal_seconds, math.inf
            held.resource = replace(held.resource, state=State.CHANGING, raw_state="removing")
            if self.traits.confirm_within is None:
                await anyio.sleep_until(held.gone_at)

    async def _unless_removed(self, resource: Resource) -> Held:
        held = self.world.find(resource)
        while held.blocks and held.gone_at < math.inf:
            await anyio.sleep_until(held.gone_at)
            held = self.world.find(resource)
        return held


def _wanted(resource: Resource, label_keys: frozenset[str], also: base.Also) -> bool:
    if not resource.kind.opt_in or resource.kind in also.kinds or label_keys & (resource.labels or {}).keys():
        return True
    return resource.id in also.ids or (also.projects and resource.group is not None)


def _listed(resource: Resource) -> Resource:
    if resource.layers:
        return replace(resource, layers=(), tagged_at=None, inspected=False)
    if resource.kind is not Kind.CONTAINER:
        return resource
    links_known = resource.raw_state in ("removing", "dead")
    return replace(resource, started_at=None, stopped_at=None, restart_policy=None, inspected=False, links_known=links_known)
