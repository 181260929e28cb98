"""The image's target ryuk in the hands of Testcontainers' library for Python: what a killed session leaked goes."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devkit.client import DEFAULT_IMAGE, SLEEPS
from devkit.engine import PrivateEngine
from tests.deploy.lab import docker
from tests.engine.lab import containers, until

pytestmark = pytest.mark.engine

FIRST = ("python3", "-I", "-S")
SECONDS = 3  # for which a client is waited for that has lost its connection

LEAKS = """
import json, sys
from testcontainers.core.container import DockerContainer
from testcontainers.core.labels import SESSION_ID
from testcontainers.core.network import Network
network = Network().create()
made = [
    DockerContainer(sys.argv[1]).with_name(f"{sys.argv[2]}-{n}").with_command("sleep infinity").with_network(network).start()
    for n in range(3)
]
print(json.dumps({"session": SESSION_ID, "network": network.name}), flush=True)
sys.stdin.read()
"""


@contextmanager
def session(engine: PrivateEngine, ryuk: str, name: str, folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str, str]]:
    """A process that has started three containers on a network; it, its session and the network's name."""
    env = {
        "DOCKER_HOST": engine.host,
        "HOME": str(folder),  # there may be a .testcontainers.properties in another one
        "PATH": "/usr/bin:/bin",
        "RYUK_CONTAINER_IMAGE": ryuk,
        "RYUK_RECONNECTION_TIMEOUT": f"{SECONDS}s",
        # It does not wait until its Ryuk has started, and would lose its connection to Docker's proxy for the loopback.
        "TESTCONTAINERS_CONNECTION_MODE": "bridge_ip",
        "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE": engine.socket,
    }
    command = engine.beside(sys.executable, "-c", LEAKS, DEFAULT_IMAGE, name)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            told = json.loads(line)
            yield process, told["session"], told["network"]
        finally:
            process.kill()


HOLDS = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30)
connection.sendall(sys.argv[2].encode())
print(connection.recv(100).decode(), end="", flush=True)
sys.stdin.read()
"""


def left(engine: PrivateEngine, session: str) -> tuple[int, int]:
    """How many containers and networks carry a session's label."""
    listed = [
        docker(engine, what, "ls", *more, "--filter", f"label=org.testcontainers.session-id={session}", "--quiet")
        for what, more in (("container", ["--all"]), ("network", []))
    ]
    return len(listed[0].split()), len(listed[1].split())


def test_what_a_killed_session_leaked_goes_and_another_ones_stays(
    clean: PrivateEngine, ryuk_image: str, tmp_path: Path
) -> None:
    with (
        session(clean, ryuk_image, "one", tmp_path) as (one, id_of_one, _),
        session(clean, ryuk_image, "other", tmp_path) as (other, id_of_other, _),
    ):
        ryuks = {name for name in containers(clean) if name.startswith("testcontainers-ryuk-")}
        assert ryuks == {f"testcontainers-ryuk-{id_}" for id_ in (id_of_one, id_of_other)}
        assert re.search(r".* Started!", docker(clean, "logs", f"testcontainers-ryuk-{id_of_one}")), "what it waits for"
        assert (left(clean, id_of_one), left(clean, id_of_other)) == ((3, 1), (3, 1))
        one.kill()
        killed = time.monotonic()
        until(lambda: left(clean, id_of_one) == (0, 0), "end of what it leaked")
        assert time.monotonic() - killed < SECONDS + 5
        until(lambda: f"testcontainers-ryuk-{id_of_one}" not in containers(clean), "end of its Ryuk")
        assert left(clean, id_of_other) == (3, 1)
        assert other.poll() is None


def test_as_others_start_it(clean: PrivateEngine, ryuk_image: str) -> None:
    """Most wait for its line and connect to a published port; Node's puts the session's label on its Ryuk, too."""
    label = "org.testcontainers.session-id=one"
    options = ("--label", label, "--publish", "127.0.0.1::8080", "--volume", f"{clean.socket}:/var/run/docker.sock")
    ryuk = docker(clean, "run", "--detach", *options, ryuk_image)
    until(lambda: "Started" in docker(clean, "logs", ryuk), "the line that they wait for")
    (published,) = clean.inspect(ryuk)["NetworkSettings"]["Ports"]["8080/tcp"]
    command = clean.beside(sys.executable, "-I", "-c", HOLDS, published["HostPort"], f"label={label}\n")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "ACK\n"
        leaked = clean.create("leaked", labels={"org.testcontainers.session-id": "one"}, cmd=SLEEPS, start=True)
        assert left(clean, "one") == (2, 0)
        client.kill()
    until(lambda: "lease_reconnecting" in docker(clean, "logs", ryuk), "loss of its client")
    docker(clean, "stop", ryuk)  # which need not wait for the client
    assert clean.inspect(ryuk)["State"]["ExitCode"] == 0, docker(clean, "logs", ryuk)
    assert leaked not in clean.ids()
    assert left(clean, "one") == (1, 0), "itself"


def test_what_the_image_says_of_itself(deploy_engine: PrivateEngine, ryuk_image: str) -> None:
    config = deploy_engine.api.must("GET", f"/images/{ryuk_image}/json")["Config"]
    assert (config["Entrypoint"], config["Cmd"], config["User"]) == ([*FIRST, "/opt/reaper/early.py"], ["ryuk"], "0:0")
    assert config["ExposedPorts"].keys() == {"8080/tcp"}
    assert config.get("Healthcheck") is None
    assert config["Volumes"] is None, "each start would leave one behind"
    assert config["Labels"]["org.testcontainers.ryuk"] == "true"
