"""A machine with a real systemd: a container of a private engine, on which reaper is installed as the README says.

The engine that its reaper sweeps is the one that the container runs in.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from devkit import images
from devkit.client import static_busybox
from devkit.engine import PrivateEngine
from tests.deploy.test_systemd_units import UNITS

T = TypeVar("T")

LIMIT = 60.0  # seconds that anything may take
DOCKER_GROUP = 983
IMAGE = "reaper-systemd:local"
BUILT = f"""
FROM {{base}}
COPY --from={{image}} /opt/reaper /opt/reaper
COPY kill /bin/kill
COPY *.service *.timer /etc/systemd/system/
RUN groupadd --system --gid {DOCKER_GROUP} docker && useradd --groups docker bench \\
 && mkdir /etc/reaper \\
 && install --directory --owner bench /opt/benchmark
"""
"""Debian's procps has a kill, but no minimal system has procps."""


class Machine:
    """The container, as its administrator sees it."""

    def __init__(self, engine: PrivateEngine, ident: str) -> None:
        self.engine = engine
        self.ident = ident
        self._exec = ["docker", "--host", engine.host, "exec", "--interactive", ident]
        self._since = ""

    def attempt(self, *command: str, put: str = "") -> tuple[int, str]:
        """Run a command; its exit code and what it printed."""
        done = subprocess.run(
            [*self._exec, *command],
            input=put,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        return done.returncode, done.stdout

    def run(self, *command: str, put: str = "") -> str:
        """What a command prints, which must succeed."""
        code, printed = self.attempt(*command, put=put)
        assert code == 0, f"{command}: {code}\n{printed}\n{self.log()[-3000:]}"
        return printed

    def systemctl(self, *arguments: str) -> str:
        return self.run("systemctl", *arguments)

    def put(self, path: str, text: str, mode: str = "644", then: str = "true") -> None:
        """Write a file, and the folder above it, and run a shell command."""
        self.run("sh", "-ec", f'mkdir -p "$(dirname {path})"; cat >{path}; chmod {mode} {path}; {then}', put=text)

    def drop_in(self, unit: str, text: str, name: str = "test") -> None:
        """Change a unit, until the test ends."""
        self.put(f"/etc/systemd/system/{unit}.d/{name}.conf", text, then="systemctl daemon-reload")

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.shows(unit, name)[0]

    def shows(self, unit: str, *names: str) -> list[str]:
        """Some properties of a unit."""
        lines = self.systemctl("show", *(f"--property={name}" for name in names), unit).splitlines()
        found = {name: value for name, _, value in (line.partition("=") for line in lines)}
        return [found[name] for name in names]

    def reset(self, configuration: str) -> None:
        """As after the installation: nothing runs, nothing has failed, no drop-ins, no state, and containers but itself."""
        for ident in self.engine.ids():
            if ident != self.ident:
                self.engine.remove(ident, force=True)
        printed = self.run(
            "sh",
            "-ec",
            "systemctl stop 'reaper*' 'benchmark*' 'simulator*';"
            " rm -rf /etc/systemd/system/*.d /var/lib/private/reaper /var/lib/reaper /opt/benchmark/*;"
            " systemctl daemon-reload;"
            " systemctl reset-failed; cat >/etc/reaper/reaper.toml; journalctl --show-cursor --lines 0",
            put=configuration,
        )
        self._since = printed.partition("-- cursor: ")[2].strip()

    def log(self, *which: str) -> str:
        """What the journal has since the last reset, of ``which`` units: of reaper.service unless told otherwise."""
        units = [f"--unit={unit}" for unit in which or ("reaper.service",)]
        since = [f"--after-cursor={self._since}"] if self._since else []
        return self.attempt("journalctl", *units, *since, "--output=cat", "--no-pager")[1]

    def events(self, name: str, /, unit: str = "reaper.service", **fields: Any) -> list[dict[str, Any]]:
        """The program's log lines of an event that have these fields."""
        lines = [json.loads(line) for line in self.log(unit).splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name and fields.items() <= line.items()]

    def until(self, look: Callable[[], T], what: str, limit: float = LIMIT) -> T:
        """Look again and again until something is found, which is returned."""
        deadline = time.monotonic() + limit
        while not (found := look()):
            assert time.monotonic() < deadline, f"no {what}\n{self.log()[-3000:]}"
            time.sleep(0.05)
        return found

    def metric(self, name: str) -> float:
        """A metric without labels."""
        ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9797/metrics').read().decode())"
        for line in self.run("/opt/reaper/bin/python3", "-c", ask).splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise AssertionError(f"there is no {name}")


def build(engine: PrivateEngine, base: str, image: str, folder: Path) -> str:
    """The image of the machine; its name.

    Args:
        engine: where it is built, and where these images are:
        base: a system with systemd,
        image: reaper's.
        folder: an empty one to build it in.
    """
    busybox = static_busybox()
    assert busybox is not None  # a private engine needs it too
    shutil.copy(busybox, folder / "kill")
    for unit in UNITS.iterdir():
        shutil.copy(unit, folder / unit.name.removesuffix(".example"))
    (folder / "Dockerfile").write_text(BUILT.format(base=base, image=image))
    images.run("docker", "--host", engine.host, "build", "--tag", IMAGE, str(folder), env={"DOCKER_BUILDKIT": "0"})
    return IMAGE


@contextmanager
def running(engine: PrivateEngine, image: str) -> Iterator[Machine]:
    """The machine while it is up. It is booted in a few seconds."""
    os.chown(engine.socket, 0, DOCKER_GROUP)
    body: Mapping[str, Any] = {
        "Image": image,
        # As on a real machine: else the mount of a credential stays with the process that makes it.
        "Cmd": ["/bin/sh", "-c", "mount --make-rshared / && exec /sbin/init"],
        "Env": ["container=docker"],
        "HostConfig": {
            "CapAdd": ["SYS_ADMIN", "NET_ADMIN"],
            "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
            "NetworkMode": "none",
            "Binds": ["/sys/fs/cgroup:/sys/fs/cgroup:rw", f"{engine.socket}:/run/docker.sock"],
            "Tmpfs": {"/run": "", "/tmp": ""},
        },
    }
    ident = str(engine.api.must("POST", "/containers/create?name=machine", body)["Id"])
    try:
        engine.start_container(ident)
        machine = Machine(engine, ident)
        machine.until(
            lambda: machine.attempt("systemctl", "is-system-running")[1].strip() in ("running", "degraded"),
            "machine that is up",
        )
        yield machine
    finally:
        engine.remove(ident, force=True)
