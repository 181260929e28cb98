"""What a provider offers to the sweep. A new provider is one file that implements these protocols.

A ``Reader`` has no method that changes anything: it is all that a dry run, a listing or a check is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, runtime_checkable

from reaper.model import Resource


@dataclass(frozen=True, slots=True)
class Inventory:
    """One complete listing.

    Args:
        resources: everything that the endpoint holds of the kinds that the provider knows.
        clock_skew: the endpoint's clock minus this host's.
    """

    resources: tuple[Resource, ...]
    clock_skew: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be asked of the endpoint at the same time."""

    reads: int = 16
    removals: int = 8
    stops: int = 128


class Reader(Protocol):
    """Looks at one endpoint. One client lives as long as the reader. Every method raises ``ProviderError``."""

    @property
    def endpoint(self) -> str:
        """The endpoint's name from the configuration."""
        ...

    @property
    def provider(self) -> str:
        """The provider's name: "docker"."""
        ...

    @property
    def identity(self) -> str:
        """What tells this endpoint from others whatever its name: its address."""
        ...

    @property
    def limits(self) -> Limits:
        """How much may be asked at the same time."""
        ...

    async def list(self) -> Inventory:
        """Everything that the endpoint holds. A partial answer is an error."""
        ...

    async def inspect(self, resource: Resource) -> Resource:
        """The resource as it is now, by id, with everything that the rules need. ``NotFoundError`` when it is gone.

        The answer has ``inspected`` set, and ``remembered`` as ``resource`` had it.
        """
        ...

    async def members(self, resource: Resource) -> Sequence[Resource]:
        """The containers or sandboxes of the group of ``resource`` as they are listed now; just itself when it has none."""
        ...

    async def close(self) -> None:
        """Close the client."""
        ...


@runtime_checkable
class Provider(Reader, Protocol):
    """A reader that can also act. Every step is idempotent, so that two reapers do not harm each other."""

    async def stop(self, resource: Resource, grace: timedelta) -> None:
        """Ask it to stop and wait until it has; after ``grace`` it is killed. Returns when it had stopped already."""
        ...

    async def delete(self, resource: Resource, *, force: bool = False) -> None:
        """Delete it by id. Without ``force`` the endpoint refuses what is running: ``ConflictError``."""
        ...
