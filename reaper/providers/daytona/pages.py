"""The pages of the listing, one after the other, in the order of creation, until it has surely come to its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from reaper.errors import ProviderError, UnreadableError
from reaper.providers.base import Call
from reaper.providers.parsing import moment

FRUITLESS_PAGES = 20  # so many pages in a row without a new row: the cursor goes round in a circle

T = TypeVar("T")
Page = dict[str, Any]
Ask = Callable[[Mapping[str, str], str], Awaitable[Page]]


async def pages(endpoint: str, ask: Ask, filters: Mapping[str, str], call: Call) -> AsyncIterator[Sequence[object]]:
    """The rows of one page after the other; the next page is on its way while the rows of one are read.

    A server that cannot make sense of a cursor answers with an empty page, which looks like the end: a search index and
    the database have different ones. So behind an empty page the listing is asked, without a cursor, for what was created
    since the newest row that was seen, and goes on there when that has new ones.

    Args:
        endpoint: its name, for messages.
        ask: asks for one page, by filters and cursor.
        filters: parameters of every page.
        call: makes each request.

    Raises:
        ProviderError: a page could not be read, or the listing does not end.
    """
    seen: set[str] = set()
    newest: datetime | None = None
    number, fruitless, cursor = 1, 0, ""
    page = await call(f"list {endpoint}, page 1", partial(ask, filters, ""))
    while fruitless < FRUITLESS_PAGES:
        number, before, asked = number + 1, len(seen), cursor
        following = None
        if cursor := page["nextCursor"]:
            what = f"list {endpoint}, page {number}"
            following = asyncio.ensure_future(twice(call)(what, partial(ask, filters, cursor)))
        try:
            yield page["items"]
            if following is None and (page["items"] or not asked):
                return
            rows = [row for row in page["items"] if isinstance(row, dict)]
            seen.update(str(row["id"]) for row in rows if "id" in row)
            newest = max([*_times(rows), *([] if newest is None else [newest])], default=None)
            if following is not None:
                page = await following
        finally:
            if following is not None:
                following.cancel()
        if following is None:
            if newest is None:
                raise UnreadableError(f"page {number - 1} of the listing of {endpoint} is empty, and may not be its end")
            filters = {**filters, "createdAtAfter": parameter(newest)}
            page = await twice(call)(f"list {endpoint}, page {number}", partial(ask, filters, ""))
            rows = [row for row in page["items"] if isinstance(row, dict)]
            is_whole = not page["nextCursor"] or min(_times(rows), default=newest) < newest  # else it knows no such filter
            if is_whole and all(str(row.get("id")) in seen for row in rows):
                return
        fruitless = 0 if len(seen) > before else fruitless + 1
    raise UnreadableError(f"the listing of {endpoint} does not end")


def parameter(at: datetime) -> str:
    """A time as the server takes it in a query."""
    return f"{at.replace(tzinfo=None).isoformat()}Z"


def _times(rows: Iterable[Mapping[str, object]]) -> Iterable[datetime]:
    """When these were created, as far as that can be read."""
    for row in rows:
        with suppress(ValueError):
            if (created := moment(row.get("createdAt"))) is not None:
                yield created


def twice(call: Call) -> Call:
    """With twice the attempts: for a page when others have come, and are lost without it."""

    async def again(what: str, function: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call(what, function)
        except ProviderError as error:
            if not error.retryable:
                raise
        return await call(what, function)

    return again
