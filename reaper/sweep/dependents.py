"""What goes with a resource that is deleted although it is not part of its unit: sandboxes that are linked to it.

The links of what is reaped come out as each unit is looked at again. So the units of a round go in an order, what may be
linked before what it may be linked to, and none deletes anything before what is linked to it has gone.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

import anyio

from reaper.core.model import Resource
from reaper.errors import NotFoundError, ProviderError
from reaper.retry.resting import Resting
from reaper.sweep.context import each

MOST_ASKED = 3  # so often in a round one is asked for its links that was not looked at: until then nothing older can go


class Dependents:
    """What is known of the links in one sweep, and the order of the units in each of its rounds. Units have keys.

    Args:
        resting: counts the units that wait for others to be inspected.
    """

    def __init__(self, resting: Resting) -> None:
        self._resting = resting
        self._place: dict[str, int] = {}
        self._inspected: list[bool] = []
        self._all_before = 0  # all units before this place have been inspected
        self._ended: set[str] = set()
        self._seen: set[str] = set()
        self._linked: dict[str, dict[str, tuple[str, Resource]]] = {}  # by owner and id: the unit and what is linked
        self._unseen: dict[str, tuple[str, Resource]] = {}  # what was not looked at may be linked to any
        self._asked: dict[str, int] = {}
        self._asking = anyio.Lock(fast_acquire=True)
        self._turns: dict[int, anyio.Event] = {}  # of those who wait until all before their place have been inspected
        self._news = anyio.Event()

    def begin(self, units: Mapping[str, Sequence[Resource]]) -> None:
        """A round begins, in which these units begin in this order. None waits for one whose links are known already.

        Args:
            units: by key the members.
        """
        self._place = {key: place for place, key in enumerate(units)}
        self._inspected = [False] * len(units)
        self._all_before = 0
        self._turns = {}
        self._ended = set()
        self._asked = {}
        for key, members in units.items():
            if all(resource.links_known for resource in members):
                for resource in members:
                    self.saw(key, resource)
                self.inspected(key)

    def saw(self, key: str, resource: Resource) -> None:
        """A member of the unit uses this now."""
        self._seen.add(resource.id)
        for owner in resource.uses:
            self._linked.setdefault(owner, {})[resource.id] = (key, resource)

    def gone(self, id_: str) -> None:
        """There is no such resource any more."""
        self._seen.add(id_)

    def inspected(self, key: str) -> None:
        """All members of the unit have been looked at."""
        self._inspected[self._place[key]] = True
        while self._all_before < len(self._inspected) and self._inspected[self._all_before]:
            self._all_before += 1
            if (turn := self._turns.pop(self._all_before, None)) is not None:
                turn.set()

    def ended(self, key: str, members: Iterable[Resource]) -> None:
        """The unit will do nothing more in this round; these are its members."""
        for resource in members:
            if resource.id in self._seen:
                self._unseen.pop(resource.id, None)
            elif resource.links_known:
                self.saw(key, resource)
            else:
                self._unseen[resource.id] = (key, resource)
        self._ended.add(key)
        self.inspected(key)
        self._news.set()
        self._news = anyio.Event()

    async def linked_to(
        self, key: str, ids: Collection[str], inspect: Callable[[Resource], Awaitable[Resource]]
    ) -> list[Resource]:
        """What is linked to these members of the unit, or may be, without belonging to it.

        Waits until the units of these that began before this one have ended, and never for a later one.

        Args:
            key: of the unit.
            ids: of its members.
            inspect: looks at one whose unit has ended before it was looked at.
        """
        if self._all_before < (place := self._place[key]):
            with self._resting.one():
                await self._turns.setdefault(place, anyio.Event()).wait()
        async with self._asking:
            while asked := [one for _, one in self._unseen.values() if self._asked.get(one.id, 0) < MOST_ASKED]:
                await each(asked, lambda one: self._ask(one, inspect))
        found = [*self._unseen.values(), *(entry for id_ in ids for entry in self._linked.get(id_, {}).values())]
        found = [(other, resource) for other, resource in found if other != key]
        before = {other for other, _ in found if self._place.get(other, len(self._place)) < place}
        while not before <= self._ended:
            await self._news.wait()
        return [resource for _, resource in found]

    async def _ask(self, resource: Resource, inspect: Callable[[Resource], Awaitable[Resource]]) -> None:
        key, _ = self._unseen[resource.id]
        try:
            self.saw(key, await inspect(resource))
        except NotFoundError:
            self.gone(resource.id)
        except ProviderError:
            self._asked[resource.id] = self._asked.get(resource.id, 0) + 1
            return
        self._unseen.pop(resource.id, None)
