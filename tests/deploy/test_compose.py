"""The Compose stack: its files hold what their tools say, and all of it that can be had here runs together."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from devkit import images
from devkit.engine import EngineError, PrivateEngine
from reaper import __version__
from reaper.config.load import load
from tests import needs
from tests.deploy.lab import alertmanager_image, docker, fetched, haproxy_image, json_from, prometheus_image
from tests.engine.lab import OWNED, containers, exited, member_of, until

STACK = images.ROOT / "deploy/compose"
FILE = STACK / "docker-compose.yml"
PROJECT = "reaper"
HERE = ("reaper", "socket-proxy", "prometheus", "alertmanager")  # Grafana is in no registry that is reached here
SERVICES = (*HERE, "grafana")
WITHIN = 60.0  # seconds; Prometheus looks every 15


def compose(host: str, settings: Path, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
    """Run docker-compose on the file that an operator runs it on, with an .env of one's own."""
    command = [
        needs.tool("docker-compose", "docker-compose"),
        "--ansi",
        "never",
        "--env-file",
        str(settings),
        "-f",
        str(FILE),
    ]
    clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(settings.parent), "LC_ALL": "C.UTF-8", "DOCKER_HOST": host}
    done = subprocess.run(
        [*command, *arguments],
        env={**clean, **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise EngineError(f"docker-compose {' '.join(arguments)}: {done.stdout}\n{done.stderr}")
    return done.stdout


def settings_file(folder: Path, **changes: str) -> Path:
    """The example of .env as an operator completes it."""
    text = (STACK / ".env.example").read_text()
    for name, value in changes.items():
        text, found = re.subn(rf"^#?{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert found == 1, f"{name} does not stand in .env.example"
    file = folder / "settings.env"
    file.write_text(text)
    return file


# The files


def test_compose_takes_the_file_with_what_the_example_says_and_one_password(tmp_path: Path) -> None:
    shown = compose("unix:///nowhere", settings_file(tmp_path, GRAFANA_ADMIN_PASSWORD="x"), "config")
    images_named = re.findall(r"^    image: (.*)$", shown, re.MULTILINE)
    assert len(images_named) == len(SERVICES)
    for name in images_named:
        assert re.fullmatch(r"[a-z/]+:v?\d[\w.-]*", name), "without a registry, and with a version"
    assert f"reaper:{__version__}" in images_named
    assert f"VERSION: {__version__}" in shown


def test_compose_asks_for_the_password_that_is_not_set(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"set GRAFANA_ADMIN_PASSWORD in \.env"):
        compose("unix:///nowhere", settings_file(tmp_path), "config")


def test_the_example_names_every_variable_of_the_file_with_its_default() -> None:
    used = dict(re.findall(r"\$\{(\w+):[-?]([^}]*)\}", FILE.read_text()))
    told = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", (STACK / ".env.example").read_text(), re.MULTILINE))
    assert used.keys() == told.keys() - {"COMPOSE_PROJECT_NAME"}
    shown = {name: value for name, value in told.items() if value and name in used and name != "DAYTONA_API_KEY_FILE"}
    assert shown == {name: used[name] for name in shown}


def test_reapers_configuration_is_right() -> None:
    found = load(str(STACK / "reaper/reaper.toml"), {}).settings
    assert found.service.address == ("0.0.0.0", 9797)
    assert [provider.address(table) for provider, table in found.endpoints()] == ["tcp://socket-proxy:2375"]
    grace = re.search(r"stop_grace_period: (\d+)s", FILE.read_text())
    assert grace is not None
    assert int(grace[1]) > found.service.drain_timeout.total_seconds()


def test_haproxy_takes_its_file() -> None:
    images.run(needs.tool("haproxy", "haproxy"), "-c", "-f", str(STACK / "haproxy.cfg"))


def test_alertmanager_takes_its_file() -> None:
    amtool = needs.tool("amtool", "prometheus-alertmanager")
    shown = images.run(amtool, "check-config", str(STACK / "alertmanager/alertmanager.yml"))
    assert "SUCCESS" in shown
    route = images.run(
        amtool, "config", "routes", "test", f"--config.file={STACK / 'alertmanager/alertmanager.yml'}", "severity=critical"
    )
    assert route.splitlines()[-1] == "none"


def test_prometheus_takes_its_file(tmp_path: Path) -> None:
    """With the rules where they lie here."""
    rules = images.ROOT / "deploy/prometheus/alerts.yml"
    file = tmp_path / "prometheus.yml"
    text = (STACK / "prometheus/prometheus.yml").read_text()
    assert "/etc/prometheus-rules/alerts.yml" in text
    file.write_text(text.replace("/etc/prometheus-rules/alerts.yml", str(rules)))
    assert "SUCCESS: 1 rule files found" in images.run(needs.tool("promtool", "prometheus"), "check", "config", str(file))


# All of it, running


@pytest.fixture(scope="module")
def stack(deploy_engine: PrivateEngine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """The stack after `docker-compose up`, reaper being healthy; without Grafana, which is made and not started."""
    engine = deploy_engine
    settings = settings_file(
        tmp_path_factory.mktemp("stack"),
        GRAFANA_ADMIN_PASSWORD="x",
        DOCKER_SOCKET=engine.socket,
        REAPER_IMAGE=image,
        HAPROXY_IMAGE=haproxy_image(engine),
        PROMETHEUS_IMAGE=prometheus_image(engine),
        ALERTMANAGER_IMAGE=alertmanager_image(engine),
        GRAFANA_IMAGE=haproxy_image(engine),
    )
    compose(engine.host, settings, "up", "--no-build", "--no-start")
    compose(engine.host, settings, "up", "--no-build", "-d", *HERE)
    try:
        until(lambda: engine.inspect(name("reaper"))["State"]["Health"]["Status"] == "healthy", "health", WITHIN)
        yield engine
    finally:
        compose(engine.host, settings, "down", "--volumes", "--timeout", "30")
        engine.clear()


def name(service: str) -> str:
    """The name of a service's container."""
    return f"{PROJECT}_{service}_1"


# The last one of these stops it; each of the others leaves it as it was.


@pytest.mark.engine
def test_only_the_proxy_has_the_socket_and_no_container_has_more_than_it_needs(stack: PrivateEngine) -> None:
    for service in SERVICES:
        found = stack.inspect(name(service))
        host = found["HostConfig"]
        assert host["CapDrop"] == ["ALL"]
        assert host["CapAdd"] is None
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert not host["Privileged"]
        assert host["ReadonlyRootfs"] is (service != "grafana")
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        sockets = [mount for mount in found["Mounts"] if mount["Destination"] == "/var/run/docker.sock"]
        assert len(sockets) == (service == "socket-proxy")
        for mount in found["Mounts"]:
            assert mount in sockets or mount["Type"] == "volume" or not mount["RW"]
        ports = [binding for bindings in (host["PortBindings"] or {}).values() for binding in bindings]
        assert {binding["HostIp"] for binding in ports} == (set() if service == "socket-proxy" else {"127.0.0.1"})
        networks = {network.removeprefix(f"{PROJECT}_") for network in found["NetworkSettings"]["Networks"]}
        assert networks == {"reaper": {"engine", "monitoring"}, "socket-proxy": {"engine"}}.get(service, {"monitoring"})
    assert stack.inspect(name("reaper"))["Config"]["User"] == "65532:65532"
    assert stack.inspect(name("reaper"))["Config"]["StopTimeout"] == 30
    assert stack.api.must("GET", f"/networks/{PROJECT}_engine")["Internal"]


@pytest.mark.engine
def test_what_is_left_behind_goes_and_the_stack_itself_stays_whatever_labels_it_has(stack: PrivateEngine) -> None:
    ended = {**OWNED, "reaper.ttl": "1ms"}
    exited(stack, "leftover", ended)
    exited(stack, "own", {**ended, **member_of(PROJECT)})
    docker(stack, "kill", "--signal", "USR1", name("reaper"))
    until(lambda: "leftover" not in containers(stack), "end of the leftover")
    assert {"own", *map(name, SERVICES)} <= containers(stack)
    (endpoint,) = json.loads(docker(stack, "exec", name("reaper"), "reaper", "list", "--json"))["endpoints"]
    rows = {row["name"]: row for row in endpoint["resources"]}
    assert "own Compose project" in json.dumps(rows["own"])


@pytest.mark.engine
def test_prometheus_scrapes_reaper_knows_the_alerts_and_has_found_alertmanager(stack: PrivateEngine) -> None:
    def asked(path: str) -> Any:
        answer = json_from(stack, name("reaper"), f"http://prometheus:9090/api/v1/{path}")
        return answer and answer["data"]

    def up() -> set[tuple[str, str]]:
        found = asked("query?query=up")
        return {(row["metric"]["job"], row["value"][1]) for row in found["result"]} if found else set()

    until(lambda: up() == {("reaper", "1"), ("prometheus", "1"), ("alertmanager", "1")}, "three targets that are up", WITHIN)
    until(lambda: bool(asked("query?query=reaper_endpoint_up==1")["result"]), "an endpoint that is up", WITHIN)
    rules = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 0
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}  # until they have been evaluated
    until(lambda: len(asked("alertmanagers")["activeAlertmanagers"]) == 1, "an Alertmanager", WITHIN)
    status = json_from(stack, name("reaper"), "http://alertmanager:9093/api/v2/status")
    assert "receiver: none" in status["config"]["original"]


@pytest.mark.engine
def test_the_proxy_refuses_what_reaper_does_not_ask_and_has_refused_nothing_that_it_asked(stack: PrivateEngine) -> None:
    assert " 403 " not in docker(stack, "logs", name("socket-proxy"))
    told = fetched(stack, name("reaper"), "http://socket-proxy:2375/swarm")
    assert "none of the calls that reaper makes" in told
    # And from the network of the others there is no way to it.
    proxy = stack.inspect(name("socket-proxy"))["NetworkSettings"]["Networks"][f"{PROJECT}_engine"]["IPAddress"]
    script = (
        "import socket; socket.create_connection(('reaper', 9797), 9).close(); print('there', flush=True);"
        f" socket.create_connection(('{proxy}', 2375), 2)"
    )
    options = ("--rm", "--network", f"{PROJECT}_monitoring", "--entrypoint", "python3")
    with pytest.raises(EngineError, match=r"there\n(.*\n)+(TimeoutError|OSError)"):
        docker(stack, "run", *options, images.REAPER, "-c", script)


@pytest.mark.engine
def test_it_stops_in_order(stack: PrivateEngine, tmp_path: Path) -> None:
    compose(stack.host, settings_file(tmp_path, GRAFANA_ADMIN_PASSWORD="x"), "stop")
    ended = {service: stack.inspect(name(service))["State"]["ExitCode"] for service in HERE}
    assert ended == dict.fromkeys(HERE, 0)
