"""The manager of Daytona sandboxes that callers of scripts know: thin over the core, and under its rules."""

from datetime import timedelta

from reaper.core.conditions import Policy
from reaper.core.model import Kind, Outcome, Report, Resource
from reaper.library import by_id, endpoints, event_loop
from reaper.library.docker import age

_SANDBOXES = frozenset({Kind.SANDBOX})


class AsyncDaytonaCleanupManager:
    """Lists and deletes sandboxes of one organisation, each operation within its time, with retries. asyncio only.

    What ``cleanup_...`` deletes is what the configuration's ``[scope]`` owns and nothing protects, up to the caps; what is
    deleted by id is what the caller names, unless something protects it. See ``DaytonaCleanupManager`` for code without an
    event loop::

        manager = AsyncDaytonaCleanupManager()
        report = await manager.cleanup_old_sandboxes(max_age_days=1)

    Args:
        api_key: the organisation's key. Without it, it is an organisation of the configuration, or that of DAYTONA_API_KEY.
        api_url: where the API is, for a given key.
        endpoint: its name in the configuration, where that has several.
        config: the configuration file; found as the command finds it when None.
        timeout: seconds for one operation; 30 when None.

    All operations raise ``RetryableCleanupError`` where another try may help, ``CleanupError`` where it will not, and
    ``WrongLoopError`` where asyncio does not run.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        api_url: str | None = None,
        endpoint: str | None = None,
        config: str | None = None,
        timeout: float | None = None,
    ) -> None:
        self._organisation = endpoints.daytona(
            api_key=api_key, api_url=api_url, endpoint=endpoint, config_file=config, timeout=timeout
        )

    async def cleanup_old_sandboxes(self, max_age_days: float = 1.0, fail_fast: bool = False) -> Report:
        """Delete the owned sandboxes that were created longer ago, running ones included.

        Args:
            max_age_days: more than 0.
            fail_fast: begin nothing more once something has failed.
        """
        event_loop.asyncio_only("cleanup_old_sandboxes", "aiohttp")
        policy = Policy("cleanup-old-sandboxes", _SANDBOXES, older_than=age(days=max_age_days))
        return await self._organisation.clean([policy], fail_fast=fail_fast)

    async def cleanup_stopped_sandboxes(self, fail_fast: bool = False) -> Report:
        """Delete the owned sandboxes that are stopped or have failed. Archived ones stay: that was meant.

        Args:
            fail_fast: begin nothing more once something has failed.
        """
        event_loop.asyncio_only("cleanup_stopped_sandboxes", "aiohttp")
        policy = Policy("cleanup-stopped-sandboxes", _SANDBOXES, stopped_for=timedelta(0))
        return await self._organisation.clean([policy], fail_fast=fail_fast)

    async def delete_sandbox(self, sandbox_id: str, *, even_protected: bool = False) -> Outcome:
        """Delete one sandbox, and see that it is gone.

        Args:
            sandbox_id: its id. Names are not taken: they are used again.
            even_protected: delete it although something protects it.

        Returns:
            DELETED, or GONE when there is no such sandbox.
        """
        event_loop.asyncio_only("delete_sandbox", "aiohttp")
        return await by_id.delete(self._organisation, sandbox_id, Kind.SANDBOX, even_protected=even_protected)

    async def list_sandboxes(self) -> list[Resource]:
        """All sandboxes of the organisation, owned or not, as its listing has them."""
        event_loop.asyncio_only("list_sandboxes", "aiohttp")
        return list(await self._organisation.list())


class DaytonaCleanupManager:
    """The same for code without an event loop: see ``AsyncDaytonaCleanupManager``. In one, it raises WrongLoopError::

    manager = DaytonaCleanupManager()
    manager.cleanup_stopped_sandboxes()
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        api_url: str | None = None,
        endpoint: str | None = None,
        config: str | None = None,
        timeout: float | None = None,
    ) -> None:
        self._manager = AsyncDaytonaCleanupManager(
            api_key=api_key, api_url=api_url, endpoint=endpoint, config=config, timeout=timeout
        )

    cleanup_old_sandboxes = event_loop.twin(AsyncDaytonaCleanupManager.cleanup_old_sandboxes)
    cleanup_stopped_sandboxes = event_loop.twin(AsyncDaytonaCleanupManager.cleanup_stopped_sandboxes)
    delete_sandbox = event_loop.twin(AsyncDaytonaCleanupManager.delete_sandbox)
    list_sandboxes = event_loop.twin(AsyncDaytonaCleanupManager.list_sandboxes)
