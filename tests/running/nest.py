"""A command that runs another ``reaper run``: ``python nest.py LEVEL DEPTH WAY``.

On each level a container without any label is made. WAY is how the next run is started: "exec" in place of this process, or
"child", after whose end this process says "over" and goes on. The deepest level says "ready" and never ends by itself.
"""

import os
import signal
import subprocess
import sys

import docker  # type: ignore[import-untyped]

from devkit.client import OBEYS_TERM

level, depth, way = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
client = docker.from_env()
client.containers.run("bench:1", OBEYS_TERM, name=f"level-{level}", detach=True, network_mode="none")
client.close()
if level < depth:
    run = [sys.executable, "-m", "reaper", "run", "--skip-cleanup", "--"]
    command = [*run, sys.executable, __file__, str(level + 1), str(depth), way]
    if way == "exec":
        os.execv(command[0], command)
    subprocess.run(command, check=False)
    sys.stdout.write("over\n")
else:
    sys.stdout.write(f"ready {os.getppid()}\n")
sys.stdout.flush()
signal.pause()
