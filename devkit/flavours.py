"""The engines that tests run on: which program, of which Debian release, configured how."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devkit import debian

DEFAULT = "docker-20.10"
"""What a test runs on that does not say."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """One kind of engine.

    Attributes:
        name: product and version, and the image store where there are two.
        suite: the Debian release that it comes from.
        config: what goes into the engine's configuration file beside what every private engine has.
        release: the tenth of the product's version, `(28, 5)`.
        rootless: whether it runs as an ordinary user, in a user namespace.
        way: how the program reaches it, where that is not its socket: "ssh" or "tls".
    """

    name: str
    suite: str
    release: tuple[int, int]
    config: Mapping[str, Any] = field(default_factory=dict)
    rootless: bool = False
    way: str | None = None

    @property
    def is_podman(self) -> bool:
        """Whether it is Podman's service that answers."""
        return self.name.startswith("podman")

    @property
    def programs(self) -> tuple[str, ...]:
        """What has to be installed."""
        return ("podman", "runc") if self.is_podman else ("dockerd", "containerd", "runc", "iptables")

    def root(self) -> Path | None:
        """The root that it runs in; None for this host's own programs."""
        if debian.release() == self.suite and all(map(shutil.which, self.programs)):
            return None
        found = debian.root(self.suite)
        if found is None and self.name != DEFAULT:
            return debian.folder() / self.suite  # it is not there, and nothing of this host would do instead
        return found

    def missing(self) -> str | None:
        """None when it can be started here, else what is missing, in one sentence."""
        root = self.root()
        if root is None:
            absent = [program for program in self.programs if shutil.which(program) is None]
            return f"A private engine needs {', '.join(absent)} (Debian: docker.io iptables)." if absent else None
        if not (root / ".complete").exists():
            return f"{self.name} needs the programs of Debian {self.suite}: python3 -m devkit.debian {self.suite}."
        return None

    def daemon_json(self) -> str:
        """The configuration file of a dockerd."""
        return json.dumps({"live-restore": False, **self.config})


_ALL = (
    Flavour("docker-20.10", "bookworm", (20, 10)),
    Flavour("docker-26.1", "trixie", (26, 1)),
    Flavour("docker-28.5", "forky", (28, 5)),
    Flavour("docker-28.5-containerd", "forky", (28, 5), {"features": {"containerd-snapshotter": True}}),
    Flavour("podman-4.3", "bookworm", (4, 3)),
    Flavour("podman-5.8", "forky", (5, 8)),
    Flavour("podman-5.8-rootless", "forky", (5, 8), rootless=True),
    Flavour("docker-28.5-ssh", "forky", (28, 5), way="ssh"),
    Flavour("docker-28.5-tls", "forky", (28, 5), way="tls"),
)

FLAVOURS: Mapping[str, Flavour] = {flavour.name: flavour for flavour in _ALL}
