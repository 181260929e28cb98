"""What the cells are tried on: resources that must go, and resources that must live, on each provider.

The times leave room on both sides of the thresholds (6 h stopped, 24 h old), so that a clock that is an hour wrong and is
believed takes what must live.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol

from aiohttp import web

from reaper.core.lease import Lease
from reaper.core.scope import LEASE_LABEL
from reaper.providers.daytona.registration import REGISTRATION as DAYTONA
from reaper.providers.daytona.settings import DaytonaTable
from reaper.providers.docker.registration import REGISTRATION as DOCKER
from reaper.providers.docker.settings import DockerTable
from reaper.providers.registration import EndpointSpec
from reaper.simulator.daytona.model import Sandbox
from reaper.simulator.daytona.model import as_sandbox as shown
from reaper.simulator.docker.app import add_container
from reaper.simulator.docker.life import Life
from reaper.simulator.docker.model import Container
from reaper.simulator.server import Simulator
from reaper.simulator.world import SandboxSpec

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
PROJECT, NUMBER = "com.docker.compose.project", "com.docker.compose.container-number"
LEASED = Lease("run-1", "harbor run", frozenset())
"""A living lease; what it covers carries its label."""

OWNED = {"terminal-bench": "1"}
MANAGED = {"harbor.managed": "true"}
ENDPOINT = "bench"
LISTING, INSPECTION, STOP, ARCHIVE, DELETE, EVENTS, LOG = (
    "listing",
    "inspection",
    "stop",
    "archive",
    "delete",
    "events",
    "log",
)


def addressed(request: web.Request) -> str:
    """The id in the path of a request about one resource."""
    parts = re.sub(r"^/v[\d.]+", "", request.path).removeprefix("/api").strip("/").split("/")
    return parts[1] if len(parts) > 1 else ""


class World(Protocol):
    """One provider's part of the simulator. ``acts`` are the requests that do what the policies of this world order."""

    name: str
    go: frozenset[str]
    live: frozenset[str]
    acts: frozenset[str]

    def fill(self, sim: Simulator) -> None:
        """Put everything in."""

    def spec(self, sim: Simulator) -> EndpointSpec:
        """The endpoint as a configuration would name it."""

    def names(self) -> set[str]:
        """The names of what is there now, as far as any client could see it."""

    def ends(self) -> bool:
        """Whether nothing is on its way to its end: a deletion that was accepted is done in the server's own time."""

    def kind(self, request: web.Request) -> str | None:
        """Which sort of request this is."""

    def never_done(self, request: web.Request, /) -> web.Response:
        """The answer that accepts a deletion, without the deletion."""

    def fails_later(self, request: web.Request) -> None:
        """Let the deletion that is asked for be accepted, and fail."""

    def mend(self) -> None:
        """End what ``fails_later`` began."""


class DockerWorld:
    """Containers and networks of one engine."""

    name = "docker"
    acts = frozenset({DELETE})
    go = frozenset({"stopped-1", "stopped-2", "long", "trial-a", "trial-b", "trial_default"})
    live = frozenset(
        {
            *("young", "nearly-old", "nearly-stopped", "kept", "foreign", "leased", "restarted"),
            *("busy-old", "busy-live", "busy_default", "archive-kept", "archive_default"),
        }
    )

    def add(self, name: str, *, labels: Mapping[str, str] = OWNED, hours: float = 8.0, **fields: Any) -> None:
        """A container that has ended so long ago, or runs for so long."""
        ended = fields.get("state", "exited") == "exited"
        at = self.engine.clock.now() - timedelta(hours=hours)
        times = {"created": at - HOUR, "started": at - HOUR, "finished": at} if ended else {"created": at, "started": at}
        made = {"image": "bench:1", "state": "exited", "labels": labels, **times, **fields}
        add_container(self.engine, name=name, **made)

    def fill(self, sim: Simulator) -> None:
        self.engine = sim.engine
        now, owned, add = sim.clock.now(), OWNED, self.add

        def member(project: str, number: int) -> dict[str, str]:
            return {**owned, PROJECT: project, NUMBER: str(number)}

        for project in ("trial", "busy", "archive"):
            created = int((now - 9 * HOUR).timestamp() * 1e9)
            self.engine.networks.add(f"{project}_default", labels={PROJECT: project}, created=created)
        add("stopped-1")
        add("stopped-2", hours=30)
        add("long", state="running", hours=48)
        add("trial-a", labels=member("trial", 1), networks=("trial_default",))
        add("trial-b", labels=member("trial", 2), networks=("trial_default",))
        add("young", state="running", hours=1)
        add("nearly-old", state="running", hours=23.1)
        add("nearly-stopped", hours=5.1)
        add("kept", labels={**owned, "reaper.keep": ""})
        add("foreign", labels={})
        add("leased", labels={**owned, LEASE_LABEL: LEASED.id})
        add("restarted", labels={"team": "rl"}, restart_policy="always")
        add("busy-old", labels=member("busy", 1), networks=("busy_default",))
        add("busy-live", labels=member("busy", 2), state="running", hours=1, networks=("busy_default",))
        add("archive-kept", labels={**member("archive", 1), "reaper.keep": ""}, networks=("archive_default",))

    def spec(self, sim: Simulator) -> EndpointSpec:
        return EndpointSpec(DOCKER, DockerTable(name=ENDPOINT, host=sim.docker_host))

    def names(self) -> set[str]:
        self.engine.settle()
        networks = {network.name for network in self.engine.networks if not network.predefined}
        return set(self.engine.names) | networks

    def ends(self) -> bool:
        self.engine.settle()
        return True

    def kind(self, request: web.Request) -> str | None:
        path = re.sub(r"^/v[\d.]+", "", request.path)
        match request.method, *path.strip("/").split("/"):
            case "GET", "containers", "json":
                return LISTING
            case "GET", ("containers" | "networks"), _, *what:
                return LOG if what == ["logs"] else INSPECTION
            case "POST", "containers", _, "stop":
                return STOP
            case "DELETE", *_:
                return DELETE
            case "GET", "events":
                return EVENTS
        return None

    def never_done(self, _: web.Request, /) -> web.Response:
        return web.Response(status=204)

    def fails_later(self, request: web.Request) -> None:
        container = self._addressed(request)
        if container is not None:
            container.behaviour = replace(container.behaviour, removal_failures=100)

    def _addressed(self, request: web.Request) -> Container | None:
        return self.engine.containers.get(request.match_info.get("name", ""))

    def die(self, name: str) -> None:
        """A container that was started just now ends, of which an event tells."""
        now = self.engine.clock.now()
        labels = {"terminal-bench": "1"}
        made = add_container(
            self.engine, name=name, image="bench:1", state="running", labels=labels, created=now, started=now
        )
        Life(self.engine).kill(made, 9, made.id)

    def mend(self) -> None:
        for container in self.engine.containers.values():
            container.behaviour = replace(container.behaviour, removal_failures=0)


class DaytonaWorld:
    """Sandboxes of one organisation. Where ``denied``, its key may not delete, so that what runs is stopped."""

    name = "daytona"
    acts = frozenset({DELETE})
    go = frozenset({"stopped-1", "old-1", "old-2", "trial-a", "trial-b"})
    live = frozenset({"young", "nearly-old", "nearly-stopped", "kept", "foreign", "leased", "busy-old", "busy-live"})

    def __init__(self, *, denied: bool = False) -> None:
        self.denied = denied
        if denied:
            self.go -= {"stopped-1"}

    def begin(self, sim: Simulator) -> None:
        """Without any sandbox yet."""
        self.organisation, self._clock = sim.organisation(), sim.clock
        self._names: dict[str, str] = {}

    def add(self, name: str, *, labels: Mapping[str, str] = MANAGED, hours: float = 48.0, **fields: Any) -> None:
        """A sandbox that was created and last used so long ago."""
        at = self._clock.now() - timedelta(hours=hours)
        spec = SandboxSpec(**{"name": name, "labels": labels, "created": at, "active": at, "updated": at, **fields})
        self._names[self.organisation.add(spec).id] = name

    def fill(self, sim: Simulator) -> None:
        self.begin(sim)
        owned, add = MANAGED, self.add

        def member(session: str) -> dict[str, str]:
            return {**owned, "harbor.session_id": session}

        # In this order they come on the pages, of which the second is the one that meets a fault.
        add("busy-old", labels=member("busy"), hours=60)
        add("kept", labels={**owned, "reaper.keep": ""}, hours=59)
        add("foreign", labels={}, hours=58)
        add("stopped-1", state="stopped", hours=57) if not self.denied else add("foreign-2", labels={}, hours=57)
        add("trial-a", labels=member("trial"), hours=56)
        add("trial-b", labels=member("trial"), hours=55)
        add("old-1", hours=54)
        add("old-2", hours=53)
        add("leased", labels={**owned, LEASE_LABEL: LEASED.id}, hours=52)
        add("nearly-old", hours=23.1)
        add("nearly-stopped", state="stopped", hours=5.1)
        add("young", hours=1)
        add("busy-live", labels=member("busy"), hours=0.9)

    def spec(self, sim: Simulator) -> EndpointSpec:
        table = DaytonaTable(name=ENDPOINT, api_url=sim.daytona_url, page_size=4)
        key = sim.daytona.add_key("default", permissions=("write:sandboxes",)) if self.denied else sim.api_key()
        return EndpointSpec(DAYTONA, table, key)

    def names(self) -> set[str]:
        self.organisation.settle()
        stopped = {"stopped"} if self.denied else set[str]()
        rows = [row for row in self.organisation.rows.values() if not row.hidden]
        return {self._names[row.id] for row in rows if row.state not in stopped or self._names[row.id] in self.live}

    def ends(self) -> bool:
        self.organisation.settle()
        rows = [row for row in self.organisation.rows.values() if self._names[row.id] in self.go and not row.hidden]
        return not any(row.desired == "destroyed" for row in rows)

    def kind(self, request: web.Request) -> str | None:
        match request.method, *request.path.strip("/").split("/"):
            case "GET", "api", "sandbox":
                return LISTING
            case "GET", "api", "sandbox", name if name != "paginated":
                return INSPECTION
            case "POST", "api", "sandbox", _, ("stop" | "archive") as order:
                return STOP if order == "stop" else ARCHIVE
            case "DELETE", *_:
                return DELETE
        return None

    def _addressed(self, request: web.Request) -> Sandbox:
        return self.organisation.rows[request.match_info["sandboxIdOrName"]]

    def never_done(self, request: web.Request, /) -> web.Response:
        return web.json_response(shown(self._addressed(request), ""))

    def fails_later(self, request: web.Request) -> None:
        self._addressed(request).destroy_fails = True

    def mend(self) -> None:
        for row in self.organisation.rows.values():
            row.destroy_fails = False
