"""Inputs that resemble those of a corpus: without an instrumented interpreter, and the same for the same seed."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

CORPUS = Path(__file__).parent / "corpus"
LARGEST = 1 << 16  # bytes

_WORDS = rb"""
" ' [ ] { } {} [] : , ; = * [! % %00 \ null true "" 0 -1 1e999 -0.0 NaN Infinity 0x7f 1_0 18446744073709551616 -62135596800
"\ud800" "0001-01-01T00:00:00Z" "9999-12-31T23:59:59+23:59" "2026-11-21T00:00:00" 1969-12-31 {"seconds":1e300} HTTP/1.1
Transfer-Encoding:chunked Content-Length:5
"""
TOKENS = (
    *_WORDS.split(),
    *(
        b"",
        b"\0",
        b" ",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\x1b[2J",
        b"\xe2\x80\xae",
    ),
    *(b"9" * 20, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"a." * 2000 + b"a=1", b"x" * 5000),
    b"Thu, 01 Jan 1970 00:00:00 -0000",
)


def seeds(target: str) -> list[bytes]:
    """The corpus of a target: what was written for it, and what was once found."""
    return [file.read_bytes() for file in sorted((CORPUS / target).iterdir())]


def mutations(corpus: Sequence[bytes], random: Random) -> Iterator[bytes]:
    """Inputs without an end."""
    while True:
        data = bytearray(random.choice(corpus))
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            _mutate(data, corpus, random)
        yield bytes(data[:LARGEST])


def _mutate(data: bytearray, corpus: Sequence[bytes], random: Random) -> None:
    start = random.randint(0, len(data))
    end = min(len(data), start + random.choice((0, 1, 1, 4, 16, random.randint(0, len(data)))))
    match random.randrange(6):
        case 0 if end > start:  # a bit is another
            data[start] ^= 1 << random.randrange(8)
        case 1:  # something is missing
            del data[start:end]
        case 2:  # something comes twice
            data[end:end] = data[start:end]
        case 3:  # another input goes on
            other = random.choice(corpus)
            data[start:] = other[random.randint(0, len(other)) :]
        case 4 if values := _values(data):  # another value
            first, last = random.choice(values)
            data[first:last] = random.choice(TOKENS)
        case _:
            data[start:end] = random.choice(TOKENS)


def _values(data: bytearray) -> list[tuple[int, int]]:
    """Where values of JSON or TOML stand, roughly: between a separator and the next."""
    marks = [place for place, byte in enumerate(data[:4096]) if byte in b':=,[]{}&\n"']
    return [(first + 1, last) for first, last in pairwise(marks) if last - first > 1]
