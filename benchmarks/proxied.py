"""The Docker socket of `reaper run` beside the engine's own: what it costs that every byte passes through it."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import BenchmarkError, Run, Series
from benchmarks.work import Say
from devkit.engine import PrivateEngine

CONTEXT, LOGS, PINGS = 200, 100, 1000  # MB, MB, and requests

_LIMIT = 300.0  # seconds
_PIECE = 256 << 10
_TICKS = os.sysconf("SC_CLK_TCK")
_SCRIPT = Path(__file__).with_name("proxying.py")
_PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nUser-Agent: bench\r\n\r\n"
_LINE = "0123456789abcdef" * 6 + "\n"

Work = Callable[[str], None]


class Proxies:
    """Does each work over the engine's socket and over the proxy's, in turn.

    The clients are plain sockets that do as little as possible, so that what is seen is the engine's time and the proxy's.

    Args:
        folder: an empty directory.
        say: is told what goes on.
    """

    def __init__(self, folder: Path, say: Say) -> None:
        self._folder = folder
        self._say = say
        self.docker_versions = ""

    @contextmanager
    def both(self) -> Iterator[Both]:
        """An engine, and a proxy before it."""
        with PrivateEngine().start(rules=True) as engine:
            version = engine.api.must("GET", "/version")
            self.docker_versions = f"dockerd {version['Version']} (API {version['ApiVersion']})"
            engine.import_image()
            path = self._folder / "proxy.sock"
            command = [sys.executable, str(_SCRIPT), str(path), engine.host]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as proxy:
                assert proxy.stdin is not None
                assert proxy.stdout is not None
                try:
                    if proxy.stdout.readline() != b"listening\n":
                        raise BenchmarkError("the proxy does not listen")
                    yield Both(self._folder, engine, str(path), proxy.pid, self._say)
                finally:
                    proxy.stdin.close()


class Both:
    """The two sockets, and the work that is done over each.

    Args:
        folder: for the context that is built.
        engine: the engine itself.
        path: the proxy's socket.
        pid: the proxy's process, whose processor time and memory are told of.
        say: is told what goes on.
    """

    def __init__(self, folder: Path, engine: PrivateEngine, path: str, pid: int, say: Say) -> None:
        self._folder = folder
        self._engine = engine
        self._path = path
        self._process = Path(f"/proc/{pid}")
        self._say = say

    def context(self, runs: int) -> dict[str, Series]:
        """A build whose context is large and whose Dockerfile is one line."""
        archive = self._folder / "context.tar"
        with tarfile.open(archive, "w") as tar:
            data = b"FROM bench:1\n"
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
            entry = tarfile.TarInfo("data")
            entry.size = CONTEXT * 1_000_000
            with Path("/dev/urandom").open("rb") as random:
                tar.addfile(entry, random)
        size = archive.stat().st_size
        head = b"POST /build HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Type: application/x-tar\r\n"

        def work(path: str) -> None:
            with _connected(path) as sock, archive.open("rb") as file:
                sock.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")  # as the docker command sends it
                left = size
                while piece := file.read(32 << 10):
                    sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                    left -= len(piece)
                sock.sendall(b"0\r\n\r\n")
                if left or b"Successfully built" not in _all(sock):
                    raise BenchmarkError("the build failed")

        return self._in_turn("context", work, runs)

    def logs(self, runs: int) -> dict[str, Series]:
        """The whole log of a container that has ended."""
        script = f"yes {_LINE.strip()} | head -c {LOGS * 1_000_000}"
        ident = self._engine.create(cmd=("sh", "-c", script), start=True, networked=True)
        self._engine.wait_state(ident, "exited", deadline=_LIMIT)
        request = f"GET /containers/{ident}/logs?stdout=1 HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode()

        def work(path: str) -> None:
            with _connected(path) as sock:
                sock.sendall(request)
                buffer, size = bytearray(_PIECE), 0
                while count := sock.recv_into(buffer):
                    size += count
            if size < LOGS * 1_000_000:
                raise BenchmarkError(f"only {size} bytes of the log came")

        return self._in_turn("logs", work, runs)

    def pings(self, runs: int) -> dict[str, Series]:
        """Requests one after the other over one connection."""

        def work(path: str) -> None:
            with _connected(path) as sock:
                for _ in range(PINGS):
                    _ping(sock)

        return self._in_turn("pings", work, runs)

    def connections(self, runs: int) -> dict[str, Series]:
        """Requests one after the other, each over a connection of its own."""

        def work(path: str) -> None:
            for _ in range(PINGS):
                with _connected(path) as sock:
                    _ping(sock)

        return self._in_turn("connections", work, runs)

    def _in_turn(self, what: str, work: Work, runs: int) -> dict[str, Series]:
        series = {"proxy": Series(), "socket": Series()}
        for number in range(runs + 1):
            for name, path in (("socket", self._engine.socket), ("proxy", self._path)):
                cpu, began = self._cpu(), time.perf_counter()
                work(path)
                run = Run(time.perf_counter() - began, self._cpu() - cpu, self._peak_mib())
                if number:  # the first ones warm up
                    series[name].runs.append(run)
                    self._say(f"{what} {number}/{runs}: {name} {run.seconds:.3f} s")
        return series

    def _cpu(self) -> float:
        """Seconds of the proxy's processor time."""
        fields = (self._process / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def _peak_mib(self) -> float:
        lines = (self._process / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


@contextmanager
def _connected(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_LIMIT)
        sock.connect(path)
        yield sock


def _ping(sock: socket.socket) -> None:
    sock.sendall(_PING)
    if not sock.recv(4096).endswith(b"OK"):
        raise BenchmarkError("the engine does not answer a ping")


def _all(sock: socket.socket) -> bytes:
    parts = []
    while piece := sock.recv(_PIECE):
        parts.append(piece)
    return b"".join(parts)
