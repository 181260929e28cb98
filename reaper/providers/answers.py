"""Reading HTTP answers within bounds: what an answer may take in memory, what of it people are shown, and redirects."""

import json
import os
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic_core import from_json

from reaper.errors import InvalidError, UnreadableError

if TYPE_CHECKING:
    import aiohttp

REDIRECTS = frozenset({300, 301, 302, 303, 305, 306, 307, 308})
_GZIP_OR_ZLIB = 47  # zlib's window bits for "find out which of the two it is"
_SHOWN = 500  # characters of an answer's own text
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


async def read_bounded(response: "aiohttp.ClientResponse", request: str, most: int) -> bytes:
    """Return the body of an answer, decompressed. The client must not decompress it itself (``auto_decompress=False``).

    Args:
        response: an answer whose body has not been read.
        request: method and path, for messages.
        most: the largest body in bytes, decompressed.

    Raises:
        UnreadableError: the body is larger, or its encoding cannot be undone.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        response.close()
        raise UnreadableError(f"the answer of {request} has the encoding {_clean(encoding)!r}, which was not asked for")
    decoder = None if encoding in ("", "identity") else zlib.decompressobj(_GZIP_OR_ZLIB)
    parts: list[bytes] = []
    size = 0
    try:
        async for chunk in response.content.iter_any():
            part = chunk if decoder is None else decoder.decompress(chunk, most - size + 1)
            size += len(part)
            if size > most:
                raise UnreadableError(f"the answer of {request} is larger than {most >> 20} MiB")
            parts.append(part)
        if decoder is not None and size and not decoder.eof:
            raise UnreadableError(f"the compressed answer of {request} is cut off")
    except zlib.error as error:
        response.close()
        raise UnreadableError(f"the answer of {request} cannot be decompressed: {error}") from error
    except BaseException:
        response.close()  # the rest is not waited for, and nothing else closes what a middleware has not handed on
        raise
    return b"".join(parts)


def parsed(body: bytes) -> object:
    """Return what the JSON of an answer says, short texts that come again and again as one object each.

    Raises ValueError or RecursionError for what is no JSON.
    """
    try:
        found: object = from_json(body, cache_strings="all")  # takes two thirds of the time of ``json``
    except ValueError:
        found = json.loads(body)  # reads what the other refuses: halves of surrogate pairs, other encodings
    return found


def refuse_redirect(request: str, address: str, status: int, headers: Mapping[str, str], setting: str) -> None:
    """Raise InvalidError when an answer is a redirect: its target was not configured.

    Args:
        request: method and path.
        address: what was asked.
        status: of the answer.
        headers: of the answer.
        setting: the key of the configuration that names the address.
    """
    if status in REDIRECTS:
        where = _redirects_to(headers.get("Location"))
        advice = f"which is not followed; if that is the right one, name it as {setting}"
        raise InvalidError(f"{request}: {address} redirects to {where} ({status}), {advice}")


def _redirects_to(location: str | None) -> str:
    """Scheme, host and port, without what may be secret: user, path and query."""
    with suppress(ValueError):
        parts = urlsplit(location or "")
        if parts.hostname:
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            port = "" if parts.port is None else f":{parts.port}"
            return _clean(f"{parts.scheme or 'http'}://{host}{port}")
        if parts.path:
            return "another path of its own"
    return "an address that it does not give"


def message(body: bytes) -> str:
    """Return the message of a JSON error, for people; empty where the body is not such an error."""
    with suppress(ValueError, RecursionError):
        error = json.loads(body)
        detail = error.get("message") if isinstance(error, dict) else None
        if isinstance(detail, list):
            detail = "; ".join(str(part) for part in detail)
        if isinstance(detail, str) and not _is_markup(detail):
            return _clean(detail)
    return ""


def cause(body: bytes) -> str:
    """Return the cause of a JSON error, which Podman names beside its message; empty where the body has none."""
    with suppress(ValueError, RecursionError):
        error = json.loads(body)
        detail = error.get("cause") if isinstance(error, dict) else None
        if isinstance(detail, str):
            return _clean(detail)
    return ""


def text(body: bytes) -> str:
    """Return what an error's body says, for people: its JSON message, or its plain text; never markup."""
    if detail := message(body):
        return detail
    plain = body[: 4 * _SHOWN].decode("utf-8", errors="replace")
    if _is_markup(plain) or plain.lstrip()[:1] in ("{", "[") or plain.strip() == "null":
        return ""
    return _clean(plain)


def _is_markup(words: str) -> bool:
    return words.lstrip().startswith("<")


def _clean(words: str) -> str:
    return _CONTROL.sub(" ", words).strip()[:_SHOWN]


def no_connection(error: OSError) -> str:
    """Why none was made: aiohttp's own words repeat the address, and speak of SSL where there is none."""
    number = error.errno
    return (os.strerror(number) if number is not None and number > 0 else error.strerror or str(error)).lower()
