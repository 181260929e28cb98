"""A Docker engine behind ssh: OpenSSH forwards the engine's socket to one that this process alone can use.

The user's own ssh configuration, agent and known hosts hold, and nothing is ever asked for. One connection serves all
requests for as long as it lives. When it is lost, what is under way fails, and the next request makes another one.
"""

import asyncio
import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from reaper.providers.docker.address import is_ssh
from reaper.providers.docker.settings import SSH_ADDRESS, DockerTable

OPENS_WITHIN = 30.0  # seconds: a slow network, a hop, and a server that looks up names
_LOOKS = 0.02  # seconds between two looks for the socket: ssh says nothing when it is there
_LONGEST = 300  # characters of ssh's own words
ENGINE = "/var/run/docker.sock"


class SshError(Exception):
    """There is no connection; says why in the words of ssh."""


class Tunnel:
    """One connection of ssh, and the socket that it forwards.

    Args:
        address: as ``SSH_ADDRESS`` has it.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        found = SSH_ADDRESS.fullmatch(address)
        assert found is not None, "the settings have checked it"
        self._folder = Path(tempfile.mkdtemp(prefix="reaper-ssh-"))  # for this user alone
        self.path = str(self._folder / "engine.sock")
        self._log = self._folder / "log"
        remote = (found["path"] or "").rstrip("/") or ENGINE
        self._command = [
            *("ssh", "-N", "-T", "-L", f"{self.path}:{remote}"),
            *("-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes"),
            *("-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
            *(("-l", found["user"]) if found["user"] else ()),
            *(("-p", found["port"]) if found["port"] else ()),
            *("--", found["host"].strip("[]")),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._listens = False
        self._owner = os.getpid()
        self.users = 0

    async def open(self) -> None:
        """Connect, unless it is connected. Raises SshError."""
        self._begin()
        until = time.monotonic() + OPENS_WITHIN
        while not self._is_open(until):  # noqa: ASYNC110 - another program's socket
            await asyncio.sleep(_LOOKS)

    def open_now(self) -> None:
        """As ``open``, without an event loop."""
        self._begin()
        until = time.monotonic() + OPENS_WITHIN
        while not self._is_open(until):
            time.sleep(_LOOKS)

    def words(self) -> str:
        """What ssh has said last, in one line; empty when it has said nothing."""
        try:
            lines = self._log.read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        said = [line.strip() for line in lines if line.strip() and not line.startswith("Warning: Permanently added")]
        return "".join(c if c.isprintable() else "?" for c in said[-1])[:_LONGEST] if said else ""

    def leave(self) -> None:
        """End one use of it, and the connection with the last one."""
        self.users -= 1
        if self.users == 0 and _tunnels.pop(self._address, None) is not None:
            self.close()

    def close(self) -> None:
        """End the connection, and remove the socket. A fork leaves both to its parent."""
        if os.getpid() != self._owner:
            return
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._listens = False
        with suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108 - of a connection that was lost
        # A program that is killed must not leave its ssh behind, and Ctrl-C is for the program alone.
        dies = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - the settings have checked the address
                    [*dies, *self._command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise SshError(f"ssh cannot be started: {error.strerror}") from None

    def _is_open(self, until: float) -> bool:
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            raise SshError(self.words() or f"ssh ended with {code} and said nothing")
        self._listens = self._listens or self._answers()
        if self._listens:
            return True
        if time.monotonic() > until:
            self._process.kill()
            raise SshError(self.words() or f"ssh did not connect within {OPENS_WITHIN:g} s")
        return False

    def _answers(self) -> bool:
        """Whether it takes connections: its socket is there a moment before."""
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(self.path) == 0


_tunnels: dict[str, Tunnel] = {}


def tunnel_to(engine: DockerTable) -> Tunnel | None:
    """Return the tunnel that all of this process share, each until its ``leave``; None where there is no ssh in between."""
    if not is_ssh(engine):
        return None
    if not _tunnels:
        atexit.register(_close_all)
    tunnel = _tunnels.get(engine.host) or Tunnel(engine.host)
    _tunnels[engine.host] = tunnel
    tunnel.users += 1
    return tunnel


def _close_all() -> None:
    while _tunnels:
        _tunnels.popitem()[1].close()
