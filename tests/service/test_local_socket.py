"""The running service on its local socket, and the library's ``lease()`` against it: across restarts, death and upgrades."""

import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reaper import lease
from reaper.leases.record import LeaseRecord, LeaseState
from reaper.leases.sources import NAME
from reaper.leases.store import LeaseFile
from reaper.library import lease as own
from reaper.library.lease import HeldLease
from reaper.paths import SOCKET
from reaper.service.service import DESCRIPTORS
from tests.leases.others import NOBODY, ask
from tests.program.conftest import fake
from tests.program.fakeengine import FakeEngine
from tests.run import Program
from tests.service.daemon import QUICK, SELDOM, Daemon

__all__ = ["fake"]  # a fixture
UNSERVED = 'docker_events = false\nsweep_at_start = false\nlisten = "none"'


class Unserved(Daemon):
    """One that serves nothing over TCP."""

    def configure(self, rest: str, service: str = "") -> None:
        super().configure(rest, service)
        self.file.write_text("\n".join(line for line in self.file.read_text().splitlines() if "127.0.0.1" not in line))


@pytest.fixture
def program(fake: FakeEngine, tmp_path: Path) -> Program:
    return Program(tmp_path, {"DOCKER_HOST": fake.host})


@pytest.fixture
def held() -> Iterator[list[HeldLease]]:
    """Leases that the test holds; they are given back at its end."""
    leases: list[HeldLease] = []
    yield leases
    with ExitStack() as stack:
        for one in leases:
            stack.push(one.__exit__)
    assert own.held == set()


def url(program: Program) -> str:
    return f"unix://{program.folder / SOCKET}"


def take(program: Program, name: str, told: list[str]) -> HeldLease:
    return lease(name=name, url=url(program), on_trouble=told.append).__enter__()


def records(program: Program) -> dict[str, LeaseRecord]:
    file = LeaseFile(program.folder / NAME)
    try:
        return {record.id: record for record in file.records()}
    finally:
        file.close()


def serving(daemon: Daemon) -> Daemon:
    """The same, when it has opened its book of leases."""
    daemon.wait("service_started")
    daemon.until((daemon.program.folder / NAME).exists, "book of leases")
    return daemon


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_ten_holders_come_back_by_themselves(
    program: Program, fake: FakeEngine, held: list[HeldLease], end: signal.Signals
) -> None:
    names, told = [f"run-{number}" for number in range(10)], list[str]()
    for name in names:
        fake.add(f"of-{name}", ago="25h", labels={"reaper.lease": name})
    fake.add("leftover", ago="25h")
    with Unserved(program, SELDOM, UNSERVED).start() as daemon:
        serving(daemon)
        held += [take(program, name, told) for name in names]
        assert {record.state for record in records(program).values()} == {LeaseState.LIVE}
        assert held[0].endpoints == (fake.host,)
        daemon.signal(end)
        daemon.ended()
        assert [line for line in daemon.lines if line["level"] == "error"] == []
    assert program("--once", "--all", "--json").outcomes() == {"leftover": "deleted"}, "while there is no service"
    with Unserved(program, QUICK, UNSERVED).start() as daemon:
        for name in names:
            daemon.wait("lease_live", lease=name)
        daemon.wait("sweep_finished", times=2)
        assert {id_: record.state for id_, record in records(program).items()} == dict.fromkeys(names, LeaseState.LIVE)
        assert fake.names() == {f"of-{name}" for name in names}
        daemon.until(lambda: {one.state for one in held} == {"live"}, "holders that are told")
        assert [one.id for one in held] == names
        while held:
            held.pop().__exit__(None, None, None)
        assert {record.state for record in records(program).values()} == {LeaseState.RELEASED}
        daemon.until(lambda: fake.names() == set(), "deletion")
        assert daemon.stop() == 0
    assert len(told) == 20, "each is away once, and back once"
    assert not list(program.folder.glob(f"{SOCKET}*"))


def test_an_upgrade_hands_the_socket_and_the_leases_over(program: Program, fake: FakeEngine, held: list[HeldLease]) -> None:
    """Two services on one state directory: the later one waits for the socket, and takes over when the earlier one ends."""
    told: list[str] = []
    fake.add("mine", ago="25h", labels={"reaper.lease": "run-1"})
    with Unserved(program, SELDOM, UNSERVED, "old").start() as old:
        serving(old)
        held.append(take(program, "run-1", told))
        with Unserved(program, QUICK, UNSERVED, "new").start() as new:
            assert new.wait("local_socket_taken")["level"] == "warning"
            new.wait("service_started")
            assert held[0].state == "live"
            assert old.stop() == 0
            new.wait("lease_live", lease="run-1")
            new.wait("sweep_finished", times=2)
            assert (held[0].id, fake.names()) == ("run-1", {"mine"})
            held.pop().__exit__(None, None, None)
            new.until(lambda: fake.names() == set(), "deletion")
            assert new.stop() == 0


def test_more_leases_can_be_held_than_a_process_may_usually_have_files(program: Program) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Unserved(program, SELDOM, UNSERVED) as daemon:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        try:
            serving(daemon.start())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)[0] == min(hard, DESCRIPTORS)


def test_it_can_be_put_elsewhere_and_switched_off(program: Program, fake: FakeEngine) -> None:
    path = program.folder / "elsewhere" / "x.sock"
    with Unserved(
        program, f'{SELDOM}\n[leases]\nsocket = "{path}"\ntrusted_users = ["0", "root"]\n', UNSERVED
    ).start() as daemon:
        assert serving(daemon).wait("local_socket")["path"] == str(path)
        assert ask(path, 0, ("GET", "/healthz"), ("POST", "/leases", {"claims": [{"names": ["a-*"]}]}))[1][0] == 201
    with Unserved(program, f'{SELDOM}\n[leases]\nsocket = "none"\n', UNSERVED).start() as daemon:
        serving(daemon)
        assert not list(daemon.events("local_socket"))
        assert not (program.folder / SOCKET).exists()


WRONG = {
    "relative": ('socket = "reaper.sock"', '[leases]: socket = "reaper.sock": it is no absolute path of a file; write for'),
    "long": (f'socket = "/{"x" * 107}"', "it has 108 bytes, and a socket's path has 107 at most; name a shorter one"),
    "nowhere": ('socket = "/proc/nowhere/x.sock"', "[leases] socket: no socket can be made at /proc/nowhere/x.sock: "),
    "a user": (
        'trusted_users = ["no-such-user"]',
        "[leases] trusted_users: this machine has no user 'no-such-user'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_reported_at_the_start(program: Program, name: str) -> None:
    line, problem = WRONG[name]
    daemon = Unserved(program, f"{SELDOM}\n[leases]\n{line}\n", UNSERVED)
    ended = program("--config", str(daemon.file))
    assert ended.code == 2
    assert problem in ended.err
    assert "Traceback" not in ended.err


def test_a_default_that_cannot_be_made_is_no_obstacle(program: Program, tmp_path: Path) -> None:
    with Unserved(program, SELDOM, UNSERVED).start(RUNTIME_DIRECTORY="/proc/nowhere") as daemon:
        assert serving(daemon).wait("local_socket_failed")["path"] == f"/proc/nowhere/{SOCKET}"
        assert daemon.wait("local_socket")["path"] == str(program.folder / SOCKET)


def test_others_may_not_enter_a_state_directory(program: Program, tmp_path: Path) -> None:
    """Where there is no other place than that."""
    state = tmp_path / "state"
    with Unserved(program, SELDOM, UNSERVED).start(STATE_DIRECTORY=str(state), RUNTIME_DIRECTORY=str(state)) as daemon:
        daemon.wait("service_started")
        assert state.stat().st_mode & 0o777 == 0o700
        with pytest.raises(Exception, match="exit status 1"):
            ask(state / SOCKET, NOBODY, ("GET", "/leases"))


def test_a_client_that_has_gone_before_it_is_answered_is_no_error(program: Program) -> None:
    """As those have whose patience was over while the service was stopped."""
    with Daemon(program, SELDOM).start() as daemon:
        daemon.wait("local_socket")
        daemon.until(lambda: daemon.send("GET", "/leases")[0] == 200, "an answer")
        daemon.signal(signal.SIGSTOP)
        for request in (b"GET /leases HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(program.folder / SOCKET))
                client.sendall(request)
        daemon.signal(signal.SIGCONT)
        daemon.until(lambda: daemon.send("GET", "/leases")[0] == 200, "an answer")
        assert daemon.stop() == 0
        assert not list(daemon.events("library_message"))
