"""The errors of aiodocker and of the engine, as this program's own."""

import asyncio
import errno
import os
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from reaper.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    DependencyError,
    InProgressError,
    InvalidError,
    NoSuchEndpointError,
    NotFoundError,
    ProviderError,
    RateLimitedError,
    RefusedError,
    ServerError,
    TooManyFilesError,
    UnavailableError,
    UnreadableError,
)
from reaper.providers.answers import no_connection
from reaper.providers.docker.docker_host import other_sockets
from reaper.providers.parsing import retry_after

if TYPE_CHECKING:
    import aiodocker

NO_CONNECTION = 900  # the status that aiodocker gives to a failed connection

_OF_STATUS: Mapping[int, type[ProviderError]] = {
    401: DeniedError,
    403: DeniedError,
    404: NotFoundError,
    409: ConflictError,
}
_DISCONNECT = (
    "if its inspection shows no container, an endpoint of one that is gone was left behind: "
    "docker network disconnect --force NETWORK CONTAINER for each that is named there, or a restart of the engine, frees it"
)
_LOST = "a part of it is lost on the engine's disk; remove it by hand with docker rm --force"


@dataclass(frozen=True, slots=True)
class _Message:
    """What the engine's words say besides its status.

    Args:
        status: of the answer.
        words: parts of its message.
        kind: the error that it is.
        hint: what a person can do about it.
    """

    status: int
    words: tuple[str, ...]
    kind: type[ProviderError]
    hint: str = ""


_OF_WORDS = (
    _Message(409, ("already in progress",), InProgressError),
    # An engine that was upgraded or replaced: the next request asks for its version.
    _Message(400, ("client version", " is too "), UnavailableError),
    # A network with endpoints refuses its deletion with 403, which is no matter of permission.
    _Message(403, ("active endpoints",), ConflictError, _DISCONNECT),
    _Message(403, ("configuration network", "is in use"), DependencyError),
    # A volume or an image that something has: it may go when that is gone.
    _Message(409, ("volume is in use",), DependencyError),
    _Message(409, ("image is being used by",), DependencyError),
    _Message(409, ("is using its referenced image",), DependencyError),
    _Message(409, ("has dependent child images",), DependencyError),
    # Podman.
    # Of a container that runs or is paused, or that another call is at work on.
    _Message(500, ("container state improper",), ConflictError),
    _Message(500, ("with more than one tag",), ConflictError),
    _Message(409, ("image is in use by a container",), DependencyError),
    _Message(500, ("has dependent containers",), DependencyError),
    _Message(500, ("network is being used",), ConflictError, _DISCONNECT),
    # Of a pod with a container that runs: Podman 4 tells what stood in the way of each in any order, and of one its cause.
    _Message(500, ("removing container ", " from pod ", "dependency exists"), ConflictError),
    _Message(500, ("is the infra container of pod",), ConflictError, "podman pod rm removes it with its pod"),
    _Message(409, ("volume is being used",), DependencyError),
    _Message(500, ("volume is being used",), DependencyError),
    # A container whose layer is lost.
    _Message(500, ("stat /", ": no such file or directory"), RefusedError, _LOST),
    _Message(500, ("layer does not exist",), RefusedError, _LOST),
    _Message(500, ("is unexpectedly nil",), RefusedError, _LOST),
)
# Podman names the cause of each refusal and answers most of them with 500. These may be over a moment later.
_PASSING = ("locked", "timeout", "timed out", "temporarily", "try again", "deadline", "connection")

# What to do about a refusal that gives no reason: it comes from a proxy or a plugin, since an engine gives one.
_REMEDIES: Mapping[int, str] = {
    401: "a proxy before the engine requires credentials, which this program does not have; name the engine itself as host",
    403: "a proxy or an authorization plugin denies this call; let it through (deploy/README.md lists the calls)",
    404: "no engine answers like this; check that host names an engine, and that the proxy before it supports this call",
}

# aiodocker drops the headers of an error and what it was the answer to; the client's middleware leaves those of the last
# answer of this task here.
last_headers: ContextVar[Mapping[str, str]] = ContextVar("last_headers")
last_request: ContextVar[str] = ContextVar("last_request")
last_dates: ContextVar[tuple[Mapping[str, str], datetime, datetime]] = ContextVar("last_dates")  # see ``clock_skew``
# And the cause that Podman has given for a refusal; empty where none was given.
last_cause: ContextVar[str] = ContextVar("last_cause")


def translate(error: Exception, host: str, *, answered: bool) -> NoReturn:
    """Raise ``error`` as one of ``reaper.errors``, from the original.

    Args:
        error: whatever a request raised.
        host: the engine's address, for messages.
        answered: whether the engine has ever answered.
    """
    import aiodocker  # noqa: PLC0415 - loaded with the client
    import aiohttp  # noqa: PLC0415

    if isinstance(error, ProviderError | ConfigError):
        raise error
    if isinstance(error, aiodocker.DockerError):
        raise _of_status(error, host, answered=answered) from error
    if isinstance(error, asyncio.TimeoutError):
        raise UnavailableError("the engine did not answer in time") from error
    if isinstance(error, OSError) and (local := TooManyFilesError.of(error.errno, host)) is not None:
        raise local from error
    if isinstance(error, aiohttp.ClientError | OSError):
        raise UnavailableError(f"the connection broke: {error}") from error
    if isinstance(error, RecursionError):
        raise UnreadableError(f"the answer of {last_request.get('the engine')} is nested too deep") from error
    if isinstance(error, ValueError | TypeError | KeyError | AttributeError | OverflowError):
        raise UnreadableError(f"the answer of {last_request.get('the engine')} cannot be read: {error}") from error
    raise error


def _of_status(error: "aiodocker.DockerError", host: str, *, answered: bool) -> ProviderError:
    status, message = error.status, str(error.message).strip()
    if status == NO_CONNECTION:
        return _no_connection(error, message, host, answered=answered)
    request = last_request.get("the request")
    rule = next((rule for rule in _OF_WORDS if status == rule.status and all(w in message for w in rule.words)), None)
    if rule is not None and not _is_passing(message):
        return rule.kind(f"{message} ({request}: {status})", hint=rule.hint)
    if status >= 500 and (cause := last_cause.get("")) and not _is_passing(f"{cause} {message}"):
        return RefusedError(f"the engine answered {status}: {message or cause} ({request})")
    known = _OF_STATUS.get(status)
    if known is NotFoundError and not message:
        known = InvalidError  # a proxy that has lost its way says this, too, and it must not pass for the end of a container
    if known and message:
        return known(f"{message} [{request}: {status}]")
    seconds = retry_after(last_headers.get({}).get("Retry-After"))
    kind = known or (RateLimitedError if status == 429 else ServerError if status >= 500 else InvalidError)
    if message:
        return kind(f"the engine answered {status}: {message} [{request}]", retry_after=seconds)
    remedy = _REMEDIES.get(status, "the log of the engine, or of the proxy before it, may say why")
    return kind(f"{request} was answered {status} without a reason; {remedy}", retry_after=seconds)


def _is_passing(words: str) -> bool:
    return any(passing in words.lower() for passing in _PASSING)


def _no_connection(error: "aiodocker.DockerError", message: str, host: str, *, answered: bool) -> ProviderError:
    import aiohttp  # noqa: PLC0415

    cause = error.__context__
    number, why = None, str(cause or message)
    if isinstance(cause, aiohttp.ClientConnectorError) and not isinstance(cause, aiohttp.ClientSSLError):
        # TLS has numbers of its own: its 1 is no EPERM.
        number, why = cause.os_error.errno, no_connection(cause.os_error)
    if (local := TooManyFilesError.of(number, host)) is not None:
        return local
    if number == errno.EACCES:
        return DeniedError(f"no permission on {host}; run as root or as a member of the group that owns the socket")
    if answered:
        return UnavailableError(f"the connection to {host} failed: {why}")
    hint = "start the engine, or name the right one with DOCKER_HOST or host in [[docker]]"
    if number == errno.ENOENT:
        if found := other_sockets(os.environ):
            hint = (
                f"there is one at {' and one at '.join(found)}: name the one you mean with DOCKER_HOST or host in [[docker]]"
            )
        return NoSuchEndpointError(f"no engine at {host}: there is no such socket; {hint}")
    if number == errno.ECONNREFUSED and host.startswith("unix:"):
        return NoSuchEndpointError(f"no engine at {host}: nothing listens on the socket; {hint}")
    if isinstance(cause, aiohttp.ClientSSLError):
        hint = "renew its certificate, or name the authority that issued it: tls_ca in [[docker]]"
    return UnavailableError(f"no engine at {host}: {why}; {hint}")
