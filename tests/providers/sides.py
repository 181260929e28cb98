"""What the contract of the providers is tried on: simulated, real and in memory, each with the same few verbs."""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio

from devkit.client import OBEYS_TERM, EngineClient
from devkit.engine import PrivateEngine
from reaper.core.identity import MADE_BY_COMPOSE, PROJECT_LABEL, SESSION_LABEL
from reaper.core.model import Kind, Resource, State
from reaper.providers.base import Provider, Reader, Traits
from reaper.providers.daytona.client import DaytonaProvider, DaytonaReader
from reaper.providers.docker.client import DockerProvider, DockerReader
from reaper.providers.docker.settings import DockerTable
from reaper.providers.memory import Held, MemoryProvider, MemoryReader, MemoryWorld
from tests.providers.lab import NAME, Lab

CONFIRMS = Traits(stops_first=False, confirm_within=timedelta(seconds=60))


class Side(ABC):
    """One endpoint, empty at first, and its clients.

    Attributes:
        kind: what it holds.
        whole_seconds: its listing cuts the time of creation to seconds.
    """

    kind = Kind.CONTAINER
    whole_seconds = False
    provider: Provider
    reader: Reader

    @abstractmethod
    async def add(self, name: str, group: str | None = None, *, running: bool = False) -> str:
        """Make one that has stopped, or runs; its id."""

    @abstractmethod
    async def pass_time(self) -> None:
        """Let a minute pass, in which what was accepted is done."""


class DockerSide(Side):
    """An engine, simulated or real.

    Args:
        engine: it.
        table: how the clients reach it; by its unix socket when None.
    """

    whole_seconds = True

    def __init__(self, engine: EngineClient, table: DockerTable | None = None) -> None:
        self._engine = engine
        self.is_podman = isinstance(engine, PrivateEngine) and engine.flavour.is_podman
        table = table or DockerTable(name=NAME, host=engine.host)
        self.provider, self.reader = DockerProvider(table), DockerReader(table)

    async def add(self, name: str, group: str | None = None, *, running: bool = False) -> str:
        return await asyncio.to_thread(self._add, name, group, running)

    def _add(self, name: str, group: str | None, running: bool) -> str:
        command = OBEYS_TERM if running else ("true",)
        labels = {"terminal-bench": "yes", **({PROJECT_LABEL: group, MADE_BY_COMPOSE[0]: "1"} if group else {})}
        ident = self._engine.create(name, cmd=command, labels=labels, start=True)
        self._engine.wait_state(ident, "running" if running else "exited")
        return ident

    async def pass_time(self) -> None:
        """An engine is done when it answers."""


class DaytonaSide(Side):
    """A simulated organisation that shows every page of two sandboxes."""

    kind = Kind.SANDBOX

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.provider, self.reader = lab.provider, lab.client(kind=DaytonaReader)

    async def add(self, name: str, group: str | None = None, *, running: bool = False) -> str:
        labels = {SESSION_LABEL: group} if group else {"harbor.managed": "true"}
        self._lab.turn(1)
        return self._lab.add(name, state="started" if running else "stopped", labels=labels).id

    async def pass_time(self) -> None:
        self._lab.turn(60)


class MemorySide(Side):
    """An endpoint in memory, with the traits of an engine or of an organisation."""

    def __init__(self, traits: Traits) -> None:
        self.kind = Kind.CONTAINER if traits.stops_first else Kind.SANDBOX
        self._world = MemoryWorld((), lambda: datetime.now(UTC), latency=0)
        self._seconds = 0.0 if traits.stops_first else 3600.0
        self.provider = MemoryProvider(self._world, NAME, traits=traits)
        self.reader = MemoryReader(self._world, NAME, traits=traits)

    async def add(self, name: str, group: str | None = None, *, running: bool = False) -> str:
        now = self._world.now()
        made = Resource(
            provider="memory",
            endpoint=NAME,
            kind=self.kind,
            id=f"id-{name}",
            name=name,
            state=State.RUNNING if running else State.STOPPED,
            raw_state="running" if running else "exited",
            created_at=now,
            started_at=now,
            stopped_at=None if running else now,
            labels={},
            group=group,
            restart_policy="no" if self.kind is Kind.CONTAINER else None,
        )
        self._world.add(Held(made, stop_seconds=self._seconds, removal_seconds=self._seconds))
        return made.id

    async def pass_time(self) -> None:
        now = anyio.current_time()
        for held in self._world.held():
            held.stops_at, held.gone_at = (now if at < math.inf else at for at in (held.stops_at, held.gone_at))


@asynccontextmanager
async def daytona_side() -> AsyncIterator[Side]:
    async with Lab(table={"page_size": 2}) as lab:
        yield DaytonaSide(lab)


def unlike(listed: Resource, inspected: Resource, *, whole_seconds: bool) -> set[str]:
    """The fields that a listing and an inspection of the same thing both know and tell differently."""
    if whole_seconds and inspected.created_at is not None:
        inspected = replace(inspected, created_at=inspected.created_at.replace(microsecond=0))
    only_inspected = {"started_at", "stopped_at", "restart_policy", "inspected", "links_known"}
    fields = set(Resource.__slots__) - only_inspected
    return {field for field in fields if getattr(listed, field) != getattr(inspected, field)}


__all__ = ["CONFIRMS", "DaytonaProvider", "DockerSide", "MemorySide", "Side", "daytona_side", "unlike"]
