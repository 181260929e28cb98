"""One Daytona organisation over HTTP: its requests, what limits them, and its errors as this program's own."""

import asyncio
import math
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from reaper import __version__
from reaper.errors import (
    ConfigError,
    CredentialsError,
    DeniedError,
    DependencyError,
    InProgressError,
    InvalidError,
    NotFoundError,
    ProviderError,
    RateLimitedError,
    ServerError,
    TooManyFilesError,
    UnavailableError,
    UnreadableError,
)
from reaper.providers.answers import message, no_connection, parsed, read_bounded, refuse_redirect, text
from reaper.providers.daytona.address import authority
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.parsing import retry_after
from reaper.retry.budget import Budget

if TYPE_CHECKING:
    import aiohttp

READ = "authenticated"
CHANGE = "sandbox-lifecycle"
DEFAULT_COOLDOWN = 60.0  # seconds, after a 429 that does not say for how long
LARGEST_ANSWER = 32 << 20  # bytes; a page of 200 sandboxes has a hundredth of that

_STATUS: Mapping[int, type[ProviderError]] = {
    401: CredentialsError,
    403: DeniedError,
    404: NotFoundError,
    # "state change in progress" and "modified by another operation" both say that another client is at work on it.
    409: InProgressError,
}
# With 403, of a good key as well: the server could not read its own database or cache to know whose it is.
_UNKNOWN_CALLER = "Invalid authentication context"
_REMEDIES: Mapping[int, str] = {
    401: "it must be a valid key of the organisation",
    403: "the key needs the permission for it, or a proxy on the way denies it",
    404: "its URL ends in /api as a rule",
}


class Api:
    """Makes the requests.

    Args:
        organisation: where it is. Its ``api_url`` is known.
        key: the API key, which goes into one header and nowhere else.
        budgets: by limit group.
        is_second: it is to be Daytona's second platform.
    """

    def __init__(
        self, organisation: DaytonaTable, key: str, budgets: Mapping[str, Budget], *, is_second: bool = False
    ) -> None:
        assert organisation.api_url is not None
        self.url = organisation.api_url
        self._name = organisation.name
        self._organisation = organisation
        self._key = key
        self._budgets = budgets
        self._is_second = is_second
        self._session: aiohttp.ClientSession | None = None
        self._headers: dict[str, str] = {}
        self._proxy_headers: dict[str, str] = {}

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self, method: str, path: str, group: str, params: Mapping[str, str] | None = None
    ) -> tuple[object, Mapping[str, str]]:
        """Make one request; returns its answer's JSON and headers.

        Args:
            method: in capitals.
            path: below the API's URL, without a slash at its beginning.
            group: the limit group that the request counts in.
            params: the query.

        Raises:
            ProviderError: whatever went wrong.
        """
        session = self._connect()
        asked_at = asyncio.get_running_loop().time()
        status, headers, body = await self._send(session, method, path, params)
        self._observe(headers, asked_at)
        if status >= 300:
            self._raise(f"{method} /{path}", status, headers, body, group)
        try:
            return parsed(body) if body else None, headers
        except (ValueError, RecursionError) as error:
            hint = f", but a web page; {_REMEDIES[404]}" if body.lstrip().startswith(b"<") else ""
            raise UnreadableError(f"the answer of {self.url} to {method} /{path} is no JSON{hint}") from error

    async def _send(
        self, session: "aiohttp.ClientSession", method: str, path: str, params: Mapping[str, str] | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer."""
        import aiohttp  # noqa: PLC0415 - loaded with the session

        try:
            async with session.request(
                method,
                f"{self.url}/{path}",
                params=params,
                headers=self._headers,
                proxy_headers=self._proxy_headers,
                allow_redirects=False,
            ) as answer:
                return answer.status, answer.headers, await read_bounded(answer, f"{method} /{path}", LARGEST_ANSWER)
        except TimeoutError:
            failure: ProviderError = UnavailableError(f"{self.url} did not answer {method} /{path} in time")
        except aiohttp.ClientHttpProxyError as error:
            failure = UnavailableError(
                f"the proxy answered {error.status} {error.message} for {self.url}; check HTTPS_PROXY and NO_PROXY"
            )
        except aiohttp.ClientResponseError as error:
            failure = UnreadableError(f"what {self.url} answers is no HTTP: {error.message}")
        except (aiohttp.ClientError, OSError) as error:
            local = TooManyFilesError.of(error.errno, self.url) if isinstance(error, OSError) else None
            failure = local or UnavailableError(f"the connection to {self.url} failed: {_why(error)}")
        # Not from aiohttp's error: its repr has the request's headers, the key among them, and the proxy's password.
        raise failure

    def _connect(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp  # noqa: PLC0415

            proxy, credentials = _proxy(self.url)
            # aiohttp sends the session's own headers to the proxy, too, so the key is given with each request.
            self._headers = {"Authorization": f"Bearer {self._key}"}
            if credentials is not None:
                # Through a tunnel it is for the proxy alone; without one there is just one request for both.
                target = self._proxy_headers if self.url.startswith("https:") else self._headers
                target["Proxy-Authorization"] = credentials
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=authority(self._organisation)),  # bounded above this client
                headers={"User-Agent": f"reaper/{__version__}", "Accept-Encoding": "gzip, deflate"},
                auto_decompress=False,  # its size is bounded as it is decompressed
                timeout=aiohttp.ClientTimeout(),  # the caller has one
                proxy=proxy,
                cookie_jar=aiohttp.DummyCookieJar(),  # nothing here lives on cookies, and keeping them takes time
            )
            # aiohttp would repeat a request whose connection broke, DELETE included, unseen by budgets and reports.
            self._session._retry_connection = False  # noqa: SLF001 - there is no other way to say so
        return self._session

    def _observe(self, headers: Mapping[str, str], asked_at: float) -> None:
        """Read the budgets from an answer."""
        for group, budget in self._budgets.items():
            if (said := headers.get(f"X-RateLimit-Limit-{group}")) is None:
                continue
            with suppress(KeyError, ValueError):
                limit, remaining = int(said), int(headers[f"X-RateLimit-Remaining-{group}"])
                reset = float(headers[f"X-RateLimit-Reset-{group}"])
                if math.isfinite(reset):  # a window's end is not waited for for ever
                    budget.observe(limit, remaining, reset, asked_at)

    def _raise(self, request: str, status: int, headers: Mapping[str, str], body: bytes, group: str) -> NoReturn:
        """Raise the error that an answer other than 2xx stands for. Its text names the request and the status."""
        refuse_redirect(request, self.url, status, headers, f"api_url of endpoint {self._name}")
        detail = message(body)
        if not self._is_second and _is_of_second_platform(body):
            raise InvalidError(
                f"{self.url} is the API of Daytona's second platform, which reaper does not speak ({request} was answered"
                f" {status}): nothing there is seen or deleted. For the first platform unset DAYTONA_API_URL, or mend"
                " api_url"
            )
        if status == 410:
            raise InvalidError(
                f"{self.url} is gone: {request} was answered 410 ({detail or 'without a reason'}); the organisation may have"
                " moved to Daytona's second platform, which reaper does not speak"
            )
        if status == 429:
            raise _rate_limited(detail or f"{request} was answered 429", headers, group)
        if status == 404 and not detail:
            # A gateway that has lost its way says this, too, and it must not pass for the end of a sandbox.
            raise InvalidError(f"{self.url} answered {request} with 404, and not as Daytona does; {_REMEDIES[404]}")
        reason = detail or text(body)
        if status == 400 and "fork children" in detail:
            raise DependencyError(f"{detail} [{request}: 400]")
        if status == 401:
            said = f" ({reason})" if reason else ""
            raise CredentialsError(f"{self.url} refuses the API key{said}: {request} was answered 401; {_REMEDIES[401]}")
        kind = _STATUS.get(status) or (ServerError if status >= 500 else InvalidError)
        if status == 403 and detail == _UNKNOWN_CALLER:
            kind = ServerError
        if reason:
            words = (
                f"{reason} [{request}: {status}]"
                if status in _STATUS
                else f"the server answered {status}: {reason} [{request}]"
            )
        else:
            remedy = _REMEDIES.get(status, "the log of the server, or of the proxy before it, may say why")
            words = f"{request} was answered {status} without a reason; {remedy}"
        raise kind(words, retry_after=retry_after(headers.get("Retry-After")) if status >= 500 else None)


def _is_of_second_platform(body: bytes) -> bool:
    """Whether an error is in the envelope of that platform: a code and the service in place of a status."""
    try:
        error = parsed(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(error, dict) and error.get("source") == "DAYTONA_API" and "code" in error and "statusCode" not in error


def _rate_limited(message: str, headers: Mapping[str, str], group: str) -> RateLimitedError:
    """A 429 of one limit group names it; a plain one is for wrong keys, and stands for all from this address.

    A group that is not known here is one of the request's own: newer servers count listings apart, as "sandbox-list".
    """
    named: dict[str, float] = {}
    for name, value in headers.items():
        _, is_named, its_group = name.lower().partition("retry-after-")
        if is_named and (seconds := retry_after(value)) is not None:
            named[its_group] = seconds
    own = named.get(group, max((seconds for name, seconds in named.items() if name not in (READ, CHANGE)), default=None))
    if own is not None:
        return RateLimitedError(message, retry_after=own)
    plain = retry_after(headers.get("Retry-After"))
    seconds = next(iter(named.values()), DEFAULT_COOLDOWN if plain is None else plain)
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


def _why(error: Exception) -> str:
    """Why there is no connection, or none any more."""
    import aiohttp  # noqa: PLC0415 - it is loaded by now

    if not isinstance(error, aiohttp.ClientConnectorError) or isinstance(error, aiohttp.ClientSSLError):
        return str(error)
    why = no_connection(error.os_error)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy {error.host}:{error.port}: {why}; check HTTPS_PROXY and NO_PROXY"
    return why
