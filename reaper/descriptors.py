"""How many files this process may have open at once: each connection is one, and the limit of a login is low."""

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

RESERVE = 16  # for the journal, the memory, leases, logs, and modules that are loaded late


def make_room(most: int) -> tuple[int, int]:
    """Raise the soft limit to ``most`` descriptors, as far as that is allowed; the limits before it, soft and hard."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # systemd's filter of calls forbids it: the unit says it itself
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft, hard


@contextmanager
def with_room(most: int) -> Iterator[None]:
    """Have up to ``most`` descriptors within the block; what is started after it inherits the limits as they were."""
    before = make_room(most)
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def limit() -> int | None:
    """The soft limit; None where there is none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def for_connections() -> tuple[int, int] | None:
    """How many connections may be made now, and how many at most while no other is open. None where there is no limit.

    The second number counts what is open and no socket: an earlier sweep's connections are used again, or end by themselves.
    """
    soft = limit()
    if soft is None:
        return None
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - one call, and no object for each
    except FileNotFoundError:  # no /proc
        numbers = [0, 1, 2]
    except OSError:
        return 0, 0  # not one descriptor is left to look with
    sockets = sum(map(_is_socket, numbers))
    return soft - RESERVE - len(numbers), soft - RESERVE - len(numbers) + sockets


def _is_socket(number: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False  # the one that the folder was read with
