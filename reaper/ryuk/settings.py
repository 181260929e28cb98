"""The variables by which ``reaper ryuk`` is set up: those of the original, with its defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from reaper.core.durations import GO_EXAMPLES, parse_go
from reaper.errors import ConfigError

_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


@dataclass(frozen=True, slots=True)
class RyukSettings:
    """What the variables say.

    Args:
        port: to listen on, on all addresses; 0 takes one that is free.
        connection_timeout: how long the first client is waited for.
        reconnection_timeout: how long one is waited for whose connection is gone.
        request_timeout: of one call to the engine.
        remove_retries: how often in a row what does not go is tried.
        retry_offset: what was created later than the time of a look plus this is a sign that something is still being made.
        changes_retry_interval: from one such look to the next.
        shutdown_timeout: how long it may take from the end of the session, or from SIGTERM, to the end.
        verbose: whether to log at the level debug.
    """

    port: int = 8080
    connection_timeout: timedelta = timedelta(seconds=60)
    reconnection_timeout: timedelta = timedelta(seconds=10)
    request_timeout: timedelta = timedelta(seconds=10)
    remove_retries: int = 10
    retry_offset: timedelta = timedelta(seconds=-1)
    changes_retry_interval: timedelta = timedelta(seconds=1)
    shutdown_timeout: timedelta = timedelta(minutes=10)
    verbose: bool = False

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "RyukSettings":
        """What the environment says; an empty variable says nothing. Raises ConfigError."""
        default = cls()

        def span(variable: str, unset: timedelta, *, signed: bool = False) -> timedelta:
            if not (text := env.get(variable, "")):
                return unset
            try:
                found = parse_go(text)
            except ValueError as error:
                raise ConfigError(str(error), where=variable) from None
            if found <= timedelta(0) and not signed:
                raise ConfigError(f"{text!r} is no time to wait", f"write for example {GO_EXAMPLES}", variable)
            return found

        return cls(
            port=_number(env, "RYUK_PORT", default.port, 0, 65535),
            connection_timeout=span("RYUK_CONNECTION_TIMEOUT", default.connection_timeout),
            reconnection_timeout=span("RYUK_RECONNECTION_TIMEOUT", default.reconnection_timeout),
            request_timeout=span("RYUK_REQUEST_TIMEOUT", default.request_timeout),
            remove_retries=_number(env, "RYUK_REMOVE_RETRIES", default.remove_retries, 1, 1_000_000),
            retry_offset=span("RYUK_RETRY_OFFSET", default.retry_offset, signed=True),
            changes_retry_interval=span("RYUK_CHANGES_RETRY_INTERVAL", default.changes_retry_interval),
            shutdown_timeout=span("RYUK_SHUTDOWN_TIMEOUT", default.shutdown_timeout),
            verbose=_flag(env, "RYUK_VERBOSE"),
        )


def _number(env: Mapping[str, str], variable: str, unset: int, least: int, most: int) -> int:
    if not (text := env.get(variable, "")):
        return unset
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise ConfigError(f"{text!r} is no whole number from {least} to {most}", f"write for example {unset}", variable)
    return int(text)


def _flag(env: Mapping[str, str], variable: str) -> bool:
    text = env.get(variable, "")
    if text and text not in (*_TRUE, *_FALSE):
        raise ConfigError(f"{text!r} is neither true nor false", "write true or false", variable)
    return text in _TRUE
