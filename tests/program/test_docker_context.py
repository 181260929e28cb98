"""The engine is the one that the docker command uses, by its own order: DOCKER_HOST, DOCKER_CONTEXT, the current context."""

import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reaper import DockerCleanupManager
from reaper.errors import ConfigError
from reaper.providers.docker import docker_host
from reaper.providers.docker.docker_host import engine_of_commands
from reaper.providers.docker.settings import DEFAULT_SOCKET
from tests.library.lab import names
from tests.run import NO_DAYTONA, Program
from tests.running.lab import end_guards
from tests.simulator.docker_world import World


def context(folder: Path, name: str, endpoint: Any, *, current: bool = False, tls: tuple[str, ...] = ()) -> None:
    """A context as ``docker context create`` writes it, and ``docker context use``."""
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / key / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    for file in tls:
        path = folder / "contexts" / "tls" / key / "docker" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("PEM")
    if current:
        (folder / "config.json").write_text(json.dumps({"auths": {}, "currentContext": name}))


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[tuple[World, World]]:
    """Two engines with something stopped each: DOCKER_HOST's, and that of the context "other"."""
    with ExitStack() as stack:
        one, other = stack.enter_context(World()), stack.enter_context(World())
        for world in (one, other):
            world.add("left", state="exited", labels={"terminal-bench": ""})
            world.import_image()
        context(tmp_path / ".docker", "other", {"Host": other.host})
        yield one, other


WAYS: list[tuple[Mapping[str, str], str | None, str]] = [
    ({"DOCKER_HOST": "ONE"}, None, "one"),
    ({"DOCKER_HOST": "ONE", "DOCKER_CONTEXT": "other"}, "other", "one"),
    ({"DOCKER_CONTEXT": "other"}, None, "other"),
    ({"DOCKER_CONTEXT": ""}, "other", "other"),
    ({}, "other", "other"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("command", ["--once --stopped", "--once --stopped --config table.toml", "run --stopped -- true"])
def test_what_sweeps_deletes_on_the_engine_of_docker(
    tmp_path: Path, engines: tuple[World, World], way: tuple[Mapping[str, str], str | None, str], command: str
) -> None:
    (one, other), (env, current, wanted) = engines, way
    if current is not None:
        (tmp_path / ".docker" / "config.json").write_text(json.dumps({"currentContext": current}))
    (tmp_path / "table.toml").write_text('[[docker]]\nname = "gpu"\nremovals = 4\n')
    program = Program(tmp_path, {**NO_DAYTONA, **env, **({"DOCKER_HOST": one.host} if "DOCKER_HOST" in env else {})})
    ended = program(*command.split())
    end_guards(tmp_path)
    assert ended.code == 0, ended.err
    assert {"one": names(one), "other": names(other)}[wanted] == set()
    assert names(one) | names(other) == {"left"}


def test_the_library_and_a_run_use_it_too(
    tmp_path: Path, engines: tuple[World, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = engines
    other.add("second", state="exited", labels={"terminal-bench": ""})
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / ".docker"))
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.chdir(tmp_path)
    assert sorted(c.name for c in DockerCleanupManager().list_containers(all_containers=True)) == ["left", "second"]
    code = (
        "import docker, os; found = docker.from_env().containers.list(all=True); print(os.environ['DOCKER_CONTEXT'], found)"
    )
    seen = Program(tmp_path, {**NO_DAYTONA, "DOCKER_CONTEXT": "other"})(
        "run", "--skip-cleanup", "--", sys.executable, "-c", code
    )
    end_guards(tmp_path)
    # "default" is the engine of DOCKER_HOST, and Harbor's streaming takes a host with a context only.
    assert (seen.out.split()[0], seen.out.count("<Container")) == ("default", 2), seen.err
    assert names(one) == {"left"}


REFUSED: list[tuple[Any, str]] = [
    ({"Host": "ssh://-gpu-1"}, "is no address for ssh"),
    ({"Host": "npipe:////./pipe/docker_engine"}, "is no Docker host"),
    ({"Host": 7}, "names no engine"),
    (None, "names no engine"),
]


@pytest.mark.parametrize(("endpoint", "said"), REFUSED)
@pytest.mark.parametrize("command", ["--once --stopped", "list", "check", "run -- true", "run --no-proxy -- true"])
def test_a_context_that_cannot_be_followed_is_refused_by_all(tmp_path: Path, endpoint: Any, said: str, command: str) -> None:
    context(tmp_path / ".docker", "far", endpoint, current=True)
    ended = Program(tmp_path, NO_DAYTONA)(*command.split())
    assert (ended.code, ended.out) == (2, "")
    assert "the Docker context 'far'" in ended.err
    assert said in ended.err
    assert "DOCKER_HOST" in ended.err, "it says what to do"


def test_a_table_names_a_context_whatever_the_docker_command_would_use(tmp_path: Path, engines: tuple[World, World]) -> None:
    one, other = engines
    table = '[[docker]]\nname = "gpu"\ncontext = "{}"\n'
    for name in ("other", "default"):
        (tmp_path / f"{name}.toml").write_text(table.format(name))
    program = Program(tmp_path, {**NO_DAYTONA, "DOCKER_HOST": one.host})
    assert f"endpoint: gpu, Docker at {other.host}" in program("config", "check", "--config", "other.toml").out
    ended = program("--once", "--stopped", "--config", "other.toml")
    assert ended.code == 0, ended.err
    assert (names(one), names(other)) == ({"left"}, set())
    ended = program("run", "--stopped", "--config", "default.toml", "--", "true")
    end_guards(tmp_path)
    assert ended.code == 0, ended.err
    assert (names(one), names(other)) == (set(), set())


def test_a_table_that_names_its_engine_is_led_to_no_other(tmp_path: Path, engines: tuple[World, World]) -> None:
    one, other = engines
    (tmp_path / "reaper.toml").write_text(f'[[docker]]\nname = "gpu"\nhost = "{other.host}"\n')
    ended = Program(tmp_path, {**NO_DAYTONA, "DOCKER_HOST": one.host, "DOCKER_CONTEXT": "other"})("--once", "--stopped")
    assert ended.code == 0, ended.err
    assert (names(one), names(other)) == ({"left"}, set())


def test_what_a_table_leaves_to_the_environment_is_named_as_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "reaper.toml").write_text('[[docker]]\nname = "gpu"\n')
    program = Program(tmp_path, {**NO_DAYTONA, "DOCKER_HOST": "tcp://gpu-1:2375"})
    assert "endpoint: gpu, Docker at tcp://gpu-1:2375" in program("config", "check").out
    shown = program("config", "show").out
    assert "docker.gpu.removals" in shown
    assert "docker.gpu.host" not in shown, "the default is not what is swept"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('context = "gpu-9"', "there is no Docker context 'gpu-9'"),
        ('context = ""', "context"),
        ('context = "other"\nhost = "tcp://a:2375"', "context and host do not go together"),
        ('context = "other"\ntls_verify = false', "context and tls_verify do not go together"),
        ('context = "other"\nhosts_file = "hosts.txt"', "context and host do not go together"),
    ],
)
def test_a_table_whose_context_cannot_be_used_is_refused(
    tmp_path: Path, engines: tuple[World, World], keys: str, said: str
) -> None:
    (tmp_path / "hosts.txt").write_text("tcp://a:2375\n")
    (tmp_path / "reaper.toml").write_text(f'[[docker]]\nname = "gpu"\n{keys}\n')
    program = Program(tmp_path, {**NO_DAYTONA, "DOCKER_HOST": engines[0].host})
    for command in ("--once --stopped", "config check"):
        ended = program(*command.split())
        assert ended.code == 2, ended.err
        assert said in ended.err
    assert names(engines[0]) == names(engines[1]) == {"left"}


def test_organisations_are_swept_all_the_same(tmp_path: Path) -> None:
    context(tmp_path / ".docker", "far", {"Host": "ssh://-gpu-1"}, current=True)
    env = {**NO_DAYTONA, "DAYTONA_API_KEY": "key", "REAPER_RETRY__ATTEMPTS": "1"}
    assert Program(tmp_path, env)("list", "--only", "daytona").code == 5, "nothing listens there"
    assert Program(tmp_path, env)("history").code == 0


def of(folder: Path, **env: str) -> tuple[str, str]:
    """The host of the engine, or what is said of it, and where its certificates are."""
    try:
        found = engine_of_commands({"DOCKER_CONFIG": str(folder), **env})
    except ConfigError as error:
        return "refused", str(error)
    return found.host, " ".join(Path(f).name for f in (found.tls_ca, found.tls_cert, found.tls_key) if f)


def test_the_order_is_that_of_docker(tmp_path: Path) -> None:
    context(tmp_path, "current", {"Host": "tcp://current:1"}, current=True)
    context(tmp_path, "named", {"Host": "tcp://named:1"})
    assert of(tmp_path) == ("tcp://current:1", "")
    assert of(tmp_path, DOCKER_CONTEXT="named") == ("tcp://named:1", "")
    assert of(tmp_path, DOCKER_CONTEXT="default") == (DEFAULT_SOCKET, "")
    assert of(tmp_path, DOCKER_CONTEXT="named", DOCKER_HOST="tcp://host:1") == ("tcp://host:1", "")
    assert "no Docker context 'gone'" in of(tmp_path, DOCKER_CONTEXT="gone")[1]
    assert "versions of docker disagree" in of(tmp_path, DOCKER_HOST="")[1], "20.10 takes the default one, 23 the context's"
    assert of(tmp_path, DOCKER_HOST="", DOCKER_CONTEXT="default") == (DEFAULT_SOCKET, "")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", DEFAULT_SOCKET),
        ("scribble", DEFAULT_SOCKET),
        ("[" * 100_000, DEFAULT_SOCKET),
        ('{"currentContext": "default"}', DEFAULT_SOCKET),
        ('{"currentContext": ""}', DEFAULT_SOCKET),
        ('{"currentContext": 7}', DEFAULT_SOCKET),
        ('{"auths": 7, "CURRENTCONTEXT": "named"}', "tcp://named:1"),
    ],
)
def test_a_configuration_is_read_as_docker_reads_it(tmp_path: Path, text: str, wanted: str) -> None:
    """Seen with the CLI of 20.10 and 28.2, which warn of what they cannot read and go on without."""
    context(tmp_path, "named", {"Host": "tcp://named:1"})
    (tmp_path / "config.json").write_text(text)
    assert of(tmp_path) == (wanted, "")


def test_certificates_are_those_of_docker(tmp_path: Path) -> None:
    files = "ca.pem", "cert.pem", "key.pem"
    context(tmp_path, "mutual", {"Host": "tcp://engine:2376"}, tls=files)
    context(tmp_path, "half", {"Host": "tcp://engine:2376"}, tls=files[:2])
    context(tmp_path, "lax", {"Host": "tcp://engine:2376", "SkipTLSVerify": True})
    context(tmp_path, "bare", {"Host": "tcp://engine:2375"})
    assert of(tmp_path, DOCKER_CONTEXT="mutual") == ("tcp://engine:2376", "ca.pem cert.pem key.pem")
    assert "a certificate or a key alone" in of(tmp_path, DOCKER_CONTEXT="half")[1]
    lax = engine_of_commands({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "lax"})
    assert (lax.tls, lax.tls_verify) == (True, False)
    # A context's TLS is its own: what the environment says of it is for DOCKER_HOST and the default one.
    assert not engine_of_commands({"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "bare", "DOCKER_TLS_VERIFY": "1"}).tls
    assert of(tmp_path, DOCKER_TLS_VERIFY="1") == ("tcp://localhost:2376", "ca.pem"), "not the default socket"
    unverified = engine_of_commands({"DOCKER_CONFIG": str(tmp_path), "DOCKER_TLS": "1", "DOCKER_HOST": "tcp://engine:1"})
    assert (unverified.tls, unverified.tls_verify) == (True, False)
    for file in files:
        (tmp_path / file).write_text("PEM")
    assert of(tmp_path, DOCKER_TLS_VERIFY="1", DOCKER_HOST="tcp://engine:1")[1] == "ca.pem cert.pem key.pem"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the default socket would be, were there one."""
    monkeypatch.setattr(docker_host, "DEFAULT_SOCKET", f"unix://{tmp_path}/default.sock")
    return tmp_path / "default.sock"


def listening(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    return path


def test_a_rootless_engine_of_this_user_is_found_where_there_is_no_other(tmp_path: Path, elsewhere: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    assert of(tmp_path, **env)[0] == f"unix://{elsewhere}"
    rootless = listening(tmp_path / "run" / "docker.sock")
    assert of(tmp_path, **env)[0] == f"unix://{rootless}"
    assert of(tmp_path, **env, DOCKER_HOST="tcp://gpu-1:2375")[0] == "tcp://gpu-1:2375"
    assert of(tmp_path, **env, DOCKER_TLS_VERIFY="1")[0] == "tcp://localhost:2376"
    listening(elsewhere)
    assert of(tmp_path, **env)[0] == f"unix://{elsewhere}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_one_of_another_user_is_not(tmp_path: Path, elsewhere: Path) -> None:
    os.chown(listening(tmp_path / "run" / "docker.sock"), 1234, 1234)
    assert of(tmp_path, XDG_RUNTIME_DIR=str(tmp_path / "run"))[0] == f"unix://{elsewhere}"


def test_where_there_is_none_the_ones_of_other_programs_are_named(tmp_path: Path) -> None:
    colima = listening(tmp_path / ".colima" / "default" / "docker.sock")
    env = {**NO_DAYTONA, "HOME": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    ended = Program(tmp_path, env)("--once", "--json", "--only", "docker")
    assert ended.code == 5
    assert f"there is one at unix://{colima}: name the one you mean" in ended.document["endpoints"][0]["failure"]["message"]
