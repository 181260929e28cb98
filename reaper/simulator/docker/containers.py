"""The routes below `/containers` of a simulated Docker engine."""

from collections.abc import Iterable

from aiohttp import web

from reaper.simulator.docker.build import create
from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.filters import Filters
from reaper.simulator.docker.http import RawStream, answer, body_of, empty, flag, raw_answer, route
from reaper.simulator.docker.json import inspected, listing
from reaper.simulator.docker.life import KILL, Life
from reaper.simulator.docker.model import Container, RefusedError, signal_number

# Listing


@route("GET", "/containers/json")
async def _list_containers(engine: Engine, request: web.Request, _: str) -> web.Response:
    filters = Filters(request.query.get("filters"), ("id", "label"))
    every = flag(request, "all")
    found = (container for container in _candidates(engine, filters) if every or container.running)
    return raw_answer(listing(engine, (c for c in found if filters.labels(c.labels) and filters.match("id", c.id))))


def _candidates(engine: Engine, filters: Filters) -> Iterable[Container]:
    """The containers that may match: few, where an id or a label is given."""
    idents = filters.get("id")
    if idents and all(len(ident) == 64 for ident in idents):
        known = engine.containers
        return sorted((known[i] for i in set(idents) if i in known), key=lambda c: c.created, reverse=True)
    for label in filters.get("label"):
        key, equals, value = label.partition("=")
        if equals:
            return engine.labelled(key, value)
    return engine.newest_first()


# One container


@route("GET", "/containers/{name}/json")
async def _inspect_container(engine: Engine, _: web.Request, name: str) -> web.Response:
    container = await _answering(engine, name)
    if container.behaviour.lost:
        raise RefusedError(500, f"stat {engine.root}/overlay2/{container.id[::-1]}: no such file or directory")
    return answer(inspected(engine, container))


async def _answering(engine: Engine, name: str) -> Container:
    """The container, when the engine answers requests about it. Raises RefusedError, like ``Engine.container``."""
    container = engine.container(name)
    if container.removing and container.behaviour.blocks:
        await engine.until(container, lambda: container.removal is None or container.removal.over)
        return engine.container(name)
    return container


@route("GET", "/containers/{name}/logs")
async def _logs(engine: Engine, request: web.Request, name: str) -> web.StreamResponse:
    """What it has written. With a terminal it is that, else each entry has a head; without ``follow`` it has an end."""
    container = await _answering(engine, name)
    wanted = {stream for stream, key in ((1, "stdout"), (2, "stderr")) if flag(request, key)}
    if not wanted:
        raise RefusedError(400, "Bad parameters: you must choose at least one stream")
    if container.removing or container.dead:
        raise RefusedError(409, "can not get logs from container which is dead or marked for removal")
    if (container.host.get("LogConfig") or {}).get("Type") == "none":
        raise RefusedError(501, "configured logging driver does not support reading")
    tail = request.query.get("tail") or "all"
    entries = container.log[-int(tail) or len(container.log) :] if tail.isdecimal() else container.log
    response = RawStream()
    await response.prepare(request)
    for stream, text in entries:
        if container.config.get("Tty"):
            await response.write(text.replace(b"\n", b"\r\n"))
        elif stream in wanted:
            await response.write(bytes([stream, 0, 0, 0]) + len(text).to_bytes(4) + text)
    await response.write_eof()
    return response


@route("POST", "/containers/create")
async def _create_container(engine: Engine, request: web.Request, _: str) -> web.Response:
    body = await body_of(request)
    container = create(engine, request.query.get("name") or "", body)
    return answer({"Id": container.id, "Warnings": []}, 201)


@route("POST", "/containers/{name}/start")
async def _start(engine: Engine, _: web.Request, name: str) -> web.Response:
    container = engine.container(name)
    if engine.start_takes and not container.running:
        await engine.clock.sleep(engine.start_takes)
    return empty(204 if Life(engine).start(container) else 304)


@route("POST", "/containers/{name}/stop")
async def _stop(engine: Engine, request: web.Request, name: str) -> web.Response:
    seconds = int(request.query["t"]) if request.query.get("t") else None
    container = await _answering(engine, name)
    if not Life(engine).stop(container, seconds):
        return empty(304)
    await engine.until(container, lambda: not container.running)
    return empty()


@route("POST", "/containers/{name}/kill")
async def _kill(engine: Engine, request: web.Request, name: str) -> web.Response:
    number = signal_number(request.query.get("signal") or "KILL")
    try:
        container = engine.container(name)
    except RefusedError as refused:
        raise RefusedError(refused.status, f"Cannot kill container: {name}: {refused.message}") from refused
    Life(engine).kill(container, number, name)
    if number == KILL:
        run = container.run
        await engine.until(container, lambda: container.run != run or not container.running)
    return empty()


@route("POST", "/containers/{name}/pause")
async def _pause(engine: Engine, _: web.Request, name: str) -> web.Response:
    Life(engine).pause(engine.container(name))
    return empty()


@route("POST", "/containers/{name}/unpause")
async def _unpause(engine: Engine, _: web.Request, name: str) -> web.Response:
    Life(engine).unpause(engine.container(name))
    return empty()


@route("DELETE", "/containers/{name}")
async def _remove(engine: Engine, request: web.Request, name: str) -> web.Response:
    container = await _answering(engine, name)
    removal = Life(engine).remove(
        container, name, volumes=flag(request, "v"), force=flag(request, "force"), link=flag(request, "link")
    )
    await engine.until(container, lambda: removal.over)
    if removal.error:
        raise RefusedError(500, removal.error)
    return empty()


@route("POST", "/containers/prune")
async def _prune(engine: Engine, request: web.Request, _: str) -> web.Response:
    """All that do not run and have the labels go; their volumes stay."""
    filters = Filters(request.query.get("filters"), ("label",))
    gone = [c for c in engine.newest_first() if not c.running and not c.removing and filters.labels(c.labels)]
    for container in gone:
        removal = Life(engine).remove(container, container.id, volumes=False, force=False)
        await engine.until(container, lambda: removal.over)  # noqa: B023 - it is awaited here
    engine.events.log("container", "prune", "", {"reclaimed": "0"}, engine.tick())
    return answer({"ContainersDeleted": [container.id for container in gone] or None, "SpaceReclaimed": 0})
