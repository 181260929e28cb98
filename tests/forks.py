"""Starts the program by a fork of a process that has imported it already (``tests/forkserver.py``), where that is the same.

What is forked is a child of this process, as one that is started, with the streams, the environment, the folder and the
arguments that it is given. What concerns the interpreter's own start (limits, its variables, certificates) is started.
"""

import atexit
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import AnyStr

KEPT = ("PATH", "LANG", "PYTHONPATH", "HOME")
"""The variables of this process that the program is given, too."""

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: it takes the orphans among its descendants
_READ_AT_START = ("PYTHON", "LANG", "LC_", "SSL_", "AIOHTTP_", "LD_")
_DONE_BY_THE_SERVER = ("PYTHONUNBUFFERED", "PYTHONPATH")
_ONE_AT_A_TIME = threading.Lock()


def kept() -> dict[str, str]:
    """The variables of this process that the program is given, too."""
    return {name: os.environ[name] for name in KEPT if name in os.environ}


class Forked(subprocess.Popen[AnyStr]):
    """``subprocess.Popen``, which forks what is started as ``python -m reaper``, and as ``python -c`` with code."""

    def _execute_child(  # noqa: PLR0917 - what Popen calls to make the process
        self,
        args: Sequence[str],
        executable: object,
        preexec_fn: object,
        close_fds: object,
        pass_fds: Sequence[int],
        cwd: Path | None,
        env: Mapping[str, str],
        startupinfo: object,
        creationflags: object,
        shell: object,
        p2cread: int,
        p2cwrite: int,
        c2pread: int,
        c2pwrite: int,
        errread: int,
        errwrite: int,
        restore_signals: object,
        gid: object,
        gids: object,
        uid: object,
        umask: object,
        start_new_session: bool,
        process_group: object,
    ) -> None:
        pipes = p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
        python, how, what, *arguments = args
        forkable = python == sys.executable and (how == "-c" or (how, what) == ("-m", "reaper"))
        if not forkable or preexec_fn or pass_fds or not _is_usual(env):
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell, *pipes,
                restore_signals, gid, gids, uid, umask, start_new_session, process_group,
            )  # fmt: skip
            return
        order: dict[str, object] = {
            "code": what if how == "-c" else None,
            "arguments": arguments,
            "env": dict(env),
            "folder": str(cwd),
            "session": start_new_session,
            "nohup": signal.getsignal(signal.SIGHUP) is signal.SIG_IGN,
        }
        order["files"] = resource.getrlimit(resource.RLIMIT_NOFILE)
        streams = [given if given != -1 else number for number, given in enumerate((p2cread, c2pwrite, errwrite))]
        self.pid = _fork(order, streams)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _is_usual(env: Mapping[str, str]) -> bool:
    """Whether the interpreter would start with these variables as the server has started with its own."""
    return _read_at_start(env) == _read_at_start(kept())


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    read = ((name, value) for name, value in env.items() if name.startswith(_READ_AT_START))
    return {name: value for name, value in read if name not in _DONE_BY_THE_SERVER}


@cache
def _server(process: int) -> socket.socket:
    """Where this process (which has this id, should it have been forked) orders its forks."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, str(Path(__file__).with_name("forkserver.py")), str(theirs.fileno())]
    # It ends with this process, and nothing waits for it.
    subprocess.Popen(command, env=kept(), stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]).returncode = 0
    theirs.close()
    atexit.register(ours.close)
    return ours


def _fork(order: object, streams: list[int]) -> int:
    prctl = ctypes.CDLL(None).prctl
    with _ONE_AT_A_TIME:
        server = _server(os.getpid())
        prctl(_SUBREAPER, 1)
        try:
            socket.send_fds(server, [json.dumps(order).encode()], streams)
            child = int(server.recv(100))
            server.recv(100)  # and from now on it is a child of this process
        finally:
            prctl(_SUBREAPER, 0)
    return child
