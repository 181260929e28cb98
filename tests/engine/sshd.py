"""A real sshd on the loopback, and an ssh that knows it under the name gpu-1."""

import os
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests import needs


class Sshd:
    """A server for this user's key; a context manager.

    Args:
        folder: does not exist yet; for its keys, its log, and the ssh of ``path``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server, client = needs.tool("sshd", "openssh-server"), needs.tool("ssh", "openssh-client")
        (folder / "bin").mkdir(parents=True)
        self.path = f"{folder / 'bin'}:{os.environ['PATH']}"
        for name in ("host", "user", "other"):
            key = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
            subprocess.run(key, check=True, capture_output=True)
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.know("host")
        # ssh looks for its configuration in the home directory of the user's entry in /etc/passwd, whatever HOME says.
        options = (
            *(f"Port {self.port}", f"IdentityFile {folder / 'user'}", "IdentitiesOnly yes", "HostName 127.0.0.1"),
            *(f"UserKnownHostsFile {folder / 'known'}", "StrictHostKeyChecking yes"),
        )
        (folder / "config").write_text("Host gpu-1\n" + "".join(f" {line}\n" for line in options))
        wrapper = folder / "bin" / "ssh"
        wrapper.write_text(f'#!/bin/sh\necho $$ >>"{folder}/started"\nexec {client} -F "{folder}/config" "$@"\n')
        wrapper.chmod(0o755)

    def know(self, key: str) -> None:
        """Let the client expect this key of the host."""
        public = (self.folder / f"{key}.pub").read_text()
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {public}")

    @property
    def started(self) -> list[int]:
        """The processes of ssh so far."""
        file = self.folder / "started"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def __enter__(self) -> Self:
        Path("/run/sshd").mkdir(exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.folder / 'host'}\nPidFile none\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {self.folder / 'user.pub'}\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        with (self.folder / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen([self._server, "-D", "-e", "-f", str(config)], stderr=log)
        until = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < until, (self.folder / "sshd.log").read_text()  # noqa: PT018
        return self

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
