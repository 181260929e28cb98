"""Deleted means confirmed: where deletions are immediate, one complete listing at the end shows that nothing is left."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime

from reaper.core.model import Kind, Resource
from reaper.errors import NotFoundError, ProviderError
from reaper.providers.abilities import WatchesUse
from reaper.providers.base import Also, Inventory, Reader
from reaper.sweep.concurrency import for_each
from reaper.sweep.inspector import Inspector


class Absence:
    """Confirms that deleted resources are absent.

    Args:
        deleted: the resources by their ids.
        kept: those that this sweep has left alone.
        since: when all of them were listed, on the endpoint's clock.

    Attributes:
        there: ids of all that is listed at the end; None before it has looked, and where the listing may lack containers.
        unconfirmed: label and detail of the failure of each that is not confirmed, by id: all of them before it has looked.
    """

    def __init__(
        self,
        reader: Reader,
        inspector: Inspector,
        deleted: Mapping[str, Resource],
        kept: Collection[Resource],
        since: datetime,
    ) -> None:
        # Of a build cache the endpoint's answer has named what was pruned, and there is always more of it.
        deleted = {id_: resource for id_, resource in deleted.items() if resource.kind is not Kind.BUILD_CACHE}
        self._reader, self._inspector, self._deleted = reader, inspector, deleted
        self._since = since
        self.there: frozenset[str] | None = None
        self._gap = "has nothing of what was kept"
        self._kept: dict[Kind, set[object]] = {}
        for resource in kept:
            self._kept.setdefault(resource.kind, set()).add(resource.identity)
        self.unconfirmed = dict.fromkeys(deleted, ("unconfirmed", "the sweep ended before its deletion was confirmed"))

    async def look(self, keys: Collection[str], also: Also) -> None:
        """List once, with what a listing of volumes and images needs. Raises ProviderError."""
        others = any(not resource.kind.runs for resource in self._deleted.values())
        try:
            inventory = await self._reader.list(
                self._inspector.list_call, frozenset(keys) if others else frozenset(), also if others else Also()
            )
        except ProviderError as error:
            failed = error.label, f"its deletion could not be confirmed: {error}"
            self.unconfirmed = dict.fromkeys(self._deleted, failed)
            raise
        listed = {resource.identity for resource in inventory.resources}
        absent = [id_ for id_ in self._deleted if self._is_absent(id_, inventory, listed)]
        doubtful = {kind for kind, kept in self._kept.items() if kept.isdisjoint(listed)}  # an empty list shows nothing
        if not inventory.is_complete:
            doubtful, self._gap = set(Kind), "has a row without an id"
        if Kind.CONTAINER not in doubtful:
            self.there = frozenset(resource.id for resource in inventory.resources)
        unsure = sorted(id_ for id_ in absent if self._deleted[id_].kind in doubtful)
        for id_ in set(absent).difference(unsure):
            del self.unconfirmed[id_]
        await self._find_returned(listed)
        limits = self._reader.limits
        await for_each(unsure, self._inspect, min(len(unsure), limits.together or limits.reads), "confirm")

    def _is_absent(self, id_: str, inventory: Inventory, listed: Collection[object]) -> bool:
        resource = self._deleted[id_]
        if (why := inventory.unlisted.get(resource.kind)) is not None:
            self.unconfirmed[id_] = "unconfirmed", f"its deletion could not be confirmed: {why}"
            return False
        if resource.identity in listed:
            self.unconfirmed[id_] = "still_listed", "the endpoint accepted its deletion and still lists it"
            return False
        return True

    async def _find_returned(self, listed: Collection[object]) -> None:
        """A pull brings back the id of an image, and a project the name of a volume: what the endpoint has deleted went."""
        may_return = (Kind.IMAGE, Kind.VOLUME)
        ids = [id_ for id_, one in self._deleted.items() if one.kind in may_return and one.identity in listed]
        if not ids or not isinstance(self._reader, WatchesUse):
            return
        with suppress(ProviderError):
            told = (await self._reader.uses(None, self._inspector.list_call)).deleted
            for id_ in ids:
                if id_ in told and told[id_] >= self._since:
                    del self.unconfirmed[id_]

    async def _inspect(self, id_: str) -> None:
        """The listing does not show what is there: only what is not found by its id is gone."""
        resource = self._deleted[id_]
        try:
            found = await self._inspector.inspect_call(
                f"confirm {resource.kind} {resource.name}", lambda: self._reader.inspect(resource)
            )
        except NotFoundError:
            del self.unconfirmed[id_]
            return
        except ProviderError as error:
            why = f"its inspection failed: {error}"
        else:
            if found.identity != resource.identity:  # another one of its name
                del self.unconfirmed[id_]
                return
            why = f"its inspection says {found.raw_state}"
        what = f"its deletion could not be confirmed: the listing at the end {self._gap}, and {why}"
        self.unconfirmed[id_] = "unconfirmed", what
