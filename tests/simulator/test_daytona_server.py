"""The simulated world as a whole: in a loop, in a thread, and as a process of its own."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from reaper.simulator.clock import Clock
from reaper.simulator.population import containers, sandboxes
from reaper.simulator.server import Simulator
from reaper.simulator.world import ContainerSpec, NetworkSpec, SandboxSpec
from tests.simulator.daytona_client import EXACT, START

pytestmark = pytest.mark.anyio


def ask(url: str, key: str = "", method: str = "GET", body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Authorization": f"Bearer {key}"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_in_a_thread_of_its_own() -> None:
    with Simulator(seed=7, sandboxes=30, containers=10, behaviour=EXACT, clock=Clock(START, rate=0)) as sim:
        assert len(ask(sim.daytona_url + "/sandbox", sim.api_key())["items"]) == 30
        row = sim.do(lambda: sim.organisation().add(SandboxSpec(name="mine")))
        assert ask(f"{sim.daytona_url}/sandbox/{row.id}", sim.api_key(), "DELETE")["state"] == "destroying"
        sim.clock.advance(timedelta(seconds=9))
        with pytest.raises(urllib.error.HTTPError, match="404") as gone:
            ask(f"{sim.daytona_url}/sandbox/{row.id}", sim.api_key())
        gone.value.close()
        assert set(sim.environment()) == {"DOCKER_HOST", "DAYTONA_API_URL", "DAYTONA_V2_API_URL", "DAYTONA_API_KEY"}
        socket = Path(sim.docker_host.removeprefix("unix://"))
        assert socket.is_socket()
    assert not socket.parent.exists()
    with pytest.raises(urllib.error.URLError):
        ask(sim.daytona_url + "/health")


def test_what_fails_in_the_thread_fails_where_it_was_started() -> None:
    with Simulator() as sim:
        port = int(sim.daytona_url.split(":")[2].split("/")[0])
        with pytest.raises(OSError, match="in use"):
            Simulator(daytona_port=port).__enter__()
        with pytest.raises(ZeroDivisionError):
            sim.do(lambda: 1 // 0)


async def test_both_halves_share_clock_and_faults() -> None:
    members = [ContainerSpec(name="chess", image="tb__chess__client", labels={"a": "b"}, state="exited", created=START)]
    networks = [NetworkSpec(name="chess_default", created=START)]
    world = Simulator(containers=members, networks=networks, sandboxes=3, docker_port=0, clock=Clock(START, rate=0))
    async with world as sim:
        paths = (sim.docker_host.removeprefix("unix://"), None)
        for path in paths:
            connector = aiohttp.UnixConnector(path) if path else None
            base = "http://docker" if path else sim.docker_tcp.replace("tcp", "http")
            async with aiohttp.ClientSession(connector=connector) as session:
                async with session.get(f"{base}/v1.41/containers/json?all=1") as answer:
                    (shown,) = await answer.json()
                    assert shown["Names"] == ["/chess"]
                sim.faults.add("status:503,times=1")
                async with session.get(f"{base}/v1.41/containers/json") as answer:
                    assert answer.status == 503
        sim.clock.advance(timedelta(hours=1))
        sim.faults.add("hang,endpoint=docker")
        async with aiohttp.ClientSession() as session, session.get(f"{sim.daytona_url}/health") as answer:
            assert answer.status == 200
        assert sim.engine.clock.elapsed() == 3600


@contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    command = [sys.executable, "-m", "reaper.simulator", *arguments]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        found = [re.fullmatch(r"export (\w+)=(\S+)\n", process.stdout.readline()) for _ in range(4)]
        assert all(found), process.stderr.read()
        yield process, {match[1]: match[2] for match in found if match is not None}
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_a_program(number: signal.Signals) -> None:
    arguments = ("--seed", "7", "--containers", "20", "--sandboxes", "250", "--odd", "0.1", "--rate", "0")
    extra = ("--fault", "status:503,path=/sandbox,times=1", "--limit", "100/60s", "--lifecycle-limit", "10/20")
    with program(*arguments, *extra) as (process, found):
        url, key = found["DAYTONA_API_URL"], found["DAYTONA_API_KEY"]
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            ask(url + "/sandbox", key)
        refused.value.close()
        first = ask(url + "/sandbox?limit=200&sort=createdAt", key)
        assert len(first["items"]) == 200
        assert ask(url.removesuffix("/api") + "/_simulator/state")["organisations"]["default"]["sandboxes"] == 250
        socket = Path(found["DOCKER_HOST"].removeprefix("unix://"))
        assert socket.is_socket()
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (0, "", "")
        assert not socket.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--fault", "explode"), "no kind; there are latency"),
        (("--limit", "many"), "write for example 600/10s"),
        (("--seed", "x"), "invalid int value"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], says: str) -> None:
    command = [sys.executable, "-m", "reaper.simulator", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60, check=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_made_up_world_is_believable_and_the_same_for_the_same_seed() -> None:
    made = list(sandboxes(7, 1000, START))
    assert made == list(sandboxes(7, 1000, START))
    assert made != list(sandboxes(8, 1000, START))
    assert len({spec.id for spec in made}) == len({spec.name for spec in made}) == 1000
    assert {"started", "stopped", "archived", "error", "paused"} <= {spec.state for spec in made}
    harbor = [spec for spec in made if spec.labels and spec.labels.get("harbor.managed") == "true"]
    assert 800 < len(harbor) < 950
    assert all(
        spec.labels and {"harbor.session_id", "harbor.environment_name", "run"} <= set(spec.labels) for spec in harbor
    )
    assert all(spec.created and spec.active and spec.created <= spec.active <= START for spec in made)
    young = [spec for spec in harbor if spec.created and START - spec.created < timedelta(hours=8)]
    assert 120 < len(young) < 300
    assert not [spec for spec in made if spec.labels is None]
    assert 20 < len([spec for spec in sandboxes(7, 1000, START, odd=0.2) if spec.labels is None]) < 80


def test_made_up_containers() -> None:
    made, networks = containers(7, 500, START)
    assert (made, networks) == containers(7, 500, START)
    assert len(made) == 500
    assert len({spec.name for spec in made}) == 500
    names = {network.name for network in networks}
    assert len(names) == len(networks)
    for spec in made:
        assert set(spec.networks) <= names | {"bridge"}
        assert spec.created <= (spec.started or spec.created) <= (spec.finished or START) <= START
    states = Counter(spec.state for spec in made)
    assert min(states["running"], states["exited"]) > 50
    assert any(spec.image.startswith("tb__") for spec in made)
    assert any(
        "harbor/environments/docker" in spec.labels.get("com.docker.compose.project.config_files", "") for spec in made
    )
