"""stdin, stdout and stderr that change nothing: closed, broken or full, the program does what it does without them."""

import io
import os
import sys
from select import POLLOUT, poll
from stat import S_ISREG
from typing import TextIO, cast

STALLED = 5.0  # seconds for which stderr is waited for; stdout is written to when the work is done, and may wait for a pager
_CHUNK = 4096  # bytes that a pipe takes without blocking once it says that it takes some (PIPE_BUF)


class Channel(io.FileIO):
    """A file descriptor to write to that never fails: after an error, what is written is dropped.

    Args:
        number: the descriptor, which stays open.
        patience: seconds to wait for a reader that does not read; then lines are dropped until it does. None waits for ever.

    Attributes:
        problem: the error, if there was one.
    """

    def __init__(self, number: int, patience: float | None) -> None:
        super().__init__(number, "w", closefd=False)
        self.problem: OSError | None = None
        self._patience = patience
        self._may_stall = not S_ISREG(os.fstat(number).st_mode)
        self._poll = poll()
        self._poll.register(number, POLLOUT)
        self._stalled = False

    def write(self, data: object, /) -> int:
        """See ``io.RawIOBase``; never raises OSError."""
        with memoryview(data) as view:  # type: ignore[arg-type]  # what BufferedWriter gives
            size = view.nbytes
            if self.problem is not None or not self._is_ready():
                return size
            try:
                written = super().write(view[:_CHUNK] if self._may_stall else view)
            except OSError as error:
                self.problem = error
                return size
        if written is None:  # the descriptor does not block, and took nothing
            self._poll.poll(None if self._patience is None else self._patience * 1000)
            return 0
        return written

    def _is_ready(self) -> bool:
        if self._patience is None or not self._may_stall:
            return True
        wait = 0.0 if self._stalled else self._patience * 1000
        self._stalled = not self._poll.poll(wait)
        return not self._stalled


def settle() -> None:
    """Open what is closed of the three, so that no socket gets its number, and make the two that are written forgiving."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free; not inherited, so it is closed for children
    if sys.stdin is None:
        sys.stdin = cast("TextIO", open(0, encoding="utf-8", closefd=False))  # noqa: SIM115 - for life
    if sys.stdout is sys.__stdout__:
        sys.stdout = _forgiving(sys.stdout, 1, None)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _forgiving(sys.stderr, 2, STALLED)


def _forgiving(stream: TextIO | None, number: int, patience: float | None) -> TextIO:
    try:
        channel = Channel(number, patience)
    except OSError:  # a folder, of all things
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), number, inheritable=False)
        channel = Channel(number, patience)
    return io.TextIOWrapper(
        io.BufferedWriter(channel),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",  # a name that the terminal's encoding does not have is no reason to fail
        line_buffering=number == 2 or channel.isatty(),
        write_through=bool(getattr(stream, "write_through", False)),
    )


def problem(stream: TextIO) -> OSError | None:
    """Why what was written to ``stream`` got lost, if it did."""
    channel = getattr(getattr(stream, "buffer", None), "raw", None)
    return channel.problem if isinstance(channel, Channel) else None
