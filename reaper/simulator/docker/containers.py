"""The routes below `/containers` of a simulated Docker engine."""

from collections.abc import Iterable, Sequence

from aiohttp import web

from reaper.simulator.docker.build import create
from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.filters import Filters
from reaper.simulator.docker.http import Stream, Work, answer, body_of, empty, flag, query, raw_answer
from reaper.simulator.docker.json import inspected, listing
from reaper.simulator.docker.life import KILL, Life
from reaper.simulator.docker.model import Container, RefusedError, Removal, signal_number
from reaper.simulator.docker.text import atoi, encode


class ContainerRoutes:
    """Each method is one route; the table below says which."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._life = Life(engine)

    def table(self) -> Iterable[tuple[str, str, Work]]:
        """Method, path and handler."""
        one = "/containers/{name}"
        return (
            ("GET", "/containers/json", self.list),
            ("POST", "/containers/create", self.create),
            ("POST", "/containers/prune", self.prune),
            ("GET", f"{one}/json", self.inspect),
            ("POST", f"{one}/start", self.start),
            ("POST", f"{one}/stop", self.stop),
            ("POST", f"{one}/kill", self.kill),
            ("POST", f"{one}/pause", self.pause),
            ("POST", f"{one}/unpause", self.unpause),
            ("POST", f"{one}/wait", self.wait),
            ("DELETE", one, self.remove),
        )

    # Listing

    async def list(self, request: web.Request, _: str) -> web.Response:
        """GET /containers/json."""
        limit = atoi(request.query["limit"]) if request.query.get("limit") else 0
        filters = Filters(query(request, "filters"), ("id", "label"))
        found = self._found(filters, every=flag(request, "all"), limit=limit)
        return raw_answer(listing(self._engine, found))

    def _found(self, filters: Filters, *, every: bool, limit: int) -> Sequence[Container]:
        found: list[Container] = []
        for container in self._candidates(filters):
            if not (every or limit > 0 or container.running):
                continue
            if not (filters.labels(container.labels) and filters.match("id", container.id)):
                continue
            found.append(container)
            if len(found) == limit:
                break
        return found

    def _candidates(self, filters: Filters) -> Iterable[Container]:
        """The containers that may match: few, where an id or a label is given."""
        idents = filters.get("id")
        if idents and all(len(ident) == 64 for ident in idents):
            known = self._engine.containers
            return sorted((known[i] for i in set(idents) if i in known), key=lambda c: c.created, reverse=True)
        for label in filters.get("label"):
            key, equals, value = label.partition("=")
            if equals:
                return self._engine.labelled(key, value)
        return self._engine.newest_first()

    # One container

    async def inspect(self, _: web.Request, name: str) -> web.Response:
        """GET /containers/NAME/json."""
        container = await self._answering(name)
        if container.behaviour.lost:
            raise RefusedError(500, f"stat {self._engine.root}/overlay2/{container.id[::-1]}: no such file or directory")
        return answer(inspected(self._engine, container))

    async def _answering(self, name: str) -> Container:
        """The container, when the engine answers requests about it. Raises RefusedError, like ``Engine.container``."""
        container = self._engine.container(name)
        if container.removing and container.behaviour.blocks:
            await self._engine.until(container, lambda: container.removal is None or container.removal.over)
            return self._engine.container(name)
        return container

    async def create(self, request: web.Request, _: str) -> web.Response:
        """POST /containers/create."""
        body = await body_of(request)
        container = create(self._engine, query(request, "name") or "", body)
        return answer({"Id": container.id, "Warnings": []}, 201)

    async def start(self, _: web.Request, name: str) -> web.Response:
        """POST /containers/NAME/start."""
        container = self._engine.container(name)
        if self._engine.start_takes and not container.running:
            await self._engine.clock.sleep(self._engine.start_takes)
        return empty(204 if self._life.start(container) else 304)

    async def stop(self, request: web.Request, name: str) -> web.Response:
        """POST /containers/NAME/stop."""
        seconds = atoi(request.query["t"]) if request.query.get("t") else None
        container = await self._answering(name)
        if not self._life.stop(container, seconds):
            return empty(304)
        await self._engine.until(container, lambda: not container.running)
        return empty()

    async def kill(self, request: web.Request, name: str) -> web.Response:
        """POST /containers/NAME/kill."""
        number = signal_number(query(request, "signal") or "KILL")
        try:
            container = self._engine.container(name)
        except RefusedError as refused:
            raise RefusedError(refused.status, f"Cannot kill container: {name}: {refused.message}") from refused
        self._life.kill(container, number, name)
        if number == KILL:
            run = container.run
            await self._engine.until(container, lambda: container.run != run or not container.running)
        return empty()

    async def pause(self, _: web.Request, name: str) -> web.Response:
        """POST /containers/NAME/pause."""
        self._life.pause(self._engine.container(name))
        return empty()

    async def unpause(self, _: web.Request, name: str) -> web.Response:
        """POST /containers/NAME/unpause."""
        self._life.unpause(self._engine.container(name))
        return empty()

    async def wait(self, request: web.Request, name: str) -> web.StreamResponse:
        """POST /containers/NAME/wait: the head of the answer comes at once, its body at the end."""
        container = self._engine.container(name)
        response = Stream()
        await response.prepare(request)
        condition, run = query(request, "condition") or "", container.run
        ids = self._engine.containers
        match condition:
            case "removed":
                await self._engine.until(container, lambda: container.id not in ids)
            case "next-exit":
                started = container.running
                await self._engine.until(
                    container,
                    lambda: container.id not in ids or container.run > run + (0 if started else 1),
                )
            case _:
                await self._engine.until(container, lambda: not container.running)
        await response.write(encode({"Error": None, "StatusCode": container.exit_code}))
        await response.write_eof()
        return response

    async def remove(self, request: web.Request, name: str) -> web.Response:
        """DELETE /containers/NAME."""
        container = await self._answering(name)
        removal = self._life.remove(
            container, name, volumes=flag(request, "v"), force=flag(request, "force"), link=flag(request, "link")
        )
        await self._over(container, removal)
        if removal.error:
            raise RefusedError(500, removal.error)
        return empty()

    async def _over(self, container: Container, removal: Removal) -> None:
        await self._engine.until(container, lambda: removal.over)

    async def prune(self, request: web.Request, _: str) -> web.Response:
        """POST /containers/prune: all that do not run and have the labels go; their volumes stay."""
        filters = Filters(query(request, "filters"), ("label",))
        gone = [c for c in self._engine.newest_first() if not c.running and not c.removing and filters.labels(c.labels)]
        for container in gone:
            await self._over(container, self._life.remove(container, container.id, volumes=False, force=False))
        self._engine.events.log("container", "prune", "", {"reclaimed": "0"}, self._engine.tick())
        return answer({"ContainersDeleted": [container.id for container in gone] or None, "SpaceReclaimed": 0})
