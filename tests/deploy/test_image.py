"""The image: what is in it, and that it sweeps, tells how it is and ends as it should, with nothing but what it needs."""

import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from devkit import images
from devkit.client import DEFAULT_IMAGE, IGNORES_TERM, OBEYS_TERM
from devkit.engine import PrivateEngine
from reaper import __version__, lease
from reaper.config.service_tables import ServiceTable
from reaper.paths import SOCKET
from tests.deploy.lab import HARDENED, NOBODY, docker, haproxy_image, logged
from tests.engine.lab import OWNED, containers, events, exited, until
from tests.leases.others import ask

pytestmark = pytest.mark.engine

PROXY_CONFIG = images.ROOT / "deploy/compose/haproxy.cfg"
PYTHON = ("--rm", "--network", "none", "--entrypoint", "python3")

CONFIG = """
[service]
jitter = "0s"
sweep_at_start = false

[[docker]]
name = "local"
host = "tcp://proxy:2375"

[[policy]]
name = "stopped"
kinds = ["container"]
stopped_for = "1s"
every = "1h"

[[policy]]
name = "running"
kinds = ["container"]
states = ["running"]
older_than = "1s"
stop_timeout = "4s"
every = "1h"
"""

LOOK = """
import json, os, sys
from importlib.metadata import distributions
from pathlib import Path
own = list(Path("/opt/reaper").rglob("*"))
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "prefix": sys.prefix,
    "files": [str(p) for p in own if p.is_file()],
    "writable": [str(p) for p in own if os.access(p, os.W_OK) and not p.is_symlink()],
    "versions": {d.name: d.version for d in distributions(path=[p for p in sys.path if p.startswith("/opt/reaper")])},
    "builder": [p for p in ("/src", "/root-of-image", "/root/.cache") if os.path.exists(p)],
    "tops": os.listdir("/"),
}))
"""


@pytest.fixture
def proxied(clean: PrivateEngine, image: str, tmp_path: Path) -> Iterator[PrivateEngine]:
    """The engine, with the socket proxy of the stack in a container of it, on a network that leads nowhere else."""
    docker(clean, "network", "create", "--internal", "engine")
    socket = f"{clean.socket}:/var/run/docker.sock"
    options = ("--network", "engine", "--network-alias", "proxy", "-v", socket, "-v", f"{PROXY_CONFIG}:/haproxy.cfg:ro")
    docker(
        clean,
        "run",
        "-d",
        "--name",
        "proxy",
        *HARDENED,
        *options,
        haproxy_image(clean),
        "haproxy",
        "-db",
        "-f",
        "/haproxy.cfg",
    )
    (tmp_path / "reaper.toml").write_text(CONFIG)
    tmp_path.chmod(0o755)  # the container's user is not this one
    yield clean
    assert " 403 " not in docker(clean, "logs", "proxy")


def options(folder: Path) -> tuple[str, ...]:
    """How reaper's container is run."""
    return (*HARDENED, "--network", "engine", "-v", f"{folder}:/etc/reaper:ro")


def test_what_the_image_says_of_itself(deploy_engine: PrivateEngine, image: str) -> None:
    config = deploy_engine.api.must("GET", f"/images/{image}/json")["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["reaper"]
    assert config["Cmd"] is None
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][0] == "CMD", "with CMD-SHELL it would need a shell"
    assert config["Volumes"].keys() == {"/var/lib/reaper"}
    prefix = "org.opencontainers.image."
    labels = {key.removeprefix(prefix): value for key, value in config["Labels"].items() if key.startswith(prefix)}
    assert labels.keys() == {"title", "description", "licenses", "version", "revision", "created"}
    project = tomllib.loads((images.ROOT / "pyproject.toml").read_text())["project"]
    assert "reaper" in project["scripts"], "the image is called as its command, whatever the distribution is called"
    assert (labels["title"], labels["licenses"]) == ("reaper", project["license"])
    assert labels["description"] == project["description"]
    assert (labels["version"], labels["revision"], labels["created"]) == ("0.0.0-test", "0123abc", "2026-11-21T00:00:00Z")


def test_what_is_in_it_and_what_is_not(deploy_engine: PrivateEngine, base: str, image: str) -> None:
    found = json.loads(docker(deploy_engine, "run", *PYTHON, *HARDENED, image, "-c", LOOK))
    assert (found["uid"], found["gid"], found["groups"]) == (65532, 65532, [65532])
    assert found["prefix"] == "/opt/reaper"
    assert found["writable"] == []
    assert found["builder"] == []
    pinned = dict(_pin(line) for line in (images.ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    versions = {name.lower(): version for name, version in found["versions"].items()}
    own = versions.pop("bench-reaper")
    assert "reaper" not in versions, "another project on the public index"
    assert own == __version__
    assert {name: pinned[name] for name in versions} == versions
    assert not {"pip", "setuptools", "wheel", "hatchling", "pytest", "daytona", "docker"} & versions.keys()
    script = f"{images.ROOT}/devkit/sbom.py:/sbom.py:ro"
    bill = json.loads(docker(deploy_engine, "run", *PYTHON, *HARDENED, "-v", script, image, "/sbom.py"))
    assert {each["name"]: each["version"] for each in bill["components"]} == {
        n.replace("_", "-"): v for n, v in versions.items()
    }
    files = {Path(file) for file in found["files"]}
    outer = [file for file in files if file.suffix in (".whl", ".toml") or "tests" in file.parts]
    assert [file.parts[-2:] for file in outer] == [("reaper", "reaper.example.toml")], "what `reaper config example` prints"
    package = {file for file in files if file.suffix == ".py" and "reaper" in file.parts[5:]}
    assert len(package) == len(list((images.ROOT / "reaper").rglob("*.py")))
    compiled = {file.parent.parent / f"{file.name.partition('.')[0]}.py" for file in files if file.suffix == ".pyc"}
    assert package <= compiled
    outside = docker(deploy_engine, "run", *PYTHON, base, "-c", "import json, os; print(json.dumps(os.listdir('/')))")
    assert set(found["tops"]) == set(json.loads(outside))


def _pin(line: str) -> tuple[str, str]:
    name, _, version = line.partition("==")
    return name.lower(), version


def test_the_builder_is_given_what_the_image_is_made_of_and_nothing_else(
    deploy_engine: PrivateEngine, tmp_path: Path
) -> None:
    for name in (".git", ".env", "tests", "deploy/compose", "reaper/__pycache__", "reaper/providers/__pycache__", "wheels"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    for name in (
        "LICENSE",
        "README.md",
        "constraints.txt",
        "docs/reaper.1",
        "docs/cli.md",
        "pyproject.toml",
        "reaper.toml",
        "reaper/cli/__init__.py",
        "reaper.example.toml",
        "secret",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shutil.copy(images.ROOT / ".dockerignore", tmp_path)
    (tmp_path / "Dockerfile").write_text(f"FROM {DEFAULT_IMAGE}\nCOPY . /context\nCMD find /context -type f\n")
    images.build(deploy_engine, tmp_path, "context:test")
    found = docker(deploy_engine, "run", "--rm", "--network", "none", "context:test").split()
    kept = {
        "LICENSE",
        "README.md",
        "constraints.txt",
        "docs/reaper.1",
        "pyproject.toml",
        "reaper.example.toml",
        "reaper/cli/__init__.py",
        "wheels/file",
    }
    assert {file.removeprefix("/context/") for file in found} == kept
    assert set(images.CONTEXT) - {"Dockerfile", ".dockerignore", "reaper"} <= kept


def test_it_sweeps_once_through_the_proxy(proxied: PrivateEngine, image: str, tmp_path: Path) -> None:
    exited(proxied, "leftover")
    proxied.create("alive", cmd=OBEYS_TERM, labels=OWNED, start=True)
    exited(proxied, "foreign", {})
    swept = docker(
        proxied, "run", "--rm", *options(tmp_path), image, "--once", "--stopped", "--json", "--log-level", "error"
    )
    said, document = swept.splitlines()  # both of its streams; at this level the log names no file
    assert said == "reaper: the configuration is /etc/reaper/reaper.toml"
    (endpoint,) = json.loads(document)["endpoints"]
    assert {row["name"]: row["outcome"] for row in endpoint["resources"] if row["outcome"]} == {"leftover": "deleted"}
    assert containers(proxied) == {"alive", "foreign", "proxy"}


def test_the_service_tells_how_it_is_follows_the_events_and_ends_within_its_drain_time(
    proxied: PrivateEngine, image: str, tmp_path: Path
) -> None:
    """As the first process of its container, with a deletion under way when it is stopped."""
    quick = ("--health-interval", "1s", "--health-start-period", "0s")
    docker(proxied, "run", "-d", "--name", "reaper", *quick, *options(tmp_path), image)
    until(lambda: not proxied.inspect("reaper")["State"]["Running"] or health(proxied)["Status"] == "healthy", "health", 60)
    assert health(proxied)["Status"] == "healthy", docker(proxied, "logs", "reaper")
    assert json.loads(health(proxied)["Log"][-1]["Output"].removeprefix("200 "))["status"] == "ok"

    until(lambda: logged(proxied, "reaper", "event_stream_connected") != [], "events")
    exited(proxied, "dies")
    until(lambda: "dies" not in containers(proxied), "end of the dead")

    stubborn = proxied.create("stubborn", cmd=IGNORES_TERM, labels=OWNED, start=True)
    until(lambda: docker(proxied, "exec", stubborn, "date", "+%s") > str(started_at(proxied, stubborn) + 1), "two seconds")
    docker(proxied, "kill", "--signal", "USR1", "reaper")
    until(lambda: [e for e in events(proxied, "kill") if e["name"] == "stubborn"] != [], "the stop that is under way")
    assert "stubborn" in containers(proxied)
    docker(proxied, "stop", "--time", "30", "reaper")
    ended = proxied.inspect("reaper")["State"]
    assert (ended["ExitCode"], ended["OOMKilled"]) == (0, False)
    assert [e["signal"] for e in events(proxied, "kill") if e["name"] == "reaper"] == ["10", "15"]  # never 9
    assert "stubborn" not in containers(proxied)
    (deleted,) = [line for line in logged(proxied, "reaper", "deleted") if line["name"] == "stubborn"]
    (signalled,) = logged(proxied, "reaper", "signal")
    assert signalled["timestamp"] < deleted["timestamp"]
    (last,) = logged(proxied, "reaper", "service_ended")
    took = datetime.fromisoformat(last["timestamp"]) - datetime.fromisoformat(signalled["timestamp"])
    assert took < ServiceTable().drain_timeout


def test_its_socket_is_quietly_its_own_or_the_machines(clean: PrivateEngine, image: str) -> None:
    """With a read-only root; and the kernel tells the users' numbers across containers."""
    with tempfile.TemporaryDirectory(prefix="reaper-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.chown(folder, 65532, 65532)
        docker(clean, "run", "-d", "--name", "own", *HARDENED, image)
        mounted = ("-v", f"{folder}:/run/reaper", "-e", f"REAPER_LEASES__SOCKET=/run/reaper/{SOCKET}")
        docker(clean, "run", "-d", "--name", "machines", *HARDENED, *mounted, image)
        until(lambda: all(logged(clean, name, "service_started") for name in ("own", "machines")), "services")
        for reaper, path in (("own", f"/var/lib/reaper/{SOCKET}"), ("machines", f"/run/reaper/{SOCKET}")):
            assert [line["path"] for line in logged(clean, reaper, "local_socket")] == [path]
            assert not logged(clean, reaper, "local_socket_failed")
        with lease([{"names": ["roots-*"]}], url=f"unix://{folder / SOCKET}") as held:
            assert held.endpoints == ("unix:///var/run/docker.sock",)
            claims = {"claims": [{"names": ["a-*"]}]}
            refused, listed = ask(folder / SOCKET, NOBODY, ("POST", "/leases", claims), ("GET", "/leases"))
        assert refused[0] == 403
        (shown,) = listed[1]["leases"]
        assert (shown["id"], shown["holder"]["user"], shown["holder"]["pid"]) == (held.id, "root", None)
        docker(clean, "stop", "own", "machines")
        assert list(folder.iterdir()) == []


def health(engine: PrivateEngine) -> dict[str, Any]:
    """What the engine thinks of the service's health."""
    found: dict[str, Any] = engine.inspect("reaper")["State"]["Health"]
    return found


def started_at(engine: PrivateEngine, ident: str) -> int:
    """When a container was started, in seconds since 1970."""
    return int(datetime.fromisoformat(engine.inspect(ident)["State"]["StartedAt"][:19] + "+00:00").timestamp())
