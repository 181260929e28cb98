"""One connection: what the client asks goes to the engine, and what it answers goes back, byte for byte.

Answers pass at once and are read on the way, only to know where they end. Requests pass one at a time: the next one when
the last is answered, since an answer may turn the connection into a stream (101, or an attachment's 200 without an end),
after which nothing is a request any more.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from socket import socket

from reaper.run.proxy.http1 import (
    Answer,
    BadMessageError,
    Chunks,
    Data,
    Endless,
    Heads,
    Length,
    Request,
    read_answer,
    read_request,
    unchunked,
)
from reaper.run.proxy.labels import MAX_BODY, TooDeepError, created_id, creates, creates_container, hijacks, labelled
from reaper.run.proxy.sockets import PIECE, ProxySocket

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
Created = Callable[[str, Callable[[], None]], None]
MOST_WITHHELD = 1 << 20  # bytes of the answer to a creation
LINGER = 10.0  # seconds for which the last bytes are waited for of a client that was refused, or that is gone


class Relay:
    """A client's connection, and the engine's once it is there.

    Args:
        client: the client's socket.
        buffer: where what comes is put; all connections may have the same.
        labels: for what is created.
        report: is called with what went wrong, in words.
        over: called once, when both are closed.
        created: is called with the id of each container that was made, and what it is given last when it is done with that:
            only then the client hears of the container. None where none is waited for.
    """

    def __init__(  # noqa: PLR0917 - one caller
        self,
        client: socket,
        buffer: bytearray,
        labels: Mapping[str, str],
        report: Callable[[str], None],
        over: Callable[["Relay"], None],
        created: Created | None = None,
    ) -> None:
        self._client = ProxySocket(client, buffer, self)
        self._engine: ProxySocket | None = None
        self._no_engine = ""
        self._labels = labels
        self._report = report
        self._over = over
        self._closed = self._raw = False
        self._discarding = False  # whether nothing more of the client's goes to the engine
        self._timer: asyncio.TimerHandle | None = None
        self._heads, self._answer_heads = Heads(), Heads()
        self._request: Request | None = None  # whose answer is not over
        self._sent: Length | Chunks | None = None  # the request's body, while it goes on
        self._kept: bytearray | None = None  # that body, where it will be changed
        self._held = bytearray()  # what came behind a request that is not answered
        self._answer: Answer | None = None
        self._answered = self._begun = False
        self._unparsed = False  # whether nothing more of the engine's is read on its way
        self._created = created
        self._withheld: bytearray | None = None  # the answer to the creation of a container, until that is known here
        self._body_at = 0  # where its body begins
        self._waiting = False  # for that, although the answer has come whole

    # Life

    def connected(self, engine: ProxySocket) -> None:
        """Begin."""
        self._engine = engine
        self._settle()

    def failed(self, why: str) -> None:
        """There is no engine: answer 502 once the client has sent a request."""
        self._no_engine = why
        self._settle()

    def close(self) -> None:
        """Cut both. Harmless when done twice."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for side in (self._client, self._engine):
            if side is not None:
                side.close()
        self._over(self)

    # What happens

    def came(self, side: ProxySocket, data: bytearray, size: int) -> None:
        """The first ``size`` bytes of ``data`` came from one side; after this call it holds others."""
        if side is self._client:
            self._from_client(data, size)
        else:
            if self._withheld is None:
                self._client.send(memoryview(data)[:size])
            else:
                self._withheld += memoryview(data)[:size]
            if not self._raw:
                self._from_engine(data, size)
            if self._withheld is not None and not self._waiting and (self._unparsed or len(self._withheld) > MOST_WITHHELD):
                self._hand_on()

    def changed(self, side: ProxySocket) -> None:
        """No more comes from one side, what is sent to it has to wait or has to no more, or nothing can be sent to it."""
        if self._closed:
            return
        if side.write_failed:
            if side is self._client and side.is_gone():
                self._linger()
            elif (other := self._engine if side is self._client else self._client) is not None:
                other.refuse()
        self._settle()

    def _linger(self) -> None:
        """Let the last bytes pass, but do not wait for that for ever."""
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self.close)

    def _settle(self) -> None:
        """Close what is over, and read from each side while there is room on the other."""
        client, engine = self._client, self._engine
        if self._closed:
            return
        if engine is None:
            if client.over and not client.full:
                self.close()
            else:
                client.read(wanted=bool(self._no_engine) and not client.over)
            return
        if self._waiting and not client.peer_closed:
            client.read(wanted=not client.over and len(self._held) <= PIECE)
            engine.read(wanted=False)
            return
        if engine.over:
            self._hand_on()
        if ((client.over and engine.over) or client.peer_closed or engine.peer_closed) and not (client.full or engine.full):
            self.close()
            return
        if client.over and not self._held:
            engine.end()
        if engine.over:
            client.end()
        client.read(wanted=not (client.over or engine.peer_closed or engine.full or len(self._held) > PIECE))
        engine.read(wanted=not (engine.over or client.full))

    # From the client

    def _from_client(self, data: Data, end: int) -> None:
        view, start = memoryview(data), 0
        while start < end and not self._discarding and not self._closed:
            if self._raw:
                self._to_engine(view[start:end])
                return
            if self._request is not None and self._sent is None:
                self._held += view[start:end]
                self._settle()
                return
            try:
                if self._sent is None:
                    start = self._next_request(data, start, end)
                    continue
                stop = self._sent.take(data, start, end)
            except BadMessageError as error:
                self._refuse(400, str(error))
                return
            if self._kept is None:
                self._to_engine(view[start:stop])
            else:
                self._kept += view[start:stop]
            start = stop
            self._go_on()

    def _next_request(self, data: Data, start: int, end: int) -> int:
        """Begin with the request whose head comes, if all of it has; the place behind it. Raises BadMessageError."""
        if data[start] in b"\r\n" and not self._heads.begun:
            self._to_engine(data[start : start + 1])  # an empty line before it: the engine may think of that as it likes
            return start + 1
        raw, start = self._heads.take(data, start, end)
        if not raw:
            return start
        request = read_request(raw)
        self._request, self._sent = request, request.body
        if self._engine is None:
            self._refuse(502, self._no_engine, log=False)
        elif not creates(request.method, request.target):
            self._engine.send(raw)
            if request.body.done:
                self._sent = None
        else:
            self._kept = bytearray()
            if self._created is not None and creates_container(request.target):
                self._withheld = bytearray()
            if request.expects and start == end:
                self._client.send(CONTINUE)
            self._go_on()
        return start

    def _go_on(self) -> None:
        """Look whether the request has come whole."""
        if self._kept is not None and len(self._kept) > MAX_BODY:
            self._refuse(413, f"more than {MAX_BODY >> 20} MiB for something to be created")
            return
        assert self._sent is not None
        if not self._sent.done:
            return
        if self._kept is not None:
            self._create(self._kept)
        self._sent = self._kept = None
        self._next()

    def _create(self, kept: bytearray) -> None:
        assert self._request is not None
        body = unchunked(kept) if isinstance(self._request.body, Chunks) else bytes(kept)
        try:
            body = labelled(body, self._labels)
        except TooDeepError as error:
            self._refuse(400, str(error))
            return
        self._to_engine(self._request.with_length(len(body)) + body)

    def _to_engine(self, data: Data | memoryview) -> None:
        if self._engine is not None:
            self._engine.send(data)

    # From the engine

    def _from_engine(self, data: bytearray, size: int) -> None:
        place = 0
        self._begun = True
        while place < size and not self._unparsed and not self._raw:
            try:
                if self._answer is not None:
                    place = self._answer.body.take(data, place, size)
                    if self._answer.body.done:
                        self._answer_ends()
                elif self._request is None:
                    raise BadMessageError("an answer to nothing that was asked")
                else:
                    place = self._answer_begins(self._request, data, place, size)
            except BadMessageError as error:
                # It passes to the client, who may make more of it; but where a request would begin is unknown now.
                self._unparsed = self._discarding = True
                self._report(f"the engine sent what cannot be read: {error}")

    def _answer_begins(self, request: Request, data: bytearray, place: int, size: int) -> int:
        """Read the head of the answer, if all of it has come; the place behind it. Raises BadMessageError."""
        raw, place = self._answer_heads.take(data, place, size)
        if not raw:
            return place
        answer = read_answer(raw, request.method)
        endless = isinstance(answer.body, Endless)
        if answer.status == 101 or (endless and hijacks(request.method, request.target)):
            self._raw = True
            self._to_engine(self._held)
            self._held = bytearray()
            self._settle()
        elif answer.status >= 200:
            self._answer = answer
            self._discarding = endless  # the last one on this connection
            if self._withheld is not None:
                self._body_at = len(self._withheld) - (size - place)
                if answer.status != HTTPStatus.CREATED or endless:
                    self._hand_on()
            if answer.body.done:
                self._answer_ends()
        return place

    def _answer_ends(self) -> None:
        """Go on, or wait until what was made is known."""
        if self._withheld is None or self._created is None:
            self._next()
            return
        body: Data = self._withheld[self._body_at :]
        if self._answer is not None and isinstance(self._answer.body, Chunks):
            body = unchunked(body)
        if (id_ := created_id(bytes(body))) is None:
            self._hand_on()
            self._next()
            return
        self._waiting = True
        self._created(id_, self._is_known)
        self._settle()

    def _is_known(self) -> None:
        """What was made is known, or cannot be."""
        if self._closed or not self._waiting:
            return
        self._waiting = False
        self._hand_on()
        self._next()
        self._settle()

    def _hand_on(self) -> None:
        """Send the client what was withheld."""
        withheld, self._withheld = self._withheld, None
        if withheld:
            self._client.send(withheld)

    def _next(self) -> None:
        """Go on with the next request once this one has come and is answered whole."""
        if self._answer is not None and self._answer.body.done:
            self._answer, self._answered = None, True
        if not self._answered or self._sent is not None:
            return
        self._answered = self._begun = False
        self._request = None
        if self._held:
            held, self._held = self._held, bytearray()
            self._from_client(held, len(held))
            self._settle()

    # What is refused

    def _refuse(self, status: int, why: str, *, log: bool = True) -> None:
        """Answer instead of the engine, if no answer has begun, and end the connection: nothing more passes."""
        if log:
            self._report(f"a request was refused ({status}): {why}")
        self._discarding = True
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._begun:
            self.close()
            return
        body = json.dumps({"message": why}).encode() + b"\n"
        fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
        shown = b"" if self._request is not None and self._request.method == "HEAD" else body
        self._client.send(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{fields}\r\n\r\n".encode() + shown)
        self._client.end()
        self._no_engine = why
        self._linger()
        self._settle()
