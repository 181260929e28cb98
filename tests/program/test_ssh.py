"""An engine behind ssh, before a real sshd: one connection, ssh's own words, and no ssh that outlives its program."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reaper.errors import NoSuchEndpointError, ProviderError
from reaper.providers.docker.client import DockerReader
from reaper.providers.docker.settings import DockerTable, check_docker_host
from reaper.providers.docker.ssh import Tunnel
from tests import needs
from tests.engine.sshd import Sshd
from tests.program.test_docker_context import context
from tests.providers.lab import direct
from tests.run import NO_DAYTONA, Program
from tests.running.lab import end_guards, state, until
from tests.simulator.docker_world import World

LATE = """#!{python}
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[sys.argv.index("-L") + 1].partition(":")[0])
open("{folder}/go").read()
server.listen()
server.accept(), server.accept()
"""
MAKE = "import docker; docker.from_env().containers.create('bench:1', 'true', name='mine')"


@pytest.fixture
def anyio_backend() -> str:
    """The client is asyncio's."""
    return "asyncio"


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        world.import_image()
        world.add("left", state="exited", labels={"terminal-bench": ""})
        yield world


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    needs.root("only root can start an sshd that lets anybody in")
    with Sshd(tmp_path / "sshd") as sshd:
        yield sshd


@pytest.fixture
def host(world: World) -> str:
    return f"ssh://root@gpu-1{world.host.removeprefix('unix://')}"


@pytest.fixture
def program(tmp_path: Path, sshd: Sshd, host: str) -> Iterator[Program]:
    yield Program(tmp_path, {**NO_DAYTONA, "PATH": sshd.path, "DOCKER_HOST": host, "REAPER_RETRY__ATTEMPTS": "2"})
    end_guards(tmp_path)


def is_there(pid: int) -> bool:
    try:
        return state(pid) != "Z"
    except FileNotFoundError:
        return False


def test_a_sweep_has_one_connection_and_ends_it(program: Program, world: World, sshd: Sshd) -> None:
    for number in range(40):
        world.add(f"left-{number}", state="exited", labels={"terminal-bench": ""})
    ended = program("--once", "--stopped", "--json")
    assert ended.code == 0, ended.err
    assert set(ended.outcomes().values()) == {"deleted"}
    assert len(ended.outcomes()) == 41
    (pid,) = sshd.started
    until(lambda: not is_there(pid), "its ssh has not ended")


def test_a_context_may_lead_there(program: Program, world: World, tmp_path: Path, host: str) -> None:
    context(tmp_path / ".docker", "gpu", {"Host": host}, current=True)
    del program.env["DOCKER_HOST"]
    assert program("--once", "--stopped", "--json").outcomes() == {"left": "deleted"}


def test_a_run_cleans_up_what_it_made_there(program: Program, world: World) -> None:
    ended = program("run", "--skip-cleanup", "--", sys.executable, "-c", MAKE)
    assert ended.code == 0, ended.err
    assert "1 deleted" in ended.err
    assert {row["Names"][0] for row in world.api.must("GET", "/containers/json?all=1")} == {"/left"}


def test_no_ssh_outlives_a_program_that_is_killed(program: Program, world: World, sshd: Sshd) -> None:
    world.faults.add("hang,path=/networks")
    with program.start("--once", "--stopped") as process:
        until(lambda: any(struck for _, _, struck in world.faults.rules()), "it has asked nothing")
        process.send_signal(signal.SIGKILL)
    (pid,) = sshd.started
    until(lambda: not is_there(pid), "its ssh has not ended")
    world.faults.release()


@pytest.mark.anyio
async def test_the_connection_is_open_when_ssh_takes_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket is there before ssh listens: a request in between was refused."""
    (tmp_path / "ssh").write_text(LATE.format(python=sys.executable, folder=tmp_path))
    (tmp_path / "ssh").chmod(0o755)
    os.mkfifo(tmp_path / "go")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tunnel, bound = Tunnel("ssh://gpu-1"), 0
    look = tunnel._is_open

    def counted(until: float) -> bool:
        nonlocal bound
        bound += Path(tunnel.path).exists()
        return look(until)

    monkeypatch.setattr(tunnel, "_is_open", counted)
    try:
        opening = asyncio.create_task(tunnel.open())
        await asyncio.to_thread(until, lambda: bound > 1 or opening.done(), "it does not look")
        assert not opening.done()
        await asyncio.to_thread((tmp_path / "go").write_text, "")
        await opening
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(tunnel.path)
    finally:
        tunnel.close()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("another key", "Host key verification failed"),
        ("no server", "Connection refused"),
        ("no such user", "Permission denied"),
        ("unknown host", "Could not resolve hostname"),
        ("no engine", "ssh said: channel"),
        ("no ssh", "ssh cannot be started: No such file or directory"),
    ],
)
def test_what_fails_is_said_in_the_words_of_ssh(program: Program, sshd: Sshd, tmp_path: Path, what: str, says: str) -> None:
    match what:
        case "another key":
            sshd.know("other")
        case "no server":
            config = sshd.folder / "config"
            config.write_text(config.read_text().replace(f"Port {sshd.port}", "Port 9"))
        case "no such user":
            program.env["DOCKER_HOST"] = program.env["DOCKER_HOST"].replace("root@", "nobody@")
        case "unknown host":
            program.env["DOCKER_HOST"] = "ssh://gpu-1.invalid"
        case "no engine":
            program.env["DOCKER_HOST"] = f"ssh://root@gpu-1{tmp_path}/none.sock"
        case "no ssh":
            program.env["PATH"] = str(tmp_path)
    ended = program("--once", "--stopped", "--json")
    assert ended.code == 5
    message = ended.document["endpoints"][0]["failure"]["message"]
    assert says in message
    assert "Traceback" not in ended.err


@pytest.mark.anyio
async def test_a_lost_connection_fails_and_the_next_call_makes_another(
    sshd: Sshd, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", sshd.path)
    reader = DockerReader(DockerTable(name="gpu", host=host))
    assert [r.name for r in (await reader.list(direct)).resources] == ["left"]
    os.kill(sshd.started[0], signal.SIGKILL)
    until(lambda: not is_there(sshd.started[0]), "it has not ended")
    assert [r.name for r in (await reader.list(direct)).resources] == ["left"]
    assert len(sshd.started) == 2
    sshd.know("other")
    os.kill(sshd.started[1], signal.SIGKILL)
    until(lambda: not is_there(sshd.started[1]), "it has not ended")
    with pytest.raises(ProviderError, match="Host key verification failed") as caught:
        await reader.list(direct)
    assert not isinstance(caught.value, NoSuchEndpointError), "it has answered before"
    await reader.close()


@pytest.mark.parametrize(
    "address",
    [
        *("ssh://", "ssh://-oProxyCommand=x", "ssh://a@-x", "ssh://-a@b", "ssh://u:pw@gpu-1", "ssh://gpu-1:port"),
        *("ssh://gpu 1", "ssh://gpu-1/a:b", "ssh://gpu-1?x", "ssh://gpu-1#x", "ssh://a@b@c", "ssh://gpu-1/a b"),
    ],
)
def test_what_is_no_address_for_ssh_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no address for ssh") as caught:
        check_docker_host(address)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["ssh://gpu-1", "ssh://me@gpu-1", "ssh://gpu-1:22", "ssh://me@[::1]:2222/run/user/1000/docker.sock", "ssh://h/"],
)
def test_what_is_an_address_for_ssh_is_taken(address: str) -> None:
    assert DockerTable(name="gpu", host=address).host == address
