"""Daytona organisations, over plain aiohttp.

Why not the SDK: ``daytona`` takes 0.75 s and 88 MiB to import, opens a socket.io connection, keeps every listed sandbox
for 300 s (four passes over 9,507 sandboxes grew a process from 180 to 447 MB), fails a whole list for one odd row and has
no time-outs. The generated client ``daytona_api_client_async`` stays flat but takes 0.28 s and 49 MiB, and only its raw
form survives odd rows, which leaves little of it. Listing the same sandboxes takes the SDK 1.5 s of processor time, the
generated client 0.23 s and this 0.05 s. The tests hold what is read here against the generated client's models.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from reaper.core.model import Kind, Resource, State
from reaper.core.safety_net import AUTO_STOP, Timer
from reaper.errors import DeniedError, DependencyError, InvalidError, NotFoundError, ProviderError, UnreadableError
from reaper.providers.abilities import Evidence
from reaper.providers.base import NOTHING_ELSE, Also, Call, Inventory, Limits, Listed, Traits
from reaper.providers.daytona.accepted import Accepted
from reaper.providers.daytona.current import Current
from reaper.providers.daytona.database import Database
from reaper.providers.daytona.http import CHANGE, READ, Api
from reaper.providers.daytona.links import Links
from reaper.providers.daytona.pages import pages
from reaper.providers.daytona.regions import Region
from reaper.providers.daytona.sandboxes import is_being_destroyed, sandbox
from reaper.providers.daytona.second_platform import SecondPlatform
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.masking import Mask
from reaper.providers.parsing import Row, clock_skew
from reaper.retry.budget import Budget

ROWS_AT_A_TIME = 25

MOST_PAGES = 10_000
FORKS_LISTED = 100  # the server names no more, in no order, and among them what it failed to destroy
LINK = "linkedSandboxId"
_ONLY_IN_FULL = frozenset({"env", "volumes"})  # what the rows of the newer listing do not have
_ONLY_BY_ID = frozenset({"buildInfo"})  # nor those of the older one: its Dockerfile


class DaytonaReader:
    """Lists and inspects what one organisation holds; has no method that changes anything.

    Args:
        organisation: its address, limits and pauses. Its ``api_url`` is known.
        key: the API key, which goes into one header and nowhere else.
        reading: the budget of listing and looking.
        changing: the budget of deleting and stopping.
    """

    provider = "daytona"

    def __init__(
        self, organisation: DaytonaTable, key: str, reading: Budget, changing: Budget, links: Links | None = None
    ) -> None:
        self.endpoint = organisation.name
        # The key identifies an organisation: a name is the operator's, and an empty organisation says no id.
        mark = hashlib.sha256(f"reaper {key}".encode()).hexdigest()[:16]
        self.identity = f"{organisation.api_url} with key {mark}"
        self.endpoint_id: str | None = hashlib.sha256(self.identity.encode()).hexdigest()[:32]
        self.limits = Limits(together=organisation.concurrency)
        self.traits = Traits(
            stops_first=False,
            confirm_within=organisation.confirm_within,
            kinds=frozenset({Kind.SANDBOX}),
            takes_linked=True,
            safety_net=None if organisation.safety_net is None else organisation.safety_net.net(),
        )
        self._organisation = organisation
        self._api = Api(organisation, key, {READ: reading, CHANGE: changing})
        self._region = Region(self._api, organisation.name, organisation.target)
        self._second = SecondPlatform(organisation, key) if organisation.v2_api_url else None
        self._skew = timedelta(0), timedelta(0)
        self._links = links or Links()
        self._has_links = True
        self._database = Database(self._api, self.endpoint, organisation.page_size)
        self._current = Current(
            self.endpoint,
            self._page,
            self._take,
            self.inspect,
            self._listed_state,
            add=lambda found, call: self._add_lacking(found, 0, call),
            add_newest=self._add_newest,
        )
        self._accepted = Accepted(Database(self._api, self.endpoint, organisation.page_size))

    async def list(
        self,
        call: Call,
        label_keys: frozenset[str] = frozenset(),  # noqa: ARG002
        also: Also = NOTHING_ELSE,  # noqa: ARG002
    ) -> Inventory:
        """Every sandbox of the organisation, page by page in the order of creation, each once.

        The default order follows activity, and rows are lost while it changes; this one repeats rows at most. What is
        created meanwhile comes at the end.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        inventory = await self._list(call)
        self._current.listed(inventory.resources, clock() - began)
        return await self._list(call) if await self._region.look_up(inventory.resources, call) else inventory

    async def _list(self, call: Call) -> Inventory:
        found: dict[str, Resource] = {}
        unreadable = 0
        async for page in pages(self.endpoint, self._page, {}, call):
            unreadable += await self._take(page, found)
        before = len(found)
        await self._add_lacking(found, unreadable, call)
        self._current.is_incomplete = len(found) > before
        self._links.forget_all_but(found.keys())
        self._links.save()
        skew, error = self._skew
        return Inventory(tuple(found.values()), skew, unreadable, error)

    async def _add_lacking(self, found: dict[str, Resource], unreadable: int, call: Call) -> None:
        """Add what the listing lacks, of which so many rows could not be read."""
        take = partial(self._take, found=found)
        await self._database.add_lacking(found, lambda: len(found) + unreadable, take, call)

    async def _add_newest(self, found: dict[str, Resource], listed: AbstractSet[str], call: Call) -> None:
        """Add what is newer than these, and which a listing of what is new lacks."""
        await self._database.add_newest(found.keys() | listed, partial(self._take, found=found), call)

    async def identify(self, call: Call) -> None:
        """Its address and its key say it all."""

    async def elsewhere(self) -> str | None:
        """See ``Elsewhere``: on Daytona's second platform."""
        return None if self._second is None else await self._second.look()

    async def _page(self, filters: Mapping[str, str], cursor: str) -> dict[str, Any]:
        """One page. A partial one is an error."""
        params = {"limit": str(self._organisation.page_size), "sort": "createdAt", "order": "asc", **filters}
        if cursor:
            params["cursor"] = cursor
        url = self._api.url
        try:
            asked = datetime.now(UTC)
            page, headers = await self._api.request("GET", "sandbox", READ, params)
        except NotFoundError as error:
            raise InvalidError(f"{url} is no Daytona API ({error}); its URL ends in /api as a rule") from error
        if "Date" in headers:
            self._skew = clock_skew(headers, asked, datetime.now(UTC))
        if isinstance(page, list):
            raise InvalidError(f"{url} lists without pages, as servers before release 0.180 do; reaper speaks to newer ones")
        if not isinstance(page, dict) or not isinstance(page.get("items"), list):
            raise UnreadableError(f"a page of the listing has no items; is {url} a Daytona API?")
        if not isinstance(page.setdefault("nextCursor", None), str | None):
            raise UnreadableError(f"a page of the listing of {url} has an odd cursor")
        return page

    async def _take(self, rows: Sequence[object], found: dict[str, Resource]) -> int:
        """Put a page's sandboxes into ``found``; returns how many rows have no id."""
        unreadable = 0
        for number, row in enumerate(rows):
            if number % ROWS_AT_A_TIME == 0:
                await asyncio.sleep(0)  # let others run, the request for the next page among them
            try:
                resource = sandbox(row, self.endpoint, self._links.known, self._region.id)
            except ValueError:
                unreadable += 1
                continue
            found[resource.id or f"row {len(found)}"] = resource  # one without an id keeps its session
        return unreadable

    async def inspect(self, resource: Resource) -> Resource:
        """The sandbox as GET by id shows it, which may be ten seconds old. Raises NotFoundError when it is gone."""
        row = await self._request("GET", resource.id, READ)
        try:
            fresh = sandbox(row, self.endpoint, target=self._region.id)
        except ValueError as error:
            raise UnreadableError(f"the answer to GET /sandbox/{resource.id} cannot be read: {error}") from error
        if fresh.id != resource.id and fresh.name == resource.id and await self._listed_state(resource.id) is None:
            # Nothing has this id, so the server took it for a name: one that is made again is called as the first one was.
            raise NotFoundError(
                f"sandbox {resource.id} is gone, and another one is called so [GET /sandbox/{resource.id}: 200]"
            )
        if fresh.id != resource.id:
            raise UnreadableError(f"the answer to GET /sandbox/{resource.id} is of another sandbox")
        if fresh.raw_state == "destroyed":  # an evicted one stays retrievable by id for a day
            raise NotFoundError(f"sandbox {resource.id} is destroyed [GET /sandbox/{resource.id}: 200]")
        self._links.learn(fresh)
        return fresh if resource.remembered is None else replace(fresh, remembered=resource.remembered)

    async def _request(self, method: str, id_: str, group: str, action: str = "") -> object:
        """Ask one thing of one sandbox. Raises NotFoundError when it is gone, and ProviderError.

        The server answers 404 also when its own look-up fails, since its guard makes that of every error. So a 404 is
        believed when a listing does not show the sandbox; where its deletion was accepted before, ``remainder`` tells.
        """
        try:
            answer, _ = await self._api.request(method, f"sandbox/{id_}{action}", group)
        except NotFoundError as error:
            if id_ not in self._accepted and (state := await self._listed_state(id_)) is not None:
                raise UnreadableError(f"{error}, and the listing shows it as {state}") from error
            raise
        return answer

    async def _listed_state(self, id_: str) -> str | None:
        """The state in which a listing shows the sandbox; None when it does not show it, or as being destroyed.

        The older form of the listing reads the database. The newer one may read an index, which lags, and may never learn
        that a sandbox is gone: it is asked where the server does not have the older one.
        """
        params = {"page": "1", "limit": str(self._organisation.page_size), "id": id_}
        try:
            page, _ = await self._api.request("GET", "sandbox/paginated", READ, params)
        except (NotFoundError, InvalidError, DeniedError, UnreadableError):
            page = None
        rows = page.get("items") if isinstance(page, dict) else None
        total = page.get("total") if isinstance(page, dict) else None
        if not isinstance(rows, list) or not isinstance(total, int) or total > len(rows):  # or it knows no such filter
            rows = (await self._page({"id": id_}, ""))["items"]
        named = (row for row in rows if isinstance(row, dict) and row.get("id") == id_)
        return next((str(row.get("state")) for row in named if not is_being_destroyed(row)), None)

    async def remainder(self, resource: Resource, call: Call) -> str | None:
        """See ``HidesFailures``. Its deletion may have been accepted without an answer, or be that of a stop."""
        if resource.id not in self._accepted and resource.state is not State.FAILED:
            self._accepted.add(resource.id, None)
        return await self._accepted.remainder(resource.id, call)

    async def members(self, resource: Resource, call: Call) -> Sequence[Resource]:
        """The Harbor session as it is listed now."""
        return await self._current.members(resource, call)

    async def links(self, call: Call) -> Mapping[str, frozenset[str]]:
        """What each sandbox is linked to, by the older form of the listing, whose rows are what GET by id answers.

        Some servers do not have it any more. That its rows say as much as GET by id is tried on one of them.
        """
        limit = self._organisation.page_size
        found_links: dict[str, frozenset[str]] = {}
        learned: list[Resource] = []
        number, pages = 1, 1
        with suppress(ProviderError, ValueError):
            while number <= min(pages, MOST_PAGES) and self._has_links:
                params = {"page": str(number), "limit": str(limit)}
                request = partial(self._api.request, "GET", "sandbox/paginated", READ, params)
                page, _ = await call(f"list links on {self.endpoint}, page {number}", request)
                rows = page.get("items") if isinstance(page, dict) else None
                total = page.get("totalPages") if isinstance(page, dict) else None
                if not isinstance(rows, list) or not isinstance(total, int):
                    self._has_links = False
                    break
                if number == 1 and rows:
                    self._has_links = await self._is_whole(rows[0], call)
                if self._has_links:
                    for row in rows:
                        with suppress(ValueError):
                            found = sandbox(row, self.endpoint)
                            if self._links.known.get(found.id, found.uses) != found.uses:
                                self._has_links = False  # GET by id has shown otherwise
                                return {}
                            found_links[found.id] = found.uses
                            learned.append(found)
                number, pages = number + 1, total
        for found in learned:
            self._links.learn(found)
        return found_links

    async def _is_whole(self, row: object, call: Call) -> bool:
        """Whether a row of the older listing has all that GET by id shows of the same sandbox."""
        named = sandbox(row, self.endpoint)
        assert isinstance(row, dict)
        if not named.id or not row.keys() >= _ONLY_IN_FULL:
            return False
        whole, _ = await call(
            f"inspect sandbox {named.name}", partial(self._api.request, "GET", f"sandbox/{named.id}", READ)
        )
        return isinstance(whole, dict) and whole.keys() ^ row.keys() <= _ONLY_BY_ID and whole.get(LINK) == row.get(LINK)

    async def dependents(self, resources: Sequence[Resource], listed: Listed, call: Call) -> Sequence[Resource]:
        """What was created since the listing and is linked to one of these, or of its session."""
        return await self._current.dependents(resources, listed, call)

    async def renew(self, listed: Listed, call: Call) -> None:
        """See ``Renewing``: the sessions, and what was created since the listing."""
        await self._current.renew(listed, call)

    async def evidence(self, resource: Resource, lines: int) -> Evidence:  # noqa: ARG002 - the platform keeps no log
        """What GET by id shows: state, error, sizes, times and labels."""
        row = await self._request("GET", resource.id, READ)
        if not isinstance(row, dict) or row.get("id") != resource.id:
            raise UnreadableError(f"the answer to GET /sandbox/{resource.id} is of another sandbox")
        told = {key: value for key, value in row.items() if key not in _ONLY_BY_ID}
        return Evidence(Mask().inspection(told), note="the platform keeps no log of a sandbox")

    async def close(self) -> None:
        """Close the connections."""
        self._links.save()
        await self._api.close()
        if self._second is not None:
            await self._second.close()


class DaytonaProvider(DaytonaReader):
    """A reader that can also stop and delete, by id only: names are reused, and change on deletion."""

    async def stop(self, resource: Resource, grace: timedelta) -> None:  # noqa: ARG002 - the platform has its own
        """Stop it; an ephemeral one is destroyed by that. Returns when the server has accepted it.

        Raises DependencyError for an ephemeral one of which forks live: only its deletion would be refused for them.
        """
        if resource.lost_when_stopped is not False:
            await self._check_forks(resource.id, "a stop would destroy it")
        await self._request("POST", resource.id, CHANGE, "/stop")

    async def _check_forks(self, id_: str, why: str) -> None:
        """Raise DependencyError for a sandbox of which forks live."""
        forks = await self._forks(id_)
        if living := [str(row.get("id")) for row in forks if not is_being_destroyed(row)]:
            raise DependencyError(f"{why}, and of its forks {', '.join(living)} are there")
        if len(forks) >= FORKS_LISTED:
            raise DependencyError(f"{why}, and it has more forks than the server lists, of which some may be there")

    async def _forks(self, id_: str) -> Sequence[Row]:
        """Its forks; none where the server does not know that route, and so no forks. Raises ProviderError."""
        try:
            rows = await self._request("GET", id_, READ, "/forks")
        except (NotFoundError, UnreadableError) as error:
            if "Cannot GET" in str(error):
                return ()
            raise
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UnreadableError(f"the answer to GET /sandbox/{id_}/forks is no list of sandboxes")
        return rows

    async def archive(self, resource: Resource) -> None:
        """Archive it. The server refuses what has not stopped and what is ephemeral, accepts, and archives afterwards.

        Raises DependencyError for one of which forks live: its runner destroys it as for a deletion, which would be refused.
        """
        await self._check_forks(resource.id, "archiving destroys it on its runner")
        await self._request("POST", resource.id, CHANGE, "/archive")

    async def set_timer(self, resource: Resource, timer: Timer) -> None:
        """Set an interval in minutes. The server takes it in any state, and whatever the interval was before.

        Raises DependencyError for one of which forks live: its timers, unlike a deletion, destroy it all the same.
        """
        await self._check_forks(resource.id, "the platform's timers would destroy it")
        route = "autostop" if timer.name == AUTO_STOP else "autodelete"
        await self._request("POST", resource.id, CHANGE, f"/{route}/{timer.minutes}")

    async def delete(self, resource: Resource, *, force: bool = False) -> None:  # noqa: ARG002 - nothing is refused here
        """Delete it. The server accepts, and destroys afterwards."""
        self._accepted.add(resource.id, await self._request("DELETE", resource.id, CHANGE))
