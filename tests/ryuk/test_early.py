"""The image listens before the program is there, and passes the socket on."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from devkit.ports import free_port
from reaper.ryuk import entrypoint
from tests.ryuk.process import LIMIT, until
from tests.simulator.docker_world import World

LATE = """#!/bin/sh
read -r go <{gate}
exec {python} -m reaper "$@"
"""


@pytest.mark.parametrize("variable", ["", "nonsense", "99999"])
def test_a_variable_that_is_wrong_is_left_to_the_program(tmp_path: Path, variable: str) -> None:
    (tmp_path / "reaper").write_text('#!/bin/sh\necho "$@" "$LISTEN_FDS"\n')
    (tmp_path / "reaper").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RYUK_PORT": variable or str(free_port())}
    command = [sys.executable, "-I", "-S", str(entrypoint.__file__), "ryuk", "--log-level", "debug"]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert out == f"ryuk --log-level debug {'' if variable else '1'}\n"


def test_who_connects_before_the_program_is_there_is_served(tmp_path: Path) -> None:
    gate, port = tmp_path / "gate", free_port()
    os.mkfifo(gate)
    (tmp_path / "reaper").write_text(LATE.format(gate=shlex.quote(str(gate)), python=shlex.quote(sys.executable)))
    (tmp_path / "reaper").chmod(0o755)
    keep = {key: os.environ[key] for key in ("PYTHONPATH", "HOME", "LANG") if key in os.environ}
    with World() as world:
        env = {
            **keep,
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "STATE_DIRECTORY": str(tmp_path),
            "DOCKER_HOST": world.host,
            "RYUK_PORT": str(port),
            "RYUK_RECONNECTION_TIMEOUT": "100ms",
        }
        command = [sys.executable, "-I", "-S", str(entrypoint.__file__), "ryuk"]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                until(lambda: _connects(port), "listener")
                with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
                    connection.sendall(b"label=org.testcontainers.session-id=a\n")
                    gate.write_text("go\n")
                    assert connection.recv(100) == b"ACK\n"
                out, err = process.communicate(timeout=LIMIT)
            finally:
                process.kill()
    assert process.returncode == 0, err
    assert out.endswith(f"on port {port}. Started!\n")


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT).close()
    except OSError:
        return False
    return True
