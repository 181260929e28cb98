"""A small honest stand-in for a Docker engine: real HTTP over a unix socket, the calls that reaper makes, no Docker.

It answers with the status codes and the texts of a real engine (20.10, API 1.41), and its containers have any state and
age without waiting. It has neither volumes nor images.
Faults (an answer that never comes, a connection that breaks) are not its business: put a
``devkit.faults.FaultProxy`` before it.
"""

import json
import re
import socketserver
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from reaper.core.durations import parse

NEVER = "0001-01-01T00:00:00Z"
RUNNING = ("running", "paused", "restarting")
PROJECT = "com.docker.compose.project"
IMAGE = f"sha256:{'ab' * 32}"  # of all containers, without a label
UNUSED: dict[str, object] = {
    "/volumes": {"Volumes": [], "Warnings": None},
    "/images/json": [],
    f"/images/{IMAGE}/json": {"Id": IMAGE, "Config": {"Labels": None}},
}

Answer = tuple[int, object]
PAGE_NOT_FOUND: Answer = (404, {"message": "page not found"})


@dataclass
class Container:
    """One container, created and started ``ago``, and stopped as long ago where it is stopped.

    ``owned`` gives it the label of the preset terminal-bench; every deletion of it is answered with ``refusal``, and where
    it ``revives`` it is started just before.
    """

    name: str
    state: str = "exited"
    ago: str = "2d"
    labels: Mapping[str, str] = field(default_factory=dict)
    owned: bool = True
    image: str = "bench:1"
    project: str | None = None
    refusal: tuple[int, str] | None = None
    revives: bool = False
    networks: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex * 2)

    def __post_init__(self) -> None:
        self.created = datetime.now(UTC) - parse(self.ago) - timedelta(milliseconds=200)
        self.started = None if self.state == "created" else self.created + timedelta(milliseconds=50)
        self.stopped = self.created + timedelta(milliseconds=100) if self.state in ("exited", "dead") else None
        marks = {"terminal-bench": "1"} if self.owned else {}
        marks |= {PROJECT: self.project, "com.docker.compose.container-number": "1"} if self.project is not None else {}
        self.labels = {**marks, **self.labels}


@dataclass
class Network:
    """One Compose project's network; what is attached to it stands with the containers."""

    name: str
    created: datetime
    labels: Mapping[str, str]
    scope: str = "local"
    id: str = field(default_factory=lambda: uuid.uuid4().hex * 2)


class FakeEngine:
    """The engine; listens within its ``with`` block. ``calls`` are the requests so far, as "METHOD path"."""

    def __init__(self) -> None:
        self.socket = f"/tmp/reaper-fake-{uuid.uuid4().hex[:8]}.sock"
        self.host = f"unix://{self.socket}"
        self.containers: dict[str, Container] = {}
        self.networks: dict[str, Network] = {}
        self.calls: list[str] = []
        self.stop_takes = 0.0  # seconds
        self.stopping = self.most_stopping = 0  # stops at once
        self.lock = threading.RLock()
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.005,), name="fake engine", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        Path(self.socket).unlink(missing_ok=True)

    def add(self, name: str, state: str = "exited", **options: Any) -> Container:
        """Add a container; the options are the fields of ``Container``."""
        container = Container(name, state, **options)
        project = container.labels.get(PROJECT)
        container.networks = tuple(n.id for n in self.networks.values() if project and n.labels[PROJECT] == project)
        self.containers[container.id] = container
        return container

    def add_network(self, name: str, project: str, *, ago: str = "2d", scope: str = "local") -> Network:
        """Add a Compose project's network; add it before the containers that are to be attached to it."""
        network = Network(name, datetime.now(UTC) - parse(ago), {PROJECT: project}, scope)
        self.networks[network.id] = network
        return network

    def names(self) -> set[str]:
        """The names of the containers that are left."""
        with self.lock:  # held for each request
            return {container.name for container in self.containers.values()}

    def changes(self) -> list[str]:
        """The requests that asked for a change."""
        with self.lock:
            return [call for call in self.calls if not call.startswith("GET ")]

    def delay_stop(self) -> None:
        """Let a stop take its time."""
        with self.lock:
            self.stopping += 1
            self.most_stopping = max(self.most_stopping, self.stopping)
        threading.Event().wait(self.stop_takes)
        with self.lock:
            self.stopping -= 1

    def answer(self, method: str, path: str, query: Mapping[str, str]) -> Answer:
        """The status and the body; None is no body."""
        match method, path:
            case "GET", "/version":
                return 200, {"Version": "20.10.24", "ApiVersion": "1.41", "Os": "linux", "Arch": "amd64"}
            case "GET", "/containers/json":
                return self._list(query)
            case "GET", "/networks":
                return 200, [self._network(network, attached=False) for network in self.networks.values()]
            case "GET", _ if path in UNUSED:
                return 200, UNUSED[path]
            case _ if what := re.fullmatch(r"/containers/([^/]+)(/json|/stop)?", path):
                return self._container(method, what[2], unquote(what[1]), query)
        what = re.fullmatch(r"/networks/([^/]+)", path)
        return self._one_network(method, unquote(what[1])) if what else PAGE_NOT_FOUND

    def _container(self, method: str, what: str | None, id_: str, query: Mapping[str, str]) -> Answer:
        found = self.containers.get(id_)
        if found is None:
            return 404, {"message": f"No such container: {id_}"}
        if (method, what) == ("GET", "/json"):
            return 200, _inspection(found)
        if (method, what) == ("DELETE", None):
            return self._delete(found, force=query.get("force", "").lower() in ("1", "true"))
        return self._stop(found) if (method, what) == ("POST", "/stop") else PAGE_NOT_FOUND

    def _one_network(self, method: str, id_: str) -> Answer:
        found = self.networks.get(id_)
        if found is None:
            return 404, {"message": f"network {id_} not found"}
        if method == "GET":
            return 200, self._network(found, attached=True)
        return self._delete_network(found) if method == "DELETE" else PAGE_NOT_FOUND

    def _list(self, query: Mapping[str, str]) -> Answer:
        filters = json.loads(query.get("filters", "{}"))
        if unknown := filters.keys() - {"id", "label"}:
            return 400, {"message": f"Invalid filter '{min(unknown)}'"}
        wanted = [text.partition("=") for text in filters.get("label", ())]
        everything = query.get("all", "").lower() in ("1", "true")
        return 200, [
            _row(container)
            for container in reversed(self.containers.values())
            if (everything or container.state in RUNNING)
            and container.id in filters.get("id", [container.id])
            and all(container.labels.get(k) == v if eq else k in container.labels for k, eq, v in wanted)
        ]

    def _stop(self, container: Container) -> Answer:
        if container.state not in RUNNING:
            return 304, None
        container.state, container.stopped = "exited", datetime.now(UTC)
        return 204, None

    def _delete(self, container: Container, *, force: bool) -> Answer:
        if container.revives:
            container.state, container.started = "running", datetime.now(UTC)
        if container.refusal is not None:
            return container.refusal[0], {"message": container.refusal[1]}
        if container.state == "removing":
            return 409, {"message": f"removal of container {container.id} is already in progress"}
        if container.state in RUNNING and not force:
            hint = "Unpause and then stop" if container.state == "paused" else "Stop"
            what = f"You cannot remove a {container.state} container {container.id}."
            return 409, {"message": f"{what} {hint} the container before attempting removal or force remove"}
        self.containers.pop(container.id, None)
        return 204, None

    def _delete_network(self, network: Network) -> Answer:
        if any(network.id in c.networks for c in self.containers.values() if c.state in RUNNING):
            text = f"error while removing network: network {network.name} id {network.id} has active endpoints"
            return 403, {"message": text}
        self.networks.pop(network.id, None)
        return 204, None

    def _network(self, network: Network, *, attached: bool) -> dict[str, Any]:
        at = [c for c in self.containers.values() if network.id in c.networks and c.state in RUNNING] if attached else []
        return {
            "Name": network.name,
            "Id": network.id,
            "Created": _time(network.created),
            "Scope": network.scope,
            "Containers": {container.id: {"Name": container.name} for container in at},
            "Labels": network.labels,
        }


def _time(value: datetime | None) -> str:
    return NEVER if value is None else value.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def _row(container: Container) -> dict[str, Any]:
    return {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": container.image,
        "ImageID": IMAGE,
        "Created": int(container.created.timestamp()),
        "Labels": container.labels,
        "State": container.state,
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": {id_[:12]: {"NetworkID": id_} for id_ in container.networks}},
    }


def _inspection(container: Container) -> dict[str, Any]:
    times = {"StartedAt": _time(container.started), "FinishedAt": _time(container.stopped)}
    return {
        "Id": container.id,
        "Image": IMAGE,
        "Name": f"/{container.name}",
        "Created": _time(container.created),
        "State": {"Status": container.state, **times},
        "Config": {"Image": container.image, "Labels": container.labels},
        "HostConfig": {"NetworkMode": "default", "RestartPolicy": {"Name": "no"}},
        "NetworkSettings": _row(container)["NetworkSettings"],
    }


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        super().__init__(engine.socket, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves in the middle is its own affair."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _handle(self) -> None:
        url = urlsplit(self.path)
        path = re.sub(r"^/v\d+\.\d+(?=/)", "", url.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        if path.endswith("/stop"):
            self.server.engine.delay_stop()
        with self.server.engine.lock:
            self.server.engine.calls.append(f"{self.command} {path}")
            status, body = self.server.engine.answer(self.command, path, query)
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if content:
            self.send_header("Content-Type", "application/json")
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - the names that BaseHTTPRequestHandler looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the method that it replaces
        """Say nothing."""
