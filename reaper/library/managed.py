"""``managed_docker_container`` and ``managed_daytona_sandbox``: what was named is deleted when its block ends."""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from reaper.core.model import Kind, Outcome, Resource
from reaper.library import by_id, endpoints, event_loop, process
from reaper.library.access import Access
from reaper.library.cleanup_scope import CleanupFailures, CleanupScope
from reaper.library.errors import CleanupError
from reaper.library.sdk import ContainerObject, SandboxObject, engine_of, id_of

WHOLE_ID = re.compile(r"[0-9a-f]{64}")
LAST = 10.0  # seconds beyond its own time in which a deletion has surely given up by itself


class Ending:
    """The end of a block, of both sorts: it cleans up in the process that began it, and hides no exception of the body."""

    _process: object
    _sync: tuple[str, str]  # what the block is written as, and what to write where an event loop runs

    async def _end(self) -> None:
        """Clean up, whatever is cancelled meanwhile. Raises CleanupError."""
        raise NotImplementedError

    def __exit__(self, kind: type[BaseException] | None, body: BaseException | None, trace: TracebackType | None) -> None:
        if process.current() != self._process:
            return
        try:
            event_loop.run(*self._sync, self._end)
        except CleanupError as error:
            raise_or_note(error, body)

    async def __aexit__(
        self, kind: type[BaseException] | None, body: BaseException | None, trace: TracebackType | None
    ) -> None:
        if process.current() != self._process:
            return
        try:
            await self._end()
        except CleanupError as error:
            raise_or_note(error, body)


class Managed(Ending):
    """A block at whose end one resource is deleted. Works with ``with`` and with ``async with``; see who makes it.

    A forked child that leaves the block deletes nothing: the block is its parent's.

    Attributes:
        id: the resource's whole id, known within the block.
        outcome: what became of it; None until the block has ended, and when it could not be deleted.
    """

    def __init__(
        self,
        endpoint: Access,
        wanted: str,
        kind: Kind,
        maker: str,
        sdk: str,
        *,
        even_protected: bool,
        stop_timeout: float,
        look_first: bool = False,
    ) -> None:
        self.id = wanted
        self.outcome: Outcome | None = None
        self._endpoint = endpoint
        self._wanted = wanted
        self._look_first = look_first
        self._kind = kind
        self._maker = maker
        self._sync = f"with {maker}(...)", f"async with {maker}(...)"
        self._sdk = sdk
        self._even_protected = even_protected
        self._stop_timeout = stop_timeout
        self._process = process.current()

    def __enter__(self) -> Self:
        event_loop.no_loop(*self._sync)
        self._process = process.current()
        if self._is_to_be_found():
            self.id = event_loop.run(self._maker, "", self._find)
        return self

    async def __aenter__(self) -> Self:
        event_loop.asyncio_only(f"async with {self._maker}(...)", self._sdk)
        self._process = process.current()
        if self._is_to_be_found():
            self.id = await self._find()
        return self

    def _is_to_be_found(self) -> bool:
        return self._kind is Kind.CONTAINER and (self._look_first or not WHOLE_ID.fullmatch(self._wanted))

    async def _find(self) -> str:
        return (await find(self._endpoint, self._wanted)).id

    async def _end(self) -> None:
        """Delete it, whatever is cancelled meanwhile."""
        await shielded(self._delete, f"{self._kind} {self._wanted}", self._endpoint.timeout + self._stop_timeout + LAST)

    async def _delete(self) -> None:
        self.outcome = await by_id.delete(
            self._endpoint,
            self.id,
            self._kind,
            even_protected=self._even_protected,
            stop_timeout=timedelta(seconds=self._stop_timeout),
        )


async def shielded(work: Callable[[], Awaitable[None]], name: str, limit: float) -> None:
    """Do ``work``, whatever is cancelled meanwhile, within ``limit`` seconds. Raises what it raises."""
    scope = CleanupScope(timeout=limit, each=limit)
    try:
        async with scope:
            scope.call(work, name=name)
    except CleanupFailures as failures:
        raise failures.exceptions[0] from None


def raise_or_note(error: CleanupError, body: BaseException | None) -> None:
    """Raise it, unless the body's exception is on its way: that one goes on, with a note."""
    if body is None:
        raise error
    body.add_note(f"reaper: {type(error).__name__}: {error}")


async def find(endpoint: Access, wanted: str) -> Resource:
    """The container that a person means: by its name, its id, or the beginning of that. Raises CleanupError."""
    containers = [one for one in await endpoint.list() if one.kind is Kind.CONTAINER]
    exact = [one for one in containers if wanted in (one.id, one.name)]
    found = exact or [one for one in containers if wanted and one.id.startswith(wanted)]
    if not found:
        raise CleanupError(f"{endpoint.name} has no container {wanted!r}")
    if len(found) > 1:
        names = ", ".join(f"{one.name} ({one.id[:12]})" for one in found[:5])
        raise CleanupError(f"{wanted!r} is not unique: {names}; give the whole id")
    return found[0]


def managed_docker_container(
    id_or_name: str | ContainerObject,
    *,
    even_protected: bool = False,
    stop_timeout: float = 10.0,
    host: str | None = None,
    endpoint: str | None = None,
    config: str | None = None,
    timeout: float | None = None,
) -> Managed:
    """Delete a container, with its anonymous volumes, when the block ends, however it ends.

    Synchronous and asynchronous (asyncio; WrongLoopError under trio)::

        with managed_docker_container("chess-1") as container:
            work_with(container.id)

    A name, or the beginning of an id, is looked up at the start, since names are used again; a whole id costs no question.
    At the end the container is stopped, removed and looked for, with retries. Naming it is the claim to own it; what
    protects it keeps it all the same, and so does its Compose project while that has other containers.

    Args:
        id_or_name: of the container, or the container itself, as docker-py and aiodocker give it; then the engine is that
            of its client where that is a socket or plain TCP, else the configured one, which has to hold it at the start.
        even_protected: delete it although something protects it: ``[protect]``, its label ``reaper.keep``, its project,
            another's lease.
        stop_timeout: seconds that it gets to stop by itself.
        host: where the engine is. Without it, it is an engine of the configuration, or the one that the docker command
            would use.
        endpoint: its name in the configuration, where that has several.
        config: the configuration file; found as the command finds it when None.
        timeout: seconds for the whole deletion; 30 when None.

    Raises:
        RetryableCleanupError: at the end: it may still be there, and another try may help.
        CleanupError: at the start: there is no such container; at the end: it is still there, and the message says why.
            When the block raised, its exception goes on, and has a note.
        WrongLoopError: at the start: ``with`` in an event loop, or ``async with`` under trio.
        ConfigError: at once.
    """
    wanted = id_of(id_or_name, "an id or a name of a container, or a container of docker-py or aiodocker")
    is_named, of_object = host is not None or endpoint is not None, None
    if not isinstance(id_or_name, str) and not is_named:
        host = of_object = engine_of(id_or_name)
    engine = endpoints.docker(host=host, endpoint=endpoint, config_file=config, timeout=timeout)
    return Managed(
        engine,
        wanted,
        Kind.CONTAINER,
        "managed_docker_container",
        "aiodocker",
        even_protected=even_protected,
        stop_timeout=stop_timeout,
        look_first=not isinstance(id_or_name, str) and of_object is None,
    )


def managed_daytona_sandbox(
    sandbox_id: str | SandboxObject,
    *,
    even_protected: bool = False,
    api_key: str | None = None,
    api_url: str | None = None,
    endpoint: str | None = None,
    config: str | None = None,
    timeout: float | None = None,
) -> Managed:
    """Delete a sandbox when the block ends, however it ends; see ``managed_docker_container``.

    The deletion lists the organisation, since Daytona deletes what is linked to a sandbox with it, and some of that may be
    protected or another's::

        async with managed_daytona_sandbox(sandbox):
            await run_trial(sandbox)

    Args:
        sandbox_id: its id, or the sandbox itself, as the package ``daytona`` gives it, synchronous or not; then the
            organisation is that of its client. Names are not taken: they are used again, and change on deletion.
        even_protected: delete it although something protects it.
        api_key: the organisation's key. Without it, it is an organisation of the configuration, or that of DAYTONA_API_KEY.
        api_url: where the API is, for a given key.
        endpoint: its name in the configuration, where that has several.
        config: the configuration file; found as the command finds it when None.
        timeout: seconds for the whole deletion; 30 when None.
    """
    wanted = id_of(sandbox_id, "an id of a sandbox, or a sandbox of the package daytona")
    holder = None if isinstance(sandbox_id, str) else sandbox_id
    organisation = endpoints.daytona(
        api_key=api_key, api_url=api_url, endpoint=endpoint, config_file=config, timeout=timeout, holder=holder
    )
    return Managed(
        organisation,
        wanted,
        Kind.SANDBOX,
        "managed_daytona_sandbox",
        "aiohttp",
        even_protected=even_protected,
        stop_timeout=0.0,
    )
