"""Fuzzes each target for a while: ``python -m tests.fuzz [--seconds N] [TARGET ...]``, which is ``make fuzz``.

With atheris, which sees what an input reaches; in each target's own process, since its fuzzer never returns. An input
that breaks a promise is written into the corpus, where every later test run meets it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.fuzz.mutation import CORPUS, LARGEST

WORK = Path(".fuzz")  # inputs that reach more, from one run to the next


def _fuzz(name: str, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["reaper"]):
        from tests.fuzz.targets import TARGETS

    (work := WORK / name).mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", f"-max_len={LARGEST}", "-timeout=20", "-rss_limit_mb=4096"]
    options = [*limits, "-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={CORPUS / name}/"]
    atheris.Setup([sys.argv[0], *options, str(work), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """1 when a target broke its promise."""
    known = sorted(folder.name for folder in CORPUS.iterdir())
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(known))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        _fuzz(arguments.only, arguments.seconds)
    if unknown := set(arguments.targets) - {*known}:
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    broken = []
    for name in arguments.targets or known:
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        command = [sys.executable, "-m", "tests.fuzz", "--only", name, "--seconds", str(arguments.seconds)]
        if subprocess.run(command, check=False).returncode:
            broken.append(name)
    sys.stdout.write(f"broken: {', '.join(broken)}; the inputs are in {CORPUS}\n" if broken else "nothing was found\n")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
