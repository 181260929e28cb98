"""A benchmark whose containers outlive their images: ``python forgotten.py FOLDER``.

It prints its lease, waits for a file "copied", makes a container of each image, says "made", and ends when there is a file
"go".
"""

import os
import sys
import time
from pathlib import Path

from devkit.client import EngineClient

folder = Path(sys.argv[1])
engine = EngineClient(os.environ["DOCKER_HOST"].removeprefix("unix://"))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


say(os.environ["REAPER_LEASE"])
while not (folder / "copied").exists():
    time.sleep(0.02)
for name in ("own", "copy", "kept"):
    engine.create(f"of-{name}", image=f"{name}:1")
say("made")
while not (folder / "go").exists():
    time.sleep(0.02)
