"""Where a message ends, wherever it is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaper.run.proxy.http1 import BadMessageError, Chunks, Endless, Length, read_answer, read_request, unchunked
from tests.proxy.lab import chunked, cut


@given(
    chunked(lines=(b"\r\n", b"\n", b" \r\n", b";a=b\r\n", b' ; x="y"\r\n')), st.lists(st.integers(0, 10_000), max_size=12)
)
def test_the_end_of_a_body_in_chunks(body: tuple[bytes, bytes], places: list[int]) -> None:
    raw, said = body
    rest = b"0\r\n\r\nPOST"
    chunks, taken = Chunks(), b""
    for piece in cut(raw + rest, places):
        if chunks.done:
            break
        stop = chunks.take(b"..." + piece + b"...", 3, 3 + len(piece)) - 3
        assert stop == len(piece) or chunks.done
        taken += piece[:stop]
    assert taken == raw
    assert unchunked(raw) == said


@pytest.mark.parametrize(
    "raw", [b"\r\n", b"x\r\n", b"-1\r\n", b"0x5\r\n", b"1_0\r\n", b"12345678123456781\r\n", b"5" + b" " * 5000]
)
def test_what_is_no_chunk(raw: bytes) -> None:
    with pytest.raises(BadMessageError):
        Chunks().take(raw, 0, len(raw))


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/2.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.5\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / x HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length:\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\rContent-Length: 5\r\n\r\n",
        "GET / HTTP/1.1\r\nX: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nno field\r\n\r\n",
    ],
)
def test_a_head_that_could_be_read_in_two_ways_is_refused(head: str) -> None:
    with pytest.raises(BadMessageError):
        read_request(head.encode())


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ("", Length),
        ("Content-Length: 5\r\n", Length),
        ("content-length:5 \r\ncontent-length: 5\r\n", Length),
        ("Content-Length: 5\nHost: x\n", Length),
        ("Transfer-Encoding: Chunked\r\n", Chunks),
        ("Content-Length: 3\r\nTRANSFER-ENCODING:\tchunked \r\n", Chunks),  # the engine goes by the chunks, too
    ],
)
def test_a_request_says_where_it_ends(fields: str, body: type) -> None:
    request = read_request(f"POST /x?y HTTP/1.1\r\nHost: docker\r\n{fields}\r\n".encode())
    assert (request.method, request.target, request.expects) == ("POST", b"/x?y", False)
    assert isinstance(request.body, body)
    if body is Length:
        length = 5 if fields else 0
        assert request.body.take(b"x" * 9, 0, 9) == length


def test_a_head_for_another_body_keeps_all_other_fields() -> None:
    fields = b"host:  x\r\nExpect: 100-continue\r\nX-Length: 1\r\nTransfer-encoding: chunked\r\nB: \xe9\nTrailer: T\r\n\r\n"
    request = read_request(b"POST / HTTP/1.1\r\n" + fields)
    assert request.expects
    assert request.with_length(7) == b"POST / HTTP/1.1\r\nhost:  x\r\nX-Length: 1\r\nB: \xe9\r\nContent-Length: 7\r\n\r\n"
    assert read_request(b"POST / HTTP/1.1\r\n\r\n").with_length(0) == b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "method", "body"),
    [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "GET", Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", Chunks),
        ("HTTP/1.1 200\r\n\r\n", "GET", Endless),
        ("HTTP/1.0 200 OK\r\n\r\n", "GET", Endless),
    ],
)
def test_an_answer_says_where_it_ends(head: str, method: str, body: type) -> None:
    assert isinstance(read_answer(head.encode(), method).body, body)


@pytest.mark.parametrize(("status", "method"), [(200, "HEAD"), (204, "GET"), (304, "GET"), (100, "POST"), (101, "POST")])
def test_an_answer_without_a_body(status: int, method: str) -> None:
    answer = read_answer(f"HTTP/1.1 {status} x\r\nTransfer-Encoding: chunked\r\n\r\n".encode(), method)
    assert answer.status == status
    assert answer.body.done


@pytest.mark.parametrize("head", ["HTTP/2 200\r\n\r\n", "ICY 200 OK\r\n\r\n", "HTTP/1.1 999 x\r\n\r\n", "\r\n\r\n"])
def test_what_is_no_answer(head: str) -> None:
    with pytest.raises(BadMessageError):
        read_answer(head.encode(), "GET")
