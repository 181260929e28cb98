"""Serves the proxy of `reaper run` until its stdin ends.

python proxying.py SOCKET ENGINE        (prints a line when it listens)
"""

import asyncio
import gc
import sys
from pathlib import Path

from reaper.providers.docker.settings import DockerTable
from reaper.run.proxy import DockerProxy


async def main(path: Path, host: str) -> None:
    proxy = DockerProxy(
        DockerTable(name="bench", host=host), {"reaper.lease": "bench"}, lambda why: print(why, file=sys.stderr)
    )
    await proxy.start(path)
    gc.freeze()
    print("listening", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await proxy.close()


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
