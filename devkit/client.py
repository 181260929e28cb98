"""What tests ask of an engine through its API: images without a registry, containers, and their states.

Times on this class of machine: create about 10 ms, start about 150 to 300 ms, import of an image about 60 ms.
"""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from devkit.api import Api, EngineError

DEFAULT_IMAGE = "bench:1"
_PREDEFINED = ("bridge", "host", "none")

SLEEPS = ("sleep", "infinity")
"""Runs for ever. As process 1 without a handler it ignores SIGTERM too, as every process 1 does."""

IGNORES_TERM = ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
"""Runs for ever and says so when told to end: only SIGKILL ends it, so a stop takes its whole time-out."""

OBEYS_TERM = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done")
"""Runs for ever, but ends with exit code 0 within some 50 ms of SIGTERM: a stop is quick."""


class EngineClient:
    """An engine seen through its API; needs no engine of its own, any unix socket will do.

    Raises:
        EngineError: from every method, when the engine refuses.
    """

    def __init__(self, socket_path: str) -> None:
        self.socket = socket_path
        self.api = Api(socket_path)

    @property
    def host(self) -> str:
        """The engine's address, as DOCKER_HOST has it: `unix:///...`."""
        return f"unix://{self.socket}"

    # Images

    def import_image(self, name: str = DEFAULT_IMAGE) -> str:
        """Make an image from this machine's static busybox, unless the engine has it; return its name."""
        if self.api.get(f"/images/{name}/json")[0] == 404:
            self._import(name, self._root(""))
        return name

    def rebuild_tag(self, name: str) -> None:
        """Import a different image under `name`: the listing then shows `sha256:...` for older containers."""
        self._import(name, self._root(uuid.uuid4().hex))

    def tag(self, source: str, target: str) -> str:
        """Give the image `source` a further name, such as `tb__chess__client:latest`; return that name."""
        self.import_image(source)
        repo, tag = _split(target)
        self.api.must("POST", f"/images/{source}/tag?{urlencode({'repo': repo, 'tag': tag})}")
        return target

    @staticmethod
    def _root(mark: str) -> bytes:
        """The root file system of an image, as a tar archive; another one for another mark."""
        return _busybox_tar(mark)

    def labelled_image(self, name: str, labels: Mapping[str, str]) -> str:
        """Make an image of its own with labels, of one small file; nothing in it can be run. Return its id."""
        self._import(name, archive(uuid.uuid4().hex), labels)
        return str(self.api.must("GET", f"/images/{name}/json")["Id"])

    def commit(self, container: str, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Make an image of a container, which has all labels of it, and these; what the container runs, it can run.

        Returns:
            Its id.
        """
        repo, tag = _split(name)
        changes = [f"LABEL {key}={json.dumps(value)}" for key, value in (labels or {}).items()]
        query = urlencode({"container": container, "repo": repo, "tag": tag, "changes": changes}, doseq=True)
        return str(self.api.must("POST", f"/commit?{query}")["Id"])

    def _import(self, name: str, tar: bytes, labels: Mapping[str, str] | None = None) -> None:
        repo, tag = _split(name)
        changes = [f"LABEL {shlex.quote(f'{key}={value}')}" for key, value in (labels or {}).items()]
        query = urlencode({"fromSrc": "-", "repo": repo, "tag": tag, "changes": changes}, doseq=True)
        answer = self.api.must("POST", f"/images/create?{query}", tar)
        if "errorDetail" in str(answer):  # the status was sent before the work was done
            raise EngineError(f"import of {name}: {answer}")
        if self.api.get(f"/images/{name}/json")[0] == 404:  # Podman 4 overlooks the tag
            self.api.must("POST", f"/images/{repo}/tag?{urlencode({'repo': repo, 'tag': tag})}")
            self.api.must("DELETE", f"/images/{repo}:latest")

    # Containers

    def create(
        self,
        name: str | None = None,
        *,
        image: str = DEFAULT_IMAGE,
        cmd: Sequence[str] = SLEEPS,
        labels: Mapping[str, str] | None = None,
        start: bool = False,
        restart: str = "no",
        stop_signal: str | None = None,
        stop_timeout: int | None = None,
        binds: Iterable[str] = (),
        volumes: Iterable[str] = (),
        network: str | None = None,
        networked: bool = False,
        env: Iterable[str] = (),
        tty: bool = False,
        auto_remove: bool = False,
    ) -> str:
        """Create a container (and start it, with `start`) and return its id.

        Args:
            name: at least two characters; the engine invents one when None.
            image: made from busybox when it is the default one, else it must exist.
            cmd: program and arguments; `SLEEPS`, `IGNORES_TERM`, `OBEYS_TERM` are ready-made.
            labels: its labels.
            start: start it as well.
            restart: `no`, `always`, `unless-stopped` or `on-failure`.
            stop_signal: such as `SIGINT`; SIGTERM when None.
            stop_timeout: seconds from the stop signal to SIGKILL; the engine's default is 10.
            binds: `volume-name:/path` or `/host/path:/path`.
            volumes: paths in the container, each of which gets an anonymous volume.
            network: network name, `none`, `host` or `container:ID`.
            networked: True gives it an endpoint in the default bridge where `network` names none. Else it has no
                endpoint, not even in `none`, and each start takes two thirds of the processor time: the engine runs
                itself once more for an endpoint. Engines before 20.10.27 may deadlock when many containers of one
                network end at once (moby/moby#46661); without an endpoint they cannot.
            env: `NAME=value`.
            tty: with a terminal.
            auto_remove: the engine removes it when it has ended.
        """
        if image == DEFAULT_IMAGE:
            self.import_image()
        body: dict[str, Any] = {
            "Image": image,
            "Cmd": list(cmd),
            "Labels": dict(labels or {}),
            "Env": list(env),
            "Tty": tty,
            "NetworkDisabled": not (networked or network),
            "Volumes": {path: {} for path in volumes},
            "HostConfig": {
                "RestartPolicy": {"Name": restart},
                "Binds": list(binds),
                "AutoRemove": auto_remove,
                **({"NetworkMode": network} if network else {}),
            },
            **({"StopSignal": stop_signal} if stop_signal else {}),
            **({"StopTimeout": stop_timeout} if stop_timeout is not None else {}),
        }
        query = f"?name={quote(name)}" if name else ""
        ident = str(self.api.must("POST", f"/containers/create{query}", body)["Id"])
        if start:
            self.start_container(ident)
        return ident

    def start_container(self, ident: str) -> None:
        """Start a container that was created or has exited."""
        self.api.must("POST", f"/containers/{ident}/start")

    def stop_container(self, ident: str, timeout: int = 10) -> None:
        """Stop signal, then SIGKILL after `timeout` seconds; returns when the container has ended."""
        self.api.must("POST", f"/containers/{ident}/stop?t={timeout}")

    def kill_container(self, ident: str) -> None:
        """SIGKILL; returns when the engine has seen the end. A paused container is killed too."""
        self.api.must("POST", f"/containers/{ident}/kill")
        self.wait_state(ident, "exited", "dead")

    def pause_container(self, ident: str) -> None:
        """Freeze a running container: state `paused`."""
        self.api.must("POST", f"/containers/{ident}/pause")

    def unpause_container(self, ident: str) -> None:
        """Let a paused container run again."""
        self.api.must("POST", f"/containers/{ident}/unpause")

    def remove(self, ident: str, force: bool = False, volumes: bool = True) -> None:
        """Delete a container, and its anonymous volumes with `volumes`."""
        self.api.must("DELETE", f"/containers/{ident}?force={int(force)}&v={int(volumes)}")

    def make_restarting(
        self, name: str | None = None, *, image: str = DEFAULT_IMAGE, labels: Mapping[str, str] | None = None
    ) -> str:
        """Create a container that fails again and again, and return its id when its state is `restarting`.

        The engine waits 100 ms before the first restart and doubles that each time up to a minute, so it is briefly
        `running` in between; this returns after five failures, when the pauses are seconds long. Takes about 5 s.
        """
        ident = self.create(name, cmd=("false",), restart="always", start=True, image=image, labels=labels)
        _until(lambda: self.inspect(ident)["RestartCount"] >= 5, 60, f"{ident} to fail five times")
        self.wait_state(ident, "restarting")
        return ident

    def inspect(self, ident: str) -> dict[str, Any]:
        """The whole inspection of one container."""
        found: dict[str, Any] = self.api.must("GET", f"/containers/{ident}/json")
        return found

    def listed(self, ident: str) -> dict[str, Any]:
        """The container's entry in the listing; {} when it is not there."""
        filters = quote(f'{{"id":["{ident}"]}}')
        found = self.api.must("GET", f"/containers/json?all=1&filters={filters}")
        return dict(found[0]) if found else {}

    def state(self, ident: str) -> str:
        """`created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`; `gone` when there is none; where
        the engine cannot tell, its answer.
        """
        status, body = self.api.get(f"/containers/{ident}/json")
        return "gone" if status == 404 else str(body["State"]["Status"]) if status == 200 else f"{status}: {body}"

    def wait_state(self, ident: str, *states: str, deadline: float = 60.0) -> None:
        """Wait until the container is in one of these states.

        Raises:
            EngineError: it is not after `deadline` seconds.
        """
        _until(lambda: self.state(ident) in states, deadline, f"{ident} to become {' or '.join(states)}")

    def ids(self, all: bool = True) -> list[str]:  # noqa: A002 - the engine's own word for it
        """Ids of all containers, or of the running ones only; newest first, as the engine lists them."""
        return [entry["Id"] for entry in self.api.must("GET", f"/containers/json?all={int(all)}")]

    # Networks and volumes

    def create_network(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Make a bridge network (it takes one of the address pools) and return its id."""
        body = {"Name": name, "CheckDuplicate": True, "Labels": dict(labels or {})}
        return str(self.api.must("POST", "/networks/create", body)["Id"])

    def create_volume(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Make a named volume and return its name."""
        return str(self.api.must("POST", "/volumes/create", {"Name": name, "Labels": dict(labels or {})})["Name"])

    def networks(self, builtin: bool = False) -> list[str]:
        """Names of the networks, sorted; without `bridge`, `host` and `none` unless `builtin`."""
        names = sorted(entry["Name"] for entry in self.api.must("GET", "/networks"))
        return names if builtin else [name for name in names if name not in _PREDEFINED]

    def images(self) -> list[str]:
        """The tags of the images, sorted, as Docker calls them."""
        return sorted(
            tag.removeprefix("docker.io/library/")
            for entry in self.api.must("GET", "/images/json")
            for tag in entry["RepoTags"] or []
        )

    def remove_images(self) -> None:
        """Remove all images but `DEFAULT_IMAGE`, which no container may use any more, by their ids."""
        kept = self.api.must("GET", f"/images/{DEFAULT_IMAGE}/json")["Id"]
        left, before = self._image_ids(), set[str]()
        while left - {kept} and left != before:  # of two that were made in one second the lower one may come first
            for id_ in left - {kept}:
                self.api.delete(f"/images/{id_}?force=1")
            left, before = self._image_ids(), left

    def _image_ids(self) -> set[str]:
        return {image["Id"] for image in self.api.must("GET", "/images/json?all=1")}

    def volumes(self) -> list[str]:
        """Names of the volumes, sorted."""
        return sorted(entry["Name"] for entry in self.api.must("GET", "/volumes")["Volumes"] or [])

    def clear(self) -> None:
        """Remove all containers, networks and volumes, whatever their state; images stay."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda ident: self.remove(ident, force=True), self.ids()))
        for network in self.api.must("GET", "/networks"):  # by id: two may have one name
            if network["Name"] not in _PREDEFINED:
                self.api.must("DELETE", f"/networks/{network['Id']}")
        for volume in self.volumes():
            self.api.must("DELETE", f"/volumes/{quote(volume)}")


def _until(condition: Callable[[], bool], deadline: float, what: str) -> None:
    give_up = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > give_up:
            raise EngineError(f"waited {deadline:g} s for {what}")
        time.sleep(0.02)


def _split(name: str) -> tuple[str, str]:
    repo, colon, tag = name.rpartition(":")
    return (repo, tag) if colon and "/" not in tag else (name, "latest")


def static_busybox() -> str | None:
    """Path of a busybox that runs without libraries, as one in an empty image must; None when there is none."""
    for name in ("busybox-static", "busybox"):
        path = shutil.which(name)
        if path and _is_static(path):
            return path
    return None


def _is_static(path: str) -> bool:
    with Path(path).open("rb") as file:
        return b"/ld-" not in file.read(4096)  # the interpreter's name stands in the first page, or nowhere


@cache
def _busybox_tar(mark: str) -> bytes:
    """A root file system as a tar archive: busybox and a link for each of its commands, and a file with `mark`."""
    busybox = static_busybox()
    if busybox is None:
        raise EngineError("no image without a static busybox (Debian package busybox-static)")
    commands = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for command in commands:
            if command != "busybox":
                link = tarfile.TarInfo(f"bin/{command}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        if mark:
            _add_mark(tar, mark)
    return buffer.getvalue()


def archive(mark: str) -> bytes:
    """A tar archive of one file, with `mark` in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add_mark(tar, mark)
    return buffer.getvalue()


def _add_mark(tar: tarfile.TarFile, mark: str) -> None:
    content = mark.encode()
    file = tarfile.TarInfo("mark")
    file.size = len(content)
    tar.addfile(file, io.BytesIO(content))
