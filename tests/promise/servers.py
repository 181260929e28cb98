"""A Docker engine and a Daytona organisation that serve a world over HTTP, as the real ones were seen to answer."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.promise.truth import Container, Image, Network, Pod, Sandbox, Volume, World

OWN_NETWORKS = tuple(
    {"Id": digit * 64, "Name": name, "Driver": name, "Scope": "local", "Labels": {}, "Created": "2026-01-02T03:04:05.6Z"}
    for digit, name in (("a", "bridge"), ("b", "host"))
)
ZERO = "0001-01-01T00:00:00Z"


def _rfc3339(time: datetime | None, never: str | None = ZERO) -> str | None:
    return never if time is None else time.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def _odd(row: dict[str, Any], odd: Mapping[str, object], prefix: str) -> dict[str, Any]:
    """The row with odd values in the places that start with ``prefix``: "list.Created", "inspect.State.StartedAt"."""
    for place, value in odd.items():
        which, *path, last = place.split(".")
        if which != prefix:
            continue
        inner = row
        for step in path:
            inner = inner[step] if isinstance(inner.get(step), dict) else {}
        if value is ...:
            inner.pop(last, None)
        else:
            inner[last] = value
    return row


class Engine:
    """The engine's API: what the program calls of it.

    Attributes:
        deleted: the ids of what was deleted, in order.
        stopped: the ids of the containers that were stopped.
        unknown: requests that it does not support.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.containers: dict[str, Container] = {c.id: c for c in world.containers}
        self.networks: dict[str, Network] = {n.id: n for n in world.networks}
        self.pods: dict[str, Pod] = {p.id: p for p in world.pods}
        self.volumes: dict[str, Volume] = {v.name: v for v in world.volumes}
        self.images: dict[str, Image] = {i.id: i for i in world.images if not i.missing}
        self.deleted: list[str] = []
        self.stopped: list[str] = []
        self.unknown: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        """The answer to one request."""
        parts = [part for part in request.path.split("/") if part]
        if parts and parts[0].startswith("v1."):
            parts = parts[1:]
        status: int
        found: object
        match request.method, *parts:
            case "GET", "version":
                status, found = 200, {"Version": "28.5.2", "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux"}
            case "GET", ("containers" | "networks" | "volumes" | "images") as kind, *rest if rest in (["json"], []):
                status, found = 200, self._listed(kind, json.loads(request.query.get("filters", "{}")))
            case "GET", "containers", id_, "json":
                status, found = self._one(self.containers, id_, self._inspected)
            case method, "libpod", ("containers" | "pods" | "images") as kind, *rest if self.world.podman:
                status, found = self._own_of_podman(method, kind, *rest)
            case "GET", "networks", id_:
                status, found = self._one(self.networks, id_, self._network)
            case "GET", "volumes", id_:
                status, found = self._one(self.volumes, id_, self._volume)
            case "GET", "images", id_, "json":
                status, found = self._one(self.images, id_, self._image_inspected)
            case "POST", "containers", id_, "stop" if id_ in self.containers:
                self.stopped.append(id_)
                if self.containers[id_].auto_remove:
                    del self.containers[id_]
                status, found = 204, None
            case "DELETE", ("containers" | "networks" | "volumes" | "images") as kind, id_:
                status, found = self._delete(kind, id_, force=request.query.get("force") in ("1", "true", "True"))
            case _:
                self.unknown.append(f"{request.method} {request.path_qs}")
                status, found = 404, {"message": "page not found"}
        date = format_datetime(datetime.now(UTC) + self.world.skew, usegmt=True)
        body = b"" if found is None else json.dumps(found).encode()
        headers = {"Date": date, "Api-Version": "1.44"} | ({"Libpod-Api-Version": "5.8.6"} if self.world.podman else {})
        return web.Response(status=status, body=body, headers=headers, content_type="application/json")

    def _one(self, held: Mapping[str, Any], id_: str, show: Callable[[Any], object]) -> tuple[int, object]:
        return (200, show(held[id_])) if id_ in held else (404, {"message": f"No such thing: {id_}"})

    def _listed(self, kind: str, filters: Mapping[str, Any]) -> object:
        wanted = filters.get("label", [])
        wanted = [label for label, on in wanted.items() if on] if isinstance(wanted, dict) else wanted

        def passes(labels: Mapping[str, str] | None) -> bool:
            return all(_has(labels or {}, label) for label in wanted)

        match kind:
            case "containers":
                ids = filters.get("id", [])
                found = [c for c in self.containers.values() if passes(c.labels) and (not ids or c.id in ids)]
                infra = [] if filters else [self._infra(pod) for pod in self.pods.values() if pod.infra is not None]
                return [*(self._row(container) for container in found), *infra]
            case "networks":
                made = [self._network(network) for network in self.networks.values() if passes(network.labels)]
                return made if wanted or self.world.podman else [*made, *OWN_NETWORKS]
            case "volumes":
                rows = [self._volume(volume) for volume in self.volumes.values() if passes(volume.labels)]
                return {"Volumes": rows, "Warnings": None}
            case _:
                return [self._image_row(image) for image in self.images.values() if passes(image.labels)]

    def _own_of_podman(self, method: str, kind: str, *rest: str) -> tuple[int, object]:
        if kind == "images":
            return 200, []
        return self._required(*rest) if kind == "containers" else self._of_pods(method, *rest)

    def _required(self, id_: str, *_: str) -> tuple[int, object]:
        return self._one(self.containers, id_, lambda container: {"Id": container.id, "Dependencies": []})

    def _of_pods(self, method: str, id_: str, *rest: str) -> tuple[int, object]:
        if (method, id_) == ("GET", "json"):
            return 200, [self._pod(pod) for pod in self.pods.values()]
        if method == "GET" and rest == ("json",):
            return self._one(self.pods, id_, self._pod_inspected)
        return self._delete_pod(id_)

    def _infra(self, pod: Pod) -> dict[str, Any]:
        return {
            "Id": pod.infra,
            "Names": [f"/{pod.id[:12]}-infra"],
            "Image": "",
            "ImageID": "sha256:",
            "Created": int(pod.created.timestamp()) if pod.created is not None else 0,
            "Labels": None if pod.labels is None else dict(pod.labels),
            "State": "running",
            "NetworkSettings": {"Networks": {}},
            "Mounts": [],
        }

    def _pod(self, pod: Pod) -> dict[str, Any]:
        inside = [{"Id": c.id, "Names": c.name, "Status": c.state} for c in self.containers.values() if c.pod == pod.id]
        infra = [] if pod.infra is None else [{"Id": pod.infra, "Names": f"{pod.id[:12]}-infra", "Status": "running"}]
        return {
            "Id": pod.id,
            "Name": pod.name,
            "Created": _rfc3339(pod.created),
            "InfraId": pod.infra or "",
            "Containers": [*inside, *infra],
            "Labels": None if pod.labels is None else dict(pod.labels),
        }

    def _pod_inspected(self, pod: Pod) -> dict[str, Any]:
        row = self._pod(pod)
        inside = [{"Id": one["Id"], "Name": one["Names"], "State": one["Status"]} for one in row["Containers"]]
        row |= {"InfraContainerID": row.pop("InfraId"), "Containers": inside}
        return {key: value for key, value in row.items() if key != "Labels" or value}

    def _delete_pod(self, id_: str) -> tuple[int, object]:
        """Without force what has stopped goes with its pod, and what runs keeps it."""
        inside = [c for c in self.containers.values() if c.pod == id_]
        if id_ not in self.pods:
            return 404, {"message": f"no pod with name or ID {id_} found: no such pod", "cause": "no such pod"}
        if any(map(self._runs, inside)):
            what = "not all containers could be removed from pod: container state improper"
            return 500, {"message": what, "cause": "removing pod containers"}
        for gone in (*(c.id for c in inside), id_):
            self.containers.pop(gone, None)
            self.deleted.append(gone)
        del self.pods[id_]
        return 200, {"Id": id_, "Err": None, "RemovedCtrs": {}}

    def _delete(self, kind: str, id_: str, *, force: bool) -> tuple[int, object]:
        held: dict[str, Any] = getattr(self, kind)
        if id_ not in held:
            return 404, {"message": f"No such thing: {id_}"}
        one = held[id_]
        if isinstance(one, Container) and one.state in ("running", "paused", "restarting"):
            if not force and id_ not in self.stopped:
                return 409, {"message": f"cannot remove container {one.name!r}: container is running"}
        elif isinstance(one, Network) and any(one.name in c.networks and self._runs(c) for c in self.containers.values()):
            return 403, {"message": f"error while removing network: network {one.name} has active endpoints"}
        elif isinstance(one, Volume) and any(one.name in c.volumes for c in self.containers.values()):
            return 409, {"message": f"remove {one.name}: volume is in use"}
        elif isinstance(one, Image) and any(c.image_id == one.id for c in self.containers.values()):
            return 409, {"message": "conflict: unable to delete: image is being used by stopped container"}
        del held[id_]
        self.deleted.append(id_)
        return (200, []) if kind == "images" else (204, None)

    def _runs(self, container: Container) -> bool:
        return container.state in ("running", "paused", "restarting") and container.id not in self.stopped

    def _attached(self, container: Container) -> dict[str, Any]:
        ids = {network.name: network.id for network in self.world.networks}
        started = container.started is not None
        return {name: {"NetworkID": ids.get(name, "e" * 64) if started else ""} for name in container.networks}

    def _mounts(self, container: Container) -> list[dict[str, Any]]:
        return [{"Type": "volume", "Name": name, "Destination": f"/{name}", "RW": True} for name in container.volumes]

    def _row(self, c: Container) -> dict[str, Any]:
        state = "exited" if c.id in self.stopped else c.state
        image = self.images.get(c.image_id)
        row = {
            "Id": c.id,
            "Names": [f"/{c.name}"],
            "Image": c.image if image is not None and c.image in image.tags else c.image_id,
            "ImageID": c.image_id,
            "Command": "sleep infinity",
            "Created": int(c.created.timestamp()) if c.created is not None else 0,
            "Ports": [],
            "Labels": None if c.labels is None else dict(c.labels),
            "State": state,
            "Status": f"Exited ({_code(c)}) 3 hours ago" if state == "exited" and c.started is not None else "Up",
            "HostConfig": None if self.world.podman else {"NetworkMode": c.network_mode},
            "NetworkSettings": {"Networks": self._attached(c)},
            "Mounts": self._mounts(c),
        }
        return _odd(row, c.odd, "list")

    def _inspected(self, c: Container) -> dict[str, Any]:
        stopped = c.id in self.stopped
        state = "exited" if stopped else c.state
        row = {
            "Id": c.id,
            "Created": _rfc3339(c.created),
            "State": {
                "Status": state,
                "Running": self._runs(c),
                "Paused": state == "paused",
                "Restarting": state == "restarting",
                "Dead": state == "dead",
                **({} if c.exit_code is None else {"ExitCode": c.exit_code if state in ("exited", "dead") else 0}),
                "StartedAt": _rfc3339(c.started),
                "FinishedAt": _rfc3339(self.world.now if stopped else c.finished),
            },
            "Image": c.image_id,
            "Name": f"/{c.name}",
            "RestartCount": 0,
            "Mounts": self._mounts(c),
            "HostConfig": {
                "NetworkMode": c.network_mode,
                "PidMode": c.pid_mode,
                "IpcMode": c.ipc_mode,
                "CgroupParent": c.cgroup_parent,
                "Links": list(c.links) or None,
                "VolumesFrom": list(c.volumes_from) or None,
                "RestartPolicy": {"Name": c.restart, "MaximumRetryCount": 0},
                "AutoRemove": c.auto_remove,
            },
            "Config": {"Image": c.image, "Labels": None if c.labels is None else dict(c.labels), "Hostname": c.id[:12]},
            "NetworkSettings": {"Networks": self._attached(c)},
        }
        return _odd(row, c.odd, "inspect")

    def _network(self, network: Network) -> dict[str, Any]:
        there = [c for c in self.containers.values() if network.name in c.networks and self._runs(c)]
        return {
            "Id": network.id,
            "Name": network.name,
            "Created": _rfc3339(network.created, None),
            "Scope": network.scope,
            "Driver": "bridge",
            "Ingress": False,
            "Labels": None if network.labels is None else dict(network.labels),
            "Containers": {c.id: {"Name": c.name} for c in there},
        }

    def _volume(self, volume: Volume) -> dict[str, Any]:
        return {
            "Name": volume.name,
            "CreatedAt": _rfc3339(volume.created, None),
            "Driver": "local",
            "Scope": "local",
            "Labels": None if volume.labels is None else dict(volume.labels),
        }

    def _image_row(self, image: Image) -> dict[str, Any]:
        created = int(image.created.timestamp())
        return {"Id": image.id, "RepoTags": list(image.tags), "Created": created, "Labels": dict(image.labels) or None}

    def _image_inspected(self, image: Image) -> dict[str, Any]:
        return {
            "Id": image.id,
            "RepoTags": list(image.tags),
            "Created": _rfc3339(image.created),
            "Config": {"Labels": dict(image.labels) or None},
            "Metadata": {"LastTagTime": _rfc3339(image.created)},
        }


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


class Organisation:
    """The platform's API: what the program calls of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sandboxes = {s.id: s for s in world.sandboxes}
        self.deleted: list[str] = []
        self.unknown: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        """The answer to one request."""
        match request.method, *(part for part in request.path.split("/") if part):
            case "GET", "api", "sandbox":
                items = [self._row(sandbox) for sandbox in sorted(self.sandboxes.values(), key=lambda s: str(s.created))]
                return web.json_response({"items": items, "nextCursor": None})
            case "GET", "api", "regions":
                return web.json_response([{"id": region, "name": region} for region in ("us", "eu")])
            case "GET", "api", "sandbox", id_ if id_ in self.sandboxes:
                sandbox = self.sandboxes[id_]
                link = {} if sandbox.linked is None else {"linkedSandboxId": sandbox.linked}
                return web.json_response(self._row(sandbox) | link)
            case "DELETE", "api", "sandbox", id_ if id_ in self.sandboxes:
                return web.json_response(self._row(self._destroy(id_)))
            case (("GET" | "DELETE"), "api", "sandbox", id_):
                missing = {"statusCode": 404, "error": "Not Found", "message": f"Sandbox with ID or name {id_} not found"}
                return web.json_response(missing, status=404)
            case _:
                self.unknown.append(f"{request.method} {request.path_qs}")
                return web.json_response({"statusCode": 404, "message": f"Cannot {request.method}"}, status=404)

    def _destroy(self, id_: str) -> Sandbox:
        gone = self.sandboxes.pop(id_)
        self.deleted.append(id_)
        for other in [s.id for s in self.sandboxes.values() if s.linked == id_]:
            self._destroy(other)  # what is linked goes with its owner, unasked
        return gone

    def _row(self, s: Sandbox) -> dict[str, Any]:
        row = {
            "id": s.id,
            "organizationId": "org",
            "name": s.name,
            "target": s.target,
            "runnerId": s.runner,
            "sandboxClass": "container",
            "state": s.state,
            "desiredState": s.wanted if s.wanted is not None else s.state,
            "snapshot": "daytonaio/sandbox:0.5.0-slim",
            "labels": None if s.labels is None else dict(s.labels),
            "autoDeleteInterval": s.auto_delete,
            "createdAt": _iso(s.created),
            "updatedAt": _iso(s.updated),
            "lastActivityAt": _iso(s.active),
        }
        if s.auto_stop is not None:
            row["autoStopInterval"] = s.auto_stop
        if s.warm:
            row["warmPoolId"] = "pool-1"
        return _odd(row, s.odd, "row")


def _iso(time: datetime | None) -> str | None:
    return None if time is None else f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z"


@asynccontextmanager
async def served(engine: Engine, socket: Path) -> AsyncIterator[None]:
    """The engine listens on a socket."""
    async with _listening(engine.answer) as runner:
        await web.UnixSite(runner, str(socket)).start()
        yield


@asynccontextmanager
async def served_on_port(organisation: Organisation) -> AsyncIterator[str]:
    """The organisation listens on a port; the URL of its API."""
    async with _listening(organisation.answer) as runner:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/api"


@asynccontextmanager
async def _listening(answer: Any) -> AsyncIterator[web.AppRunner]:
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


def _code(container: Container) -> str:
    return "" if container.exit_code is None else str(container.exit_code)
