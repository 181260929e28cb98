"""A benchmark that removes its containers and leaves their anonymous volumes: ``python leaver.py FOLDER AT_END``.

It prints what it made as JSON, and goes on when there is a file "go" in the folder. At its end it sleeps with "sleep".
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from urllib.parse import quote

from devkit.client import EngineClient

folder, at_end = Path(sys.argv[1]), sys.argv[2]
engine = EngineClient(os.environ["DOCKER_HOST"].removeprefix("unix://"))


def volumes(container: str) -> list[str]:
    return [mount["Name"] for mount in engine.api.must("GET", f"/containers/{container}/json")["Mounts"]]


made = [engine.create(f"mine-{number}", volumes=["/data", "/more"]) for number in range(3)]
lent = engine.create("lent", volumes=["/data"])
own_name = engine.create("own-name", binds=["own:/data"])
borrowed = engine.api.must(
    "POST",
    "/containers/create?name=borrower",
    {"Image": "bench:1", "Cmd": ["true"], "Volumes": {"/own": {}}, "HostConfig": {"VolumesFrom": ["neighbour"]}},
)["Id"]
engine.create("kept", volumes=["/data"])
sys.stdout.write(
    json.dumps({"mine": [v for one in made for v in volumes(one)], "lent": volumes(lent), "own": volumes(borrowed)})
)
sys.stdout.write("\n")
sys.stdout.flush()
while not (folder / "go").exists():
    time.sleep(0.02)
for container in (*made[:2], lent, own_name, borrowed):
    engine.remove(container, volumes=False)
filters = quote(json.dumps({"label": [os.environ["REAPER_LABEL"]]}))
engine.api.must("POST", f"/containers/prune?filters={filters}")  # which leaves the volumes of what it removes, too
sys.stdout.write("removed\n")
sys.stdout.flush()
if at_end == "sleep":
    signal.pause()
