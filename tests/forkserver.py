"""A process that has imported the program, and becomes it by a fork: ``forkserver.py SOCKET``, see ``tests.forks``.

A start of the program costs half a second of a processor, nearly all of it for imports; a fork costs some milliseconds.
"""

import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import runpy
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any, TextIO

ORDER = 1 << 20  # bytes, more than any order has


def _import_all() -> None:
    """Import all modules of the program, except those that are started themselves."""
    import reaper

    for module in pkgutil.walk_packages(reaper.__path__, "reaper."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):  # which is the program's to report
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def _serve(asked: socket.socket) -> dict[str, Any]:
    """Make a process for each order, until the other end is closed; in that process, return the order.

    Each is made by a process between, whose end gives it to the next one above that takes orphans: the one that asked.
    """
    while True:
        message, streams, _, _ = socket.recv_fds(asked, ORDER, 3)
        if not message:
            os._exit(0)
        between = os.fork()
        if between == 0:
            middle = os.getpid()
            if child := os.fork():
                asked.send(str(child).encode())
                os._exit(0)
            while os.getppid() == middle:
                time.sleep(0.0002)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            os.closerange(3, max(asked.detach(), *streams) + 1)
            return dict(json.loads(message))
        os.waitpid(between, 0)
        for stream in streams:
            os.close(stream)
        asked.send(b"done")


def _stream(number: int, like: TextIO) -> TextIO:
    """A standard stream, as the interpreter makes it at its start."""
    options: dict[str, Any] = {"encoding": like.encoding, "errors": like.errors}
    if number and os.environ.get("PYTHONUNBUFFERED"):
        return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), write_through=True, **options)
    made: TextIO = open(number, "w" if number else "r", closefd=False, **options)  # noqa: SIM115 - for life
    made.reconfigure(line_buffering=number == 2 or os.isatty(number))  # type: ignore[attr-defined]
    return made


def _become(order: dict[str, Any]) -> None:
    """What an interpreter does that is started as ``python -m reaper ...``, or as ``python -c CODE ...``."""
    if order["session"]:
        os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN if order["nohup"] else signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_NOFILE, order["files"])
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    sys.stdin = sys.__stdin__ = _stream(0, sys.stdin)  # type: ignore[misc,assignment]
    sys.stdout = sys.__stdout__ = _stream(1, sys.stdout)  # type: ignore[misc,assignment]
    sys.stderr = sys.__stderr__ = _stream(2, sys.stderr)  # type: ignore[misc,assignment]
    path = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder and folder not in sys.path]
    sys.path[:1] = [order["folder"], *path]
    sys.argv[:] = ["-c", *order["arguments"]]
    if order["code"] is not None:
        exec(order["code"], {"__name__": "__main__"})
    else:
        runpy.run_module("reaper", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _import_all()
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
