"""What an organisation holds now: the sessions as they are, and what was created since the listing.

A listing for each session would cost a request for each sandbox, and lags as much. So one answers for all that ask while
it is fresh.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise

from reaper.core.identity import same_group
from reaper.core.model import Resource
from reaper.errors import NotFoundError
from reaper.providers.base import Call, Listed
from reaper.providers.daytona.kept import Kept
from reaper.providers.daytona.pages import Ask, pages, parameter, twice

SHARED_VIEW = 5.0  # seconds for which one listing answers for the sessions of all tasks
SHARED_NEWS = 1.0  # likewise for what was created since the listing
OVERLAP = timedelta(minutes=2)  # the servers of one organisation may date a creation differently, and list it late
SLOW = 20.0  # seconds; a listing that takes longer is read in parts the next time, at the same time
PARTS = 8
LEAST = 100  # rows of each part

Rows = Callable[[Sequence[object], dict[str, Resource]], Awaitable[object]]

Adding = Callable[[dict[str, Resource], Call], Awaitable[None]]


class Current:
    """Answers about the present.

    Args:
        endpoint: its name, for messages.
        ask: asks for one page, by filters and cursor.
        read: puts the sandboxes of some rows into a table.
        inspect: looks at one.
        state: asks a listing for one by its id: its state, or None.
        add: adds to a table what the listing lacks.
        add_newest: likewise what was created last, and is none of those whose ids are given.

    Attributes:
        is_incomplete: whether the last listing had to be added to.
    """

    def __init__(
        self,
        endpoint: str,
        ask: Ask,
        read: Rows,
        inspect: Callable[[Resource], Awaitable[Resource]],
        state: Callable[[str], Awaitable[str | None]],
        *,
        add: Adding,
        add_newest: Callable[[dict[str, Resource], AbstractSet[str], Call], Awaitable[None]],
    ) -> None:
        self._endpoint = endpoint
        self._ask = ask
        self._read = read
        self._inspect = inspect
        self._state = state
        self._add = add
        self._add_newest = add_newest
        self._view: Kept[Mapping[str, Sequence[Resource]]] = Kept(lambda took: took + max(SHARED_VIEW, 2 * took))
        self._news: Kept[Sequence[Resource]] = Kept(lambda _: SHARED_NEWS)
        self.is_incomplete = False
        self._sweep: object = None
        self._newest: datetime | None = None
        self._edges: Sequence[datetime] = ()

    def listed(self, found: Sequence[Resource], seconds: float) -> None:
        """All has been listed, in so many seconds: an older view of the sessions may lack what this listing has."""
        self._sweep, self._edges = object(), ()
        times = sorted(resource.created_at for resource in found if resource.created_at is not None)
        self._newest = times[-1] if times else None
        if seconds > SLOW and len(times) >= PARTS * LEAST:
            self._edges = [times[number * len(times) // PARTS] for number in range(1, PARTS)]

    async def members(self, resource: Resource, call: Call) -> Sequence[Resource]:
        """The Harbor session of this one as it is listed now.

        The listing is fresh for five seconds, or twice the time that it took.
        """
        if resource.group is None:
            return (resource,)
        view = await self._view.get(self._sweep, self._read_view(call), call)
        if not any(listed.id == resource.id for listed in view.get(resource.group, ())) and (
            await call(f"look for sandbox {resource.name}", partial(self._state, resource.id)) is not None
        ):
            self._view.doubt(view)  # it is not gone: that listing was not whole
            view = await self._view.get(self._sweep, self._read_view(call), call)
        return tuple(listed for listed in view.get(resource.group, ()) if same_group(listed, resource))

    def _read_view(self, call: Call) -> Callable[[Call], Awaitable[Mapping[str, Sequence[Resource]]]]:
        """All sessions as they are listed now. It takes many pages, so none begins another one meanwhile."""

        async def read(_: Call) -> Mapping[str, Sequence[Resource]]:
            view: dict[str, list[Resource]] = {}
            found = await self._all(call)
            if self.is_incomplete or self._may_end_early(found.values()):
                await self._add(found, call)
            for listed in found.values():
                if listed.group is not None:
                    view.setdefault(listed.group, []).append(listed)
            return view

        return read

    def _may_end_early(self, found: Iterable[Resource]) -> bool:
        """Whether what was listed before may be missing at the end of a listing, or of one of its parts.

        The server reads a page of the database by two queries. Where one of its rows is destroyed between them, it names
        no next page although there is one.
        """
        newest = max((at for resource in found if (at := resource.created_at) is not None), default=None)
        return bool(self._edges) or (self._newest is not None and (newest is None or newest < self._newest))

    async def _all(self, call: Call) -> dict[str, Resource]:
        """All that there is, in parts by the time of creation where one listing after the other would take too long.

        Each page waits for the one before it, and for its retries. Raises ProviderError.
        """
        found: dict[str, Resource] = {}

        async def part(after: datetime | None, before: datetime | None) -> bool:
            filters = {"createdAtAfter": after, "createdAtBefore": before}
            given = {name: parameter(at) for name, at in filters.items() if at is not None}
            async for page in pages(self._endpoint, self._ask, given, twice(call) if given else call):
                rows: dict[str, Resource] = {}
                await self._read(page, rows)
                first = next((row.created_at for row in rows.values() if row.created_at is not None), None)
                if None not in (first, after) and first < after:  # type: ignore[operator]
                    return False  # the server does not know the filters
                found.update(rows)
            return True

        parts = [asyncio.ensure_future(part(*edge)) for edge in pairwise((None, *self._edges, None))]
        try:
            whole = await asyncio.gather(*parts)
        finally:
            for one in parts:
                one.cancel()
        if all(whole):
            return found
        self._edges = ()
        return await self._all(call)

    async def dependents(self, resources: Sequence[Resource], listed: Listed, call: Call) -> Sequence[Resource]:
        """What was created since the listing and is linked to one of these, or of its session.

        One listing of the newest ones answers for all who ask within a second, and each is asked for its link once.
        """
        news = await self._news.get(listed, self._read_news(listed, call), call)
        ids = {resource.id for resource in resources}
        return [new for new in news if new.uses & ids or any(same_group(new, resource) for resource in resources)]

    def _read_news(self, listed: Listed, call: Call) -> Callable[[Call], Awaitable[Sequence[Resource]]]:
        """What was created since the listing, as it is now, with its links."""

        async def read(listing: Call) -> Sequence[Resource]:
            found: dict[str, Resource] = {}
            filters = {}
            if listed.newest is not None:  # only an optimisation: whatever comes back is compared with what was listed
                filters["createdAtAfter"] = parameter(listed.newest - OVERLAP)
            async for page in pages(self._endpoint, self._ask, filters, listing):
                await self._read(page, found)
            await self._add_newest(found, listed.ids, listing)
            fresh = []
            for resource in found.values():
                if resource.id in listed.ids:
                    continue
                try:
                    linked = resource
                    if not resource.links_known:
                        linked = await call(f"inspect sandbox {resource.name}", partial(self._inspect, resource))
                except NotFoundError:
                    continue
                fresh.append(linked)
            return fresh

        return read

    async def renew(self, listed: Listed, call: Call) -> None:
        """See ``Renewing``."""
        await asyncio.gather(
            self._view.renew(self._read_view(call), call), self._news.renew(self._read_news(listed, call), call)
        )
