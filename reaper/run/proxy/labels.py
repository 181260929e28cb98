"""The three requests that make something that outlives them, and the labels that are added to them. Pure: no I/O.

The body is edited and not written anew: what the client wrote besides stays as it was, byte for byte.
"""

import json
import re
from collections.abc import Mapping
from posixpath import normpath
from typing import Any
from urllib.parse import unquote_to_bytes

MAX_BODY = 64 << 20
"""Bytes of such a body; those of Docker's tools have some thousand."""

_CREATE = re.compile(rb"(?:/v[0-9.]+)?/(containers|networks|volumes)/create")
_ID = re.compile("[0-9a-f]{64}")
_HIJACKED = re.compile(rb"(?:/v[0-9.]+)?/(?:containers/.+/attach|exec/.+/start)")
_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)  # their values do not matter here


class TooDeepError(Exception):
    """A body is nested so deeply that it cannot be read here, while the engine may be able to."""


def creates(method: str, target: bytes) -> bool:
    """Whether the engine would take such a request for the creation of a container, network or volume.

    It is one too where the engine would redirect to the path without its "//" and "..", or would refuse it.
    """
    return method.upper() == "POST" and _CREATE.fullmatch(_path(target)) is not None


def creates_container(target: bytes) -> bool:
    """Whether one of these requests makes a container."""
    found = _CREATE.fullmatch(_path(target))
    return found is not None and found[1] == b"containers"


def created_id(body: bytes) -> str | None:
    """The id of the container that the engine says it has made, by the body of its answer; None where that is none."""
    try:
        found = json.loads(body)["Id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if isinstance(found, str) and _ID.fullmatch(found) else None


def hijacks(method: str, target: bytes) -> bool:
    """Whether an answer without an end makes the connection a stream in both directions, without a word of upgrading."""
    return method == "POST" and _HIJACKED.fullmatch(_path(target)) is not None


def _path(target: bytes) -> bytes:
    if not target.startswith(b"/"):  # a whole URL
        target = re.sub(rb"^[A-Za-z][A-Za-z0-9+.\-]*:(//[^/?]*)?", b"", target)
    path = unquote_to_bytes(target.partition(b"?")[0])
    return normpath(b"/" + path.lstrip(b"/"))


def labelled(body: bytes, labels: Mapping[str, str]) -> bytes:
    """``body`` with these labels, as far as it has none of their names; what the engine will refuse stays as it is.

    As the engine reads it: keys in any case, the first value of the body, whatever follows it; of a key that is there
    more than once all objects since the last null. Raises TooDeepError.
    """
    # The engine puts U+FFFD where the bytes are no UTF-8. That is its business: they pass as they are.
    text = body.decode("utf-8", "surrogateescape")
    try:
        inside, empty, found = _labels_in(text)
    except RecursionError:
        raise TooDeepError("the body is nested too deeply") from None
    except (ValueError, IndexError):
        return body
    theirs: dict[str, Any] = {}
    for value, _, _ in found:
        if value is None:
            theirs.clear()
        elif isinstance(value, dict):
            theirs.update(value)
        else:
            return body
    ours = json.dumps({name: value for name, value in labels.items() if name not in theirs})
    if ours == "{}":
        return body
    if not found:
        added = f'"Labels":{ours}' + ("" if empty else ",")
        return (text[:inside] + added + text[inside:]).encode("utf-8", "surrogateescape")
    value, start, end = found[-1]
    if value:
        end, ours = start + 1, f"{ours[:-1]},"  # in front of what is there
    return (text[:start] + ours + text[end:]).encode("utf-8", "surrogateescape")


def _labels_in(text: str) -> tuple[int, bool, list[tuple[Any, int, int]]]:
    """The place behind the body's opening brace, whether nothing follows, and each value of "Labels" with its place.

    Raises ValueError or IndexError for what is no JSON object.
    """
    found: list[tuple[Any, int, int]] = []
    inside = place = _expect(text, 0, "{")
    if text[_skip(text, place)] == "}":
        return inside, True, found
    while True:
        key, place = _DECODER.raw_decode(text, _expect(text, place, '"') - 1)
        start = _skip(text, _expect(text, place, ":"))
        value, end = _DECODER.raw_decode(text, start)
        if key.casefold() == "labels":
            found.append((value, start, end))
        place = _skip(text, end)
        if text[place] == "}":
            return inside, False, found
        place = _expect(text, place, ",")


def _skip(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    assert found is not None  # it matches nothing, too
    return found.end()


def _expect(text: str, place: int, mark: str) -> int:
    place = _skip(text, place)
    if text[place] != mark:
        raise ValueError(f"{mark} is not at {place}")
    return place + 1
