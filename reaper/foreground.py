"""Runs a command in the foreground as if nobody stood between it and whoever started it.

It has this process's terminal, stdin, process group, signal mask and dispositions. What the terminal sends goes to the
whole group, and so reaches it without help; what somebody sends to this process alone is passed on.
"""

import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from reaper.alive import parent
from reaper.descriptors import make_room

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
FILES = 65536  # descriptors
ROUND = 1.0  # seconds between two calls of ``tick``

_WAITED = {*PASSED_ON, signal.SIGCHLD}
_SI_KERNEL = 0x80  # where a signal of the terminal comes from, by sigaction(2)
_PR_SET_PDEATHSIG = 1  # from prctl(2)


def exit_code(returncode: int) -> int:
    """The exit code that a shell would give to a process that ended so: 128 and the number of the signal that killed it."""
    return 128 - returncode if returncode < 0 else returncode


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a command would have inherited without us.

    Args:
        mask: the signals that are blocked.
        files: how many files may be open, soft and hard limit.
    """

    mask: frozenset[int]
    files: tuple[int, int]


@contextmanager
def stepped_aside() -> Iterator[Inherited]:
    """Make ready to stand beside a command: hold signals back, in this thread and those that it starts, and have room.

    Each connection to a proxy takes two descriptors; the limit that a login has allows five hundred.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    inherited = Inherited(frozenset(blocked), make_room(FILES))
    try:
        yield inherited
    finally:
        while signal.sigtimedwait(PASSED_ON, 0) is not None:
            pass  # what came for the command after it had ended is nobody's
        signal.pthread_sigmask(signal.SIG_SETMASK, inherited.mask)
        resource.setrlimit(resource.RLIMIT_NOFILE, inherited.files)


@contextmanager
def dispositions_kept() -> Iterator[None]:
    """What the caller had ignored stays ignored for the command, whatever an event loop in the block does to it."""
    before = {number: signal.getsignal(number) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def run(command: Sequence[str], env: Mapping[str, str], inherited: Inherited, tick: Callable[[], None]) -> int:
    """Run ``command`` to its end and return how it ended, as ``subprocess`` tells it. Call it in ``stepped_aside``.

    The command is asked to end (SIGTERM) when this process dies: what it has made goes then.

    Args:
        command: what to run, looked for in the PATH of ``env``.
        env: its environment.
        inherited: what it would have without us.
        tick: is called now and then while it runs.

    Raises OSError when it cannot be started.
    """
    libc, parent = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before it could be told
            os._exit(128 + signal.SIGTERM)
        resource.setrlimit(resource.RLIMIT_NOFILE, inherited.files)
        signal.pthread_sigmask(signal.SIG_SETMASK, inherited.mask)

    # The lines above need no lock that a thread could hold at that moment.
    with subprocess.Popen(command, env=dict(env), preexec_fn=prepare) as process:  # noqa: PLW1509, S603
        while process.poll() is None:
            came = signal.sigtimedwait(_WAITED, ROUND)
            if came is None:
                tick()
            elif came.si_signo != signal.SIGCHLD and _is_for_the_command(came, process.pid):
                process.send_signal(came.si_signo)
        return process.returncode


def _is_for_the_command(came: signal.struct_siginfo, child: int) -> bool:
    """Whether a signal that came here is to be passed on: not when it has surely reached the command already.

    The terminal signals the whole group, and so does the command when it means its own processes.
    """
    if came.si_code == _SI_KERNEL:
        return False
    sender = came.si_pid
    while sender > 1 and sender != os.getpid():
        if sender == child:
            return False
        sender = parent(sender)
    return True
