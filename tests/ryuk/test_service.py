"""The Ryuk protocol in the service: off unless it is wanted, and like any other lease where it is."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devkit.ports import free_port
from tests.engine.lab import containers
from tests.run import Program
from tests.ryuk.process import LIMIT, name, of, until
from tests.service.daemon import QUICK, SELDOM, Daemon
from tests.simulator.docker_world import World

NO_EVENTS = "docker_events = false"


class RyukDaemon(Daemon):
    """A service that speaks Ryuk."""

    def __init__(self, program: Program, policies: str = SELDOM, more: str = "") -> None:
        self.ryuk_port = free_port()
        super().__init__(program, f'{policies}\n[ryuk]\nlisten = "127.0.0.1:{self.ryuk_port}"\n{more}', NO_EVENTS)

    def serving(self) -> "RyukDaemon":
        """The same, when it has opened its book of leases."""
        self.wait("service_started")
        self.until(lambda: self.send("GET", "/leases")[0] != 503, "book of leases")
        return self

    @contextmanager
    def client(self, *sessions: str) -> Iterator[socket.socket]:
        """A connection that has named sessions, and been told that they are understood."""
        with socket.create_connection(("127.0.0.1", self.ryuk_port), timeout=LIMIT) as connection:
            for session in sessions:
                name(connection, session)
            yield connection


def test_its_clients_are_in_the_metrics_and_on_the_page(program: Program) -> None:
    with RyukDaemon(program) as daemon:
        daemon.start()
        daemon.serving()
        with daemon.client("a", "b") as client:
            client.sendall(b"name=b-1\n")
            daemon.wait("ryuk_line_refused")
            daemon.until(lambda: daemon.metric("reaper_leases", state="live") == 2, "count")
            assert daemon.metric("reaper_ryuk_lines_refused_total") == 1
            assert "org.testcontainers.session-id=b" in daemon.get("/")[1], "the page shows who holds what"
            assert daemon.stop() == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_clients_survive_the_service_by_coming_back(program: Program, world: World, end: signal.Signals) -> None:
    daemon = RyukDaemon(program, QUICK)
    with daemon.start():
        daemon.serving()
        with daemon.client("a") as connection:
            world.create("a-1", labels=of("a", **{"terminal-bench": "1"}))
            daemon.signal(end)
            daemon.ended()
            assert connection.recv(100) == b"", "the kernel closes it at the latest"
    with daemon.start():
        daemon.wait("sweep_finished", times=2)
        with daemon.client("a"):
            (lease,) = daemon.send("GET", "/leases")[1]["leases"]
            assert lease["state"] == "live"
            assert daemon.stop() == 0
    assert containers(world) == {"a-1"}


def test_with_a_secret_only_who_knows_it_is_served(program: Program, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    with RyukDaemon(program, more=f'secret_file = "{tmp_path}/secret"\n') as daemon:
        daemon.start()
        daemon.serving()
        with daemon.client() as connection:
            connection.sendall(b"label=org.testcontainers.session-id=a\n")
            assert connection.recv(100) == b""
        with daemon.client() as connection:
            connection.sendall(b"secret=s3cret\nlabel=org.testcontainers.session-id=a\n")
            until(lambda: connection.recv(100, socket.MSG_PEEK) == b"ACK\nACK\n", "both answers")
        daemon.wait("ryuk_client_refused")
        assert "s3cret" not in str(daemon.lines)


def test_it_is_off_unless_it_is_wanted(program: Program) -> None:
    with Daemon(program, SELDOM, NO_EVENTS).start() as daemon:
        assert daemon.wait("service_started")["ryuk"] == "none"


def test_what_is_changed_takes_effect_at_the_next_start(program: Program) -> None:
    with Daemon(program, SELDOM, NO_EVENTS).start() as daemon:
        daemon.wait("service_started")
        daemon.configure(f'{SELDOM}\n[ryuk]\nlisten = "127.0.0.1:{free_port()}"\n', NO_EVENTS)
        daemon.signal(signal.SIGHUP)
        assert "[ryuk]" in daemon.wait("reload_incomplete")["problem"]


def test_a_port_that_is_taken_is_reported_at_once(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = Daemon(program, f'{SELDOM}\n[ryuk]\nlisten = "127.0.0.1:{port}"\n', NO_EVENTS)
        ended = program("--config", str(daemon.file))
    assert ended.code == 2
    assert f"[ryuk] listen: 127.0.0.1:{port} is taken" in ended.err


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('listen = "8080"', "'8080' is no address; write HOST:PORT, for example \"127.0.0.1:8080\""),
        ('listen = "127.0.0.1:0"', "has no port between 1 and 65535"),
        ('listen = "0.0.0.0:8080"', "can be reached from elsewhere, so it needs a secret: name one with secret_file or"),
        ('listen = "gpu-1:8080"', "can be reached from elsewhere"),
        ('listen = "[::]:8080"', "can be reached from elsewhere"),
        ('secret_env = "A"\nsecret_file = "/b"', "secret_env and secret_file exclude each other"),
        ('listen = "127.0.0.1:8080"\n[leases]\nenabled = false', "[ryuk] listen needs leases"),
    ],
)
def test_a_bad_table_is_reported(program: Program, tmp_path: Path, table: str, told: str) -> None:
    (tmp_path / "reaper.toml").write_text(f"[ryuk]\n{table}\n")
    ended = program("config", "check")
    assert ended.code == 2
    assert told in ended.err


@pytest.mark.parametrize(
    "table",
    [
        'listen = "0.0.0.0:8080"\nsecret_file = "secret"',
        'listen = "localhost:8080"',
        'listen = "[::1]:8080"',
        'listen = "127.0.0.9:1"',
    ],
)
def test_a_good_table_is_taken(program: Program, tmp_path: Path, table: str) -> None:
    (tmp_path / "secret").write_text("known-to-the-clients")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "reaper.toml").write_text(f"[ryuk]\n{table}\n")
    assert program("config", "check").code == 0


def test_a_secret_that_is_not_there_is_reported_at_once(program: Program) -> None:
    daemon = Daemon(program, f'{SELDOM}\n[ryuk]\nlisten = "127.0.0.1:{free_port()}"\nsecret_env = "NO_SUCH"\n', NO_EVENTS)
    ended = program("--config", str(daemon.file))
    assert ended.code == 2
    assert "NO_SUCH is not set" in ended.err
