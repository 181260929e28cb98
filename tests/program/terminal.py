"""Runs the program at a terminal of a given width, and reads what a person would see there."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tests import forks
from tests.run import Program

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")

Where = Literal["out", "err", "both"]


@dataclass(frozen=True)
class Seen:
    """What a terminal was sent."""

    code: int
    raw: str

    @property
    def text(self) -> str:
        """Without the escape sequences and with what was overwritten still in it."""
        return _ESCAPE.sub("", self.raw).replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        """Its lines, without the blanks at their ends."""
        return [line.rstrip() for line in self.text.splitlines()]

    @property
    def coloured(self) -> bool:
        """Whether any sequence sets a colour; bold and dim are none."""
        return _COLOUR.search(self.raw) is not None


def at_terminal(
    program: Program,
    *arguments: str,
    columns: int = 80,
    rows: int = 50,
    where: Where = "out",
    env: Mapping[str, str] | None = None,
) -> Seen:
    """Run the program with its stdout, its stderr or both at a terminal of this size; what goes elsewhere is lost."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = forks.Forked[bytes](
        [sys.executable, "-m", "reaper", *arguments],
        env={**program.env, "TERM": "xterm-256color", **(env or {})},
        cwd=program.folder,
        stdin=slave,
        stdout=slave if where in ("out", "both") else subprocess.DEVNULL,
        stderr=slave if where in ("err", "both") else subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(slave)
    sent = b""
    try:
        while piece := os.read(master, 65536):
            sent += piece
    except OSError:
        pass  # how a terminal reports that the other end is closed
    finally:
        os.close(master)
    return Seen(process.wait(60), sent.decode())
