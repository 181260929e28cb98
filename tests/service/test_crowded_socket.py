"""The local socket and the HTTP port under a crowd: real connections to a service that may have few files open."""

import os
import resource
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from reaper import lease
from reaper.paths import SOCKET
from tests import needs
from tests.leases.others import NOBODY
from tests.program.conftest import fake
from tests.program.fakeengine import FakeEngine
from tests.run import Program
from tests.service.daemon import QUICK, Daemon
from tests.service.test_local_socket import UNSERVED, Unserved, program, serving

__all__ = ["fake", "program"]  # fixtures

_CROWD = """
import os, resource, socket, sys
uid, path, number, say = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
address = path if path.startswith("/") else ("127.0.0.1", int(path))
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, number + 64), hard))
if uid != os.geteuid():
    os.setgroups([]), os.setgid(uid), os.setuid(uid)
there = []
for _ in range(number):
    connection = socket.socket(socket.AF_UNIX if address == path else socket.AF_INET)
    connection.settimeout(5)
    try:
        connection.connect(address)
        connection.send(say)
    except OSError:
        connection.close()
        continue
    there.append(connection)
print(len(there), flush=True)
sys.stdin.read()
"""
FILES, CROWD = 512, 2000
LEASES = 'POST /leases HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n{"hold": true}'


class Confined(Daemon):
    """One that may have few files open."""

    files = FILES

    def start(self, **env: str) -> Self:
        limited = ["sh", "-c", f'ulimit -n {self.files} && exec "$@"', "sh", sys.executable, "-m", "reaper"]
        self.process = subprocess.Popen(
            [*limited, "--config", str(self.file)],
            env={**self.program.env, **env},
            cwd=self.program.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._follow, args=(self.process,), daemon=True)
        self._reader.start()
        return self


class ConfinedSocket(Confined, Unserved):
    """The same, and nothing is served but the local socket."""


@pytest.mark.parametrize("say", ["", LEASES], ids=["idle", "leases"])
@pytest.mark.parametrize("uid", [0, NOBODY], ids=["own", "another user"])
def test_it_sweeps_and_answers_beside_two_thousand_connections(
    program: Program, fake: FakeEngine, uid: int, say: str
) -> None:
    needs.root("only root can be other users")
    with tempfile.TemporaryDirectory(prefix="reaper-", dir="/tmp") as folder, ExitStack() as stack:  # which others can enter
        Path(folder).chmod(0o755)
        path = Path(folder) / SOCKET
        daemon = stack.enter_context(ConfinedSocket(program, f'{QUICK}\n[leases]\nsocket = "{path}"\n', UNSERVED).start())
        serving(daemon)
        assert resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE) == (FILES, FILES)
        command = [sys.executable, "-c", _CROWD, str(uid), str(path), str(CROWD), say]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
            assert crowd.stdout is not None
            assert int(crowd.stdout.readline()) > 0
            fake.add("leftover", ago="25h")
            daemon.until(lambda: fake.names() == set(), "sweep beside the crowd")
            if not (say and uid == 0):  # who owns the service may use up the room for leases
                with lease(url=f"unix://{path}") as held:
                    assert held.state == "live"
            assert len([*Path(f"/proc/{daemon.process.pid}/fd").iterdir()]) < FILES - 64
            crowd.communicate("")
        assert [line for line in daemon.lines if line["level"] == "error"] == []
        assert list(daemon.events("connections_limited"))
        assert daemon.stop() == 0


class ConfinedMore(Confined):
    """As a shell on macOS confines what it starts."""

    files = 256


@pytest.mark.parametrize(
    "say",
    ["", "GET / HTTP/1.1\r\nX: ", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20, LEASES],
    ids=["idle", "slow", "unread", "leases"],
)
def test_it_sweeps_and_answers_beside_two_thousand_connections_to_its_port(
    program: Program, fake: FakeEngine, say: str
) -> None:
    with ConfinedMore(program, QUICK, "docker_events = false").start() as daemon:
        serving(daemon)
        command = [sys.executable, "-c", _CROWD, str(os.geteuid()), str(daemon.port), str(CROWD), say]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
            assert crowd.stdout is not None
            assert int(crowd.stdout.readline()) > 0
            fake.add("leftover", ago="25h")
            daemon.until(lambda: fake.names() == set(), "sweep beside the crowd")
            for path in ("/healthz", "/metrics"):
                assert daemon.get(path)[0] == 200
            crowd.communicate("")
        assert daemon.other == []
        assert [line for line in daemon.lines if line["level"] == "error"] == []
        assert list(daemon.events("connections_limited", server="web"))
        assert daemon.stop() == 0
