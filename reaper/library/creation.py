"""``sandbox``: created when its block begins and deleted when that ends, however it ends, its creation included.

A creation that is cancelled, times out or loses its connection may have made a sandbox whose id is unknown; one that the SDK
has repeated may have made two. So each creation puts a label of its own on what it makes, and what carries that label goes.
"""

import copy
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from typing import Any, Generic, Protocol, TypeVar, overload
from uuid import uuid4

import anyio

from reaper.core.model import Kind
from reaper.core.scope import LEASE_LABEL
from reaper.errors import ConfigError
from reaper.library import by_id, endpoints, event_loop, process
from reaper.library.access import Access
from reaper.library.errors import CleanupError
from reaper.library.lease import OWN_LEASE, held
from reaper.library.managed import LAST, Ending, raise_or_note, shielded
from reaper.library.owner import owner_label
from reaper.library.sdk import SandboxObject, id_of

CREATION_LABEL = "reaper.creation"
APPEARS_WITHIN = 10.0  # seconds: a listing lags behind, and a request that has broken off may still be carried out
APPEARS_AFTER_ANSWER = 3.0  # likewise when the server has answered: nothing is under way any more

S = TypeVar("S", bound=SandboxObject)
S_co = TypeVar("S_co", bound=SandboxObject, covariant=True)


class Parameters(Protocol):
    """What the package ``daytona`` creates a sandbox by."""

    labels: dict[str, str] | None


class AsyncClient(Protocol[S_co]):
    """``AsyncDaytona``."""

    @property
    def create(self) -> Callable[..., Awaitable[S_co]]:
        """Creates a sandbox."""
        ...


class Client(Protocol[S_co]):
    """``Daytona``."""

    @property
    def create(self) -> Callable[..., S_co]:
        """Creates a sandbox."""
        ...


class _Creation(Ending, Generic[S]):
    """What both sorts of block do.

    Args:
        create: makes the sandbox.
        params: of it, the caller's own.
        labels: of it, beside those in ``params``.
        options: keywords of ``create``.
        access: the organisation.
        even_protected: delete it although something protects it.
    """

    _sync = "with sandbox(...)", "async with sandbox(...) with an AsyncDaytona"

    def __init__(
        self,
        create: Callable[..., Any],
        params: Parameters | None,
        labels: Mapping[str, str],
        options: Mapping[str, Any],
        access: Access,
        *,
        even_protected: bool,
    ) -> None:
        self._create = create
        self._params = params
        self._labels = labels
        self._options = options
        self._access = access
        self._even_protected = even_protected
        self._process = process.current()
        self._mark = ""
        self._made: str | None = None

    def _begin(self) -> Parameters:
        """The parameters with the labels, in a copy."""
        self._process, self._mark, self._made = process.current(), uuid4().hex, None
        params = _parameters(self._params)
        params.labels = {**_own_labels(), **(params.labels or {}), **self._labels, CREATION_LABEL: self._mark}
        return params

    async def _clean_up_failed(self, error: BaseException) -> None:
        """Delete what a creation that failed has made. What went wrong in that becomes a note of ``error``."""
        self._made = self._made or getattr(error, "sandbox_id", None)
        status = getattr(error, "status_code", None)
        is_answer = isinstance(status, int) and 400 <= status < 500 and status != 408
        within = APPEARS_AFTER_ANSWER if is_answer else APPEARS_WITHIN
        try:
            await self._clean_up(within)
        except CleanupError as problem:
            raise_or_note(problem, error)

    async def _end(self) -> None:
        await self._clean_up()

    async def _clean_up(self, within: float = 0.0) -> None:
        async def delete() -> None:
            await self._delete(within)

        await shielded(delete, f"the sandbox of creation {self._mark}", within + 3 * self._access.timeout + LAST)

    async def _delete(self, within: float) -> None:
        """Delete what carries the label, and wait ``within`` seconds for it to be listed. Raises CleanupError."""
        end = anyio.current_time() + within
        done: set[str] = set()
        problems: list[CleanupError] = []
        while True:
            new = {self._made} if self._made is not None else set()
            unlisted = None
            try:
                new |= await self._labelled()
            except CleanupError as error:
                unlisted = error
            new -= done
            for id_ in new:
                try:
                    await by_id.delete(self._access, id_, Kind.SANDBOX, even_protected=self._even_protected)
                except CleanupError as error:
                    problems.append(error)
            done |= new
            if not within or (not new and (done or anyio.current_time() >= end)):  # the request may have been repeated
                break
            if not new:
                await anyio.sleep(by_id.PAUSE)
        for problem in (*problems, unlisted):
            if problem is not None:
                raise problem

    async def _labelled(self) -> set[str]:
        listed = await self._access.list()
        return {one.id for one in listed if one.id and (one.labels or {}).get(CREATION_LABEL) == self._mark}


class _AsyncCreation(_Creation[S], AbstractAsyncContextManager[S]):
    """The block of an asynchronous client."""

    async def __aenter__(self) -> S:
        event_loop.asyncio_only("async with sandbox(...)", "daytona")
        params = self._begin()
        try:
            made: S = await self._create(params, **self._options)
            self._made = id_of(made, "a sandbox")
        except BaseException as error:
            await self._clean_up_failed(error)
            raise
        return made


class _SyncCreation(_Creation[S], AbstractContextManager[S]):
    """The block of a synchronous client."""

    def __enter__(self) -> S:
        event_loop.no_loop(*self._sync)
        params = self._begin()
        try:
            made: S = self._create(params, **self._options)
            self._made = id_of(made, "a sandbox")
        except BaseException as error:
            anyio.run(self._clean_up_failed, error)
            raise
        return made


@overload
def sandbox(
    client: AsyncClient[S],
    params: Parameters | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    create: Mapping[str, Any] | None = None,
    even_protected: bool = False,
    api_key: str | None = None,
    api_url: str | None = None,
    endpoint: str | None = None,
    config: str | None = None,
    timeout: float | None = None,
) -> AbstractAsyncContextManager[S]: ...


@overload
def sandbox(
    client: Client[S],
    params: Parameters | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    create: Mapping[str, Any] | None = None,
    even_protected: bool = False,
    api_key: str | None = None,
    api_url: str | None = None,
    endpoint: str | None = None,
    config: str | None = None,
    timeout: float | None = None,
) -> AbstractContextManager[S]: ...


def sandbox(
    client: AsyncClient[S] | Client[S],
    params: Parameters | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    create: Mapping[str, Any] | None = None,
    even_protected: bool = False,
    api_key: str | None = None,
    api_url: str | None = None,
    endpoint: str | None = None,
    config: str | None = None,
    timeout: float | None = None,
) -> AbstractAsyncContextManager[S] | AbstractContextManager[S]:
    """Create a sandbox with a client of the package ``daytona``, and delete it when the block ends, however it ends::

        async with sandbox(daytona, CreateSandboxFromSnapshotParams(language="python")) as box:
            await box.process.exec("true")

    With an ``AsyncDaytona`` it is ``async with``, with a ``Daytona`` ``with``. The sandbox gets labels: ``reaper.creation``,
    by which it is found and deleted when its creation is cancelled, or fails after the server has made it; that of this
    process (see ``owner_label``), so that it goes soon after a process that was killed; and that of the lease under which
    this process runs. The caller's own labels stay. See ``managed_daytona_sandbox`` for the deletion and for what keeps it.

    Args:
        client: of the package ``daytona``; its organisation is the one that is cleaned up.
        params: of the sandbox, as for the client's ``create``; they are not changed.
        labels: more labels for it.
        create: keywords for the client's ``create``: ``{"timeout": 120}``.
        even_protected: delete it although something protects it.
        api_key: the organisation's key, where it is not to be the client's.
        api_url: where the API is, for a given key.
        endpoint: the organisation's name in the configuration, where it is not to be the client's.
        config: the configuration file; found as the command finds it when None.
        timeout: seconds for the whole deletion; 30 when None.

    Raises:
        CleanupError: at the end, as ``managed_daytona_sandbox``.
        ConfigError: at once: the client is of Daytona's second platform, or has no API key.
    """
    access = endpoints.daytona(
        api_key=api_key, api_url=api_url, endpoint=endpoint, config_file=config, timeout=timeout, holder=client
    )
    if inspect.iscoroutinefunction(client.create):
        return _AsyncCreation[S](client.create, params, labels or {}, create or {}, access, even_protected=even_protected)
    return _SyncCreation[S](client.create, params, labels or {}, create or {}, access, even_protected=even_protected)


def _parameters(params: Parameters | None) -> Parameters:
    """A copy of the caller's, or those of a default sandbox. Raises ConfigError."""
    if params is not None:
        return copy.copy(params)
    try:
        from daytona import CreateSandboxFromSnapshotParams  # noqa: PLC0415 - 0.75 s, and the caller has its client already
    except ImportError:
        raise ConfigError(
            "without params the package daytona is needed", "pip install 'bench-reaper[daytona]', or give params"
        ) from None
    return CreateSandboxFromSnapshotParams()


def _own_labels() -> dict[str, str]:
    """Those that end it with this process, and with its lease."""
    labels = {}
    with suppress(OSError):  # this host has no machine id: the label would prove nothing
        key, _, value = owner_label().partition("=")
        labels[key] = value
    lease = os.environ.get(OWN_LEASE) or (next(iter(held)) if len(held) == 1 else None)
    if lease:
        labels[LEASE_LABEL] = lease
    return labels
