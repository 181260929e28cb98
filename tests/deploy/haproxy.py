"""The socket proxy of the stack as a process of this machine: its generated file, with other addresses."""

import re
import socket
import subprocess
import threading
from pathlib import Path
from typing import Self

from devkit.generate.proxy import PORT, SOCKET, config
from devkit.ports import free_port
from tests import needs
from tests.engine.lab import until

LIMIT = 60.0  # seconds


class HaProxy:
    """HAProxy before a unix socket; listens within its ``with`` block.

    Args:
        upstream: the socket's path.
        folder: for its file.

    Attributes:
        lines: what it has logged.
    """

    def __init__(self, upstream: str, folder: Path, *, opened: bool = False) -> None:
        self.port = free_port()
        self.host = f"tcp://127.0.0.1:{self.port}"
        self.lines: list[str] = []
        self._file = folder / "haproxy.cfg"
        text = config().replace(f"bind :{PORT}", f"bind 127.0.0.1:{self.port}").replace(SOCKET, upstream)
        self._file.write_text(text.replace("    # http-request allow", "    http-request allow") if opened else text)

    def __enter__(self) -> Self:
        command = [needs.tool("haproxy", "haproxy"), "-db", "-f", str(self._file)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            until(lambda: self._process.poll() is not None or self._listens(), "HAProxy", LIMIT)
            assert self._process.poll() is None, self.lines
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(LIMIT)
        self._reader.join(LIMIT)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.lines.extend(line.rstrip() for line in self._process.stdout)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def connect(self) -> socket.socket:
        """A connection to it."""
        return socket.create_connection(("127.0.0.1", self.port), LIMIT)

    def send(self, raw: bytes) -> tuple[list[int], str]:
        """Send bytes as they are; the statuses of all answers until it closes the connection, and all that came."""
        with self.connect() as connection:
            connection.sendall(raw)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        text = answer.decode(errors="replace")
        return [int(status) for status in re.findall(r"HTTP/1\.[01] (\d{3}) ", text)], text

    def ask(self, method: str, target: str, headers: str = "", body: bytes = b"") -> tuple[int, str]:
        """One request; the status of its answer, and the body."""
        head = f"{method} {target} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{headers}\r\n"
        statuses, text = self.send(head.encode() + body)
        return statuses[0], text.partition("\r\n\r\n")[2]
