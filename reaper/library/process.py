"""Which process this is. A fork copies every open block; what its end would clean up belongs to the parent alone."""

import os

Process = tuple[int, int]
_forks = 0


def current() -> Process:
    """Return the id of this process and its number of forks: in a namespace of its own a child may have its parent's id."""
    return os.getpid(), _forks


def _forked() -> None:
    global _forks  # noqa: PLW0603 - it is a property of the process
    _forks += 1


os.register_at_fork(after_in_child=_forked)
