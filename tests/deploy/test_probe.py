"""The health check of the image: finds the service by the settings of where it listens, and says how it is."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from devkit.ports import free_port
from reaper.config.service_tables import ServiceTable
from reaper.config.settings import Settings
from tests.run import LIMIT, Program
from tests.service.daemon import Daemon

OK = '{\n  "status": "ok"\n}\n'


class Endpoint(HTTPServer):
    """Answers every request with one status and body, and remembers whom it was asked as."""

    def __init__(self, host: str, status: int, body: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.asked: list[tuple[str, str | None]] = []
        self.status, self.body = status, body
        super().__init__((host, 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def answering(host: str = "127.0.0.1", status: int = 200, body: str = OK) -> Iterator[Endpoint]:
    with Endpoint(host, status, body) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def probe(folder: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and output."""
    command = [sys.executable, "-m", "reaper.probe"]
    keep = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        command, cwd=folder, env={**keep, **env}, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_service_that_is_alive_and_one_that_is_not(tmp_path: Path) -> None:
    program = Program(tmp_path, {"DOCKER_HOST": "unix:///nowhere"})
    with Daemon(program).start() as daemon:
        daemon.wait("service_started")
        (tmp_path / "reaper.toml").write_text(daemon.file.read_text())
        code, text = probe(tmp_path, {})
        assert code == 0
        assert json.loads(text.removeprefix("200 "))["status"] == "ok"
        assert daemon.stop() == 0
    code, text = probe(tmp_path, {})
    assert code == 1
    assert "refused" in text


def test_one_that_says_it_is_ill(tmp_path: Path) -> None:
    with answering(status=503, body='{"status":\n "failing"}') as server:
        told = probe(tmp_path, {"REAPER_SERVICE__LISTEN": f"127.0.0.1:{server.server_port}"})
    assert told == (1, '503 {"status": "failing"}\n')
    assert server.asked == [("/healthz", "localhost")]


@pytest.mark.parametrize(
    ("bound", "listen"), [("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "localhost"), ("::1", "[::]"), ("::1", "[::1]")]
)
def test_every_way_to_write_an_address_of_its_own(tmp_path: Path, bound: str, listen: str) -> None:
    with answering(bound) as server:
        assert probe(tmp_path, {"REAPER_SERVICE__LISTEN": f"{listen}:{server.server_port}"})[0] == 0


def test_where_it_looks(tmp_path: Path) -> None:
    """A variable before the file that a variable names, and that one before the file in its directory."""
    with answering() as server:
        here, unused = f"127.0.0.1:{server.server_port}", f"127.0.0.1:{free_port()}"
        files = {name: tmp_path / name for name in ("reaper.toml", "other.toml")}

        def write(name: str, listen: str) -> None:
            files[name].write_text(f'[limits]\nmax_deletions = 7\n[service]\nlisten = "{listen}"\n')

        write("reaper.toml", here)
        assert probe(tmp_path, {})[0] == 0
        write("other.toml", unused)
        assert probe(tmp_path, {"REAPER_CONFIG": str(files["other.toml"])})[0] == 1
        assert probe(tmp_path, {"REAPER_CONFIG": str(files["other.toml"]), "REAPER_SERVICE__LISTEN": here})[0] == 0
        write("reaper.toml", unused)
        assert probe(tmp_path, {})[0] == 1
        write("other.toml", here)
        assert probe(tmp_path, {"REAPER_CONFIG": str(files["other.toml"])})[0] == 0


def test_a_file_that_says_nothing_of_it_means_the_default(tmp_path: Path) -> None:
    from reaper import probe as module

    folder = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert module.listens({}) == ServiceTable().listen
        for text in ("", "[service]\njitter = '1s'\n", "service = 7\n"):
            (tmp_path / "reaper.toml").write_text(text)
            assert module.listens({}) == ServiceTable().listen
    finally:
        os.chdir(folder)
    assert Settings().service.address == ("127.0.0.1", 9797)


def test_a_service_that_serves_nothing_cannot_be_asked_and_is_not_ill(tmp_path: Path) -> None:
    code, text = probe(tmp_path, {"REAPER_SERVICE__LISTEN": "none"})
    assert (code, text) == (0, "there is nothing to probe: listen is none\n")


@pytest.mark.parametrize(
    "env", [{"REAPER_CONFIG": "missing.toml"}, {"REAPER_CONFIG": "broken.toml"}, {"REAPER_SERVICE__LISTEN": "x"}]
)
def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "broken.toml").write_text("listen = ")
    code, text = probe(tmp_path, env)
    assert code == 1
    assert text.startswith("no answer: ")
    assert text.count("\n") == 1


def test_something_else_listens_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1000)

        thread = Thread(target=greet)
        thread.start()
        told = probe(tmp_path, {"REAPER_SERVICE__LISTEN": f"127.0.0.1:{server.getsockname()[1]}"})
        thread.join()
    assert told == (1, "no answer: what answers there speaks no HTTP\n")


def test_it_imports_next_to_nothing() -> None:
    """It runs every few seconds for as long as the service does."""
    code = "import sys; before = set(sys.modules); import reaper.probe; print(sorted(m for m in set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=True)
    found = json.loads(done.stdout.replace("'", '"'))
    assert {name for name in found if name.startswith("reaper")} == {"reaper", "reaper.probe", "reaper.paths"}
    assert not {"asyncio", "http.client", "pathlib", "pydantic", "tomllib", "urllib.request"} & set(found)
