"""Which engine a program inside of ``reaper run`` uses: the one behind the proxy, where that is proved."""

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devkit.faults import FaultProxy
from reaper.providers.docker import upstream
from reaper.providers.docker.settings import DockerTable
from tests import needs
from tests.engine.lab import containers
from tests.engine.tls import TlsServer, authority, certificate
from tests.program.test_docker_context import context
from tests.run import Program
from tests.running.lab import end_guards, until
from tests.running.test_killed import WITHIN
from tests.running.test_nested import NEST
from tests.simulator.docker_world import World

QUICKLY = ("run", "--skip-cleanup", "--")
REAPER = f"{sys.executable} -m reaper"
SHOW = f"{REAPER} config check | grep -o 'Docker at .*'"
LIBRARY = """
import os
from reaper.library import endpoints
for host in (None, os.environ["DOCKER_HOST"]):
    print(endpoints.docker(host=host)._spec.address)
"""


@pytest.fixture
def other() -> Iterator[World]:
    """Another engine."""
    with World(seed=2) as world:
        world.import_image()
        yield world


@pytest.fixture
def program(program: Program, world: World) -> Program:
    program.env["DOCKER_HOST"] = world.host
    return program


def inside(program: Program, script: str) -> list[str]:
    """What a shell script says inside of a run."""
    ended = program(*QUICKLY, "sh", "-c", script)
    assert (ended.code, ended.err) == (0, "")
    return ended.out.splitlines()


def test_the_command_and_the_library_use_the_engine_behind_the_proxy(program: Program, world: World) -> None:
    script = f"{SHOW}; {REAPER} run --skip-cleanup -- sh -c {shlex.quote(SHOW)}; {sys.executable} -c {shlex.quote(LIBRARY)}"
    assert inside(program, script) == [*[f"Docker at {world.host}"] * 2, world.host, world.host]


MAKE = "import docker; docker.from_env().containers.create('bench:1', 'true', name='mine')"


def test_a_sweep_inside_of_a_run_keeps_what_its_lease_covers(program: Program, world: World) -> None:
    world.add("left", state="exited", labels={"terminal-bench": ""})
    make = f"{sys.executable} -c {shlex.quote(MAKE)}"
    ended = program(*QUICKLY, "sh", "-c", f"{make} && {REAPER} --once --all && {REAPER} list >&2")
    assert ended.code == 0, ended.err
    assert "local: 1 deleted, 1 kept" in ended.out
    assert "mine" in ended.err
    assert containers(world) == set()


def test_an_engine_that_the_configuration_names_by_another_address_is_cleaned_up_once(
    program: Program, world: World, tmp_path: Path
) -> None:
    """A proxy before its socket, for example: nothing is left, and no guard goes on."""
    with FaultProxy(world.socket) as proxy:
        (tmp_path / "proxied.toml").write_text(f'[[docker]]\nname = "local"\nhost = "{proxy.host}"\n')
        options = ("--skip-cleanup", "--strict", "--config", str(tmp_path / "proxied.toml"))
        ended = program("run", *options, "--", sys.executable, "-c", MAKE)
    assert ended.code == 0, ended.err
    assert "1 deleted, 0 kept" in ended.err
    assert "could not be" not in ended.err
    assert "guard" not in ended.err
    assert containers(world) == set()


def test_another_engine_that_the_command_names_is_used(program: Program, tmp_path: Path, other: World) -> None:
    context(tmp_path / ".docker", "other", {"Host": other.host})
    named = f"DOCKER_HOST={other.host}"
    assert (
        inside(program, f"export {named}; {SHOW}; unset DOCKER_HOST; export DOCKER_CONTEXT=other; {SHOW}")
        == [f"Docker at {other.host}"] * 2
    )


@pytest.mark.parametrize("table", ["local", "gpu"])
def test_a_configured_engine_is_recognised(program: Program, tmp_path: Path, world: World, table: str) -> None:
    (tmp_path / "reaper.toml").write_text(f'[[docker]]\nname = "{table}"\nhost = "{world.host}"\nremovals = 3\n')
    ended = program(*QUICKLY, sys.executable, "-m", "reaper", *QUICKLY, sys.executable, "-c", MAKE)
    assert ended.code == 0, ended.err
    assert f"{table}: 1 deleted" in ended.err
    assert ended.err.count("deleted\t") == 1
    assert "kept\n" not in ended.err.replace(f"{table}: 1 deleted, 0 kept", "")
    assert "-of-run" not in ended.err
    assert containers(world) == set()


@pytest.mark.parametrize("level", ["run", "nested run"])
def test_a_configured_engine_is_recognised_by_another_path(
    program: Program, tmp_path: Path, world: World, level: str
) -> None:
    path = world.host.removeprefix("unix://")
    (tmp_path / "link.sock").symlink_to(path)
    (tmp_path / "reaper.toml").write_text(f'[[docker]]\nname = "gpu"\nhost = "unix://{tmp_path}/link.sock"\n')
    outer = () if level == "run" else (*QUICKLY, sys.executable, "-m", "reaper")
    ended = program(*outer, *QUICKLY, sys.executable, "-c", MAKE)
    assert re.findall(r"(\S+): 1 (\w+)", ended.err) == [("gpu", "deleted")]


def test_a_claim_of_a_nested_run_is_known_to_every_later_sweep(program: Program, world: World) -> None:
    """It names the engine, and not the proxy that is gone: what was made past the proxy is taken without any guard."""
    past = f"DOCKER_HOST={world.host} {sys.executable} -c {shlex.quote(MAKE)} && echo ready && exec sleep 1000"
    inner = (sys.executable, "-m", "reaper", "run", "--skip-cleanup", "--own", "name=mi*", "--", "sh", "-c", past)
    with program.start(*QUICKLY, *inner, start_new_session=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        end_guards(program.folder)
        os.killpg(process.pid, signal.SIGKILL)
    assert ready == "ready\n"
    world.create("other", start=True)
    ended = program("--once", "--json")
    assert (ended.code, ended.outcomes()) == (0, {"mine": "deleted"})
    assert containers(world) == {"other"}


def test_a_table_that_names_the_proxy_means_the_engine_behind_it(program: Program, world: World) -> None:
    table = 'printf \'[[docker]]\\nname = "gpu"\\nremovals = 3\\nhost = "%s"\\n\' $DOCKER_HOST >inner.toml'
    check = f"{REAPER} config check --config inner.toml | grep -o 'gpu, Docker at .*'"
    assert inside(program, f"{table}; {check}") == [f"gpu, Docker at {world.host}"]


FORGE = """
import json, os, sys
path = os.environ["DOCKER_HOST"].removeprefix("unix://") + ".upstream"
with open(path, "w") as file:
    json.dump({"version": 1, "engine": {"host": sys.argv[1]}}, file)
"""


@pytest.mark.parametrize("to", ["another engine", "nothing"])
def test_a_record_that_names_another_engine_is_not_believed(program: Program, world: World, other: World, to: str) -> None:
    host = other.host if to == "another engine" else "unix:///nowhere/docker.sock"
    other.add("left", state="exited", labels={"terminal-bench": ""})
    world.add("left", state="exited", labels={"terminal-bench": ""})
    forge = f"{sys.executable} -c {shlex.quote(FORGE)} {host}"
    ended = program(*QUICKLY, "sh", "-c", f"{forge}; {SHOW}; echo $DOCKER_HOST; {REAPER} run --stopped -- echo runs")
    assert ended.code == 0
    shown, proxy, ran = ended.out.splitlines()
    assert (shown, ran) == (f"Docker at {proxy}", "runs")
    assert f"reaper run: the engine behind {proxy}, the proxy of an outer reaper run, cannot be used directly: " in ended.err
    assert host in ended.err
    assert (containers(world), containers(other)) == (set(), {"left"})


class Record:
    """A record beside the socket of one engine.

    Args:
        world: the engine.
    """

    def __init__(self, world: World) -> None:
        self.table = DockerTable(name="local", host=world.host)
        self.file = Path(f"{world.host.removeprefix('unix://')}.upstream")
        world_folder = self.file.parent
        world_folder.chmod(0o700)

    def why(self) -> str:
        """Why it is not used."""
        with pytest.raises(upstream.UpstreamError) as caught:
            upstream.find(self.table)
        assert upstream.engine_behind(self.table) is self.table
        return str(caught.value)


@pytest.fixture
def record(world: World) -> Record:
    return Record(world)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "another version"),
        ('{"version": 2, "engine": {"host": "tcp://x:1"}}', "another version"),
        ('{"version": 1}', "names no engine"),
        ('{"version": 1, "engine": {}}', "names no engine"),
        ('{"version": 1, "engine": {"host": "nowhere"}}', "names no engine"),
        ('{"version": 1, "engine": {"host": 7}}', "names no engine"),
        ('{"version": 1, "engine": {"host": "tcp://x:1", "name": "other"}}', "names no engine"),
        ('{"version": 1, "engine": {"host": "tcp://127.0.0.1:9", "tls_ca": "/nowhere"}}', "/nowhere"),
        ('{"version": 1, "engine": {"host": "tcp://127.0.0.1:9"}}', "Connection refused"),
    ],
    ids=range(11),
)
def test_a_record_that_cannot_be_used_is_not(record: Record, text: str, said: str) -> None:
    record.file.write_text(text)
    record.file.chmod(0o600)
    assert said in record.why()


def test_no_record_is_no_proxy(record: Record) -> None:
    assert upstream.find(record.table) is record.table


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a file away")
@pytest.mark.parametrize(
    "what", ["the file's owner", "the folder's owner", "the file's mode", "the folder's mode", "a FIFO"]
)
def test_a_record_that_others_could_write_is_not_believed(record: Record, other: World, what: str) -> None:
    upstream.record(Path(str(record.file).removesuffix(".upstream")), DockerTable(name="x", host=other.host))
    assert "another engine" in record.why()
    match what:
        case "file's owner":
            os.chown(record.file, 12345, -1)
        case "folder's owner":
            os.chown(record.file.parent, 12345, -1)
        case "file's mode":
            record.file.chmod(0o620)
        case "folder's mode":
            record.file.parent.chmod(0o777)
        case _:
            record.file.unlink()
            os.mkfifo(record.file, 0o600)
    said = record.why()
    assert "can be written by others" in said or "is not this user's own" in said


def test_an_engine_that_does_not_tell_which_it_is_is_not_used(record: Record, world: World, other: World) -> None:
    upstream.record(Path(str(record.file).removesuffix(".upstream")), DockerTable(name="x", host=other.host))
    for found in (world, other):
        found.faults.add("status:403,path=/info")
    assert "another engine" in record.why()
    for found in (world, other):
        found.faults.add("status:403,path=/networks")
    assert "status 403" in record.why()


def test_tls_files_are_handed_down(program: Program, world: World, tmp_path: Path) -> None:
    """They were named from the outer run's working directory."""
    needs.tool("openssl", "openssl")
    ca = authority(tmp_path / "ca")
    certificate(ca, tmp_path / "server", "serverAuth")
    certificate(ca, tmp_path / "client", "clientAuth")
    world.create("neighbour", start=True)
    with TlsServer(world.host.removeprefix("unix://"), tmp_path / "server") as server:
        env = {"DOCKER_HOST": server.host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "client"}
        script = f"cd / && {SHOW} && exec {sys.executable} {NEST} 1 2 exec"
        with program.start(*QUICKLY, "sh", "-c", script, env=env, start_new_session=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == f"Docker at {server.host}\n"
                assert process.stdout.readline().startswith("ready")
                assert containers(world) == {"neighbour", "level-1", "level-2"}
            finally:
                os.killpg(process.pid, signal.SIGKILL)
            until(lambda: containers(world) <= {"neighbour"}, "something is left", WITHIN)
        end_guards(program.folder)  # which look on for a while, and would warn of the server's end
    assert containers(world) == {"neighbour"}
    log = (tmp_path / "guard.log").read_text()
    assert {json.loads(line)["level"] for line in log.splitlines()} <= {"info", "debug"}
