"""A run beside a service that keeps the leases of everybody on the machine."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from reaper.core.lease import IN_FLIGHT
from tests.daytona.server import Served
from tests.engine.lab import containers
from tests.program.wrapped import started
from tests.run import Program
from tests.running.conftest import Simulated
from tests.running.lab import guards, until
from tests.running.test_nested import NEST
from tests.running.test_run import QUICKLY, Making, killed_in_clean_up
from tests.service.daemon import SELDOM, Daemon, acts

WINDOW = 15.0  # seconds: of 10, and 5 more


@pytest.fixture
def service(served: Served, tmp_path: Path) -> Program:
    """The program as the service runs it, with a state directory of its own."""
    folder = tmp_path / "service"
    folder.mkdir()
    return Program(folder, {**served.sim.environment(), "REAPER_RETRY__INITIAL_DELAY": "20ms"})


@pytest.fixture
def program(served: Served, service: Program, tmp_path: Path) -> Program:
    """The program as a user of the machine runs it."""
    folder = tmp_path / "user"
    folder.mkdir()
    return Program(folder, {**served.sim.environment(), "REAPER_URL": f"unix://{service.folder}/reaper.sock"})


@contextmanager
def running(service: Program, more: str = "") -> Iterator[Daemon]:
    with Daemon(service, SELDOM, f"docker_events = false\n{more}").start() as daemon:
        daemon.wait("service_started")
        until((service.folder / "reaper.sock").exists)
        daemon.until(lambda: daemon.send("GET", "/leases")[0] == 200, "book of leases")
        yield daemon


def test_its_lease_is_the_service_s(program: Program, service: Program, served: Served) -> None:
    with running(service) as daemon:
        with started(program, *QUICKLY, "--own", "name=chess-*", "--", *Making({"mine": {}}, waits=True).words) as process:
            assert process.stdout is not None
            lease, _ = process.stdout.readline().split()
            served.add("chess-1", age=timedelta(0))
            assert not guards(program.folder)
            (known,) = daemon.send("GET", "/leases")[1]["leases"]
            assert (known["id"], known["state"], known["holder"]["pid"]) == (lease, "live", process.pid)
            for other in (service, program):  # one shares the service's state, one asks it
                ended = other("--once", "--all", "--json")
                assert ended.code == 0, ended.err
            assert served.left() == {"mine", "chess-1"}
            process.send_signal(signal.SIGTERM)
            ended = program.finish(process)
        assert ended.code == 143, ended.err
        assert served.left() == set()
        assert "default: 2 deleted" in ended.err
        (known,) = daemon.send("GET", "/leases")[1]["leases"]
        assert (known["state"], known["cause"]) == ("released", "its command was killed by SIGTERM")
        assert daemon.stop() == 0


def test_those_that_are_killed_are_cleaned_up_after(program: Program, service: Program, served: Served) -> None:
    """Nested ones need no guard either: the service sweeps the engine behind the outer one's proxy, which the inner uses."""
    served.add("neighbour", labels={})
    client = Simulated(served.sim.docker_host.removeprefix("unix://"))
    client.import_image()
    client.create("neighbour", start=True)
    nest = (sys.executable, str(NEST), "1", "2", "exec")
    with running(service) as daemon:
        with (
            started(program, *QUICKLY, "--", *Making({"mine": {}}, waits=True).words) as process,
            program.start("run", "--skip-cleanup", "--", *nest, start_new_session=True) as outer,
        ):
            assert process.stdout is not None
            assert process.stdout.readline()
            assert outer.stdout is not None
            ready, guarding, made = outer.stdout.readline(), guards(program.folder), containers(client)
            os.killpg(outer.pid, signal.SIGKILL)
            process.kill()
            assert ready.startswith("ready")
            assert (guarding, made) == ([], {"neighbour", "level-1", "level-2"})
            until(lambda: served.left() == {"neighbour"}, "it is left", WINDOW)
            until(lambda: containers(client) == {"neighbour"}, "it is left", WINDOW)
            for name in ("mine", "level-1", "level-2"):
                daemon.wait("deleted", name=name)
        assert daemon.stop() == 0
    found = {act["name"]: act["sentence"] for act in acts(service, outcome="deleted")}
    assert found.keys() == {"mine", "level-1", "level-2"}
    assert f"of pid {process.pid} on {os.uname().nodename} ended " in found["mine"]
    assert found["mine"].endswith("(its connection was gone for 10 s)")


def test_a_run_that_follows_a_killed_one_finds_nothing_of_it(program: Program, service: Program, served: Served) -> None:
    """A command that resumes would use what it found, and lose it when the lease of the killed one has ended."""
    with running(service) as daemon:
        with started(program, *QUICKLY, "--", *Making({"mine": {}}, waits=True).words) as process:
            assert process.stdout is not None
            lease, _ = process.stdout.readline().split()
            process.kill()
        until(lambda: _states(daemon) == {lease: "reconnecting"}, "its end is not noticed", WINDOW)
        before = len(served.left())
        ended = program("run", "--", "true")
        assert (before, ended.code) == (1, 0), ended.err
        assert f"reaper run: waiting for lease {lease}, whose holder is gone, to end" in ended.err
        until(lambda: served.left() == set(), "it is left")  # perhaps by the service, which is at it as well
        assert daemon.stop() == 0


def test_a_run_that_follows_a_killed_one_gives_back_what_that_held_elsewhere(
    program: Program, service: Program, served: Served
) -> None:
    """As a unit of systemd that is started again: all of the first run was killed, also its guard."""
    with running(service) as daemon:
        env = {"REAPER_URL": f"http://127.0.0.1:{daemon.port}"}
        with started(program, *QUICKLY, "--", *Making({"mine": {}}, waits=True).words, env=env) as process:
            assert process.stdout is not None
            lease, _ = process.stdout.readline().split()
            until(lambda: guards(program.folder))
            until(lambda: "started" in program("list", env=env).out)
            process.kill()
            for guard in guards(program.folder):
                os.kill(guard, signal.SIGKILL)
        assert _states(daemon) == {lease: "live"}
        assert served.left() == {"mine"}
        ended = program("run", "--", "true", env=env)
        assert ended.code == 0, ended.err
        until(lambda: served.left() == set(), "it is left")  # perhaps by the service, which is at it as well
        assert _states(daemon)[lease] == "released"
        assert daemon.stop() == 0


def test_its_claims_end_with_the_command_though_it_is_killed_while_it_cleans_up(
    program: Program, service: Program, served: Served
) -> None:
    with running(service) as daemon:
        cleaning = killed_in_clean_up(program, served, "mine")
        until(lambda: "expired" in _states(daemon).values(), "it does not end", WINDOW)
        (known,) = daemon.send("GET", "/leases")[1]["leases"]
        assert datetime.fromisoformat(known["claims_until"]) < cleaning + IN_FLIGHT
        assert datetime.fromisoformat(known["ended_at"]) > cleaning
        until(lambda: served.left() == set(), "it is left", WINDOW)
        assert daemon.stop() == 0


def test_it_outlives_the_service_s_restart(program: Program, service: Program, served: Served) -> None:
    with running(service) as first:
        process = program.start(*QUICKLY, "--", *Making({"mine": {}}, waits=True).words)
        assert process.stdout is not None
        lease, _ = process.stdout.readline().split()
        assert f"lease {lease} is live" in service("list").out
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        assert f"lease {lease} is watched by no service" in service("list").out
        assert "the service that watched its holder is dead; start it again, or: " in service("explain", "mine").out
    with running(service) as second:
        second.until(lambda: _states(second) == {lease: "live"}, "holder that comes back")
        assert f"lease {lease} is live" in service("list").out
        assert served.left() == {"mine"}
        process.send_signal(signal.SIGTERM)
        ended = program.finish(process)
        assert ended.code == 143
        assert "Traceback" not in ended.err
        assert served.left() == set()
        assert second.stop() == 0


def _states(daemon: Daemon) -> dict[str, str]:
    return {lease["id"]: lease["state"] for lease in daemon.send("GET", "/leases")[1]["leases"]}


def test_a_service_that_does_not_sweep_the_run_s_engine_is_not_enough(program: Program, service: Program) -> None:
    service.env.update({"DAYTONA_API_KEY": "", "DOCKER_HOST": "tcp://127.0.0.1:9"})
    with running(service):
        ended = program(*QUICKLY, "--", sys.executable, "-c", "print('runs')")
    assert (ended.code, ended.out) == (0, "runs\n")
    assert "does not sweep " in ended.err
    assert "so this run has a guard of its own" in ended.err


def test_a_service_that_deletes_nothing_is_not_enough(program: Program, service: Program, served: Served) -> None:
    with running(service, "dry_run = true") as daemon:
        with started(program, *QUICKLY, "--", *Making({"mine": {}}, waits=True).words) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert served.left() == {"mine"}
            process.kill()
            process.wait()
        until(lambda: served.left() == set(), "it is left", WINDOW)
        assert daemon.stop() == 0


def test_the_service_at_an_address_may_be_the_one_whose_state_directory_the_run_has(
    service: Program, served: Served
) -> None:
    """REAPER_URL is set for all hosts alike, and one of them is that of the service."""
    with running(service) as daemon:
        program = Program(service.folder, {**service.env, "REAPER_URL": f"http://127.0.0.1:{daemon.port}"})
        with started(program, *QUICKLY, "--", *Making({"mine": {}}, waits=True).words) as process:
            assert process.stdout is not None
            lease, _ = process.stdout.readline().split()
            assert _states(daemon) == {lease: "live"}
            process.send_signal(signal.SIGTERM)
            ended = program.finish(process)
        assert (ended.code, served.left()) == (143, set()), ended.err
        assert "REAPER_URL" not in ended.err
        assert _states(daemon) == {lease: "released"}
        assert daemon.stop() == 0


def test_what_a_dead_service_knew_is_not_guessed(program: Program, service: Program, served: Served) -> None:
    with running(service) as daemon:
        os.kill(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait()
    served.add("chess-old")  # which its sweep at the start may have taken
    ended = program("--once", "--all")
    assert ended.code == 5
    assert f"the service behind {service.folder}/reaper.sock does not answer" in ended.out
    assert served.left() == {"chess-old"}
    assert service("--once", "--all").code == 0, "who shares its state directory knows as much as it did"
    assert served.left() == set()
