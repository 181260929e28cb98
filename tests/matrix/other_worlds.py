"""What the cells of other actions, of evidence, of owners and of further kinds are tried on: a small world for each."""

import re
from datetime import timedelta
from typing import Any

from aiohttp import web

from reaper.core.scope import LEASE_LABEL
from reaper.simulator.docker.model import Behaviour
from reaper.simulator.server import Simulator
from tests.matrix.worlds import (
    ARCHIVE,
    DELETE,
    EVENTS,
    HOUR,
    INSPECTION,
    LEASED,
    LISTING,
    MANAGED,
    NUMBER,
    OWNED,
    PROJECT,
    STOP,
    DaytonaWorld,
    DockerWorld,
)
from tests.owners.machine import LAST_BOOT, TICKS, FakeMachine, label

KEEP = {"reaper.keep": ""}
HELD = {LEASE_LABEL: LEASED.id}
NOBODYS: dict[str, str] = {}


def member(project: str, number: int) -> dict[str, str]:
    return {**OWNED, PROJECT: project, NUMBER: str(number)}


def of_session(session: str) -> dict[str, str]:
    return {**MANAGED, "harbor.session_id": session}


def network(world: DockerWorld, name: str, labels: dict[str, str], hours: float = 49) -> None:
    created = int((world.engine.clock.now() - timedelta(hours=hours)).timestamp() * 1e9)
    world.engine.networks.add(name, labels=labels, created=created)


# -- what is stopped or archived, and never deleted ------------------------------------------------------------------------


class StoppedContainers(DockerWorld):
    """Containers that are only stopped; a project of which one has stopped already, and its network, which stays."""

    acts = frozenset({STOP})
    go = frozenset({"long", "trial-a"})
    live = frozenset({"young", "kept", "foreign", "leased", "removed-by-stop", "busy-old", "busy-live", "trial_default"})
    policies = ({"name": "stop", "kinds": ["container"], "action": "stop", "older_than": "24h"},)

    def fill(self, sim: Simulator) -> None:
        self.engine = sim.engine
        network(self, "trial_default", {PROJECT: "trial"})
        self.add("trial-b", labels=member("trial", 2), hours=47, networks=("trial_default",))
        running: dict[str, dict[str, Any]] = {
            "long": {},
            "trial-a": {"labels": member("trial", 1), "networks": ("trial_default",)},
            "young": {"hours": 1},
            "kept": {"labels": {**OWNED, **KEEP}},
            "foreign": {"labels": NOBODYS},
            "leased": {"labels": {**OWNED, **HELD}},
            "removed-by-stop": {},
            "busy-old": {"labels": member("busy", 1)},
            "busy-live": {"labels": member("busy", 2), "hours": 1},
        }
        for name, fields in running.items():
            self.add(name, **{"state": "running", "hours": 48, "behaviour": Behaviour(), **fields})
        next(one for one in self.engine.containers.values() if one.name == "removed-by-stop").auto_remove = True
        self.everything = super().names()

    def names(self) -> set[str]:
        there = super().names()
        assert there >= self.everything, f"a policy that stops has deleted {self.everything - there}"
        return there - {one.name for one in self.engine.containers.values() if not one.running}


class HaltedSandboxes(DaytonaWorld):
    """Sandboxes that are only stopped, or stopped and archived; a session of which one has had that already."""

    def __init__(self, action: str) -> None:
        super().__init__()
        self.action = action
        self.acts = frozenset({STOP} if action == "stop" else {STOP, ARCHIVE})
        self.go = frozenset({"old", "trial-a"} | ({"stopped"} if action == "archive" else set()))
        self.live = frozenset({"young", "kept", "foreign", "leased", "ephemeral", "busy-old", "busy-live"})
        of = {"kinds": ["sandbox"], "action": action, "older_than": "24h"}
        self.policies = ({"name": action, **of},)
        self.is_done = {"stopped"} if action == "stop" else {"archived"}

    def fill(self, sim: Simulator) -> None:
        self.begin(sim)
        self.add("trial-b", labels=of_session("trial"), state=min(self.is_done))
        self.add("trial-a", labels=of_session("trial"))
        self.add("old")
        self.add("young", hours=1)
        self.add("kept", labels={**MANAGED, **KEEP})
        self.add("foreign", labels=NOBODYS)
        self.add("leased", labels={**MANAGED, **HELD})
        self.add("ephemeral", auto_delete=0)
        self.add("busy-old", labels=of_session("busy"))
        self.add("busy-live", labels=of_session("busy"), hours=1)
        if self.action == "archive":
            self.add("stopped", state="stopped")
        self.everything = super().names()

    def names(self) -> set[str]:
        there = super().names()
        assert there >= self.everything, f"a policy with action {self.action} has deleted {self.everything - there}"
        rows = self.organisation.rows.values()
        return there - {self._names[row.id] for row in rows if row.state in self.is_done}


# -- evidence --------------------------------------------------------------------------------------------------------------


class EvidencedContainers(DockerWorld):
    """Containers of which evidence is saved."""

    go = frozenset({"stopped-1", "trial-a", "trial-b", "trial_default"})
    live = frozenset({"young", "kept", "foreign"})
    policies = ({"name": "stopped", "kinds": ["container"], "stopped_for": "6h"},)

    def fill(self, sim: Simulator) -> None:
        self.engine = sim.engine
        network(self, "trial_default", {PROJECT: "trial"})
        for number, name in enumerate(("trial-a", "trial-b")):
            self.add(name, labels=member("trial", number + 1), networks=("trial_default",))
        self.add("stopped-1")
        self.add("young", hours=1)
        self.add("kept", labels={**OWNED, **KEEP})
        self.add("foreign", labels=NOBODYS)


class EvidencedSandboxes(DaytonaWorld):
    """Sandboxes of which evidence is saved."""

    go = frozenset({"stopped-1", "trial-a", "trial-b"})
    live = frozenset({"young", "kept", "foreign"})
    policies = ({"name": "stopped", "kinds": ["sandbox"], "stopped_for": "6h"},)

    def fill(self, sim: Simulator) -> None:
        self.begin(sim)
        for name in ("trial-a", "trial-b"):
            self.add(name, labels=of_session("trial"), state="stopped")
        self.add("stopped-1", state="stopped")
        self.add("young", state="stopped", hours=1)
        self.add("kept", labels={**MANAGED, **KEEP}, state="stopped")
        self.add("foreign", labels=NOBODYS, state="stopped")


# -- owners ----------------------------------------------------------------------------------------------------------------

DEAD, LIVING, LATER = 77, 4711, 4712
RUNNER = "/usr/bin/bench run"
ORPHANED = {"name": "orphaned", "orphaned_for": "10m"}


def machine() -> FakeMachine:
    """It was started five hours ago. One owner lives, another one's number is used by a process of two hours ago."""
    found = FakeMachine()
    found.start(LIVING, 1000)
    found.start(LATER, 3 * 3600 * TICKS)
    return found


def owner(pid: int, **fields: Any) -> dict[str, str]:
    return {"reaper.owner": label(pid, **fields)}


OF_LAST_BOOT = owner(DEAD, boot=LAST_BOOT)
OF_REUSED = owner(LATER)
OF_LIVING = owner(LIVING)
ELSEWHERE = owner(DEAD, host="b" * 32)


class OwnedContainers(DockerWorld):
    """Young containers that run, of owners that are dead and of others that are not."""

    go = frozenset({"orphan-1", "orphan-2", "trial-a", "trial-b", "trial_default"})
    live = frozenset({"living", "elsewhere", "unlabelled", "kept", "leased", "foreign", "busy-dead", "busy-living"})
    policies = ({**ORPHANED, "kinds": ["container"]},)

    def fill(self, sim: Simulator) -> None:
        self.engine = sim.engine
        network(self, "trial_default", {PROJECT: "trial"}, hours=4)
        networks = {"networks": ("trial_default",)}
        of: dict[str, dict[str, Any]] = {
            "orphan-1": {"labels": {**OWNED, **OF_LAST_BOOT}},
            "orphan-2": {"labels": {**OWNED, **OF_REUSED}},
            "trial-a": {"labels": {**member("trial", 1), **OF_REUSED}, **networks},
            "trial-b": {"labels": {**member("trial", 2), **OF_LAST_BOOT}, **networks},
            "living": {"labels": {**OWNED, **OF_LIVING}},
            "elsewhere": {"labels": {**OWNED, **ELSEWHERE}},
            "unlabelled": {},
            "kept": {"labels": {**OWNED, **OF_REUSED, **KEEP}},
            "leased": {"labels": {**OWNED, **OF_REUSED, **HELD}},
            "foreign": {"labels": OF_REUSED},
            "busy-dead": {"labels": {**member("busy", 1), **OF_REUSED}},
            "busy-living": {"labels": {**member("busy", 2), **OF_LIVING}},
        }
        for name, fields in of.items():
            self.add(name, **{"state": "running", "hours": 3, "behaviour": Behaviour(), **fields})


class OwnedSandboxes(DaytonaWorld):
    """The same of sandboxes."""

    go = frozenset({"orphan-1", "orphan-2", "trial-a", "trial-b"})
    live = frozenset({"living", "elsewhere", "unlabelled", "kept", "leased", "foreign", "busy-dead", "busy-living"})
    policies = ({**ORPHANED, "kinds": ["sandbox"]},)

    def fill(self, sim: Simulator) -> None:
        self.begin(sim)
        for name, labels in {
            "orphan-1": {**MANAGED, **OF_LAST_BOOT},
            "orphan-2": {**MANAGED, **OF_REUSED},
            "trial-a": {**of_session("trial"), **OF_REUSED},
            "trial-b": {**of_session("trial"), **OF_LAST_BOOT},
            "living": {**MANAGED, **OF_LIVING},
            "elsewhere": {**MANAGED, **ELSEWHERE},
            "unlabelled": MANAGED,
            "kept": {**MANAGED, **OF_REUSED, **KEEP},
            "leased": {**MANAGED, **OF_REUSED, **HELD},
            "foreign": OF_REUSED,
            "busy-dead": {**of_session("busy"), **OF_REUSED},
            "busy-living": {**of_session("busy"), **OF_LIVING},
        }.items():
            self.add(name, labels=labels, hours=3)


class ContainersOfARunner(DockerWorld):
    """Young containers that run and say nothing of an owner: the process that has made them is known by its command line."""

    go = frozenset({"orphan-1", "trial-a", "trial-b", "trial_default"})
    live = frozenset({"kept", "leased", "foreign", "of-no-preset"})
    policies = ({**ORPHANED, "kinds": ["container"]},)

    def fill(self, sim: Simulator) -> None:
        self.engine = sim.engine
        network(self, "trial_default", {PROJECT: "trial"}, hours=4)
        for name, labels in {
            "orphan-1": OWNED,
            "trial-a": member("trial", 1),
            "trial-b": member("trial", 2),
            "kept": {**OWNED, **KEEP},
            "leased": {**OWNED, **HELD},
            "foreign": NOBODYS,
            "of-no-preset": {"team": "rl"},
        }.items():
            networks = ("trial_default",) if name.startswith("trial") else ("bridge",)
            self.add(name, labels=labels, state="running", hours=2, behaviour=Behaviour(), networks=networks)


# -- further kinds ---------------------------------------------------------------------------------------------------------


class OtherKinds(DockerWorld):
    """Networks, volumes and images that policies are for, and a container that uses some."""

    go = frozenset({"leaked-net", "leaked-data", "hb__leaked:1"})
    live = frozenset(
        {
            *("user", "used-net", "young-net", "kept-net", "foreign-net"),
            *("used-data", "young-data", "kept-data", "foreign-data"),
            *("hb__used:1", "hb__young:1", "hb__shared:1", "postgres:16"),
        }
    )
    policies = (
        {"name": "networks", "kinds": ["network"], "older_than": "1h"},
        {"name": "volumes", "kinds": ["volume"], "older_than": "24h"},
        {"name": "images", "kinds": ["image"], "older_than": "24h"},
    )

    def fill(self, sim: Simulator) -> None:
        self.engine = sim.engine
        old, young = (int((sim.clock.now() - span).timestamp() * 1e9) for span in (48 * HOUR, HOUR / 2))
        for name, labels, created in (
            ("leaked", OWNED, old),
            ("used", OWNED, old),
            ("young", OWNED, young),
            ("kept", {**OWNED, **KEEP}, old),
            ("foreign", NOBODYS, old),
        ):
            self.engine.networks.add(f"{name}-net", labels=labels, created=created)
            self.engine.add_volume(f"{name}-data", labels, created=created)
        for tag in ("hb__leaked:1", "hb__used:1", "hb__young:1", "postgres:16", "hb__shared:1"):
            image = self.engine.images.add(tag, created=old)
            image.tagged = young if "young" in tag else old
        self.engine.images.tag(image, "acme/shared:1")
        of: dict[str, Any] = {"image": "hb__used:1", "networks": ("used-net",), "volumes": {"/data": "used-data"}}
        self.add("user", state="running", hours=1, behaviour=Behaviour(), **of)

    def names(self) -> set[str]:
        images = {tag for image in self.engine.images for tag in image.tags}
        return super().names() | set(self.engine.volumes) | images - {"acme/shared:1"}

    def kind(self, request: web.Request) -> str | None:
        path = re.sub(r"^/v[\d.]+", "", request.path)
        match request.method, *path.strip("/").split("/"):
            case "GET", ("networks" | "volumes"):
                return LISTING
            case "GET", "images", "json":
                return LISTING
            case "GET", ("networks" | "volumes" | "images"), _, *_:
                return INSPECTION
        found = super().kind(request)
        return found if found in (DELETE, EVENTS) else None
