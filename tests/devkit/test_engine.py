"""The private engine, on the real dockerd: what the other tests rely on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from devkit.engine import EngineError, PrivateEngine

REASON = PrivateEngine.available()
pytestmark = [pytest.mark.engine, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

DAY = timedelta(days=1)
DEADLINE = 60.0


@pytest.fixture(scope="module")
def shared() -> Iterator[PrivateEngine]:
    with PrivateEngine() as engine:
        yield engine


@pytest.fixture
def engine(shared: PrivateEngine) -> Iterator[PrivateEngine]:
    yield shared
    shared.clear()
    assert (shared.ids(), shared.networks(), shared.volumes()) == ([], [], [])


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
    with PrivateEngine().start(rules=True) as one, PrivateEngine().start(rules=True) as two:
        assert one.host != two.host
        for engine in (one, two):
            sleeper = engine.create("sleeper", start=True, networked=True)
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
