"""``reaper ryuk`` as a process: from its first client to the end of the last lease."""

import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from devkit.client import OBEYS_TERM, SLEEPS, EngineClient
from devkit.ports import free_port
from reaper.simulator.faults import Fault
from tests.engine.lab import containers
from tests.run import Program
from tests.ryuk.process import RyukProcess, deleted, of, until
from tests.simulator.docker_world import World


def test_a_dead_clients_things_go_although_another_one_lives(any_engine: EngineClient, tmp_path: Path) -> None:
    program = Program(tmp_path, {"DOCKER_HOST": any_engine.host})
    with RyukProcess(program).started() as ryuk:
        with ryuk.client("a"), ryuk.client("b"):
            for session in "ab":
                any_engine.create_network(f"{session}-net", of(session))
                any_engine.create(f"{session}-1", labels=of(session), cmd=SLEEPS, start=True, network=f"{session}-net")
            image = any_engine.labelled_image("a-image:1", of("a"))
            any_engine.create("a-new", labels=of("a"))  # created and never started
            any_engine.create("a-stopped", labels=of("a"), cmd=("true",), start=True)
            # As Node labels its Ryuk, which is never to delete itself, and one that a user keeps.
            any_engine.create("a-ryuk", labels=of("a", **{"org.testcontainers.ryuk": "true"}), cmd=OBEYS_TERM, start=True)
            any_engine.create("a-kept", labels=of("a", **{"reaper.keep": ""}))
            any_engine.create("foreign", labels={"team": "rl"})
            with ryuk.client("c"):
                any_engine.create("c-1", labels=of("c"), cmd=SLEEPS, start=True)
            gone = time.monotonic()
            until(lambda: "c-1" not in containers(any_engine), "end of c")
            took = time.monotonic() - gone
            assert took < 0.5 + 5, "the reconnection timeout and 5 s"
            assert {"a-1", "b-1", "a-new"} <= containers(any_engine)
        assert ryuk.ended() == 0
    assert containers(any_engine) == {"a-ryuk", "a-kept", "foreign"}
    assert set(any_engine.networks()) == set()
    assert any_engine.api.get(f"/images/{image}/json").status == 404
    acts = deleted(tmp_path)
    assert acts.keys() == {"a-1", "a-image:1", "a-net", "a-new", "a-stopped", "b-1", "b-net", "c-1"}
    assert {row["reason"] for row in acts.values()} == {"lease_ended"}
    assert all("(its connection was gone for 0.5 s)" in row["sentence"] for row in acts.values())
    assert ryuk.events("internal_error") == []


def test_no_client_comes(program: Program) -> None:
    with RyukProcess(program, RYUK_CONNECTION_TIMEOUT="300ms").started() as ryuk:
        assert ryuk.ended() == 0
    assert ryuk.events("ryuk_ended", exit_code=0)


def test_who_connects_and_names_nothing_is_waited_for_like_any_other(program: Program) -> None:
    with RyukProcess(program, RYUK_CONNECTION_TIMEOUT="300ms").started() as ryuk:
        with ryuk.client():
            time.sleep(0.6)  # longer than the connection timeout
            assert ryuk.process.poll() is None
        assert ryuk.ended() == 0


def test_without_an_engine_it_never_says_that_it_has_started(program: Program, tmp_path: Path) -> None:
    ended = program("ryuk", env={"DOCKER_HOST": f"unix://{tmp_path}/no.sock", "RYUK_PORT": "0"})
    assert (ended.code, ended.out) == (5, "")
    (told,) = [line for line in ended.logs if line["event"] == "ryuk_has_no_engine"]
    assert "there is no such socket" in told["problem"]


def test_leases_that_cannot_be_kept_are_reported(program: Program, tmp_path: Path) -> None:
    (tmp_path / "leases.db").write_text("no database")
    ended = program("ryuk", env={"RYUK_PORT": "0"})
    assert (ended.code, ended.out) == (5, "")
    assert "leases.db cannot be read" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("RYUK_RECONNECTION_TIMEOUT", "10", "'10' is not a duration; write for example \"60s\""),
        ("RYUK_CONNECTION_TIMEOUT", "-1s", "'-1s' is no time to wait"),
        ("RYUK_SHUTDOWN_TIMEOUT", "0", "'0' is no time to wait"),
        ("RYUK_PORT", "65536", "'65536' is no whole number from 0 to 65535"),
        ("RYUK_REMOVE_RETRIES", "0", "'0' is no whole number from 1 to"),
        ("RYUK_VERBOSE", "yes", "'yes' is neither true nor false"),
        ("REAPER_LEASES__CLAIMABLE", "[", "is no list"),
        ("REAPER_RYUK__SECRET_ENV", "NO_SUCH", "NO_SUCH is not set"),
    ],
)
def test_a_bad_variable_is_reported(program: Program, variable: str, value: str, told: str) -> None:
    ended = program("ryuk", env={variable: value})
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert (variable if variable != "REAPER_RYUK__SECRET_ENV" else "NO_SUCH") in ended.err


def test_a_port_that_is_taken_is_reported(program: Program) -> None:
    with RyukProcess(program).started() as ryuk:
        ended = program("ryuk", env={"RYUK_PORT": str(ryuk.port)})
    assert (ended.code, ended.out) == (2, "")
    assert f"RYUK_PORT: port {ryuk.port} is taken" in ended.err


def test_it_reads_no_file(program: Program, tmp_path: Path) -> None:
    (tmp_path / "reaper.toml").write_text("this is no TOML")
    with RyukProcess(program, RYUK_CONNECTION_TIMEOUT="100ms", REAPER_CONFIG="/no/such.toml").started() as ryuk:
        assert ryuk.ended() == 0
    ended = program("--config", "x.toml", "ryuk")
    assert ended.code == 2
    assert "--config does not go with ryuk, which reads RYUK_ variables and no file" in ended.err


def test_no_policy_and_no_scope_takes_anything(program: Program, world: World) -> None:
    world.add("old", labels={"terminal-bench": "1"})
    world.add("expired", labels={"terminal-bench": "1", "reaper.ttl": "1m"})
    with RyukProcess(program, REAPER_SCOPE__EVERYTHING="true").started() as ryuk:
        with ryuk.client("a"):
            world.create("a-1", labels=of("a"))
        assert ryuk.ended() == 0
    assert containers(world) == {"old", "expired"}


def test_what_was_there_before_the_session_is_not_the_sessions(program: Program, world: World) -> None:
    world.add("before", timedelta(hours=1), labels=of("a"))
    with RyukProcess(program).started() as ryuk:
        with ryuk.client("a"):
            world.create("a-1", labels=of("a"))
        assert ryuk.ended() == 0
    assert containers(world) == {"before"}


def test_with_a_secret_only_who_knows_it_is_served(program: Program, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    with RyukProcess(program, REAPER_RYUK__SECRET_FILE=str(tmp_path / "secret")).started() as ryuk:
        with ryuk.client() as connection:
            connection.sendall(b"label=org.testcontainers.session-id=a\n")
            assert connection.recv(100) == b""
        with ryuk.client() as connection:
            connection.sendall(b"secret=s3cret\n")
            assert connection.recv(100) == b"ACK\n"
            connection.sendall(b"label=org.testcontainers.session-id=a\n")
            assert connection.recv(100) == b"ACK\n"
        assert ryuk.ended() == 0
    assert "s3cret" not in str(ryuk.lines)


def test_more_keys_may_be_allowed(program: Program, world: World) -> None:
    project = {"com.docker.compose.project": "p", "com.docker.compose.container-number": "1"}
    keys = "org.testcontainers.*,com.docker.compose.project"
    with RyukProcess(program, REAPER_LEASES__CLAIMABLE=keys).started() as ryuk:
        with ryuk.client() as connection:
            connection.sendall(b"label=com.docker.compose.project=p\n")
            assert connection.recv(100) == b"ACK\n"
            world.create_network("p_default", project)
            world.create("p-main-1", labels=project, cmd=OBEYS_TERM, start=True, network="p_default")
        assert ryuk.ended() == 0
    assert containers(world) == set()
    assert set(world.networks()) == set()


# -- the end -----------------------------------------------------------------------------------------------------------


def test_told_to_end_it_cleans_up_at_once_after_those_who_have_gone(program: Program, world: World) -> None:
    with RyukProcess(program, RYUK_RECONNECTION_TIMEOUT="1h").started() as ryuk:
        with ryuk.client("a"):
            world.create("a-1", labels=of("a"), cmd=OBEYS_TERM, start=True)
        ryuk.wait("lease_reconnecting")
        ryuk.terminate()
        assert ryuk.ended() == 0
    assert containers(world) == set()
    (told,) = ryuk.events("lease_expired")
    assert told["cause"] == "its connection was gone when this program ended"


def test_told_to_end_it_waits_for_those_who_are_connected(program: Program, world: World) -> None:
    with RyukProcess(program, RYUK_RECONNECTION_TIMEOUT="1h").started() as ryuk:
        with ryuk.client("a") as connection:
            world.create("a-1", labels=of("a"), cmd=OBEYS_TERM, start=True)
            ryuk.terminate()
            ryuk.wait("signal")
            connection.sendall(b"label=org.testcontainers.session-id=b\n")
            assert connection.recv(100) == b"ACK\n"
            assert containers(world) == {"a-1"}
        assert ryuk.ended() == 0
    assert containers(world) == set()


def test_those_who_are_connected_to_the_end_lose_nothing(program: Program, world: World) -> None:
    with RyukProcess(program, RYUK_SHUTDOWN_TIMEOUT="2s").started() as ryuk, ryuk.client("a"):
        with ryuk.client("b"):
            world.create("a-1", labels=of("a"), cmd=OBEYS_TERM, start=True)
            world.create("b-1", labels=of("b"), cmd=OBEYS_TERM, start=True)
        ryuk.terminate()
        assert ryuk.ended() == 3
    assert containers(world) == {"a-1"}
    (told,) = ryuk.events("clients_still_connected")
    assert "still connected" in told["problem"]
    assert told["number"] == 1


def test_a_second_signal_ends_it_at_once(program: Program) -> None:
    with RyukProcess(program).started() as ryuk, ryuk.client("a"):
        ryuk.terminate()
        ryuk.wait("signal")
        while ryuk.process.poll() is None:
            ryuk.terminate()
            time.sleep(0.05)
        assert ryuk.ended() == 143


def test_what_does_not_go_is_tried_again_and_told(program: Program, world: World) -> None:
    world.faults.add(Fault(kind="status", status=500, message="device busy", method="DELETE", resource="stuck"))
    with RyukProcess(program, RYUK_REMOVE_RETRIES="2").started() as ryuk:
        with ryuk.client("a"):
            world.create("stuck", labels=of("a"))
            world.create("a-1", labels=of("a"))
        assert ryuk.ended() == 3
    assert containers(world) == {"stuck"}
    (told,) = ryuk.events("ryuk_gave_up")
    assert (told["tries"], told["left"]) == (2, ["container stuck"])
    assert ryuk.events("ryuk_left_behind", left=["container stuck"])


def test_what_does_not_go_at_first_goes_with_a_later_try(program: Program, world: World) -> None:
    world.faults.add(Fault(kind="status", status=500, message="device busy", method="DELETE", resource="stuck", times=4))
    with RyukProcess(program).started() as ryuk:
        with ryuk.client("a"):
            world.create("stuck", labels=of("a"))
        assert ryuk.ended() == 0
    assert containers(world) == set()


def test_the_time_is_up(program: Program, world: World) -> None:
    world.faults.add(Fault(kind="status", status=500, message="device busy", method="DELETE", resource="stuck"))
    with RyukProcess(program, RYUK_SHUTDOWN_TIMEOUT="1s").started() as ryuk:
        with ryuk.client("a"):
            world.create("stuck", labels=of("a"))
        assert ryuk.ended() == 3
    assert ryuk.events("ryuk_left_behind", left=["container stuck"])


def test_the_cap_holds(program: Program, world: World) -> None:
    with RyukProcess(program, REAPER_LIMITS__MAX_LEASE_DELETIONS="1").started() as ryuk:
        with ryuk.client("a"):
            for number in range(2):
                world.create(f"a-{number}", labels=of("a"))
        assert ryuk.ended() == 4
    assert containers(world) == {"a-0", "a-1"}
    (told,) = ryuk.events("ryuk_over_the_cap")
    assert "REAPER_LIMITS__MAX_LEASE_DELETIONS=2" in told["hint"]


def test_what_was_made_just_now_is_waited_for(program: Program, world: World, tmp_path: Path) -> None:
    with RyukProcess(program, RYUK_RETRY_OFFSET="-3s").started() as ryuk:
        with ryuk.client("a"):
            world.create("a-1", labels=of("a"))
        created = datetime.fromisoformat(world.inspect("a-1")["Created"])
        assert ryuk.ended() == 0
    assert containers(world) == set()
    decided = datetime.fromisoformat(deleted(tmp_path)["a-1"]["decided_at"])
    assert decided - created > timedelta(seconds=2), "the listing tells whole seconds"


def test_killed_and_started_again_it_knows_who_was_there(program: Program, world: World) -> None:
    with RyukProcess(program).started() as ryuk, ryuk.client("a", "b"):
        for session in "ab":
            world.create(f"{session}-1", labels=of(session))
        ryuk.process.kill()
        assert ryuk.ended() == -9
    with RyukProcess(program, RYUK_CONNECTION_TIMEOUT="100ms").started() as ryuk:
        with ryuk.client("a"):
            time.sleep(1.0)  # longer than both timeouts: that nothing happens cannot be waited for
            assert containers(world) == {"a-1", "b-1"}
        until(lambda: containers(world) == {"b-1"}, "end of a")
        time.sleep(1.0)
        assert ryuk.process.poll() is None, "b has a minute to come back"
        ryuk.terminate()
        assert ryuk.ended() == 0
    assert containers(world) == {"b-1"}, "which the next process on this state directory waits for"


def test_the_port_is_as_it_is_reported(program: Program) -> None:
    port = free_port()
    with RyukProcess(program, RYUK_PORT=str(port), RYUK_VERBOSE="true").started() as ryuk:
        assert ryuk.port == port
        with ryuk.client():
            pass
        assert ryuk.ended() == 0
    assert ryuk.events("ryuk_client_connected"), "at the level debug"
