"""What `make run` does: fill a private engine with what benchmark runs leave behind, and let reaper loose on it.

Everything is real: the engine, the containers, the Compose project, and the program, which is run as its users run it.
Nothing is left behind.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from devkit.engine import Age, PrivateEngine

HARBOR_FOLDER = "harbor/environments/docker"
HARBOR_FILE = "docker-compose-build.yaml"
HARBOR_PROJECT = "fix-git__a1b2c3d"


def _say(text: str) -> None:
    print(f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text, flush=True)


def _fill(engine: PrivateEngine, folder: Path) -> None:
    """Leftovers of Terminal-Bench and Harbor, a trial that is alive, and somebody's database."""
    engine.import_image()
    engine.tag("bench:1", "tb__chess-best-move__client:latest")
    engine.tag("bench:1", "postgres:16")
    engine.fabricate_exited(
        12, timedelta(days=2), {"terminal-bench": "1"}, prefix="chess-best-move-1-of-1-2026-11-19__06-30-00-"
    )
    # Two services and a network, as a killed Harbor job leaves them; they are backdated while they are stopped.
    services = {name: {"image": "bench:1", "command": "sleep infinity"} for name in ("main", "sidecar")}
    place = folder / HARBOR_FOLDER
    place.mkdir(parents=True)
    engine.compose(HARBOR_PROJECT, {"version": "2.4", "services": services}, "up", "-d", directory=place, file=HARBOR_FILE)
    project = [i for i in engine.ids() if engine.inspect(i)["Config"]["Labels"].get("com.docker.compose.project")]
    kept = engine.create("chess-debugging", labels={"terminal-bench": "1", "reaper.keep": ""}, cmd=["true"])
    for ident in project:
        engine.stop_container(ident, timeout=0)
    old = Age(created=timedelta(days=3), started=timedelta(days=3), finished=timedelta(hours=30))
    engine.backdate(dict.fromkeys([*project, kept], old))
    engine.create("chess-best-move-1-of-1-2026-11-21__09-00-00", image="tb__chess-best-move__client:latest", start=True)
    engine.create("postgres", image="postgres:16", start=True, restart="always")


def _run(program: Path, engine: PrivateEngine, *arguments: str) -> int:
    _say(f"\n$ {shlex.join(['reaper', *arguments])}")
    env = {**os.environ, "DOCKER_HOST": engine.host, "STATE_DIRECTORY": str(program)}
    return subprocess.run([sys.executable, "-m", "reaper", *arguments], env=env, check=False).returncode


def main() -> int:
    """Show it; 0 when everything went as it should."""
    reason = PrivateEngine.available()
    if reason is not None:
        print(f"This shows reaper at work on a real Docker engine of its own, and cannot: {reason}")
        print("On Debian: apt-get install docker.io iptables busybox-static docker-compose, and run it as root.")
        return 1
    with tempfile.TemporaryDirectory() as state, PrivateEngine() as engine:
        _say("Starting a private Docker engine and filling it with what benchmark runs leave behind ...")
        _fill(engine, Path(state))
        codes = [_run(Path(state), engine, *arguments) for arguments in (("list",), ("--once",), ("check",))]
        _say("\nWhat is left:")
        for ident in engine.ids():
            details = engine.inspect(ident)
            print(f"  {details['Name'].removeprefix('/')} ({details['State']['Status']})")
        names = {engine.inspect(ident)["Name"].removeprefix("/") for ident in engine.ids()}
    expected = {"chess-debugging", "chess-best-move-1-of-1-2026-11-21__09-00-00", "postgres"}
    return 0 if codes == [0, 0, 0] and names == expected else 1


if __name__ == "__main__":
    sys.exit(main())
