"""The routes for networks, volumes and images of a simulated Docker engine."""

from aiohttp import web

from reaper.simulator.docker import images as docker_images
from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.filters import Filters
from reaper.simulator.docker.http import answer, body_of, empty, flag, raw_answer, route
from reaper.simulator.docker.json import image, network, volume
from reaper.simulator.docker.model import RefusedError, Volume
from reaper.simulator.docker.text import encode


@route("GET", "/networks")
async def _list_networks(engine: Engine, request: web.Request, _: str) -> web.Response:
    filters = Filters(request.query.get("filters"), ("label", "name"))
    named = [n for n in engine.networks if filters.match("name", n.name) and filters.labels(n.labels)]
    return answer([network(found, listed=True) for found in named])


@route("GET", "/networks/{name}")
async def _inspect_network(engine: Engine, _: web.Request, name: str) -> web.Response:
    return answer(network(engine.networks.find(name), listed=False))


@route("POST", "/networks/create")
async def _create_network(engine: Engine, request: web.Request, _: str) -> web.Response:
    made, warning = engine.networks.create(await body_of(request))
    return answer({"Id": made.id, "Warning": warning}, 201)


@route("DELETE", "/networks/{name}")
async def _delete_network(engine: Engine, _: web.Request, name: str) -> web.Response:
    engine.networks.delete(name)
    return empty()


@route("POST", "/networks/{name}/disconnect")
async def _disconnect(engine: Engine, request: web.Request, name: str) -> web.Response:
    body = await body_of(request)
    found, ref = engine.networks.find(name), str(body.get("Container") or "")
    try:
        container = engine.container(ref)
    except RefusedError as refused:
        if not body.get("Force"):
            raise
        if not found.stale_key or ref != found.stale:
            raise RefusedError(404, f"endpoint {ref} not found") from refused
        found.stale = found.stale_key = ""
        return empty(200)
    engine.networks.disconnect(found, container)
    engine.changed(container)
    return empty(200)


def _volume(engine: Engine, name: str) -> Volume:
    if name not in engine.volumes:
        raise RefusedError(404, f"get {name}: no such volume")
    return engine.volumes[name]


@route("GET", "/volumes")
async def _list_volumes(engine: Engine, request: web.Request, _: str) -> web.Response:
    filters = Filters(request.query.get("filters"), ("label", "driver", "dangling"))
    found = [volume(engine, v) for v in engine.volumes.values() if filters.labels(v.labels)]
    if "driver" in filters:
        found = [row for row in found if row["Driver"] in filters.get("driver")]
    if filters.get("dangling") == ["false"]:
        found = [row for row in found if engine.volumes[row["Name"]].users]
    return answer({"Volumes": found, "Warnings": None})


@route("GET", "/volumes/{name}")
async def _inspect_volume(engine: Engine, _: web.Request, name: str) -> web.Response:
    return answer(volume(engine, _volume(engine, name)))


@route("POST", "/volumes/create")
async def _create_volume(engine: Engine, request: web.Request, _: str) -> web.Response:
    body = await body_of(request)
    made = engine.add_volume(str(body.get("Name") or ""), body.get("Labels"), body.get("DriverOpts"))
    return answer(volume(engine, made), 201)


@route("DELETE", "/volumes/{name}")
async def _delete_volume(engine: Engine, request: web.Request, name: str) -> web.Response:
    if name not in engine.volumes and flag(request, "force"):
        return empty()
    found = _volume(engine, name)
    if found.users:
        users = ", ".join(sorted(found.users))
        raise RefusedError(409, f"remove {name}: volume is in use - [{users}]")
    engine.drop_volume(found)
    return empty()


@route("GET", "/images/json")
async def _list_images(engine: Engine, request: web.Request, _: str) -> web.Response:
    filters = Filters(request.query.get("filters"), ("label",))
    every = flag(request, "all")
    shown = (found for found in engine.images if every or found.tags or not engine.images.children(found))
    return answer([docker_images.listed(found) for found in shown if filters.labels(found.labels)])


@route("GET", "/images/{name}/json")
async def _inspect_image(engine: Engine, _: web.Request, name: str) -> web.Response:
    found = engine.images.find(name)
    if found is None:
        raise RefusedError(404, f"no such image: {name}: {engine.images.missing(name)}")
    return answer(image(engine, found))


@route("POST", "/images/create")
async def _create_image(engine: Engine, request: web.Request, _: str) -> web.Response:
    """An import makes a new image each time; the registry to pull from has none."""
    await request.read()
    if (source := request.query.get("fromSrc")) is None:
        wanted = request.query.get("fromImage") or ""
        why = "repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
        raise RefusedError(404, f"pull access denied for {wanted}, {why}")
    repository, tag = request.query.get("repo") or "", request.query.get("tag") or "latest"
    images = engine.images
    labels = docker_images.labels_of(request.query.getall("changes", ()))
    comment = f"Imported from {source}"
    made = images.add(f"{repository}:{tag}" if repository else "", labels=labels, comment=comment)
    engine.events.log("image", "import", made.id, {"name": made.id}, engine.tick())
    return raw_answer(encode({"status": made.id}))


@route("POST", "/images/{name}/tag")
async def _tag_image(engine: Engine, request: web.Request, name: str) -> web.Response:
    repository, tag = request.query.get("repo") or "", request.query.get("tag") or "latest"
    found = engine.images.need(name)
    engine.images.tag(found, f"{repository}:{tag}")
    return empty(201)


@route("DELETE", "/images/{name}")
async def _delete_image(engine: Engine, request: web.Request, name: str) -> web.Response:
    return answer(engine.images.delete(name, force=flag(request, "force")))
