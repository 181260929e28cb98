"""What a line of the Ryuk protocol claims. Pure: no I/O, no clock.

A line is a URL query string of Docker filters, ANDed: ``label=org.testcontainers.session-id=abc``, others behind &.
What it matches is deleted when its client is gone, so it is a claim of ownership, and is held narrow: labels with their
values, under keys that are set aside for that, and at least one of them that identifies this session.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote_plus

from reaper.core.claim_check import ClaimError, check
from reaper.core.lease import Claim
from reaper.core.scope import Selector

LONGEST = 8 * 1024  # bytes of a line
MOST_FILTERS = 32  # in a line
SHOWN = 60  # characters of what a client sent, in a message

_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_GLOB = re.compile(r"[*?\[]")
_HTTP = re.compile(rb"[A-Z]+ \S+ HTTP/\d\.\d")


class LineError(ValueError):
    """A line that is not taken; says why, and repeats nothing that could be a secret."""


def claim_of(line: bytes, claimable: Sequence[str]) -> Claim:
    """What a line claims. Raises LineError.

    Args:
        line: without its line break.
        claimable: globs of the keys that may be claimed by.
    """
    labels: dict[str, str] = {}
    for name, value in _filters(line):
        if name != "label":
            raise LineError(f"the filter {_shown(name)} is not taken, only label=KEY=VALUE is")
        key, equals, text = value.partition("=")
        if not key or not equals or not text:
            raise LineError(f"label {_shown(key)} comes without its value; write label=KEY=VALUE")
        if not value.isprintable():
            raise LineError(f"label {_shown(key)} has a character that cannot be printed")
        if _GLOB.search(value):
            raise LineError(f"label {_shown(key)} has one of * ? [, and a label is claimed without globs")
        if labels.setdefault(key, text) != text:
            raise LineError(f"label {_shown(key)} comes with two values, and nothing has both")
    if not labels:
        raise LineError("it has no filter")
    claim = Claim(Selector(labels=tuple(sorted(f"{key}={text}" for key, text in labels.items()))))
    try:
        check(claim, claimable)
    except ClaimError as error:
        raise LineError(str(error)) from None
    return claim


def is_http(line: bytes) -> bool:
    """Whether it begins a request of HTTP: any web page can have a browser send one here, with lines of its own in it."""
    return _HTTP.fullmatch(line) is not None


def _filters(line: bytes) -> Iterator[tuple[str, str]]:
    """Names and values of a query string. Raises LineError."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise LineError("it is not UTF-8") from None
    if _BROKEN_ESCAPE.search(text):
        raise LineError("it has a % that begins no escape")
    if ";" in text:
        raise LineError("it has a bare ; which may or may not part filters; write & or %3B")
    parts = [part for part in text.split("&") if part]
    if len(parts) > MOST_FILTERS:
        raise LineError(f"it has more than {MOST_FILTERS} filters")
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise LineError("it is no query string: a part of it has no =")
        try:
            yield unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
        except UnicodeDecodeError:
            raise LineError("its escapes are not UTF-8") from None


def _shown(text: str) -> str:
    """What a client sent, for a message: short, and nothing in it that a terminal would obey."""
    return ascii(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def lease_id(claim: Claim) -> str:
    """The id of the lease for a claim: the same for every process, at any time."""
    return f"ryuk-{hashlib.sha256(chr(10).join(claim.selector.labels).encode()).hexdigest()[:32]}"


class Lines:
    """Cuts what arrives into lines, and keeps at most one line of it."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    @property
    def unfinished(self) -> bool:
        """Whether the last line has not ended yet."""
        return bool(self._rest) or self._skipping

    def feed(self, chunk: bytes) -> Sequence[bytes | None]:
        """The lines that have ended, without their line breaks; None for one that is longer than ``LONGEST``."""
        *ended, rest = chunk.split(b"\n")
        lines: list[bytes | None] = []
        for piece in ended:
            line = None if self._skipping else (self._rest + piece).removesuffix(b"\r")
            lines.append(None if line is None or len(line) > LONGEST else line)
            self._rest, self._skipping = b"", False
        self._rest += b"" if self._skipping else rest
        if len(self._rest) > LONGEST + 1:  # the one may be the first half of its line break
            self._rest, self._skipping = b"", True
        return lines
