"""What the tests of images and stacks have in common: the docker command, and the programs that stand beside reaper."""

import json
from typing import Any

from devkit import images
from devkit.api import EngineError
from devkit.client import EngineClient
from tests import needs

HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")

NOBODY = 65534

TEMPLATES = tuple(f"/usr/share/prometheus/alertmanager/{name}.tmpl" for name in ("default", "email"))
"""What Debian's Alertmanager reads, and the published one has within."""

GET = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=10)
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.write(answer.read().decode())
"""


def docker(engine: EngineClient, *arguments: str) -> str:
    """What the docker command prints, without white space around it. Raises EngineError where it fails."""
    return images.run("docker", "--host", engine.host, *arguments).strip()


def fetched(engine: EngineClient, container: str, url: str) -> str:
    """What a URL answers that is asked from within a container of reaper's image."""
    return docker(engine, "exec", container, "python3", "-c", GET, url)


def json_from(engine: EngineClient, container: str, url: str) -> Any:
    """The same, as JSON; None where no server answers yet."""
    try:
        return json.loads(fetched(engine, container, url))
    except (EngineError, ValueError):
        return None


def logged(engine: EngineClient, container: str, event: str) -> list[dict[str, Any]]:
    """The lines that a reaper in a container has logged of an event."""
    lines = (json.loads(line) for line in docker(engine, "logs", container).splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def haproxy_image(engine: EngineClient) -> str:
    """Debian's HAProxy as an image."""
    programs = {"/usr/local/sbin/haproxy": needs.tool("haproxy", "haproxy")}
    return images.host_image(engine, "haproxy:local", programs, {}, config={"Cmd": ["haproxy"]})


def prometheus_image(engine: EngineClient) -> str:
    """Debian's Prometheus as an image like the published one."""
    programs = {"/bin/prometheus": needs.tool("prometheus", "prometheus")}
    config = {"Entrypoint": ["/bin/prometheus"], "User": str(NOBODY)}
    return images.host_image(engine, "prometheus:local", programs, {"/prometheus": NOBODY}, config=config)


def alertmanager_image(engine: EngineClient) -> str:
    """Debian's Alertmanager as an image like the published one."""
    programs = {"/bin/alertmanager": needs.tool("prometheus-alertmanager", "prometheus-alertmanager")}
    config = {"Entrypoint": ["/bin/alertmanager"], "User": str(NOBODY)}
    return images.host_image(
        engine, "alertmanager:local", programs, {"/alertmanager": NOBODY}, config=config, files=TEMPLATES
    )
