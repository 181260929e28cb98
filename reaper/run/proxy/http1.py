"""Where a message of HTTP/1 ends: as much of the protocol as a proxy needs that passes every byte on. Pure: no I/O.

The engine is written in Go. Where its library is lenient (lines that end without a carriage return, blanks behind a chunk's
length) this is too, and where the two could come to different ends of a message it is refused: what the engine takes for
the next request must never pass as this one's body.
"""

import re
from dataclasses import dataclass

MAX_HEAD = 1 << 20
"""Bytes of a head; the engine takes no more either."""

_MAX_LINE = 4096  # of a chunk's length with its extensions
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_END = re.compile(rb"\n\r?\n")
_REQUEST = re.compile(
    rb"(?P<method>%(token)s) (?P<target>[!-\xff]+) HTTP/1\.(?P<minor>[01])\r?\n"
    rb"(?:%(token)s:[^\r\n\0]*\r?\n)*\r?\n" % {b"token": _TOKEN}
)
_STATUS = re.compile(rb"HTTP/1\.[01] (?P<status>[1-5][0-9][0-9])[ \r\n]")
_FIELDS = re.compile(rb"\n(content-length|transfer-encoding|expect):[ \t]*([^\r\n]*)", re.IGNORECASE)
_REPLACED = re.compile(rb"\n(?:content-length|transfer-encoding|trailer|expect):[^\n]*", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")

Data = bytes | bytearray


class BadMessageError(Exception):
    """What came is no HTTP/1, or could end at more than one place. The text says why."""


class Length:
    """A body of so many bytes. As the two below it finds the end: ``done`` says whether it was found."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = not length

    def take(self, _data: Data, start: int, end: int) -> int:
        """The place behind the last byte of ``data[start:end]`` that belongs to the body. Raises BadMessageError."""
        size = min(self._left, end - start)
        self._left -= size
        self.done = not self._left
        return start + size


class Endless:
    """A body that only the end of the connection ends."""

    done = False

    def take(self, _data: Data, _start: int, end: int) -> int:
        """As ``Length.take``."""
        return end


class Chunks:
    """A body in chunks, each with its length before it, and with trailers at its end."""

    __slots__ = ("_left", "_line", "_trailers", "done")

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # of the chunk and the line break behind it
        self._line = b""  # the beginning of a line that goes on in the next piece
        self._trailers = False

    def take(self, data: Data, start: int, end: int) -> int:
        """As ``Length.take``."""
        while True:
            if self._left:
                if self._left > end - start:
                    self._left -= end - start
                    return end
                start += self._left
                self._left = 0
            if not self._line and not self._trailers and (found := _CHUNK.match(data, start, end)):
                self._begin(found)
                start = found.end()
                continue
            stop = data.find(b"\n", start, end) + 1
            self._line += data[start : stop or end]
            if len(self._line) > _MAX_LINE:
                raise BadMessageError("a chunk's length takes no end")
            if not stop:
                return end
            start, line, self._line = stop, self._line, b""
            if self._trailers:
                if not line.strip(b"\r\n"):
                    self.done = True
                    return start
            elif found := _CHUNK.fullmatch(line):
                self._begin(found)
            else:
                raise BadMessageError("a chunk's length is no number")

    def _begin(self, found: "re.Match[bytes]") -> None:
        size = int(found[1], 16)
        self._trailers = size == 0
        self._left = size + 2 if size else 0


def unchunked(raw: Data) -> bytes:
    """What a whole body in chunks says."""
    parts, place = [], 0
    while (found := _CHUNK.match(raw, place)) and (size := int(found[1], 16)):
        parts.append(bytes(raw[found.end() : found.end() + size]))
        place = found.end() + size + 2
    return b"".join(parts)


@dataclass(slots=True)  # a frozen one takes twice as long to make, and one is made for each request
class Request:
    """A request's head.

    Args:
        raw: all of it as it came, with the empty line.
        method: "GET".
        target: what the first line names, as it came: a path, with its query, or a whole URL.
        body: finds the end of the body that follows.
        expects: whether the client waits for 100 Continue before it sends the body.
    """

    raw: bytes
    method: str
    target: bytes
    body: Length | Chunks
    expects: bool

    def with_length(self, length: int) -> bytes:
        """The head for another body, one that is sent at once and in one piece of ``length`` bytes."""
        head = _REPLACED.sub(b"", self.raw).rstrip(b"\r\n")
        return head + b"\r\nContent-Length: %d\r\n\r\n" % length


@dataclass(slots=True)
class Answer:
    """A response's head: its status, and the body that follows. ``Endless`` is one that only the connection's end ends."""

    status: int
    body: Length | Chunks | Endless


class Heads:
    """Finds the end of a head, in as many pieces as it may come.

    Attributes:
        begun: what came of one that has not come whole.
    """

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = bytearray()

    def take(self, data: Data, start: int, end: int) -> tuple[bytes, int]:
        """The head, and the place behind it in ``data[start:end]``; nothing and ``end`` when it goes on.

        Raises:
            BadMessageError: it is longer than any may be.
        """
        before = len(self.begun)
        if not before and (found := _END.search(data, start, end)):
            return bytes(memoryview(data)[start : found.end()]), found.end()
        self.begun += memoryview(data)[start:end]
        if found := _END.search(self.begun, max(before - 3, 0)):
            raw = bytes(memoryview(self.begun)[: found.end()])
            self.begun = bytearray()
            return raw, start + len(raw) - before
        if len(self.begun) > MAX_HEAD:
            raise BadMessageError(f"a head of more than {MAX_HEAD} bytes")
        return b"", end


def read_request(raw: bytes) -> Request:
    """The head ``raw``. Raises BadMessageError where the engine might read another one."""
    found = _REQUEST.fullmatch(raw)
    if found is None:
        raise BadMessageError(f"no request of HTTP/1.1: {_shown(raw)}")
    length, codings, expects = _framing(raw)
    if codings and (found["minor"] == b"0" or [coding.lower() for coding in codings] != [b"chunked"]):
        raise BadMessageError(f"a Transfer-Encoding other than chunked: {_shown(b', '.join(codings))}")
    body = Chunks() if codings else Length(length or 0)
    return Request(raw, found["method"].decode(), found["target"], body, expects)


def read_answer(raw: bytes, method: str) -> Answer:
    """The head ``raw`` of the answer to a request with this method. Raises BadMessageError."""
    found = _STATUS.match(raw)
    if found is None:
        raise BadMessageError(f"no answer of HTTP/1.1: {_shown(raw)}")
    status = int(found["status"])
    length, codings, _ = _framing(raw)
    body: Length | Chunks | Endless
    if method == "HEAD" or status < 200 or status in (204, 304):
        body = Length(0)
    elif codings:
        body = Chunks()
    else:
        body = Endless() if length is None else Length(length)
    return Answer(status, body)


def _framing(raw: bytes) -> tuple[int | None, list[bytes], bool]:
    """The length that a head names, the codings of its body, and whether the client waits before it sends that."""
    fields = _FIELDS.findall(raw)
    if not fields:
        return None, [], False
    lengths, codings, expects = set[bytes](), [], False
    for name, value in fields:
        first = name[0] | 0x20
        if first == ord("c"):
            lengths.add(value.strip())
        elif first == ord("t"):
            codings.append(value.strip())
        else:
            expects = expects or value.strip().lower() == b"100-continue"
    if not lengths:
        return None, codings, expects
    length = lengths.pop()
    if lengths or not length.isdigit() or len(length) > 18:
        raise BadMessageError(f"a Content-Length that is no number: {_shown(length)}")
    return int(length), codings, expects


def _shown(raw: bytes) -> str:
    """The beginning of what came, for people."""
    line = raw.split(b"\n", 1)[0]
    return ascii(line[:60].decode("latin-1")) + ("..." if len(line) > 60 else "")
