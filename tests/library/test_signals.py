"""A script that is interrupted: what it named goes all the same."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from reaper.simulator.docker.model import Behaviour
from tests.library.lab import names
from tests.run import Program
from tests.simulator.docker_world import World

SCRIPT = """
import time

from reaper import managed_docker_container

with managed_docker_container("mine", stop_timeout=1):
    print("within", flush=True)
    time.sleep(60)
"""


def test_interrupted_in_the_block_and_again_while_it_is_left(world: World, alone: Path) -> None:
    world.add("mine", state="running", behaviour=Behaviour(obeys=False))  # so that there is time to interrupt it again
    world.faults.add("latency:1ms,path=/stop")
    program = Program(alone, {"DOCKER_HOST": world.host})
    # Where the tests themselves were started by a shell in the background, they ignore SIGINT, and so would the script.
    command = ["env", "--default-signal=INT", sys.executable, "-c", SCRIPT]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=program.env, cwd=alone, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "within\n"
        process.send_signal(signal.SIGINT)
        end = time.monotonic() + 60
        while not world.faults.rules()[0][1] and time.monotonic() < end:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err
    assert names(world) == set()
