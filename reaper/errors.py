"""The error tree. Providers translate every foreign error into one of these, at once.

``ReaperError`` is what the command line turns into a message and an exit code; ``ProviderError`` and its
children are what a provider may raise, and what the sweep turns into outcomes.
"""

import errno
from typing import ClassVar


class ReaperError(Exception):
    """Anything that this program foresaw. Its text is meant for people and holds no secret."""


class ConfigError(ReaperError):
    """The configuration or the command line is wrong: exit code 2.

    Args:
        problem: what is wrong, with the key and the value.
        hint: what would be right.
        where: the file, variable or option that said so.
    """

    def __init__(self, problem: str, hint: str = "", where: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        return f"{text}\n  {self.hint}" if self.hint else text


class ProviderError(ReaperError):
    """A call to an endpoint did not do what was asked.

    Attributes:
        retryable: whether the same call may succeed a moment later.
        label: the error's class as a metric and a log line name it.
        retry_after: seconds for which the server asked to be left alone, or None.
        hint: what a person can do about it, where something is known.
    """

    retryable: ClassVar[bool] = False
    label: ClassVar[str] = "error"

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.hint = hint

    @property
    def advice(self) -> str:
        """Return the message, with the hint after it where there is one."""
        return f"{self}; {self.hint}" if self.hint else str(self)


class NotFoundError(ProviderError):
    """The resource does not exist (any more)."""

    label = "not_found"


class InProgressError(ProviderError):
    """A removal of the same resource by another client is under way: wait and verify."""

    label = "in_progress"


class ConflictError(ProviderError):
    """The server refused since the resource is in use, for example started meanwhile."""

    label = "conflict"


class DeniedError(ProviderError):
    """The credentials do not allow it."""

    label = "denied"


class CredentialsError(ProviderError):
    """The credentials themselves are refused. Asking again makes it worse: wrong keys are counted, and block good ones."""

    label = "credentials"


class DependencyError(ProviderError):
    """The server refuses until something else is gone, for example the forks of a sandbox."""

    label = "dependency"


class InvalidError(ProviderError):
    """The server does not understand the request. Asking again changes nothing."""

    label = "invalid"


class RefusedError(ProviderError):
    """The endpoint will not do this with this resource, now or later: something that belongs to it is lost, for example."""

    label = "refused"


class PartlyListedError(ProviderError):
    """Some of what the endpoint holds cannot be seen from here; the rest was swept."""

    label = "partly_listed"


class NoSuchEndpointError(ProviderError):
    """Nothing is there to talk to: no socket, no such host, and nothing has answered before."""

    label = "no_endpoint"


class SameEndpointError(ProviderError):
    """Two endpoints lead to one place: it is swept under one name, since limits are counted by name."""

    label = "same_endpoint"


class CircuitOpenError(ProviderError):
    """The endpoint failed so often in a row that it is left alone for the rest of this round."""

    label = "circuit_open"


class LeasesUnknownError(ProviderError):
    """What is leased is unknown, so nothing is deleted, on any endpoint."""

    label = "leases_unknown"


_NO_DESCRIPTOR = {errno.EMFILE: "this process", errno.ENFILE: "this host"}


class TooManyFilesError(ProviderError):
    """This process or host has no descriptor left for a connection: nothing was sent, and the endpoint is not to blame."""

    retryable = True
    label = "too_many_files"
    hint = "ulimit -n, LimitNOFILE= in a unit, --ulimit nofile= of docker run"

    @classmethod
    def of(cls, number: int | None, address: str) -> "TooManyFilesError | None":
        """The error when a connection to ``address`` failed with this errno; None when that says something else."""
        if number not in _NO_DESCRIPTOR:
            return None
        who = _NO_DESCRIPTOR[number]
        return cls(f"no connection to {address} could be made: {who} may not have more files open; allow more: {cls.hint}")


class UnavailableError(ProviderError):
    """The connection could not be made or broke. Whether the call took effect is unknown."""

    retryable = True
    label = "unavailable"


class CallTimeoutError(UnavailableError):
    """No answer in time. Whether the call took effect is unknown."""

    label = "timeout"


class ServerError(UnavailableError):
    """The server said 5xx. Whether the call took effect is unknown."""

    label = "server_error"


class UnreadableError(UnavailableError):
    """The answer could not be parsed. Whether the call took effect is unknown."""

    label = "unreadable"


class RateLimitedError(ProviderError):
    """429: too many requests; the call did not take effect.

    Args:
        everything: whether it stands for all that the endpoint is asked, and not for calls of the same kind only.
    """

    retryable = True
    label = "rate_limited"

    def __init__(self, message: str, *, retry_after: float | None = None, everything: bool = False) -> None:
        super().__init__(message, retry_after=retry_after)
        self.everything = everything


PASSING = frozenset(
    {
        *(
            kind.label
            for kind in (
                CallTimeoutError,
                CircuitOpenError,
                DependencyError,
                InProgressError,
                LeasesUnknownError,
                NoSuchEndpointError,
                RateLimitedError,
                ServerError,
                UnavailableError,
            )
        ),
        "still_listed",
        "unconfirmed",
    }
)
"""Labels of failed deletions after which another try may succeed. An engine that restarts is reported as none, too."""
