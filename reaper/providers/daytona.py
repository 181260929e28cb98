"""Daytona organisations, over plain aiohttp.

Why not the SDK: ``daytona`` takes 0.75 s and 88 MiB to import, opens a socket.io connection, keeps every listed sandbox
for 300 s (four passes over 9,507 sandboxes grew a process from 180 to 447 MB), fails a whole list for one odd row and has
no time-outs. The generated client ``daytona_api_client_async`` stays flat but takes 0.28 s and 49 MiB, and only its raw
form survives odd rows, which leaves little of it. Listing the same sandboxes takes the SDK 1.5 s of processor time, the
generated client 0.23 s and this 0.05 s. The tests hold what is read here against the generated client's models.
"""

import asyncio
import json
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from reaper import __version__
from reaper.addresses import authority
from reaper.budget import Budget
from reaper.endpoints import DaytonaTable
from reaper.errors import (
    ConfigError,
    CredentialsError,
    DeniedError,
    InProgressError,
    InvalidError,
    LaterError,
    NotFoundError,
    ProviderError,
    RateLimitedError,
    ServerError,
    UnavailableError,
    UnreadableError,
)
from reaper.identity import same_group
from reaper.model import Kind, Resource
from reaper.providers.base import Call, Inventory, Limits, Traits
from reaper.providers.daytona_rows import sandbox
from reaper.providers.headers import clock_skew, retry_after

if TYPE_CHECKING:
    import aiohttp

READ = "authenticated"
CHANGE = "sandbox-lifecycle"
FRUITLESS_PAGES = 20  # so many pages in a row without a new row: the cursor goes round in a circle
ROWS_AT_A_TIME = 25
SHARED_VIEW = 5.0  # seconds for which one listing answers for the sessions of all tasks
UNTOLD_SILENCE = 60.0  # after a 429 that does not say for how long

_STATUS: Mapping[int, type[ProviderError]] = {
    401: CredentialsError,
    403: DeniedError,
    404: NotFoundError,
    # "state change in progress" and "modified by another operation" both say that somebody is at work on it.
    409: InProgressError,
}


class DaytonaReader:
    """Lists and inspects what one organisation holds; has no method that changes anything.

    Args:
        organisation: where it is and how it wants to be treated. Its ``api_url`` is known.
        key: the API key, which goes into one header and nowhere else.
        reading: the budget of listing and looking.
        changing: the budget of deleting and stopping.
    """

    provider = "daytona"

    def __init__(self, organisation: DaytonaTable, key: str, reading: Budget, changing: Budget) -> None:
        assert organisation.api_url is not None
        self.endpoint = organisation.name
        self.identity = f"{organisation.api_url} {organisation.name}"
        self.limits = Limits(together=organisation.concurrency)
        self.traits = Traits(stops_first=False, confirm_within=organisation.confirm_within, kinds=frozenset({Kind.SANDBOX}))
        self._url = organisation.api_url
        self._organisation = organisation
        self._key = key
        self._budgets = {READ: reading, CHANGE: changing}
        self._session: aiohttp.ClientSession | None = None
        self._headers: dict[str, str] = {}
        self._proxy_headers: dict[str, str] = {}
        self._skew = timedelta(0)
        self._links: dict[str, frozenset[str]] = {}  # what is linked to what never changes
        self._view: dict[str, list[Resource]] = {}
        self._view_until = 0.0
        self._viewing = asyncio.Lock()

    async def list(self, call: Call, label_keys: frozenset[str] = frozenset()) -> Inventory:  # noqa: ARG002
        """Every sandbox of the organisation, page by page in the order of creation, each once.

        The default order follows activity, and rows are lost while it changes; this one repeats rows at most. What is
        created meanwhile comes at the end.
        """
        found: dict[str, Resource] = {}
        unreadable, number, fruitless = 0, 1, 0
        page = await call(f"list {self.endpoint}, page 1", partial(self._page, ""))
        while fruitless < FRUITLESS_PAGES:
            number, before = number + 1, len(found)
            following = None
            if cursor := page["nextCursor"]:  # on its way while this page's rows are read
                following = asyncio.ensure_future(call(f"list {self.endpoint}, page {number}", partial(self._page, cursor)))
            try:
                unreadable += await self._take(page["items"], found)
                if following is None:
                    self._links = {id_: links for id_, links in self._links.items() if id_ in found}
                    return Inventory(tuple(found.values()), self._skew, unreadable)
                page = await following
            finally:
                if following is not None:
                    following.cancel()
            fruitless = 0 if len(found) > before else fruitless + 1
        raise UnreadableError(f"the listing of {self.endpoint} does not end")

    async def _page(self, cursor: str) -> dict[str, Any]:
        """One page. A partial one is an error."""
        params = {"limit": str(self._organisation.page_size), "sort": "createdAt", "order": "asc"}
        if cursor:
            params["cursor"] = cursor
        try:
            page = await self._request("GET", "sandbox", READ, params)
        except NotFoundError as error:
            raise InvalidError(f"{self._url} is no Daytona API ({error}); its URL ends in /api as a rule") from error
        if not isinstance(page, dict) or not isinstance(page.get("items"), list):
            raise UnreadableError(f"a page of the listing has no items; is {self._url} a Daytona API?")
        if not isinstance(page.setdefault("nextCursor", None), str | None):
            raise UnreadableError("a page of the listing has an odd cursor")
        return page

    async def _take(self, rows: Sequence[object], found: dict[str, Resource]) -> int:
        """Put a page's sandboxes into ``found``; returns how many rows cannot even be told apart."""
        unreadable = 0
        target = self._organisation.target
        for number, row in enumerate(rows):
            if number % ROWS_AT_A_TIME == 0:
                await asyncio.sleep(0)  # let others run, the request for the next page among them
            try:
                resource = sandbox(row, self.endpoint, self._links)
            except ValueError:
                unreadable += 1
                continue
            assert isinstance(row, dict)
            if target is None or row.get("target") == target:
                found[resource.id or f"row {len(found)}"] = resource  # one without an id keeps its session
        return unreadable

    async def inspect(self, resource: Resource) -> Resource:
        """The sandbox as GET by id shows it, which may be ten seconds old. Raises NotFoundError when it is gone."""
        row = await self._request("GET", f"sandbox/{resource.id}", READ)
        try:
            fresh = sandbox(row, self.endpoint)
        except ValueError as error:
            raise UnreadableError(f"the answer cannot be read: {error}") from error
        if fresh.id != resource.id:
            raise UnreadableError("the answer is of another sandbox")
        self._links[fresh.id] = fresh.uses
        return replace(fresh, remembered=resource.remembered)

    async def members(self, resource: Resource, call: Call) -> Sequence[Resource]:
        """The Harbor session as it is listed now.

        One listing answers for the sessions of all tasks that ask while it is fresh: for five seconds, or twice the time
        that it took. A listing for each session would cost a request for each sandbox, and lags as much.
        """
        if resource.group is None:
            return (resource,)
        clock = asyncio.get_running_loop().time
        async with self._viewing:
            if clock() >= self._view_until:
                began = clock()
                view: dict[str, list[Resource]] = {}
                for listed in (await self.list(call)).resources:
                    if listed.group is not None:
                        view.setdefault(listed.group, []).append(listed)
                self._view = view
                self._view_until = clock() + max(SHARED_VIEW, 2 * (clock() - began))
        return tuple(listed for listed in self._view.get(resource.group, ()) if same_group(listed, resource))

    async def dependents(self, resources: Sequence[Resource], call: Call) -> Sequence[Resource]:  # noqa: ARG002
        """Nothing: the sandboxes that are linked to these are looked for before anything is decided."""
        return ()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _request(self, method: str, path: str, group: str, params: Mapping[str, str] | None = None) -> object:
        """One request: its answer's JSON, or one of our errors."""
        session = self._connect()
        asked_at = asyncio.get_running_loop().time()
        status, headers, body = await self._send(session, method, f"{self._url}/{path}", params)
        self._observe(headers, asked_at)
        if params is not None and "Date" in headers:  # a listing, whose ages are told by that clock
            self._skew = clock_skew(headers)
        if status >= 300:
            self._raise(status, headers, body, group)
        try:
            return json.loads(body) if body else None
        except (ValueError, RecursionError) as error:
            raise UnreadableError(f"the answer of {self._url} is no JSON") from error

    async def _send(
        self, session: "aiohttp.ClientSession", method: str, url: str, params: Mapping[str, str] | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer."""
        import aiohttp  # noqa: PLC0415 - loaded with the session

        try:
            async with session.request(
                method, url, params=params, headers=self._headers, proxy_headers=self._proxy_headers, allow_redirects=False
            ) as answer:
                return answer.status, answer.headers, await answer.read()
        except TimeoutError:
            failure = UnavailableError("the server did not answer in time")
        except aiohttp.ClientHttpProxyError as error:
            failure = UnavailableError(f"the proxy answered {error.status} {error.message}")
        except aiohttp.ClientResponseError as error:
            failure = UnreadableError(f"what {self._url} answers is no HTTP: {error.message}")
        except (aiohttp.ClientError, OSError) as error:
            failure = UnavailableError(f"the connection to {self._url} failed: {error}")
        # Not from aiohttp's error: its repr has the request's headers, the key among them, and the proxy's password.
        raise failure

    def _connect(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp  # noqa: PLC0415

            proxy, credentials = _proxy(self._url)
            # aiohttp sends the session's own headers to the proxy, too, so the key is given with each request.
            self._headers = {"Authorization": f"Bearer {self._key}"}
            if credentials is not None:
                # Through a tunnel it is for the proxy alone; without one there is just one request for both.
                target = self._proxy_headers if self._url.startswith("https:") else self._headers
                target["Proxy-Authorization"] = credentials
            self._session = aiohttp.ClientSession(
                # The limits above this client bound it.
                connector=aiohttp.TCPConnector(limit=0, ssl=authority(self._organisation)),
                headers={"User-Agent": f"reaper/{__version__}"},
                timeout=aiohttp.ClientTimeout(),  # whoever calls has one
                proxy=proxy,
                cookie_jar=aiohttp.DummyCookieJar(),  # nothing here lives on cookies, and keeping them takes time
            )
            # aiohttp would repeat a request whose connection broke, DELETE included, unseen by budgets and reports.
            self._session._retry_connection = False  # noqa: SLF001 - there is no other way to say so
        return self._session

    def _observe(self, headers: Mapping[str, str], asked_at: float) -> None:
        """Read the budgets from an answer."""
        for group, budget in self._budgets.items():
            with suppress(KeyError, ValueError):
                limit, remaining = (int(headers[f"X-RateLimit-{name}-{group}"]) for name in ("Limit", "Remaining"))
                reset = float(headers[f"X-RateLimit-Reset-{group}"])
                if math.isfinite(reset):  # nobody waits for ever for a window's end
                    budget.observe(limit, remaining, reset, asked_at)

    def _raise(self, status: int, headers: Mapping[str, str], body: bytes, group: str) -> NoReturn:
        told = _message(body)
        message = told or f"the server answered {status}"
        if status == 429:
            raise _rate_limited(message, headers, group)
        if status == 401:
            raise CredentialsError(
                f"{self._url} refuses the API key ({message}); it must be a valid key of the organisation"
            )
        if status == 400 and "fork children" in message:
            raise LaterError(message)
        if status == 404 and not told:
            # A gateway that has lost its way says this, too, and it must not pass for the end of a sandbox.
            raise InvalidError(f"{self._url} answered 404, and not as Daytona does; its URL ends in /api as a rule")
        if known := _STATUS.get(status):
            raise known(message)
        if status >= 500:
            raise ServerError(
                f"the server answered {status}: {message}", retry_after=retry_after(headers.get("Retry-After"))
            )
        if status < 400:
            raise InvalidError(f"{self._url} redirects to {_host(headers.get('Location'))}; name that in api_url")
        raise InvalidError(f"the server answered {status}: {message}")


class DaytonaProvider(DaytonaReader):
    """A reader that can also stop and delete, by id only: names are reused, and change on deletion."""

    async def stop(self, resource: Resource, grace: timedelta) -> None:  # noqa: ARG002 - the platform has its own
        """Stop it; an ephemeral one is destroyed by that. Returns when the server has accepted it."""
        await self._request("POST", f"sandbox/{resource.id}/stop", CHANGE)

    async def delete(self, resource: Resource, *, force: bool = False) -> None:  # noqa: ARG002 - nothing is refused here
        """Delete it. The server accepts, and destroys afterwards."""
        await self._request("DELETE", f"sandbox/{resource.id}", CHANGE)


def _rate_limited(message: str, headers: Mapping[str, str], group: str) -> RateLimitedError:
    """A 429 of one limit group names it; a plain one is for wrong keys, and stands for all from this address."""
    own = retry_after(headers.get(f"Retry-After-{group}"))
    if own is not None:
        return RateLimitedError(message, retry_after=own)
    others = (retry_after(headers.get(name)) for name in (f"Retry-After-{READ}", f"Retry-After-{CHANGE}", "Retry-After"))
    seconds = next((seconds for seconds in others if seconds is not None), UNTOLD_SILENCE)
    return RateLimitedError(message, retry_after=seconds, everything=True)


def _proxy(url: str) -> tuple[str | None, str | None]:
    """The proxy of the environment (HTTPS_PROXY, NO_PROXY), and what its header Proxy-Authorization says.

    aiohttp's ``trust_env`` asks for it in a thread at each request, and reads ~/.netrc, which may overrule our key.
    """
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - loaded by aiohttp

    from yarl import URL  # noqa: PLC0415

    parts = urlsplit(url)
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    if not found or proxy_bypass(parts.hostname or ""):
        return None, None
    try:
        proxy = URL(found if "://" in found else f"http://{found}")
    except ValueError:
        proxy = URL()
    if proxy.scheme not in ("http", "https") or not proxy.host:
        # It may hold a password, so it is not repeated.
        raise ConfigError(
            f"the environment's proxy for {parts.scheme}://{parts.hostname} is no http proxy",
            f'set {parts.scheme.upper()}_PROXY to a URL such as "http://proxy:3128", or name the host in NO_PROXY',
        )
    credentials = None
    if proxy.user:
        pair = f"{proxy.user}:{proxy.password or ''}"
        credentials = f"Basic {b64encode(pair.encode()).decode()}"
    return str(proxy.with_user(None)), credentials


def _host(location: str | None) -> str:
    with suppress(ValueError):
        parts = urlsplit(location or "")
        if parts.hostname:
            return f"{parts.scheme}://{parts.hostname}"
    return "somewhere else"


def _message(body: bytes) -> str:
    """The message of the envelope that every error comes in."""
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    message = envelope.get("message") if isinstance(envelope, dict) else None
    if isinstance(message, list):
        message = "; ".join(str(part) for part in message)
    return message[:500] if isinstance(message, str) else ""
