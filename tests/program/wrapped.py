"""Runs the program with something in it replaced, or with a question asked at its end."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tests.run import LIMIT, Ended, Program

_MAIN = """
import sys
from reaper.cli import main
sys.exit(main(sys.argv[1:]))
"""

_MODULES = """
import json, sys
from reaper.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
sys.stderr.write("\\n" + json.dumps(sorted(name for name, module in sys.modules.items() if module is not None)))
"""

_SEVERAL = """
import json, sys
from reaper.cli import main
codes = [main(arguments) for arguments in json.loads(sys.argv[1])]
sys.stderr.write("\\n" + json.dumps(codes))
"""


@contextmanager
def started(program: Program, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """The program while it runs; it is killed at the end of the block if it still does."""
    with program.start(*arguments, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def patched(program: Program, patch: str, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
    """The program after the statements of ``patch`` have been executed in its process."""
    return program.run_code(patch + _MAIN, *arguments, env=env)


def imported(program: Program, *arguments: str) -> set[str]:
    """The modules that the program has imported when it ends."""
    command = [sys.executable, "-c", _MODULES, *arguments]
    ended = subprocess.run(
        command,
        env=program.env,
        cwd=program.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return set(json.loads(ended.stderr.splitlines()[-1]))


def several(program: Program, commands: Sequence[Sequence[str]]) -> list[Ended]:
    """What ``commands`` print, which all have --json; one process runs them all."""
    ended = program.run_code(_SEVERAL, json.dumps(commands))
    codes = json.loads(ended.err.splitlines()[-1])
    return [Ended(code, out, "") for code, out in zip(codes, ended.out.splitlines(), strict=True)]
