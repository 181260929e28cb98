"""What `make run` does: reaper at work on a simulated Docker engine that is full of what benchmark runs leave behind.

The engine is the simulator that the package brings, so neither Docker nor an account is needed; the program is run as its
users run it, and talks to it over HTTP. Some of its requests fail at first, as those of a busy engine do.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reaper.simulator.faults import Fault
from reaper.simulator.server import Simulator
from reaper.simulator.world import ContainerSpec, NetworkSpec

COMPOSE = "com.docker.compose."
HARBOR_PROJECT = "fix-git__a1b2c3d"
HARBOR_FILE = "/venv/lib/python3.12/site-packages/harbor/environments/docker/docker-compose-build.yaml"
FAULTS = ("status:500,method=DELETE,times=2", "reset,method=GET,path=/json,skip=6,times=2")


def _stopped(name: str, image: str, ago: timedelta, labels: dict[str, str], now: datetime) -> ContainerSpec:
    start = now - ago - timedelta(hours=1)
    return ContainerSpec(
        name=name,
        image=image,
        labels=labels,
        state="exited",
        created=start,
        started=start,
        finished=now - ago,
        project=labels.get(f"{COMPOSE}project"),
        networks=(f"{HARBOR_PROJECT}_default",) if f"{COMPOSE}project" in labels else ("bridge",),
    )


def _running(name: str, image: str, start: datetime, restart: str = "no") -> ContainerSpec:
    return ContainerSpec(
        name=name, image=image, labels={}, state="running", created=start, started=start, restart_policy=restart
    )


def _containers(now: datetime) -> list[ContainerSpec]:
    """Leftovers of Terminal-Bench and Harbor, a trial that is alive, what somebody still looks into, and a database."""
    client = "tb__chess-best-move__client"
    labels = {f"{COMPOSE}project": HARBOR_PROJECT, f"{COMPOSE}project.config_files": HARBOR_FILE}
    return [
        *(
            _stopped(f"chess-best-move-{i}-of-8-2026-11-19__06-30-00", client, timedelta(hours=40 + i), {}, now)
            for i in range(1, 9)
        ),
        *(
            _stopped(f"{HARBOR_PROJECT}-{service}-1", "hb__fix-git", timedelta(hours=30), labels, now)
            for service in ("main", "db")
        ),
        _running("forgotten-1-of-1-2026-11-18__20-00-00", client, now - timedelta(days=3)),
        _running("chess-best-move-1-of-1-2026-11-21__09-00-00", client, now - timedelta(hours=2)),
        _stopped("chess-debugging", client, timedelta(days=3), {"reaper.keep": ""}, now),
        _running("postgres", "postgres:16", now - timedelta(days=90), "always"),
    ]


def _run(state: Path, simulator: Simulator, *arguments: str) -> int:
    words = shlex.join(["reaper", *arguments])
    print(f"\n\033[1m$ {words}\033[0m" if sys.stdout.isatty() else f"\n$ {words}", flush=True)
    env = {
        **os.environ,
        "DOCKER_HOST": simulator.docker_host,
        "STATE_DIRECTORY": str(state),
        "REAPER_RETRY__JITTER": "0s",
        "REAPER_POLICY__OLD_CONTAINERS__STOP_TIMEOUT": "3s",  # nobody wants to watch a sleep ignore its signal for ten
    }
    return subprocess.run([sys.executable, "-m", "reaper", *arguments], env=env, check=False).returncode


def main() -> int:
    """Show it; 0 when everything went as it should."""
    now = datetime.now(UTC)
    network = NetworkSpec(
        name=f"{HARBOR_PROJECT}_default", created=now - timedelta(days=2), labels={f"{COMPOSE}project": HARBOR_PROJECT}
    )
    with tempfile.TemporaryDirectory() as state, Simulator(containers=_containers(now), networks=[network]) as simulator:
        codes = [_run(Path(state), simulator, "list")]
        simulator.faults.add(*(Fault.parse(text) for text in FAULTS))
        codes += [_run(Path(state), simulator, *arguments) for arguments in (("--once",), ("check",), ("list",))]
    return 0 if codes == [0, 0, 0, 0] else 1


if __name__ == "__main__":
    sys.exit(main())
