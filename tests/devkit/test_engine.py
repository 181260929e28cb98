"""The private engine, on the real dockerd: what the other tests rely on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devkit import compose
from devkit.engine import IGNORES_TERM, OBEYS_TERM, Age, EngineError, PrivateEngine
from devkit.faults import Fault, FaultProxy

REASON = PrivateEngine.available()
pytestmark = [pytest.mark.engine, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

DAY = timedelta(days=1)
DEADLINE = 20.0


@pytest.fixture(scope="module")
def shared() -> Iterator[PrivateEngine]:
    with PrivateEngine() as engine:
        yield engine


@pytest.fixture
def engine(shared: PrivateEngine) -> Iterator[PrivateEngine]:
    yield shared
    shared.clear()
    assert (shared.ids(), shared.networks(), shared.volumes()) == ([], [], [])


def age(text: str) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(text[:26] + "+00:00")


def leftovers(engine: PrivateEngine) -> list[str]:
    """Whatever still bears the engine's name: processes, mounts, control groups, directories."""
    name = engine.directory.name
    found = [str(path) for path in Path("/tmp").glob(f"{name}*")]
    # Not glob(): other engines' groups go while it looks, which os.walk does not mind.
    found += [f"{folder}/{name}" for folder, folders, _ in os.walk("/sys/fs/cgroup") if name in folders]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if name in line]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if name in command:
            found.append(command)
    return found


def host_network() -> str:
    """Interfaces and rules of this machine."""
    commands = (["ip", "-o", "link"], ["iptables-save", "-t", "nat"], ["iptables-save", "-t", "filter"])
    lines = "".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands)
    return "\n".join(line for line in lines.splitlines() if not line.startswith(("#", ":")))


def test_two_side_by_side_leave_nothing_behind() -> None:
    before = host_network()
    with PrivateEngine() as one, PrivateEngine() as two:
        assert one.host != two.host
        for engine in (one, two):
            sleeper = engine.create("sleeper", start=True)
            paused = engine.create("paused", start=True)
            engine.pause_container(paused)
            engine.create_network("net")
            address = engine.inspect(sleeper)["NetworkSettings"]["IPAddress"]
            assert address == "172.17.0.2", "each has the default bridge to itself"
        assert host_network() == before
        assert leftovers(one), "the check below must be able to find something"
    assert leftovers(one) == []
    assert leftovers(two) == []
    assert host_network() == before


def test_nothing_is_left_when_the_tests_are_killed() -> None:
    code = "from devkit.engine import *; e = PrivateEngine().start(); e.create(start=True); print(e.directory); input()"
    with subprocess.Popen([sys.executable, "-uc", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        engine = PrivateEngine()
        engine.directory = Path(child.stdout.readline().strip())
        assert leftovers(engine)
        child.send_signal(signal.SIGKILL)
        child.wait()
    give_up = time.monotonic() + DEADLINE
    while leftovers(engine) and time.monotonic() < give_up:
        time.sleep(0.02)
    assert leftovers(engine) == []


def test_start_that_fails_tells_why() -> None:
    engine = PrivateEngine()
    with pytest.raises(EngineError, match="nonsense"):
        engine.start(flags=["--storage-driver=nonsense"])
    assert leftovers(engine) == []


def test_available_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PrivateEngine.available() is None
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "dockerd" else f"/bin/{name}")
    assert "dockerd" in str(PrivateEngine.available())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in str(PrivateEngine.available())


def test_data_elsewhere_and_no_bridge(tmp_path: Path) -> None:
    with PrivateEngine().start(tmp_path, bridge=False) as engine:
        ident = engine.create(start=True)
        assert engine.state(ident) == "running"
        assert engine.networks(builtin=True) == ["host", "none"]
        assert list(tmp_path.iterdir()) == [engine.data]
    assert list(tmp_path.iterdir()) == []


def test_create_takes_its_options(engine: PrivateEngine) -> None:
    engine.create_volume("named")
    engine.create_network("net", {"a": "b"})
    ident = engine.create(
        "full",
        cmd=("sh", "-c", "echo x; sleep infinity"),
        labels={"k": "v"},
        start=True,
        restart="unless-stopped",
        stop_signal="SIGINT",
        stop_timeout=3,
        binds=["named:/named"],
        volumes=["/anonymous"],
        network="net",
        env=["A=b"],
        tty=True,
    )
    seen = engine.inspect(ident)
    assert seen["Name"] == "/full"
    assert seen["Config"]["Labels"] == {"k": "v"}
    assert (seen["Config"]["StopSignal"], seen["Config"]["StopTimeout"], seen["Config"]["Tty"]) == ("SIGINT", 3, True)
    assert seen["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert seen["HostConfig"]["NetworkMode"] == "net"
    assert sorted(mount["Destination"] for mount in seen["Mounts"]) == ["/anonymous", "/named"]
    assert engine.networks() == ["net"]
    assert len(engine.volumes()) == 2
    assert engine.ids(all=False) == [ident]
    engine.remove(ident, force=True)
    assert engine.volumes() == ["named"]
    assert engine.state(ident) == "gone"
    with pytest.raises(EngineError, match="No such container"):
        engine.start_container(ident)


def test_no_endpoint_in_any_network(engine: PrivateEngine) -> None:
    """What keeps hundreds that end at once out of a deadlock of the engine's: it has no network to take them out of."""
    endpoint = engine.inspect(engine.create(start=True, network="none"))["NetworkSettings"]
    assert (list(endpoint["Networks"]), endpoint["SandboxID"] != "") == (["none"], True)
    ident = engine.create(start=True, networked=False)
    assert engine.state(ident) == "running"
    nothing = engine.inspect(ident)["NetworkSettings"]
    assert [net["EndpointID"] for net in nothing["Networks"].values()] + [nothing["SandboxID"]] == [""]


def test_stopping(engine: PrivateEngine) -> None:
    obeys = engine.create(cmd=OBEYS_TERM, start=True)
    begin = time.monotonic()
    engine.stop_container(obeys, timeout=10)
    assert time.monotonic() - begin < 5
    assert engine.inspect(obeys)["State"]["ExitCode"] == 0
    ignores = engine.create(cmd=IGNORES_TERM, start=True)
    begin = time.monotonic()
    engine.stop_container(ignores, timeout=1)
    assert time.monotonic() - begin > 0.9
    assert engine.inspect(ignores)["State"]["ExitCode"] == 137
    engine.start_container(ignores)
    engine.pause_container(ignores)
    assert engine.state(ignores) == "paused"
    engine.unpause_container(ignores)
    engine.kill_container(ignores)
    assert engine.state(ignores) == "exited"


def test_image_names(engine: PrivateEngine) -> None:
    client = engine.create(image=engine.tag("bench:1", "tb__chess__client:latest"))
    assert engine.listed(client)["Image"] == "tb__chess__client:latest"
    engine.rebuild_tag("tb__chess__client:latest")
    assert engine.listed(client)["Image"].startswith("sha256:")
    assert engine.inspect(client)["Config"]["Image"] == "tb__chess__client:latest"


def test_dies_and_comes_back(engine: PrivateEngine) -> None:
    ident = engine.create("survivor", cmd=OBEYS_TERM, start=True)
    engine.kill()
    with pytest.raises(OSError, match="refused"):
        engine.api.get("/_ping")
    engine.restart()
    assert engine.state(ident) == "exited"
    engine.start_container(ident)
    engine.kill(containers=True)
    engine.restart()
    assert engine.state(ident) == "exited"
    engine.start_container(ident)
    engine.terminate()
    with pytest.raises(OSError, match=r"refused|No such file"):
        engine.api.get("/_ping")
    engine.restart()
    assert engine.state(ident) == "exited"


def test_old_containers(engine: PrivateEngine) -> None:
    running = engine.create("running", start=True)
    paused = engine.create("paused", start=True)
    engine.pause_container(paused)
    never = engine.create("never")
    stopped = engine.create("stopped", cmd=("true",), start=True)
    untouched = engine.create("untouched", start=True)
    engine.wait_state(stopped, "exited")
    engine.backdate(
        {
            running: Age(created=9 * DAY, started=8 * DAY),
            paused: Age(created=9 * DAY, started=8 * DAY),
            never: Age(created=9 * DAY),
            stopped: Age(created=9 * DAY, started=8 * DAY, finished=7 * DAY),
        }
    )
    states = {running: "running", paused: "paused", never: "created", stopped: "exited", untouched: "running"}
    assert {ident: engine.state(ident) for ident in states} == states
    for ident in (running, paused, never, stopped):
        assert age(engine.inspect(ident)["Created"]) // DAY == 9
        assert (time.time() - engine.listed(ident)["Created"]) // 86400 == 9
    assert age(engine.inspect(running)["State"]["StartedAt"]) // DAY == 8
    assert age(engine.inspect(stopped)["State"]["FinishedAt"]) // DAY == 7
    assert age(engine.inspect(untouched)["State"]["StartedAt"]) < DAY
    assert engine.listed(running)["Status"] == "Up 8 days"
    assert engine.listed(paused)["Status"] == "Up 8 days (Paused)"
    assert engine.listed(stopped)["Status"] == "Exited (0) 7 days ago"
    engine.stop_container(running, timeout=0)  # it is still under the engine's control
    assert engine.state(running) == "exited"
    engine.start_container(stopped)
    assert engine.api.get("/info").body["LiveRestoreEnabled"] is False


def test_old_networks(engine: PrivateEngine) -> None:
    old, _new = engine.create_network("old"), engine.create_network("new")
    member = engine.create(network="old", start=True)
    engine.backdate({}, networks={old: 9 * DAY})
    assert age(engine.api.get("/networks/old").body["Created"]) // DAY == 9
    assert age(engine.api.get("/networks/new").body["Created"]) // DAY == 0
    assert engine.state(member) == "running"
    engine.remove(member, force=True)
    prune = engine.api.must("POST", "/networks/prune?filters=%7B%22until%22%3A%5B%2224h%22%5D%7D")
    assert prune["NetworksDeleted"] == ["old"]


def test_fabricated_containers_can_be_removed(engine: PrivateEngine) -> None:
    ids = engine.fabricate_exited(6, 49 * DAY, {"made": "up"}, prefix="fab")
    assert {engine.listed(ident)["Status"] for ident in ids} == {"Exited (0) 7 weeks ago"}
    assert {engine.state(ident) for ident in ids} == {"exited"}
    assert engine.inspect(ids[3])["Name"] == "/fab-3"
    engine.remove(ids[0])
    docker = ["docker", "--host", engine.host]
    subprocess.run([*docker, "rm", ids[1]], check=True, capture_output=True)
    engine.start_container(ids[2])
    subprocess.run([*docker, "container", "prune", "-f", "--filter", "until=24h"], check=True, capture_output=True)
    assert engine.ids() == [ids[2]]


def test_removing(engine: PrivateEngine) -> None:
    ident = engine.create()
    with engine.removing(ident):
        assert (engine.state(ident), engine.listed(ident)["State"]) == ("removing", "removing")
        status, body = engine.api.delete(f"/containers/{ident}")
        assert (status, "already in progress" in body["message"]) == (409, True)
    assert engine.state(ident) == "gone"


def test_removal_that_fails(engine: PrivateEngine) -> None:
    ident = engine.create()
    engine.fail_removal(ident)
    assert engine.state(ident) == "dead"
    assert engine.listed(ident)["State"] == "removing", "engine 20.10 does not update its listing"
    engine.remove(ident)
    assert engine.state(ident) == "gone"


def test_dead(engine: PrivateEngine) -> None:
    ident = engine.create()
    engine.make_dead(ident)
    assert (engine.state(ident), engine.listed(ident)["State"]) == ("dead", "dead")
    engine.remove(ident)
    assert engine.state(ident) == "gone"


def test_restarting(engine: PrivateEngine) -> None:
    ident = engine.make_restarting("again", labels={"a": "b"})
    assert engine.listed(ident)["State"] == "restarting"
    assert engine.api.delete(f"/containers/{ident}").status == 409


def test_wait_state_has_a_deadline(engine: PrivateEngine) -> None:
    with pytest.raises(EngineError, match=r"waited 0\.05 s"):
        engine.wait_state(engine.create(), "running", deadline=0.05)


def test_docker_cli_through_the_fault_proxy(engine: PrivateEngine) -> None:
    ident = engine.create(start=True)
    with FaultProxy(engine.socket) as proxy:
        docker = ["docker", "--host", proxy.host]
        execute = [*docker, "exec", "--interactive", ident, "sh", "-c", "cat; echo end"]
        done = subprocess.run(execute, input="begin\n", check=True, capture_output=True, text=True, timeout=DEADLINE)
        assert done.stdout == "begin\nend\n"
        proxy.add(Fault("status", "DELETE", "/containers/", status=500, body={"message": "device is busy"}, times=1))
        failed = subprocess.run([*docker, "rm", "-f", ident], check=False, capture_output=True, text=True)
        assert "device is busy" in failed.stderr
        subprocess.run([*docker, "rm", "-f", ident], check=True, capture_output=True)
        assert [call.status for call in proxy.calls("DELETE")] == [500, 204]


@pytest.mark.skipif(compose.available() is not None, reason=str(compose.available()))
def test_compose(engine: PrivateEngine, tmp_path: Path) -> None:
    engine.import_image()
    service = {"image": "bench:1", "command": ["sleep", "infinity"]}
    project = {"version": "3", "services": {"main": service}}
    engine.compose_all({"trial-1": project, "trial-2": project}, directory=tmp_path, file=compose.HARBOR_FILE)
    labels = [engine.inspect(ident)["Config"]["Labels"] for ident in engine.ids()]
    assert {label["com.docker.compose.project"] for label in labels} == {"trial-1", "trial-2"}
    assert all(label["com.docker.compose.project.config_files"].endswith("/" + compose.HARBOR_FILE) for label in labels)
    assert engine.networks() == ["trial-1_default", "trial-2_default"]
    text = "version: '3'\nservices: {main: {image: 'bench:1', command: [sleep, infinity]}}\n"
    for name in ("trial-1", "trial-2"):
        engine.compose(name, text, "down", "--timeout", "0", directory=tmp_path / name, file=compose.HARBOR_FILE)
    assert (engine.ids(), engine.networks()) == ([], [])
    with pytest.raises(EngineError, match="no-such-image"):
        engine.compose("bad", {"version": "3", "services": {"main": {"image": "no-such-image"}}}, "up", "-d", "--no-build")
