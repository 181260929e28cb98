"""How many files this process may have open at once: each connection is one, and the limit of a login is low."""

import resource
from contextlib import suppress


def make_room(most: int) -> tuple[int, int]:
    """Raise the soft limit to ``most`` descriptors, as far as that is allowed; the limits before it, soft and hard."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # systemd's filter of calls forbids it: the unit says it itself
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft, hard
