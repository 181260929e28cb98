"""The manager of Docker containers that callers of scripts know: thin over the core, and under its rules."""

import glob
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta

from reaper.core.conditions import Policy
from reaper.core.model import Kind, Outcome, Report, Resource, State
from reaper.core.scope import Selector
from reaper.library import by_id, endpoints, event_loop
from reaper.library.managed import WHOLE_ID, find
from reaper.providers.docker.states import STATES
from reaper.providers.fields import did_you_mean

Filters = Mapping[str, str | Sequence[str]]
_CONTAINERS = frozenset({Kind.CONTAINER})
_KNOWN = ("ancestor", "label", "name", "status")
_NAME = re.compile(r"\^?/?([A-Za-z0-9_.-]+)\$?")


class AsyncDockerCleanupManager:
    """Lists, stops and removes containers of one engine, each operation within its time, with retries. asyncio only.

    What ``cleanup_...`` deletes is what the configuration's ``[scope]`` owns and nothing protects, up to the caps; what is
    removed or stopped by id is what the caller names, unless something protects it. See ``DockerCleanupManager`` for code
    without an event loop::

        manager = AsyncDockerCleanupManager()
        report = await manager.cleanup_old_containers(max_age_hours=24)

    Args:
        host: where the engine is. Without it, it is an engine of the configuration, or the one that the docker command
            would use.
        endpoint: its name in the configuration, where that has several.
        config: the configuration file; found as the command finds it when None.
        timeout: seconds for one operation; 30 when None. A container's grace beyond 10 s comes on top.

    All operations raise ``RetryableCleanupError`` where another try may help, ``CleanupError`` where it will not, and
    ``WrongLoopError`` where asyncio does not run.
    """

    def __init__(
        self,
        *,
        host: str | None = None,
        endpoint: str | None = None,
        config: str | None = None,
        timeout: float | None = None,
    ) -> None:
        self._engine = endpoints.docker(host=host, endpoint=endpoint, config_file=config, timeout=timeout)

    async def cleanup_containers(self, filters: Filters, stop_timeout: float = 10.0, fail_fast: bool = False) -> Report:
        """Delete the owned containers that the filters select, whatever their state and age.

        Args:
            filters: as Docker's: "label" ("key" or "key=value", all of them), "name" (a part of it, any of them),
                "ancestor" (the image, any of them) and "status" (any of them; "running" takes in paused and restarting
                ones). They narrow what ``[scope]`` owns. Empty ones select all of it: that states that no run is alive
                here.
            stop_timeout: seconds that a running one gets to stop by itself.
            fail_fast: begin nothing more once something has failed.
        """
        selector, wanted = _parse(filters)
        grace = timedelta(seconds=stop_timeout)
        policy = Policy(
            "cleanup-containers",
            _CONTAINERS,
            states=wanted,
            selectors=() if selector == Selector() else (selector,),
            stop_timeout=grace,
            every_resource=True,
        )
        return await self._clean("cleanup_containers", policy, grace, fail_fast=fail_fast)

    async def cleanup_old_containers(self, max_age_hours: float = 24.0, fail_fast: bool = False) -> Report:
        """Delete the owned containers that were created, and last started, longer ago.

        Args:
            max_age_hours: more than 0.
            fail_fast: begin nothing more once something has failed.
        """
        policy = Policy("cleanup-old-containers", _CONTAINERS, older_than=age(hours=max_age_hours))
        return await self._clean("cleanup_old_containers", policy, policy.stop_timeout, fail_fast=fail_fast)

    async def stop_container(
        self,
        container_id: str,
        timeout: float = 10.0,  # noqa: ASYNC109 - the container's, as scripts call it
        *,
        even_protected: bool = False,
    ) -> Outcome:
        """Stop one container.

        Args:
            container_id: its id, the beginning of that, or its name.
            timeout: seconds that it gets to stop by itself.
            even_protected: stop it although something protects it.

        Returns:
            STOPPED, also when it did not run; GONE when there is no container with this whole id.
        """
        event_loop.asyncio_only("stop_container", "aiodocker")
        found = await self._find(container_id)
        grace = timedelta(seconds=timeout)
        return await by_id.stop(self._engine, found, Kind.CONTAINER, even_protected=even_protected, stop_timeout=grace)

    async def remove_container(self, container_id: str, force: bool = False, *, even_protected: bool = False) -> Outcome:
        """Remove one container with its anonymous volumes, and see that it is gone.

        Args:
            container_id: its id, the beginning of that, or its name.
            force: stop it first when it runs; without, what runs is left, which raises CleanupError.
            even_protected: remove it although something protects it.

        Returns:
            DELETED; GONE when there is no container with this whole id.
        """
        event_loop.asyncio_only("remove_container", "aiodocker")
        found = await self._find(container_id)
        return await by_id.delete(self._engine, found, Kind.CONTAINER, even_protected=even_protected, force=force)

    async def list_containers(self, all_containers: bool = False, filters: Filters | None = None) -> list[Resource]:
        """The containers of the engine, owned or not, as its listing has them.

        Args:
            all_containers: those that do not run, too.
            filters: see ``cleanup_containers``.
        """
        event_loop.asyncio_only("list_containers", "aiodocker")
        selector, wanted = _parse(filters or {})
        return [
            one
            for one in await self._engine.list()
            if one.kind is Kind.CONTAINER
            and (all_containers or wanted or one.state is State.RUNNING)
            and (not wanted or not wanted.isdisjoint({one.raw_state, one.state.value}))
            and selector.all_of(one, one.labels or {})
        ]

    async def _find(self, wanted: str) -> str:
        return wanted if WHOLE_ID.fullmatch(wanted) else (await find(self._engine, wanted)).id

    async def _clean(self, what: str, policy: Policy, grace: timedelta, *, fail_fast: bool) -> Report:
        event_loop.asyncio_only(what, "aiodocker")
        return await self._engine.clean([policy], fail_fast=fail_fast, extra=max(grace - by_id.LONG_STOP, timedelta(0)))


class DockerCleanupManager:
    """The same for code without an event loop: see ``AsyncDockerCleanupManager``. In one, it raises WrongLoopError::

    manager = DockerCleanupManager()
    for container in manager.list_containers(filters={"name": "chess"}):
        manager.remove_container(container.id, force=True)
    """

    def __init__(
        self,
        *,
        host: str | None = None,
        endpoint: str | None = None,
        config: str | None = None,
        timeout: float | None = None,
    ) -> None:
        self._manager = AsyncDockerCleanupManager(host=host, endpoint=endpoint, config=config, timeout=timeout)

    cleanup_containers = event_loop.twin(AsyncDockerCleanupManager.cleanup_containers)
    cleanup_old_containers = event_loop.twin(AsyncDockerCleanupManager.cleanup_old_containers)
    stop_container = event_loop.twin(AsyncDockerCleanupManager.stop_container)
    remove_container = event_loop.twin(AsyncDockerCleanupManager.remove_container)
    list_containers = event_loop.twin(AsyncDockerCleanupManager.list_containers)


def age(**span: float) -> timedelta:
    """The span. Raises ValueError unless it is longer than nothing: an age of 0 would take what is being made."""
    found = timedelta(**span)
    if found <= timedelta(0):
        name, value = next(iter(span.items()))
        raise ValueError(f"max_age_{name} = {value}: write how old, for example 24")
    return found


def _parse(filters: Filters) -> tuple[Selector, frozenset[str]]:
    """What Docker's filters select, and the states. Raises ValueError for what is not known here."""
    given = {key: (value,) if isinstance(value, str) else tuple(value) for key, value in filters.items()}
    for key, values in given.items():
        if key not in _KNOWN:
            raise ValueError(f"no filter is called {key!r}; {did_you_mean(key, _KNOWN)}")
        if not values or not all(values):
            raise ValueError(f"filter {key!r} selects nothing; leave it out")
    for state in given.get("status", ()):
        if state not in STATES and state not in frozenset(State):
            raise ValueError(f"{state!r} is no status; {did_you_mean(state, {*STATES, *State})}")
    selector = Selector(
        labels=tuple(_label(label) for label in given.get("label", ())),
        names=tuple(_name(name) for name in given.get("name", ())),
        images=tuple(glob.escape(image) for image in given.get("ancestor", ())),
    )
    return selector, frozenset(given.get("status", ()))


def _label(label: str) -> str:
    key, equals, value = label.partition("=")
    return f"{key}{equals}{glob.escape(value)}"


def _name(name: str) -> str:
    if (match := _NAME.fullmatch(name)) is None:
        raise ValueError(f"filter name = {name!r}: write a part of the name, or ^NAME$")
    start, end = "" if name.startswith("^") else "*", "" if name.endswith("$") else "*"
    return f"{start}{match[1]}{end}"
