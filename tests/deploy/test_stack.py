"""The files of the Swarm stack, each asked of its own tool and of the program; `test_swarm` starts it."""

import re
import signal
import subprocess
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from devkit.api import Api
from devkit.generate import proxy
from devkit.generate import swarm as generate
from reaper import __version__
from reaper.config import load
from reaper.core.durations import parse
from reaper.providers.docker.settings import DockerTable
from tests import needs
from tests.deploy import manifests
from tests.deploy.manifests import DEPLOY, ROOT
from tests.engine.lab import until
from tests.run import Program

SWARM = DEPLOY / "swarm"
NODE = "gpu-1.rack-2"


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    (found,) = manifests.load((SWARM / "stack.yml").read_text())
    assert isinstance(found, dict)
    return found


def environment(stack: dict[str, Any]) -> dict[str, str]:
    """What the reaper of a node gets, as Swarm fills it in."""
    found: dict[str, str] = stack["services"]["reaper"]["environment"]
    return {name: value.replace("{{.Node.Hostname}}", NODE) for name, value in found.items()}


def test_the_program_accepts_the_configuration_and_calls_the_endpoint_after_its_node(
    stack: dict[str, Any], tmp_path: Path
) -> None:
    env = environment(stack)
    assert NODE in env.values()
    checked = Program(tmp_path, env)("config", "check", "--config", str(SWARM / "reaper.toml"))
    assert checked.code == 0, checked.err
    ((_, engine),) = load.load(str(SWARM / "reaper.toml"), env).settings.endpoints()
    assert isinstance(engine, DockerTable)
    assert engine.name == NODE
    folder = next(v["target"] for v in stack["services"]["reaper"]["volumes"] if v["source"] == "socket")
    assert engine.host == f"unix://{generate.SOCKET}"
    assert generate.SOCKET.startswith(f"{folder}/")


def test_it_drains_before_it_is_killed_and_the_proxy_outlives_it(stack: dict[str, Any]) -> None:
    service = load.load(str(SWARM / "reaper.toml"), {}).settings.service
    assert service.address == ("0.0.0.0", 9797)
    grace = {name: parse(found["stop_grace_period"]) for name, found in stack["services"].items()}
    margin = timedelta(seconds=5)
    assert grace["reaper"] >= service.drain_timeout + margin
    assert grace["reaper"] <= generate.GRACE
    assert grace["proxy"] >= generate.GRACE + timedelta(seconds=proxy.HARD_STOP) + margin


def test_both_are_confined_and_the_proxy_alone_has_the_engines_socket(stack: dict[str, Any]) -> None:
    for name, service in stack["services"].items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "ports" not in service
        bound = [volume["target"] for volume in service["volumes"] if volume["type"] == "bind"]
        assert bound == (["/var/run/docker.sock"] if name == "proxy" else [])
    assert all(network["internal"] is True for network in stack["networks"].values())


def test_it_runs_the_image_as_it_was_made(stack: dict[str, Any]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = re.search(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    assert user is not None
    reaper, proxy = stack["services"]["reaper"], stack["services"]["proxy"]
    assert "user" not in reaper
    assert "command" not in reaper
    assert proxy["user"] == f"0:{user[2]}", "the proxy's socket is for its group"
    assert "VOLUME /var/lib/reaper\n" in dockerfile
    assert "/var/lib/reaper" in {volume["target"] for volume in reaper["volumes"]}
    assert reaper["image"] == f"${{REAPER_IMAGE:-reaper:{__version__}}}"
    assert not reaper["healthcheck"].get("test"), "the image's own"
    compose = (DEPLOY / "compose/docker-compose.yml").read_text()
    assert proxy["image"] in compose, "one proxy for both"


def test_the_proxy_goes_on_while_reaper_ends_and_then_ends_too(tmp_path: Path) -> None:
    """With a shorter grace than in the stack."""
    path, file = tmp_path / "docker.sock", tmp_path / "haproxy.cfg"
    file.write_text(proxy.config(bind=f"unix@{path} mode 660", settings=["grace 2s"]))
    command = [needs.tool("haproxy", "haproxy"), "-db", "-f", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(path.exists, "the proxy's socket")
            assert path.stat().st_mode & 0o777 == 0o660
            process.send_signal(signal.SIGUSR1)
            told = last = time.monotonic()
            with suppress(OSError):
                while Api(str(path)).get("/swarm").status == 403:
                    last = time.monotonic()
            assert 1.5 < last - told < 10
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_prometheus_accepts_its_configuration_and_the_rules_fire_when_they_should() -> None:
    promtool = needs.tool("promtool", "prometheus")
    for arguments in (
        ("check", "config", "--lint=all", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
    ):
        done = subprocess.run([promtool, *arguments], cwd=SWARM, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
