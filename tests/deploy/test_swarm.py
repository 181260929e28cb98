"""The stack on a real Swarm of one node: it sweeps, tells which node it is, leaves Swarm's own alone and stops in order."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devkit import images
from devkit.client import DEFAULT_IMAGE, IGNORES_TERM, SLEEPS
from devkit.engine import PrivateEngine
from tests import needs
from tests.deploy.manifests import DEPLOY
from tests.engine.lab import OWNED, WAITS, containers, events, exited, until

pytestmark = pytest.mark.engine

STACK, HAPROXY = "reaper", "haproxy:swarm"
QUICKER = """
version: "3.8"
services:
  reaper:
    environment:
      REAPER_POLICY__STOPPED_CONTAINERS__STOPPED_FOR: 1s
      REAPER_POLICY__STOPPED_CONTAINERS__EVERY: 1s
      REAPER_POLICY__OLD_CONTAINERS__OLDER_THAN: 1s
      REAPER_POLICY__OLD_CONTAINERS__STOP_TIMEOUT: 3s
      REAPER_POLICY__OLD_CONTAINERS__EVERY: 1s
      REAPER_SERVICE__JITTER: 0s
    healthcheck:
      interval: 1s
"""
"""What makes a test of it short: the stack's own file is used as it is."""

ASK = """
import socket, sys, urllib.request
found = {row[4][0] for row in socket.getaddrinfo("tasks.reaper", 9797, type=socket.SOCK_STREAM)}
for address in sorted(found):
    sys.stdout.write(urllib.request.urlopen(f"http://{address}:9797/metrics", timeout=10).read().decode())
"""
"""A Prometheus' way to each reaper."""

REFUSED = """
import http.client, socket
for method, path in (("GET", "/swarm"), ("POST", "/containers/create"), ("GET", "/containers/json?size=1")):
    connection = http.client.HTTPConnection("engine", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("/run/docker-proxy/docker.sock")
    connection.request(method, path)
    print(connection.getresponse().status)
"""


@dataclass
class Swarm:
    """A manager that is its only node."""

    engine: PrivateEngine
    image: str
    folder: Path

    def docker(self, *arguments: str) -> str:
        """What a docker command prints."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "DOCKER_HOST": self.engine.host,
            "REAPER_IMAGE": self.image,
            "HAPROXY_IMAGE": HAPROXY,
            "DOCKER_SOCKET": self.engine.socket,
        }
        done = subprocess.run(["docker", *arguments], env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def task(self, service: str) -> dict[str, Any]:
        """The inspection of the running container of one of the stack's services; {} while there is none."""
        filters = json.dumps({"label": [f"com.docker.swarm.service.name={STACK}_{service}"]})
        found = self.engine.api.must("GET", f"/containers/json?filters={filters}".replace(" ", "%20"))
        return self.engine.inspect(found[0]["Id"]) if found else {}

    def healthy(self, service: str) -> bool:
        """Whether that container's health check has succeeded."""
        status: object = self.task(service).get("State", {}).get("Health", {}).get("Status")
        return status == "healthy"

    def python(self, script: str, *options: str) -> str:
        """What a script prints that runs in a container of reaper's image."""
        return self.docker("run", "--rm", *options, "--entrypoint", "python3", self.image, "-c", script)


@pytest.fixture
def swarm(deploy_engine: PrivateEngine, image: str, tmp_path: Path) -> Iterator[Swarm]:
    """`deploy_engine` as a Swarm, with the images of the stack; no Swarm and empty again after the test."""
    haproxy = needs.tool("haproxy", "haproxy")
    # As in the published image, where a user of its own runs it.
    images.host_image(deploy_engine, HAPROXY, {"/usr/local/sbin/haproxy": haproxy}, {}, config={"User": "99"})
    swarm = Swarm(deploy_engine, image, tmp_path)
    swarm.docker("swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:2377")
    yield swarm
    for service in swarm.docker("service", "ls", "--quiet").split():
        swarm.docker("service", "rm", service)
    for ident in deploy_engine.ids():  # a proxy lives on for half a minute, and a network as long as an endpoint is in it
        deploy_engine.api.delete(f"/containers/{ident}?force=1&v=1")
    swarm.docker("swarm", "leave", "--force")
    until(lambda: deploy_engine.networks() == ["docker_gwbridge"], "the end of the Swarm's networks")
    deploy_engine.clear()


def of(metrics: str, name: str, /, **labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    rows = (line.rpartition(" ") for line in metrics.splitlines() if line.startswith(f"{name}{{"))
    return sum(float(value) for series, _, value in rows if all(label in series for label in wanted))


def test_the_stack_from_its_start_to_its_end(swarm: Swarm, tmp_path: Path) -> None:
    engine = swarm.engine
    node = swarm.docker("info", "--format", "{{.Name}}").strip()
    _leave_things_behind(swarm)

    quicker = tmp_path / "quicker.yml"
    quicker.write_text(QUICKER)
    files = ("--compose-file", str(DEPLOY / "swarm/stack.yml"), "--compose-file", str(quicker))
    swarm.docker("stack", "deploy", "--resolve-image", "never", *files, STACK)

    # It sweeps what was left on its node, is healthy, and runs as it should.
    until(lambda: containers(engine) & {"exited", "forgotten"} == set(), "the leaked resources to go", 60)
    until(lambda: swarm.healthy("reaper"), "a healthy reaper", 60)
    _are_confined(swarm)

    # It serves which node it is over its network, and what it keeps there.
    metrics = swarm.python(ASK, "--network", f"{STACK}_metrics")
    assert of(metrics, "reaper_endpoint_up", endpoint=node) == 1
    assert of(metrics, "reaper_deletions_total", endpoint=node, outcome="deleted") == 2
    assert (
        of(metrics, "reaper_kept_resources", endpoint=node, reason="system_container") == 2
    )  # trial and job: the rest is not owned
    assert {"living", "foreign"} <= containers(engine)
    assert swarm.docker("service", "ls", "--filter", "name=trial", "--format", "{{.Replicas}}").strip() == "1/1"
    assert [e["name"] for e in events(engine, "kill") if e["name"].startswith(("trial.", "job."))] == []

    # Through its proxy it gets no further than it has to.
    ident = swarm.task("reaper")["Id"]
    assert swarm.docker("exec", ident, "python3", "-c", REFUSED).split() == ["403"] * 3

    # In the middle of a deletion the stack is removed: the deletion is brought to its end first.
    began = time.time()
    stubborn = engine.create("stubborn", cmd=IGNORES_TERM, labels=OWNED, start=True)
    until(
        lambda: any(event["name"] == "stubborn" for event in events(engine, "kill", began)), "the stop of what is stubborn"
    )
    swarm.docker("stack", "rm", STACK)
    removed = time.monotonic()
    until(lambda: bool(_died(engine, ident)), "the end of reaper", 40)
    assert time.monotonic() - removed < 20, "drain_timeout"
    (end,) = _died(engine, ident)
    assert end["exitCode"] == "0"
    assert engine.state(stubborn) == "gone"
    gone = next(event for event in events(engine, "destroy", began) if event["name"] == "stubborn")  # it may be told twice
    assert gone["at"] < end["at"]
    assert [event for event in events(engine, "die") if event["name"].startswith(f"{STACK}_proxy")] == []

    # What was deleted is on record, in a volume that outlives the stack.
    volume = f"{STACK}_state:/var/lib/reaper"
    history = json.loads(swarm.docker("run", "--rm", "--volume", volume, swarm.image, "history", "--json"))
    told = {entry["name"]: (entry["endpoint"], entry["outcome"]) for entry in history["acts"]}
    assert told == dict.fromkeys(("exited", "forgotten", "stubborn"), (node, "deleted"))


def _leave_things_behind(swarm: Swarm) -> None:
    """Two leaked containers, two others, and two services of Swarm's own that look leaked but for its labels."""
    engine = swarm.engine
    engine.import_image()
    label = ["--container-label", "terminal-bench=yes"]
    create = ["service", "create", "--detach", "--quiet", "--no-resolve-image", *label]
    swarm.docker(*create, "--name", "trial", DEFAULT_IMAGE, *SLEEPS)
    swarm.docker(*create, "--name", "job", "--restart-condition", "none", DEFAULT_IMAGE, "true")
    exited(engine, "exited")
    engine.create("forgotten", cmd=WAITS, labels=OWNED, start=True)
    engine.create("living", cmd=WAITS, labels={**OWNED, "reaper.keep": ""}, start=True)
    exited(engine, "foreign", {})
    until(lambda: _states(engine) == {"trial": "running", "job": "exited"}, "Swarm's own tasks")


def _states(engine: PrivateEngine) -> Mapping[str, str]:
    rows = engine.api.must("GET", "/containers/json?all=1")
    named = {row["Labels"].get("com.docker.swarm.service.name"): row["State"] for row in rows}
    return {name: state for name, state in named.items() if name in ("trial", "job")}


def _are_confined(swarm: Swarm) -> None:
    reaper, proxy = swarm.task("reaper"), swarm.task("proxy")
    for task in (reaper, proxy):
        assert task["HostConfig"]["ReadonlyRootfs"] is True
        assert task["HostConfig"]["CapDrop"] == ["ALL"]
        assert not task["HostConfig"]["CapAdd"]
        assert not task["NetworkSettings"]["Ports"] or set(task["NetworkSettings"]["Ports"].values()) == {None}
    assert reaper["Config"]["User"] == "65532:65532"
    assert proxy["Config"]["User"] == "0:65532"
    sources = {mount["Destination"]: mount.get("Source", "") for mount in reaper["Mounts"]}
    assert swarm.engine.socket not in sources.values()
    assert {"/run/docker-proxy", "/var/lib/reaper"} <= sources.keys()


def _died(engine: PrivateEngine, ident: str) -> list[dict[str, Any]]:
    name = f"{STACK}_reaper."
    return [event for event in events(engine, "die") if event["name"].startswith(name)]
