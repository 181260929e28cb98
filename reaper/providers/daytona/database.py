"""What the search index lacks, by the older form of the listing, which reads the database.

The newer form may read an index. That lags, may never have learnt of a sandbox, and answers 200 although one of its shards
did not. A sandbox that it lacks would not only stay for good: it would keep neither its session nor what it is linked to.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

from reaper.errors import CredentialsError, ProviderError, RateLimitedError
from reaper.providers.base import Call
from reaper.providers.daytona.http import READ, Api
from reaper.providers.daytona.sandboxes import id_of, is_being_destroyed
from reaper.providers.parsing import Row

WITHIN = 15.0  # seconds for a page: the sweep is done without it
TRIES = 2
NOT_BEFORE = 600.0  # seconds until it is asked again where it gave no answer
MOST_PAGES = 10_000
NEWEST = 50  # rows of a page, where only what is new is asked for

Take = Callable[[Sequence[object]], Awaitable[object]]


class _Page(NamedTuple):
    rows: list[object]
    total: int
    pages: int

    def lacking(self, listed: Container[str]) -> Sequence[object]:
        """The rows that are not listed."""
        return [row for row in self.rows if (id_ := id_of(row)) and id_ not in listed]


class Database:
    """The older form of the listing, which some servers do not have any more.

    Args:
        api: makes the requests.
        endpoint: its name, for messages.
        limit: the rows of a page.
    """

    def __init__(self, api: Api, endpoint: str, limit: int) -> None:
        self._api = api
        self._endpoint = endpoint
        self._limit = limit
        self._not_before = -math.inf

    async def add_lacking(
        self,
        listed: Container[str],
        count: Callable[[], int],
        take: Take,
        call: Call,
    ) -> None:
        """Let ``take`` have the rows that are not listed.

        Its first page has the newest ones, so that what was created in the meantime costs one request. The others are asked
        for while it has more than are listed: one request, as a rule.

        Args:
            listed: the ids of what the newer form lists, and of what was taken.
            count: how many these are.
            take: takes rows that are not among them.
            call: makes each request.

        Raises:
            CredentialsError: the key is refused.
        """

        async def add(page: _Page) -> bool:
            await take(page.lacking(listed))
            return count() < page.total

        await self._walk(self._limit, add, call)

    async def add_newest(self, listed: Container[str], take: Take, call: Call) -> None:
        """Likewise the newest of them only: up to the first of its pages that has none."""

        async def add(page: _Page) -> bool:
            lacking = page.lacking(listed)
            await take(lacking)
            return bool(lacking)

        await self._walk(NEWEST, add, call)

    async def being_destroyed(self, wanted: Container[str], call: Call) -> Mapping[str, Row]:
        """By id the rows of those that are to be destroyed and are not, also of those that could not be; never raises.

        All that is to be destroyed is called DESTROYED_ and its former name. What was written last comes first.
        """
        found: dict[str, Row] = {}

        async def add(page: _Page) -> bool:
            own = [row for row in page.rows if isinstance(row, dict) and id_of(row) in wanted]
            found.update((id_of(row), row) for row in own if is_being_destroyed(row))
            return bool(own)

        filters = {"name": "DESTROYED_", "includeErroredDeleted": "true", "sort": "updatedAt", "order": "desc"}
        with suppress(ProviderError):
            await self._walk(self._limit, add, call, filters)
        return found

    async def _walk(
        self,
        limit: int,
        go_on: Callable[[_Page], Awaitable[bool]],
        call: Call,
        filters: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """One page after the other, while there are more and ``go_on`` wants them."""
        for number in range(1, MOST_PAGES + 1):
            page = await self._page(number, limit, call, filters)
            if page is None or not await go_on(page) or number >= page.pages:
                return

    async def _page(self, number: int, limit: int, call: Call, filters: Mapping[str, str]) -> _Page | None:
        """None where there is none to be had: what the newer form has listed is all that is known then."""
        clock = asyncio.get_running_loop().time
        if clock() < self._not_before:
            return None
        tries = 0

        async def ask() -> _Page | None:
            nonlocal tries
            tries += 1
            if tries > TRIES:  # this form is not worth the time of all tries, nor a failure of the endpoint
                return None
            params = {"page": str(number), "limit": str(limit), **filters}
            try:
                async with asyncio.timeout(WITHIN):
                    page, _ = await self._api.request("GET", "sandbox/paginated", READ, params)
            except (CredentialsError, RateLimitedError):
                raise
            except (TimeoutError, ProviderError) as error:
                if tries < TRIES and isinstance(error, ProviderError) and error.retryable:
                    raise
                return None
            return _read(page)

        found = None
        try:
            what = f"is being destroyed on {self._endpoint}" if filters else f"the index of {self._endpoint} lacks"
            found = await call(f"list what {what}, page {number}", ask)
        except CredentialsError:
            raise
        except ProviderError:
            pass  # no other try was allowed
        if found is None:
            self._not_before = clock() + NOT_BEFORE
        return found


def _read(page: object) -> _Page | None:
    if not isinstance(page, dict):
        return None
    rows, total, pages = page.get("items"), page.get("total"), page.get("totalPages")
    if not isinstance(rows, list) or not isinstance(total, int) or not isinstance(pages, int):
        return None
    return _Page(rows, total, pages)
