"""Outlives the process that holds a lease, and cleans up after it however it died: ``python -m reaper.run.guard``.

It reads its orders (JSON) from stdin and then waits there. Its holder writes a line with the time when its command ended,
and "done" before it ends in order, or "left" when it could not clean up everything; when stdin ends without such a word the
holder is dead, and only the kernel need have noticed.
It has a session of its own: what kills its holder's process group does not reach it, nor does what stops that. A holder that
is stopped sends no heartbeats to a service elsewhere, so it does.
"""

import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reaper.run.orders import Orders

DONE, LEFT = b"done", b"left"
LOG = "guard.log"
COMMAND = (
    sys.executable,
    "-P",
    "-m",
    "reaper.run.guard",
)  # -P: a folder "reaper" in the working directory is not the package
LOG_BYTES = 1_000_000  # from here on it begins anew
EVERY = 20.0  # seconds between two heartbeats: a third of what the service expects


class Guard:
    """The guard of a lease that this process holds.

    Args:
        orders: what it is to do when this process is dead.

    Raises OSError when it cannot be started.
    """

    def __init__(self, orders: "Orders") -> None:
        self._orders = orders
        self._over = b""
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(  # noqa: S603 - this program
            [*COMMAND, str(self._orders.plan.state / LOG)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdin is not None
        # By the pipe, which no other process can read: the API keys are in it.
        text = self._orders.dump()
        process.stdin.write(len(text).to_bytes(8, "big") + text + self._over)
        process.stdin.flush()
        return process

    def over(self, at: float) -> None:
        """The command has ended, at this time (seconds since 1970): what is made later is not the run's.

        Without a word of that the lease would claim until this process ends, which cleans up, and may be killed meanwhile.
        """
        self._over = f"{at:.6f}\n".encode()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it was killed, and the one that takes its place is told
            self._process.stdin.write(self._over)
            self._process.stdin.flush()

    def keep(self) -> bool:
        """Start it again if it was killed; return whether it was."""
        if self._process.poll() is None:
            return False
        self._close()
        self._process = self._start()
        return True

    def dismiss(self) -> None:
        """Nothing is left to do for it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it was killed
            self._process.stdin.write(DONE)
        self._close()

    def hand_over(self) -> None:
        """Have it go on with the clean-up by itself. This process may end."""
        self.keep()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it was killed just now
            self._process.stdin.write(LEFT)
            self._process.stdin.close()

    def _close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def main() -> int:
    """Wait for the holder's end. Imports nothing until then: it may be days, and thousands of runs may have a guard."""
    size = int.from_bytes(sys.stdin.buffer.read(8), "big")
    text = sys.stdin.buffer.read(size)
    if len(text) < size or not size:
        return 0  # the holder died before it had anything to guard
    *over, word = _said(text, os.getppid()).split(b"\n")
    ended_at = float(over[0]) if over else time.time()  # before the imports, which take seconds on a busy machine
    if word == DONE:
        return 0
    _hear_signals()
    _log_to(Path(sys.argv[1]))  # before anything that an upgrade of the package may have changed
    try:
        from reaper.run import cleanup  # noqa: PLC0415
    except ImportError as error:
        sys.stderr.write(
            f"reaper.run.guard: the program cannot be loaded: {error}; install it again and run reaper --once, which takes"
            " what the lease covers\n"
        )
        return 1
    return cleanup.clean_up_later(text, holder_died=word != LEFT, ended_at=ended_at)


def _said(text: bytes, holder: int) -> bytes:
    """What the holder says until its end."""
    said, stdin = b"", sys.stdin.buffer
    assert isinstance(stdin, io.BufferedReader)
    while True:
        while os.environ.get("REAPER_URL", "").startswith("http") and not select.select([sys.stdin], [], [], EVERY)[0]:
            with suppress(Exception):  # an upgrade of the package may have changed anything
                _keep_elsewhere(text, holder)
        if not (piece := stdin.read1()):
            return said
        said += piece


def _keep_elsewhere(text: bytes, holder: int) -> None:
    """Send a heartbeat for a holder that is stopped."""
    from reaper.liveness import is_stopped  # noqa: PLC0415

    if is_stopped(holder):
        from reaper.run import elsewhere  # noqa: PLC0415

        elsewhere.beat(json.loads(text)["lease"]["id"])


def _hear_signals() -> None:
    """Let a SIGTERM end the clean-up: its holder had blocked the signals, which it leaves to its command.

    One that came before that was for the holder.
    """
    for number in signal.sigpending():
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _log_to(file: Path) -> None:
    """Send stderr to a file, since it has no reader; where that cannot be, nowhere."""
    try:
        flags = (
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if file.exists() and file.stat().st_size > LOG_BYTES else 0)
        )
        descriptor = os.open(file, flags, 0o600)
    except OSError:
        return
    os.dup2(descriptor, 2)
    os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
