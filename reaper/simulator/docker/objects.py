"""The routes for networks, volumes and images of a simulated Docker engine."""

from collections.abc import Iterable

from aiohttp import web

from reaper.simulator.docker import images as docker_images
from reaper.simulator.docker.build import check_volume
from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.filters import Filters
from reaper.simulator.docker.http import Work, answer, body_of, empty, flag, query, raw_answer
from reaper.simulator.docker.json import image, network, volume
from reaper.simulator.docker.model import RefusedError, Volume
from reaper.simulator.docker.text import encode

_REGISTRY = 'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io: no such host'


class NetworkRoutes:
    """Each method is one route; the table below says which."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> Iterable[tuple[str, str, Work]]:
        """Method, path and handler."""
        return (
            ("GET", "/networks", self.list),
            ("POST", "/networks/create", self.create),
            ("POST", "/networks/{name}/disconnect", self.disconnect),
            ("GET", "/networks/{name}", self.inspect),
            ("DELETE", "/networks/{name}", self.delete),
        )

    async def list(self, request: web.Request, _: str) -> web.Response:
        """GET /networks."""
        filters = Filters(query(request, "filters"), ("label", "name"))
        named = [n for n in self._engine.networks if filters.match("name", n.name) and filters.labels(n.labels)]
        return answer([network(found, listed=True) for found in named])

    async def inspect(self, _: web.Request, name: str) -> web.Response:
        """GET /networks/NAME."""
        return answer(network(self._engine.networks.find(name), listed=False))

    async def create(self, request: web.Request, _: str) -> web.Response:
        """POST /networks/create."""
        made, warning = self._engine.networks.create(await body_of(request))
        return answer({"Id": made.id, "Warning": warning}, 201)

    async def delete(self, _: web.Request, name: str) -> web.Response:
        """DELETE /networks/NAME."""
        self._engine.networks.delete(name)
        return empty()

    async def disconnect(self, request: web.Request, name: str) -> web.Response:
        """POST /networks/NAME/disconnect."""
        body = await body_of(request)
        found, ref = self._engine.networks.find(name), str(body.get("Container") or "")
        try:
            container = self._engine.container(ref)
        except RefusedError as refused:
            if not body.get("Force"):
                raise
            if not found.stale_key or ref != found.stale:
                raise RefusedError(404, f"endpoint {ref} not found") from refused
            found.stale = found.stale_key = ""
            return empty(200)
        self._engine.networks.disconnect(found, container)
        self._engine.changed(container)
        return empty(200)


class VolumeRoutes:
    """Each method is one route; the table below says which."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> Iterable[tuple[str, str, Work]]:
        """Method, path and handler."""
        return (
            ("GET", "/volumes", self.list),
            ("POST", "/volumes/create", self.create),
            ("GET", "/volumes/{name}", self.inspect),
            ("DELETE", "/volumes/{name}", self.delete),
        )

    def _find(self, name: str) -> Volume:
        if name not in self._engine.volumes:
            raise RefusedError(404, f"get {name}: no such volume")
        return self._engine.volumes[name]

    async def list(self, request: web.Request, _: str) -> web.Response:
        """GET /volumes."""
        filters = Filters(query(request, "filters"), ("label",))
        found = [volume(self._engine, v) for v in self._engine.volumes.values() if filters.labels(v.labels)]
        return answer({"Volumes": found, "Warnings": None})

    async def inspect(self, _: web.Request, name: str) -> web.Response:
        """GET /volumes/NAME."""
        return answer(volume(self._engine, self._find(name)))

    async def create(self, request: web.Request, _: str) -> web.Response:
        """POST /volumes/create."""
        body = await body_of(request)
        name, driver = str(body.get("Name") or ""), str(body.get("Driver") or "local")
        if driver != "local":
            text = f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found'
            raise RefusedError(404, text)
        if name:
            check_volume(name)
        made = self._engine.add_volume(name, body.get("Labels"), body.get("DriverOpts"))
        return answer(volume(self._engine, made), 201)

    async def delete(self, request: web.Request, name: str) -> web.Response:
        """DELETE /volumes/NAME."""
        if name not in self._engine.volumes and flag(request, "force"):
            return empty()
        found = self._find(name)
        if found.users:
            users = ", ".join(sorted(found.users))
            raise RefusedError(409, f"remove {name}: volume is in use - [{users}]")
        self._engine.drop_volume(found)
        return empty()


class ImageRoutes:
    """Each method is one route; the table below says which."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> Iterable[tuple[str, str, Work]]:
        """Method, path and handler."""
        return (
            ("GET", "/images/json", self.list),
            ("POST", "/images/create", self.create),
            ("GET", "/images/{name}/json", self.inspect),
            ("POST", "/images/{name}/tag", self.tag),
            ("DELETE", "/images/{name}", self.delete),
        )

    async def list(self, request: web.Request, _: str) -> web.Response:
        """GET /images/json."""
        filters = Filters(query(request, "filters"), ("label",))
        return answer([docker_images.listed(found) for found in self._engine.images if filters.labels(found.labels)])

    async def inspect(self, _: web.Request, name: str) -> web.Response:
        """GET /images/NAME/json."""
        found = self._engine.images.find(name)
        if found is None:
            raise RefusedError(404, f"no such image: {name}: {self._engine.images.missing(name)}")
        return answer(image(self._engine, found))

    async def create(self, request: web.Request, _: str) -> web.Response:
        """POST /images/create: an import makes a new image each time; there is no registry to pull from."""
        if not query(request, "fromSrc"):
            raise RefusedError(500, _REGISTRY)
        await request.read()
        repository, tag = query(request, "repo") or "", query(request, "tag") or "latest"
        images = self._engine.images
        labels = docker_images.labels_of(request.query.getall("changes", ()))
        comment = f"Imported from {query(request, 'fromSrc')}"
        made = images.add(f"{repository}:{tag}" if repository else "", labels=labels, comment=comment)
        self._engine.events.log("image", "import", made.id, {"name": made.id}, self._engine.tick())
        return raw_answer(encode({"status": made.id}))

    async def tag(self, request: web.Request, name: str) -> web.Response:
        """POST /images/NAME/tag."""
        repository, tag = query(request, "repo") or "", query(request, "tag") or "latest"
        found = self._engine.images.need(name)
        self._engine.images.tag(found, f"{repository}:{tag}")
        return empty(201)

    async def delete(self, request: web.Request, name: str) -> web.Response:
        """DELETE /images/NAME."""
        return answer(self._engine.images.delete(name, force=flag(request, "force")))
