"""No engine, or none that may be spoken to: told at once, with the socket and the hint."""

import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.program.fakeengine import FakeEngine
from tests.program.test_bad_configuration import without_privileges
from tests.run import Ended, Program

START = "start the engine, or name the right one with DOCKER_HOST or host in [[docker]]"


def told(ended: Ended, *says: str) -> None:
    """Exit 5, on stdout for people and on stderr for logs, without a traceback."""
    assert ended.code == 5
    (line,) = [line for line in ended.out.splitlines() if line.startswith("local: could not be listed: ")]
    (log,) = [log for log in ended.logs if log["event"] == "endpoint_failed"]
    for part in says:
        assert part in line
        assert part in log["error"]
    assert "nothing to delete" not in ended.out
    assert "Traceback" not in ended.err


def test_no_socket(program: Program, tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/docker.sock"
    began = time.monotonic()
    ended = program("--once", env={"DOCKER_HOST": host})  # with the retries of the defaults, 14 s of waiting
    assert time.monotonic() - began < 13
    told(ended, f"no engine at {host}: there is no such socket", START)
    assert not [log for log in ended.logs if log["event"] == "attempt_failed"]


def test_a_socket_without_a_listener(program: Program) -> None:
    with FakeEngine() as engine:
        path = Path(engine.socket)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    try:
        began = time.monotonic()
        ended = program("--once", env={"DOCKER_HOST": engine.host})
        assert time.monotonic() - began < 13
        told(ended, f"no engine at {engine.host}: nothing listens on the socket", START)
    finally:
        path.unlink()


def test_a_file_that_is_no_socket(run: Program, tmp_path: Path) -> None:
    (tmp_path / "docker.sock").write_text("")
    host = f"unix://{tmp_path}/docker.sock"
    told(run("--once", env={"DOCKER_HOST": host}), host)


def test_a_port_without_a_listener(run: Program) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told(run("--once", env={"DOCKER_HOST": f"tcp://127.0.0.1:{port}"}), f"no engine at tcp://127.0.0.1:{port}", START)


def test_no_permission(run: Program, fake: FakeEngine) -> None:
    fake.add("chess-1")
    began = time.monotonic()
    ended = run.finish(without_privileges(run, Path(fake.socket), "--once"))
    assert time.monotonic() - began < 13
    told(ended, f"no permission on {fake.host}", "run as root or as a member of the group that owns the socket")
    assert fake.calls == []


def test_explain_tells_it_too(run: Program, tmp_path: Path) -> None:
    host = f"unix://{tmp_path}/docker.sock"
    ended = run("explain", "chess-1", env={"DOCKER_HOST": host})
    assert (ended.code, ended.out) == (5, "")
    assert f"reaper: local: no engine at {host}: there is no such socket; {START}" in ended.err


def test_tls_files_that_cannot_be_used(run: Program, tmp_path: Path) -> None:
    env = {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    ended = run("--once", env=env)
    assert ended.code == 2  # before anything is asked
    for word in ("TLS files", str(tmp_path / "ca.pem"), "DOCKER_CERT_PATH"):
        assert word in ended.err


NO_ENGINE = """
import os, pwd, sys

def unknown(_uid: int) -> None:
    raise KeyError

pwd.getpwuid = unknown
os.environ.pop("HOME", None)
from reaper.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_user_without_a_home_directory_can_sweep(run: Program, fake: FakeEngine) -> None:
    """As systemd's DynamicUser= is, where the name service does not have it."""
    fake.add("leftover")
    command = [sys.executable, "-c", NO_ENGINE, "--once", "--json"]
    done = subprocess.run(command, env=run.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert fake.names() == set()
