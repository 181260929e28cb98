"""A proxy between a client and an engine that fails on demand, remembers every request, and can hold one.

    with FaultProxy(engine.socket) as proxy:
        proxy.add(Fault("reset_after", "DELETE", "/containers/", times=1))
        ...  # a client of proxy.host
        assert len(proxy.calls("DELETE", "/containers/")) == 2

It runs in a thread with an event loop of its own, so that it also works while the test's loop is blocked.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from devkit.rules import Call, Fault, Gate, Kind, Rule
from devkit.wire import ClosedError, Head, Wire, delimited, read_head, request_body, response_body

__all__ = ["Call", "Fault", "FaultProxy", "Gate", "Kind"]

_T = TypeVar("_T")


class FaultProxy:
    """The proxy; listens within its `with` block.

    Args:
        upstream_socket: the engine's unix socket. It may be gone for a while: then connections are reset.
        listen_socket: unix socket to listen on; one below /tmp when None.
        port: listen on this TCP port of 127.0.0.1 instead; 0 takes a free one.
    """

    def __init__(self, upstream_socket: str, listen_socket: str | None = None, port: int | None = None) -> None:
        self._upstream = upstream_socket
        self.socket = listen_socket or f"/tmp/reaper-proxy-{uuid.uuid4().hex[:8]}.sock"
        self._port = port
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._gates: list[Gate] = []
        self._log: list[Call] = []
        self._loop = asyncio.new_event_loop()
        self._main: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._bug: BaseException | None = None

    @property
    def host(self) -> str:
        """Where clients connect, as DOCKER_HOST has it: `unix:///...` or `tcp://127.0.0.1:port`."""
        return f"unix://{self.socket}" if self._port is None else f"tcp://127.0.0.1:{self._port}"

    @property
    def log(self) -> list[Call]:
        """Every request so far, in the order of arrival."""
        with self._lock:
            return list(self._log)

    def calls(self, method: str = "*", path: str = "") -> list[Call]:
        """The requests in the log that match, as in `Fault`."""
        return [call for call in self.log if fnmatchcase(call.method, method) and re.search(path, call.path)]

    def add(self, *faults: Fault) -> None:
        """Add rules. For each request the first that fires decides; the counts of later ones stay."""
        with self._lock:
            self._rules += [Rule(fault) for fault in faults]

    def clear(self) -> None:
        """Forget all rules and the log, and release all gates."""
        with self._lock:
            self._rules, self._log = [], []
            gates, self._gates = self._gates, []
        for gate in gates:
            gate.release()

    def hold(self, method: str = "*", path: str = "", times: int = 1, after: bool = False) -> Gate:
        """Hold the next `times` requests that match, as in `Fault`, until `Gate.release`.

        They stand before the engine has seen them; with `after`, when it has answered and the client does not know.
        """
        gate = Gate(method, path, times, after)
        with self._lock:
            self._gates.append(gate)
        return gate

    # Life

    def __enter__(self) -> Self:
        family = socket.AF_UNIX if self._port is None else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.bind(self.socket if self._port is None else ("127.0.0.1", self._port))
            listener.listen(4096)
        except OSError:
            listener.close()
            raise
        if self._port is not None:
            self._port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(listener,), name="fault-proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        if self._bug is not None and error is None:
            raise RuntimeError("the fault proxy has a bug") from self._bug

    def close(self) -> None:
        """Stop listening and end all connections. Harmless when done twice."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.call_soon_threadsafe(lambda: self._main.cancel() if self._main else None)
            thread.join(30)
            if self._port is None:
                Path(self.socket).unlink(missing_ok=True)

    def _run(self, listener: socket.socket) -> None:
        try:
            self._main = self._loop.create_task(self._serve(listener), name="fault-proxy")
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        except BaseException as bug:  # noqa: BLE001 - reported by __exit__, in the thread that can fail the test
            self._bug = bug
        finally:
            listener.close()
            self._loop.close()

    async def _serve(self, listener: socket.socket) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                connection, _ = await self._loop.sock_accept(listener)
                wire = Wire(connection)
                task = group.create_task(self._connection(wire), name="fault-proxy connection")
                # Not by the task itself: one that is cancelled before it starts does nothing.
                task.add_done_callback(partial(_close, wire))

    async def _connection(self, client: Wire) -> None:
        try:
            while head := await read_head(client):
                if head.headers.get("expect", "").lower() == "100-continue":
                    await client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await request_body(client, head)
                # A client that gives up takes its request with it, as it does without a proxy.
                if not await _race(self._request(client, head, body), client.gone()):
                    return
        except (ClosedError, OSError):
            pass  # the client has gone

    # One request

    async def _request(self, client: Wire, head: Head, body: bytes) -> bool:
        """Answer one request; False when the connection is over."""
        method, path, _ = head.words
        call = Call(method, path, time.monotonic())
        with self._lock:
            self._log.append(call)
            gates = list(self._gates)
        for gate in gates:
            if not gate.after:
                await gate.admit(method, path)
        with self._lock:  # after the gates: a test may have changed the rules meanwhile
            fault = next((rule.fault for rule in self._rules if rule.fires(method, path)), None)
        if fault is None:
            return await self._forward(client, head.raw + body, call, None, gates)
        call.fault = fault.kind
        await asyncio.sleep(fault.delay)
        match fault.kind:
            case "reset":
                client.reset()
                return False
            case "hang":
                await client.gone()
                return False
            case "status":
                content = fault.body if isinstance(fault.body, bytes) else json.dumps(fault.body).encode()
                return await _answer(client, call, fault.status, fault.headers, content)
            case "garbage":
                return await _answer(client, call, 200, {}, b"<html>this is not the answer you expect</html>")
            case _:
                return await self._forward(client, head.raw + body, call, fault.kind, gates)

    async def _forward(self, client: Wire, raw: bytes, call: Call, fault: Kind | None, gates: list[Gate]) -> bool:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        upstream = Wire(sock)
        try:
            try:
                await _connect(sock, self._upstream)
                await upstream.send(raw)
                answer = await read_head(upstream)
                while answer is not None and answer.words[1] == "100":  # sent already, where it was asked for
                    answer = await read_head(upstream)
            except (ClosedError, OSError):
                answer = None
            if answer is None:
                call.fault = "upstream"
                client.reset()
                return False
            for gate in gates:
                if gate.after:
                    await gate.admit(call.method, call.path)
            if fault == "reset_after":
                async for _ in response_body(upstream, answer, call.method):
                    pass
                client.reset()
                return False
            call.answer(int(answer.words[1]))
            if fault == "truncate":
                content = b"".join([piece async for piece in response_body(upstream, answer, call.method)])
                await client.send(answer.raw + content[: len(content) // 2])
                return not content
            return await self._relay(client, upstream, answer, call.method)
        finally:
            upstream.close()

    async def _relay(self, client: Wire, upstream: Wire, answer: Head, method: str) -> bool:
        """Pass an answer on as it comes; False when the connection is over."""
        await client.send(answer.raw)
        if answer.words[1] == "101":  # upgraded: bytes in both directions from here on
            await _race(_copy(upstream.rest(), client), _feed(client, upstream))
            return False
        await _copy(response_body(upstream, answer, method), client)
        return delimited(answer, method)


def _close(wire: Wire, _: object) -> None:
    wire.close()


async def _answer(client: Wire, call: Call, status: int, headers: Mapping[str, str], content: bytes) -> bool:
    lines = {"Content-Type": "application/json", **headers, "Content-Length": str(len(content))}
    head = f"HTTP/1.1 {status} Injected\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    call.answer(status)
    await client.send(head.encode("latin-1") + b"\r\n" + (b"" if call.method == "HEAD" else content))
    return True


async def _connect(sock: socket.socket, path: str) -> None:
    # Not loop.sock_connect: where the server's backlog is full, a unix socket says EAGAIN, which that takes for
    # "under way" and then for success.
    while True:
        try:
            return sock.connect(path)
        except BlockingIOError:
            await asyncio.sleep(0.005)


async def _copy(source: AsyncIterator[bytes], target: Wire) -> None:
    async for piece in source:
        await target.send(piece)


async def _feed(client: Wire, upstream: Wire) -> None:
    """Pass on what the client sends, and its end; never returns, since the answer may still be coming."""
    with suppress(OSError):
        await _copy(client.rest(), upstream)
        upstream.end()
    await asyncio.Event().wait()


async def _race(work: Coroutine[Any, Any, _T], other: Coroutine[Any, Any, None]) -> _T | None:
    """Do `work` until the other is done: the result of `work`, or None when it was too late and was cancelled."""
    tasks = (asyncio.create_task(work, name="work"), asyncio.create_task(other, name="other"))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
