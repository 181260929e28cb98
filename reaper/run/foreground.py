"""Run a command in the foreground as if it was started by the caller directly.

It has this process's terminal, stdin, process group, inherited files, signal mask and dispositions. What the terminal sends
goes to the whole group, and so reaches it without help; what is sent to this process alone is passed on. This process stops
when the command stops, so that the shell of both takes the terminal back, and goes on with it.
"""

import ctypes
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from reaper.descriptors import make_room
from reaper.liveness import is_stopped, parent

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
STOPPING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
FILES = 65536  # descriptors
ROUND = 1.0  # seconds between two calls of ``tick``

_WAITED = {*PASSED_ON, *STOPPING, signal.SIGCONT, signal.SIGCHLD}
_SI_KERNEL = 0x80  # where a signal of the terminal comes from, by sigaction(2)
_PR_SET_PDEATHSIG = 1  # from prctl(2)
_SIGSET = 128  # bytes of a set of signals, by the C library


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Came(ctypes.Structure):
    """What the kernel says of a signal, by sigaction(2): on 64-bit Linux."""

    _fields_ = (
        ("si_signo", ctypes.c_int),
        ("si_errno", ctypes.c_int),
        ("si_code", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("si_pid", ctypes.c_int),
        ("rest", ctypes.c_char * 108),
    )


def exit_code(returncode: int) -> int:
    """The exit code that a shell would give to a process that ended so: 128 and the number of the signal that killed it."""
    return 128 - returncode if returncode < 0 else returncode


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a command would have inherited without us.

    Args:
        mask: the signals that are blocked.
        files: how many files may be open, soft and hard limit.
        children_ignored: whether SIGCHLD is ignored, with which nothing could be learnt of a command's end.
    """

    mask: frozenset[int]
    files: tuple[int, int]
    children_ignored: bool = False


@contextmanager
def stepped_aside() -> Iterator[Inherited]:
    """Make ready to stand beside a command: hold signals back, in this thread and those that it starts, and have room.

    Each connection to a proxy takes two descriptors; the limit that a login has allows five hundred.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    inherited = Inherited(frozenset(blocked), make_room(FILES), ignored)
    try:
        yield inherited
    finally:
        while signal.sigtimedwait((*PASSED_ON, *STOPPING), 0) is not None:
            pass  # what came for the command after it had ended has no reader
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
    """Run ``command`` to its end and return how it ended, as ``subprocess`` returns it. Call it in ``stepped_aside``.

    The command is asked to end (SIGTERM) when this process dies: what it has made goes then.

    Args:
        command: what to run, looked for in the PATH of ``env``.
        env: its environment.
        inherited: what it would have without us.
        tick: is called now and then while it runs.

    Raises OSError when it cannot be started.
    """
    libc, parent = ctypes.CDLL(None), os.getpid()
    waited = ctypes.create_string_buffer(_SIGSET)
    libc.sigemptyset(waited)
    for each in _WAITED:
        libc.sigaddset(waited, int(each))

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the signal was set
            os._exit(128 + signal.SIGTERM)
        resource.setrlimit(resource.RLIMIT_NOFILE, inherited.files)
        if inherited.children_ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for number in PASSED_ON:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        # What the terminal sent before the fork has reached this process's parent alone.
        for pending in _pending(parent):
            os.kill(os.getpid(), pending)
        signal.pthread_sigmask(signal.SIG_SETMASK, inherited.mask)

    # The lines above need no lock that a thread could hold at that moment. What is open here and not inherited, the command
    # does not get either: each of Python's files closes itself.
    stopping = False  # whether it has been told to stop, and not yet to go on
    with subprocess.Popen(command, env=dict(env), preexec_fn=prepare, close_fds=False) as process:  # noqa: PLW1509, S603
        while process.poll() is None:
            if (number := _stopped_by(process.pid)) is not None:
                _stop_with(process.pid, number)
                stopping = False
                continue
            # Python's own, when it is interrupted after its time (by a stop), returns a signal that never came.
            came = _Came()
            if libc.sigtimedwait(waited, ctypes.byref(came), ctypes.byref(_Timespec(int(ROUND), 0))) < 0:
                tick()
            elif came.si_signo != signal.SIGCHLD and _is_for_the_command(came, process.pid, stopping=stopping):
                process.send_signal(came.si_signo)
                stopping = came.si_signo in STOPPING
        _give_terminal(process.pid, os.getpgrp())  # one with a process group of its own may have died with the terminal
        return process.returncode


def _pending(process: int) -> list[int]:
    """The signals that wait for a process, of those that are passed on."""
    status = os.open(f"/proc/{process}/status", os.O_RDONLY)
    text = os.read(status, 1 << 16)
    os.close(status)
    bits = 0
    for line in text.splitlines():
        if line.startswith((b"SigPnd:", b"ShdPnd:")):
            bits |= int(line.split()[1], 16)
    return [number for number in PASSED_ON if bits >> (number - 1) & 1]


def die_of(number: int) -> None:
    """End this process by a signal, as the command was ended. Returns where that cannot be: in process 1 of a container."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)


def _stopped_by(child: int, options: int = 0) -> int | None:
    """The signal that has stopped the command since this was asked last; None when none has."""
    with suppress(ChildProcessError):
        if (found := os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOHANG | options)) is not None:
            return found.si_status
    return None


def _stop_with(child: int, number: int) -> None:
    """Stop as the command has been stopped, for the shell that waits for this process, and let it go on afterwards.

    A command with job control of its own has a process group of its own, which the shell does not track.
    """
    if not is_stopped(child):
        return  # another has let it go on
    while signal.sigtimedwait(STOPPING, 0) is not None:
        pass  # they were the command's, and are done with
    # Unlike SIGSTOP none of these stops a process group that no shell could let go on.
    if not _went_on_after(number if number in STOPPING else signal.SIGTSTP):
        return
    if _stopped_by(child, os.WNOWAIT) is not None:
        return  # it has gone on, and stopped once more
    with suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(child)
        if group != os.getpgrp():
            _give_terminal(os.getpgrp(), group)
            os.killpg(group, signal.SIGCONT)
        elif is_stopped(child):
            os.kill(child, signal.SIGCONT)


def _went_on_after(number: int) -> bool:
    """Stop by a signal until another process lets this one go on, and return whether one has: some cannot be stopped.

    Each of these signals takes back what waits of the other. So SIGCONT does not wait here: one that
    is sent before this process has stopped is heard, too.
    """
    went_on = list[int]()
    before = signal.signal(number, signal.SIG_DFL), signal.signal(signal.SIGCONT, lambda *_: went_on.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCONT})
    os.kill(os.getpid(), number)
    if went_on:
        signal.sigtimedwait((number,), 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})  # it stops here
    signal.pthread_sigmask(signal.SIG_BLOCK, {number, signal.SIGCONT})
    signal.signal(number, before[0])
    signal.signal(signal.SIGCONT, before[1])
    return bool(went_on)


def _give_terminal(owner: int, group: int) -> None:
    """Make ``group`` the one that the terminal listens to, if it listens to ``owner`` now. Call it with SIGTTOU blocked."""
    with suppress(OSError):  # there is no terminal, or no such group
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            if owner != group and os.tcgetpgrp(terminal) == owner:
                os.tcsetpgrp(terminal, group)
        finally:
            os.close(terminal)


def _is_for_the_command(came: _Came, child: int, *, stopping: bool) -> bool:
    """Whether a signal that came here is to be passed on: not when it has surely reached the command already.

    The terminal signals the whole group, and so do the command when it means its own processes, and a shell that lets a
    job go on. A command that is ``stopping``, because a signal to do so was passed on, may not have stopped yet.
    """
    if came.si_code == _SI_KERNEL or (came.si_signo == signal.SIGCONT and not (stopping or is_stopped(child))):
        return False
    sender = came.si_pid
    while sender > 1 and sender != os.getpid():
        if sender == child:
            return False
        sender = parent(sender)
    return True
