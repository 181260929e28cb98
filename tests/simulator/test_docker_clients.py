"""The simulated engine, driven by the clients that people have: the docker command, docker-py, aiodocker, docker-compose."""

import asyncio
import importlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reaper.simulator.docker.app import Behaviour
from reaper.simulator.faults import Fault
from tests import needs
from tests.simulator.docker_world import DAY, HOUR, World

COMMANDS = [path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if Path(path).exists()]
PROJECT = {"com.docker.compose.project": "chess"}


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        world.import_image()
        yield world


class Docker:
    """The docker command, pointed at a world."""

    def __init__(self, command: str, world: World, home: Path) -> None:
        self.command = command
        self.env = {"DOCKER_HOST": world.host, "HOME": str(home), "PATH": os.environ["PATH"]}

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.command, *arguments], env=self.env, capture_output=True, text=True, timeout=60, check=False
        )

    def __call__(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(params=COMMANDS or [""])
def docker(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Docker:
    if not request.param:
        needs.lacking("the docker command (Debian's package docker.io) is not installed")
    return Docker(request.param, world, tmp_path)


def test_docker_lists(docker: Docker, world: World) -> None:
    world.add("old", age=3 * DAY, labels=PROJECT)
    world.add("living", age=2 * HOUR, state="running", started=world.clock.now() - 2 * HOUR)
    world.add("fresh", age=timedelta(0), state="created")
    world.add("frozen", state="paused", started=world.clock.now() - timedelta(seconds=61))
    world.add("loops", state="restarting", command=("false",))
    world.add("broken", state="dead")
    rows = docker("ps", "-a", "--format", "{{.Names}}|{{.Status}}|{{.Image}}").splitlines()
    assert set(rows) == {
        "old|Exited (0) About an hour ago|bench:1",
        "living|Up 2 hours|bench:1",
        "fresh|Created|bench:1",
        "frozen|Up About a minute (Paused)|bench:1",
        "loops|Restarting (0) 24 hours ago|bench:1",
        "broken|Dead|bench:1",
    }
    assert docker("ps", "-q", "--filter", "name=old", "-a", "--no-trunc") == world.inspect("old")["Id"]
    assert docker("ps", "--format", "{{.Names}}", "--filter", "status=paused") == "frozen"
    assert docker("ps", "-a", "--format", "{{.Names}}", "--filter", "label=com.docker.compose.project=chess") == "old"
    assert json.loads(docker("inspect", "living"))[0]["State"]["Running"] is True
    assert "invalid filter" in docker.run("ps", "--filter", "nonsense=1").stderr.lower()


def test_docker_acts(docker: Docker, world: World) -> None:
    ident = docker("run", "-d", "--name", "made", "--label", "a=b", "bench:1", "sleep", "infinity")
    assert world.state("made") == "running"
    assert "You cannot remove a running container" in docker.run("rm", "made").stderr
    docker("pause", "made")
    docker("unpause", "made")
    docker("rename", "made", "remade")
    docker("kill", "remade")
    assert docker("wait", "remade") == "137"
    docker("start", "remade")
    docker("stop", "-t", "0", ident[:12])
    assert docker("rm", "remade") == "remade"
    assert "No such container: remade" in docker.run("rm", "remade").stderr
    docker("create", "--name", "forced", "bench:1", "sleep", "9")
    docker("start", "forced")
    docker("restart", "-t", "0", "forced")
    assert docker("rm", "-f", "-v", "forced") == "forced"
    world.add("leftover")
    assert "Deleted Containers" in docker("container", "prune", "-f")
    assert world.ids() == []


def test_docker_objects(docker: Docker, world: World) -> None:
    docker("network", "create", "--label", "a=b", "net")
    docker("volume", "create", "vol")
    docker("run", "-d", "--name", "member", "--network", "net", "-v", "vol:/v", "bench:1", "sleep", "infinity")
    assert "net" in docker("network", "ls", "--format", "{{.Name}}").splitlines()
    assert "has active endpoints" in docker.run("network", "rm", "net").stderr
    assert "volume is in use" in docker.run("volume", "rm", "vol").stderr
    assert "member" in docker("network", "inspect", "net")
    docker("rm", "-f", "member")
    docker("network", "rm", "net")
    assert docker("volume", "ls", "-q") == "vol"
    docker("volume", "rm", "vol")
    docker("tag", "bench:1", "tb__x__client")
    assert "tb__x__client" in docker("images", "--format", "{{.Repository}}").splitlines()
    docker("rmi", "tb__x__client")
    assert "20.10.24" in docker("version", "--format", "{{.Server.Version}}")
    assert docker("info", "--format", "{{.Containers}}") == "0"
    assert "Local Volumes" in docker("system", "df")


def test_docker_events_are_streamed(docker: Docker, world: World) -> None:
    format_ = "{{.Type}} {{.Action}}"
    with subprocess.Popen(
        [docker.command, "events", "--filter", "type=container", "--format", format_],
        env=docker.env,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(30, process.kill)
        watchdog.start()
        while world.api.must("GET", "/info")["NEventsListener"] == 0:
            pass
        world.remove(world.create("seen", start=True), force=True)
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(5)]
        process.kill()
        watchdog.cancel()
    assert seen == [f"container {action}" for action in ("create", "start", "kill", "die", "destroy")]


def test_docker_meets_faults(docker: Docker, world: World) -> None:
    world.add("here")
    world.faults.add(Fault(kind="status", status=503, message="not now", method="DELETE", resource="here", times=1))
    assert "not now" in docker.run("rm", "here").stderr
    docker("rm", "here")
    assert [struck for _, _, struck in world.faults.rules()] == [1]


def test_docker_py(world: World) -> None:
    pytest.importorskip("docker")
    module: Any = importlib.import_module("docker")
    client = module.DockerClient(base_url=world.host, version="auto", timeout=30)
    try:
        assert client.ping()
        assert client.version()["ApiVersion"] == "1.41"
        made = client.containers.run("bench:1", ["sleep", "infinity"], name="py", labels={"a": "b"}, detach=True)
        assert made.status == "created"
        made.reload()
        assert (made.status, made.labels, made.image.tags) == ("running", {"a": "b"}, ["bench:1"])
        with pytest.raises(module.errors.APIError, match="You cannot remove a running container"):
            made.remove()
        assert [found.name for found in client.containers.list(filters={"label": "a=b"})] == ["py"]
        made.stop(timeout=0)
        assert made.wait()["StatusCode"] == 137
        made.rename("pyy")
        made.remove(v=True)
        with pytest.raises(module.errors.NotFound):
            client.containers.get("pyy")
        network = client.networks.create("net", labels={"a": "b"})
        world.create("member", network="net", start=True)
        with pytest.raises(module.errors.APIError, match="has active endpoints"):
            network.remove()
        network.reload()
        assert [found.name for found in network.containers] == ["member"]
        assert client.volumes.create("vol").name == "vol"
        assert {image.tags[0] for image in client.images.list()} == {"bench:1"}
        world.kill_container("member")
        assert client.containers.prune()["ContainersDeleted"]
        events = client.events(since=0, until=2_000_000_000, decode=True)
        assert next(events)["Type"] == "image"
        events.close()
        assert client.df()["Containers"] is not None
    finally:
        client.close()


async def _with_aiodocker(world: World) -> None:
    import aiodocker

    url = f"unix://{world.socket}"
    async with asyncio.timeout(30), aiodocker.Docker(url=url) as client:
        made = await client.containers.create({"Image": "bench:1", "Cmd": ["sleep", "infinity"]}, name="aio")
        await made.start()
        subscriber = client.events.subscribe()  # type: ignore[no-untyped-call]  # aiodocker leaves it untyped
        while (await client.system.info())["NEventsListener"] == 0:
            pass
        await made.stop(t=0)
        assert (await made.wait())["StatusCode"] == 137
        assert (await made.show())["State"]["Status"] == "exited"
        while (event := await subscriber.get())["Action"] != "stop":
            pass
        assert event["Actor"]["ID"] == made.id
        await made.delete(v=True)
        with pytest.raises(aiodocker.DockerError, match="No such container") as gone:
            await made.delete()
        assert gone.value.status == 404
        slow = world.add("slow", behaviour=Behaviour(removal=3600.0))
        container = await client.containers.get(slow.id)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(container.delete(), 0.1)
        with pytest.raises(aiodocker.DockerError, match="already in progress") as busy:
            await container.delete(force=True)
        assert busy.value.status == 409
        world.turn(hours=1)
        assert await client.containers.list(all=True) == []
        assert {row["Name"] for row in await client.networks.list()} == {"bridge", "host", "none"}


def test_aiodocker(world: World) -> None:
    asyncio.run(_with_aiodocker(world))


def test_docker_compose(world: World, tmp_path: Path) -> None:
    needs.tool("docker-compose", "docker-compose")
    (tmp_path / "docker-compose.yaml").write_text(
        'version: "3"\nservices:\n  client:\n    image: bench:1\n    command: sleep infinity\n  db:\n    image: bench:1\n'
        "    command: sleep infinity\n    volumes: [data:/d]\nvolumes:\n  data: {}\n"
    )
    env = {"DOCKER_HOST": world.host, "PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def compose(*arguments: str) -> None:
        done = subprocess.run(
            ["docker-compose", "-p", "chess", *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    compose("up", "-d")
    rows = world.api.must("GET", "/containers/json")
    assert {row["Labels"]["com.docker.compose.service"] for row in rows} == {"client", "db"}
    assert world.networks() == ["chess_default"]
    compose("down", "-t", "0", "--volumes")
    assert (world.ids(), world.networks(), world.volumes()) == ([], [], [])
