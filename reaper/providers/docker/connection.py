"""The connection to one engine: its client, requests with their errors translated, and answers within bounds.

aiodocker is imported when a client is made, not with this module: nothing that only asks for the version pays for it.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from reaper.core.model import Kind, Resource
from reaper.errors import DeniedError, InProgressError, NoSuchEndpointError, NotFoundError, UnavailableError, UnreadableError
from reaper.providers.answers import REDIRECTS, cause, message, read_bounded, refuse_redirect, text
from reaper.providers.docker import ssh
from reaper.providers.docker.address import tcp_address, tls_context, unix_path
from reaper.providers.docker.calls import check
from reaper.providers.docker.errors import last_cause, last_dates, last_headers, last_request, translate
from reaper.providers.docker.settings import DockerTable
from reaper.providers.parsing import Row, clock_skew
from reaper.providers.parsing import text as text_of

if TYPE_CHECKING:
    import aiodocker
    import aiohttp
    from aiohttp.client_middlewares import ClientHandlerType

    from reaper.providers.docker.sdk import Client

T = TypeVar("T")

_LONG_ID = re.compile("([0-9a-f]{12})[0-9a-f]{52}")
_TRY_SSH = "ssh -o BatchMode=yes HOST docker version"
CONNECT_WITHIN = 30.0  # seconds, of a stream
LARGEST_ANSWER = 128 << 20  # bytes; the listing of 20,000 containers has a third of that


class SilentError(Exception):
    """Nothing has come in a stream for long."""


class EngineConnection:
    """One client for life of one engine.

    Attributes:
        answered: whether anything has ever answered there: an error then means something else than a wrong address.
        is_podman: whether it is Podman that answers.
    """

    def __init__(self, engine: DockerTable) -> None:
        self.answered = False
        self.is_podman = False
        self._engine = engine
        self._client: Client | None = None
        self._latest = ""  # version of the API, by the last answer
        self._session: aiohttp.ClientSession | None = None
        self._tunnel: ssh.Tunnel | None = None

    def ahead(self, skew: timedelta, error: timedelta) -> timedelta:
        """By how much the engine's clock is ahead of this host's at the most. The same host has the same clock.

        Args:
            skew: the engine's clock minus this host's, by a header that is cut to seconds.
            error: by how much that may be wrong.
        """
        is_same = unix_path(self._engine) is not None and abs(skew) <= error
        return timedelta(0) if is_same else skew + error

    async def ask(self, path: str, **params: str) -> object:
        """What the engine answers to a GET request. Raises ProviderError."""
        return await self.request("GET", path, **params)

    async def request(self, method: str, path: str, body: str | None = None, **params: str) -> object:
        """What the engine answers to a request. Raises ProviderError."""
        try:
            return await self.client()._query_json(path, method, params=params, data=body)  # noqa: SLF001
        except Exception as error:  # noqa: BLE001
            self.translate(error)

    async def containers(self, **params: str) -> Sequence[Row]:
        """The listing of containers. Raises ProviderError."""
        return checked_rows(await self.ask("containers/json", all="1", **params), "containers")

    async def networks(self) -> Sequence[Row]:
        """The listing of networks. Raises ProviderError."""
        return checked_rows(await self.ask("networks"), "networks")

    async def dated(self, ask: Callable[[], Awaitable[Sequence[Row]]]) -> tuple[Sequence[Row], tuple[timedelta, timedelta]]:
        """A listing, and the engine's clock by its answer. Raises ProviderError."""
        return await ask(), clock_skew(*last_dates.get())

    @asynccontextmanager
    async def stream(
        self, path: str, *, quiet: float | None = None, **params: str
    ) -> AsyncIterator["aiohttp.ClientResponse"]:
        """The answer to a GET request that is read as it comes. Raises ProviderError.

        One in which nothing comes for ``quiet`` seconds ends with SilentError: nothing tells whether it still lives.
        """
        import aiohttp  # noqa: PLC0415

        timeout = None if quiet is None else aiohttp.ClientTimeout(sock_connect=CONNECT_WITHIN, sock_read=quiet)
        is_open = False
        try:
            async with self.client()._query(path, params=params, timeout=timeout) as answer:  # noqa: SLF001
                try:
                    is_open = True
                    yield answer
                finally:
                    answer.close()  # aiodocker leaves it open
        except Exception as error:
            if quiet is not None and is_open and isinstance(error, TimeoutError):
                raise SilentError from error
            self.translate(error)

    async def unless_removed(
        self, resource: Resource, patience: float, ask: Callable[["aiodocker.Docker"], Awaitable[T]]
    ) -> T:
        """Make a request about one resource. Raises InProgressError when the engine is removing it and does not answer.

        Since Docker 26 a removal that is under way blocks all requests about that container, while the listing shows it.
        """
        client = self.client()

        async def asked() -> T:
            try:
                return await ask(client)
            except Exception as error:  # noqa: BLE001
                self.translate(error)

        if resource.kind is not Kind.CONTAINER:
            return await asked()
        asking = asyncio.ensure_future(asked())
        try:
            answered, _ = await asyncio.wait((asking,), timeout=patience)
            if not answered and await self._is_being_removed(resource):
                raise InProgressError("it is being removed")
            return await asking
        finally:
            asking.cancel()

    async def _is_being_removed(self, resource: Resource) -> bool:
        """Whether the listing shows its removal. Raises NotFoundError when it does not show it at all."""
        try:
            rows = await self.containers(filters=json.dumps({"id": [resource.id]}))
        except Exception:  # noqa: BLE001 - then the answer itself is waited for
            return False
        row = next((row for row in rows if row.get("Id") == resource.id), None)
        if row is None and not all(text_of(row.get("Id")) for row in rows):
            return False
        if row is None:
            raise NotFoundError(f"No such container: {resource.id}")
        return row.get("State") in ("removing", "dead")

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None and self._session is not None:
            await self._client.close()
            await self._session.close()
            self._client = None
        if self._tunnel is not None:
            self._tunnel.leave()
            self._tunnel = None

    def client(self) -> "aiodocker.Docker":
        """The client, made at the first call."""
        if self._client is None:
            _ensure_home()
            import aiohttp  # noqa: PLC0415

            from reaper.providers.docker.sdk import Client  # noqa: PLC0415

            # The limits above this client bound its connections.
            connector: aiohttp.BaseConnector
            self._tunnel = ssh.tunnel_to(self._engine)
            path = unix_path(self._engine) if self._tunnel is None else self._tunnel.path
            if path is not None:
                connector = aiohttp.UnixConnector(path, limit=0)
                url = "unix://localhost"
            else:
                context = tls_context(self._engine)
                connector = aiohttp.TCPConnector(limit=0, ssl=context or True)
                host, port = tcp_address(self._engine)
                url = f"{'https' if context else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
            self._session = aiohttp.ClientSession(
                connector=connector,
                middlewares=(self._send,),
                timeout=aiohttp.ClientTimeout(),
                auto_decompress=False,  # its size is bounded as it is decompressed
                headers={"Accept-Encoding": "identity"},
            )
            # aiohttp would repeat a request whose connection broke, DELETE included, unseen by the reports.
            self._session._retry_connection = False  # noqa: SLF001 - there is no other way to say so
            self._client = Client(url=url, connector=connector, session=self._session)
        return self._client

    async def _send(self, request: "aiohttp.ClientRequest", handler: "ClientHandlerType") -> "aiohttp.ClientResponse":
        async def hear(request: "aiohttp.ClientRequest") -> "aiohttp.ClientResponse":
            response = await handler(request)
            self.answered = True
            if (latest := response.headers.get("Api-Version")) is not None:  # else it is a proxy's own answer
                self.is_podman = "Libpod-Api-Version" in response.headers
                # An engine that was upgraded may take the version no more that was spoken with it before.
                if self._client is not None and (latest != self._latest or response.status == HTTPStatus.BAD_REQUEST):
                    self._client.is_version_stale = bool(self._latest)
                self._latest = latest
            return response

        if self._tunnel is not None:
            await self._open(self._tunnel)
        return await _send(request, hear)

    async def _open(self, tunnel: ssh.Tunnel) -> None:
        try:
            await tunnel.open()
        except ssh.SshError as error:
            host = self._engine.host
            if self.answered:
                raise UnavailableError(f"the connection to {host} failed: {error}") from error
            raise NoSuchEndpointError(f"no engine at {host}: {error}; this must succeed: {_TRY_SSH}") from error

    def translate(self, error: Exception) -> NoReturn:
        """Raise ``error`` as one of ``reaper.errors``, from the original."""
        try:
            translate(error, self._engine.host, answered=self.answered)
        except UnavailableError as told:
            if self._tunnel is None or not (words := self._tunnel.words()) or words in str(told):
                raise
            raise type(told)(f"{told}; ssh said: {words}") from error


@contextmanager
def hinting(hint: str) -> Iterator[None]:
    """Add to the message of a refusal, which comes from a proxy most likely, what it has to let through."""
    try:
        yield
    except DeniedError as denied:
        raise DeniedError(f"{denied}; {hint}") from denied


def checked_rows(rows: object, what: str) -> Sequence[Row]:
    """``rows`` when they are a whole listing: an empty object would pass for an empty engine."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UnreadableError(f"the listing of {what} is no list of objects")
    return rows


async def _send(request: "aiohttp.ClientRequest", handler: "ClientHandlerType") -> "aiohttp.ClientResponse":
    """Send what is one of this program's calls, and read its answer within bounds; a stream is left to be read.

    Raises InvalidError for a redirect, and DockerError for what is refused, whatever form the refusal has.
    """
    import aiodocker  # noqa: PLC0415 - loaded with the client

    check(request.method, request.url.raw_path_qs)
    asked = datetime.now(UTC)
    response = await handler(request)
    last_headers.set(response.headers)
    last_dates.set((response.headers, asked, datetime.now(UTC)))
    path = request.url.path
    what = " ".join((request.method, _LONG_ID.sub(r"\1", path)))
    last_request.set(what)
    status = response.status
    if status in REDIRECTS or (status == 304 and not path.endswith("/stop")):  # of a stop it means that it had stopped
        response.close()
        refuse_redirect(what, str(request.url.origin()), status, response.headers, "host of [[docker]]")
        raise UnreadableError(f"{what} was answered {status}, which says nothing about it")
    if status < 300 and path.endswith(("/events", "/logs")):
        return response
    body = await read_bounded(response, what, LARGEST_ANSWER)
    if status >= 400:
        last_cause.set(cause(body))
        # Below 500 plain text is no engine's: a 404 of a proxy must not pass for the end of a container.
        raise aiodocker.DockerError(status, text(body) if status >= 500 else message(body))
    response._body = body  # noqa: SLF001 - what read() would have put there, without a bound
    return response


def _ensure_home() -> None:
    """Aiodocker needs a home directory when it is imported; a user whom systemd or a container made up may have none."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"
