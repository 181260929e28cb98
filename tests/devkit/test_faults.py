"""The fault proxy, between a plain client and a small server that counts what reaches it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from devkit.api import Api, _UnixConnection
from devkit.faults import Fault, FaultProxy

DEADLINE = 10.0


class Upstream(socketserver.ThreadingUnixStreamServer):
    """Echoes what it was asked; `/chunked` in chunks, `/close` without a length, `/stream` until it is let go."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, Echo)
        self.path = path
        self.seen: list[tuple[str, str, bytes]] = []
        self.stream_on = threading.Event()
        self.stream_broken = threading.Event()


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def handle_any(self) -> None:
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.seen.append((self.command, self.path, body))
        if self.path == "/stream":
            return self.stream()
        answer = json.dumps({"method": self.command, "path": self.path, "body": body.decode()}).encode()
        if self.command == "DELETE":
            self.send_response(204)
            self.end_headers()
            return None
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for half in (answer[:7], answer[7:]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(half), half))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/close":
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer)
        else:
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)
        return None

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self.wfile.write(b"5\r\nfirst\r\n")
            self.server.stream_on.wait(DEADLINE)
            while True:  # ends when the reader has closed
                self.wfile.write(b"4\r\nmore\r\n")
        except OSError:
            self.server.stream_broken.set()
            self.close_connection = True

    do_GET = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815 - the base class's names


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    with Upstream(str(tmp_path / "up.sock")) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    with FaultProxy(upstream.path) as proxy:
        yield proxy


@pytest.fixture
def api(proxy: FaultProxy) -> Api:
    return Api(proxy.socket, timeout=DEADLINE)


@pytest.mark.parametrize("path", ["/plain", "/chunked", "/close"])
def test_passes_answers_through(api: Api, path: str) -> None:
    assert api.get(path) == (200, {"method": "GET", "path": path, "body": ""})


def test_passes_bodies_through_and_keeps_the_connection(proxy: FaultProxy) -> None:
    connection = _UnixConnection(proxy.socket, DEADLINE)
    big = "x" * 300_000
    for body in ("with a length", iter([b"in ", b"chunks"]), big, None):
        connection.request("POST", "/x", body, encode_chunked=not isinstance(body, str | None))
        answer = json.loads(connection.getresponse().read())["body"]
        assert answer == {"with a length": body, big: big}.get(str(body), "in chunks" if body else "")
        assert connection.sock is not None, "the proxy closed a connection that it should have kept"
    connection.request("HEAD", "/x")
    assert connection.getresponse().read() == b""
    connection.request("DELETE", "/x")
    assert connection.getresponse().status == 204
    connection.close()
    assert [call.status for call in proxy.log] == [200] * 5 + [204]


def test_listens_on_tcp(upstream: Upstream) -> None:
    with FaultProxy(upstream.path, port=0) as proxy:
        port = int(proxy.host.rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        connection.request("GET", "/x")
        assert connection.getresponse().read()
        proxy.add(Fault("reset"))
        connection.request("GET", "/x")
        with pytest.raises(ConnectionResetError):
            connection.getresponse()
        connection.close()


def test_reset_before_the_engine_knows(proxy: FaultProxy, api: Api, upstream: Upstream) -> None:
    proxy.add(Fault("reset", "DELETE", "^/containers/a", times=1))
    with pytest.raises(ConnectionResetError):
        api.delete("/containers/a?v=1")
    assert upstream.seen == []
    assert api.delete("/containers/a?v=1").status == 204
    assert [(call.method, call.path, call.status, call.fault) for call in proxy.log] == [
        ("DELETE", "/containers/a?v=1", None, "reset"),
        ("DELETE", "/containers/a?v=1", 204, None),
    ]


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/a"), ("GET", "/chunked"), ("POST", "/a")])
def test_reset_after_the_engine_did_it(proxy: FaultProxy, api: Api, upstream: Upstream, method: str, path: str) -> None:
    proxy.add(Fault("reset_after"))
    with pytest.raises(ConnectionResetError):
        api.request(method, path, {"some": "body"} if method == "POST" else None)
    assert [seen[:2] for seen in upstream.seen] == [(method, path)]


def test_status_with_headers(proxy: FaultProxy, api: Api, upstream: Upstream) -> None:
    proxy.add(Fault("status", status=429, headers={"Retry-After": "7"}, body={"message": "slow down"}))
    connection = _UnixConnection(proxy.socket, DEADLINE)
    connection.request("GET", "/x")
    response = connection.getresponse()
    assert (response.status, response.headers["Retry-After"]) == (429, "7")
    assert json.loads(response.read()) == {"message": "slow down"}
    connection.close()
    assert upstream.seen == []
    proxy.clear()
    proxy.add(Fault("status"))
    assert api.get("/x").status == 500
    assert [call.status for call in proxy.log] == [500]


def test_hang_until_the_client_gives_up(proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.add(Fault("hang"))
    with pytest.raises(TimeoutError):
        Api(proxy.socket, timeout=0.1).get("/x")
    assert upstream.seen == []
    proxy.clear()
    assert Api(proxy.socket, timeout=DEADLINE).get("/x").status == 200


def test_hang_does_not_keep_the_proxy_from_ending(upstream: Upstream) -> None:
    with FaultProxy(upstream.path) as proxy, socket.socket(socket.AF_UNIX) as client:
        proxy.add(Fault("hang"))
        client.connect(proxy.socket)
        with proxy.hold() as gate:
            client.sendall(b"GET /x HTTP/1.1\r\n\r\n")
            gate.reached(DEADLINE)
        proxy.close()
        client.settimeout(DEADLINE)
        assert client.recv(1) == b""


def test_delay(proxy: FaultProxy, api: Api) -> None:
    proxy.add(Fault("delay", delay=0.1))
    assert api.get("/x").status == 200
    (call,) = proxy.log
    assert call.answered is not None
    assert call.answered - call.at >= 0.1


@pytest.mark.parametrize("path", ["/plain", "/chunked"])
def test_truncate(proxy: FaultProxy, api: Api, path: str) -> None:
    proxy.add(Fault("truncate", "GET"))
    with pytest.raises(http.client.IncompleteRead):
        api.get(path)


def test_garbage(proxy: FaultProxy, api: Api, upstream: Upstream) -> None:
    proxy.add(Fault("garbage"))
    status, body = api.get("/x")
    assert status == 200
    assert isinstance(body, str), "JSON would have been parsed"
    assert upstream.seen == []


def test_which_requests_are_hit(proxy: FaultProxy, api: Api) -> None:
    proxy.add(
        Fault("status", "DELETE", r"/a$", status=501, every=2, skip=1, times=2),
        Fault("status", "P*", status=502),
    )
    assert [api.delete("/a").status for _ in range(7)] == [204, 501, 204, 501, 204, 204, 204]
    assert (api.delete("/ab").status, api.get("/a").status, api.post("/a").status) == (204, 200, 502)
    assert len(proxy.calls("DELETE", "/a$")) == 7


def test_probability_repeats_with_its_seed(proxy: FaultProxy, api: Api) -> None:
    def run() -> list[int]:
        proxy.clear()
        proxy.add(Fault("status", probability=0.5, seed=3))
        return [api.get("/x").status for _ in range(30)]

    first = run()
    assert run() == first
    assert 5 < first.count(500) < 25


def test_hold_between_two_calls(proxy: FaultProxy, api: Api, upstream: Upstream) -> None:
    with ThreadPoolExecutor() as pool, proxy.hold("DELETE", "/a") as gate:
        answer = pool.submit(api.delete, "/a")
        gate.reached(DEADLINE)
        assert upstream.seen == []
        assert api.get("/other").status == 200, "only the one request is held"
        assert api.delete("/a").status == 204, "only once"
        assert not answer.done()
        gate.release()
        assert answer.result(DEADLINE).status == 204
    assert [seen[:2] for seen in upstream.seen] == [("GET", "/other"), ("DELETE", "/a"), ("DELETE", "/a")]


def test_hold_after_the_engine_answered(proxy: FaultProxy, api: Api, upstream: Upstream) -> None:
    with ThreadPoolExecutor() as pool, proxy.hold("DELETE", "/a", after=True) as gate:
        answer = pool.submit(api.delete, "/a")
        gate.reached(DEADLINE)
        assert [seen[:2] for seen in upstream.seen] == [("DELETE", "/a")]
        assert not answer.done()
        gate.release()
        assert answer.result(DEADLINE).status == 204


def test_a_fault_after_a_gate_still_resets(proxy: FaultProxy, api: Api) -> None:
    with ThreadPoolExecutor() as pool, proxy.hold() as gate:
        answer = pool.submit(api.get, "/a")
        gate.reached(DEADLINE)
        proxy.add(Fault("reset"))
        gate.release()
        with pytest.raises(ConnectionResetError):
            answer.result(DEADLINE)


def test_no_request_comes_to_the_gate(proxy: FaultProxy) -> None:
    with proxy.hold() as gate:
        assert not gate.is_reached
        with pytest.raises(TimeoutError, match=re.escape("within 0.01 s")):
            gate.reached(0.01)


def test_streams_and_takes_back_what_the_client_gave_up(proxy: FaultProxy, upstream: Upstream) -> None:
    connection = _UnixConnection(proxy.socket, DEADLINE)
    connection.request("GET", "/stream")
    response = connection.getresponse()
    assert response.read(5) == b"first", "pieces must arrive before the end"
    upstream.stream_on.set()
    response.close()
    connection.close()
    assert upstream.stream_broken.wait(DEADLINE), "the server did not see that the client has gone"


def test_engine_gone_and_back(proxy: FaultProxy, api: Api, upstream: Upstream) -> None:
    path = Path(upstream.path)
    path.rename(path.with_suffix(".removed"))
    with pytest.raises(ConnectionResetError):
        api.get("/x")
    path.with_suffix(".removed").rename(path)
    assert api.get("/x").status == 200
    assert [(call.status, call.fault) for call in proxy.log] == [(None, "upstream"), (200, None)]


def test_log_tells_when(proxy: FaultProxy, api: Api) -> None:
    before = time.monotonic()
    api.get("/a?b=c")
    (call,) = proxy.log
    assert call.path == "/a?b=c"
    assert call.answered is not None
    assert before <= call.at <= call.answered <= time.monotonic()


def test_many_clients_at_once(proxy: FaultProxy, api: Api) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(api.get, [f"/{number}" for number in range(200)]))
    assert [answer.body["path"] for answer in answers] == [f"/{number}" for number in range(200)]
    assert len(proxy.log) == 200
