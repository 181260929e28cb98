"""Two hosts that share an engine: the leases of the first one count on the second, also when its service is stopped.

The second has its own network, machine id and boot id.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reaper import lease
from reaper.leases.record import LeaseState
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from tests import needs
from tests.engine.lab import rows
from tests.owners.test_engine import killed
from tests.program.conftest import fake
from tests.program.fakeengine import FakeEngine
from tests.run import Ended, Program
from tests.running.lab import until
from tests.service.daemon import SELDOM, Daemon

__all__ = ["fake"]  # a fixture

# Tests that run side by side have a network each, as each process has a number.
_NETWORK = f"10.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}"
FIRST, SECOND = f"{_NETWORK}.1", f"{_NETWORK}.2"
TOKEN = "t0ken-of-the-first"
_AS_ITSELF = """
mount --bind "$1" /etc/machine-id
mount --bind "$2" /proc/sys/kernel/random/boot_id
shift 2
exec "$@"
"""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def second() -> Iterator[str]:
    """A network namespace beside this one, with an address each."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        needs.lacking("only root can make network namespaces, with ip (Debian's package iproute2)")
    name = f"reaper-{os.getpid()}"
    link = f"rp{os.getpid() % 100_000}"
    with ExitStack() as stack:
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "del", name)
        _ip("link", "add", link, "type", "veth", "peer", "name", f"{link}b", "netns", name)
        stack.callback(_ip, "link", "del", link)  # the end of its namespace is none of it yet
        _ip("addr", "add", f"{FIRST}/24", "dev", link)
        _ip("link", "set", link, "up")
        for words in (
            ["addr", "add", f"{SECOND}/24", "dev", f"{link}b"],
            ["link", "set", f"{link}b", "up"],
            ["link", "set", "lo", "up"],
        ):
            _ip("-n", name, *words)
        yield name


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            sink.sendall(part)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _relay(client: socket.socket, path: str) -> None:
    with client, socket.socket(socket.AF_UNIX) as behind:
        behind.connect(path)
        back = threading.Thread(target=_pump, args=(behind, client))
        back.start()
        _pump(client, behind)
        back.join()


@pytest.fixture
def engine(second: str, fake: FakeEngine) -> Iterator[str]:
    """The engine's address for both hosts."""
    with socket.create_server((FIRST, 0)) as listening, ExitStack() as stack:

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                relay = threading.Thread(target=_relay, args=(client, fake.host.removeprefix("unix://")))
                relay.start()
                stack.callback(relay.join)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://{FIRST}:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


class Hosts:
    """The service of the first host, and the program on the second one."""

    def __init__(self, folder: Path, engine: str, name: str) -> None:
        self.name, self._folder = name, folder
        (folder / "machine-id").write_text(f"{'5ec0d' * 6}00\n")
        (folder / "boot_id").write_text("5ec0d5ec-0d5e-c0d5-ec0d-5ec0d5ec0d5e\n")
        (folder / "first").mkdir()
        (folder / "second").mkdir()
        of_first = {"DOCKER_HOST": engine, "TOKEN_OF_FIRST": TOKEN}
        self.daemon = Daemon(
            Program(folder / "first", of_first),
            f'{SELDOM}\n[leases]\ntoken_env = "TOKEN_OF_FIRST"\n',
            "sweep_at_start = false",
        )
        self.daemon.file.write_text(self.daemon.file.read_text().replace("127.0.0.1:", f"{FIRST}:"))
        self.url = f"http://{FIRST}:{self.daemon.port}"
        of_second = {"DOCKER_HOST": engine, "REAPER_URL": self.url, "REAPER_TOKEN": TOKEN, "REAPER_RETRY__ATTEMPTS": "1"}
        self.second = Program(folder / "second", of_second)

    def start(self) -> Daemon:
        self.daemon.start().wait("service_started")
        until((self.daemon.program.folder / NAME).exists, "book of leases")
        return self.daemon

    def begin(self, *arguments: str, **env: str) -> "subprocess.Popen[str]":
        """Start the program on the second host."""
        ids = [str(self._folder / name) for name in ("machine-id", "boot_id")]
        there = ["unshare", "--mount", "sh", "-ec", _AS_ITSELF, "sh", *ids, sys.executable, "-m", "reaper"]
        command = ["ip", "netns", "exec", self.name, *there, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command,
            env={**self.second.env, **env},
            cwd=self.second.folder,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def run(self, *arguments: str, **env: str) -> Ended:
        return self.second.finish(self.begin(*arguments, **env))

    def lease(self, id_: str) -> LeaseState:
        file = LeaseFile(self.daemon.program.folder / NAME)
        try:
            found = file.find(id_)
        finally:
            file.close()
        assert found is not None
        return found.state


@pytest.fixture
def hosts(tmp_path: Path, engine: str, second: str) -> Hosts:
    return Hosts(tmp_path, engine, second)


def test_leases_of_the_first_count_on_the_second(hosts: Hosts, fake: FakeEngine) -> None:
    fake.add("chess-1", ago="25h")
    fake.add("labelled", ago="25h", labels={"reaper.lease": "run-1"})
    fake.add("leftover", ago="25h")
    with (
        hosts.start() as daemon,
        lease([{"names": ["chess-*"]}], name="run-1", url=hosts.url, token=TOKEN, on_trouble=print) as held,
    ):
        assert held.state == "live"
        ended = hosts.run("--once", "--all", "--json")
        assert ended.code == 0, ended.out + ended.err
        ended = hosts.run("--once", "--all", REAPER_TOKEN="wrong")
        assert ended.code == 5
        assert "set REAPER_TOKEN to the token of its [leases]" in ended.out + ended.err
        fake.add("leftover", ago="25h")
        daemon.signal(signal.SIGTERM)
        daemon.ended()
        ended = hosts.run("--once", "--all")
        assert ended.code == 5
        assert f"the service behind {hosts.url} does not answer, so what its leases keep is unknown" in ended.out
        assert fake.names() == {"chess-1", "labelled", "leftover"}, "nothing is guessed"


def test_a_run_on_the_second_holds_its_lease_at_the_first(hosts: Hosts, fake: FakeEngine) -> None:
    with hosts.start() as daemon:
        words = [sys.executable, "-uc", "import os, time; print(os.environ['REAPER_LEASE']); time.sleep(600)"]
        run = hosts.begin("run", "--skip-cleanup", "--no-proxy", "--own", "name=chess-*", "--max-age", "2h", "--", *words)
        assert run.stdout is not None
        id_ = run.stdout.readline().strip()
        assert hosts.lease(id_) is LeaseState.LIVE
        fake.add("chess-1", labels={"reaper.lease": id_}).created = datetime.now(UTC)
        other = Program(daemon.program.folder.parent / "second", {**hosts.second.env, "STATE_DIRECTORY": "/nonexistent"})
        ended = other("--once", "--all", "--json")
        assert (ended.code, ended.outcomes()) == (0, {}), "a third host, which asks the first one"
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        until(lambda: hosts.lease(id_) is LeaseState.RELEASED, "the guard does not give it back", 60.0)
        assert fake.names() == set(), hosts.run("explain", "chess-1").out
        assert daemon.stop() == 0


def test_a_dead_owner_on_the_first_is_not_proven_to_be_dead_on_the_second(hosts: Hosts, fake: FakeEngine) -> None:
    fake.add("its", state="running", ago="1h", labels=killed())
    soon = {"REAPER_URL": "", "REAPER_POLICY__ORPHANED__ORPHANED_FOR": "1s"}
    sweep = ["--once", "--json", "--wait", "--timeout"]
    ended = hosts.run(*sweep, "3s", **soon)
    assert (ended.code, ended.outcomes()) == (0, {}), ended.err
    assert "it is on another host, which alone can check that" in hosts.run("explain", "its", **soon).out
    first = Program(hosts.daemon.program.folder, {**hosts.daemon.program.env, **soon})
    assert first(*sweep, "30s").outcomes() == {"its": "deleted"}


def test_nothing_more_goes_when_the_service_of_the_first_dies_during_a_sweep(hosts: Hosts, fake: FakeEngine) -> None:
    for number in range(200):
        fake.add(f"old-{number}", state="running", ago="25h")
    fake.stop_takes = 1.5
    with hosts.start() as daemon:
        sweep = hosts.begin("--once", "--json")
        until(lambda: len(fake.names()) < 200, "nothing goes")
        daemon.signal(signal.SIGKILL)
        daemon.ended()
        ended = hosts.second.finish(sweep)
    assert ended.code == 3
    failed = [name for name, outcome in ended.outcomes().items() if outcome == "failed"]
    assert fake.names() == {*failed}
    assert len(failed) > 50
    assert all("does not answer" in str(rows(ended)[name]) for name in failed), rows(ended)[failed[0]]
