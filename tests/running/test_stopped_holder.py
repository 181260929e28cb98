"""The lease of a run that is stopped is kept at the service elsewhere, which misses its heartbeats else."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, Queue

import pytest

from reaper.leases.record import HEARTBEAT_DUE
from reaper.leases.watcher import HEARTBEAT_WINDOW
from reaper.run import guard
from tests import forks
from tests.run import LIMIT
from tests.running.lab import state

GUARD = """
import reaper.run.guard as guard
guard.EVERY = 0.05
guard.main()
"""
HOLDER = """
import subprocess, sys
orders = b'{"lease": {"id": "run-1"}}'
guard = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, start_new_session=True)
guard.stdin.write(len(orders).to_bytes(8, "big") + orders)
guard.stdin.flush()
print("holds", flush=True)
sys.stdin.read()
guard.communicate(b"done")
"""


@contextmanager
def service(status: int) -> Iterator[tuple[str, "Queue[tuple[str, str, str | None]]"]]:
    """Its address, and the requests that come: method, path and token."""
    came = Queue[tuple[str, str, str | None]]()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            came.put((self.command, self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", came
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [200, 404, 410, 500])
def test_the_guard_sends_heartbeats_while_its_holder_is_stopped(status: int) -> None:
    with service(status) as (url, came):
        env = {**forks.kept(), "REAPER_URL": url, "REAPER_TOKEN": "secret"}
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", HOLDER, GUARD], env=env, stdin=pipe, stdout=pipe, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "holds\n"
            with pytest.raises(Empty):
                came.get(timeout=4 * 0.05)  # it sends them itself
            os.kill(holder.pid, signal.SIGSTOP)
            for _ in range(3):
                assert came.get(timeout=LIMIT) == ("PUT", "/leases/run-1", "Bearer secret")
            assert state(holder.pid) == "T"
            os.kill(holder.pid, signal.SIGCONT)
            holder.communicate(timeout=LIMIT)
        assert holder.returncode == 0, "and the guard ends when it is told to"


def test_they_come_in_time() -> None:
    assert 2 * guard.EVERY < HEARTBEAT_DUE.total_seconds() < HEARTBEAT_WINDOW.total_seconds()
