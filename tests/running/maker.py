"""A benchmark that makes things and never ends by itself: ``python maker.py CONTAINERS SANDBOXES``.

Half of the containers are made with the docker command where there is one, the rest through docker-py. Each carries the
lease's label. It says "ready" when all are there.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request

import docker  # type: ignore[import-untyped]

from devkit.client import OBEYS_TERM

containers, sandboxes = map(int, sys.argv[1:3])
lease = os.environ["REAPER_LEASE"]
label = os.environ["REAPER_LABEL"]
by_command = containers // 2 if shutil.which("docker") and os.environ.get("WITH_COMMAND") else 0
for number in range(by_command):
    command = ["docker", "run", "--detach", "--network", "none", "--label", label, "--name", f"mine-{number}", "bench:1"]
    subprocess.run([*command, *OBEYS_TERM], check=True, stdout=subprocess.DEVNULL)
client = docker.from_env()
for number in range(by_command, containers):
    client.containers.run(
        "bench:1", OBEYS_TERM, name=f"mine-{number}", detach=True, network_mode="none", labels={"reaper.lease": lease}
    )
client.close()
for number in range(sandboxes):
    request = urllib.request.Request(
        f"{os.environ['DAYTONA_API_URL']}/sandbox",
        json.dumps({"name": f"mine-{number}", "labels": {"reaper.lease": lease}}).encode(),
        {"Authorization": f"Bearer {os.environ['DAYTONA_API_KEY']}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()
sys.stdout.write(f"ready {os.getpid()}\n")
sys.stdout.flush()
signal.pause()
