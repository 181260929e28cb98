"""Records ``reaper --once`` at a terminal, over simulated endpoints: ``python -m devkit.record`` makes docs/once.svg."""

import os
import pty
import re
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "once.svg"
COLUMNS = 136


def main() -> int:
    """Run the program on a pseudo-terminal against the simulator and write what is seen there as a picture."""
    simulate = [sys.executable, "-m", "reaper", "simulate", "--seed", "7", "--containers", "9", "--sandboxes", "9"]
    simulator = subprocess.Popen(simulate, stdout=subprocess.PIPE, text=True)
    try:
        assert simulator.stdout is not None
        exported = {}
        while "DAYTONA_API_URL" not in exported or "DOCKER_HOST" not in exported or "DAYTONA_API_KEY" not in exported:
            if found := re.match(r"export (\w+)=(\S+)", simulator.stdout.readline()):
                exported[found[1]] = found[2].strip("'\"")
        with tempfile.TemporaryDirectory(prefix="reaper-record-") as state:
            env = {**os.environ, **exported, "STATE_DIRECTORY": state, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
            seen = _at_a_terminal([sys.executable, "-m", "reaper", "--once"], env, state)
    finally:
        simulator.terminate()
        simulator.wait()
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text.assemble(("$ ", "green"), "reaper --once"))
    console.print(Text.from_ansi(seen), soft_wrap=True)
    PICTURE.write_text(console.export_svg(title="reaper --once"), encoding="utf-8")
    print(PICTURE)
    return 0


def _at_a_terminal(argv: list[str], env: dict[str, str], folder: str) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=env, cwd=folder)
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 65536)
        except OSError:  # the terminal is closed when the program has ended
            break
    process.wait()
    os.close(ours)
    return seen.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    sys.exit(main())
