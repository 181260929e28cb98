"""Runs one command, waits for it, and prints what it took as one JSON object. Imports next to nothing, on purpose.

A process of its own because the kernel counts the memory of the *parent* at the fork into a child's peak: started
from the benchmarks themselves, every small command would seem as large as they are.

    python -I -S launch.py OUTPUT COMMAND [ARGUMENT ...]
"""

import json
import os
import sys
from time import perf_counter


def main() -> None:
    output, *command = sys.argv[1:]
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    began = perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=files)
    _, status, usage = os.wait4(pid, 0)
    seconds = perf_counter() - began
    print(
        json.dumps(
            {
                "code": os.waitstatus_to_exitcode(status),
                "seconds": seconds,
                "cpu": usage.ru_utime + usage.ru_stime,
                "peak_kib": usage.ru_maxrss,
            }
        )
    )


if __name__ == "__main__":
    main()
