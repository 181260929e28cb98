"""Listening on an address: its errors as messages for its author, and a socket that listens already."""

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from reaper.errors import ConfigError


@contextmanager
def explained(host: str, port: int, where: str, example: str) -> Iterator[None]:
    """Raise ConfigError for what listening on an address raises.

    Args:
        host: it, or "" for all of this machine's.
        port: its port.
        where: the key or variable that said so.
        example: an address that would be right.
    """
    write = f'write for example "{example}"'
    try:
        yield
    except (OSError, UnicodeError, OverflowError) as error:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if host else f"port {port}"
        # asyncio gives no number, since Python 3.13, where no address could be had.
        number = (error.errno or errno.EADDRNOTAVAIL) if isinstance(error, OSError) else None
        if isinstance(error, socket.gaierror | UnicodeError):
            raise ConfigError(f"cannot resolve the host of {address}", write, where) from error
        if number == errno.EADDRINUSE:
            hint = f'stop what listens there (ss -ltnp "sport = {port}"), or name another port'
            raise ConfigError(f"{address} is taken", hint, where) from error
        if number in (errno.EACCES, errno.EPERM):
            hint = "ports below 1024 are for root; name one above"
            raise ConfigError(f"no permission to listen on {address}", hint, where) from error
        if number == errno.EADDRNOTAVAIL:
            hint = 'name one of its own, "0.0.0.0" for all of them'
            raise ConfigError(f"this machine has no such address: {address}", hint, where) from error
        raise ConfigError(f"cannot listen on {address}: {error}", write, where) from error


def inherited(env: Mapping[str, str], first: int) -> socket.socket | None:
    """Return the socket that listens already, where one was passed on as by sd_listen_fds(3). Raises ConfigError.

    Args:
        env: says so.
        first: its file descriptor.
    """
    if env.get("LISTEN_PID") != str(os.getpid()) or env.get("LISTEN_FDS") != "1":
        return None
    try:
        return socket.socket(fileno=first)
    except OSError as error:
        raise ConfigError(f"file descriptor {first} is no socket: {error.strerror}", where="LISTEN_FDS") from None
